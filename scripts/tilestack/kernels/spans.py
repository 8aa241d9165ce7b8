"""Kernels of prewarped frames in files: of each row only the pixels from the first with data to the last."""

import numpy as np
from numba import njit

NO_DATA = -32768


@njit(cache=True, nogil=True)
def pack(codes):
    """Pixels of a frame row by row, without what lies outside of it.

    Parameters
    ----------
    codes : (h, w) int16 array
        NO_DATA marks a pixel without data.

    Returns
    -------
    pixels : (n,) int16 array
    first, end : (h,) int32 arrays
        First column with data and the one behind the last; both 0 where a row has none.
    """
    h, w = codes.shape
    first, end = np.zeros(h, np.int32), np.zeros(h, np.int32)
    n = 0
    for y in range(h):
        low, high = 0, w
        while low < w and codes[y, low] == NO_DATA:
            low += 1
        while high > low and codes[y, high - 1] == NO_DATA:
            high -= 1
        if high > low:
            first[y], end[y] = low, high
            n += high - low
    pixels = np.empty(n, np.int16)
    n = 0
    for y in range(h):
        for x in range(first[y], end[y]):
            pixels[n] = codes[y, x]
            n += 1
    return pixels, first, end


@njit(cache=True, nogil=True)
def unpack(pixels, first, end, left, out):
    """Put rows of a frame, as ``pack`` leaves them, where they belong in a box, in place.

    Parameters
    ----------
    pixels : (n,) int16 array
        Of these rows alone.
    first, end : (rows,) int32 arrays
    left : int
        Column of the frame at which the box begins; may be negative.
    out : (rows, columns) int16 array
        Only pixels of the frame are set.
    """
    n = 0
    for y in range(len(first)):
        for x in range(max(first[y], left), min(end[y], left + out.shape[1])):
            out[y, x - left] = pixels[n + x - first[y]]
        n += end[y] - first[y]
