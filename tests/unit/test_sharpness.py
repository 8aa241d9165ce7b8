"""Local weights: what structure, noise and stars of a tile say, and how much of it is believed."""

import numpy as np
import pytest

from tilestack import fields, local, sharpness


def slopes(exponent, n=20, c=1, shape=(6, 8), local_rms=0.15, error=0.01, seed=1):
    """Slopes of structure as frames of known FWHM have them, with a local part; and the truth."""
    rng = np.random.default_rng(seed)
    ln_fwhm = rng.normal(0, 0.15, n)
    local_part = rng.normal(0, local_rms, (n, *shape))
    ln_t = rng.normal(0, 0.1, (n, c, *shape))
    pattern = rng.normal(0, 0.3, (1, c, *shape))  # what a place has in all frames: its structure against the template's
    slope = np.exp(ln_t + pattern - exponent * (ln_fwhm[:, None, None] + local_part)[:, None])
    noise = error * slope * rng.normal(size=slope.shape)
    return slope + noise, error * slope, ln_t, ln_fwhm, local_part


def test_from_structure__finds_the_exponent_and_the_local_fwhm():
    slope, error, ln_t, ln_fwhm, truth = slopes(1.3, c=3)
    deviation, its_error, exponent = sharpness.from_structure(slope, error, ln_t, ln_fwhm)
    assert exponent == pytest.approx(1.3, rel=0.1)
    # Its own mean over the frame belongs to the frame.
    centred = truth - truth.mean((1, 2), keepdims=True) - truth.mean(0)
    found = deviation - deviation.mean((1, 2), keepdims=True)
    assert np.corrcoef(found.ravel(), centred.ravel())[0, 1] > 0.97
    assert its_error.mean() == pytest.approx(0.01 / 1.3 / np.sqrt(3), rel=0.3)


def test_from_structure__says_nothing_where_the_seeing_does_not_settle_it():
    slope, error, ln_t, ln_fwhm, _ = slopes(0.0)
    deviation, _, exponent = sharpness.from_structure(slope, error, ln_t, ln_fwhm)
    assert np.isnan(exponent) and np.isnan(deviation).all()
    slope[:, :, 1:] = np.nan  # too few tiles
    assert np.isnan(sharpness.from_structure(slope, error, ln_t, ln_fwhm)[2])


def by_stars_and_structure(misfit, error=0.02, local_rms=0.0, n=20, shape=(6, 8), seed=4):
    """What stars and structure say of local FWHM, both with an error that is known; structure is off by more."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, local_rms, (n, *shape))
    stars = truth + rng.normal(0, error, truth.shape)
    structure = truth + rng.normal(0, error, truth.shape) + misfit * rng.normal(size=truth.shape)
    return truth, stars, structure, np.full(truth.shape, error)


@pytest.mark.parametrize(("misfit", "local_rms"), [(0.0, 0.0), (0.0, 0.1), (0.3, 0.0), (0.3, 0.1)])
def test_error_by_stars__is_the_error_whatever_the_law_of_structure(misfit, local_rms):
    truth, stars, structure, formal = by_stars_and_structure(misfit, local_rms=local_rms)
    error = sharpness.error_by_stars(structure, formal, stars, formal)
    assert ((structure - truth) / error).std() == pytest.approx(1, rel=0.08)
    # So both together are no worse than stars alone, and better where structure is right.
    mean, _ = sharpness.combined(stars, formal, structure, error)
    gained = (mean - truth).std() / (stars - truth).std()
    assert gained == pytest.approx(np.hypot(0.02, misfit) / np.hypot(0.02, np.hypot(0.02, misfit)), abs=0.03)


def test_error_by_stars__of_tiles_that_fall_with_other_powers_of_the_fwhm():
    # A bright star fills one tile and a nebula the next; the seeing of one frame is far from that of the others.
    rng = np.random.default_rng(5)
    slope, error, ln_t, ln_fwhm, _ = slopes(1.0, local_rms=0.0)
    ln_fwhm[0] -= 0.7
    own = rng.normal(1.0, 0.3, slope.shape[1:])
    slope = np.exp(ln_t - own * ln_fwhm[:, None, None, None])
    structure, formal, _ = sharpness.from_structure(slope, error, ln_t, ln_fwhm)
    stars, star_error = rng.normal(0, 0.02, structure.shape), np.full(structure.shape, 0.02)
    assert np.nanstd(structure[0]) > 5 * np.nanmedian(formal[0])
    error = sharpness.error_by_stars(structure, formal, stars, star_error)
    mean, _ = sharpness.combined(stars, star_error, structure, error)
    assert mean.std() < 1.05 * stars.std()  # there is no local part


def test_error_by_stars__without_stars_nothing_vouches_for_structure():
    _, stars, structure, formal = by_stars_and_structure(0.0)
    stars[:] = np.nan
    stars[0, 0] = 0.0
    assert np.isnan(sharpness.error_by_stars(structure, formal, stars, formal)).all()


def test_combined__weighs_by_errors_and_takes_what_there_is():
    one, other = np.array([1.0, np.nan, 3.0, np.nan]), np.array([2.0, 5.0, np.nan, np.nan])
    mean, error = sharpness.combined(one, np.array([0.1, 0.1, 0.1, 0.1]), other, np.array([0.2, 0.2, 0.2, 0.2]))
    np.testing.assert_allclose(mean, [(100 * 1 + 25 * 2) / 125, 5, 3, np.nan])
    np.testing.assert_allclose(error, [125**-0.5, 0.2, 0.1, np.nan])


@pytest.mark.parametrize("true_rms", [0.0, 0.2])
def test_variances__keep_the_pattern_and_draw_in_the_error(true_rms):
    rng = np.random.default_rng(2)
    n, shape, error = 40, (1, 12, 16), 0.05
    pattern = rng.normal(0, 0.5, shape)
    slope = rng.normal(0, true_rms, (n, 1, 1, 1)) * np.linspace(-1, 1, 16)  # a light from one side
    measured = pattern + slope + rng.normal(0, error, (n, *shape))
    covered = np.ones((n, *shape[1:]), bool)
    found, variance = fields._variances(measured, covered)
    off = found - pattern - slope
    # The pattern is as good as its mean over frames, the changes better than one tile of one frame.
    assert off.std() < 0.45 * error
    assert np.sqrt(variance) == pytest.approx(slope.std(), abs=0.01)


def star_field(step, n=160, seed=3):
    """Deviations of stars of a frame, with one quarter of the field behind a cloud."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, 1000, (2, n))
    truth = np.where((x < 500) & (y < 500), step, 0.0)
    return x, y, truth, truth + rng.normal(0, 0.02, n)


def test_weighted__follows_a_cloud_over_a_quarter_and_drops_a_variable_star():
    x, y, truth, deviation = star_field(-0.3)
    variable = np.flatnonzero((x > 600) & (y > 600))[:3]
    deviation[variable] += 0.8
    rows, columns = np.array([150.0, 250.0, 800.0]), np.array([150.0, 250.0, 800.0])
    near = [np.exp(-((centres[:, None] - at) ** 2) / (2 * 96**2)) for centres, at in ((rows, y), (columns, x))]
    good = np.ones(len(x), bool)
    mean, error = local._weighted(near, x, y, 96.0, deviation, np.full(len(x), 0.02**2), good)
    np.testing.assert_allclose(mean[:2, :2], -0.3, atol=0.03)
    assert abs(mean[2, 2]) < 0.02 and (error < 0.02).all()
