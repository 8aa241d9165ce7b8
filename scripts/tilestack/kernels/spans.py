"""Kernels of prewarped frames in files: of each row only the pixels from the first with data to the last."""

import numpy as np

from tilestack.kernels import entry, part

NO_DATA = -32768


def pack(codes):
    """Pixels of a frame row by row, without what lies outside of it.

    Parameters
    ----------
    codes : (h, w) int16 array
        NO_DATA marks a pixel without data.

    Returns
    -------
    pixels : (n,) big-endian int16 array
    first, end : (h,) int32 arrays
        First column with data and the one behind the last; both 0 where a row has none.
    """
    if codes.ndim != 2 or codes.dtype != np.int16:
        raise ValueError(f"need int16 codes (h, w), got {codes.dtype} {codes.shape}")
    codes = np.ascontiguousarray(codes)
    first, end = np.zeros(len(codes), np.int32), np.zeros(len(codes), np.int32)
    _find(codes, first, end)
    pixels = np.empty((end - first).sum(), np.int16)
    _pack(codes, first, end, pixels)
    return pixels.view(">i2"), first, end


@entry()
def _find(codes, first, end):
    w = codes.shape[1]
    for y in range(len(codes)):
        low, high = 0, w
        while low < w and codes[y, low] == NO_DATA:
            low += 1
        while high > low and codes[y, high - 1] == NO_DATA:
            high -= 1
        if high > low:
            first[y], end[y] = low, high


@entry()
def _pack(codes, first, end, pixels):
    n = 0
    for y in range(len(codes)):
        length = end[y] - first[y]
        _swap(codes[y, first[y] : end[y]], pixels[n : n + length])
        n += length


@part()
def _swap(codes, out):
    """Swap the bytes of numbers: of those of the machine, which is little-endian, and those of FITS."""
    for k in range(len(out)):
        code = np.uint16(codes[k])
        out[k] = np.int16(np.uint16(code << np.uint16(8)) | np.uint16(code >> np.uint16(8)))


def unpack(pixels, first, end, left, out):
    """Put rows of a frame, as ``pack`` leaves them, where they belong in a box, in place.

    Parameters
    ----------
    pixels : (n,) big-endian int16 array
        Of these rows alone.
    first, end : (rows,) int32 arrays
    left : int
        Column of the frame at which the box begins; may be negative.
    out : (rows, columns) int16 array
        NO_DATA where the frame has none.
    """
    if pixels.dtype.str != ">i2" or len(first) != len(out) or len(pixels) != (end - first).sum():
        raise ValueError(f"need the big-endian pixels of {len(out)} rows, got {pixels.dtype} {pixels.shape}")
    _unpack(pixels.view(np.int16), first, end, left, out)


@entry()
def _unpack(pixels, first, end, left, out):
    n, width = 0, out.shape[1]
    for y in range(len(first)):
        low = min(max(first[y] - left, 0), width)
        high = max(min(end[y] - left, width), low)
        start = n + low + left - first[y]
        out[y, :low] = NO_DATA
        _swap(pixels[start : start + high - low], out[y, low:high])
        out[y, high:] = NO_DATA
        n += end[y] - first[y]
