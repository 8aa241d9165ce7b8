"""Kernels of LOCAL_METRICS: sharpness of structure in the tiles of a frame."""

import numpy as np

from tilestack.kernels import entry, part

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
    out = np.full(image.shape, np.nan, np.float32)
    room = np.empty((2, image.shape[1]), np.float32)
    _band_pass(np.ascontiguousarray(image, dtype=np.float32), step, room, out)
    return out


@entry(fastmath={"contract"})
def _band_pass(image, step, room, out):
    h, w = image.shape
    far, inner, outer = 3 * step, room[0], room[1]
    for y in range(far, h - far):
        # By columns first: three near rows, and three far ones.
        _of_three(image[y - step], image[y], image[y + step], inner)
        _of_three(image[y - far], image[y], image[y + far], outer)
        n = w - 2 * far
        near = inner[far - step : far - step + n], inner[far : far + n], inner[far + step : far + step + n]
        _difference(near, (outer[:n], outer[far : far + n], outer[2 * far :]), image[y, far : far + n], out[y, far:])


@part(fastmath={"contract"})
def _of_three(one, other, third, out):
    for x in range(len(out)):
        out[x] = one[x] + other[x] + third[x]


@part(fastmath={"contract"})
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
    _small_structure(codes, float(scale), step, np.empty((3, codes.shape[1]), np.int32), values)
    sums = np.zeros((4, cell.max() + 1, *tiles[2:]))
    room = np.empty((2, tile), np.int32), np.empty((2, 3, tile))
    _structure_sums(values, template, cell, *box[:2], *tiles[:2], tile, stride, *room, sums)
    return sums


# A code counts from 0 on, and a pixel without a value by a bit that no sum of nine codes reaches.
LOWEST, NO_VALUE = 32768, 1 << 20


@entry(fastmath={"contract"})
def _small_structure(codes, scale, step, room, out):
    """Band-pass of codes, exact in integers: NaN where a pixel that it takes has no value."""
    h, w = codes.shape
    far, own, inner, outer = 3 * step, room[0], room[1], room[2]
    for y in range(far, h - far):
        _coded(codes[y], own)
        _of_rows(codes[y - step], own, codes[y + step], inner)
        _of_rows(codes[y - far], own, codes[y + far], outer)
        n = w - 2 * far
        near = inner[far - step : far - step + n], inner[far : far + n], inner[far + step : far + step + n]
        _structure(near, (outer[:n], outer[far : far + n], outer[2 * far :]), own[far : far + n], scale, out[y, far:])


@part()
def _of_rows(above, own, below, out):
    _coded(above, out)
    for x in range(len(out)):
        code = np.int32(below[x])
        out[x] += own[x] + code + np.int32(LOWEST)
        out[x] += np.int32(NO_VALUE) if code == NO_DATA or code == SATURATED else np.int32(0)


@part()
def _coded(codes, out):
    for x in range(len(out)):
        code = np.int32(codes[x])
        bad = code == NO_DATA or code == SATURATED
        out[x] = code + np.int32(LOWEST) + (np.int32(NO_VALUE) if bad else np.int32(0))


@part(fastmath={"contract"})
def _structure(inner, outer, own, scale, out):
    (a, b, c), (d, e, f) = inner, outer
    for x in range(len(own)):
        nine, eight = a[x] + b[x] + c[x], d[x] + e[x] + f[x] - own[x]
        value = scale * ((nine - 9 * LOWEST) / 9 - (eight - 8 * LOWEST) / 8)
        out[x] = value if nine < NO_VALUE and eight < NO_VALUE else np.nan


@entry(fastmath={"contract"})
def _structure_sums(values, template, cell, y0, x0, j0, i0, tile, stride, n, parts, sums):
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
        n[:] = 0
        parts[:] = 0.0
        for y in range(max(bottom, 0), min(bottom + tile, h)):
            row = y & 1
            its = values[y, left:right], template[y, left:right]
            _add_products(*its, n[row], parts[row, 0], parts[row, 1], parts[row, 2])
        for row in range(2):
            for x in range(right - left):
                c = cell[(y0 + row) % 2, (x0 + left + x) % 2]
                sums[0, c, j, i] += n[row, x]
                for k in range(3):
                    sums[1 + k, c, j, i] += parts[row, k, x]


@part(fastmath={"contract"})
def _add_products(values, template, n, cross, power, own):
    for x in range(len(values)):
        value, target = np.float64(values[x]), np.float64(template[x])
        known = not np.isnan(value * target)
        value, target = (value if known else 0.0), (target if known else 0.0)
        n[x] += np.int32(known)
        cross[x] += value * target
        power[x] += target * target
        own[x] += value * value
