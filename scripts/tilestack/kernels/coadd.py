"""Kernels of TILE_RECONSTRUCTION: which pixels are outliers, and the weighted sums of those that are not."""

from collections import namedtuple

import numpy as np

from tilestack.kernels import entry, part
from tilestack.kernels.ahead import prefetch

NO_DATA, SATURATED = -32768, 32767
# Marks of a pixel of a frame.
KEPT, REJECTED, CLIPPED, MISSING = 0, 1, 2, 3
# Sums of a pixel over frames; the even and the odd frames apart where halves are compared.
SUMS = ("WY_EVEN", "W_EVEN", "WY_ODD", "W_ODD", "W2V", "W2R", "IY", "I", "Y", "EXPOSURE")
COUNTS, SECONDS = ("N",), 9
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
F = np.float32  # numbers of formulas in single precision: a plain one would make them double


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
    # A row with room for the neighbours of its outermost pixels.
    room = np.full(template.shape[1] + 2 * step, np.float32(np.nan))
    for j in range(1, n):
        _blur(bank[j - 1], step, np.float32(BLUR_STEP / (2 * step * step)), room, bank[j])
    return bank


@entry(fastmath={"contract"})
def _blur(image, step, side, row, out):
    h, w = image.shape
    for y in range(h):
        # One pass along y and one along x.
        own = np.int64(y)
        above, below = image[own - step if own >= step else own], image[own + step if own + step < h else own]
        _three_taps(above, image[own], below, side, row[step : step + w])
        _three_taps(row[:w], row[step : step + w], row[2 * step :], side, out[y])


@part(fastmath={"contract"})
def _three_taps(before, own, after, side, out):
    for x in range(len(out)):
        here, one, other = own[x], before[x], after[x]
        one = here if np.isnan(one) else one
        other = here if np.isnan(other) else other
        out[x] = here + side * (one + other - 2 * here)


def light(template, local_sky, grid, cell):
    """Light of a template above the local sky.

    Parameters
    ----------
    template : (h, w) float32 array, ADU
        NaN where there is none.
    local_sky : (c, ny, nx) float64 array, ADU
        The level near which the noise of frames was measured, nebulae included, at the nodes of a grid.
    grid, cell
        As in ``mark``.

    Returns
    -------
    (h, w) float32 array, ADU
        Below the sky negative: held at 0 the noise of the template would pass for light. 0 where there is no template.
    """
    if template.ndim != 2 or local_sky.ndim != 3:
        raise ValueError(f"need an image and a grid by channel, got {template.shape} and {local_sky.shape}")
    signal = np.empty(template.shape, np.float32)
    columns = _columns(grid, template.shape[1], local_sky.shape[2], held=True)
    room = np.empty((len(local_sky), local_sky.shape[2])), np.empty(template.shape[1], np.float32)
    _light(template, local_sky, grid, cell, columns, *room, signal)
    return signal


@entry(fastmath={"contract"}, error_model="numpy")
def _light(template, local_sky, grid, cell, columns, lines, here, signal):
    h, w = template.shape
    _, ny, nx = local_sky.shape
    for y in range(h):
        at_y = min(max(grid[0] + y / grid[2], 0.0), ny - 1.0)
        j = max(min(int(at_y), ny - 2), 0)
        up, fy = min(j + 1, ny - 1), at_y - j
        for c in range(len(lines)):
            for i in range(nx):
                lines[c, i] = (1 - fy) * local_sky[c, j, i] + fy * local_sky[c, up, i]
        _along(lines[cell[y % 2, 0]], lines[cell[y % 2, 1]], columns, 0, here)
        for x in range(w):
            value = np.float32(template[y, x] - here[x])
            signal[y, x] = np.float32(0) if np.isnan(value) else value


def tolerance(template, variance, sky, step, range_tolerance, signal_tolerance):
    """What a frame may differ from the template by, beyond its own noise.

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
    (h, w) float32 array, ADU^2
        v_T + (a R_T)^2 + (c (T - sky))^2.
    """
    if template.shape != variance.shape or template.ndim != 2:
        raise ValueError(f"need equal images, got {template.shape} and {variance.shape}")
    squared = np.empty(template.shape, np.float32)
    room = np.empty((2, template.shape[1] + 2 * step), np.float32)
    _tolerance(template, variance, sky, step, float(range_tolerance), float(signal_tolerance), *room, squared)
    return squared


@entry(fastmath={"contract"}, error_model="numpy")
def _tolerance(template, variance, sky, step, range_tolerance, signal_tolerance, low, high, squared):
    h, w = template.shape
    for y in range(h):
        # Lowest and highest of three rows, then of three columns; beyond the rims lies nothing.
        low[:], high[:] = np.float32(np.inf), np.float32(-np.inf)
        for row in range(y - step, y + step + 1, step):
            if 0 <= row < h:
                _widen(template[row], low[step : step + w], high[step : step + w])
        lows, highs = (
            (low[:w], low[step : step + w], low[2 * step :]),
            (high[:w], high[step : step + w], high[2 * step :]),
        )
        levels = (sky[y % 2, 0], sky[y % 2, 1])
        _allowed(template[y], variance[y], levels, lows, highs, range_tolerance, signal_tolerance, squared[y])


@part()
def _widen(values, low, high):
    for x in range(len(values)):
        value = values[x]
        low[x] = value if value < low[x] else low[x]  # NaN is neither less nor more
        high[x] = value if value > high[x] else high[x]


@part(fastmath={"contract"})
def _allowed(values, variance, sky, lows, highs, range_tolerance, signal_tolerance, squared):
    before_low, low, after_low = lows
    before_high, high, after_high = highs
    even, odd = sky
    for x in range(len(values)):
        least, most = min(low[x], min(before_low[x], after_low[x])), max(high[x], max(before_high[x], after_high[x]))
        light = values[x] - (even if x & 1 == 0 else odd)
        light = light if light > 0 else 0.0  # of no template too
        range_part, signal_part = range_tolerance * (float(most) - float(least)), signal_tolerance * light
        squared[x] = variance[x] + range_part * range_part + signal_part * signal_part


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
        From ``tolerance`` and ``light``.
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
    places = _prepared(places)
    marks = np.empty((n, h, w), np.uint8)
    limits = (float(options["inverse_gain"]), float(options["kappa"]), float(options["seeing_tolerance"]))
    columns = _columns(grid, w, fields.shape[4])
    room = _room(fields)
    _mark(codes, zero, scale, fields, grid, cell, places, columns, bank, width, squared, signal, limits, marks, room)
    return marks


# Where the pixels of a band lie in the raw frames: lattice position y0, x0 of its first pixel; transforms to the raw
# frames (n, 2, 3), and the distortion behind them as in ``kernels.warp`` or None; tables of ``noisegain``
# (m, 4, p, p), the one of each frame (n,), and the lattice area of a raw pixel (n,).
Places = namedtuple("Places", "y0 x0 to_frame lens tables table_of area")


def _prepared(places):
    """Places with tables (m, 4 p p) and their side: to make them flat pixel by pixel would take calls."""
    side = places.tables.shape[2]
    if side & (side - 1):
        raise ValueError(f"need tables whose sides are powers of 2, got {places.tables.shape}")
    return places._replace(tables=(places.tables.reshape(len(places.tables), 4 * side * side), side))


@part(fastmath={"contract"})
def _in_frame(to_frame, lens, x, y):
    """Place in the raw frame of a lattice position: that of ``kernels.warp``, whose changes no cache would see."""
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


def _columns(grid, w, n_nodes, held=False):
    """Where the columns of a band lie on a grid: node before, distance from it, and the first column of the next node.

    Beyond the outer nodes values go on as straight lines, or are held.
    """
    at = grid[1] + np.arange(w) / grid[2]
    at = np.clip(at, 0.0, n_nodes - 1.0) if held else at
    node = np.clip(at.astype(np.int64), 0, max(n_nodes - 2, 0))
    ends = np.append(np.flatnonzero(np.diff(node)) + 1, w)
    return node, (at - node).astype(np.float32), ends[np.searchsorted(ends, np.arange(w), side="right")]


# The loops below work on so many columns at a time and hold what they know of them near the processor. They are short,
# and without tests that end a turn early, so that the compiler makes vectors of them; error_model="numpy" as a test for
# division by zero would keep it from that.
CHUNK = 256
# What is known of the pixels of a chunk: rows of a work array. Rows that lie as far apart as a power of 2, or as those
# of an image may, push each other out of the cache.
T, RAW, VALUE, VARIANCE, WEIGHT, SPARE = range(6)
ROOM = CHUNK + 24


def _room(fields):
    """Room of the loops: fields of a row (n, 5, c, nx), and of a chunk places in a table, what is known, and sums."""
    n, n_fields, n_channels, _, nx = fields.shape
    lines = np.empty((n, n_fields, n_channels, nx), np.float32)
    return lines, np.empty(CHUNK, np.int32), np.empty((6, ROOM), np.float32), np.empty((len(SUMS), ROOM))


@part(fastmath={"contract"}, error_model="numpy")
def _along(even, odd, columns, x0, out):
    """Values of a grid line at the columns from x0 on: one line for even columns, one for odd."""
    node, fraction, until = columns
    x, end = x0, x0 + len(out)
    while x < end:
        i, stop = node[x], min(until[x], end)
        j = min(i + 1, len(even) - 1)
        low_even, step_even = F(even[i]), F(even[j] - even[i])
        low_odd, step_odd = F(odd[i]), F(odd[j] - odd[i])
        along, to, first = fraction[x:stop], out[x - x0 : stop - x0], np.int32(x)
        for n in range(len(to)):
            of_even = (first + np.int32(n)) & np.int32(1) == 0
            to[n] = (low_even if of_even else low_odd) + along[n] * (step_even if of_even else step_odd)
        x = stop


@part(fastmath={"contract"}, error_model="numpy")
def _noise_gains(places, k, y, x0, index, out):
    """Variance of resampled pixels over that of a raw one, from column x0 of a band on."""
    at_y, at_x = places.y0 + y, places.x0 + x0
    tables, side = places.tables
    rows = tables[places.table_of[k], 2 * (at_y % 2) * side * side :]
    _cells(places.to_frame[k], places.lens, np.int32(at_x), at_y, np.int32(side), index[: len(out)])
    for n in range(len(out)):
        out[n] = rows[np.uint32(index[n])]


@part(fastmath={"contract"}, error_model="numpy")
def _cells(to_frame, lens, first_x, y, side, index):
    """Where pixels of a row stand in the two tables of its columns, whose sides are a power of 2."""
    one, half = np.int32(1), 0.5 * side
    if lens is None:  # the same as below, which the compiler does not make vectors of
        slope_u, u0 = half * to_frame[0, 0], half * (to_frame[0, 1] * y + to_frame[0, 2]) + 0.5
        slope_v, v0 = half * to_frame[1, 0], half * (to_frame[1, 1] * y + to_frame[1, 2]) + 0.5
        for n in range(len(index)):
            x = first_x + np.int32(n)
            i = np.int32(np.floor(slope_u * x + u0)) & (side - one)
            j = np.int32(np.floor(slope_v * x + v0)) & (side - one)
            index[n] = ((x & one) * side + j) * side + i
        return
    for n in range(len(index)):
        x = first_x + np.int32(n)
        u, v = _in_frame(to_frame, lens, float(x), float(y))
        i = np.int32(np.floor(half * u + 0.5)) & (side - one)
        j = np.int32(np.floor(half * v + 0.5)) & (side - one)
        index[n] = ((x & one) * side + j) * side + i


@part(fastmath={"contract"}, error_model="numpy")
def _variances(gain, raw, area, signal, inverse_gain, per_scale, out):
    """Variance of resampled pixels: of their sky by lattice area, and of the photons above or below it."""
    per_area, inverse_gain = F(1 / area), F(inverse_gain)
    for n in range(len(out)):
        sky = raw[n] * per_area
        out[n] = gain[n] * max(sky + signal[n] * inverse_gain * per_scale[n], F(LEAST_VARIANCE) * sky)


@part(fastmath={"contract"}, error_model="numpy")
def _values(codes, zero, scale, sky, t, out):
    """Values on the scale of the reference; of `t` its inverse is left, as another division takes long."""
    for n in range(len(out)):
        t[n] = F(1) / t[n]
        out[n] = F(zero + scale * codes[n] - sky[n]) * t[n]


@part(fastmath={"contract"}, error_model="numpy")
def _known(codes, zero, scale, lines, channels, columns, places, k, y, x0, signal, inverse_gain, index, known):
    """What is known of the pixels of a chunk of frame k: fills `known` (6, ROOM); `lines` (5, c, nx) are its fields."""
    even, odd, n = *channels, len(codes)
    t, raw, spare = known[T, :n], known[RAW, :n], known[SPARE, :n]  # t, and from _values on 1 / t
    _along(lines[0, even], lines[0, odd], columns, x0, t)
    _along(lines[1, even], lines[1, odd], columns, x0, spare)
    _along(lines[2, even], lines[2, odd], columns, x0, raw)
    _along(lines[4, even], lines[4, odd], columns, x0, known[WEIGHT, :n])
    _values(codes, zero, scale, spare, t, known[VALUE, :n])
    _noise_gains(places, k, y, x0, index, spare)
    _variances(spare, raw, places.area[k], signal, inverse_gain, t, known[VARIANCE, :n])


@entry(fastmath={"contract"}, error_model="numpy")
def _mark(codes, zero, scale, fields, grid, cell, places, columns, bank, width, squared, signal, limits, marks, room):
    n, h, w = codes.shape
    lines, index, known, _ = room
    inverse_gain, kappa, seeing_tolerance = limits
    limit = F(kappa * kappa)
    for y in range(h):
        _lines(fields, grid[0] + y / grid[2], lines)
        channels = (cell[y % 2, 0], cell[y % 2, 1])
        for x0 in range(0, w, CHUNK):
            end = min(x0 + CHUNK, w)
            light = signal[y, x0:end]
            value, allowed, spare = known[VALUE, : end - x0], known[VARIANCE, : end - x0], known[SPARE, : end - x0]
            for k in range(n):
                code, mark = codes[k, y, x0:end], marks[k, y, x0:end]
                _announce(codes[k, y, end : end + CHUNK], 64 // 2)
                if not _any_data(code):
                    for x in range(len(mark)):
                        mark[x] = MISSING
                    continue
                after = (light, inverse_gain, index, known)
                _known(code, zero[k], scale[k], lines[k], channels, columns, places, k, y, x0, *after)
                if not _first_marks(code, value, bank[0, y, x0:end], allowed, squared[y, x0:end], limit, mark):
                    continue
                # Beyond its noise: is it the seeing? The template as broad as the frame, and what that changes.
                _along(lines[k, 3, channels[0]], lines[k, 3, channels[1]], columns, x0, spare)
                for x in range(x0, end):
                    if mark[x - x0] == REJECTED:
                        at = (value[x - x0], allowed[x - x0], spare[x - x0], width[y, x], light[x - x0])
                        if not _stands_out(*at, bank[:, y, x], limit, seeing_tolerance):
                            mark[x - x0] = KEPT


@part()
def _announce(values, per_line):
    """Have the next chunk of a frame fetched, line of the cache by line, while the others are at work on this one."""
    for n in range(0, len(values), per_line):
        prefetch(values, n)


@part()
def _any_data(codes):
    n = np.int32(0)
    for x in range(len(codes)):
        n += np.int32(codes[x] != NO_DATA)
    return n > 0


@part(fastmath={"contract"}, error_model="numpy")
def _first_marks(codes, value, target, variance, squared, limit, marks):
    """Mark the pixels that differ from the template by more than their noise; whether any does. Adds the tolerance."""
    total = np.int32(0)
    for n in range(len(codes)):
        difference = value[n] - target[n]
        allowed = variance[n] + squared[n]
        far = difference * difference > limit * allowed  # not where there is no template to differ from
        total += np.int32(far)
        variance[n] = allowed
        mark = np.uint8(REJECTED) if far else np.uint8(KEPT)
        mark = np.uint8(CLIPPED) if codes[n] == SATURATED else mark
        marks[n] = np.uint8(MISSING) if codes[n] == NO_DATA else mark
    return total > 0


@part(fastmath={"contract"}, error_model="numpy")
def _stands_out(value, allowed, fwhm, width, light, bank, limit, seeing_tolerance):
    """Whether a pixel differs from the template of its own seeing, too."""
    most = len(bank) - 1
    target = bank[0]
    blur = (fwhm * fwhm - width * width) / (FWHM2 * BLUR_STEP)
    if most > 0 and not np.isnan(blur):
        blur = min(max(blur, -MOST_SHARPER), float(most))
        level = min(max(int(blur), 0), most - 1)
        low, high = bank[level], bank[level + 1]
        moved = low + (blur - level) * (high - low)
        change = seeing_tolerance * max(abs(moved - target), _sharper(light, width, fwhm))
        allowed += change * change
        target = moved
    return (value - target) ** 2 > limit * allowed


@part(fastmath={"contract"})
def _sharper(light, width, fwhm):
    """By how much the peak of a star outgrows that of the template in a sharper frame: no blur undone can tell."""
    return max(light, 0.0) * max(width * width / (fwhm * fwhm) - 1, 0.0)


@part(fastmath={"contract"})
def _lines(fields, at, lines):
    """Fields interpolated to one row: fills `lines` (n, 5, c, nx)."""
    n, n_fields, n_channels, ny, nx = fields.shape
    j = min(max(int(at), 0), ny - 2)
    f = np.float32(at - j)
    for k in range(n):
        for m in range(n_fields):
            for c in range(n_channels):
                for i in range(nx):
                    low, high = fields[k, m, c, j, i], fields[k, m, c, j + 1, i]
                    lines[k, m, c, i] = low + f * (high - low)


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


@entry()
def _paint(codes, first_row, starts, ys, xs, reach, marks):
    n, h, w = codes.shape
    for k in range(n):
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


def accumulate(
    codes, marks, zero, scale, fields, grid, cell, places, signal, inverse_gain, odd, exposure_s, members=slice(None)
):
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
    members : slice or int64 array
        Frames to add up.

    Returns
    -------
    sums : (3, 10, h, w) float64 array
        SUMS of the pixels that are kept, rejected and saturated: with y = (value - sky) / t, w the weight and i = 1 / v
        the inverse raw variance, the sums of w y and w, of w^2 v_pix and w^2 v, of i y and i, of y, and the exposure in
        seconds.
    counts : (3, 1, h, w) int32 array
        Number of frames behind them.
    per_frame : (n, 4) int64 array
        Pixels of each frame by mark; 0 of those that are not added.

    Notes
    -----
    Frames are added in their order in float64, each pixel by one thread: the bits do not depend on the threads.
    """
    n, h, w = codes.shape
    if marks.shape != codes.shape or fields.shape[:2] != (n, len(FIELDS)) or len(odd) != n or len(exposure_s) != n:
        raise ValueError(f"need n frames in all arrays, got {codes.shape}, {marks.shape}, {fields.shape}")
    places = _prepared(places)
    # Of frames exposed alike their number says it; NaN is like nothing.
    which = np.arange(n)[members]
    alike = bool(len(which) and (exposure_s[which] == exposure_s[which[0]]).all())
    sums = np.zeros((3, len(SUMS), h, w))
    counts = np.zeros((3, len(COUNTS), h, w), np.int32)
    per_row = np.zeros((h, n, 4), np.int64)
    columns = _columns(grid, w, fields.shape[4])
    frames, room = (which, codes, marks, zero, scale, fields, odd, exposure_s, alike), _room(fields)
    _accumulate(frames, grid, cell, places, columns, signal, float(inverse_gain), sums, counts, per_row, room)
    return sums, counts, per_row.sum(0)


@entry(fastmath={"contract"}, error_model="numpy")
def _accumulate(frames, grid, cell, places, columns, signal, inverse_gain, sums, counts, per_row, room):
    which, codes, marks, zero, scale, fields, odd, exposure_s, alike = frames
    lines, index, known, kept = room
    _, h, w = codes.shape
    for y in range(h):
        _lines(fields, grid[0] + y / grid[2], lines)
        channels = (cell[y % 2, 0], cell[y % 2, 1])
        for x0 in range(0, w, CHUNK):
            end = min(x0 + CHUNK, w)
            n_kept = counts[0, 0, y, x0:end]
            kept[:] = 0
            for k in which:
                mark = marks[k, y, x0:end]
                _announce(codes[k, y, end : end + CHUNK], 64 // 2)
                _announce(marks[k, y, end : end + CHUNK], 64)
                n_rejected, n_clipped, n_missing = _count(mark)
                per_row[y, k, KEPT] += end - x0 - n_rejected - n_clipped - n_missing
                per_row[y, k, REJECTED] += n_rejected
                per_row[y, k, CLIPPED] += n_clipped
                per_row[y, k, MISSING] += n_missing
                if n_missing == end - x0:
                    continue
                after = (signal[y, x0:end], inverse_gain, index, known)
                _known(codes[k, y, x0:end], zero[k], scale[k], lines[k], channels, columns, places, k, y, x0, *after)
                half = 2 if odd[k] else 0
                _add_kept(mark, known, half, kept, n_kept)
                if not alike:
                    _add_exposures(mark, exposure_s[k], kept)
                if n_rejected + n_clipped:
                    _add_others(mark, known, exposure_s[k], half, sums[:, :, y, x0:end], counts[:, 0, y, x0:end])
            for m in range(len(SUMS)):
                _copy(kept[m], sums[0, m, y, x0:end])
            if alike:
                _times(n_kept, exposure_s[which[0]], sums[0, SECONDS, y, x0:end])


@part()
def _copy(values, to):
    for x in range(len(to)):
        to[x] = values[x]


@part()
def _times(counts, exposure, to):
    for x in range(len(to)):
        to[x] = counts[x] * exposure


@part()
def _count(marks):
    n_rejected, n_clipped, n_missing = np.int32(0), np.int32(0), np.int32(0)
    for x in range(len(marks)):
        n_rejected += np.int32(marks[x] == REJECTED)
        n_clipped += np.int32(marks[x] == CLIPPED)
        n_missing += np.int32(marks[x] == MISSING)
    return n_rejected, n_clipped, n_missing


@part(fastmath={"contract"}, error_model="numpy")
def _add_kept(mark, known, half, sums, counts):
    """Add the pixels that count, but for their exposure; of the others zeros."""
    n = len(mark)
    value, variance, raw, weight = known[VALUE, :n], known[VARIANCE, :n], known[RAW, :n], known[WEIGHT, :n]
    wy, w, w2v, w2r = sums[half, :n], sums[half + 1, :n], sums[4, :n], sums[5, :n]
    iy, i, y = sums[6, :n], sums[7, :n], sums[8, :n]
    for x in range(n):
        kept = mark[x] == KEPT
        own, one = (weight[x] if kept else F(0.0)), (F(1.0) if kept else F(0.0))
        of_value = value[x] if kept else F(0.0)
        inverse = one / (raw[x] if kept else F(1.0))
        wy[x] += own * of_value
        w[x] += own
        w2v[x] += own * own * (variance[x] if kept else F(0.0))
        w2r[x] += own * own * (raw[x] if kept else F(0.0))
        iy[x] += inverse * of_value
        i[x] += inverse
        y[x] += of_value
        counts[x] += kept


@part()
def _add_exposures(mark, exposure, sums):
    for x in range(len(mark)):
        sums[SECONDS, x] += exposure if mark[x] == KEPT else 0.0  # it may be NaN


@part(fastmath={"contract"}, error_model="numpy")
def _add_others(marks, known, exposure, half, sums, counts):
    """Add the pixels that are rejected or saturated, which are few, to sums of their own."""
    for x in range(len(marks)):
        m = marks[x]
        if m != REJECTED and m != CLIPPED:
            continue
        value, raw, weight = known[VALUE, x], known[RAW, x], known[WEIGHT, x]
        sums[m, half, x] += weight * value
        sums[m, half + 1, x] += weight
        sums[m, 4, x] += weight * weight * known[VARIANCE, x]
        sums[m, 5, x] += weight * weight * raw
        sums[m, 6, x] += value / raw
        sums[m, 7, x] += 1 / raw
        sums[m, 8, x] += value
        sums[m, 9, x] += exposure
        counts[m, x] += 1
