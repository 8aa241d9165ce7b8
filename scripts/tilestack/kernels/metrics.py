"""Kernels of LOCAL_METRICS: sharpness of structure in the tiles of a frame."""

import numpy as np
from numba import njit, prange

NO_DATA, SATURATED = -32768, 32767


def band_pass(image, step):
    """Small structure of an image: the mean of 3x3 neighbours of one colour less that of a ring of eight 3 away.

    Parameters
    ----------
    image : (h, w) float32 array
        NaN marks no data and spreads to what it touches.
    step : int
        Pixels between neighbours of one colour.

    Returns
    -------
    (h, w) float32 array
        NaN within 3 steps of the rim. White noise of variance 1 becomes one of variance 1/9 + 1/8.
    """
    if image.ndim != 2 or step not in (1, 2):
        raise ValueError(f"need an image and step 1 or 2, got shape {image.shape} and {step}")
    return _band_pass(np.ascontiguousarray(image, dtype=np.float32), step)


@njit(cache=True, parallel=True, fastmath={"contract"})
def _band_pass(image, step):
    h, w = image.shape
    out = np.full((h, w), np.nan, np.float32)
    far = 3 * step
    for y in prange(far, h - far):
        for x in range(far, w - far):
            inner = np.float32(0.0)
            for dy in range(-step, step + 1, step):
                for dx in range(-step, step + 1, step):
                    inner += image[y + dy, x + dx]
            outer = np.float32(0.0)
            for dy in range(-far, far + 1, far):
                for dx in range(-far, far + 1, far):
                    if dy != 0 or dx != 0:
                        outer += image[y + dy, x + dx]
            out[y, x] = inner / 9 - outer / 8
    return out


def structure_sums(codes, scale, template, cell, box, tiles, tile, stride, step):
    """Sums for the regression of a frame's small structure on the template's, by tile and channel.

    Parameters
    ----------
    codes : (h, w) int16 array
        Prewarped frame in `box`.
    scale : float, ADU
        Of the codes; their zero drops out.
    template : (h, w) float32 array, ADU
        Band-passed template in the same box; NaN where there is none.
    cell : (2, 2) int64 array
        Channel of each Bayer phase of the lattice.
    box : (int, int, int, int)
        y0, x0, rows, columns.
    tiles : (int, int, int, int)
        First row and column, number of rows and columns of the tiles.
    tile, stride : int
        Side and pitch of the tiles in lattice pixels.
    step : int
        Pixels between neighbours of one colour.

    Returns
    -------
    (4, c, ny, nx) float64 array
        Number of pixels, sum of frame x template, of template^2 and of frame^2, in ADU^2.
    """
    if codes.shape != template.shape or codes.shape != tuple(box[2:]):
        raise ValueError(f"need equal shapes, got {codes.shape}, {template.shape} and box {box}")
    values = np.full(codes.shape, np.nan, np.float32)
    _small_structure(codes, float(scale), step, values)
    sums = np.zeros((4, cell.max() + 1, *tiles[2:]))
    _structure_sums(values, template, cell, *box[:2], *tiles[:2], tile, stride, step, sums)
    return sums


# A code counts from 0 on, and a pixel without a value by a bit that no sum of nine codes reaches.
LOWEST, NO_VALUE = 32768, 1 << 20


@njit(cache=True, parallel=True, fastmath={"contract"})
def _small_structure(codes, scale, step, out):
    """Band-pass of codes, exact in integers: NaN where a pixel that it takes has no value."""
    h, w = codes.shape
    far = 3 * step
    for y in prange(far, h - far):
        own, inner, outer = np.empty(w, np.int32), np.empty(w, np.int32), np.empty(w, np.int32)
        for x in range(w):
            own[x] = _coded(codes[y, x])
            inner[x] = _coded(codes[y - step, x]) + own[x] + _coded(codes[y + step, x])
            outer[x] = _coded(codes[y - far, x]) + own[x] + _coded(codes[y + far, x])
        line = out[y]
        for x in range(far, w - far):
            nine = inner[x - step] + inner[x] + inner[x + step]
            eight = outer[x - far] + outer[x] + outer[x + far] - own[x]
            value = scale * ((nine - 9 * LOWEST) / 9 - (eight - 8 * LOWEST) / 8)
            line[x] = value if nine < NO_VALUE and eight < NO_VALUE else np.nan


@njit
def _coded(code):
    return np.int32(code) + np.int32(LOWEST) + np.int32(NO_VALUE if code == NO_DATA or code == SATURATED else 0)


@njit(cache=True, parallel=True, fastmath={"contract"})
def _structure_sums(values, template, cell, y0, x0, j0, i0, tile, stride, step, sums):
    h, w = values.shape
    _, _, ny, nx = sums.shape
    for job in prange(ny * nx):
        j, i = job // nx, job % nx
        bottom = (j0 + j) * stride + (stride - tile) // 2 - y0
        left = (i0 + i) * stride + (stride - tile) // 2 - x0
        right = min(left + tile, w)
        left = max(left, 0)
        for y in range(max(bottom, 0), min(bottom + tile, h)):
            for first in range(left, min(left + step, right)):
                n, cross, power, own = 0, 0.0, 0.0, 0.0
                for x in range(first, right, step):
                    value, target = np.float64(values[y, x]), np.float64(template[y, x])
                    if not np.isnan(value * target):
                        n += 1
                        cross += value * target
                        power += target * target
                        own += value * value
                c = cell[(y0 + y) % 2, (x0 + first) % 2]
                sums[0, c, j, i] += n
                sums[1, c, j, i] += cross
                sums[2, c, j, i] += power
                sums[3, c, j, i] += own
