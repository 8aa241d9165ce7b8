"""Resampling of a frame onto the lattice, by the Lanczos-3 kernel."""

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from tilestack.kernels import entry, part
from tilestack.kernels.ahead import fetch

# Positions in a pixel for which the weights of the Lanczos kernel are tabulated; half a step is 0.0005 px.
N_PHASES = 1024
TAPS = 6
# The kernel is stretched where a lattice pixel holds so many pixels of the frame along an axis, or more.
LEAST_STRETCH = 1.05
# A transform that a shift replaces to this in the corners is done as a shift: a tenth of a good centroid error.
SHIFT_TOLERANCE_PX = 0.005
# Columns of the lattice are resampled in strips that cross so many rows of the frame, but at least so wide: along a
# whole row of a turned frame those which the next one needs would have left the cache.
STRIP_ROWS, LEAST_STRIP = 16, 192
# Pixels of a row that are resampled together as a vector, and at most in a strip. Vectors are taken where kernels of
# neighbours lie side by side so often: fewer breaks than this a pixel.
BLOCK, RUN, MOST_BREAKS = 16, 4096, 0.25
BEYOND = -(2**62)
# What a resampled pixel stands near to.
CLEAR, TOUCHES_SATURATED, SATURATED = 0, 1, 2


def lanczos_table(a=3):
    """Weights of the Lanczos-a kernel at N_PHASES + 1 positions in a pixel.

    Each row sums to 1, so that constants stay as they are; and what its centre of mass is off (up to 0.011 px, by which
    stars would move) is made good over all taps, each by its distance from their middle, so that slopes stay as they
    are. Between the two inner taps alone the same would raise the error at the peak of a star of FWHM 2.7 px from 0.9
    to 1.3 %.

    Source of the kernel: C. E. Duchon, Lanczos Filtering in One and Two Dimensions, J. Appl. Meteor. 18 (1979) 1016.
    """
    return _lanczos(np.arange(N_PHASES + 1) / N_PHASES, a).astype(np.float32)


def _lanczos(position, a=3):
    taps = np.arange(1 - a, a + 1)
    offset = position[:, None] - taps
    weights = np.sinc(offset) * np.sinc(offset / a) * (abs(offset) < a)
    weights /= weights.sum(1, keepdims=True)
    lever = taps - taps.mean()
    return weights + (position - weights @ taps)[:, None] * lever / (lever**2).sum()


def lanczos_curves():
    """The weights of ``lanczos_table`` of a = 3 as polynomials of the place t from the middle between the inner taps:
    (3, 8), of taps 0 to 2 four coefficients in t^2 of the even part, and four of the odd part, which is t times as
    much; tap 5 - k has the same even part and the odd one with the other sign. Good to 2e-6; sum and centre of mass
    stay exact, as a least-squares fit of a sum is the sum of the fits and these two are polynomials themselves."""
    t = -0.5 * np.cos(np.pi * (np.arange(256) + 0.5) / 256)
    weights, powers = _lanczos(t + 0.5), (t * t)[:, None] ** np.arange(4)
    even, odd = (weights + weights[:, ::-1]) / 2, (weights - weights[:, ::-1]) / 2
    parts = (np.linalg.lstsq(basis, half[:, :3])[0] for basis, half in ((powers, even), (powers * t[:, None], odd)))
    return np.concatenate(list(parts)).T.astype(np.float32, order="C")


TABLE = lanczos_table()
VECTORS = np.pad(TABLE, ((0, 0), (0, 2)))  # with two taps more, of no weight: a row is a vector
CURVES = lanczos_curves()
Index = np.uintp
EIGHT = Index(8)
F = np.float32  # numbers of formulas in single precision: a plain one would make them double


def saturation_map(raw, saturation, reach=3):
    """Where a resampled pixel has saturated raw pixels near it.

    Parameters
    ----------
    raw : (h, w) float32 array, ADU
    saturation : float or None, ADU
    reach : int
        Raw pixels to each side that the kernel covers.

    Returns
    -------
    (h, w) uint8 array
        Indexed by the raw pixel below a position: SATURATED where one of the four pixels around the position is,
        TOUCHES_SATURATED where one under the kernel is, else CLEAR.
    """
    near = np.zeros(raw.shape, np.uint8)
    if saturation is not None:
        _mark_saturated(raw, np.float32(saturation), reach, near)
    return near


@entry()
def _mark_saturated(raw, saturation, reach, near):
    for y in range(len(raw)):
        if not _any_from(raw[y], saturation):
            continue
        for x in range(raw.shape[1]):
            if raw[y, x] >= saturation:
                _mark_around(near, y, x, reach, reach - 1, TOUCHES_SATURATED)
                _mark_around(near, y, x, 1, 0, SATURATED)


@part()
def _any_from(row, limit):
    """Whether any value is at a limit or above, by a loop that can be vectors."""
    n = np.int32(0)
    for x in range(len(row)):
        n += np.int32(row[x] >= limit)
    return n > 0


@part()
def _mark_around(near, y, x, low, high, mark):
    """Mark what is not SATURATED already."""
    h, w = near.shape
    for j in range(max(y - low, 0), min(y + high, h - 1) + 1):
        for i in range(max(x - low, 0), min(x + high, w - 1) + 1):
            near[j, i] = SATURATED if near[j, i] == SATURATED else mark


def kernel_reach(stretch, step):
    """Raw pixels to each side that the kernel covers."""
    return math.ceil(3 * (stretch if stretch > LEAST_STRETCH else 1.0)) * step


def warp(planes, plane_of, step, offsets, near, to_frame, box, *, lens=None, stretch=1.0):
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
    lens : (9, 2) float64 array, optional
        Distortion of the frame: its length (twice), its centre x, y over that length, and pixels in x and y for u^2,
        u v, v^2, u^3, u^2 v, u v^2, v^3 of u, v = x, y over the length less the centre (``distortion``).
    stretch : float
        Pixels of the frame per lattice pixel and axis. Above LEAST_STRETCH the kernel is stretched by it, so that
        detail too fine for the lattice does not come back as false detail.

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
    ringing of a clipped core stays out; everywhere else that would change the flux of stars by 0.1-0.4 %. A transform
    that is a shift, to SHIFT_TOLERANCE_PX in the corners of the box, is done as one along each axis.
    """
    if planes.ndim != 3 or planes.dtype != np.float32 or offsets.shape != (len(planes), 2):
        raise ValueError(
            f"need (p, h, w) float32 planes with p offsets, got {planes.dtype} {planes.shape}, {offsets.shape}"
        )
    y0, x0, rows, columns = box
    planes, to_frame = np.ascontiguousarray(planes), np.array(to_frame, float)
    image = np.empty((rows, columns), np.float32)  # each kernel sets all of it
    saturated = np.zeros((rows, columns), np.bool_)
    shift = np.abs(to_frame[:, :2] - np.eye(2)).sum() * max(rows, columns) < SHIFT_TOLERANCE_PX
    reach = 3.0 * stretch if stretch > LEAST_STRETCH else 3.0
    if stretch > LEAST_STRETCH:
        _warp_stretched(planes, plane_of, step, offsets, to_frame, lens, y0, x0, float(stretch), image)
    elif shift and lens is None and step == 1:
        middle = np.array([x0 + (columns - 1) / 2, y0 + (rows - 1) / 2])
        dx, dy = to_frame @ [*middle, 1.0] - middle
        to_frame = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]])
        _warp_shifted(planes, plane_of, float(dx), float(dy), y0, x0, TABLE, image)
    else:
        room = (np.empty(RUN, np.int64), *(np.zeros(RUN + BLOCK, np.float32) for _ in range(3)))
        source = (planes, plane_of, step, offsets)
        if to_frame[0, 0] < 0 and abs(to_frame[1, 0]) < MOST_BREAKS:  # the mount has flipped: kernels run backwards
            last = np.array(planes.shape[1:]) - 1
            source = (np.ascontiguousarray(planes[:, ::-1, ::-1]), plane_of, -step, offsets + last * step)
        _warp(*source, to_frame, lens, y0, x0, VECTORS, CURVES, room, image)
    _hold_saturated(planes, plane_of, step, offsets, near, to_frame, lens, y0, x0, reach, image, saturated)
    return image, saturated


@part(fastmath={"contract"})
def _in_frame(to_frame, lens, x, y):
    """Place in the raw frame of a lattice position."""
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


@part(fastmath={"contract"})
def _to_plane(to_frame, step, offset):
    """Transform to the pixels of a plane, and what takes raw places there: its numbers, step and offsets x, y."""
    s = 1.0 / step
    a, b, c = to_frame[0, 0] * s, to_frame[0, 1] * s, (to_frame[0, 2] - offset[1]) * s
    d, e, f = to_frame[1, 0] * s, to_frame[1, 1] * s, (to_frame[1, 2] - offset[0]) * s
    return (a, b, c, d, e, f), to_frame, s, (offset[1], offset[0])


@part(fastmath={"contract"})
def _in_plane(to_plane, lens, x, y):
    (a, b, c, d, e, f), to_frame, s, (offset_x, offset_y) = to_plane
    if lens is None:
        return a * x + b * y + c, d * x + e * y + f
    u, v = _in_frame(to_frame, lens, x, y)
    return (u - offset_x) * s, (v - offset_y) * s


LANES = ir.VectorType(ir.FloatType(), TAPS + 2)


@intrinsic
def _interpolated(typing_context, values, at, width, table, down, across):
    """Sum of 6x6 values from a place on, in rows that lie `width` apart, by weights from two places of a table on: a
    row is a vector of eight, of which the last two are left out. The compiler finds no vectors in loops this short."""

    def sum_by_rows(context, builder, signature, args):
        values, at, width, table, down, across = args
        values, table = (
            context.make_array(kind)(context, builder, array).data
            for kind, array in ((signature.args[0], values), (signature.args[3], table))
        )
        zero, undefined = ir.Constant(LANES, None), ir.Constant(LANES, ir.Undefined)

        def indices(numbers):
            return ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), list(numbers))

        def vector_at(pointer):
            return builder.load(builder.bitcast(pointer, LANES.as_pointer()), align=4)

        total, place = None, at
        fetch(builder, builder.gep(values, [builder.add(at, builder.mul(width, width.type(TAPS + 1)))]))
        for m in range(TAPS):
            weight = builder.load(builder.gep(table, [builder.add(down, down.type(m))]))
            weight = builder.insert_element(undefined, weight, ir.IntType(32)(0))
            weight = builder.shuffle_vector(weight, undefined, indices([0] * 8))
            row = builder.fmul(vector_at(builder.gep(values, [place])), weight, flags=("contract",))
            total = row if total is None else builder.fadd(total, row, flags=("contract",))
            place = builder.add(place, width)
        # The last two lanes may hold anything, NaN too.
        total = builder.shuffle_vector(total, zero, indices([0, 1, 2, 3, 4, 5, 8, 8]))
        total = builder.fmul(total, vector_at(builder.gep(table, [across])))
        for half in (4, 2, 1):
            other = builder.shuffle_vector(total, total, indices([(k + half) % 8 for k in range(8)]))
            total = builder.fadd(total, other)
        return builder.extract_element(total, ir.IntType(32)(0))

    return types.float32(values, at, width, table, down, across), sum_by_rows


@part()
def _reached(slope, start, size, low, high):
    """Of columns low ... high, those whose place, start + slope x column, lies within a frame and a pixel around it."""
    if abs(slope) < 1e-9:
        return (low, high) if -1.0 < start < size else (low, low)
    one, other = (-1.0 - start) / slope, (size - start) / slope
    return max(low, int(max(min(one, other), -1e9))), min(high, int(min(max(one, other), 1e9)) + 2)


def _block_by(stride):
    """Sums of BLOCK kernels of 6x6 values that begin a stride of 1 or 2 apart, as vectors of one value of each: the
    compiler finds these in loops of its own making only."""
    vector, wide = (ir.VectorType(ir.FloatType(), n) for n in (BLOCK, stride * BLOCK))
    number = ir.IntType(32)

    @intrinsic
    def block(typing_context, values, at, width, from_x, from_y, k, curves, out):
        def sums(context, builder, signature, args):
            values, at, width, from_x, from_y, k, curves, out = args
            values, from_x, from_y, curves, out = (
                context.make_array(kind)(context, builder, array).data
                for kind, array in zip(signature.args, args, strict=True)
                if isinstance(kind, types.Array)
            )

            def pick(these, first, step):
                places = ir.Constant(ir.VectorType(number, BLOCK), [first + step * n for n in range(BLOCK)])
                return builder.shuffle_vector(these, ir.Constant(these.type, ir.Undefined), places)

            def load(array, place, kind=vector):
                return builder.load(builder.bitcast(builder.gep(array, [place]), kind.as_pointer()), align=4)

            def curve(tap, power):
                one = builder.load(builder.gep(curves, [at.type(8 * tap + power)]))
                return pick(builder.insert_element(ir.Constant(vector, ir.Undefined), one, number(0)), 0, 0)

            def times(a, b):
                return builder.fmul(a, b, flags=("contract",))

            def plus(a, b):
                return builder.fadd(a, b, flags=("contract",))

            def weights(place):
                pairs, square = [], times(place, place)
                for tap in range(TAPS // 2):
                    even, odd = curve(tap, 3), curve(tap, 7)
                    for power in (2, 1, 0):
                        even = plus(times(even, square), curve(tap, power))
                        odd = plus(times(odd, square), curve(tap, 4 + power))
                    odd = times(odd, place)
                    pairs.append((plus(even, odd), builder.fsub(even, odd, flags=("contract",))))
                return [first for first, _ in pairs] + [last for _, last in reversed(pairs)]

            def along(place):
                of_taps = []
                for tap in range(0, TAPS, stride):
                    these = load(values, builder.add(place, at.type(tap)), wide)
                    of_taps += [pick(these, n, stride) for n in range(stride)]
                total = times(of_taps[0], across[0])
                for value, weight in zip(of_taps[1:], across[1:], strict=True):
                    total = plus(times(value, weight), total)
                return total

            # Of the row that comes up next: the processor does not foresee it.
            for n in range(stride):
                ahead = builder.add(at, builder.add(builder.mul(width, at.type(TAPS + 1)), at.type(n * BLOCK)))
                fetch(builder, builder.gep(values, [ahead]))
            across, down = weights(load(from_x, k)), weights(load(from_y, k))
            total = None
            for weight in down:
                row = times(along(at), weight)
                total = row if total is None else plus(row, total)
                at = builder.add(at, width)
            builder.store(total, builder.bitcast(builder.gep(out, [k]), vector.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(values, at, width, from_x, from_y, k, curves, out), sums

    return block


_block, _block_of_every_other = _block_by(1), _block_by(2)


@part(fastmath={"contract"})
def _weight(t, curves, tap):
    even, odd, s = curves[min(tap, TAPS - 1 - tap), :4], curves[min(tap, TAPS - 1 - tap), 4:], t * t
    odd_part = (((odd[3] * s + odd[2]) * s + odd[1]) * s + odd[0]) * t
    return ((even[3] * s + even[2]) * s + even[1]) * s + even[0] + (odd_part if tap < TAPS // 2 else -odd_part)


@part(fastmath={"contract"})
def _alone(flat, at, width, x, y, curves):
    """A pixel in the last corner of the last plane, behind which a vector must not read."""
    total = F(0.0)
    for m in range(TAPS):
        for n in range(TAPS):
            total += _weight(y, curves, m) * _weight(x, curves, n) * flat[at + Index(m) * width + Index(n)]
    return total


@part()
def _inside(u, v, shape):
    """Whether the kernel lies in the plane as a whole."""
    return (u >= 2.0) & (v >= 2.0) & (u < shape[1] - 3) & (v < shape[0] - 3)


@part()
def _without_kernel(plane, u, v):
    """At the outermost pixels there is no kernel; on the grid itself none is needed."""
    on_x, on_y = round(u), round(v)
    there = 0 <= on_x < plane.shape[1] and 0 <= on_y < plane.shape[0]
    return plane[on_y, on_x] if there and abs(u - on_x) < 1e-6 and abs(v - on_y) < 1e-6 else F(np.nan)


@part(fastmath={"contract"}, error_model="numpy")
def _begins(to_plane, lens, x, y, pace, n, shape, first, stride, room):
    """Where the kernels of n pixels of a row begin, less the strides up to there; and where in their middle pixel
    they stand. BEYOND where there is none."""
    begins, from_x, from_y, _ = room
    wp = shape[1]
    for k in range(n):
        u, v = _in_plane(to_plane, lens, x + k * pace, y)
        ix, iy = np.int32(u), np.int32(v)
        from_x[k], from_y[k] = F(u - ix - 0.5), F(v - iy - 0.5)
        at = first + (np.int64(iy) - 2) * wp + np.int64(ix) - 2
        begins[k] = at - k * stride if _inside(u, v, shape) else BEYOND


@part(fastmath={"contract"}, error_model="numpy")
def _in_blocks(flat, begin, stride, wp, since, end, curves, room):
    """Pixels since ... end of a row, whose kernels begin at `begin` and strides from there."""
    _, from_x, from_y, out = room
    k = since
    while k < end:
        at, end_of_block = begin + k * stride, begin + (k + BLOCK) * stride + (TAPS - 1) * wp + TAPS
        if end_of_block > len(flat):
            out[k] = _alone(flat, Index(at), Index(wp), from_x[k], from_y[k], curves)
            k += 1
            continue
        if stride == 1:
            _block(flat, Index(at), Index(wp), from_x, from_y, Index(k), curves, out)
        else:
            _block_of_every_other(flat, Index(at), Index(wp), from_x, from_y, Index(k), curves, out)
        k += BLOCK


@part(fastmath={"contract"}, error_model="numpy")
def _row_by_blocks(plane, flat, to_plane, lens, x, y, pace, n, stride, curves, room):
    begins, _, _, out = room
    k = 0
    while k < n:
        begin, since = begins[k], k
        while k < n and begins[k] == begin:
            k += 1
        if begin != BEYOND:
            _in_blocks(flat, begin, stride, plane.shape[1], since, k, curves, room)
            continue
        for q in range(since, k):
            u, v = _in_plane(to_plane, lens, x + q * pace, y)
            out[q] = _without_kernel(plane, u, v)


@part(fastmath={"contract"}, error_model="numpy")
def _row_by_pixels(plane, flat, to_plane, lens, x, y, pace, n, stride, table, curves, room):
    begins, from_x, from_y, out = room
    wp = Index(plane.shape[1])
    last = len(flat) - (TAPS - 1) * plane.shape[1] - TAPS - 2
    # The rare ones first, in a loop of their own: what they need would have the processor's registers.
    for k in range(n):
        if begins[k] == BEYOND:
            u, v = _in_plane(to_plane, lens, x + k * pace, y)
            out[k] = _without_kernel(plane, u, v)
        elif begins[k] + k * stride > last:
            out[k] = _alone(flat, Index(begins[k] + k * stride), wp, from_x[k], from_y[k], curves)
    for k in range(n):
        at = begins[k] + k * stride
        if begins[k] != BEYOND and at <= last:
            across = Index(np.int32((from_x[k] + F(0.5)) * F(N_PHASES) + F(0.5))) * EIGHT
            down = Index(np.int32((from_y[k] + F(0.5)) * F(N_PHASES) + F(0.5))) * EIGHT
            out[k] = _interpolated(flat, Index(at), wp, table, down, across)


@entry(fastmath={"contract"}, error_model="numpy")
def _warp(planes, plane_of, step, offsets, to_frame, lens, y0, x0, table, curves, room, image):
    rows, columns = image.shape
    _, hp, wp = planes.shape
    flat, weights = planes.reshape(-1), table.reshape(-1)
    strip = min(max(int(STRIP_ROWS / max(abs(to_frame[1, 0]), 1e-9)), LEAST_STRIP), columns, RUN)
    for left in range(0, columns, strip):
        right = min(left + strip, columns)
        for j in range(rows):
            y = float(y0 + j)
            across = plane_of[(y0 + j) % 2]
            pace = 1 if across[0] == across[1] else 2
            for parity in range(pace):  # one plane at a time: of a mosaic every other pixel of the row
                p = across[(x0 + parity) % 2]
                to_plane = _to_plane(to_frame, step, offsets[p])
                a, b, c, d, e, f = to_plane[0]
                low, high = left, right
                if lens is None:
                    low, high = _reached(a, a * x0 + b * y + c, wp, low, high)
                    low, high = _reached(d, d * x0 + e * y + f, hp, low, high)
                if low >= high:
                    low = high = right
                low += (low + parity) % pace
                n = max((high - low + pace - 1) // pace, 0)
                x = float(x0 + low)
                # How far apart kernels of neighbours begin, but where the row of the frame changes or a column is
                # passed over.
                stride = min(max(int(round(a * pace)), 1), 2)
                _begins(to_plane, lens, x, y, pace, n, (hp, wp), p * hp * wp, stride, room)
                if abs(a * pace - stride) + abs(d * pace) < MOST_BREAKS:
                    _row_by_blocks(planes[p], flat, to_plane, lens, x, y, pace, n, stride, curves, room)
                else:
                    _row_by_pixels(planes[p], flat, to_plane, lens, x, y, pace, n, stride, weights, curves, room)
                row, out = image[j], room[3]
                for k in range(n):
                    row[low + k * pace] = out[k]
                for i in range(left + (left + parity) % pace, low, pace):
                    image[j, i] = np.nan
                for i in range(low + n * pace, right, pace):
                    image[j, i] = np.nan


@part()
def _all_clear(row):
    marked = np.int32(0)
    for x in range(len(row)):
        marked += np.int32(row[x] != CLEAR)
    return marked == 0


@entry(fastmath={"contract"})
def _hold_saturated(planes, plane_of, step, offsets, near, to_frame, lens, y0, x0, reach, image, saturated):
    """Mark the pixels on saturated raw ones, and hold those that have one under the kernel to its range."""
    rows, columns = image.shape
    _, hp, wp = planes.shape
    h, w = near.shape
    # Lattice pixels that can lie above a raw pixel: within its image under the inverse of the linear part.
    a, b, c, d = to_frame[0, 0], to_frame[0, 1], to_frame[1, 0], to_frame[1, 1]
    area = a * d - b * c
    across = int(math.ceil((abs(d) + abs(b)) / abs(area))) + (0 if lens is None else 4)
    along = int(math.ceil((abs(a) + abs(c)) / abs(area))) + (0 if lens is None else 4)
    for y in range(h):
        if _all_clear(near[y]):
            continue
        for x in range(w):
            if near[y, x] == CLEAR:
                continue
            u, v = x - to_frame[0, 2], y - to_frame[1, 2]
            middle_x, middle_y = int((d * u - b * v) / area), int((a * v - c * u) / area)
            for j in range(max(middle_y - along - 1 - y0, 0), min(middle_y + along + 2 - y0, rows)):
                for i in range(max(middle_x - across - 1 - x0, 0), min(middle_x + across + 2 - x0, columns)):
                    fx, fy = _in_frame(to_frame, lens, float(x0 + i), float(y0 + j))
                    if np.isnan(image[j, i]) or int(math.floor(fx)) != x or int(math.floor(fy)) != y:
                        continue
                    p = plane_of[(y0 + j) % 2, (x0 + i) % 2]
                    up, vp = (fx - offsets[p, 1]) / step, (fy - offsets[p, 0]) / step
                    left, right = max(int(math.floor(up - reach)) + 1, 0), min(int(math.floor(up + reach)), wp - 1)
                    bottom, top = max(int(math.floor(vp - reach)) + 1, 0), min(int(math.floor(vp + reach)), hp - 1)
                    low, high = np.float32(np.inf), np.float32(-np.inf)
                    for m in range(bottom, top + 1):
                        for n in range(left, right + 1):
                            low, high = min(low, planes[p, m, n]), max(high, planes[p, m, n])
                    image[j, i] = min(max(image[j, i], low), high)
                    saturated[j, i] = near[y, x] == SATURATED


@njit(cache=True, nogil=True, fastmath={"contract"})
def _warp_shifted(planes, plane_of, dx, dy, y0, x0, table, image):
    rows, columns = image.shape
    image[:] = np.nan
    _, h, w = planes.shape
    ix, iy = int(math.floor(dx)), int(math.floor(dy))
    px, py = int((dx - ix) * N_PHASES + 0.5), int((dy - iy) * N_PHASES + 0.5)
    # First and last column with the whole kernel in the frame; a shift by whole pixels needs none.
    low = 0 if px == 0 else 2
    high_x, high_y = (w if px == 0 else w - 3), (h if py == 0 else h - 3)
    first, last = max(low - ix - x0, 0), min(high_x - ix - x0, columns)
    for j in range(rows):
        y = y0 + j + iy
        if y < (0 if py == 0 else 2) or y >= high_y:
            continue
        column = np.empty(w, np.float32)
        across = plane_of[(y0 + j) % 2]
        for parity in range(2):
            p = across[(x0 + parity) % 2]
            if parity == 1 and p == across[x0 % 2]:
                break
            if py == 0:
                column[:] = planes[p, y]
            else:
                w0, w1, w2 = table[py, 0], table[py, 1], table[py, 2]
                w3, w4, w5 = table[py, 3], table[py, 4], table[py, 5]
                r0, r1, r2 = planes[p, y - 2], planes[p, y - 1], planes[p, y]
                r3, r4, r5 = planes[p, y + 1], planes[p, y + 2], planes[p, y + 3]
                for x in range(w):
                    column[x] = w0 * r0[x] + w1 * r1[x] + w2 * r2[x] + w3 * r3[x] + w4 * r4[x] + w5 * r5[x]
            # Pixels of this plane's phase, or all where there is one plane.
            pace = 1 if across[0] == across[1] else 2
            start = first + (first + parity) % 2 if pace == 2 else first
            if px == 0:
                for i in range(start, last, pace):
                    image[j, i] = column[x0 + i + ix]
            else:
                w0, w1, w2 = table[px, 0], table[px, 1], table[px, 2]
                w3, w4, w5 = table[px, 3], table[px, 4], table[px, 5]
                for i in range(start, last, pace):
                    x = x0 + i + ix
                    total = w0 * column[x - 2] + w1 * column[x - 1] + w2 * column[x]
                    image[j, i] = total + (w3 * column[x + 1] + w4 * column[x + 2] + w5 * column[x + 3])


@njit(cache=True, nogil=True, fastmath={"contract"})
def _warp_stretched(planes, plane_of, step, offsets, to_frame, lens, y0, x0, stretch, image):
    rows, columns = image.shape
    image[:] = np.nan
    _, hp, wp = planes.shape
    reach = 3 * stretch
    for j in range(rows):
        wx, wy = np.empty(64), np.empty(64)
        for i in range(columns):
            x, y = _in_frame(to_frame, lens, x0 + i, y0 + j)
            p = plane_of[(y0 + j) % 2, (x0 + i) % 2]
            u, v = (x - offsets[p, 1]) / step, (y - offsets[p, 0]) / step
            left, right = int(math.ceil(u - reach)), int(math.floor(u + reach))
            bottom, top = int(math.ceil(v - reach)), int(math.floor(v + reach))
            if left < 0 or bottom < 0 or right >= wp or top >= hp:
                continue
            stretched_weights(u, left, right, stretch, wx)
            stretched_weights(v, bottom, top, stretch, wy)
            total = 0.0
            for m in range(top - bottom + 1):
                line, part = planes[p, bottom + m], 0.0
                for n in range(right - left + 1):
                    part += wx[n] * line[left + n]
                total += wy[m] * part
            image[j, i] = total


@njit(fastmath={"contract"})
def stretched_weights(place, first, last, stretch, weights):
    """Weights of the stretched kernel on pixels first ... last: sum 1, and centre of mass at the place."""
    n = last - first + 1
    total = 0.0
    for k in range(n):
        t = abs(place - (first + k)) / stretch
        if t < 1e-9:
            weights[k] = 1.0
        elif t < 3:
            a, b = math.pi * t, math.pi * t / 3
            weights[k] = math.sin(a) / a * (math.sin(b) / b)
        else:
            weights[k] = 0.0
        total += weights[k]
    centre = 0.0
    for k in range(n):
        weights[k] /= total
        centre += weights[k] * (first + k)
    inner = int(math.floor(place)) - first
    weights[inner] -= place - centre
    weights[inner + 1] += place - centre
