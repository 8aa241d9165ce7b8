"""Kernels of TILE_RECONSTRUCTION: which pixels are outliers, and the weighted sums of those that are not."""

import math
from collections import namedtuple

import numpy as np
from numba import njit, prange

NO_DATA, SATURATED = -32768, 32767
# Marks of a pixel of a frame.
KEPT, REJECTED, CLIPPED, MISSING = 0, 1, 2, 3
# Sums of a pixel over frames; the even and the odd frames apart where halves are compared.
SUMS = ("WY_EVEN", "W_EVEN", "WY_ODD", "W_ODD", "W2V", "W2R", "IY", "I", "Y", "EXPOSURE")
COUNTS = ("N",)
# Fields of a frame over the tiles, in this order.
FIELDS = ("SCALE", "SKY", "VARIANCE", "FWHM", "WEIGHT")
# Step of the bank of blurred templates: variance of a blur in px^2, and the most steps.
BLUR_STEP, MOST_BLURS = 0.4, 10
# A sharper frame is compared with the template less what blur would add, for so many steps at the most.
MOST_SHARPER = 3.0
# A pixel darker than its sky has less noise, but no less than this share of the variance.
LEAST_VARIANCE = 0.3
# FWHM of a Gaussian squared over its variance.
FWHM2 = 8 * np.log(2)


def blurred(template, step, n):
    """A template and its blurred forms: (n, h, w) float32.

    Parameters
    ----------
    template : (h, w) float32 array, ADU
        NaN where there is none.
    step : int
        Pixels between neighbours of one colour.
    n : int
        Level j is blurred by a variance of j times BLUR_STEP along each axis.

    Notes
    -----
    A pass of three taps ``v / (2 s^2), 1 - v / s^2, v / (2 s^2)`` at distance s along each axis adds the variance v.
    Where a neighbour is missing the pixel stands in for it.
    """
    if template.ndim != 2 or n < 1 or step not in (1, 2):
        raise ValueError(f"need an image, at least one level and step 1 or 2, got {template.shape}, {n} and {step}")
    bank = np.empty((n, *template.shape), np.float32)
    bank[0] = template
    side = np.float32(BLUR_STEP / (2 * step * step))
    between = np.empty_like(bank[0])
    for j in range(1, n):
        _three_taps(bank[j - 1], step, side, between)
        _three_taps(between.T, step, side, bank[j].T)
    return bank


@njit(cache=True, parallel=True, fastmath={"contract"})
def _three_taps(image, step, side, out):
    h, w = image.shape
    for y in prange(h):
        for x in range(w):
            own = image[y, x]
            above = image[y - step, x] if y >= step else own
            below = image[y + step, x] if y + step < h else own
            above = own if np.isnan(above) else above
            below = own if np.isnan(below) else below
            out[y, x] = own + side * (above + below - 2 * own)


def tolerance(template, variance, sky, local_sky, grid, cell, step, range_tolerance, signal_tolerance):
    """What a frame may differ from the template by, beyond its own noise; and the light above the local sky.

    Parameters
    ----------
    template, variance : (h, w) float32 arrays, ADU and ADU^2
        NaN where there is no template.
    sky : (2, 2) float64 array, ADU
        Sky level of the template by phase of the band.
    local_sky : (c, ny, nx) float64 array, ADU
        The level near which the noise of frames was measured, nebulae included, at the nodes of a grid.
    grid, cell
        As in ``mark``.
    step : int
        Pixels between neighbours of one colour.
    range_tolerance, signal_tolerance : float
        Shares of the range in 3x3 neighbours of one colour, and of the light above the sky.

    Returns
    -------
    squared : (h, w) float32 array, ADU^2
        v_T + (a R_T)^2 + (c (T - sky))^2.
    signal : (h, w) float32 array, ADU
        Light above the local sky, below it negative: held at 0 the noise of the template would pass for light. 0 where
        there is no template.
    """
    if template.shape != variance.shape or template.ndim != 2:
        raise ValueError(f"need equal images, got {template.shape} and {variance.shape}")
    squared, signal = np.empty(template.shape, np.float32), np.empty(template.shape, np.float32)
    tolerances = (float(range_tolerance), float(signal_tolerance))
    _tolerance(template, variance, sky, local_sky, grid, cell, step, tolerances, squared, signal)
    return squared, signal


@njit(cache=True, parallel=True, fastmath={"contract"})
def _tolerance(template, variance, sky, local_sky, grid, cell, step, tolerances, squared, signal):
    h, w = template.shape
    range_tolerance, signal_tolerance = tolerances
    _, ny, nx = local_sky.shape
    for y in prange(h):
        at_y = min(max(grid[0] + y / grid[2], 0.0), ny - 1.0)
        j = max(min(int(at_y), ny - 2), 0)
        up, fy = min(j + 1, ny - 1), at_y - j
        for x in range(w):
            low, high = np.inf, -np.inf
            for dy in range(-step, step + 1, step):
                for dx in range(-step, step + 1, step):
                    yn, xn = y + dy, x + dx
                    if 0 <= yn < h and 0 <= xn < w and not np.isnan(template[yn, xn]):
                        low, high = min(low, template[yn, xn]), max(high, template[yn, xn])
            light = max(template[y, x] - sky[y % 2, x % 2], 0.0) if not np.isnan(template[y, x]) else 0.0
            at_x = min(max(grid[1] + x / grid[2], 0.0), nx - 1.0)
            i = max(min(int(at_x), nx - 2), 0)
            right, fx = min(i + 1, nx - 1), at_x - i
            level = local_sky[cell[y % 2, x % 2]]
            here = (1 - fy) * ((1 - fx) * level[j, i] + fx * level[j, right])
            here += fy * ((1 - fx) * level[up, i] + fx * level[up, right])
            signal[y, x] = template[y, x] - here if not np.isnan(template[y, x]) else 0.0
            squared[y, x] = variance[y, x] + (range_tolerance * (high - low)) ** 2 + (signal_tolerance * light) ** 2


def mark(codes, zero, scale, fields, grid, cell, places, bank, width, squared, signal, options):
    """Mark the pixels of frames: kept, rejected by the template, saturated, or without data.

    Parameters
    ----------
    codes : (n, h, w) int16 array
        Prewarped frames in a band.
    zero, scale : (n,) float64 arrays
        Value of a frame = zero + scale x code, in ADU.
    fields : (n, 5, c, ny, nx) float32 array
        FIELDS of each frame at the nodes of a grid; bilinear between them.
    grid : (float, float, float)
        Row and column of the band's first pixel in units of the grid, counted from its first node, and its pitch in
        pixels.
    cell : (2, 2) int64 array
        Channel of each phase of the band.
    places : Places
        Where the pixels of the band lie in the raw frames.
    bank : (m, h, w) float32 array
        From ``blurred``.
    width : (h, w) float32 array
        FWHM of the template.
    squared, signal : (h, w) float32 arrays
        From ``tolerance``.
    options : dict
        ``inverse_gain`` (ADU per electron, 0 where unknown), ``kappa`` (limit in standard deviations),
        ``seeing_tolerance`` (share of what the blur changes that a frame may differ by).

    Returns
    -------
    (n, h, w) uint8 array
    """
    n, h, w = codes.shape
    if fields.shape[:2] != (n, len(FIELDS)) or bank.shape[1:] != (h, w) or width.shape != (h, w):
        raise ValueError(f"need n frames with {len(FIELDS)} fields, got {codes.shape}, {fields.shape}, {bank.shape}")
    marks = np.empty((n, h, w), np.uint8)
    limits = (float(options["inverse_gain"]), float(options["kappa"]), float(options["seeing_tolerance"]))
    _mark(codes, zero, scale, fields, grid, cell, places, bank, width, squared, signal, limits, marks)
    return marks


# Where the pixels of a band lie in the raw frames: lattice position y0, x0 of its first pixel; transforms to the raw
# frames (n, 2, 3), and the distortion behind them as in ``kernels.prewarp.warp`` or None; tables of ``noisegain``
# (m, 4, p, p), the one of each frame (n,), and the lattice area of a raw pixel (n,).
Places = namedtuple("Places", "y0 x0 to_frame lens tables table_of area")


@njit(fastmath={"contract"})
def _in_frame(to_frame, lens, x, y):
    """Place in the raw frame of a lattice position: that of ``kernels.prewarp``, whose changes no cache would see."""
    u = to_frame[0, 0] * x + to_frame[0, 1] * y + to_frame[0, 2]
    v = to_frame[1, 0] * x + to_frame[1, 1] * y + to_frame[1, 2]
    if lens is None:
        return u, v
    # The polynomial takes raw positions to straight ones: going back, twice round is good to 1e-3 px.
    px, py = u, v
    for _ in range(2):
        a, b = px / lens[0, 0] - lens[1, 0], py / lens[0, 0] - lens[1, 1]
        dx = dy = 0.0
        powers = (a * a, a * b, b * b, a * a * a, a * a * b, a * b * b, b * b * b)
        for k in range(7):
            dx += powers[k] * lens[2 + k, 0]
            dy += powers[k] * lens[2 + k, 1]
        px, py = u - dx, v - dy
    return px, py


@njit(fastmath={"contract"})
def _noise_gain(places, k, y, x):
    """Variance of a resampled pixel over that of a raw one."""
    at_x, at_y = float(places.x0 + x), float(places.y0 + y)
    tables = places.tables
    u, v = _in_frame(places.to_frame[k], places.lens, at_x, at_y)
    u, v = 0.5 * u, 0.5 * v
    n = tables.shape[2]
    i, j = int((u - math.floor(u)) * n + 0.5), int((v - math.floor(v)) * n + 0.5)
    i, j = (0 if i == n else i), (0 if j == n else j)
    return tables[places.table_of[k], 2 * ((places.y0 + y) % 2) + (places.x0 + x) % 2, j, i]


@njit(fastmath={"contract"})
def _pixel_variance(places, k, y, x, raw, photons):
    """Variance of a resampled pixel: of its sky by lattice area, and of the photons above or below it."""
    raw = raw / places.area[k]
    return _noise_gain(places, k, y, x) * max(raw + photons, LEAST_VARIANCE * raw)


@njit(cache=True, parallel=True, fastmath={"contract"})
def _mark(codes, zero, scale, fields, grid, cell, places, bank, width, squared, signal, limits, marks):
    n, h, w = codes.shape
    inverse_gain, kappa, seeing_tolerance = limits
    most = len(bank) - 1
    for y in prange(h):
        lines = _lines(fields, grid[0] + y / grid[2])
        for k in range(n):
            for x in range(w):
                code = codes[k, y, x]
                if code == NO_DATA:
                    marks[k, y, x] = MISSING
                    continue
                if code == SATURATED:
                    marks[k, y, x] = CLIPPED
                    continue
                marks[k, y, x] = KEPT
                target = bank[0, y, x]
                if np.isnan(target):
                    continue
                c = cell[y % 2, x % 2]
                at = grid[1] + x / grid[2]
                i = min(max(int(at), 0), lines.shape[3] - 2)
                f = at - i
                t = lines[k, 0, c, i] + f * (lines[k, 0, c, i + 1] - lines[k, 0, c, i])
                sky = lines[k, 1, c, i] + f * (lines[k, 1, c, i + 1] - lines[k, 1, c, i])
                raw = lines[k, 2, c, i] + f * (lines[k, 2, c, i + 1] - lines[k, 2, c, i])
                value = (zero[k] + scale[k] * code - sky) / t
                allowed = _pixel_variance(places, k, y, x, raw, signal[y, x] * inverse_gain / t) + squared[y, x]
                if (value - target) ** 2 <= kappa * kappa * allowed:
                    continue
                # Beyond its noise: is it the seeing? The template as broad as the frame, and what that changes.
                fwhm = lines[k, 3, c, i] + f * (lines[k, 3, c, i + 1] - lines[k, 3, c, i])
                blur = (fwhm * fwhm - width[y, x] * width[y, x]) / (FWHM2 * BLUR_STEP)
                if most > 0 and not np.isnan(blur):
                    blur = min(max(blur, -MOST_SHARPER), float(most))
                    level = min(max(int(blur), 0), most - 1)
                    low, high = bank[level, y, x], bank[level + 1, y, x]
                    moved = low + (blur - level) * (high - low)
                    change = seeing_tolerance * max(abs(moved - target), _sharper(signal[y, x], width[y, x], fwhm))
                    allowed += change * change
                    target = moved
                if (value - target) ** 2 > kappa * kappa * allowed:
                    marks[k, y, x] = REJECTED


@njit(fastmath={"contract"})
def _sharper(light, width, fwhm):
    """By how much the peak of a star outgrows that of the template in a sharper frame: no blur undone can tell."""
    return max(light, 0.0) * max(width * width / (fwhm * fwhm) - 1, 0.0)


@njit(fastmath={"contract"})
def _lines(fields, at):
    """Fields interpolated to one row: (n, 5, c, nx)."""
    n, n_fields, n_channels, ny, nx = fields.shape
    j = min(max(int(at), 0), ny - 2)
    f = np.float32(at - j)
    lines = np.empty((n, n_fields, n_channels, nx), np.float32)
    for k in range(n):
        for m in range(n_fields):
            for c in range(n_channels):
                for i in range(nx):
                    low, high = fields[k, m, c, j, i], fields[k, m, c, j + 1, i]
                    lines[k, m, c, i] = low + f * (high - low)
    return lines


def painted(codes, first_row, starts, y, x, reach):
    """Marks of a band from the rejected pixels of its frames.

    Parameters
    ----------
    codes : (n, h, w) int16 array
        Prewarped frames in the band.
    first_row : int
        Row of the band in the box that `y` counts in.
    starts : (n + 1,) int64 array
        Where the pixels of each frame begin in `y` and `x`, and where the last ends.
    y, x : (m,) int64 arrays
        Rejected pixels; those out of the band count too, where they reach into it.
    reach : int
        Pixels by which they grow to all sides.

    Returns
    -------
    (n, h, w) uint8 array
        A rejected pixel that is saturated or has no data keeps that mark.
    """
    if len(starts) != len(codes) + 1 or len(y) != len(x) or reach < 0:
        raise ValueError(f"need the bounds of {len(codes)} frames and reach >= 0, got {len(starts)} and {reach}")
    marks = np.empty(codes.shape, np.uint8)
    _paint(codes, first_row, starts, y, x, reach, marks)
    return marks


@njit(cache=True, parallel=True)
def _paint(codes, first_row, starts, ys, xs, reach, marks):
    n, h, w = codes.shape
    for k in prange(n):
        for y in range(h):
            for x in range(w):
                code = codes[k, y, x]
                marks[k, y, x] = MISSING if code == NO_DATA else CLIPPED if code == SATURATED else KEPT
        for s in range(starts[k], starts[k + 1]):
            y, x = ys[s] - first_row, xs[s]
            for yn in range(max(y - reach, 0), min(y + reach + 1, h)):
                for xn in range(max(x - reach, 0), min(x + reach + 1, w)):
                    if marks[k, yn, xn] == KEPT:
                        marks[k, yn, xn] = REJECTED


def accumulate(codes, marks, zero, scale, fields, grid, cell, places, signal, inverse_gain, odd, exposure_s):
    """Add up frames, pixel by pixel.

    Parameters
    ----------
    codes, zero, scale, fields, grid, cell, places, signal
        As in ``mark``.
    inverse_gain : float, ADU per electron
        0 where the gain is unknown.
    marks : (n, h, w) uint8 array
    odd : (n,) bool array
        Which half a frame belongs to.
    exposure_s : (n,) float64 array

    Returns
    -------
    sums : (3, 10, h, w) float64 array
        SUMS of the pixels that are kept, rejected and saturated: with y = (value - sky) / t, w the weight and i = 1 / v
        the inverse raw variance, the sums of w y and w, of w^2 v_pix and w^2 v, of i y and i, of y, and the exposure in
        seconds.
    counts : (3, 1, h, w) int32 array
        Number of frames behind them.
    per_frame : (n, 4) int64 array
        Pixels of each frame by mark.

    Notes
    -----
    Frames are added in their order in float64, each pixel by one thread: the bits do not depend on the threads.
    """
    n, h, w = codes.shape
    if marks.shape != codes.shape or fields.shape[:2] != (n, len(FIELDS)) or len(odd) != n or len(exposure_s) != n:
        raise ValueError(f"need n frames in all arrays, got {codes.shape}, {marks.shape}, {fields.shape}")
    sums = np.zeros((3, len(SUMS), h, w))
    counts = np.zeros((3, len(COUNTS), h, w), np.int32)
    per_row = np.zeros((h, n, 4), np.int64)
    _accumulate(
        codes,
        marks,
        zero,
        scale,
        fields,
        grid,
        cell,
        places,
        signal,
        inverse_gain,
        odd,
        exposure_s,
        sums,
        counts,
        per_row,
    )
    return sums, counts, per_row.sum(0)


@njit(cache=True, parallel=True, fastmath={"contract"})
def _accumulate(
    codes,
    marks,
    zero,
    scale,
    fields,
    grid,
    cell,
    places,
    signal,
    inverse_gain,
    odd,
    exposure_s,
    sums,
    counts,
    per_row,
):
    n, h, w = codes.shape
    for y in prange(h):
        lines = _lines(fields, grid[0] + y / grid[2])
        for k in range(n):
            half = 1 if odd[k] else 0
            for x in range(w):
                m = marks[k, y, x]
                per_row[y, k, m] += 1
                if m == MISSING:
                    continue
                c = cell[y % 2, x % 2]
                at = grid[1] + x / grid[2]
                i = min(max(int(at), 0), lines.shape[3] - 2)
                f = at - i
                t = lines[k, 0, c, i] + f * (lines[k, 0, c, i + 1] - lines[k, 0, c, i])
                sky = lines[k, 1, c, i] + f * (lines[k, 1, c, i + 1] - lines[k, 1, c, i])
                raw = lines[k, 2, c, i] + f * (lines[k, 2, c, i + 1] - lines[k, 2, c, i])
                weight = lines[k, 4, c, i] + f * (lines[k, 4, c, i + 1] - lines[k, 4, c, i])
                value = (zero[k] + scale[k] * codes[k, y, x] - sky) / t
                variance = _pixel_variance(places, k, y, x, raw, signal[y, x] * inverse_gain / t)
                sums[m, 2 * half, y, x] += weight * value
                sums[m, 2 * half + 1, y, x] += weight
                sums[m, 4, y, x] += weight * weight * variance
                sums[m, 5, y, x] += weight * weight * raw
                sums[m, 6, y, x] += value / raw
                sums[m, 7, y, x] += 1 / raw
                sums[m, 8, y, x] += value
                sums[m, 9, y, x] += exposure_s[k]
                counts[m, 0, y, x] += 1
