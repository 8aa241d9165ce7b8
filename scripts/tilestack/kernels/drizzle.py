"""Kernels of CFA drizzle: which raw pixels are outliers, and their drops on a finer grid."""

import math
from collections import namedtuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tilestack.kernels import entry, part
from tilestack.kernels.ahead import prefetch

# Marks of a raw pixel, as in ``coadd``.
KEPT, REJECTED, CLIPPED, MISSING = 0, 1, 2, 3
# Sums of an output pixel over raw ones; the even and the odd frames apart, so that halves can be compared.
SUMS = ("WY_EVEN", "W_EVEN", "W2V_EVEN", "WY_ODD", "W_ODD", "W2V_ODD", "Y", "A", "EXPOSURE")
# All but the last make one vector; the exposure and the number of pixels make another.
N_SUMS, N_COVER = 8, 2
# Of some frames of one half the sums are in single precision first, one vector: w y, w, w^2 v, y, area, exposure,
# number of pixels, and nothing. So less is carried to and from the cache.
N_SINGLE, MANY = 8, np.float32(1e30)
# Fields of a frame over the tiles, in this order, as in ``coadd``.
FIELDS = ("SCALE", "SKY", "VARIANCE", "FWHM", "WEIGHT")
# As in ``coadd``: bank of blurred templates, what a sharper frame is compared with, and the least noise.
BLUR_STEP, MOST_SHARPER, LEAST_VARIANCE = 0.4, 3.0, 0.3
FWHM2 = 8 * np.log(2)
# Shapes of a drop.
KERNELS = ("square", "turbo", "point", "gaussian")
SQUARE, TURBO, POINT, GAUSSIAN = range(len(KERNELS))
# A Gaussian ends so many raw pixels from its centre, as in STScI's drizzle: 4 standard deviations at pixfrac 0.7.
GAUSSIAN_REACH = 1.2
# Shares of a drop below this are rounding of single precision, and no share.
LEAST_SHARE = 1e-6
# Along a raw row fields are bilinear at every 16th column and linear between them: four fields at every pixel would
# take longer than all the rest. From a bilinear field the line differs where it crosses a row of nodes, by 4 px times
# the change of slope there: of fields that change by 1 % from node to node, 128 px apart, by 2e-4 in the worst place.
SEGMENT = 16
# Output pixels that are filled at a time, by all frames in turn: their sums in single precision, 1.5 MB of three
# colours, stay in the second and third cache. Smaller tiles are slower: a run of pixels then reaches beyond its tile.
TILE_ROWS, TILE_COLUMNS = 64, 256
# Segments of a raw row that are taken together. What is known of their pixels stands in a few arrays, one quantity WIDE
# numbers behind the other: at such distances the compiler sees that they do not overlap, while of more than a few
# arrays it would have to ask at run time, and makes no vectors then. Not a multiple of 4096 bytes, for the cache.
RUN = 16
WIDE = RUN * SEGMENT + 16
# Raw rows that the processor is told of before their turn: a tile takes short pieces of rows that lie far apart, whose
# way from memory took a sixth of the time.
AHEAD = 2
# Lattice pixels that a template must reach beyond the band: those of the cubic interpolation.
TEMPLATE_HALO = 2

# Raw lights of one camera, or parts of them: images (n, h, w) float32 ADU, NaN without data, and anything beyond the
# end of those that are smaller; rows and columns of their first pixels in the light (n, 2); channel of each phase of
# the light (2, 2); transforms (n, 2, 3) of straight raw positions to the lattice, and the distortion before them as
# ``distortion.as_array`` gives it, or None; fields (n, c, ny, nx, 4) float32 as ``chosen`` gives them, at the nodes of
# a grid, and of that grid the lattice row and column of the first node and the pitch in pixels.
Lights = namedtuple("Lights", "images top_left cell to_lattice lens fields grid")
# One of them, and by how much the lens moves one of its pixels at the most.
Light = namedtuple("Light", "image top_left cell to_lattice lens fields grid bend")
# The sky by colour on a band and a halo around it: bank (m, c, H, W) of the template and its blurred forms, its FWHM,
# the squared tolerance in ADU^2 and the light above the local sky in ADU, each (c, H, W); all float32.
Template = namedtuple("Template", "bank width squared signal")
# One of SQUARE, TURBO, POINT, GAUSSIAN; size of a drop in raw pixels; output pixels to a lattice pixel along an axis.
Drop = namedtuple("Drop", "kernel pixfrac scale")

# Indices without sign: of others numba looks whether they count from the end.
Index = np.uintp
F = np.float32
ONE = Index(1)
# Fields that each kernel takes: four, so that they are one vector.
MARKED, DEPOSITED = [0, 1, 2, 3], [0, 1, 2, 4]
# Where quantities of a run begin. Floats: scale, sky, variance, FWHM or weight; then what each kernel adds to them.
SCALE, SKY, RAW, LAST = (Index(k * WIDE) for k in range(4))
# Of the template: its value, its light above the sky, its squared tolerance.
TARGET, ABOVE, SQUARED = (Index(k * WIDE) for k in range(4, 7))
# Place of a drop from the first output pixel that it reaches, and the light of the sky there.
FROM_X, FROM_Y, LIGHT = (Index(k * WIDE) for k in range(4, 7))
N_FLOATS = 7 * WIDE
# Integers.
NEAREST, CORNER = Index(0), Index(WIDE)
FIRST_Y, FIRST_X, SIGNAL = Index(0), Index(WIDE), Index(2 * WIDE)
N_INTEGERS = 3 * WIDE
# What is added to sums.
WY, W, W2V, Y = (Index(k * WIDE) for k in range(4))

# Places of numbers of a row: its cubics (2, 4), the ends of its segments (n, 2), and fields at the ends of a run
# (RUN + 1, 2, 4), flat; then what is known of the pixels of a run, as above.
Room = namedtuple("Room", "row ends nodes places terms floats integers far counting parts areas shares tile")


def _room(width, ny=1, nx=1, n_channels=0):
    """Room for lights that are so wide, whose drops reach so many output pixels."""
    return Room(
        row=np.empty((2, 4)),
        ends=np.empty((width // SEGMENT + 4, 2)),
        nodes=np.empty((RUN + 1) * 2 * 4, np.float32),
        places=np.empty(2 * WIDE),
        terms=np.empty(4 * WIDE, np.float32),
        floats=np.empty(N_FLOATS, np.float32),
        integers=np.empty(N_INTEGERS, np.int32),
        far=np.empty(WIDE, np.bool_),
        counting=np.empty(WIDE, np.uint8),
        parts=np.empty((ny + nx) * WIDE, np.float32),
        areas=np.empty(ny * nx * WIDE, np.float32),
        shares=np.empty(ny * nx * WIDE, np.float32),
        # With a rim that takes what of drops lies beyond the tile.
        tile=np.zeros((n_channels, TILE_ROWS + 2 * (ny - 1), TILE_COLUMNS + 2 * (nx - 1), N_SINGLE), np.float32),
    )


EIGHT = ir.VectorType(ir.FloatType(), N_SINGLE)


@intrinsic
def _add(typing_context, tile, index, terms, share):
    """Add a share of the terms of a pixel (N_SINGLE) to the sums of an output pixel, which begin at an index."""

    def instruction(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        _increase(builder, _place(builder, data, args[1], EIGHT), _shared(builder, args[2], args[3]))
        return context.get_dummy_value()

    return types.void(tile, index, terms, share), instruction


@intrinsic
def _leave_out(typing_context, sums, cover, pixel, terms, share, half):
    """Add a share of the terms of a pixel to the sums in double precision of an output pixel."""

    def instruction(context, builder, signature, args):
        arrays = [context.make_array(signature.args[k])(context, builder, args[k]).data for k in (0, 1)]
        _transfer(builder, *arrays, args[2], _shared(builder, args[3], args[4]), args[5])
        return context.get_dummy_value()

    return types.void(sums, cover, pixel, terms, share, half), instruction


@intrinsic
def _flush(typing_context, sums, cover, pixel, tile, index, half):
    """Add what stands in a tile from an index on to the sums in double precision of an output pixel."""

    def instruction(context, builder, signature, args):
        arrays = [context.make_array(signature.args[k])(context, builder, args[k]).data for k in (0, 1, 3)]
        place = _place(builder, arrays[2], args[4], EIGHT)
        _transfer(builder, *arrays[:2], args[2], builder.load(place, align=4), args[5])
        return context.get_dummy_value()

    return types.void(sums, cover, pixel, tile, index, half), instruction


def _shared(builder, terms, share):
    """Terms times the share: of w^2 v its square, and of the number of pixels, MANY of which any share is more than one
    of, 1. All of it by vectors, as putting single numbers into one takes longer."""
    of_all = ir.Constant(EIGHT, ir.Undefined)
    for k in range(N_SINGLE):
        of_all = builder.insert_element(of_all, builder.extract_value(terms, k), ir.IntType(32)(k))
    shares = _even(builder, share, N_SINGLE)
    once = builder.fmul(of_all, shares)
    squared = ir.Constant(ir.VectorType(ir.IntType(32), N_SINGLE), [0, 1, N_SINGLE + 2, 3, 4, 5, 6, 7])
    both = builder.shuffle_vector(once, builder.fmul(once, shares), squared)
    most = ir.Constant(EIGHT, [float("inf")] * 6 + [1.0, float("inf")])
    return builder.select(builder.fcmp_ordered("<", most, both), most, both)  # of an unknown exposure it stays NaN


def _transfer(builder, sums, cover, pixel, single, half):
    """Instructions that add sums in single precision, of the even (0) or odd half, to those of an output pixel."""
    nothing = N_SINGLE
    in_order = ([0, 1, 2, nothing, nothing, nothing, 3, 4], [nothing, nothing, nothing, 0, 1, 2, 3, 4], [5, 6])
    even, odd, covered = (
        builder.shuffle_vector(
            single, ir.Constant(EIGHT, None), ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
        )
        for order in in_order
    )
    summed = builder.select(builder.icmp_signed("!=", half, half.type(0)), odd, even)
    for data, added, n in ((sums, summed, N_SUMS), (cover, covered, N_COVER)):
        doubles = builder.fpext(added, ir.VectorType(ir.DoubleType(), n))
        _increase(builder, _place(builder, data, builder.mul(pixel, pixel.type(n)), doubles.type), doubles)


@intrinsic
def _bilinear(typing_context, fields, index, line, x, y, nodes, to):
    """Write four fields, side by side at nodes of a grid, as they are at a place between four of the nodes.

    `index` is that of the first node and `line` what lies between those of two rows; `x` and `y` are fractions; written
    to `nodes` from the index `to` on.
    """

    def instruction(context, builder, signature, args):
        of_fields, first, of_line, x, y, of_nodes, to = args
        four = ir.VectorType(ir.FloatType(), 4)
        data = context.make_array(signature.args[0])(context, builder, of_fields).data

        def along(first):
            ends = [first, builder.add(first, ir.Constant(first.type, 4))]
            return mixed(*(builder.load(_place(builder, data, end, four), align=4) for end in ends), x)

        def mixed(low, high, share):
            return builder.fadd(low, builder.fmul(_even(builder, share, 4), builder.fsub(high, low)))

        found = mixed(along(first), along(builder.add(first, of_line)), y)
        data = context.make_array(signature.args[5])(context, builder, of_nodes).data
        builder.store(found, _place(builder, data, to, four), align=4)
        return context.get_dummy_value()

    return types.void(fields, index, line, x, y, nodes, to), instruction


@intrinsic
def _between(typing_context, nodes, index, floats, to):
    """Write four fields along a segment, whose pixels are by turns of two channels.

    Both channels' fields (2, 4) stand in `nodes` from `index` on, and behind them those at its end; written to `floats`
    from the index `to` on, those of each field WIDE numbers behind those of the one before.
    """

    def instruction(context, builder, signature, args):
        of_nodes, index, of_floats, to = args
        eight, whole = ir.VectorType(ir.FloatType(), 8), ir.VectorType(ir.FloatType(), SEGMENT)
        data = context.make_array(signature.args[0])(context, builder, of_nodes).data
        place = _place(builder, data, index, eight)
        first, last = (builder.load(builder.gep(place, [ir.IntType(32)(k)]), align=4) for k in (0, 1))
        share = _even(builder, ir.Constant(ir.FloatType(), 1 / SEGMENT), 8)
        step = builder.fmul(builder.fsub(last, first), share)
        along = ir.Constant(whole, [float(k) for k in range(SEGMENT)])
        data = context.make_array(signature.args[2])(context, builder, of_floats).data
        for m in range(4):
            by_turns = ir.Constant(ir.VectorType(ir.IntType(32), SEGMENT), [m, 4 + m] * (SEGMENT // 2))
            begin, steps = (builder.shuffle_vector(both, both, by_turns) for both in (first, step))
            found = builder.fadd(begin, builder.fmul(along, steps))
            at = builder.add(to, ir.Constant(to.type, m * WIDE))
            builder.store(found, _place(builder, data, at, whole), align=4)
        return context.get_dummy_value()

    return types.void(nodes, index, floats, to), instruction


def _place(builder, data, index, kind):
    """Place of a vector in an array's data."""
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _even(builder, value, n):
    """A vector of n times a value."""
    vector = ir.Constant(ir.VectorType(value.type, n), ir.Undefined)
    for k in range(n):
        vector = builder.insert_element(vector, value, ir.IntType(32)(k))
    return vector


def _increase(builder, place, vector):
    """Instructions that add a vector to what stands at a place."""
    align = {ir.FloatType(): 4, ir.DoubleType(): 8}[vector.type.element]
    builder.store(builder.fadd(builder.load(place, align=align), vector), place, align=align)


# Compiled without fused multiply-add, unlike other kernels: pixels of a row are taken as vectors where there are enough
# of them, and one by one at the end. Where a row begins and ends goes with the band, and must not show in the bits.
# error_model="numpy" because a test for division by zero would keep the compiler from making vectors at all.


@part(error_model="numpy")
def _row(light, y, row):
    """Lattice places along a raw row: cubic polynomials for x and y, (2, 4), in the x of the lens."""
    lens, matrix = light.lens, light.to_lattice
    b = y / lens[0, 0] - lens[1, 1]
    for m in range(2):
        row[m, 0] = matrix[m, 0] * lens[0, 0] * lens[1, 0] + matrix[m, 1] * y + matrix[m, 2]
        row[m, 1] = matrix[m, 0] * lens[0, 0]
        row[m, 2] = row[m, 3] = 0.0
        for k in range(2):
            # Its terms are u^2, u v, v^2, u^3, u^2 v, u v^2, v^3.
            row[m, 0] += matrix[m, k] * (lens[4, k] + b * lens[8, k]) * b * b
            row[m, 1] += matrix[m, k] * (lens[3, k] + b * lens[7, k]) * b
            row[m, 2] += matrix[m, k] * (lens[2, k] + b * lens[6, k])
            row[m, 3] += matrix[m, k] * lens[5, k]


@part(error_model="numpy")
def _window(light, box):
    """Rows of the image, and segments of the light, that may come into a box of the lattice: first and behind last."""
    matrix, (h, w), top, left = light.to_lattice, light.image.shape, light.top_left[0], light.top_left[1]
    determinant = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    x, y = 0.5 * (box[2] + box[3]) - matrix[0, 2], 0.5 * (box[0] + box[1]) - matrix[1, 2]
    half_x, half_y = 0.5 * (box[3] - box[2]), 0.5 * (box[1] - box[0])
    middle_x = (matrix[1, 1] * x - matrix[0, 1] * y) / determinant
    middle_y = (matrix[0, 0] * y - matrix[1, 0] * x) / determinant
    reach_x = (abs(matrix[1, 1]) * half_x + abs(matrix[0, 1]) * half_y) / abs(determinant) + light.bend
    reach_y = (abs(matrix[0, 0]) * half_y + abs(matrix[1, 0]) * half_x) / abs(determinant) + light.bend
    # Held to the image while still floats: far away they may be larger than integers are.
    low_y = min(max(middle_y - reach_y - top, 0.0), float(h))
    high_y = min(max(middle_y + reach_y - top + 1, 0.0), float(h))
    low_x = min(max(middle_x - reach_x, float(left)), float(left + w))
    high_x = min(max(middle_x + reach_x, float(left - SEGMENT)), float(left + w - 1))
    first = int(math.floor(low_x)) // SEGMENT
    return int(low_y), int(high_y), first, max(int(math.floor(high_x)) // SEGMENT + 1, first)


@part(error_model="numpy")
def _reached(light, row, first, last, box, ends):
    """Segments of a raw row that come into a box, first and behind last; and the places of the ends of all."""
    for n in range(last - first + 1):
        a = (first + n) * SEGMENT / light.lens[0, 0] - light.lens[1, 0]
        for m in range(2):
            ends[n, m] = row[m, 0] + a * (row[m, 1] + a * (row[m, 2] + a * row[m, 3]))
    low, high = last, first
    for n in range(last - first):
        ax, ay, bx, by = ends[n, 0], ends[n, 1], ends[n + 1, 0], ends[n + 1, 1]
        if min(ay, by) <= box[1] and max(ay, by) >= box[0] and min(ax, bx) <= box[3] and max(ax, bx) >= box[2]:
            low, high = min(low, first + n), first + n + 1
    return low, high


@part(error_model="numpy")
def _places(light, row, low, high, places):
    """Lattice places x, y of the pixels of a run of segments: (2 WIDE,)."""
    x0, x1, x2, x3 = row[0, 0], row[0, 1], row[0, 2], row[0, 3]
    y0, y1, y2, y3 = row[1, 0], row[1, 1], row[1, 2], row[1, 3]
    length, centre = light.lens[0, 0], light.lens[1, 0]
    for n in range((high - low) * SEGMENT):
        a = (low * SEGMENT + n) / length - centre
        k = Index(n)
        places[k] = x0 + a * (x1 + a * (x2 + a * x3))
        places[k + Index(WIDE)] = y0 + a * (y1 + a * (y2 + a * y3))


@part(error_model="numpy")
def _fields_along(light, fields, y, ends, nodes, floats):
    """Fields of the pixels of a run of segments, whose ends lie at places (n + 1, 2): SCALE ... LAST of the floats.
    `fields` are those of the light, flat."""
    grid, (_, ny, nx, _) = light.grid, light.fields.shape
    line = Index(4 * nx)
    even, odd = light.cell[y % 2, 0] * ny, light.cell[y % 2, 1] * ny
    for n in range(len(ends)):
        at_y, at_x = (ends[n, 1] - grid[0]) / grid[2], (ends[n, 0] - grid[1]) / grid[2]
        j, i = min(max(int(at_y), 0), ny - 2), min(max(int(at_x), 0), nx - 2)
        fy, fx = np.float32(at_y - j), np.float32(at_x - i)
        _bilinear(fields, Index(((even + j) * nx + i) * 4), line, fx, fy, nodes, Index(8 * n))
        _bilinear(fields, Index(((odd + j) * nx + i) * 4), line, fx, fy, nodes, Index(8 * n + 4))
    for n in range(len(ends) - 1):
        _between(nodes, Index(8 * n), floats, Index(n * SEGMENT))


def chosen(fields, which):
    """Fields of frames as the kernels take them.

    Parameters
    ----------
    fields : (n, 5, c, ny, nx) array
        FIELDS, on 2 x 2 nodes or more.
    which : list of int
        MARKED or DEPOSITED.

    Returns
    -------
    (n, c, ny, nx, 4) float32 array
    """
    if fields.ndim != 5 or fields.shape[1] != len(FIELDS) or min(fields.shape[3:]) < 2:
        raise ValueError(f"need {len(FIELDS)} fields by channel on 2x2 nodes or more, got {fields.shape}")
    return np.ascontiguousarray(np.moveaxis(fields[:, which], 1, -1), np.float32)


def _ready(lights, marks, band):
    """Lights as the compiled code takes them, and by how much the lens moves their pixels at the most, (n,)."""
    n, h, w = lights.images.shape
    if lights.images.dtype != np.float32 or marks.shape != lights.images.shape:
        raise ValueError(
            f"need float32 images and their marks, got {lights.images.dtype} {lights.images.shape} and {marks.shape}"
        )
    wanted = (n, int(lights.cell.max()) + 1)
    if lights.fields.shape[:2] != wanted:
        raise ValueError(f"need fields of {wanted} lights and channels, got {lights.fields.shape}")
    if len(band) != 4 or min(band[2:]) < 1:
        raise ValueError(f"need a band y0, x0, rows, columns, got {band}")
    lens = np.zeros((9, 2)) if lights.lens is None else np.array(lights.lens, float)
    if lights.lens is None:
        lens[0] = 1.0
    top_left = np.array(lights.top_left, np.int64)
    ends = np.stack([top_left, top_left + [h, w]])[..., ::-1]
    farthest = np.abs(ends / lens[0] - lens[1]).max((0, 2))
    bends = np.abs(lens[2:]).max(1) @ farthest ** np.array([2, 2, 2, 3, 3, 3, 3])[:, None]
    arrays = {
        "images": np.ascontiguousarray(lights.images),
        "top_left": top_left,
        "cell": np.array(lights.cell, np.int64),
        "to_lattice": np.array(lights.to_lattice, float),
        "lens": lens,
        "fields": np.ascontiguousarray(lights.fields),
        "grid": np.array(lights.grid, float),
    }
    return Lights(**arrays), bends


@part(error_model="numpy")
def _one(lights, bends, k):
    """One of the lights."""
    images, top_left, cell, to_lattice, lens, fields, grid = lights
    return Light(images[k], top_left[k], cell, to_lattice[k], lens, fields[k], grid, bends[k])


def mark(lights, marks, band, template, options):
    """Mark, in place, the raw pixels of frames that the template rejects.

    Parameters
    ----------
    lights : Lights
        With the fields MARKED.
    marks : (n, h, w) uint8 array
        Only what is KEPT is tested, and may become REJECTED.
    band : (int, int, int, int)
        Lattice y0, x0, rows, columns: pixels whose centre lies on its lattice pixels are tested. So bands that do not
        overlap test each pixel once.
    template : Template
        Planes (c, rows + 2 halo, columns + 2 halo) with a halo of TEMPLATE_HALO or more to all sides. A raw pixel is
        not tested where its place has a NaN among the 4x4 pixels around it.
    options : dict
        ``inverse_gain`` (ADU per electron, 0 where unknown), ``kappa`` (limit in standard deviations),
        ``seeing_tolerance`` (share of what the blur changes that a frame may differ by).

    Notes
    -----
    The decision is that of ``coadd.mark``; the noise is that of a raw pixel, see ``deposit``. Between its pixels the
    template is interpolated: bilinear first, and by cubic convolution (R. Keys, IEEE Trans. ASSP 29 (1981) 1153,
    a = -1/2) where that rejects. On Moffat stars of FWHM 2.0, 2.5, 3.0 px at random phases their worst errors are
    0.29, 0.20, 0.15 and 0.17, 0.09, 0.05 of the peak, which is 2.1, 1.5, 1.2 and 1.2, 0.7, 0.4 of the tolerance
    for a = 0.2 and c = 0.05.
    """
    ready = _ready(lights, marks, band)
    rows, columns = band[2:]
    halo = (template.bank.shape[2] - rows) // 2
    planes = (lights.fields.shape[1], rows + 2 * halo, columns + 2 * halo)
    shapes = [part.shape for part in (template.bank[0], *template[1:])]
    if halo < TEMPLATE_HALO or any(shape != planes for shape in shapes):
        raise ValueError(
            f"need template planes of {planes[0]} colours on {rows} x {columns} pixels and a halo of at least "
            f"{TEMPLATE_HALO}, got {shapes}"
        )
    limits = (float(options["inverse_gain"]), float(options["kappa"]), float(options["seeing_tolerance"]))
    _mark(*ready, marks, tuple(map(int, band)), template, halo, limits, _room(marks.shape[2]))


@entry(error_model="numpy")
def _mark(lights, bends, marks, band, template, halo, limits, room):
    for k in range(len(bends)):
        _mark_one(_one(lights, bends, k), marks[k], band, template, halo, limits, room)


@part(error_model="numpy")
def _mark_one(light, marks, band, template, halo, limits, room):
    w = light.image.shape[1]
    y0, x0, rows, columns = band
    inverse_gain, kappa, seeing_tolerance = limits
    top, left = light.top_left[0], light.top_left[1]
    most = len(template.bank) - 1
    plain = template.bank[0]
    # Half a pixel to all sides, and what a lens bends a segment by: less than that, were it as large as the frame.
    box = (y0 - 1.0, y0 + float(rows), x0 - 1.0, x0 + float(columns))
    first_row, last_row, first, last = _window(light, box)
    matrix = light.to_lattice
    area = abs(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])
    wide = columns + 2 * halo
    flat = (plain.reshape(-1), template.signal.reshape(-1), template.squared.reshape(-1))
    row, ends, places, floats, integers, far = room.row, room.ends, room.places, room.floats, room.integers, room.far
    fields = light.fields.reshape(-1)
    for j_image in range(first_row, last_row):
        y = top + j_image
        _row(light, float(y), row)
        reached = _reached(light, row, first, last, box, ends)
        for low in range(reached[0], reached[1], RUN):
            high = min(low + RUN, reached[1])
            start = low * SEGMENT - left
            skip, stop = max(-start, 0), min((high - low) * SEGMENT, w - start)
            if skip >= stop:
                continue
            _places(light, row, low, high, places)
            _fields_along(light, fields, y, ends[low - first : high - first + 1], room.nodes, floats)
            phases = light.cell[y % 2, (start + left) % 2], light.cell[y % 2, (start + left + 1) % 2]
            n_pixels = (high - low) * SEGMENT
            _lattice_pixels(n_pixels, places, phases, band, halo, integers)
            _template_at(n_pixels, wide, flat, places, integers, floats)
            image, its_marks = light.image[j_image, start + skip : start + stop], marks[j_image]
            _far(image, its_marks[start + skip : start + stop], skip, integers, floats, 1 / area, limits, far)
            for n in range(skip, stop):
                k = Index(n)
                if not far[k]:
                    continue
                c, at_x, at_y = phases[n & 1], places[k], places[k + Index(WIDE)]
                scale, fwhm = float(floats[k + SCALE]), float(floats[k + LAST])
                value = (image[n - skip] - float(floats[k + SKY])) / scale
                i, j = int(math.floor(at_x + 0.5)) - x0 + halo, int(math.floor(at_y + 0.5)) - y0 + halo
                # Fractions of the lattice itself, so that they are the same in every band.
                cell_x, cell_y = int(math.floor(at_x)), int(math.floor(at_y))
                place = (cell_x - x0 + halo, cell_y - y0 + halo, at_x - cell_x, at_y - cell_y)
                allowed = _variance(floats[k + RAW] / area, template.signal[c, j, i] * inverse_gain / scale)
                allowed = kappa * kappa * (allowed + template.squared[c, j, i])
                # Beyond its noise: is it the interpolation?
                target = _cubic(plain[c], place)
                if np.isnan(target) or (value - target) ** 2 <= allowed:
                    continue
                # Is it the seeing? The template as broad as the frame, and what that changes.
                width = template.width[c, j, i]
                blur = (fwhm * fwhm - width * width) / (FWHM2 * BLUR_STEP)
                if most > 0 and not np.isnan(blur):
                    blur = min(max(blur, -MOST_SHARPER), float(most))
                    level = min(max(int(blur), 0), most - 1)
                    low_blur = _cubic(template.bank[level, c], place)
                    high_blur = _cubic(template.bank[level + 1, c], place)
                    moved = low_blur + (blur - level) * (high_blur - low_blur)
                    change = max(abs(moved - target), _sharper(template.signal[c, j, i], width, fwhm))
                    allowed += (kappa * seeing_tolerance * change) ** 2
                    target = moved
                if (value - target) ** 2 > allowed:
                    its_marks[start + n] = REJECTED


@part(error_model="numpy")
def _lattice_pixels(n, places, phases, band, halo, integers):
    """Where pixels of a run lie in the planes of a template: NEAREST, the nearest lattice pixel, -1 out of the band,
    and CORNER, the lower left one of the four around; indices of all planes in one."""
    w = np.int32(band[3] + 2 * halo)
    first_y, first_x = np.int32(band[0] - halo), np.int32(band[1] - halo)
    last_y, last_x, edge = np.int32(halo + band[2]), np.int32(halo + band[3]), np.int32(halo)
    plane = np.int32(band[2] + 2 * halo) * w
    even, odd = np.int32(phases[0]) * plane, np.int32(phases[1]) * plane
    for k in range(Index(n)):
        x, y = places[k], places[k + Index(WIDE)]
        i, j = np.int32(np.floor(x + 0.5)) - first_x, np.int32(np.floor(y + 0.5)) - first_y
        left, low = np.int32(np.floor(x)) - first_x, np.int32(np.floor(y)) - first_y
        inside = i >= edge and i < last_x and j >= edge and j < last_y
        of = even if k & ONE == 0 else odd
        integers[k + NEAREST] = of + j * w + i if inside else np.int32(-1)
        integers[k + CORNER] = of + low * w + left if inside else np.int32(0)


@part(error_model="numpy")
def _template_at(n, wide, flat, places, integers, floats):
    """Template at pixels: TARGET, bilinear between lattice pixels; ABOVE and SQUARED of the nearest."""
    (plain, signal, squared), w = flat, Index(wide)
    for k in range(Index(n)):
        at, there = Index(integers[k + CORNER]), Index(max(integers[k + NEAREST], np.int32(0)))
        x, y = places[k], places[k + Index(WIDE)]
        fx, fy = np.float32(x - np.floor(x)), np.float32(y - np.floor(y))
        low = plain[at] + fx * (plain[at + ONE] - plain[at])
        high = plain[at + w] + fx * (plain[at + w + ONE] - plain[at + w])
        floats[k + TARGET] = low + fy * (high - low)
        floats[k + ABOVE], floats[k + SQUARED] = signal[there], squared[there]


@part(error_model="numpy")
def _far(image, marks, skip, integers, floats, per_area, limits, far):
    """Which pixels are to be tested and differ from the template by more than their noise and the tolerance."""
    inverse_gain, limit, per_area = np.float32(limits[0]), np.float32(limits[1] * limits[1]), np.float32(per_area)
    for n in range(len(image)):
        k = Index(n + skip)
        per_scale = np.float32(1.0) / floats[k + SCALE]
        difference = (image[n] - floats[k + SKY]) * per_scale - floats[k + TARGET]
        own = floats[k + RAW] * per_area
        variance = _variance(own, floats[k + ABOVE] * (inverse_gain * per_scale))
        beyond = difference * difference > limit * (variance + floats[k + SQUARED])
        far[k] = beyond & (integers[k + NEAREST] >= 0) & (marks[n] == KEPT)


@part(error_model="numpy")
def _sharper(light, width, fwhm):
    """By how much the peak of a star outgrows that of the template in a sharper frame, as in ``coadd``."""
    return max(light, 0.0) * max(width * width / (fwhm * fwhm) - 1, 0.0)


@part(error_model="numpy")
def _variance(raw, photons):
    """Variance of a raw pixel's value: of its sky, and of the photons above or below it."""
    return max(raw + photons, np.float32(LEAST_VARIANCE) * raw)


@part(error_model="numpy")
def _cubic(plane, place):
    i, j, fx, fy = place
    across, along = _keys(fx), _keys(fy)
    total = 0.0
    for m in range(4):
        line = plane[j - 1 + m]
        part = across[0] * line[i - 1] + across[1] * line[i] + across[2] * line[i + 1] + across[3] * line[i + 2]
        total += along[m] * part
    return total


@part(error_model="numpy")
def _keys(f):
    """Weights of the pixels at -1, 0, 1, 2 for a place f in 0 ... 1."""
    g = 1 - f
    return -0.5 * f * g * g, 1 + f * f * (1.5 * f - 2.5), 1 + g * g * (1.5 * g - 2.5), -0.5 * g * f * f


# Drops of lights on the output grid, (n,) each: area of a raw pixel; half extents of the drop; along each axis, the
# most output pixels that it falls on; and of SQUARE the parallelogram (n, 8): width and height of both sides, each from
# left to right and that of the bottom first, their slopes, and the inverse of these without sign. The first three
# fields are those of ``Drop``. Of one light it is the same without n.
Spot = namedtuple("Spot", "kernel pixfrac scale area ey ex ny nx sides")


def _spots(to_lattice, drop):
    """The drops of lights. A lens changes the size of a pixel by some tenths of a percent: that is left out."""
    if drop.kernel not in range(len(KERNELS)) or not 0 < drop.pixfrac <= 1 or drop.scale not in (1, 2, 3):
        raise ValueError(f"need kernel 0 to {len(KERNELS) - 1}, pixfrac above 0 to 1 and scale 1, 2 or 3, got {drop}")
    # The sides (2, n, 2) of a raw pixel, from left to right.
    sides = np.moveaxis(np.array(to_lattice, float)[..., :2] * drop.scale, -1, 0)
    area = np.abs(sides[0, :, 0] * sides[1, :, 1] - sides[0, :, 1] * sides[1, :, 0])
    sides = drop.pixfrac * np.where(sides[..., :1] < 0, -sides, sides)
    turned = sides[0, :, 0] * sides[1, :, 1] - sides[0, :, 1] * sides[1, :, 0] < 0
    sides = np.where(turned[:, None], sides[::-1], sides)
    # What is upright to 1e-12 is upright, and what is flat to 1e-12 is flat.
    leaning = sides[..., 0] > 1e-12 * np.abs(sides[..., 1])
    slopes = np.where(leaning, sides[..., 1] / np.where(leaning, sides[..., 0], 1), 0.0)
    shape = np.concatenate([*sides, slopes.T, 1 / np.maximum(np.abs(slopes.T), 1e-12)], axis=1)
    half = {POINT: 0.0, TURBO: 0.5 * drop.pixfrac, GAUSSIAN: GAUSSIAN_REACH}.get(drop.kernel, 0.0) * np.sqrt(area)
    ex, ey = np.abs(sides).sum(0).T / 2 if drop.kernel == SQUARE else (half, half)
    ny, nx = (np.ceil(2 * extent - 1e-9).astype(np.int64) + 1 for extent in (ey, ex))
    return Spot(drop.kernel, float(drop.pixfrac), drop.scale, area, ey.copy(), ex.copy(), ny, nx, shape)


@part(error_model="numpy")
def _spot(spots, k):
    """That of one light."""
    kind, pixfrac, scale, area, ey, ex, ny, nx, sides = spots
    return Spot(kind, pixfrac, scale, area[k], ey[k], ex[k], ny[k], nx[k], sides[k])


def reach(to_lattice, drop):
    """Lattice pixels by which the signal must go beyond a band to all sides, for all drops that reach into it of lights
    of these transforms, (n, 2, 3)."""
    spots = _spots(to_lattice, drop)
    return math.ceil((max(spots.ex.max(), spots.ey.max()) + 1) / drop.scale)


def deposit(lights, marks, band, signal, inverse_gain, odd, exposure_s, drop, onto):
    """Add the raw pixels of frames to the output pixels of a band, in place.

    Parameters
    ----------
    lights : Lights
        With the fields DEPOSITED, and all pixels whose drops reach into the band, at least.
    marks : (n, h, w) uint8 array
        MISSING pixels, and those that are NaN, are left out.
    band : (int, int, int, int)
        Lattice y0, x0, rows, columns.
    signal : (c, rows + 2 halo, columns + 2 halo) float32 array, ADU
        Light above the local sky, on the band and a halo of ``reach`` or more to all sides.
    inverse_gain : float, ADU per electron
        0 where the gain is unknown.
    odd : sequence of bool
        Which half a frame belongs to.
    exposure_s : sequence of float
    drop : Drop
    onto : cells.Cells
        Of rows x scale, columns x scale output pixels; added to. With the overlap a of drop and output pixel, the value
        y = (raw - sky) / t, the weight w and the variance v of y, SUMS are those of a w y, a w and (a w)^2 v (even and
        odd frames apart), a y, a, and a x exposure.

    Notes
    -----
    Output pixel X lies at x = (X + 0.5) / scale - 0.5 of the lattice. The overlaps of a drop sum to the area of its raw
    pixel in output pixels, whatever its kernel (Fruchter and Hook 2002, PASP 114, 144; those of STScI's drizzle sum to
    1), so that frames of other scales weigh by the sky they cover:

    - SQUARE: the raw pixel shrunk by pixfrac, a parallelogram under the affine transform; exact overlaps.
    - TURBO: a square of the same area along the axes.
    - POINT: all in the output pixel of the centre.
    - GAUSSIAN: of FWHM pixfrac raw pixels, taken at the centres of output pixels out to GAUSSIAN_REACH, as in STScI's
      drizzle, but scaled to the sum above.

    Variance of a value. Let light S fall on a lattice pixel, in ADU of the reference. A raw pixel covers the area A and
    its frame is r times as sensitive: it holds r A S, and t = r A, since t is the ratio of fluxes summed over lattice
    pixels, of which a raw pixel is A. So y = r A S / t = S. Its photons have the variance r A S / g in ADU^2, over t^2
    that is S / (g t): A stands in t already and comes in with no further power. Its sky has V / A = sigma^2 / t^2. Raw
    pixels are independent and not resampled: there is no noise gain. Below the sky as in ``coadd``: at least
    LEAST_VARIANCE V / A. The signal is that of the lattice pixel on which the centre of the raw pixel lies.

    Tiles of output pixels are filled one by one, by all frames in turn, the even ones first, so that their sums stay in
    the cache. Those of the frames of one half are in single precision before they are added, so the last bits go with
    which frames come at once: for 20 to 30 frames that is 1e-7 of a sum. To each output pixel drops are added by half,
    frame, raw row and column: tiles and bands do not change the bits.
    """
    spots, (rows, columns) = _spots(lights.to_lattice, drop), band[2:]
    ready, n_channels = _ready(lights, marks, band), lights.fields.shape[1]
    wanted = (n_channels, rows * drop.scale, columns * drop.scale)
    if onto.cover.shape[:-1] != wanted:
        raise ValueError(f"need sums of {wanted} output pixels, got {onto.cover.shape[:-1]}")
    halo, least = (signal.shape[1] - rows) // 2, reach(lights.to_lattice, drop)
    if halo < least or signal.shape != (n_channels, rows + 2 * halo, columns + 2 * halo):
        raise ValueError(
            f"need the signal of {n_channels} colours on {rows} x {columns} pixels and a halo of at least {least}, "
            f"got {signal.shape}"
        )
    first = (int(band[0]), int(band[1]))
    per_frame = (np.array(odd, np.int64), np.array(exposure_s, np.float32))
    if len(per_frame[0]) != len(marks) or len(per_frame[1]) != len(marks):
        raise ValueError(f"need a half and an exposure of {len(marks)} lights, got {odd} and {exposure_s}")
    signal = np.ascontiguousarray(signal)  # one layout, so that the kernel is compiled once
    room = _room(marks.shape[2], spots.ny.max(), spots.nx.max(), n_channels)
    # Each raw pixel that is left out adds at most ny x nx output pixels to the list.
    onto.reserve(_n_left_out(marks.reshape(-1)) * int(spots.ny.max() * spots.nx.max()))
    flat = (array.reshape(-1) for array in (onto.sums, onto.cover, onto.slots, onto.lost, onto.lost_cover))
    arrays = (*flat, onto.n_lost, wanted)
    of_light = (signal.reshape(-1), halo, signal.shape[1:])
    how = (first, of_light, float(inverse_gain), per_frame)
    _deposit(*ready, spots, marks, *how, arrays, room)


@entry()
def _n_left_out(marks):
    n = 0
    for k in range(len(marks)):
        n += np.int64(marks[k] == REJECTED or marks[k] == CLIPPED)
    return n


@entry(error_model="numpy")
def _deposit(lights, bends, spots, marks, first, signal, inverse_gain, per_frame, onto, room):
    # Arrays of more than one axis that are read and written by drops are flat: to make them so takes a call.
    _, n_rows, n_columns = onto[-1]
    here = room.tile.reshape(-1), room.tile.shape[1], room.tile.shape[2]
    for j in range(0, n_rows, TILE_ROWS):
        for i in range(0, n_columns, TILE_COLUMNS):
            tile = (j, i, min(TILE_ROWS, n_rows - j), min(TILE_COLUMNS, n_columns - i))
            for half in range(2):
                n_frames = 0
                for k in range(len(bends)):
                    if per_frame[0][k] == half:
                        n_frames += 1
                        frame = (inverse_gain, half, per_frame[1][k])
                        where = (first, tile, signal)
                        _fill(_one(lights, bends, k), _spot(spots, k), marks[k], where, frame, onto, here, room)
                if n_frames > 0:
                    _add_up(here, tile, half, onto)


@part(error_model="numpy")
def _add_up(here, tile, half, onto):
    """Add the sums of a tile to those of its output pixels, and clear it."""
    sums, cover, (n_channels, h, w) = onto[0], onto[1], onto[-1]
    flat, rows, columns = here
    rim_y, rim_x = (rows - TILE_ROWS) // 2, (columns - TILE_COLUMNS) // 2
    for c in range(n_channels):
        for m in range(tile[2]):
            pixel = Index((c * h + tile[0] + m) * w + tile[1])
            at = Index((c * rows + rim_y + m) * columns + rim_x)
            for n in range(Index(tile[3])):
                _flush(sums, cover, pixel + n, flat, (at + n) * Index(N_SINGLE), half)
    flat[:] = 0


@part(error_model="numpy")
def _fill(light, spot, marks, where, per_frame, onto, here, room):
    """Drops on the output pixels of a tile: first row and column, height, width."""
    (first, tile, signal), (inverse_gain, half, exposure_s) = where, per_frame
    n_columns = light.image.shape[1]
    top, left, s = light.top_left[0], light.top_left[1], spot.scale
    # Its box on the lattice, wider by drops, and by half a pixel or more for what a lens bends a segment by.
    box = (
        first[0] + (tile[0] - spot.ey) / s - 1,
        first[0] + (tile[0] + tile[2] + spot.ey) / s,
        first[1] + (tile[1] - spot.ex) / s - 1,
        first[1] + (tile[1] + tile[3] + spot.ex) / s,
    )
    row_low, row_high, low, high = _window(light, box)
    row, ends, places, terms = room.row, room.ends, room.places, room.terms
    floats, integers, fields = room.floats, room.integers, light.fields.reshape(-1)
    for j_image in range(row_low, row_high):
        y = top + j_image
        _row(light, float(y), row)
        reached = _reached(light, row, low, high, box, ends)
        for begin in range(reached[0], reached[1], RUN):
            end = min(begin + RUN, reached[1])
            start, n = begin * SEGMENT - left, (end - begin) * SEGMENT
            skip, stop = max(-start, 0), min(n, n_columns - start)
            if skip >= stop:
                continue
            _places(light, row, begin, end, places)
            _fields_along(light, fields, y, ends[begin - low : end - low + 1], room.nodes, floats)
            phases = light.cell[y % 2, (left + start) % 2], light.cell[y % 2, (left + start + 1) % 2]
            _drops(n, spot, places, first, floats, integers)
            _light_at(n, places, phases, first, signal, integers, floats)
            _spread(n, spot, floats, room.parts, room.areas, room.shares)
            image = light.image[j_image, start + skip : start + stop]
            its_marks = marks[j_image, start + skip : start + stop]
            if j_image + AHEAD < row_high:
                _announce(light.image[j_image + AHEAD, start + skip : start + stop], 64 // 4)
                _announce(marks[j_image + AHEAD, start + skip : start + stop], 64)
            _terms(image, skip, floats, s * s / spot.area, inverse_gain, terms)
            n_left_out = _counting(its_marks, skip, terms, integers, tile, spot, room.counting)
            run = (stop - skip, skip, phases, terms, integers, room.counting, room.shares)
            _scatter(*run, spot, tile, exposure_s, here)
            if n_left_out > 0:
                _leave_out_of(*run, spot, tile, half, exposure_s, onto)


@part()
def _announce(values, per_line):
    """Have a row of an image fetched, line of the cache by line."""
    for n in range(0, len(values), per_line):
        prefetch(values, n)


@part(error_model="numpy")
def _drops(n, spot, places, first, floats, integers):
    """The first output pixel that each drop reaches, in the band, and where from it the drop lies."""
    s = float(spot.scale)
    for k in range(Index(n)):
        fine = (places[k] + 0.5) * s - 0.5
        low = np.floor(fine - spot.ex + 0.5)
        floats[k + FROM_X] = fine - low
        integers[k + FIRST_X] = np.int32(low) - np.int32(first[1] * spot.scale)
    for k in range(Index(n)):
        fine = (places[k + Index(WIDE)] + 0.5) * s - 0.5
        low = np.floor(fine - spot.ey + 0.5)
        floats[k + FROM_Y] = fine - low
        integers[k + FIRST_Y] = np.int32(low) - np.int32(first[0] * spot.scale)


@part(error_model="numpy")
def _light_at(n, places, phases, first, signal, integers, floats):
    """LIGHT of the nearest lattice pixel; of pixels beyond the halo, whose drops do not reach the band, of any."""
    flat, halo, shape = signal
    h, w = np.int32(shape[0]), np.int32(shape[1])
    first_y, first_x = np.int32(first[0] - halo), np.int32(first[1] - halo)
    even, odd = np.int32(phases[0]) * h * w, np.int32(phases[1]) * h * w
    for k in range(Index(n)):
        i = np.int32(np.floor(places[k] + 0.5)) - first_x
        j = np.int32(np.floor(places[k + Index(WIDE)] + 0.5)) - first_y
        inside = i >= 0 and i < w and j >= 0 and j < h
        of = even if k & ONE == 0 else odd
        integers[k + SIGNAL] = of + j * w + i if inside else np.int32(0)
    for k in range(Index(n)):
        floats[k + LIGHT] = flat[Index(integers[k + SIGNAL])]


@part(error_model="numpy")
def _terms(image, skip, floats, per_area, inverse_gain, terms):
    """Of each pixel: weight times value, weight, squared weight times variance, value."""
    per_area, inverse_gain = np.float32(per_area), np.float32(inverse_gain)
    for n in range(len(image)):
        k = Index(n + skip)
        per_scale = np.float32(1.0) / floats[k + SCALE]
        value, w = (image[n] - floats[k + SKY]) * per_scale, floats[k + LAST]
        variance = _variance(floats[k + RAW] * per_area, floats[k + LIGHT] * (inverse_gain * per_scale))
        terms[k + WY] = w * value
        terms[k + W] = w
        terms[k + W2V] = w * w * variance
        terms[k + Y] = value


@part(error_model="numpy")
def _counting(marks, skip, terms, integers, tile, spot, counting):
    """Whether anything of a drop falls on the tile: 0, or 1 and the mark of its pixel. How many are left out."""
    y0, x0, y1, x1 = np.int32(tile[0]), np.int32(tile[1]), np.int32(tile[0] + tile[2]), np.int32(tile[1] + tile[3])
    ny, nx, n_left_out = np.int32(spot.ny), np.int32(spot.nx), np.int32(0)
    for n in range(len(marks)):
        k = Index(n + skip)
        j, i, value = integers[k + FIRST_Y], integers[k + FIRST_X], terms[k + Y]
        some = (j + ny > y0) & (j < y1) & (i + nx > x0) & (i < x1) & (marks[n] != MISSING) & (value == value)
        counting[k] = np.uint8(some) * (marks[n] + np.uint8(1))
        n_left_out += np.int32(counting[k] > 1)
    return n_left_out


@part(error_model="numpy")
def _scatter(n_pixels, skip, phases, terms, integers, counting, shares, spot, tile, exposure_s, here):
    """Add the drops of kept pixels of a run to the output pixels of a tile, and its rim."""
    (flat, rows, columns), one, single = here, np.float32(1.0), Index(N_SINGLE)
    # From a share of a drop to the next one, and from an output pixel to that above it.
    wide, long, above = Index(WIDE), Index(spot.nx * WIDE), Index(N_SINGLE * columns)
    begin = (rows - TILE_ROWS) // 2 - tile[0], (columns - TILE_COLUMNS) // 2 - tile[1]
    four = spot.ny == 2 and spot.nx == 2  # nearly all are
    for n in range(n_pixels):
        k = Index(n + skip)
        if counting[k] != 1:
            continue
        j, i = np.int64(integers[k + FIRST_Y]) + begin[0], np.int64(integers[k + FIRST_X]) + begin[1]
        corner = Index((phases[k & ONE] * rows + j) * columns + i) * single
        all_terms = (terms[k + WY], terms[k + W], terms[k + W2V], terms[k + Y], one, exposure_s, MANY, np.float32(0.0))
        # Shares of 0 too: which are so can not be foreseen.
        if four:
            _add(flat, corner, all_terms, shares[k])
            _add(flat, corner + single, all_terms, shares[k + wide])
            _add(flat, corner + above, all_terms, shares[k + long])
            _add(flat, corner + above + single, all_terms, shares[k + long + wide])
            continue
        for m in range(Index(spot.ny)):
            for q in range(Index(spot.nx)):
                _add(flat, corner + m * above + q * single, all_terms, shares[k + m * long + q * wide])


@part(error_model="numpy")
def _leave_out_of(n_pixels, skip, phases, terms, integers, counting, shares, spot, tile, half, exposure_s, onto):
    """Add the drops of rejected and saturated pixels of a run to the list, as far as they fall on a tile."""
    _, _, slots, lost, lost_cover, n_lost, (n_channels, h, w) = onto
    bottom, right, one = tile[0] + tile[2], tile[1] + tile[3], np.float32(1.0)
    for n in range(n_pixels):
        k = Index(n + skip)
        if counting[k] < 2:
            continue
        c, j, i = phases[k & ONE], np.int64(integers[k + FIRST_Y]), np.int64(integers[k + FIRST_X])
        all_terms = (terms[k + WY], terms[k + W], terms[k + W2V], terms[k + Y], one, exposure_s, MANY, np.float32(0.0))
        corner = ((counting[k] - 1 - REJECTED) * n_channels + c) * h * w + j * w + i
        for m in range(max(tile[0] - j, 0), min(bottom - j, spot.ny)):
            for q in range(max(tile[1] - i, 0), min(right - i, spot.nx)):
                a, pixel = shares[k + Index((m * spot.nx + q) * WIDE)], Index(corner + m * w + q)
                if a == 0:
                    continue
                if slots[pixel] == 0:
                    n_lost[0] += 1
                    slots[pixel] = n_lost[0]
                _leave_out(lost, lost_cover, Index(slots[pixel] - 1), all_terms, a, half)


@part(error_model="numpy")
def _spread(n_pixels, spot, floats, parts, areas, shares):
    """What of each drop of a run falls on output pixels, from that on which it begins: (ny nx WIDE,)."""
    ny, nx, area = spot.ny, spot.nx, spot.area
    x, y = floats[FROM_X:][:n_pixels], floats[FROM_Y:][:n_pixels]
    if spot.kernel != SQUARE:
        _along(spot, spot.ey, y, ny, parts)
        _along(spot, spot.ex, x, nx, parts[ny * WIDE :])
        for m in range(ny):
            for n in range(nx):
                across, along, out = parts[m * WIDE :], parts[(ny + n) * WIDE :], shares[(m * nx + n) * WIDE :]
                for k in range(n_pixels):
                    out[k] = area * (across[k] * along[k])
        return
    p0, p1, p2, p3 = F(spot.sides[0]), F(spot.sides[1]), F(spot.sides[2]), F(spot.sides[3])
    p4, p5, p6, p7 = F(spot.sides[4]), F(spot.sides[5]), F(spot.sides[6]), F(spot.sides[7])
    ex, bottom = np.float32(spot.ex), np.float32(-0.5 * (spot.sides[1] + spot.sides[3]))
    ey, factor, least = np.float32(spot.ey), np.float32(1 / spot.pixfrac**2), np.float32(LEAST_SHARE * area)
    # First the area of the drop left of and below the far corner of each output pixel. It ends in the last column and
    # row of them.
    sides, right, top = (p0, p1, p2, p3, p4, p5, p6, p7), ex + ex, ey - bottom
    for m in range(ny):
        for n in range(nx):
            far_y, far_x, out = np.float32(m + 0.5), np.float32(n + 0.5), areas[(m * nx + n) * WIDE :]
            if m < ny - 1 and n < nx - 1:
                for k in range(n_pixels):
                    dx, dy = min(far_x - x[k], ex) + ex, min(far_y - y[k], ey) - bottom
                    out[k] = factor * _corner(dx, dy, sides)
            elif m < ny - 1:
                for k in range(n_pixels):
                    out[k] = factor * _corner(right, min(far_y - y[k], ey) - bottom, sides)
            elif n < nx - 1:
                for k in range(n_pixels):
                    out[k] = factor * _corner(min(far_x - x[k], ex) + ex, top, sides)
            else:
                out[:n_pixels] = factor * _corner(right, top, sides)
    for m in range(ny):
        for n in range(nx):
            here, left = areas[(m * nx + n) * WIDE :], areas[(m * nx + max(n - 1, 0)) * WIDE :]
            under, both = areas[(max(m - 1, 0) * nx + n) * WIDE :], areas[(max(m - 1, 0) * nx + max(n - 1, 0)) * WIDE :]
            in_x, in_y = np.float32(n > 0), np.float32(m > 0)
            out = shares[(m * nx + n) * WIDE :]
            for k in range(n_pixels):
                a = here[k] - in_x * left[k] - in_y * under[k] + in_x * in_y * both[k]
                out[k] = a if a > least else np.float32(0.0)


@part(error_model="numpy")
def _along(spot, half, place, n_parts, parts):
    """Shares along one axis of drops that are a product of both: (n_parts WIDE,), sum 1."""
    if spot.kernel == POINT:
        parts[: len(place)] = np.float32(1.0)
    elif spot.kernel == TURBO:
        # The difference of what lies left of both edges, so that the sum is 1 for the least drops too.
        reach, per_size, least = np.float32(half), np.float32(1 / (2 * half)), np.float32(LEAST_SHARE)
        none, whole = np.float32(0.0), np.float32(1.0)
        for n in range(n_parts):
            low, high, out = np.float32(n - 0.5), np.float32(n + 0.5), parts[n * WIDE :]
            for k in range(len(place)):
                up_to_high = min(max((high - place[k] + reach) * per_size, none), whole)
                a = up_to_high - min(max((low - place[k] + reach) * per_size, none), whole)
                out[k] = a if a > least else none
    else:
        rate = 0.5 * (2.3548 / spot.pixfrac) ** 2 / spot.area
        for k in range(len(place)):
            nearest = place[k] - np.floor(place[k] + 0.5)
            total = 0.0
            for n in range(n_parts):
                distance = n - place[k]
                within = distance - 0.5 < half
                a = math.exp(rate * (nearest * nearest - distance * distance)) if within else 0.0
                parts[n * WIDE + k] = a if a > LEAST_SHARE else 0.0
                total += parts[n * WIDE + k]
            for n in range(n_parts):
                parts[n * WIDE + k] /= total


@part(error_model="numpy")
def _corner(dx, dy, sides):
    """Area of a drop left of and below a point, which lies so far from the corner of its box."""
    p0, p1, p2, p3, p4, p5, p6, p7 = sides
    below = _edge(dx, dy, p0, p4, p6) + _edge(dx - p0, dy - p1, p2, p5, p7)
    above = _edge(dx, dy, p2, p5, p7) + _edge(dx - p2, dy - p3, p0, p4, p6)
    return below - above


@part(error_model="numpy")
def _edge(reach, height, width, slope, inverse):
    """Area between an edge and a level at a height above its left end, as far right as it reaches."""
    zero = np.float32(0.0)
    part = min(max(reach, zero), width)
    left, right = max(height, zero), max(height - slope * part, zero)
    return np.float32(0.5) * (left + right) * min(part, max(left, right) * inverse)
