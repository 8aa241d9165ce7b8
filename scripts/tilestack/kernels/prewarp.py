"""Kernels of PREWARP beside the resampling: cosmetic correction, demosaicing, extent and gradients, codes."""

import numpy as np
from numba import njit

from tilestack.kernels import entry, part

# Rows whose gradients are added up column by column.
ROWS = 32
Index = np.uintp
ONE, TWO, THREE, FOUR = Index(1), Index(2), Index(3), Index(4)
F = np.float32  # numbers of formulas in single precision: a plain one would make them double


def replace_defects(image, defects, step):
    """Replace listed pixels, in place, by the median of their nearest neighbours of the same colour.

    Parameters
    ----------
    image : (h, w) float32 array, ADU
    defects : (n, 2) int64 array
        Row and column of each.
    step : int
        Pixels between neighbours of one colour: 2 for a mosaic, 1 for mono.
    """
    if image.dtype != np.float32 or image.ndim != 2 or step not in (1, 2):
        raise ValueError(f"need a float32 image and step 1 or 2, got {image.dtype} {image.shape} and {step}")
    _replace_defects(image, np.asarray(defects, dtype=np.int64).reshape(-1, 2), int(step))


@njit(cache=True, nogil=True, fastmath={"contract"})
def _replace_defects(image, defects, step):
    h, w = image.shape
    bad = np.zeros((h, w), np.bool_)
    for k in range(len(defects)):
        bad[defects[k, 0], defects[k, 1]] = True
    ring = np.empty(8)
    for k in range(len(defects)):
        y, x = defects[k, 0], defects[k, 1]
        n = 0
        for dy in range(-step, step + 1, step):
            for dx in range(-step, step + 1, step):
                yn, xn = y + dy, x + dx
                if 0 <= yn < h and 0 <= xn < w and not bad[yn, xn] and not np.isnan(image[yn, xn]):
                    ring[n] = image[yn, xn]
                    n += 1
        image[y, x] = np.median(ring[:n]) if n else np.nan


def demosaic(raw, cell):
    """All three colours at each pixel of a raw mosaic, by the linear filters of Malvar, He and Cutler.

    Parameters
    ----------
    raw : (h, w) float32 array, ADU
        NaN marks a pixel without data, and reaches the 5x5 pixels around it.
    cell : (2, 2) int64 array
        Channel (0, 1, 2: red, green, blue) of each phase.

    Returns
    -------
    (3, h, w) float32 array, ADU
        A channel at its own pixels is the raw value, bit by bit.

    Notes
    -----
    Malvar, He, Cutler, High-quality linear interpolation for demosaicing of Bayer-patterned color images, ICASSP 2004.
    Linear, so that star colours keep no trace of brightness. Rims are mirrored about the outermost pixel.
    """
    if raw.ndim != 2 or min(raw.shape) < 5 or cell.shape != (2, 2):
        raise ValueError(f"raw must be at least (5, 5) and cell (2, 2), got {raw.shape} and {cell.shape}")
    planes = np.empty((3, *raw.shape), np.float32)
    _demosaic(np.pad(raw.astype(np.float32, copy=False), 2, mode="reflect"), cell, planes)
    return planes


@entry(fastmath={"contract"})
def _demosaic(padded, cell, planes):
    for y in range(planes.shape[1]):
        rows = padded[y], padded[y + 1], padded[y + 2], padded[y + 3], padded[y + 4]
        green = Index(0 if cell[y % 2, 0] == 1 else 1)  # the columns of green; the others have one colour too
        own = cell[y % 2, 1 - green]
        _green(rows, green, planes[1, y])
        _of_this_row(rows, green, planes[own, y])
        _of_next_row(rows, green, planes[2 - own, y])


# In single precision, and one loop for each row that is written: of more rows the compiler would have to ask at run
# time whether they overlap, and makes no vectors then. Without fused multiply-add, as in ``drizzle``: what is taken
# one by one behind the last vector of a row must have the same bits.
@part()
def _green(rows, green, out):
    above, up, line, down, below = rows
    for x in range(len(out)):
        k = Index(x)
        c, far = line[k + TWO], (above[k + TWO] + below[k + TWO]) + (line[k] + line[k + FOUR])
        cross = (up[k + TWO] + down[k + TWO]) + (line[k + ONE] + line[k + THREE])
        out[k] = c if k & ONE == green else F(0.125) * (F(4) * c + F(2) * cross - far)


@part()
def _of_this_row(rows, green, out):
    """Red or blue, whichever has pixels in the row."""
    above, up, line, down, below = rows
    for x in range(len(out)):
        k = Index(x)
        c, cross, far = line[k + TWO], line[k + ONE] + line[k + THREE], line[k] + line[k + FOUR]
        corners = (up[k + ONE] + up[k + THREE]) + (down[k + ONE] + down[k + THREE])
        value = F(10) * c + F(8) * cross - F(2) * (far + corners) + (above[k + TWO] + below[k + TWO])
        out[k] = F(0.0625) * value if k & ONE == green else c


@part()
def _of_next_row(rows, green, out):
    """Red or blue, whichever has pixels in the rows above and below."""
    above, up, line, down, below = rows
    for x in range(len(out)):
        k = Index(x)
        c, far_x, far_y = line[k + TWO], line[k] + line[k + FOUR], above[k + TWO] + below[k + TWO]
        corners = (up[k + ONE] + up[k + THREE]) + (down[k + ONE] + down[k + THREE])
        at_green = F(10) * c + F(8) * (up[k + TWO] + down[k + TWO]) - F(2) * (far_y + corners) + far_x
        beside_green = F(12) * c + F(4) * corners - F(3) * (far_x + far_y)
        out[k] = F(0.0625) * (at_green if k & ONE == green else beside_green)


def looked_through(image, step):
    """Extent and mean squared gradient of a resampled frame, by one way through it.

    Parameters
    ----------
    image : (rows, columns) float32 array, ADU
        NaN marks no data.
    step : int
        Pixels between neighbours of one colour: 2 for a mosaic, 1 for mono.

    Returns
    -------
    n_known : int
        Pixels with data.
    low, high : float, ADU
        The least and the largest of them; NaN if there is none.
    energy : float, ADU^2 per pixel^2
        Mean square of central differences, noise included; NaN without data.
    """
    if image.ndim != 2 or step not in (1, 2):
        raise ValueError(f"need an image and step 1 or 2, got shape {image.shape} and {step}")
    h, w = image.shape
    sums, missing = np.zeros((-(-h // ROWS), 2)), np.zeros(h, np.int64)
    low, high = np.full(w, np.inf, np.float32), np.full(w, -np.inf, np.float32)
    _look_through(image, step, sums, missing, low, high)
    total, count = sums.sum(0)
    n_known = image.size - int(missing.sum())
    low, high = (float(low.min()), float(high.max())) if n_known else (np.nan, np.nan)
    return n_known, low, high, total / count if count else np.nan


@njit(cache=True, nogil=True, fastmath={"contract"})
def _look_through(image, step, sums, missing, low, high):
    h, w = image.shape
    for block in range(len(sums)):
        n = max(w - 2 * step, 0)
        total, count = np.zeros(n), np.zeros(n, np.int32)
        for y in range(block * ROWS, min((block + 1) * ROWS, h)):
            line = image[y]
            missing[y] = _widen(line, low, high)
            if step <= y < h - step:
                below, above = image[y - step], image[y + step]
                _add_gradients(line[: w - 2 * step], line[2 * step :], below, above, step, total, count)
        sums[block, 0], sums[block, 1] = total.sum(), count.sum()


@part()
def _widen(values, low, high):
    """Widen the ranges of columns by a row; how many of its pixels have no data."""
    missing = np.int32(0)
    for x in range(len(values)):
        value = values[x]
        low[x] = value if value < low[x] else low[x]  # NaN is neither less nor more
        high[x] = value if value > high[x] else high[x]
        missing += np.int32(value != value)
    return missing


@part(fastmath={"contract"})
def _add_gradients(left, right, below, above, step, total, count):
    below, above, factor = below[step : len(below) - step], above[step : len(above) - step], np.float32(0.5 / step)
    for x in range(len(total)):
        by_x, by_y = (right[x] - left[x]) * factor, (above[x] - below[x]) * factor
        energy = by_x * by_x + by_y * by_y
        known = not np.isnan(energy)
        total[x] += energy if known else np.float32(0.0)
        count[x] += np.int32(known)


def quantise(image, saturated, zero, scale):
    """Code a resampled frame as 16-bit integers: value = zero + scale x code.

    Parameters
    ----------
    image : (rows, columns) float32 array, ADU
        NaN becomes -32768.
    saturated : (rows, columns) bool array
        True becomes 32767, which no other pixel gets.
    zero, scale : float, ADU
        All values must fit in -32767 ... 32766.

    Returns
    -------
    (rows, columns) int16 array
    """
    if image.shape != saturated.shape or not scale > 0:
        raise ValueError(f"need equal shapes and scale > 0, got {image.shape}, {saturated.shape} and {scale}")
    codes = np.empty(image.shape, np.int16)
    _quantise(image, saturated, float(zero), float(scale), codes)
    return codes


@entry(fastmath={"contract"})
def _quantise(image, saturated, zero, scale, codes):
    per_step = 1 / scale
    for y in range(image.shape[0]):
        its, row, out = image[y], saturated[y], codes[y]
        for x in range(len(out)):
            value = its[x]
            code = np.int32(np.rint(min(max((value - zero) * per_step, -32767.0), 32766.0)))
            code = np.int32(32767) if row[x] else code
            out[x] = np.int16(-32768) if np.isnan(value) else np.int16(code)
