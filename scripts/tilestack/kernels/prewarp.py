"""Kernels of PREWARP: cosmetic correction, demosaicing, resampling onto the lattice, meshes of sky and noise."""

import math

import numpy as np
from numba import njit, prange

# Positions in a pixel for which the weights of the Lanczos kernel are tabulated; half a step is 0.0005 px.
N_PHASES = 1024
TAPS = 6
# Values behind the median of a mesh cell; its error is then 1.25 / sqrt(2000) of the pixel noise.
CELL_SAMPLE = 2000
# Pixels of a pair for the noise of resampled pixels: farther apart than interpolation reaches.
FAR_PX = 8
# Standard deviation of a normal distribution that is cut off at 3 sigma.
CUT_AT_3 = 0.98658
# What a resampled pixel stands near to.
CLEAR, TOUCHES_SATURATED, SATURATED = 0, 1, 2


def lanczos_table(a=3):
    """Weights of the Lanczos-a kernel at N_PHASES + 1 positions in a pixel.

    Each row sums to 1, so that constants stay as they are; and what its centre of mass is off (up to 0.011 px, by which
    stars would move) is made good between the two inner taps, so that slopes stay as they are.

    Source of the kernel: C. E. Duchon, Lanczos Filtering in One and Two Dimensions, J. Appl. Meteor. 18 (1979) 1016.
    """
    position = np.arange(N_PHASES + 1) / N_PHASES
    taps = np.arange(1 - a, a + 1)
    offset = position[:, None] - taps
    weights = np.sinc(offset) * np.sinc(offset / a) * (abs(offset) < a)
    weights /= weights.sum(1, keepdims=True)
    missing = position - weights @ taps
    weights[:, a - 1] -= missing
    weights[:, a] += missing
    return weights.astype(np.float32)


TABLE = lanczos_table()


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


@njit(cache=True, fastmath={"contract"})
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
    return _demosaic(np.ascontiguousarray(raw, dtype=np.float32), cell)


@njit(cache=True, parallel=True, fastmath={"contract"})
def _demosaic(raw, cell):
    h, w = raw.shape
    planes = np.empty((3, h, w), np.float32)
    for y in prange(h):
        yu, yuu = abs(y - 1), abs(y - 2)
        yd, ydd = h - 1 - abs(h - 1 - (y + 1)), h - 1 - abs(h - 1 - (y + 2))
        for x in range(w):
            xl, xll = abs(x - 1), abs(x - 2)
            xr, xrr = w - 1 - abs(w - 1 - (x + 1)), w - 1 - abs(w - 1 - (x + 2))
            own = cell[y % 2, x % 2]
            c = raw[y, x]
            cross_x, cross_y = raw[y, xl] + raw[y, xr], raw[yu, x] + raw[yd, x]
            far_x, far_y = raw[y, xll] + raw[y, xrr], raw[yuu, x] + raw[ydd, x]
            corners = raw[yu, xl] + raw[yu, xr] + raw[yd, xl] + raw[yd, xr]
            planes[own, y, x] = c
            if own == 1:
                along_x = (10 * c + 8 * cross_x - 2 * far_x + far_y - 2 * corners) / 16
                along_y = (10 * c + 8 * cross_y - 2 * far_y + far_x - 2 * corners) / 16
                beside = cell[y % 2, (x + 1) % 2]
                planes[beside, y, x] = along_x
                planes[2 - beside, y, x] = along_y
            else:
                planes[1, y, x] = (4 * c + 2 * (cross_x + cross_y) - far_x - far_y) / 8
                planes[2 - own, y, x] = (12 * c + 4 * corners - 3 * (far_x + far_y)) / 16
    return planes


def saturation_map(raw, saturation):
    """Where a resampled pixel has saturated raw pixels near it.

    Parameters
    ----------
    raw : (h, w) float32 array, ADU
    saturation : float or None, ADU

    Returns
    -------
    (h, w) uint8 array
        Indexed by the raw pixel below a position: SATURATED where one of the four pixels around the position is,
        TOUCHES_SATURATED where one of the 6x6 under the kernel is, else CLEAR.
    """
    near = np.zeros(raw.shape, np.uint8)
    if saturation is not None:
        ys, xs = np.nonzero(raw >= saturation)
        _mark_saturated(near, ys, xs)
    return near


@njit(cache=True)
def _mark_saturated(near, ys, xs):
    h, w = near.shape
    for reach_low, reach_high, mark in ((3, 2, TOUCHES_SATURATED), (1, 0, SATURATED)):
        for k in range(len(ys)):
            for y in range(max(ys[k] - reach_low, 0), min(ys[k] + reach_high, h - 1) + 1):
                for x in range(max(xs[k] - reach_low, 0), min(xs[k] + reach_high, w - 1) + 1):
                    near[y, x] = mark


def warp(planes, plane_of, step, offsets, near, to_frame, box):
    """Resample a frame onto a box of the lattice with the Lanczos-3 kernel.

    Parameters
    ----------
    planes : (p, hp, wp) float32 array, ADU
        The frame: one plane of mono, three of a demosaiced frame, or four sub-planes.
    plane_of : (2, 2) int64 array
        Plane that a lattice pixel takes its value from, by its Bayer phase in the lattice.
    step : int
        Raw pixels per plane pixel and axis.
    offsets : (p, 2) int64 array
        Raw row and column of the first pixel of each plane.
    near : (h, w) uint8 array
        From ``saturation_map``.
    to_frame : (2, 3) float64 array
        Maps (x, y, 1) of the lattice to (x, y) of the raw frame.
    box : (int, int, int, int)
        y0, x0, rows, columns of the lattice.

    Returns
    -------
    image : (rows, columns) float32 array, ADU
        Surface brightness is kept: values are per raw pixel. NaN where the kernel leaves the frame or meets a pixel
        without data.
    saturated : (rows, columns) bool array
        Pixels that stand on saturated raw ones.

    Notes
    -----
    Values are held to the range of the pixels under the kernel only where it touches a saturated pixel, so that the
    ringing of a clipped core stays out; everywhere else that would change the flux of stars by 0.1-0.4 %.
    """
    if planes.ndim != 3 or planes.dtype != np.float32 or offsets.shape != (len(planes), 2):
        raise ValueError(
            f"need (p, h, w) float32 planes with p offsets, got {planes.dtype} {planes.shape}, {offsets.shape}"
        )
    y0, x0, rows, columns = box
    image = np.empty((rows, columns), np.float32)
    saturated = np.zeros((rows, columns), np.bool_)
    _warp(planes, plane_of, float(step), offsets, near, np.asarray(to_frame, float), y0, x0, TABLE, image, saturated)
    return image, saturated


@njit(cache=True, parallel=True, fastmath={"contract"})
def _warp(planes, plane_of, step, offsets, near, to_frame, y0, x0, table, image, saturated):
    rows, columns = image.shape
    _, hp, wp = planes.shape
    h, w = near.shape
    for j in prange(rows):
        lattice_y = y0 + j
        for i in range(columns):
            lattice_x = x0 + i
            x = to_frame[0, 0] * lattice_x + to_frame[0, 1] * lattice_y + to_frame[0, 2]
            y = to_frame[1, 0] * lattice_x + to_frame[1, 1] * lattice_y + to_frame[1, 2]
            image[j, i] = np.nan
            # Outside by less than rounding is the rim itself.
            if x < -1e-6 or y < -1e-6 or x > w - 1 + 1e-6 or y > h - 1 + 1e-6:
                continue
            p = plane_of[lattice_y % 2, lattice_x % 2]
            u, v = (x - offsets[p, 1]) / step, (y - offsets[p, 0]) / step
            ix, iy = int(math.floor(u)), int(math.floor(v))
            if ix < 2 or iy < 2 or ix + 3 >= wp or iy + 3 >= hp:
                # At the outermost pixels there is no kernel; on the grid itself none is needed.
                if abs(u - round(u)) < 1e-6 and abs(v - round(v)) < 1e-6:
                    image[j, i] = planes[p, min(max(round(v), 0), hp - 1), min(max(round(u), 0), wp - 1)]
                    saturated[j, i] = near[min(max(round(y), 0), h - 1), min(max(round(x), 0), w - 1)] == SATURATED
                continue
            px, py = int((u - ix) * N_PHASES + 0.5), int((v - iy) * N_PHASES + 0.5)
            a0, a1, a2 = table[px, 0], table[px, 1], table[px, 2]
            a3, a4, a5 = table[px, 3], table[px, 4], table[px, 5]
            left = ix - 2
            total = np.float32(0.0)
            for m in range(TAPS):
                line = planes[p, iy - 2 + m]
                total += table[py, m] * (
                    a0 * line[left]
                    + a1 * line[left + 1]
                    + a2 * line[left + 2]
                    + a3 * line[left + 3]
                    + a4 * line[left + 4]
                    + a5 * line[left + 5]
                )
            mark = near[min(int(y), h - 1), min(int(x), w - 1)]
            if mark != CLEAR:
                low, high = np.float32(np.inf), np.float32(-np.inf)
                for m in range(TAPS):
                    for n in range(TAPS):
                        value = planes[p, iy - 2 + m, left + n]
                        low, high = min(low, value), max(high, value)
                total = min(max(total, low), high)
                saturated[j, i] = mark == SATURATED
            image[j, i] = total


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


@njit(cache=True, parallel=True, fastmath={"contract"})
def _sky_mesh(image, cell, step, y0, x0, mesh, first_y, first_x, level, noise):
    rows, columns = image.shape
    n_channels, ny, nx = level.shape
    for job in prange(ny * nx):
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
            n, n_pairs, count, seen = 0, 0, 0, 0
            for y in range(bottom, top):
                for x in range(left, right):
                    if cell[(y0 + y) % 2, (x0 + x) % 2] != c:
                        continue
                    seen += 1
                    if seen % stride:
                        continue
                    count += 1
                    value = image[y, x]
                    if np.isnan(value) or n >= len(values):
                        continue
                    values[n] = value
                    n += 1
                    if x + FAR_PX < right and not np.isnan(image[y, x + FAR_PX]):
                        differences[n_pairs] = abs(value - image[y, x + FAR_PX])
                        n_pairs += 1
            if n * stride < 0.25 * full or n < 16 or n_pairs < 8:
                continue
            noise[c, j, i] = _spread(differences[:n_pairs]) / math.sqrt(2.0)
            level[c, j, i] = _clipped_mean(values[:n])


@njit(fastmath={"contract"})
def _spread(differences):
    """Standard deviation behind absolute differences: rms of those below 3 sigma, corrected for that cut.

    A median would do, but where the converter has coarse steps it jumps from step to step; a mean does not.
    """
    spread = 1.4826 * np.median(differences)
    for _ in range(4):
        total, count = 0.0, 0
        for k in range(len(differences)):
            if differences[k] <= 3 * spread:
                total += differences[k] * differences[k]
                count += 1
        if count == 0 or total == 0:
            return spread
        spread = math.sqrt(total / count) / CUT_AT_3
    return spread


@njit(fastmath={"contract"})
def _clipped_mean(values):
    """Mean of the values within 3 sigma of it, from a start at the median; reorders nothing."""
    centre = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - centre))
    for _ in range(8):
        total, square, count = 0.0, 0.0, 0
        for k in range(len(values)):
            offset = values[k] - centre
            if abs(offset) <= 3 * spread:
                total += offset
                square += offset * offset
                count += 1
        if count < 8:
            return centre
        shift = total / count
        spread = math.sqrt(max(square / count - shift * shift, 0.0)) / CUT_AT_3
        centre += shift
        if abs(shift) < 1e-4 * spread:
            break
    return centre


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
        Standard deviation by differences of neighbours of one colour in a row; NaN where there are too few.
    """
    if raw.ndim != 2 or mesh < 16 or mesh % 2:
        raise ValueError(f"need a raw light and an even mesh >= 16, got shape {raw.shape} and {mesh}")
    ny, nx = -(-raw.shape[0] // mesh), -(-raw.shape[1] // mesh)
    noise = np.full((cell.max() + 1, ny, nx), np.nan)
    _noise_mesh(raw, cell, 2 if cell.max() > 0 else 1, mesh, noise)
    return noise


@njit(cache=True, parallel=True, fastmath={"contract"})
def _noise_mesh(raw, cell, step, mesh, noise):
    h, w = raw.shape
    n_channels, ny, nx = noise.shape
    for job in prange(ny * nx):
        j, i = job // nx, job % nx
        bottom, left = j * mesh, i * mesh
        top, right = min(bottom + mesh, h), min(left + mesh, w)
        for c in range(n_channels):
            stride = max(1, mesh * mesh // (step * step) // CELL_SAMPLE)
            differences = np.empty(4 * CELL_SAMPLE)
            n, seen = 0, 0
            for y in range(bottom, top):
                for x in range(left, right - step):
                    if cell[y % 2, x % 2] != c:
                        continue
                    seen += 1
                    if seen % stride or n >= len(differences):
                        continue
                    difference = raw[y, x] - raw[y, x + step]
                    if not np.isnan(difference):
                        differences[n] = abs(difference)
                        n += 1
            if n >= 16:
                noise[c, j, i] = _spread(differences[:n]) / math.sqrt(2.0)


def gradient_energy(image, step):
    """Mean squared gradient of a resampled frame.

    Parameters
    ----------
    image : (rows, columns) float32 array, ADU
        NaN marks no data.
    step : int
        Pixels between neighbours of one colour: 2 for a mosaic, 1 for mono.

    Returns
    -------
    float, ADU^2 per pixel^2
        Of central differences, noise included; NaN without data.
    """
    if image.ndim != 2 or step not in (1, 2):
        raise ValueError(f"need an image and step 1 or 2, got shape {image.shape} and {step}")
    sums = np.zeros((image.shape[0], 2))
    _gradient_energy(image, step, sums)
    total, count = sums.sum(0)
    return total / count if count else np.nan


@njit(cache=True, parallel=True, fastmath={"contract"})
def _gradient_energy(image, step, sums):
    h, w = image.shape
    for y in prange(step, h - step):
        for x in range(step, w - step):
            by_x = (image[y, x + step] - image[y, x - step]) / (2 * step)
            by_y = (image[y + step, x] - image[y - step, x]) / (2 * step)
            energy = by_x * by_x + by_y * by_y
            if not np.isnan(energy):
                sums[y, 0] += energy
                sums[y, 1] += 1


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


@njit(cache=True, parallel=True, fastmath={"contract"})
def _quantise(image, saturated, zero, scale, codes):
    for y in prange(image.shape[0]):
        for x in range(image.shape[1]):
            if np.isnan(image[y, x]):
                codes[y, x] = -32768
            elif saturated[y, x]:
                codes[y, x] = 32767
            else:
                codes[y, x] = min(max(round((image[y, x] - zero) / scale), -32767), 32766)
