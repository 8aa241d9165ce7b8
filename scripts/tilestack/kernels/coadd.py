"""Kernels of TILE_RECONSTRUCTION: which pixels are outliers, and the weighted sums of those that are not."""

import numpy as np
from numba import njit, prange

NO_DATA, SATURATED = -32768, 32767
# Marks of a pixel of a frame.
KEPT, REJECTED, CLIPPED, MISSING = 0, 1, 2, 3
# Sums of a pixel over frames; the even and the odd frames apart, so that halves can be compared.
SUMS = (
    "WY_EVEN",
    "W_EVEN",
    "WY_ODD",
    "W_ODD",
    "W2V",
    "W2R",
    "IY_EVEN",
    "I_EVEN",
    "IY_ODD",
    "I_ODD",
    "Y_EVEN",
    "Y_ODD",
    "EXPOSURE",
)
COUNTS = ("N_EVEN", "N_ODD")
# Fields of a frame over the tiles, in this order.
FIELDS = ("SCALE", "SKY", "VARIANCE", "PIXEL_VARIANCE", "WEIGHT")


def tolerance(template, variance, sky, step, range_tolerance, signal_tolerance):
    """What a frame may differ from the template by, beyond its own noise; and the light above the sky.

    Parameters
    ----------
    template, variance : (h, w) float32 arrays, ADU and ADU^2
        NaN where there is no template.
    sky : (2, 2) float64 array, ADU
        Sky level of the template by phase of the band.
    step : int
        Pixels between neighbours of one colour.
    range_tolerance, signal_tolerance : float
        Shares of the range in 3x3 neighbours of one colour, and of the light above the sky.

    Returns
    -------
    squared : (h, w) float32 array, ADU^2
        v_T + (a R_T)^2 + (c (T - sky))^2.
    signal : (h, w) float32 array, ADU
        Light above the sky, 0 at the least.
    """
    if template.shape != variance.shape or template.ndim != 2:
        raise ValueError(f"need equal images, got {template.shape} and {variance.shape}")
    squared, signal = np.empty(template.shape, np.float32), np.empty(template.shape, np.float32)
    _tolerance(template, variance, sky, step, range_tolerance, signal_tolerance, squared, signal)
    return squared, signal


@njit(cache=True, parallel=True, fastmath={"contract"})
def _tolerance(template, variance, sky, step, range_tolerance, signal_tolerance, squared, signal):
    h, w = template.shape
    for y in prange(h):
        for x in range(w):
            low, high = np.inf, -np.inf
            for dy in range(-step, step + 1, step):
                for dx in range(-step, step + 1, step):
                    yn, xn = y + dy, x + dx
                    if 0 <= yn < h and 0 <= xn < w and not np.isnan(template[yn, xn]):
                        low, high = min(low, template[yn, xn]), max(high, template[yn, xn])
            light = max(template[y, x] - sky[y % 2, x % 2], 0.0) if not np.isnan(template[y, x]) else 0.0
            signal[y, x] = light
            squared[y, x] = variance[y, x] + (range_tolerance * (high - low)) ** 2 + (signal_tolerance * light) ** 2


def mark(codes, zero, scale, fields, grid, cell, template, squared, signal, inverse_gain, kappa):
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
    template, squared, signal : (h, w) float32 arrays
        Template, and what ``tolerance`` gave for it.
    inverse_gain : float, ADU per electron
        0 where the gain is unknown.
    kappa : float
        Limit in standard deviations; infinity marks nothing as rejected.

    Returns
    -------
    (n, h, w) uint8 array
    """
    n, h, w = codes.shape
    if fields.shape[:2] != (n, len(FIELDS)) or template.shape != (h, w):
        raise ValueError(
            f"need n frames with {len(FIELDS)} fields, got {codes.shape}, {fields.shape}, {template.shape}"
        )
    marks = np.empty((n, h, w), np.uint8)
    _mark(codes, zero, scale, fields, *grid, cell, template, squared, signal, inverse_gain, kappa, marks)
    return marks


@njit(cache=True, parallel=True, fastmath={"contract"})
def _mark(
    codes, zero, scale, fields, grid_y, grid_x, pitch, cell, template, squared, signal, inverse_gain, kappa, marks
):
    n, h, w = codes.shape
    for y in prange(h):
        lines = _lines(fields, grid_y + y / pitch)
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
                target = template[y, x]
                if np.isnan(target):
                    continue
                c = cell[y % 2, x % 2]
                at = grid_x + x / pitch
                i = min(max(int(at), 0), lines.shape[3] - 2)
                f = at - i
                t = lines[k, 0, c, i] + f * (lines[k, 0, c, i + 1] - lines[k, 0, c, i])
                sky = lines[k, 1, c, i] + f * (lines[k, 1, c, i + 1] - lines[k, 1, c, i])
                variance = lines[k, 3, c, i] + f * (lines[k, 3, c, i + 1] - lines[k, 3, c, i])
                difference = (zero[k] + scale[k] * code - sky) / t - target
                allowed = variance + squared[y, x] + signal[y, x] * inverse_gain / t
                if difference * difference > kappa * kappa * allowed:
                    marks[k, y, x] = REJECTED


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


def grow(marks, reach):
    """Mark as rejected what is within `reach` pixels of a rejected pixel, in place; others keep their mark."""
    if marks.ndim != 3 or marks.dtype != np.uint8 or reach < 0:
        raise ValueError(f"need (n, h, w) uint8 marks and reach >= 0, got {marks.dtype} {marks.shape} and {reach}")
    if reach:
        _grow(marks, reach)


@njit(cache=True, parallel=True)
def _grow(marks, reach):
    n, h, w = marks.shape
    for k in prange(n):
        seeds = np.argwhere(marks[k] == REJECTED)
        for s in range(len(seeds)):
            y, x = seeds[s, 0], seeds[s, 1]
            for yn in range(max(y - reach, 0), min(y + reach + 1, h)):
                for xn in range(max(x - reach, 0), min(x + reach + 1, w)):
                    if marks[k, yn, xn] == KEPT:
                        marks[k, yn, xn] = REJECTED


def accumulate(codes, marks, zero, scale, fields, grid, cell, signal, inverse_gain, odd, exposure_s):
    """Add up frames, pixel by pixel.

    Parameters
    ----------
    codes, zero, scale, fields, grid, cell, signal, inverse_gain
        As in ``mark``.
    marks : (n, h, w) uint8 array
        From ``mark``.
    odd : (n,) bool array
        Which half a frame belongs to.
    exposure_s : (n,) float64 array

    Returns
    -------
    sums : (3, 13, h, w) float64 array
        SUMS of the pixels that are kept, rejected and saturated: with y = (value - sky) / t, w the weight and i = 1 / v
        the inverse raw variance, the sums of w y and w, of w^2 v_pix and w^2 v, of i y and i, of y, and the exposure in
        seconds.
    counts : (3, 2, h, w) int32 array
        Number of even and of odd frames behind them.
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
        codes, marks, zero, scale, fields, *grid, cell, signal, inverse_gain, odd, exposure_s, sums, counts, per_row
    )
    return sums, counts, per_row.sum(0)


@njit(cache=True, parallel=True, fastmath={"contract"})
def _accumulate(
    codes,
    marks,
    zero,
    scale,
    fields,
    grid_y,
    grid_x,
    pitch,
    cell,
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
        lines = _lines(fields, grid_y + y / pitch)
        for k in range(n):
            half = 1 if odd[k] else 0
            for x in range(w):
                m = marks[k, y, x]
                per_row[y, k, m] += 1
                if m == MISSING:
                    continue
                c = cell[y % 2, x % 2]
                at = grid_x + x / pitch
                i = min(max(int(at), 0), lines.shape[3] - 2)
                f = at - i
                t = lines[k, 0, c, i] + f * (lines[k, 0, c, i + 1] - lines[k, 0, c, i])
                sky = lines[k, 1, c, i] + f * (lines[k, 1, c, i + 1] - lines[k, 1, c, i])
                raw = lines[k, 2, c, i] + f * (lines[k, 2, c, i + 1] - lines[k, 2, c, i])
                variance = lines[k, 3, c, i] + f * (lines[k, 3, c, i + 1] - lines[k, 3, c, i])
                weight = lines[k, 4, c, i] + f * (lines[k, 4, c, i + 1] - lines[k, 4, c, i])
                value = (zero[k] + scale[k] * codes[k, y, x] - sky) / t
                variance += signal[y, x] * inverse_gain / t
                sums[m, 2 * half, y, x] += weight * value
                sums[m, 2 * half + 1, y, x] += weight
                sums[m, 4, y, x] += weight * weight * variance
                sums[m, 5, y, x] += weight * weight * raw
                sums[m, 6 + 2 * half, y, x] += value / raw
                sums[m, 7 + 2 * half, y, x] += 1 / raw
                sums[m, 10 + half, y, x] += value
                sums[m, 12, y, x] += exposure_s[k]
                counts[m, half, y, x] += 1
