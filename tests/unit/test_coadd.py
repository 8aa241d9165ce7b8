import numpy as np
import pytest

from tilestack import masks
from tilestack import sums as added
from tilestack.kernels import coadd, template

# Wider than what the kernels take at once.
SHAPE = (11, coadd.CHUNK + 14)
NODES = (4, SHAPE[1] // 7 + 3)
GRID = (0.2, 0.3, 7.0)
CELL = np.array([[1, 0], [2, 1]])
N = 14
# Noise gains are tabulated by this many places in two raw pixels; few, so that a place between two would show.
N_PLACES = 8


def bilinear(values, at_y, at_x):
    """Grids (..., ny, nx) at fractional indices, held to their rims."""
    ny, nx = values.shape[-2:]
    at_y, at_x = np.clip(at_y, 0, ny - 1), np.clip(at_x, 0, nx - 1)
    j, i = np.floor(at_y).astype(int), np.floor(at_x).astype(int)
    up, right = np.minimum(j + 1, ny - 1), np.minimum(i + 1, nx - 1)
    fy, fx = at_y - j, at_x - i
    bottom = values[..., j, i] * (1 - fx) + values[..., j, right] * fx
    return bottom * (1 - fy) + (values[..., up, i] * (1 - fx) + values[..., up, right] * fx) * fy


def at_pixels(fields, cell, grid=GRID):
    """Fields (..., c, ny, nx) at the pixels, each in the channel of its phase: (..., h, w)."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    every = bilinear(np.asarray(fields, float), grid[0] + y / grid[2], grid[1] + x / grid[2])
    return np.take_along_axis(every, np.broadcast_to(cell[y % 2, x % 2], (*every.shape[:-3], 1, *SHAPE)), -3)[
        ..., 0, :, :
    ]


def noise_gains(places):
    """Entry of the table nearest to the place of each pixel in its frame: (n, h, w)."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    y, x = y + places.y0, x + places.x0
    found = []
    for move, number in zip(places.to_frame, places.table_of, strict=True):
        u, v = np.tensordot(move, np.stack([x, y, np.ones_like(x)]), 1)
        column, row = (np.rint(place % 2 * N_PLACES / 2).astype(int) % N_PLACES for place in (u, v))
        found.append(places.tables[number][y % 2 * 2 + x % 2, row, column])
    return np.array(found)


def turned(angle_deg, scale, shift):
    a = np.radians(angle_deg)
    return np.column_stack([scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]), shift])


def in_place(n, y0=0, x0=0):
    """Places of frames that lie on the lattice, with a noise gain of 1."""
    to_frame = np.tile(turned(0, 1, (0, 0)), (n, 1, 1))
    tables = np.ones((1, 4, N_PLACES, N_PLACES), np.float32)
    return coadd.Places(y0, x0, to_frame, None, tables, np.zeros(n, np.int64), np.ones(n))


@pytest.fixture
def frames():
    rng = np.random.default_rng(1)
    fields = rng.uniform(0.5, 1.5, (N, 5, 3, *NODES)).astype(np.float32)
    fields[:, 1] *= 10
    fields[:, 2] *= 400
    fields[:, 3] = rng.uniform(0.5, 5, (N, 1, *NODES))
    scales = rng.uniform(0.8, 1.3, N)
    angles, shifts = rng.uniform(-180, 180, N), rng.uniform(-300, 300, (N, 2))
    to_frame = np.array([turned(*each) for each in zip(angles, scales, shifts, strict=True)])
    tables = rng.uniform(0.3, 1, (2, 4, N_PLACES, N_PLACES)).astype(np.float32)
    return {
        "codes": rng.integers(-200, 200, (N, *SHAPE)).astype(np.int16),
        "zero": rng.uniform(80, 120, N),
        "scale": rng.uniform(0.4, 0.6, N),
        "fields": fields,
        "grid": GRID,
        "cell": CELL,
        # Area of a raw pixel on the lattice; the origin odd and below 0, where % and int() go apart.
        "places": coadd.Places(-5, 40, to_frame, None, tables, np.arange(N) % 2, scales**-2),
    }


def values_of(frames):
    at = at_pixels(frames["fields"].swapaxes(0, 1), CELL)
    y = (frames["zero"][:, None, None] + frames["scale"][:, None, None] * frames["codes"] - at[1]) / at[0]
    return y, dict(zip(coadd.FIELDS, at, strict=True))


def variances(frames, at, signal, inverse_gain):
    """Variance of resampled pixels; and where the floor below the sky holds."""
    raw = at["VARIANCE"] / frames["places"].area[:, None, None]
    wanted = raw + signal * inverse_gain / at["SCALE"]
    return noise_gains(frames["places"]) * np.maximum(
        wanted, coadd.LEAST_VARIANCE * raw
    ), wanted < coadd.LEAST_VARIANCE * raw


def test_mark__equals_plain_numpy(frames):
    rng = np.random.default_rng(2)
    n_levels, kappa, seeing_tolerance, inverse_gain = 4, 4.5, 0.3, 0.7
    image = rng.normal(100, 5, SHAPE).astype(np.float32)
    image[8, 8] = np.nan
    bank = np.stack([image + 120 * j * rng.normal(1, 0.3, SHAPE) for j in range(n_levels)]).astype(np.float32)
    width = np.full(SHAPE, 3.0, np.float32)
    width[:2], width[2] = np.nan, 2.5
    squared = rng.uniform(10, 40, SHAPE).astype(np.float32)
    signal = rng.uniform(-1200, 1200, SHAPE).astype(np.float32)

    _, at = values_of(frames)
    v_pix, floored = variances(frames, at, signal, inverse_gain)
    # The template as broad as each frame: FWHM^2 = 8 ln 2 sigma^2, a step of the bank is a variance of 0.4 px^2.
    steps = (at["FWHM"] ** 2 - width.astype(float) ** 2) / (8 * np.log(2) * coadd.BLUR_STEP)
    blur = np.clip(steps, -coadd.MOST_SHARPER, n_levels - 1)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    low = np.clip(np.nan_to_num(np.floor(blur)), 0, n_levels - 2).astype(int)
    moved = bank[low, y, x] + (blur - low) * (bank[low + 1, y, x].astype(float) - bank[low, y, x])

    # Frames that lie about one or the other form of the template, up to twice the limit away.
    like = np.where(rng.uniform(size=blur.shape) < 0.5, np.nan_to_num(moved), image)
    wanted = np.nan_to_num(like + 2 * kappa * rng.uniform(-1, 1, blur.shape) * np.sqrt(v_pix + squared))
    zero, scale = (frames[key][:, None, None] for key in ("zero", "scale"))
    frames["codes"][:] = np.rint((wanted * at["SCALE"] + at["SKY"] - zero) / scale)
    frames["codes"][0, :, 0], frames["codes"][1, 5, 5] = coadd.NO_DATA, coadd.SATURATED
    frames["codes"][2, 7] = coadd.NO_DATA  # a row that the frame does not reach
    value, _ = values_of(frames)

    far = np.abs(value - image) / np.sqrt(v_pix + squared) / kappa
    # In a sharper frame the peak of a star stands by so much higher.
    sharper = np.maximum(signal, 0) * np.maximum((width / at["FWHM"]) ** 2 - 1, 0)
    change = seeing_tolerance * np.fmax(np.abs(moved - image), sharper)
    far_moved = np.abs(value - moved) / np.sqrt(v_pix + squared + change**2) / kappa
    expected = np.where((far > 1) & ~(far_moved <= 1), coadd.REJECTED, coadd.KEPT)
    expected = np.where(np.isnan(image), coadd.KEPT, expected)
    expected = np.where(frames["codes"] == coadd.NO_DATA, coadd.MISSING, expected)
    expected = np.where(frames["codes"] == coadd.SATURATED, coadd.CLIPPED, expected)
    # Fields are float32 in the kernel: what is so near to the limit may fall either way.
    clear = (np.abs(far - 1) > 1e-4) & ~(np.abs(far_moved - 1) < 1e-4)
    assert (clear | np.isnan(image)).mean() > 0.99
    # All ways through the kernel were taken.
    saved = (far > 1) & (far_moved <= 1)
    for some in (
        saved & (blur < 0),
        saved & (blur > 0),
        (far < 1) & (far_moved > 1),
        floored,
        np.isnan(blur) & (far > 1),
    ):
        assert some.sum() >= 20
    assert (blur > steps).sum() > 40 and (blur < steps).sum() > 40

    options = {"inverse_gain": inverse_gain, "kappa": kappa, "seeing_tolerance": seeing_tolerance}
    marks = coadd.mark(**frames, bank=bank, width=width, squared=squared, signal=signal, options=options)
    np.testing.assert_array_equal(marks[clear], expected[clear])
    assert (marks[:, 8, 8] != coadd.REJECTED).all()
    # A bank of one level knows no seeing.
    marks = coadd.mark(**frames, bank=bank[:1], width=width, squared=squared, signal=signal, options=options)
    there = clear & (marks < coadd.CLIPPED) & np.isfinite(image)
    np.testing.assert_array_equal(marks[there] == coadd.REJECTED, far[there] > 1)


def test_accumulate__equals_plain_numpy(frames):
    rng = np.random.default_rng(2)
    signal, inverse_gain = rng.uniform(-1200, 1200, SHAPE).astype(np.float32), 0.7
    marks = rng.integers(0, 4, (N, *SHAPE)).astype(np.uint8)
    odd, exposure = np.arange(N) % 3 == 1, np.linspace(10, 60, N)
    exposure[4] = np.nan  # unknown: so is the sum, but only where this frame counts
    sums, counts, per_frame = coadd.accumulate(
        **frames, marks=marks, signal=signal, inverse_gain=inverse_gain, odd=odd, exposure_s=exposure
    )
    y, at = values_of(frames)
    v_pix, floored = variances(frames, at, signal, inverse_gain)
    assert 0.1 < floored.mean() < 0.4
    w, raw = at["WEIGHT"], at["VARIANCE"]
    every, halves = np.ones(N, bool), (("EVEN", ~odd), ("ODD", odd))
    for kind in (coadd.KEPT, coadd.REJECTED, coadd.CLIPPED):
        here = marks == kind
        named = dict(zip(coadd.SUMS, sums[kind], strict=True))
        of_halves = {f"{key}_{name}": (term, half) for key, term in (("WY", w * y), ("W", w)) for name, half in halves}
        of_all = {key: (term, every) for key, term in (("IY", y / raw), ("I", 1 / raw), ("Y", y))}
        for name, (term, half) in (of_halves | of_all).items():
            truth = np.where(here & half[:, None, None], term, 0).sum(0)
            np.testing.assert_allclose(named[name], truth, rtol=2e-5, atol=2e-5 * np.abs(term).max())
        np.testing.assert_array_equal(counts[kind][0], here.sum(0))
        np.testing.assert_allclose(named["W2V"], np.where(here, w**2 * v_pix, 0).sum(0), rtol=2e-5, atol=1e-9)
        np.testing.assert_allclose(named["W2R"], np.where(here, w**2 * raw, 0).sum(0), rtol=2e-5, atol=1e-9)
        np.testing.assert_allclose(named["EXPOSURE"], np.where(here, exposure[:, None, None], 0).sum(0))
    np.testing.assert_array_equal(per_frame, [[(m == k).sum() for k in range(4)] for m in marks])


@pytest.mark.parametrize("exposure", [10.0, np.nan])
def test_accumulate__of_some_frames_is_that_of_these_alone(frames, exposure):
    rng = np.random.default_rng(3)
    marks, members = rng.integers(0, 4, (N, *SHAPE)).astype(np.uint8), np.array([0, 2, 5])
    others = {"signal": rng.uniform(0, 99, SHAPE).astype(np.float32), "inverse_gain": 0.7}
    of_frames = {"marks": marks, "odd": np.arange(N) % 2 == 1, "exposure_s": np.full(N, exposure)}
    *some, per_frame = coadd.accumulate(**frames, **of_frames, **others, members=members)
    each = ("codes", "zero", "scale", "fields")
    places = frames["places"]
    places = places._replace(**{key: getattr(places, key)[members] for key in ("to_frame", "table_of", "area")})
    alone = frames | {key: frames[key][members] for key in each} | {"places": places}
    *expected, counted = coadd.accumulate(**alone, **{k: v[members] for k, v in of_frames.items()}, **others)
    for one, other in zip(some, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(per_frame[members], counted)
    assert per_frame.sum() == counted.sum()
    seconds = np.where(some[1][0, 0] > 0, some[1][0, 0] * exposure, 0.0)
    np.testing.assert_array_equal(some[0][0, coadd.SECONDS], seconds)


def test_accumulate__equal_pixels_give_that_value(frames):
    # Frames of one sky, each with its own scale and sky: the coadd is that sky, whatever the weights.
    truth = 1234.5
    frames["codes"][:] = np.arange(N)[:, None, None]
    frames["scale"][:] = 1.0
    for k in range(N):
        frames["fields"][k, 0] = 1 + 0.1 * k
        frames["fields"][k, 1] = frames["zero"][k] + k - truth * (1 + 0.1 * k)
    sums, counts, _ = coadd.accumulate(
        **frames,
        marks=np.zeros((N, *SHAPE), np.uint8),
        signal=np.zeros(SHAPE, np.float32),
        inverse_gain=0.0,
        odd=np.arange(N) % 2 == 1,
        exposure_s=np.ones(N),
    )
    planes = added.planes_of(
        sums[0][:, None], counts[0][:, None], sums[0][7:8] + sums[0][9:10], counts[1].sum(0)[None], 0
    )
    for name in ("SCI", "EVEN", "ODD", "MEAN", "IVAR"):
        np.testing.assert_allclose(planes[name], truth, rtol=1e-6)
    assert (planes["ETA"] <= 1 + 1e-6).all()


@pytest.mark.parametrize("inverse_gain", [0.0, 0.8])
def test_accumulate__variance_is_that_of_the_values(inverse_gain):
    # Frames of pure noise, photons above a local sky included: the stack scatters as VAR says.
    rng = np.random.default_rng(6)
    n, t, raw = 40, 1.3, 90.0
    signal = np.full(SHAPE, 250, np.float32)
    scatter = np.sqrt((raw + signal * inverse_gain / t) * t * t)
    fields = np.ones((n, 5, 1, *NODES), np.float32)
    fields[:, 0], fields[:, 1], fields[:, 2] = t, 0, raw
    stacks = []
    for _ in range(40):
        codes = np.rint(rng.normal(0, scatter, (n, *SHAPE)) / 0.1).astype(np.int16)
        sums, _, _ = coadd.accumulate(
            codes,
            np.zeros(codes.shape, np.uint8),
            np.zeros(n),
            np.full(n, 0.1),
            fields,
            GRID,
            np.zeros((2, 2), np.int64),
            in_place(n),
            signal,
            inverse_gain,
            np.arange(n) % 2 == 1,
            np.ones(n),
        )
        stacks.append((sums[0][0] + sums[0][2]) / n)
    variance = sums[0][coadd.SUMS.index("W2V")] / n**2
    # 40 x 154 values: the variance is good to 1.8 %.
    assert np.mean(np.square(stacks)) == pytest.approx(variance.mean(), rel=0.06)


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_painted__is_the_square_around(reach):
    rng = np.random.default_rng(7)
    n, h, w, first_row = 4, 9, 12, 20
    codes = rng.integers(-9, 9, (n, h, w)).astype(np.int16)
    codes[rng.uniform(size=codes.shape) < 0.1] = coadd.NO_DATA
    codes[rng.uniform(size=codes.shape) < 0.1] = coadd.SATURATED
    # Of the box's rows 20-28 are the band; the third frame has none, and all rims of the band are met.
    y = [rng.integers(first_row - 4, first_row + h + 4, m) for m in (7, 5, 0, 6)]
    x = [rng.integers(0, w, len(rows)) for rows in y]
    y[0][:4], x[0][:4] = [first_row - 1, first_row - 2, first_row + h, first_row + h + 1], [0, 5, w - 1, 7]
    expected = np.full(codes.shape, coadd.KEPT)
    for k in range(n):
        for j, i in np.ndindex(h, w):
            near = np.maximum(np.abs(y[k] - first_row - j), np.abs(x[k] - i)) <= reach
            expected[k, j, i] = coadd.REJECTED if near.any() else coadd.KEPT
    assert (expected[0, 0] == coadd.REJECTED).any() == (expected[0, -1] == coadd.REJECTED).any() == (reach > 0)
    expected = np.where(codes == coadd.NO_DATA, coadd.MISSING, expected)
    expected = np.where(codes == coadd.SATURATED, coadd.CLIPPED, expected)
    starts = np.cumsum([0, *map(len, y)])
    marks = coadd.painted(codes, first_row, starts, np.concatenate(y), np.concatenate(x), reach)
    np.testing.assert_array_equal(marks, expected)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("nodes", [(4, 5), (1, 1), (2, 1)])
def test_tolerance__equals_plain_numpy(step, nodes):
    rng = np.random.default_rng(3)
    image = rng.normal(100, 30, SHAPE).astype(np.float32)
    image[2, 3], image[0, 0] = np.nan, np.nan
    variance, sky = rng.uniform(1, 2, SHAPE).astype(np.float32), np.array([[90.0, 95.0], [85.0, 90.0]])
    # The mesh ends inside of the band on all sides: it is held there.
    grid, local_sky = (-0.4, -0.7, 3.0), rng.uniform(60, 140, (3, *nodes))
    squared = coadd.tolerance(image, variance, sky, step, 0.2, 0.05)
    signal = coadd.light(image, local_sky, grid, CELL)
    np.testing.assert_allclose(
        signal, np.where(np.isnan(image), 0, image - at_pixels(local_sky, CELL, grid)), rtol=1e-5, atol=1e-4
    )
    assert (signal < 0).sum() > 30 and (signal > 0).sum() > 30
    for y, x in np.ndindex(*SHAPE):
        around = [
            image[j, i]
            for j in range(y - step, y + step + 1, step)
            for i in range(x - step, x + step + 1, step)
            if 0 <= j < SHAPE[0] and 0 <= i < SHAPE[1] and not np.isnan(image[j, i])
        ]
        light = 0 if np.isnan(image[y, x]) else max(image[y, x] - sky[y % 2, x % 2], 0)
        assert squared[y, x] == pytest.approx(
            variance[y, x] + (0.2 * np.ptp(around)) ** 2 + (0.05 * light) ** 2, rel=1e-4
        )


@pytest.mark.parametrize("step", [1, 2])
def test_blurred__each_level_adds_its_variance_along_each_axis(step):
    image = np.zeros((61, 59), np.float32)
    image[30, 29] = 1
    y, x = np.mgrid[-30:31, -29:30]
    bank = coadd.blurred(image, step, coadd.MOST_BLURS)
    assert bank.shape == (coadd.MOST_BLURS, *image.shape) and bank.dtype == np.float32
    np.testing.assert_array_equal(bank[0], image)
    for j, level in enumerate(bank.astype(float)):
        assert level.sum() == pytest.approx(1, abs=1e-5) and level.min() >= 0
        np.testing.assert_allclose(
            [(level * y * y).sum(), (level * x * x).sum()], j * coadd.BLUR_STEP, rtol=1e-5, atol=1e-9
        )
        np.testing.assert_allclose([(level * part).sum() for part in (y, x, y * x)], 0, atol=1e-5)
        # Colours do not mix.
        assert step == 1 or not level[(y % 2 == 1) | (x % 2 == 1)].any()


@pytest.mark.parametrize(("step", "share"), [(1, 0.02), (2, 0.35)])
def test_blurred__makes_a_star_as_broad_as_the_frame(step, share):
    # A star of FWHM 3 px brought to 3.35 ... 5.4 px: what is wrong in it by what the blur changes. On a mosaic three
    # taps 2 px apart blur less at the core than a Gaussian would.
    y, x = np.mgrid[-20:21, -20:21] + 0.3

    def star(square):
        return 4 * np.log(2) / np.pi / square * np.exp(-4 * np.log(2) * (y * y + x * x) / square)

    def broader(fwhm, j):
        return star(fwhm**2 + j * coadd.FWHM2 * coadd.BLUR_STEP)

    def worst(image, truth):
        return np.abs(image - truth).max()

    bank = coadd.blurred(star(3.0**2).astype(np.float32), step, coadd.MOST_BLURS)
    for j in range(1, len(bank)):
        assert worst(bank[j], broader(3.0, j)) < share * worst(bank[0], broader(3.0, j))
    # A sharper one by extrapolation, as far as it is used: not right, but nearer.
    bank = coadd.blurred(star(4.0**2).astype(np.float32), step, 2)
    for blur in (-0.5, -1.0, -coadd.MOST_SHARPER):
        sharper = bank[0] + blur * (bank[1] - bank[0])
        assert worst(sharper, broader(4.0, blur)) < 0.65 * worst(bank[0], broader(4.0, blur))


@pytest.mark.parametrize("step", [1, 2])
def test_blurred__a_pixel_stands_in_for_missing_neighbours(step):
    rng = np.random.default_rng(8)
    image = rng.normal(100, 10, (16, 19)).astype(np.float32)
    image[rng.uniform(size=image.shape) < 0.2] = np.nan
    bank = coadd.blurred(image, step, 3)
    np.testing.assert_array_equal(np.isnan(bank), np.isnan(image)[None].repeat(3, 0))
    # What would go to a missing neighbour stays; rims and gaps neither lose light nor make it.
    np.testing.assert_allclose(np.nansum(bank, axis=(1, 2), dtype=float), np.nansum(image, dtype=float), rtol=1e-6)
    side, expected = coadd.BLUR_STEP / (2 * step * step), image.astype(float)
    for _ in range(2):  # along one axis, then along the other
        padded = np.pad(expected, ((step, step), (0, 0)), constant_values=np.nan)
        above, below = (
            np.where(np.isnan(beside), expected, beside) for beside in (padded[: -2 * step], padded[2 * step :])
        )
        expected = (expected + side * (above + below - 2 * expected)).T
    np.testing.assert_allclose(bank[1], expected, rtol=1e-5)


def test_kernels__say_what_does_not_fit(frames):
    flat = np.zeros(SHAPE, np.float32)
    options = {"inverse_gain": 0.0, "kappa": 4.5, "seeing_tolerance": 0.3}
    planes = {"bank": flat[None], "width": flat, "squared": flat, "signal": flat, "options": options}
    with pytest.raises(ValueError, match="5 fields"):
        coadd.mark(**(frames | {"fields": frames["fields"][:, :4]}), **planes)
    six = frames["places"]._replace(tables=np.ones((2, 4, 6, 6), np.float32))
    with pytest.raises(ValueError, match="powers of 2"):
        coadd.mark(**(frames | {"places": six}), **planes)
    with pytest.raises(ValueError, match="step 1 or 2"):
        coadd.blurred(flat, 3, 2)
    with pytest.raises(ValueError, match="bounds of 14 frames"):
        coadd.painted(frames["codes"], 0, np.zeros(N, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), 1)


class Batch:
    """Stands in for the partial sums of a batch that covers the whole band."""

    def __init__(self, kept, lost, clipped, n_kept, n_lost, n_clipped):
        self.kind, self.n_channels = added.MOSAIC, 1
        self.kept, self.n_kept = kept, n_kept
        self.others = {"REJECTED": (lost, n_lost), "SATURATED": (clipped, n_clipped)}

    def add_to(self, sums, counts, band):
        sums += self.kept
        counts += self.n_kept

    def left_out(self, name, band):
        value, n = self.others[name]
        at = tuple(axis.ravel() for axis in np.indices((1, *band[2:])))
        counts = np.full((1, len(at[0])), n)
        return [added.LeftOut(at, np.full((len(coadd.SUMS), len(at[0])), float(value)), counts)]


@pytest.mark.parametrize(
    ("n_kept", "n_lost", "expected", "mask"),
    [
        (90, 10, 90, 0),
        (60, 40, 100, masks.DIFFERS),  # a whole session disagrees with the template: it is put back
        (2, 2, 2, 0),  # too few for a majority
        (0, 0, 0, masks.NO_DATA),
    ],
)
def test_add_sessions__puts_back_what_a_session_rejects(n_kept, n_lost, expected, mask):
    sums, counts, _, rejected, found = added.add_sessions(
        [[Batch(n_kept, n_lost, 0, n_kept, n_lost, 0)]], (0, 0, 2, 2), 0.3
    )
    assert (counts.sum(0) == expected).all() and (sums[0] == expected).all() and (found == mask).all()
    assert (rejected == n_kept + n_lost - expected).all()


def test_add_sessions__uses_saturated_samples_only_where_there_is_nothing_else():
    full, bare = Batch(8, 0, 5, 8, 0, 5), Batch(0, 0, 5, 0, 0, 5)
    assert (added.add_sessions([[full], [bare]], (0, 0, 2, 2), 0.3)[1].sum(0) == 8).all()
    _, counts, ceiling, _, mask = added.add_sessions([[bare], [bare]], (0, 0, 2, 2), 0.3)
    assert (counts.sum(0) == 10).all() and (mask == masks.SATURATED).all() and (ceiling > 0).all()


@pytest.mark.parametrize("n", [3, 9, 40])
@pytest.mark.parametrize("most", [5, 64])
@pytest.mark.parametrize("missing", [0.0, 0.3])  # columns with all frames go another way
def test_template_median__equals_plain_numpy(n, most, missing):
    rng = np.random.default_rng(4)
    codes = rng.integers(-500, 500, (n, *SHAPE)).astype(np.int16)
    codes[rng.uniform(size=codes.shape) < missing] = template.NO_DATA
    codes[1, 2, 2] = template.SATURATED
    zero, scale, t = rng.uniform(0, 9, n), rng.uniform(0.5, 1.5, n), rng.uniform(0.5, 1.5, (n, 3))
    sky, variance = rng.uniform(0, 50, (n, 3, *NODES)), rng.uniform(1, 2, (n, 3))
    image, spread, count = template.median(codes, zero, scale, sky, GRID, t, CELL, variance, most)
    at = at_pixels(sky, CELL)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    c = CELL[y % 2, x % 2]
    value = (zero[:, None, None] + scale[:, None, None] * codes - at) / t[:, c]
    for j, i in np.ndindex(*SHAPE):
        good = (codes[:, j, i] != template.NO_DATA) & (codes[:, j, i] != template.SATURATED)
        if good.sum() < 5 <= most:
            good = codes[:, j, i] != template.NO_DATA
        use = np.flatnonzero(good)[:most]
        assert count[j, i] == len(use)
        if len(use):
            rounding = 2.0**-23 * np.abs(value[use, j, i]).max()  # values are of single precision
            assert image[j, i] == pytest.approx(np.median(value[use, j, i]), rel=1e-5, abs=rounding)
            expected = np.pi / 2 * variance[use, c[j, i]].sum() / len(use) ** 2
            assert spread[j, i] == pytest.approx(expected, rel=1e-5)
        else:
            assert np.isnan(image[j, i])


def test_accumulate__of_a_batch_without_frames_is_nothing():
    none = np.zeros((0, *SHAPE), np.int16)
    fields, places = np.zeros((0, 5, 1, 2, 2), np.float32), in_place(0)
    places = places._replace(tables=np.zeros((0, 4, N_PLACES, N_PLACES), np.float32))
    how = (np.zeros(0), np.zeros(0), fields, GRID, np.zeros((2, 2), np.int64), places)
    sums, counts, per_frame = coadd.accumulate(
        none, none.astype(np.uint8), *how, np.zeros(SHAPE, np.float32), 0.7, np.zeros(0, bool), np.zeros(0)
    )
    assert not sums.any() and not counts.any() and per_frame.shape == (0, 4)
