"""Kernels of PREWARP: cosmetic correction, demosaicing, resampling onto the lattice, meshes of sky and noise."""

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from tilestack.kernels import entry, part

# Positions in a pixel for which the weights of the Lanczos kernel are tabulated; half a step is 0.0005 px.
N_PHASES = 1024
TAPS = 6
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
# The kernel is stretched where a lattice pixel holds so many pixels of the frame along an axis, or more.
LEAST_STRETCH = 1.05
# A transform that a shift replaces to this in the corners is done as a shift: a tenth of a good centroid error.
SHIFT_TOLERANCE_PX = 0.005
# Columns of the lattice are resampled in strips that cross so many rows of the frame, but at least so wide: along a
# whole row of a turned frame those which the next one needs would have left the cache.
STRIP_ROWS, LEAST_STRIP = 16, 64
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
    position = np.arange(N_PHASES + 1) / N_PHASES
    taps = np.arange(1 - a, a + 1)
    offset = position[:, None] - taps
    weights = np.sinc(offset) * np.sinc(offset / a) * (abs(offset) < a)
    weights /= weights.sum(1, keepdims=True)
    lever = taps - taps.mean()
    weights += (position - weights @ taps)[:, None] * lever / (lever**2).sum()
    return weights.astype(np.float32)


TABLE = lanczos_table()
VECTORS = np.pad(TABLE, ((0, 0), (0, 2)))  # with two taps more, of no weight: a row is a vector
Index = np.uintp
ONE, TWO, THREE, FOUR, EIGHT = Index(1), Index(2), Index(3), Index(4), Index(8)
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
        ys, xs = np.divmod(np.flatnonzero(raw >= saturation), raw.shape[1])  # quicker than nonzero by axes
        _mark_saturated(near, ys, xs, reach)
    return near


@entry()
def _mark_saturated(near, ys, xs, reach):
    h, w = near.shape
    for reach_low, reach_high, mark in ((reach, reach - 1, TOUCHES_SATURATED), (1, 0, SATURATED)):
        for k in range(len(ys)):
            for y in range(max(ys[k] - reach_low, 0), min(ys[k] + reach_high, h - 1) + 1):
                for x in range(max(xs[k] - reach_low, 0), min(xs[k] + reach_high, w - 1) + 1):
                    near[y, x] = mark


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
    image = np.full((rows, columns), np.nan, np.float32)
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
        _warp(planes, plane_of, step, offsets, to_frame, lens, y0, x0, VECTORS, image)
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


@entry(fastmath={"contract"}, error_model="numpy")
def _warp(planes, plane_of, step, offsets, to_frame, lens, y0, x0, table, image):
    rows, columns = image.shape
    flat, weights = planes.reshape(-1), table.reshape(-1)
    strip = min(max(int(STRIP_ROWS / max(abs(to_frame[1, 0]), 1e-9)), LEAST_STRIP), columns)
    for left in range(0, columns, strip):
        for j in range(rows):
            across = plane_of[(y0 + j) % 2]
            pace = 1 if across[0] == across[1] else 2
            for parity in range(pace):  # one plane at a time: of a mosaic every other pixel of the row
                p = across[(x0 + parity) % 2]
                plane = planes[p]
                hp, wp = plane.shape
                width, first, reach = Index(wp), Index(p * hp * wp), Index((TAPS - 1) * wp + TAPS + 2)
                # Transform to the pixels of the plane.
                shrink = 1.0 / step
                a, b, c = to_frame[0, 0] * shrink, to_frame[0, 1] * shrink, (to_frame[0, 2] - offsets[p, 1]) * shrink
                d, e, f = to_frame[1, 0] * shrink, to_frame[1, 1] * shrink, (to_frame[1, 2] - offsets[p, 0]) * shrink
                lattice_y = float(y0 + j)
                low, high = left, min(left + strip, columns)
                if lens is None:
                    low, high = _reached(a, a * x0 + b * lattice_y + c, wp, low, high)
                    low, high = _reached(d, d * x0 + e * lattice_y + f, hp, low, high)
                for i in range(low + (low + parity) % pace, high, pace):
                    lattice_x = float(x0 + i)
                    if lens is None:
                        u, v = a * lattice_x + b * lattice_y + c, d * lattice_x + e * lattice_y + f
                    else:
                        x, y = _in_frame(to_frame, lens, lattice_x, lattice_y)
                        u, v = (x - offsets[p, 1]) * shrink, (y - offsets[p, 0]) * shrink
                    if not (u >= 2.0 and v >= 2.0 and u < wp - 3 and v < hp - 3):
                        # At the outermost pixels there is no kernel; on the grid itself none is needed.
                        on_x, on_y = round(u), round(v)
                        if abs(u - on_x) < 1e-6 and abs(v - on_y) < 1e-6 and 0 <= on_x < wp and 0 <= on_y < hp:
                            image[j, i] = plane[on_y, on_x]
                        continue
                    # Unsigned: of others numba looks whether they count from the end, 16 in place of 12 ns a pixel.
                    ix, iy = Index(u), Index(v)
                    px, py = Index((u - ix) * N_PHASES + 0.5), Index((v - iy) * N_PHASES + 0.5)
                    at = first + (iy - TWO) * width + ix - TWO
                    if at + reach <= len(flat):
                        image[j, i] = _interpolated(flat, at, width, weights, py * EIGHT, px * EIGHT)
                        continue
                    # In the last corner of the last plane, behind which a vector must not read.
                    total = np.float32(0.0)
                    for m in range(TAPS):
                        for n in range(TAPS):
                            total += table[py, m] * table[px, n] * flat[at + Index(m) * width + Index(n)]
                    image[j, i] = total


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
    sums = np.zeros((-(-image.shape[0] // ROWS), 2))
    _gradient_energy(image, step, sums)
    total, count = sums.sum(0)
    return total / count if count else np.nan


@njit(cache=True, nogil=True, fastmath={"contract"})
def _gradient_energy(image, step, sums):
    h, w = image.shape
    for block in range(len(sums)):
        n = max(w - 2 * step, 0)
        total, count = np.zeros(n), np.zeros(n, np.int32)
        for y in range(max(block * ROWS, step), min((block + 1) * ROWS, h - step)):
            line = image[y]
            _add_gradients(line[: w - 2 * step], line[2 * step :], image[y - step], image[y + step], step, total, count)
        sums[block, 0], sums[block, 1] = total.sum(), count.sum()


@part(fastmath={"contract"})
def _add_gradients(left, right, below, above, step, total, count):
    below, above, factor = below[step : len(below) - step], above[step : len(above) - step], np.float32(0.5 / step)
    for x in range(len(total)):
        by_x, by_y = (right[x] - left[x]) * factor, (above[x] - below[x]) * factor
        energy = by_x * by_x + by_y * by_y
        known = not np.isnan(energy)
        total[x] += energy if known else np.float32(0.0)
        count[x] += np.int32(known)


@entry()
def extent(image):
    """Number of pixels of a float32 image that are no NaN, the least and the largest of them; NaN if there is none."""
    n, low, high = 0, np.float32(np.inf), np.float32(-np.inf)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            value = image[y, x]
            if not np.isnan(value):
                n += 1
                low, high = min(low, value), max(high, value)
    return (n, float(low), float(high)) if n else (0, np.nan, np.nan)


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
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if np.isnan(image[y, x]):
                codes[y, x] = -32768
            elif saturated[y, x]:
                codes[y, x] = 32767
            else:
                codes[y, x] = min(max(round((image[y, x] - zero) / scale), -32767), 32766)
