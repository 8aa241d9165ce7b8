"""Kernels of LOCAL_METRICS: sharpness of structure in the tiles of a frame."""

import numpy as np
from numba import njit

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


@njit(cache=True, nogil=True, fastmath={"contract"})
def _band_pass(image, step):
    h, w = image.shape
    out = np.full((h, w), np.nan, np.float32)
    far = 3 * step
    for y in range(far, h - far):
        # By columns first: three near rows, and three far ones.
        inner = image[y - step] + image[y] + image[y + step]
        outer = image[y - far] + image[y] + image[y + far]
        n = w - 2 * far
        near = inner[far - step : far - step + n], inner[far : far + n], inner[far + step : far + step + n]
        _difference(near, (outer[:n], outer[far : far + n], outer[2 * far :]), image[y, far : far + n], out[y, far:])
    return out


@njit(fastmath={"contract"})
def _difference(inner, outer, own, out):
    (a, b, c), (d, e, f) = inner, outer
    for x in range(len(own)):
        out[x] = (a[x] + b[x] + c[x]) / np.float32(9) - (d[x] + e[x] + f[x] - own[x]) / np.float32(8)


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
    _structure_sums(values, template, cell, *box[:2], *tiles[:2], tile, stride, sums)
    return sums


# A code counts from 0 on, and a pixel without a value by a bit that no sum of nine codes reaches.
LOWEST, NO_VALUE = 32768, 1 << 20


@njit(cache=True, nogil=True, fastmath={"contract"})
def _small_structure(codes, scale, step, out):
    """Band-pass of codes, exact in integers: NaN where a pixel that it takes has no value."""
    h, w = codes.shape
    far = 3 * step
    for y in range(far, h - far):
        own, inner, outer = np.empty(w, np.int32), np.empty(w, np.int32), np.empty(w, np.int32)
        _coded(codes[y], own)
        _of_rows(codes[y - step], own, codes[y + step], inner)
        _of_rows(codes[y - far], own, codes[y + far], outer)
        n = w - 2 * far
        near = inner[far - step : far - step + n], inner[far : far + n], inner[far + step : far + step + n]
        _structure(near, (outer[:n], outer[far : far + n], outer[2 * far :]), own[far : far + n], scale, out[y, far:])


@njit
def _of_rows(above, own, below, out):
    _coded(above, out)
    for x in range(len(out)):
        code = np.int32(below[x])
        out[x] += own[x] + code + np.int32(LOWEST)
        out[x] += np.int32(NO_VALUE) if code == NO_DATA or code == SATURATED else np.int32(0)


@njit
def _coded(codes, out):
    for x in range(len(out)):
        code = np.int32(codes[x])
        bad = code == NO_DATA or code == SATURATED
        out[x] = code + np.int32(LOWEST) + (np.int32(NO_VALUE) if bad else np.int32(0))


@njit(fastmath={"contract"})
def _structure(inner, outer, own, scale, out):
    (a, b, c), (d, e, f) = inner, outer
    for x in range(len(own)):
        nine, eight = a[x] + b[x] + c[x], d[x] + e[x] + f[x] - own[x]
        value = scale * ((nine - 9 * LOWEST) / 9 - (eight - 8 * LOWEST) / 8)
        out[x] = value if nine < NO_VALUE and eight < NO_VALUE else np.nan


@njit(cache=True, nogil=True, fastmath={"contract"})
def _structure_sums(values, template, cell, y0, x0, j0, i0, tile, stride, sums):
    h, w = values.shape
    _, _, ny, nx = sums.shape
    for job in range(ny * nx):
        j, i = job // nx, job % nx
        bottom = (j0 + j) * stride + (stride - tile) // 2 - y0
        left = (i0 + i) * stride + (stride - tile) // 2 - x0
        right = min(left + tile, w)
        left = max(left, 0)
        if right <= left:
            continue
        # Sums of columns, by the parity of their rows.
        n, parts = np.zeros((2, right - left), np.int32), np.zeros((2, 3, right - left))
        for y in range(max(bottom, 0), min(bottom + tile, h)):
            row = y & 1
            _add_products(
                values[y, left:right], template[y, left:right], n[row], parts[row, 0], parts[row, 1], parts[row, 2]
            )
        for row in range(2):
            for x in range(right - left):
                c = cell[(y0 + row) % 2, (x0 + left + x) % 2]
                sums[0, c, j, i] += n[row, x]
                for k in range(3):
                    sums[1 + k, c, j, i] += parts[row, k, x]


@njit(fastmath={"contract"})
def _add_products(values, template, n, cross, power, own):
    for x in range(len(values)):
        value, target = np.float64(values[x]), np.float64(template[x])
        known = not np.isnan(value * target)
        value, target = (value if known else 0.0), (target if known else 0.0)
        n[x] += np.int32(known)
        cross[x] += value * target
        power[x] += target * target
        own[x] += value * value
