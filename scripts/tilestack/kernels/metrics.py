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


def structure_sums(codes, scale, template, corner, cell, box, tiles, tile, stride, step):
    """Sums for the regression of a frame's small structure on the template's, by tile and channel.

    Parameters
    ----------
    codes : (h, w) int16 array
        Prewarped frame in `box`.
    scale : float, ADU
        Of the codes; their zero drops out.
    template : (H, W) float32 array, ADU
        Band-passed template; NaN where there is none.
    corner : (int, int)
        Row and column of it where `box` begins.
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

    Notes
    -----
    Tiles overlap, so sums are made between all of their borders, each pixel once, and added up to tiles.
    """
    (h, w), (top, left) = codes.shape, corner
    if codes.shape != tuple(box[2:]) or min(top, left) < 0 or top + h > len(template) or left + w > template.shape[1]:
        raise ValueError(f"need codes in {box} and a template around it, got {codes.shape}, {template.shape}, {corner}")
    borders = []
    for first, n, offset, size in zip(tiles[:2], tiles[2:], box[:2], codes.shape, strict=True):
        begin = (first + np.arange(n)) * stride + (stride - tile) // 2 - offset
        borders.append((np.clip(begin, 0, size), np.clip(begin + tile, 0, size)))
    cuts = [np.unique(both) for both in borders]
    sums = np.zeros((4, cell.max() + 1, *(len(cut) - 1 for cut in cuts)))
    of_cell = np.ascontiguousarray(np.roll(cell, (-(box[0] % 2), -(box[1] % 2)), (0, 1)))
    room = np.empty((3, w), np.int32), np.empty(w, np.float32), np.empty((2, w), np.int32), np.empty((2, 3, w))
    _structure_sums(codes, float(scale), step, template, int(top), int(left), of_cell, *cuts, *room, sums)
    for axis, (cut, (begin, end)) in enumerate(zip(cuts, borders, strict=True), start=2):
        sums = _between(sums, np.searchsorted(cut, begin), np.searchsorted(cut, end), axis)
    return sums


def _between(values, first, end, axis):
    """Sums of values from each first to the one before its end, along an axis."""
    behind = np.zeros((*values.shape[:axis], 1, *values.shape[axis + 1 :]))  # where ranges may begin that hold nothing
    ends = np.column_stack([first, end]).ravel()
    sums = np.add.reduceat(np.concatenate([values, behind], axis), ends, axis)
    sums = sums.take(np.arange(0, len(ends), 2), axis)
    # Of an empty range that gives the value where it begins.
    return np.where((end > first).reshape(-1, *[1] * (values.ndim - 1 - axis)), sums, 0.0)


# A code counts from 0 on, and a pixel without a value by a bit that no sum of nine codes reaches.
LOWEST, NO_VALUE = 32768, 1 << 20


@entry(fastmath={"contract"})
def _structure_sums(codes, scale, step, template, top, left, cell, cuts_y, cuts_x, room, values, n, parts, sums):
    h, w = codes.shape
    far, own, inner, outer = 3 * step, room[0], room[1], room[2]
    width = w - 2 * far
    if width <= 0:
        return
    for j in range(len(cuts_y) - 1):
        # Sums of columns, by the parity of their rows.
        n[:] = 0
        parts[:] = 0.0
        for y in range(max(cuts_y[j], far), min(cuts_y[j + 1], h - far)):
            # The band-pass of codes, exact in integers.
            _coded(codes[y], own)
            _of_rows(codes[y - step], own, codes[y + step], inner)
            _of_rows(codes[y - far], own, codes[y + far], outer)
            near = (
                inner[far - step : far - step + width],
                inner[far : far + width],
                inner[far + step : far + step + width],
            )
            ring = outer[:width], outer[far : far + width], outer[2 * far :]
            _structure(near, ring, own[far : far + width], scale, values[far:])
            row = y & 1
            its = values[far : far + width], template[top + y, left + far : left + far + width]
            _add_products(*its, n[row, far:], parts[row, 0, far:], parts[row, 1, far:], parts[row, 2, far:])
        for i in range(len(cuts_x) - 1):
            for row in range(2):
                for x in range(max(cuts_x[i], far), min(cuts_x[i + 1], w - far)):
                    c = cell[row, x & 1]
                    sums[0, c, j, i] += n[row, x]
                    for k in range(3):
                        sums[1 + k, c, j, i] += parts[row, k, x]


@part()
def _of_rows(above, own, below, out):
    for x in range(len(out)):
        out[x] = _code(above[x]) + own[x] + _code(below[x])


@part()
def _coded(codes, out):
    for x in range(len(out)):
        out[x] = _code(codes[x])


@part()
def _code(code):
    code, none = np.int32(code), np.int32(0)
    bad = (np.int32(NO_VALUE) if code == NO_DATA else none) + (np.int32(NO_VALUE) if code == SATURATED else none)
    return code + np.int32(LOWEST) + bad


@part(fastmath={"contract"})
def _structure(inner, outer, own, scale, out):
    """Mean of nine pixels less that of eight around them, from whole numbers; what codes count from drops out."""
    (a, b, c), (d, e, f) = inner, outer
    scale, nan, none = np.float32(scale / 72), np.float32(np.nan), np.int32(NO_VALUE)
    for x in range(len(own)):
        nine, eight = a[x] + b[x] + c[x], d[x] + e[x] + f[x] - own[x]
        value = scale * np.float32(np.int32(8) * nine - np.int32(9) * eight)
        out[x] = value if (nine < none) & (eight < none) else nan


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
