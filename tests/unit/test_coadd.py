import numpy as np
import pytest

from tilestack import sums as added
from tilestack.kernels import coadd, template

SHAPE = (11, 14)
GRID = (0.2, 0.3, 7.0)
CELL = np.array([[1, 0], [2, 1]])


def fields_at(fields, cell):
    """Fields (n, 5, h, w) at the pixels, each in the channel of its phase: bilinear, in plain NumPy."""
    h, w = SHAPE
    y, x = np.mgrid[:h, :w]
    at_y, at_x = GRID[0] + y / GRID[2], GRID[1] + x / GRID[2]
    j, i = at_y.astype(int), at_x.astype(int)
    fy, fx = at_y - j, at_x - i
    c = cell[y % 2, x % 2]
    f = fields.astype(float)

    def node(dj, di):
        return f[:, :, c, j + dj, i + di]

    top, bottom = node(0, 0) * (1 - fx) + node(0, 1) * fx, node(1, 0) * (1 - fx) + node(1, 1) * fx
    return top * (1 - fy) + bottom * fy


@pytest.fixture
def frames():
    rng = np.random.default_rng(1)
    n = 6
    codes = rng.integers(-200, 200, (n, *SHAPE)).astype(np.int16)
    codes[0, :, 0], codes[1, 5, 5] = coadd.NO_DATA, coadd.SATURATED
    codes[2, 3, 4] = 30000  # a satellite
    fields = rng.uniform(0.5, 1.5, (n, 5, 3, 4, 4)).astype(np.float32)
    fields[:, 1] *= 10
    fields[:, 3] *= 8000
    zero, scale = rng.uniform(80, 120, n), rng.uniform(0.4, 0.6, n)
    return {"codes": codes, "zero": zero, "scale": scale, "fields": fields, "grid": GRID, "cell": CELL}


def values_of(frames):
    at = fields_at(frames["fields"], CELL)
    y = (frames["zero"][:, None, None] + frames["scale"][:, None, None] * frames["codes"] - at[:, 1]) / at[:, 0]
    return y, at


def test_mark_and_accumulate__equal_plain_numpy(frames):
    rng = np.random.default_rng(2)
    image = rng.normal(100, 5, SHAPE).astype(np.float32)
    image[8, 8] = np.nan
    squared = rng.uniform(10, 20, SHAPE).astype(np.float32)
    signal, inverse_gain = rng.uniform(0, 50, SHAPE).astype(np.float32), 0.7
    marks = coadd.mark(**frames, template=image, squared=squared, signal=signal, inverse_gain=inverse_gain, kappa=4.5)
    y, at = values_of(frames)
    allowed = at[:, 3] + squared + signal * inverse_gain / at[:, 0]
    expected = np.where((y - image) ** 2 > 4.5**2 * allowed, coadd.REJECTED, coadd.KEPT)
    expected = np.where(frames["codes"] == coadd.NO_DATA, coadd.MISSING, expected)
    expected = np.where(frames["codes"] == coadd.SATURATED, coadd.CLIPPED, expected)
    np.testing.assert_array_equal(marks, expected)
    assert marks[2, 3, 4] == coadd.REJECTED and (marks[:, 8, 8] != coadd.REJECTED).all()

    odd, exposure = np.arange(6) % 2 == 1, np.linspace(10, 60, 6)
    sums, counts, per_frame = coadd.accumulate(
        **frames, marks=marks, signal=signal, inverse_gain=inverse_gain, odd=odd, exposure_s=exposure
    )
    w, i, v = at[:, 4], 1 / at[:, 2], at[:, 3] + signal * inverse_gain / at[:, 0]
    for kind in (coadd.KEPT, coadd.REJECTED, coadd.CLIPPED):
        here = marks == kind
        named = dict(zip(coadd.SUMS, sums[kind], strict=True))
        for half, name in ((~odd, "EVEN"), (odd, "ODD")):
            mine = here & half[:, None, None]
            for key, term in (("WY", w * y), ("W", w), ("IY", i * y), ("I", i), ("Y", y)):
                np.testing.assert_allclose(named[f"{key}_{name}"], np.where(mine, term, 0).sum(0), rtol=2e-5, atol=1e-9)
            np.testing.assert_array_equal(counts[kind][int(name == "ODD")], mine.sum(0))
        np.testing.assert_allclose(named["W2V"], np.where(here, w**2 * v, 0).sum(0), rtol=2e-5, atol=1e-9)
        np.testing.assert_allclose(named["W2R"], np.where(here, w**2 * at[:, 2], 0).sum(0), rtol=2e-5, atol=1e-9)
        np.testing.assert_allclose(named["EXPOSURE"], np.where(here, exposure[:, None, None], 0).sum(0))
    np.testing.assert_array_equal(per_frame, [[(m == k).sum() for k in range(4)] for m in marks])


def test_accumulate__equal_pixels_give_that_value(frames):
    # Frames of one sky, each with its own scale and sky: the coadd is that sky, whatever the weights.
    truth = 1234.5
    frames["codes"][:] = np.arange(6)[:, None, None]
    # Fields vary over the pixel grid, so give every frame constant scale and sky.
    frames["fields"][:, :2] = frames["fields"][:, :2, :, :1, :1]
    frames["scale"][:] = 1.0
    sky = frames["fields"][:, 1]
    for k in range(6):
        frames["fields"][k, 0] = 1 + 0.1 * k
        sky[k] = frames["zero"][k] + k - truth * (1 + 0.1 * k)
    marks = np.zeros((6, *SHAPE), np.uint8)
    sums, counts, _ = coadd.accumulate(
        **frames,
        marks=marks,
        signal=np.zeros(SHAPE, np.float32),
        inverse_gain=0.0,
        odd=np.arange(6) % 2 == 1,
        exposure_s=np.ones(6),
    )
    planes = added.planes_of(
        sums[0][:, None], counts[0][:, None], sums[0][7:8] + sums[0][9:10], counts[1].sum(0)[None], 0
    )
    for name in ("SCI", "EVEN", "ODD", "MEAN", "IVAR"):
        np.testing.assert_allclose(planes[name], truth, rtol=1e-6)
    assert (planes["ETA"] <= 1 + 1e-9).all()


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_grow__marks_the_square_around(reach):
    marks = np.zeros((2, 9, 9), np.uint8)
    marks[0, 4, 4], marks[0, 4, 5] = coadd.REJECTED, coadd.MISSING
    coadd.grow(marks, reach)
    expected = np.zeros((2, 9, 9), np.uint8)
    expected[0, 4 - reach : 5 + reach, 4 - reach : 5 + reach] = coadd.REJECTED
    expected[0, 4, 5] = coadd.MISSING
    np.testing.assert_array_equal(marks, expected)


@pytest.mark.parametrize("step", [1, 2])
def test_tolerance__equals_plain_numpy(step):
    rng = np.random.default_rng(3)
    image = rng.normal(100, 30, SHAPE).astype(np.float32)
    image[2, 3] = np.nan
    variance, sky = rng.uniform(1, 2, SHAPE).astype(np.float32), np.array([[90.0, 95.0], [85.0, 90.0]])
    squared, signal = coadd.tolerance(image, variance, sky, step, 0.2, 0.05)
    for y, x in np.ndindex(*SHAPE):
        around = [
            image[j, i]
            for j in range(y - step, y + step + 1, step)
            for i in range(x - step, x + step + 1, step)
            if 0 <= j < SHAPE[0] and 0 <= i < SHAPE[1] and not np.isnan(image[j, i])
        ]
        light = 0 if np.isnan(image[y, x]) else max(image[y, x] - sky[y % 2, x % 2], 0)
        assert signal[y, x] == pytest.approx(light, rel=1e-5)
        assert squared[y, x] == pytest.approx(
            variance[y, x] + (0.2 * np.ptp(around)) ** 2 + (0.05 * light) ** 2, rel=1e-4
        )


class Batch:
    """Stands in for the partial sums of a batch that covers the whole band."""

    def __init__(self, kept, lost, clipped, n_kept, n_lost, n_clipped):
        self.parts = kept, lost, clipped, n_kept, n_lost, n_clipped

    def rows(self, band):
        kept, lost, clipped, n_kept, n_lost, n_clipped = self.parts
        shape = (1, *band[2:])
        sums = [np.full((len(coadd.SUMS), *shape), value, float) for value in (kept, lost, clipped)]
        pairs = [np.stack([np.full(shape, n // 2), np.full(shape, n - n // 2)]) for n in (n_kept, n_lost, n_clipped)]
        counts = np.concatenate([pairs[0], pairs[1].sum(0)[None], pairs[2].sum(0)[None]])
        return sums[0], counts, {"REJECTED": (sums[1], pairs[1]), "SATURATED": (sums[2], pairs[2])}


@pytest.mark.parametrize(
    ("n_kept", "n_lost", "expected", "mask"),
    [
        (90, 10, 90, 0),
        (60, 40, 100, added.MASK_BITS["DIFFERS"]),  # a whole session disagrees with the template: it is put back
        (2, 2, 2, 0),  # too few for a majority
        (0, 0, 0, added.MASK_BITS["NO_DATA"]),
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
    assert (counts.sum(0) == 10).all() and (mask == added.MASK_BITS["SATURATED"]).all() and (ceiling > 0).all()


@pytest.mark.parametrize("n", [3, 9, 40])
@pytest.mark.parametrize("most", [5, 64])
def test_template_median__equals_plain_numpy(n, most):
    rng = np.random.default_rng(4)
    codes = rng.integers(-500, 500, (n, *SHAPE)).astype(np.int16)
    codes[rng.uniform(size=codes.shape) < 0.3] = template.NO_DATA
    codes[1, 2, 2] = template.SATURATED
    zero, scale, t = rng.uniform(0, 9, n), rng.uniform(0.5, 1.5, n), rng.uniform(0.5, 1.5, (n, 3))
    sky, variance = rng.uniform(0, 50, (n, 3, 4, 4)), rng.uniform(1, 2, (n, 3))
    image, spread, count = template.median(codes, zero, scale, sky, GRID, t, CELL, variance, most)
    fields = np.stack([sky] * 5, axis=1)
    at = fields_at(fields, CELL)[:, 0]
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
            assert image[j, i] == pytest.approx(np.median(value[use, j, i]), rel=1e-5)
            expected = np.pi / 2 * variance[use, c[j, i]].sum() / len(use) ** 2
            assert spread[j, i] == pytest.approx(expected, rel=1e-5)
        else:
            assert np.isnan(image[j, i])
