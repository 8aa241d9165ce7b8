"""What fills in where drops are few, and the planes of the colours."""

import numpy as np
import pytest
from colour_demosaicing import demosaicing_CFA_Bayer_bilinear

from tilestack import bayer, colours, masks
from tilestack.kernels import drizzle

CELL = bayer.channel_cell("GRBG")


def still(mosaic, n):
    """Sums of n frames of one mosaic that lie exactly on the lattice: wy, w, w2v of variance 1 a frame."""
    y, x = np.indices(mosaic.shape)
    w = np.where(CELL[y % 2, x % 2] == np.arange(3)[:, None, None], float(n), 0.0)
    return w * mosaic, w, w


def filled(wy, w, w2v):
    planes = np.stack([wy, w, w2v, w])
    thin = colours.fill(planes, [0, 1], [2], w)
    np.testing.assert_array_equal(planes[3], w)
    wy, w, w2v, _ = planes
    with np.errstate(invalid="ignore", divide="ignore"):
        return wy / w, w2v / w**2, thin


def test_filled__without_dithers_is_the_bilinear_demosaic():
    rng = np.random.default_rng(11)
    mosaic = rng.uniform(1, 2, (40, 46))
    image, _, thin = filled(*still(mosaic, 3))
    expected = np.moveaxis(demosaicing_CFA_Bayer_bilinear(mosaic, "GRBG"), -1, 0)
    inner = (slice(None), slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(image[inner], expected[inner], rtol=1e-12)
    y, x = np.indices(mosaic.shape)
    np.testing.assert_array_equal(~thin, CELL[y % 2, x % 2] == np.arange(3)[:, None, None])


def test_filled__even_weights_stay_to_the_bit():
    rng = np.random.default_rng(12)
    w = rng.uniform(0.6, 1.4, (3, 60, 70))
    wy, w2v = w * rng.uniform(1, 2, w.shape), w * rng.uniform(0.1, 0.2, w.shape)
    image, variance, thin = filled(wy, w, w2v)
    assert not thin.any()
    np.testing.assert_array_equal(image, wy / w)
    np.testing.assert_array_equal(variance, w2v / w**2)


def test_filled__is_smooth_in_the_weight():
    rng = np.random.default_rng(13)
    values = rng.uniform(1, 2, (1, 33, 33))
    found = []
    for weight in np.linspace(0, 1, 1001):
        w = np.ones(values.shape)
        w[0, 16, 16] = weight
        image, variance, _ = filled(values * w, w, w)
        found.append((image[0, 16, 16], variance[0, 16, 16]))
    image, variance = np.array(found).T
    around = np.delete(values[0, 15:18, 15:18].ravel(), 4).mean()
    assert image[0] == pytest.approx(around, rel=1e-9) and variance[0] == pytest.approx(1 / 8, rel=1e-9)
    assert image[-1] == values[0, 16, 16]
    assert np.abs(np.diff(image)).max() < 0.01 * abs(image[-1] - image[0])


def test_filled__shows_no_edge_where_coverage_ends():
    # A plane sky whose coverage falls to nothing along x: the image stays the plane.
    y, x = np.mgrid[:60, :80]
    sky = 100 + 0.5 * y
    w = np.where(x < 40, 1.0, np.maximum(1 - (x - 40) / 10, 0))[None] + 0.0
    image, _, _ = filled(sky * w, w, w)
    known = np.isfinite(image[0])
    assert known[:, :54].all() and not known[:, 54:].any()
    np.testing.assert_allclose(image[0, 4:-4, :50], sky[4:-4, :50], rtol=1e-9)


def test_filled__variance_is_that_of_the_values():
    rng = np.random.default_rng(14)
    w = rng.uniform(0, 1, (2, 20, 22)) ** 4
    w[:, 7:13, 6:12] *= rng.uniform(size=(2, 6, 6)) < 0.3
    v = rng.uniform(1, 3, w.shape)
    _, variance, thin = filled(w, w, w * w * v)
    assert thin.sum() > 100
    images = np.array([filled(w * rng.normal(0, np.sqrt(v)), w, w)[0] for _ in range(600)])
    # Of 600 values: scatter 6 %, and the largest of 880 of them below 4 times that.
    np.testing.assert_allclose(images.var(0), variance, rtol=0.25)


def test_filled__is_nan_where_nothing_is_near():
    w = np.zeros((1, 40, 40))
    w[0, 20, 22] = 2.0
    image, _, _ = filled(3 * w, w, w)
    y, x = np.indices(w[0].shape)
    near = np.maximum(abs(y - 20), abs(x - 22)) <= 4
    np.testing.assert_array_equal(np.isfinite(image[0]), near)
    np.testing.assert_allclose(image[0][near], 3)


def test_weight_filled__a_rim_of_few_drops_counts_little():
    # Red of frames that never move: three of four pixels are filled in. Then a rim of single drops around even weights.
    y, x = np.mgrid[:64, :96]
    still_red = np.where((y % 2 == 0) & (x % 2 == 1), 12.0, 0.0)[None]
    rim = np.where(x < 48, 5.0, np.where((y % 4 == 0) & (x % 4 == 0), 1.0, 0.0))[None]
    found = {}
    for name, w in (("still", still_red), ("rim", rim)):
        thin = colours.fill(w[None].copy(), [0], [], w)
        one, whole = colours.weight_filled(np.where(thin, masks.FILLED, 0), colours.local_mean(w))
        found[name] = one[0] / whole[0], thin.mean()
    # Of 17 rows around a pixel of red 9 hold red, around the others 8; columns alike.
    levels = np.array([9 * 9, 9 * 8, 8 * 9, 8 * 8])
    assert found["still"][0] == pytest.approx(levels[1:].sum() / levels.sum(), abs=0.01)
    assert found["rim"][1] > 0.4 and found["rim"][0] < 0.1


def sums_of_frames(rng, n, shape, variance):
    """Sums of n frames of pure noise whose pixels fall with random overlaps on a lattice, even and odd by turns."""
    named = {name: np.zeros((1, *shape)) for name in drizzle.SUMS}
    for k in range(n):
        a, y = rng.uniform(0, 1, shape) ** 2, rng.normal(0, np.sqrt(variance), shape)
        half = ("EVEN", "ODD")[k % 2]
        named[f"WY_{half}"] += a * y
        named[f"W_{half}"] += a
        named[f"W2V_{half}"] += a**2 * variance
        named["Y"] += a * y
        named["A"] += a
        named["EXPOSURE"] += a * 10.0
    return np.stack([named[name] for name in drizzle.SUMS])


@pytest.mark.parametrize("n", [4, 20])
def test_planes__halves_say_what_the_variance_says(n):
    rng = np.random.default_rng(15)
    shape = (200, 200)
    sums = sums_of_frames(rng, n, shape, 2.5)
    counts = np.full((1, 1, *shape), n)
    zero = np.zeros((1, *shape), np.int64)
    planes = colours.planes_of(sums.copy(), counts, zero, zero, zero, np.ones(1), ("point", 0.0, 1.0))
    own = planes["MASK"] == 0
    assert own.mean() > 0.5
    chi2 = (planes["SPLIT"] ** 2 / planes["VAR"])[own & np.isfinite(planes["SPLIT"])]
    assert chi2.mean() == pytest.approx(1, abs=0.03)
    assert (planes["SCI"] ** 2 / planes["VAR"])[own].mean() == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(planes["EXP"], 10 * sums[drizzle.SUMS.index("A")])


def sums_of_drops(rng, n, side, size, still):
    """Sums of n frames of noise of variance 1: square drops, two output pixels times their scale apart."""
    named = {name: np.zeros((1, side, side)) for name in drizzle.SUMS}
    counts = np.zeros((1, 1, side, side), int)
    area, edges = (size / 0.7) ** 2, np.arange(side + 1) - 0.5
    for k in range(n):
        parts = []
        for shift in (0.0, 0.0) if still else rng.uniform(0, 40, 2):
            centre = np.arange(-40, side + 40, 2 * size / 0.7) + shift
            low, high = centre[:, None] - size / 2, centre[:, None] + size / 2
            parts.append(np.clip(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0, None) / size)
        noise = rng.normal(size=[len(part) for part in parts])
        half = ("EVEN", "ODD")[k % 2]
        named[f"WY_{half}"] += area * (parts[0].T @ noise @ parts[1])
        named[f"W_{half}"] += area * np.outer(parts[0].sum(0), parts[1].sum(0))
        named[f"W2V_{half}"] += area**2 * np.outer((parts[0] ** 2).sum(0), (parts[1] ** 2).sum(0))
        counts[0] += np.outer((parts[0] > 0).sum(0), (parts[1] > 0).sum(0))
    named["A"] = named["W_EVEN"] + named["W_ODD"]
    return np.stack([named[name] for name in drizzle.SUMS]), counts, ("square", size, area)


@pytest.mark.parametrize(("n", "size", "still"), [(8, 1.4, False), (12, 1.4, False), (4, 0.7, False), (6, 0.7, True)])
def test_planes__variance_knows_drops_that_neighbours_share(n, size, still):
    # As of red at scale 2 and 1: few frames, so that neighbours fill in for many pixels; without that knowledge 1.16.
    rng = np.random.default_rng(18)
    chi2, blank, filled_share = [], [], []
    for _ in range(6):
        sums, counts, drop = sums_of_drops(rng, n, 160, size, still)
        zero = np.zeros((1, 160, 160), np.int64)
        planes = colours.planes_of(sums, counts, zero, zero, zero, np.full(1, 0.25), drop)
        both = np.isfinite(planes["SPLIT"])
        chi2.append((planes["SPLIT"] ** 2 / planes["VAR"])[both].mean())
        blank.append((planes["SCI"] ** 2 / planes["VAR"])[np.isfinite(planes["SCI"])].mean())
        filled_share.append((planes["MASK"] > 0).mean())
    assert np.mean(filled_share) > 0.05
    assert np.mean(chi2) == pytest.approx(1, abs=0.05)
    assert np.mean(blank) == pytest.approx(1, abs=0.05)


def test_noise_ratio__is_that_of_stacked_boxes():
    # Along one axis: raw noise spread over boxes of width p scaled by s, at uniform phases; large areas over pixels.
    rng = np.random.default_rng(16)
    for pixfrac, scale in ((0.7, 1), (1.0, 1), (0.7, 2), (0.5, 1)):
        n_pixels, n_frames = 64, 4000
        image = np.zeros((n_frames, n_pixels))
        for k in range(n_frames):
            centre = (np.arange(-2, n_pixels / scale + 2) + rng.uniform()) * scale
            low, high = centre - pixfrac * scale / 2, centre + pixfrac * scale / 2
            edges = np.arange(n_pixels + 1)
            covered = np.clip(np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1]), 0, None)
            noise = rng.normal(size=len(centre))
            image[k] = noise @ covered
        single, large = image.var(), image.sum(1).var() / n_pixels
        assert np.sqrt(large / single) == pytest.approx(np.sqrt(colours.noise_ratio(pixfrac, scale)), rel=0.05)
