"""Kernels of PREWARP beside the resampling: cosmetic correction, demosaicing, meshes of sky and noise, codes."""

import math

import numpy as np
from numba import njit

from tilestack.kernels import entry, part

# Values behind the median of a mesh cell; its error is then 1.25 / sqrt(2000) of the pixel noise.
CELL_SAMPLE = 2000
# Those behind a median from which clipping starts.
START_SAMPLE = 256
# Pixels of a pair for the noise of resampled pixels: farther apart than interpolation reaches.
FAR_PX = 8
# Standard deviation of a normal distribution that is cut off at 3 sigma.
CUT_AT_3 = 0.98658
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


def sky_mesh(image, cell, y0, x0, mesh):
    """Sky level and pixel noise of a resampled frame in the cells of a mesh that is anchored to the lattice.

    Parameters
    ----------
    image : (rows, columns) float32 array, ADU
        NaN marks no data.
    cell : (2, 2) int64 array
        Channel of each Bayer phase of the lattice; all 0 for mono.
    y0, x0 : int
        Lattice position of the first pixel.
    mesh : int
        Side of a cell in lattice pixels, even.

    Returns
    -------
    origin : (int, int)
        Index of the first cell, row and column: it begins at lattice pixel ``mesh`` times that.
    level : (c, ny, nx) float64 array, ADU
        Mean after clipping at 3 standard deviations; NaN where less than a quarter of the cell has data.
    noise : (c, ny, nx) float64 array, ADU
        Standard deviation of a resampled pixel, by differences of pixels 8 px apart.
    """
    if image.ndim != 2 or mesh < 16 or mesh % 2:
        raise ValueError(f"need an image and an even mesh >= 16, got shape {image.shape} and {mesh}")
    rows, columns = image.shape
    first_y, first_x = y0 // mesh, x0 // mesh
    ny, nx = (y0 + rows - 1) // mesh - first_y + 1, (x0 + columns - 1) // mesh - first_x + 1
    level, noise = (np.full((cell.max() + 1, ny, nx), np.nan) for _ in range(2))
    step = 2 if cell.max() > 0 else 1
    _sky_mesh(image, cell, step, y0, x0, mesh, first_y, first_x, level, noise)
    return (first_y, first_x), level, noise


@njit(cache=True, nogil=True, fastmath={"contract"})
def _sky_mesh(image, cell, step, y0, x0, mesh, first_y, first_x, level, noise):
    rows, columns = image.shape
    n_channels, ny, nx = level.shape
    some = np.empty(2 * START_SAMPLE)
    for job in range(ny * nx):
        j, i = job // nx, job % nx
        bottom, left = max((first_y + j) * mesh - y0, 0), max((first_x + i) * mesh - x0, 0)
        top, right = min((first_y + j + 1) * mesh - y0, rows), min((first_x + i + 1) * mesh - x0, columns)
        for c in range(n_channels):
            n_phases = 0
            for dy in range(step):
                for dx in range(step):
                    n_phases += cell[(y0 + bottom + dy) % 2, (x0 + left + dx) % 2] == c
            full = mesh * mesh * n_phases // (step * step)
            # Every so many pixels of the channel along a row, so that the sample is spread over the cell.
            stride = max(1, full // CELL_SAMPLE)
            values, differences = np.empty(2 * CELL_SAMPLE), np.empty(2 * CELL_SAMPLE)
            n, n_pairs, seen = 0, 0, 0
            for y in range(bottom, top):
                first = _first_of(cell[(y0 + y) % 2], x0 + left, step, c)
                if first < 0:
                    continue
                for x in range(left + first + (stride - 1 - seen % stride) * step, right, stride * step):
                    value = image[y, x]
                    if np.isnan(value) or n >= len(values):
                        continue
                    values[n] = value
                    n += 1
                    if x + FAR_PX < right and not np.isnan(image[y, x + FAR_PX]):
                        differences[n_pairs] = abs(value - image[y, x + FAR_PX])
                        n_pairs += 1
                seen += (right - left - first + step - 1) // step
            if n * stride < 0.25 * full or n < 16 or n_pairs < 8:
                continue
            noise[c, j, i] = _spread(differences[:n_pairs], some) / math.sqrt(2.0)
            level[c, j, i] = _clipped_mean(values[:n], some)


@part()
def _first_of(phases, x, step, c):
    """How far from column x the first pixel of a channel is in a row of these phases; -1 where it has none."""
    for k in range(step):
        if phases[(x + k) % 2] == c:
            return k
    return -1


@part()
def _rough_median(values, centre, some):
    """Median distance from a centre, or with the centre NaN median, of some of the values, evenly spread: enough to
    start from. `some` is room for twice START_SAMPLE."""
    n = Index(0)
    for k in range(0, len(values), max(1, len(values) // START_SAMPLE)):
        some[n] = values[k] if np.isnan(centre) else abs(values[k] - centre)
        n += Index(1)
    return _middle(some[:n])


@part()
def _middle(values):
    """The lower median, or a value near it: less than 1e-6 of the range, which is halved, as counting is quicker than
    sorting."""
    low = high = values[0]
    for k in range(1, len(values)):
        low, high = min(low, values[k]), max(high, values[k])
    for _ in range(20):
        x, count = 0.5 * (low + high), 0
        for k in range(len(values)):
            count += np.int64(values[k] <= x)
        low, high = (low, x) if 2 * count >= len(values) else (x, high)
    # One of the values: 0 where most are, and never a little more than most of them.
    middle = -np.inf
    for k in range(len(values)):
        middle = max(middle, values[k]) if values[k] <= high else middle
    return middle


@njit(fastmath={"contract"})
def _spread(differences, some):
    """Standard deviation behind absolute differences: rms of those below 3 sigma, corrected for that cut.

    A median would do, but where the converter has coarse steps it jumps from step to step; a mean does not.
    """
    spread = 1.4826 * _rough_median(differences, np.nan, some)
    for _ in range(4):
        count, _, square = _within(differences, 0.0, 3 * spread)
        if count == 0 or square == 0:
            return spread
        spread = math.sqrt(square / count) / CUT_AT_3
    return spread


@njit(fastmath={"contract"})
def _clipped_mean(values, some):
    """Mean of the values within 3 sigma of it, from a start at their median."""
    centre = _rough_median(values, np.nan, some)
    spread = 1.4826 * _rough_median(values, centre, some)
    for _ in range(8):
        count, total, square = _within(values, centre, 3 * spread)
        if count < 8:
            return centre
        shift = total / count
        spread = math.sqrt(max(square / count - shift * shift, 0.0)) / CUT_AT_3
        centre += shift
        if abs(shift) < 1e-4 * spread:
            break
    return centre


@part(fastmath={"contract"})
def _within(values, centre, reach):
    """Number of values within reach of a centre, and the sums of their offsets and of the squares of these."""
    count = 0
    for k in range(len(values)):
        count += np.int64(abs(values[k] - centre) <= reach)
    # Four sums each, side by side: one alone would wait for its last turn each time.
    t0 = t1 = t2 = t3 = s0 = s1 = s2 = s3 = 0.0
    n = len(values) // 4 * 4
    for k in range(0, n, 4):
        a, b, c, d = values[k] - centre, values[k + 1] - centre, values[k + 2] - centre, values[k + 3] - centre
        a, b = (a if abs(a) <= reach else 0.0), (b if abs(b) <= reach else 0.0)
        c, d = (c if abs(c) <= reach else 0.0), (d if abs(d) <= reach else 0.0)
        t0, t1, t2, t3 = t0 + a, t1 + b, t2 + c, t3 + d
        s0, s1, s2, s3 = s0 + a * a, s1 + b * b, s2 + c * c, s3 + d * d
    for k in range(n, len(values)):
        a = values[k] - centre
        a = a if abs(a) <= reach else 0.0
        t0, s0 = t0 + a, s0 + a * a
    return count, (t0 + t1) + (t2 + t3), (s0 + s1) + (s2 + s3)


def noise_mesh(raw, cell, mesh):
    """Noise of raw pixels in square cells of a light.

    Parameters
    ----------
    raw : (h, w) float32 array, ADU
        NaN marks no data.
    cell : (2, 2) int64 array
        Channel of each phase; all 0 for mono.
    mesh : int
        Side of a cell in raw pixels, even.

    Returns
    -------
    (c, ny, nx) float64 array, ADU
        Standard deviation of sky pixels, by differences of neighbours of one colour in a row; NaN where there are too
        few.

    Notes
    -----
    Sum and difference of two pixels of equal noise are independent, so pairs are chosen by their sum: those within
    one standard deviation of its median. That leaves out stars and their wings, whose photon noise is not the sky's. To
    both sides, because the noise of photons grows with the sum. Measured in a crowded field: 0.9 % of the noise, and up
    to 6 % of the variance of single cells.
    """
    if raw.ndim != 2 or mesh < 16 or mesh % 2:
        raise ValueError(f"need a raw light and an even mesh >= 16, got shape {raw.shape} and {mesh}")
    ny, nx = -(-raw.shape[0] // mesh), -(-raw.shape[1] // mesh)
    noise = np.full((cell.max() + 1, ny, nx), np.nan)
    _noise_mesh(raw, cell, 2 if cell.max() > 0 else 1, mesh, noise)
    return noise


@njit(cache=True, nogil=True, fastmath={"contract"})
def _noise_mesh(raw, cell, step, mesh, noise):
    h, w = raw.shape
    n_channels, ny, nx = noise.shape
    some = np.empty(2 * START_SAMPLE)
    for job in range(ny * nx):
        j, i = job // nx, job % nx
        bottom, left = j * mesh, i * mesh
        top, right = min(bottom + mesh, h), min(left + mesh, w)
        for c in range(n_channels):
            stride = max(1, mesh * mesh // (step * step) // CELL_SAMPLE)
            differences, sums = np.empty(4 * CELL_SAMPLE + 1), np.empty(4 * CELL_SAMPLE + 1)
            n, seen = Index(0), 0
            for y in range(bottom, top):
                first = _first_of(cell[y % 2], left, step, c)
                if first < 0:
                    continue
                line, next_line = raw[y, :w], raw[y, step:]
                begin = left + first + (stride - 1 - seen % stride) * step
                for x in range(Index(begin), Index(max(right - step, begin)), Index(stride * step)):
                    one, other = line[x], next_line[x]
                    differences[n], sums[n] = abs(one - other), one + other
                    n += Index(not np.isnan(one - other))
                seen += (right - step - left - first + step - 1) // step
            if n >= 16:
                middle, reach = _rough_median(sums[:n], np.nan, some), _spread(differences[:n], some)
                kept = Index(0)
                for k in range(n):  # no branch: which way it goes could not be foreseen
                    differences[kept] = differences[k]
                    kept += Index(abs(sums[k] - middle) <= reach)  # at least the one in the middle
                noise[c, j, i] = _spread(differences[:kept], some) / math.sqrt(2.0)


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
