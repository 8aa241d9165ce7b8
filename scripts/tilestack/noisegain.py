"""What resampling does to noise: variance of a lattice pixel over that of a raw one, by its place in the frame.

It follows from the weights alone. A prewarped pixel is a sum of raw ones, and so of independent noise: the sum of the
squared weights is its variance. With a Lanczos-3 kernel that is 1 on a raw pixel and 0.62 half-way between four.
"""

import functools

import numpy as np

from tilestack.kernels import prewarp
from tilestack.kernels import warp as kernel

# Places a pixel and axis; the table covers a Bayer cell, which is what repeats.
PER_PIXEL = 32
# Rows, and columns, that demosaicing takes a colour from.
N_OFFSETS = 5


@functools.lru_cache(maxsize=64)
def table(cell, plane_of, offsets, step, stretch):
    """Sum of squared weights by lattice phase and place in the frame.

    Parameters
    ----------
    cell : tuple
        Channel of each Bayer phase of the frame, row by row; all 0 for mono.
    plane_of : tuple
        Plane that a lattice pixel of each phase takes its value from, row by row.
    offsets : tuple of (int, int)
        Raw row and column of the first pixel of each plane.
    step : int
        Raw pixels per plane pixel: 1 of a light or a demosaiced one, 2 of sub-planes.
    stretch : float
        Of the kernel, as in ``kernels.warp``; to two places.

    Returns
    -------
    (4, 64, 64) float32 array
        By lattice phase, and by row and column of the place in a 2x2 cell of raw pixels, in steps of 1 / PER_PIXEL.
    """
    cell = np.array(cell).reshape(2, 2)
    # Raw pixels that share a colour: a demosaiced plane is itself a sum of raw pixels of all colours.
    demosaiced = step == 1 and cell.max() > 0
    filters = _filters(cell) if demosaiced else None
    places = np.arange(2 * PER_PIXEL) / PER_PIXEL
    result = np.empty((4, len(places), len(places)), np.float32)
    for phase, plane in enumerate(plane_of):
        rows, weight_y = _weights((places - offsets[plane][0]) / step, stretch)
        columns, weight_x = _weights((places - offsets[plane][1]) / step, stretch)
        if demosaiced:
            # With taps V_y and V_x of a row and a column the raw pixels come in with V_y' F V_x, whose squares sum to
            # the trace of (V_y V_y') F (V_x V_x') F'.
            by_row, by_column = _products(rows, weight_y), _products(columns, weight_x)
            through = filters[plane] @ by_column @ filters[plane].T
            result[phase] = np.einsum("yij,xij->yx", by_row, through, optimize=True)
        else:
            result[phase] = (weight_y**2).sum(1)[:, None] * (weight_x**2).sum(1)
    return result


def _weights(place, stretch):
    """Pixels under the kernel at places along an axis, and its weights: (n, taps) arrays."""
    base = np.floor(place).astype(int)
    if stretch <= kernel.LEAST_STRETCH:
        taps = kernel.TAPS // 2
        weights = kernel.TABLE[np.round((place - base) * kernel.N_PHASES).astype(int)]
        return base[:, None] + np.arange(1 - taps, taps + 1), weights.astype(float)
    reach = 3 * stretch
    pixels = base[:, None] + np.arange(-int(np.ceil(reach)), int(np.ceil(reach)) + 2)
    weights = np.zeros(pixels.shape)
    for row, at in enumerate(place):
        first, last = int(np.ceil(at - reach)), int(np.floor(at + reach))
        under = np.empty(last - first + 1)
        kernel.stretched_weights(at, first, last, stretch, under)
        weights[row, first - pixels[row, 0] :][: len(under)] = under
    return pixels, weights


def _filters(cell):
    """What demosaicing makes of raw pixels: (channels, 10, 10) factors, by the parity of the row it is done for and the
    offset (-2 to 2) of the raw row, parity outermost, and by the same of the columns."""
    factors = np.zeros((cell.max() + 1, 2, N_OFFSETS, 2, N_OFFSETS))
    middle, reach = 6, N_OFFSETS // 2
    for a, b in np.ndindex(2, 2):
        impulse = np.zeros((2 * middle + 2, 2 * middle + 2), np.float32)
        impulse[middle + a, middle + b] = 1
        response = prewarp.demosaic(impulse, cell)
        for dy, dx in np.ndindex(N_OFFSETS, N_OFFSETS):
            y, x = middle + a - (dy - reach), middle + b - (dx - reach)
            factors[:, y % 2, dy, x % 2, dx] = response[:, y, x]
    return factors.reshape(len(factors), 2 * N_OFFSETS, 2 * N_OFFSETS)


def _products(pixels, weights):
    """Products V V' of an axis, (n, 10, 10): V holds the weights of the pixels of each parity, moved by each offset."""
    n, taps = pixels.shape
    moved = np.zeros((n, 2, N_OFFSETS, taps + N_OFFSETS - 1))
    for parity in (0, 1):
        for offset in range(N_OFFSETS):
            moved[:, parity, offset, offset : offset + taps] = np.where(pixels % 2 == parity, weights, 0)
    moved = moved.reshape(n, 2 * N_OFFSETS, -1)
    return moved @ moved.transpose(0, 2, 1)
