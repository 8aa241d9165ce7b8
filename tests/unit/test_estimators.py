import numpy as np
import pytest
from scipy.stats import norm

from tilestack import efficiency, lattice, normalization, overlap, photometry, sky, weights
from tilestack.kernels import clipping


@pytest.mark.parametrize("step", [0, 16, 60])
def test_clipped__has_no_bias_where_the_converter_has_coarse_steps(step):
    rng = np.random.default_rng(1)
    values = rng.normal(903.3, 80, 200_000)
    values = step * np.round(values / step) if step else values
    values[::200] = 40000
    centre, sigma = clipping.clipped(values)
    assert centre == pytest.approx(903.3, abs=0.7) and sigma == pytest.approx(np.hypot(80, step / 12**0.5), rel=0.01)


def test_pixel_noise__takes_no_gradient_for_noise():
    rows = np.random.default_rng(2).normal(0, 5, (300, 300)) + np.linspace(0, 300, 300)
    assert clipping.pixel_noise(rows) == pytest.approx(5, rel=0.02)


def scene(rng, n_frames=30, n_stars=25, noise=0.02, missing=0.3):
    scale, brightness = rng.normal(0, 0.3, n_frames), rng.normal(8, 1, n_stars)
    frame, star = np.nonzero(rng.uniform(size=(n_frames, n_stars)) > missing)
    variance = np.full(len(frame), noise**2)
    flux = scale[frame] + brightness[star] + rng.normal(0, noise, len(frame))
    return scale, brightness, frame, star, flux, variance


def test_relative__recovers_scales_and_brightness_and_their_errors():
    rng = np.random.default_rng(3)
    pulls, biases = [], []
    for _ in range(20):
        scale, brightness, frame, star, flux, variance = scene(rng, noise=0.05)
        found, error, level, used = photometry.relative(frame, star, flux, variance, 30, 25, anchor=4)
        assert found[4] == 0 and (used >= 10).all()
        difference = found - (scale - scale[4])
        pulls.append((difference - difference.mean())[error > 0] / error[error > 0])
        biases.append(np.mean(level - brightness - scale[4]))
    assert np.std(np.concatenate(pulls)) == pytest.approx(1, abs=0.25)
    assert np.mean(biases) == pytest.approx(0, abs=0.01)


def test_relative__is_not_led_by_variable_stars():
    rng = np.random.default_rng(4)
    scale, _, frame, star, flux, variance = scene(rng)
    variable = star < 4
    flux[variable] += np.where(frame[variable] > 15, 0.8, 0.0)  # four stars brighten half-way through the night
    found, *_ = photometry.relative(frame, star, flux, variance, 30, 25, anchor=0)
    difference = found - (scale - scale[0])
    plain_mean = 0.8 * 4 / 25  # what an unweighted mean over stars would be led by
    assert abs(difference[16:].mean() - difference[:16].mean()) < 0.1 * plain_mean


def test_relative__with_known_brightness_stands_alone():
    rng = np.random.default_rng(5)
    scale, brightness, frame, star, flux, variance = scene(rng)
    brightness[:3] = np.nan
    only = frame == 7
    found, error, _, used = photometry.relative(frame[only], star[only], flux[only], variance[only], 30, 25, brightness)
    assert found[7] == pytest.approx(scale[7], abs=4 * error[7]) and np.isnan(found[8]) and used[8] == 0


def test_relative__a_frame_that_shares_no_stars_with_the_others_has_no_scale():
    scale = np.log([1, 1, 0.03, 0.03])
    frame, star = np.repeat(np.arange(4), 4), np.concatenate([range(4), range(4), range(4, 8), range(4, 8)])
    flux = scale[frame] + np.linspace(5, 9, 8)[star]
    found, error, brightness, used = photometry.relative(frame, star, flux, np.full(16, 1e-4), 4, 8, anchor=0)
    assert found[:2] == pytest.approx([0, 0], abs=1e-9) and np.isnan(found[2:]).all() and np.isnan(error[2:]).all()
    assert used.tolist() == [4, 4, 0, 0] and np.isnan(brightness[4:]).all()


def test_relative__stars_tie_frames_over_others():
    frame, star = np.repeat(np.arange(4), 6), np.concatenate([np.arange(6) + 3 * k for k in range(4)])
    scale = np.array([0, -0.3, 0.4, -1.0])
    flux = scale[frame] + np.linspace(5, 9, 15)[star]
    found, *_ = photometry.relative(frame, star, flux, np.full(24, 1e-4), 4, 15, anchor=0)
    assert found == pytest.approx(scale, abs=1e-3)


def test_relative__one_star_in_three_channels_is_one_star():
    frame, star = np.repeat([0, 1], 9), np.r_[np.arange(9), np.arange(9)]
    other = (frame == 1) & (star % 3 == 0)  # the second frame shows one star, in all channels
    keep = (frame == 0) | other
    flux = np.where(frame == 1, -0.5, 0.0) + np.linspace(5, 9, 9)[star]
    found, _, _, used = photometry.relative(
        frame[keep], star[keep], flux[keep], np.full(keep.sum(), 1e-4), 2, 9, anchor=0, n_channels=3
    )
    assert np.isnan(found[1]) and used.tolist() == [3, 0]


@pytest.mark.parametrize("exposures", [(10.0, 20.0), (np.nan, 20.0)])
def test_filled_scale__goes_by_exposure_where_all_are_known(exposures):
    log_scale = np.array([[0.2, 0.3], [np.nan, np.nan]])
    typical = normalization.typical_scale(log_scale, np.array(exposures), None)
    filled = normalization.filled_scale(log_scale, np.array(exposures), typical)
    more = np.log(2) if np.isfinite(exposures).all() else 0
    assert filled == pytest.approx(np.array([[0.2, 0.3], [0.2 + more, 0.3 + more]]))
    # A session of which nothing is known goes by the first one, never by seconds.
    alone = normalization.typical_scale(log_scale[1:], np.array([20.0]), typical)
    assert normalization.filled_scale(log_scale[1:], np.array([20.0]), alone)[0] == pytest.approx(filled[1])


@pytest.mark.parametrize("model", ["constant", "plane", "quadratic", "mesh"])
def test_sky_fit__recovers_its_own_shape_under_a_nebula(model):
    rng = np.random.default_rng(6)
    rows, columns = np.arange(20) * 64.0 + 31.5, np.arange(15) * 64.0 + 31.5
    y, x = np.meshgrid((rows - 640) / 640, (columns - 480) / 640, indexing="ij")
    truth = (
        30
        + {"constant": 0, "plane": 20 * y - 15 * x, "quadratic": 20 * y + 9 * x * y - 6 * x**2, "mesh": 20 * y}[model]
    )
    truth = truth + 0 * y
    difference = truth + rng.normal(0, 0.3, y.shape)
    difference[3:6, 4:7] += 200  # what only one of both frames shows
    difference[10, 3] = np.nan
    fitted = sky.fit(difference, rows, columns, (1281, 961), model, 256)
    error = sky.evaluate(fitted, rows, columns) - truth
    assert np.abs(error).max() < (2.0 if model == "mesh" else 0.5) and np.abs(error.mean()) < 0.15
    assert fitted["rms"] == pytest.approx(0.3, rel=0.3)


def test_sky_fit__of_few_cells_is_a_constant():
    difference = np.full((3, 3), np.nan)
    difference[1, 1], difference[1, 2] = 4.0, 6.0
    fitted = sky.fit(difference, np.arange(3) * 64.0, np.arange(3) * 64.0, (200, 200), "quadratic", 256)
    assert fitted["coefficients"] == pytest.approx([5.0]) and fitted["n_cells"] == 2


def test_mesh_difference__lines_up_meshes_by_their_origins():
    whole = np.arange(100.0).reshape(10, 10)
    found = sky.mesh_difference(3 * whole[2:6, 1:5], (2, 1), whole[4:9, 0:3], (4, 0), 3.0)
    expected = np.full((4, 4), np.nan)
    expected[2:, :2] = 0
    np.testing.assert_array_equal(found, expected)


def test_gain__is_measured_from_level_and_variance():
    rng = np.random.default_rng(7)
    entries = []
    for _ in range(10):
        electrons = rng.uniform(40, 60, (3, 10, 12)) * np.array([0.8, 1.0, 0.7])[:, None, None]
        level, variance = electrons / 0.08 + 320, (electrons + 1.6**2) / 0.08**2
        entries.append({"sky": level, "noise": np.sqrt(variance) * rng.normal(1, 0.016, level.shape)})
    gain = normalization.measure_gain(entries, [None] * 10)
    assert gain["source"] == "measured" and gain["e_per_adu"] == pytest.approx(0.08, rel=0.05)
    assert normalization.measure_gain(entries, [0.5] * 10) == {"e_per_adu": 0.5, "error": None, "source": "given"}
    flat = [{"sky": np.full((1, 10, 12), 500.0), "noise": rng.normal(10, 0.2, (1, 10, 12))} for _ in range(10)]
    assert normalization.measure_gain(flat, [None] * 10)["source"] == "unknown"


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.1])
def test_shrunk__is_never_worse_than_no_local_estimate(spread):
    rng = np.random.default_rng(8)
    truth, error = rng.normal(0, spread, (40, 500)), rng.uniform(0.02, 0.2, (40, 500))
    estimate = truth + rng.normal(0, 1, truth.shape) * error
    estimate[:, ::7] = np.nan
    field, variance = weights.shrunk(estimate, error)
    assert np.sqrt(variance) == pytest.approx(spread, abs=0.006)
    known = np.isfinite(estimate)
    assert ((field - truth)[known] ** 2).mean() <= (truth[known] ** 2).mean() + 1e-6
    assert ((field - truth)[known] ** 2).mean() < ((estimate - truth)[known] ** 2).mean()
    assert (field[~known] == 0).all()


def test_efficiency__equals_simulated_stacks_and_its_own_limits():
    rng = np.random.default_rng(9)
    variance, fwhm = rng.uniform(50, 150, 40), rng.uniform(2, 4, 40)
    assert efficiency.extended(1 / variance, variance) == pytest.approx(1)
    assert efficiency.extended(np.ones(40), variance) < 1
    assert efficiency.point(1 / variance, variance, np.full(40, 3.0)) == pytest.approx(1)
    # Against S/N^2 summed over pixels of Gaussian stars.
    y, x = np.mgrid[-15:16, -15:16]
    profiles = np.stack([np.exp(-4 * np.log(2) * (x**2 + y**2) / f**2) for f in fwhm])
    profiles /= profiles.sum((1, 2), keepdims=True)
    w = 1 / variance / fwhm
    stack = (w[:, None, None] * profiles).sum(0)
    achieved = (stack**2).sum() / (w**2 * variance).sum()
    best = ((profiles**2).sum((1, 2)) / variance).sum()
    assert efficiency.point(w, variance, fwhm) == pytest.approx(achieved / best, rel=0.01)


@pytest.mark.parametrize("objective", ["depth", "balanced", "sharp"])
def test_physical_weights__have_their_exponent(objective):
    p = {"depth": 0, "balanced": 1, "sharp": 3}[objective]
    found = weights.physical(
        np.array([1.0, 2.0, 1.0]), np.array([4.0, 4.0, 4.0]), np.array([2.0, 2.0, np.nan]), objective
    )
    np.testing.assert_allclose(found, np.array([1, 4, 1]) / 4 * 2.0**-p)


def test_smeared__is_the_second_moment_behind_the_pixels():
    # Of a Gaussian of FWHM 1.4 px, integrated over pixels of 0.8 px and placed with an error of 0.3 px.
    edges = np.arange(-40, 41) * 0.8 + 0.13
    share = np.diff(norm.cdf(edges, scale=1.4 / 2.355))
    middle = (edges[1:] + edges[:-1]) / 2
    variance = (share * middle**2).sum() - (share * middle).sum() ** 2 + 0.3**2
    assert weights.smeared(1.4, 0.3, 0.8) == pytest.approx(2.355 * variance**0.5, rel=1e-3)
    assert weights.smeared(1.4, np.nan, 0.8) == weights.smeared(1.4, 0.0, 0.8)


def test_smeared__weights_are_nearer_to_the_best_for_stars_and_for_light():
    # Stars integrated over pixels, of FWHM from undersampled to broad; the best one weight a frame by its Gram matrix.
    fwhm = np.exp(np.random.default_rng(3).normal(np.log(2.4), 0.25, 40))
    edges = np.arange(-20, 22) - 0.5
    lines = np.diff(norm.cdf(edges, scale=fwhm[:, None] / 2.355), axis=1)
    gram = (lines @ lines.T) ** 2
    best = np.linalg.eigvalsh(gram)[-1]

    def reached(width):
        w = weights.physical(np.ones(40), np.ones(40), width, "balanced")
        return w @ gram @ w / (w @ w) / best, efficiency.extended(w, np.ones(40))

    behind, front = reached(weights.smeared(fwhm, 0.0, 1.0)), reached(fwhm)
    assert behind[0] > front[0] and behind[1] > front[1] and behind[0] > 0.99  # within 1 % of the best


def test_tiles__cover_a_box_and_interpolate_what_is_linear():
    for box in ((0, 0, 500, 300), (-77, 33, 120, 411), (14, -5, 1, 1)):
        stride = 62
        tiles = lattice.tile_range(box, stride)
        rows, columns = lattice.tile_centres(tiles, stride)
        assert rows[0] <= box[0] and rows[-1] >= box[0] + box[2] - 1
        assert columns[0] <= box[1] and columns[-1] >= box[1] + box[3] - 1
        values = 3 + 0.1 * rows[:, None] - 0.2 * columns[None]
        y, x = np.mgrid[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
        found = lattice.bilinear(values, (y - rows[0]) / stride, (x - columns[0]) / stride)
        np.testing.assert_allclose(found, 3 + 0.1 * y - 0.2 * x, atol=1e-9)


def test_filled__goes_on_from_the_nearest_and_leaves_what_is_known():
    mesh = np.full((4, 5), np.nan)
    mesh[1, 1] = 7.0
    np.testing.assert_array_equal(lattice.filled(mesh), np.full((4, 5), 7.0))
    assert np.isnan(lattice.filled(np.full((2, 2), np.nan))).all()


def test_tile_coverage__is_the_share_of_the_tile_in_the_frame():
    transform = np.array([[1.0, 0, 100.0], [0, 1.0, 40.0]])
    samples = overlap.tile_samples((0, 0, 4, 4), 64, 64, n=64)
    found = overlap.tile_coverage(transform, (80, 60), samples)
    y, x = np.mgrid[:256, :256]
    inside = (x >= 100) & (x <= 159) & (y >= 40) & (y <= 119)
    np.testing.assert_allclose(found, inside.reshape(4, 64, 4, 64).mean((1, 3)), atol=1e-9)


def test_sky_models__of_a_later_session_leave_no_step_where_the_first_one_ends():
    """Two telescopes: the sky of the second differs by a plane a frame and, in all frames alike, by a curved rest."""
    rng = np.random.default_rng(9)
    mesh_px, shape = 64, (1280, 1280)
    y, x = np.indices((20, 30))
    known = x < 20  # the template ends here, the frames of the second session go on
    curved = 6 * np.cos(x / 9) * np.sin(y / 7)
    template = {"mesh_origin": (0, 0), "sky": [np.where(known, 500.0 + 2 * y, np.nan)]}
    scale = rng.uniform(0.5, 1.5, (9, 1))
    planes = [10 * k + rng.normal() * y + rng.normal() * x for k in range(9)]
    skies = [
        t[0] * (500.0 + 2 * y + curved) + p + rng.normal(0, 0.3, y.shape) for t, p in zip(scale, planes, strict=True)
    ]
    entries = [{"mesh_origin": (0, 0), "sky": [level]} for level in skies]
    rim = (slice(None), slice(18, 20))
    rows, columns = lattice.mesh_centres((0, 0), y.shape, mesh_px)
    worst = {}
    for later in (False, True):
        found = normalization.sky_models(entries, scale, template, shape, mesh_px, "plane", 512, later=later)
        left = [
            (level - t[0] * (500.0 + 2 * y) - sky.evaluate(of_frame[0], rows, columns))[rim] / t[0]
            for level, t, of_frame in zip(skies, scale, found, strict=True)
        ]
        worst[later] = np.abs(np.mean(left, axis=0)).max()
    assert worst[True] < 0.1 * worst[False] + 0.3  # of the noise of a cell
    few = normalization.sky_models(entries[:4], scale[:4], template, shape, mesh_px, "plane", 512, later=True)
    assert "residual" not in few[0][0]
    assert normalization.sky_models([], scale[:0], template, shape, mesh_px, "plane", 512, later=True) == []
