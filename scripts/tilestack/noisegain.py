"""What resampling does to noise: variance of a lattice pixel over that of a raw one, by its place in the frame.

It follows from the weights alone. A prewarped pixel is a sum of raw ones, and so of independent noise: the sum of the
squared weights is its variance. With a Lanczos-3 kernel that is 1 on a raw pixel and 0.62 half-way between four.
"""

import functools

import numpy as np

from tilestack.kernels import prewarp as kernel

# Places a pixel and axis; the table covers a Bayer cell, which is what repeats.
PER_PIXEL = 32


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
        Of the kernel, as in ``kernels.prewarp.warp``; to two places.

    Returns
    -------
    (4, 64, 64) float32 array
        By lattice phase, and by row and column of the place in a 2x2 cell of raw pixels, in steps of 1 / PER_PIXEL.
    """
    cell = np.array(cell).reshape(2, 2)
    places = np.arange(2 * PER_PIXEL) / PER_PIXEL
    result = np.empty((4, len(places), len(places)), np.float32)
    for phase, plane in enumerate(plane_of):
        # Raw pixels that share a colour: a demosaiced plane is itself a sum of raw pixels of all colours.
        demosaiced = step == 1 and cell.max() > 0
        rows, weight_y = _weights((places - offsets[plane][0]) / step, stretch)
        columns, weight_x = _weights((places - offsets[plane][1]) / step, stretch)
        if not demosaiced:
            result[phase] = (weight_y**2).sum(1)[:, None] * (weight_x**2).sum(1)
            continue
        reach = rows.shape[1] // 2 + 4
        total = np.zeros((len(places), len(places), 2 * reach + 4, 2 * reach + 4), np.float32)
        filters = [(py, px, _filter(cell, plane, py, px)) for py in (0, 1) for px in (0, 1)]
        at_y, at_x = np.arange(len(places))[:, None], np.arange(len(places))[None, :]
        for m in range(rows.shape[1]):
            for n in range(columns.shape[1]):
                y, x = rows[:, m][:, None], columns[:, n][None, :]
                share = weight_y[:, m][:, None] * weight_x[:, n][None, :]
                for py, px, terms in filters:
                    here = share * ((y % 2 == py) & (x % 2 == px))
                    for dy, dx, factor in terms:
                        total[at_y, at_x, y + dy + reach, x + dx + reach] += here * factor
        result[phase] = (total**2).sum((2, 3))
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


def _filter(cell, channel, py, px):
    """What demosaicing takes for a channel at a raw pixel of a phase: list of (row offset, column offset, factor)."""
    terms = []
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            impulse = np.zeros((10, 10), np.float32)
            impulse[4 + py + dy, 4 + px + dx] = 1
            factor = float(kernel.demosaic(impulse, cell)[channel, 4 + py, 4 + px])
            if factor:
                terms.append((dy, dx, factor))
    return terms
