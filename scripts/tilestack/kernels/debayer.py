"""Kernels of DEBAYER: a colour image from a stacked mosaic, by linear filters."""

import numpy as np

from tilestack.kernels import entry

# Malvar, He, Cutler 2004, in sixteenths: own pixel and its neighbours at each place of the 5x5 cross and square, for
# green at red or blue, for red or blue at green along its row, and for red at blue or blue at red.
GREEN = np.zeros((5, 5))
GREEN[2] = [-2, 4, 8, 4, -2]
GREEN[[0, 1, 3, 4], 2] = [-2, 4, 4, -2]
ALONG = np.zeros((5, 5))
ALONG[2] = [-2, 8, 10, 8, -2]
ALONG[[0, 4], 2] = 1
ALONG[1, [1, 3]] = ALONG[3, [1, 3]] = -2
ACROSS = np.zeros((5, 5))
ACROSS[2] = [-3, 0, 12, 0, -3]
ACROSS[[0, 4], 2] = -3
ACROSS[1, [1, 3]] = ACROSS[3, [1, 3]] = 4
MALVAR = np.stack([GREEN, ALONG, ALONG.T, ACROSS]) / 16
BILINEAR = np.zeros((4, 5, 5))
BILINEAR[0, [1, 2, 2, 3], [2, 1, 3, 2]] = 1 / 4
BILINEAR[1, 2, [1, 3]] = 1 / 2
BILINEAR[2, [1, 3], 2] = 1 / 2
BILINEAR[3, [1, 1, 3, 3], [1, 3, 1, 3]] = 1 / 4


def debayer(mosaic, variance, cell, filters):
    """Interpolate the colours of a mosaic.

    Parameters
    ----------
    mosaic, variance : (h, w) float32 arrays, ADU and ADU^2
        NaN marks no data.
    cell : (2, 2) int64 array
        Channel (0, 1, 2: red, green, blue) of each phase.
    filters : (4, 5, 5) float64 array
        MALVAR or BILINEAR.

    Returns
    -------
    image, variance : (3, h, w) float32 arrays
        A channel at its own pixels is the mosaic. NaN where the mosaic has no data at the pixel itself; where a filter
        meets missing pixels, the mean of the neighbours of that colour within 1 pixel, NaN without any.
    """
    if mosaic.shape != variance.shape or mosaic.ndim != 2 or filters.shape != (4, 5, 5):
        raise ValueError(
            f"need equal images and (4, 5, 5) filters, got {mosaic.shape}, {variance.shape}, {filters.shape}"
        )
    image, spread = (np.empty((3, *mosaic.shape), np.float32) for _ in range(2))
    _debayer(mosaic, variance, cell, filters, image, spread)
    return image, spread


@entry(fastmath={"contract"})
def _debayer(mosaic, variance, cell, filters, image, spread):
    h, w = mosaic.shape
    for y in range(h):
        for x in range(w):
            own = cell[y % 2, x % 2]
            for c in range(3):
                if np.isnan(mosaic[y, x]):
                    image[c, y, x], spread[c, y, x] = np.nan, np.nan
                    continue
                if c == own:
                    image[c, y, x], spread[c, y, x] = mosaic[y, x], variance[y, x]
                    continue
                if c == 1:
                    kind = 0
                elif own == 1:
                    kind = 1 if cell[y % 2, (x + 1) % 2] == c else 2
                else:
                    kind = 3
                total, power, whole = 0.0, 0.0, True
                for dy in range(-2, 3):
                    for dx in range(-2, 3):
                        factor = filters[kind, dy + 2, dx + 2]
                        if factor == 0:
                            continue
                        yn, xn = y + dy, x + dx
                        if yn < 0 or xn < 0 or yn >= h or xn >= w or np.isnan(mosaic[yn, xn]):
                            whole = False
                            break
                        total += factor * mosaic[yn, xn]
                        power += factor * factor * variance[yn, xn]
                if not whole:
                    total, power, n = 0.0, 0.0, 0
                    for yn in range(max(y - 1, 0), min(y + 2, h)):
                        for xn in range(max(x - 1, 0), min(x + 2, w)):
                            if cell[yn % 2, xn % 2] == c and not np.isnan(mosaic[yn, xn]):
                                total += mosaic[yn, xn]
                                power += variance[yn, xn]
                                n += 1
                    total = total / n if n else np.nan
                    power = power / (n * n) if n else np.nan
                image[c, y, x], spread[c, y, x] = total, power


def superpixel(mosaic, variance, cell):
    """Colours of whole 2x2 cells, both greens averaged: (3, h // 2, w // 2) arrays.

    A cell with a missing pixel is NaN; an odd last row or column is left out.
    """
    h, w = (n // 2 * 2 for n in mosaic.shape)
    image, spread = (np.empty((3, h // 2, w // 2), np.float32) for _ in range(2))
    for c in range(3):
        places = np.argwhere(cell == c)
        image[c] = sum(mosaic[y:h:2, x:w:2] for y, x in places) / len(places)
        spread[c] = sum(variance[y:h:2, x:w:2] for y, x in places) / len(places) ** 2
    missing = np.isnan(image).any(0)
    image[:, missing], spread[:, missing] = np.nan, np.nan
    return image, spread
