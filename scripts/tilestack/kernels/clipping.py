"""Kernels of sky and noise: means of what lies within 3 standard deviations, of samples and of mesh cells of frames."""

import math

import numpy as np
from numba import njit

from tilestack.kernels import entry, part

# Values behind the median of a mesh cell; its error is then 1.25 / sqrt(2000) of the pixel noise.
CELL_SAMPLE = 2000
# Those behind a median from which clipping starts.
START_SAMPLE = 256
# Sums, and extremes, are taken so many values apart, in as many places side by side, which are vectors: a single one
# would wait for its last turn each time.
LANES = 32
# Pixels of a pair for the noise of resampled pixels: farther apart than interpolation reaches.
FAR_PX = 8
# Standard deviation of a normal distribution that is cut off at 3 sigma.
CUT_AT_3 = 0.98658
Index = np.uintp


def clipped(values):
    """Mean and standard deviation of the values within 3 standard deviations of their mean, from a start by medians.

    Unlike medians they do not jump from step to step where a converter has coarse ones.

    Parameters
    ----------
    values : float array
        What is not finite is passed over.

    Returns
    -------
    (float, float)
        NaN of nothing.
    """
    values = np.ascontiguousarray(values).reshape(-1)
    return _clipped(values, np.empty(len(values) + 1, np.float32), _room())


@entry(fastmath={"contract"})
def _clipped(values, known, room):
    n = Index(0)
    for k in range(len(values)):
        known[n] = values[k]
        n += Index(abs(values[k]) < np.inf)
    return _clipped_mean(known[:n], room) if n > 0 else (np.nan, np.nan)


def pixel_noise(rows):
    """Standard deviation of a pixel, by differences of neighbours in a row: gradients and nebulae drop out.

    Parameters
    ----------
    rows : (n, m) array
        Pixels of one colour; NaN marks no data.
    """
    return clipped(rows[:, 1:] - rows[:, :-1])[1] / np.sqrt(2)


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
    samples = np.empty((2, 2 * CELL_SAMPLE + 1), np.float32)
    _sky_mesh(image, cell, step, y0, x0, mesh, first_y, first_x, *samples, _room(), level, noise)
    return (first_y, first_x), level, noise


@entry(fastmath={"contract"})
def _sky_mesh(image, cell, step, y0, x0, mesh, first_y, first_x, values, differences, room, level, noise):
    rows, columns = image.shape
    n_channels, ny, nx = level.shape
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
            n, n_pairs, seen = Index(0), Index(0), 0
            for y in range(bottom, top):
                first = _first_of(cell[(y0 + y) % 2], x0 + left, step, c)
                if first < 0:
                    continue
                line, begin = image[y, :right], left + first + (stride - 1 - seen % stride) * step
                for x in range(Index(begin), Index(max(right, begin)), Index(stride * step)):
                    values[n] = line[x]
                    n += Index(not np.isnan(values[n]))
                for x in range(Index(begin), Index(max(right - FAR_PX, begin)), Index(stride * step)):
                    differences[n_pairs] = abs(line[x] - line[x + Index(FAR_PX)])
                    n_pairs += Index(not np.isnan(differences[n_pairs]))
                seen += (right - left - first + step - 1) // step
            if n * stride < 0.25 * full or n < 16 or n_pairs < 8:
                continue
            noise[c, j, i] = _spread(differences[:n_pairs], room) / math.sqrt(2.0)
            level[c, j, i], _ = _clipped_mean(values[:n], room)


@part()
def _first_of(phases, x, step, c):
    """How far from column x the first pixel of a channel is in a row of these phases; -1 where it has none."""
    for k in range(step):
        if phases[(x + k) % 2] == c:
            return k
    return -1


def _room():
    """Room for twice START_SAMPLE values, and for sums by LANES."""
    return np.empty(2 * START_SAMPLE, np.float32), np.empty((3, LANES), np.float32)


@part()
def _rough_median(values, centre, room):
    """Median distance from a centre, or with the centre NaN median, of some of the values, evenly spread: enough to
    start from."""
    some, lanes = room
    n = Index(0)
    for k in range(0, len(values), max(1, len(values) // START_SAMPLE)):
        some[n] = values[k] if np.isnan(centre) else abs(values[k] - np.float32(centre))
        n += Index(1)
    return _middle(some[:n], lanes)


@part()
def _middle(values, lanes):
    """The lower median, or a value near it: less than 1e-6 of the range, which is halved, as counting is quicker than
    sorting."""
    lowest, highest, whole = lanes[0], lanes[1], len(values) // LANES * LANES
    for i in range(LANES):
        lowest[i] = highest[i] = values[0]
    for k in range(0, whole, LANES):
        _widened(values[k:], LANES, lowest, highest)
    _widened(values[whole:], len(values) - whole, lowest, highest)
    low, high = lowest[0], highest[0]
    for i in range(1, LANES):
        low, high = min(low, lowest[i]), max(high, highest[i])
    for _ in range(20):
        x, count = np.float32(0.5) * (low + high), np.int32(0)
        for k in range(len(values)):
            count += np.int32(values[k] <= x)
        low, high = (low, x) if 2 * count >= len(values) else (x, high)
    # One of the values: 0 where most are, and never a little more than most of them.
    for i in range(LANES):
        highest[i] = -np.inf
    for k in range(0, whole, LANES):
        _highest(values[k:], LANES, high, highest)
    _highest(values[whole:], len(values) - whole, high, highest)
    middle = -np.inf
    for i in range(LANES):
        middle = max(middle, highest[i])
    return middle


@part()
def _widened(values, n, low, high):
    for i in range(n):
        low[i] = values[i] if values[i] < low[i] else low[i]
        high[i] = values[i] if values[i] > high[i] else high[i]


@part()
def _highest(values, n, limit, high):
    for i in range(n):
        high[i] = values[i] if (values[i] <= limit) & (values[i] > high[i]) else high[i]


@njit(_nrt=False, fastmath={"contract"})
def _spread(differences, room):
    """Standard deviation behind absolute differences: rms of those below 3 sigma, corrected for that cut.

    A median would do, but where the converter has coarse steps it jumps from step to step; a mean does not.
    """
    spread = 1.4826 * _rough_median(differences, np.nan, room)
    for _ in range(4):
        count, _, square = _within(differences, np.float32(0.0), np.float32(3 * spread), room[1])
        if count == 0 or square == 0:
            return spread
        before, spread = spread, math.sqrt(square / count) / CUT_AT_3
        if abs(spread - before) < 1e-4 * spread:
            break
    return spread


@njit(_nrt=False, fastmath={"contract"})
def _clipped_mean(values, room):
    """Mean of the values within 3 sigma of it, from a start at their median, and their standard deviation."""
    centre = _rough_median(values, np.nan, room)
    spread = 1.4826 * _rough_median(values, centre, room)
    for _ in range(8):
        start = np.float32(centre)
        count, total, square = _within(values, start, np.float32(3 * spread), room[1])
        if count < 8:
            break
        shift = total / count
        spread = math.sqrt(max(square / count - shift * shift, 0.0)) / CUT_AT_3
        centre = start + shift
        if abs(shift) < 1e-4 * spread:
            break
    return centre, spread


@part(fastmath={"contract"})
def _within(values, centre, reach, lanes):
    """Number of values within reach of a centre, and the sums of their offsets and of the squares of these: single
    precision, in as many parts as there are lanes."""
    counts, totals, squares, whole = lanes[0], lanes[1], lanes[2], len(values) // LANES * LANES
    for i in range(LANES):
        counts[i] = totals[i] = squares[i] = np.float32(0.0)
    for k in range(0, whole, LANES):
        _add_within(values[k:], LANES, centre, reach, counts, totals, squares)
    _add_within(values[whole:], len(values) - whole, centre, reach, counts, totals, squares)
    count = total = square = 0.0
    for i in range(LANES):
        count, total, square = count + counts[i], total + totals[i], square + squares[i]
    return count, total, square


@part(fastmath={"contract"})
def _add_within(values, n, centre, reach, counts, totals, squares):
    for i in range(n):
        offset = values[i] - centre
        near = abs(offset) <= reach
        offset = offset if near else np.float32(0.0)
        counts[i] += np.float32(near)
        totals[i] += offset
        squares[i] += offset * offset


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
    samples = np.empty((2, 4 * CELL_SAMPLE + 1), np.float32)
    _noise_mesh(raw, cell, 2 if cell.max() > 0 else 1, mesh, *samples, _room(), noise)
    return noise


@entry(fastmath={"contract"})
def _noise_mesh(raw, cell, step, mesh, differences, sums, room, noise):
    h, w = raw.shape
    n_channels, ny, nx = noise.shape
    for job in range(ny * nx):
        j, i = job // nx, job % nx
        bottom, left = j * mesh, i * mesh
        top, right = min(bottom + mesh, h), min(left + mesh, w)
        for c in range(n_channels):
            stride = max(1, mesh * mesh // (step * step) // CELL_SAMPLE)
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
                middle, reach = _rough_median(sums[:n], np.nan, room), _spread(differences[:n], room)
                kept = Index(0)
                for k in range(n):  # no branch: which way it goes could not be foreseen
                    differences[kept] = differences[k]
                    kept += Index(abs(sums[k] - middle) <= reach)  # at least the one in the middle
                noise[c, j, i] = _spread(differences[:kept], room) / math.sqrt(2.0)
