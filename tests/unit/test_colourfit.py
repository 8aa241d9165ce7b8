"""Colour calibration."""

import numpy as np
import pytest

from tilestack import colourfit, masks, starcolours


def stars_of(n, offsets, seed, error=0.05, spread=0.3, middle=0.65):
    """Stars whose colours follow Sony's slopes, with errors in the catalogue's colours."""
    rng = np.random.default_rng(seed)
    true = rng.normal(middle, spread, n)
    m = np.stack([offsets[0] + 0.49 * (true - 0.65), np.zeros(n), offsets[1] - 0.65 * (true - 0.65)], axis=1)
    flux = 1e5 * 10 ** (0.4 * (m + rng.normal(0, 0.02, m.shape)))
    errors = np.full(n, error)
    return {
        "flux": flux,
        "flux_error": 0.01 * flux,
        "b_v": true + rng.normal(0, error, n),
        "b_v_error": errors,
        "v": rng.uniform(8, 11, n),
    }


@pytest.mark.parametrize("middle", [0.3, 0.65, 1.1])
def test_gains__have_no_bias_from_errors_of_the_colours(middle):
    """A plain line is flattened by them: 0.1 mag of error on a spread of 0.2 takes a fifth of the slope."""
    off = []
    for seed in range(60):
        found = colourfit.gains(stars_of(12, (-0.35, -0.3), seed, 0.1, 0.2, middle), None, 0.65)
        off.append([-2.5 * np.log10(found["gains"][c]) - true for c, true in ((0, -0.35), (2, -0.3))])
        assert found["grade"] in ("OK", "LOW") and found["gains"][1] == 1
    off = np.array(off)
    error = off.std(axis=0) / np.sqrt(len(off))
    assert (np.abs(off.mean(axis=0)) < 4 * error + 0.003).all() and np.sqrt((off**2).mean()) < 0.04


def test_gains__leave_wrong_stars_out():
    stars = stars_of(14, (-0.35, -0.3), 5)
    stars["flux"][3, 0] *= 2
    stars["flux"][7, 2] *= 0.5
    found = colourfit.gains(stars, "Sony", 0.65)
    assert not found["kept"][[3, 7]].any()
    assert -2.5 * np.log10(found["gains"][0]) == pytest.approx(-0.35, abs=0.05)


def test_gains__stay_one_with_few_stars():
    for n, expected in ((4, "FAIL"), (7, "LOW"), (15, "OK")):
        found = colourfit.gains(stars_of(n, (-0.35, -0.3), 2), None, 0.65)
        assert found["grade"] == expected and (found["gains"] == [1, 1, 1]) == (n < 5)


def test_slopes__come_from_stars_where_these_are_many_and_from_the_prior_where_few():
    for n, near_prior in ((400, False), (5, True)):
        stars = stars_of(n, (-0.35, -0.3), 3, spread=0.1 if near_prior else 0.3)
        stars["flux"][:, 0] *= 10 ** (0.4 * 0.3 * (stars["b_v"] - 0.65))  # a sensor of slope 0.79
        slope = colourfit.gains(stars, None, 0.65)["fits"][0]["slope"]
        assert (abs(slope - 0.49) < abs(slope - 0.79)) == near_prior


def test_zero_points__are_those_of_the_light():
    stars = stars_of(30, (-0.35, -0.3), 4)
    stars["flux"] *= (10 ** (-0.4 * stars["v"]) / 1e-4)[:, None]
    expected = -2.5 * np.log10(1e-4) + 2.5 * np.log10(1e5 / 10)
    assert colourfit.zero_points(stars, 10.0, 0.65)[1] == pytest.approx(expected, abs=0.01)
    assert colourfit.zero_points(stars, None, 0.65) == [None, None, None]


def test_applied__is_linear_below_the_sky_and_neutral_in_saturated_cores():
    rng = np.random.default_rng(1)
    sky, gain = np.array([800.0, 1000.0, 700.0]), [1.3, 1.0, 1.6]
    image = (sky[:, None, None] + rng.normal(0, 30, (3, 20, 30))).astype(np.float32)
    image[:, 5, 5] = 60000.0
    core = starcolours.saturation_share(image, 60000.0)
    assert core[5, 5] == 1 and (core > 0).sum() == 1
    result = colourfit.applied(image, gain, sky, 1000.0, core)
    free = core == 0
    expected = (image - sky[:, None, None]) * np.array(gain)[:, None, None] + 1000
    np.testing.assert_allclose(result[:, free], expected[:, free], rtol=1e-5)
    assert (result[:, free] < 1000).mean() > 0.4
    assert np.ptp(result[:, 5, 5]) == 0 and result[0, 5, 5] >= 60000


def test_measured__fluxes_on_a_made_image_and_reasons_for_those_left_out():
    rng = np.random.default_rng(2)
    shape, fwhm = (200, 300), 2.6
    places = np.array(
        [[60.3, 50.2], [150.7, 60.1], [100.2, 150.4], [240.0, 100.0], [200.5, 40.0], [205.0, 44.0], [4.0, 100.0]]
    )
    flux = np.array([4e4, 3e4, 2e4, 5e4, 3e4, 1e4, 3e4])
    y, x = np.mgrid[: shape[0], : shape[1]]
    core = fwhm / (2 * np.sqrt(2 ** (1 / 3) - 1))
    planes, factors = np.empty((3, *shape), np.float32), (0.7, 1.0, 0.6)
    for c, factor in enumerate(factors):
        light = sum(
            f * factor * 2 / (np.pi * core**2) * (1 + ((x - px) ** 2 + (y - py) ** 2) / core**2) ** -3
            for (px, py), f in zip(places, flux, strict=True)
        )
        planes[c] = 500 + 100 * c + 0.2 * x + light + rng.normal(0, 5, shape)
    mask = np.zeros(planes.shape, np.int16)
    mask[1, 100, 240] = masks.SATURATED
    found = {"x": places[:, 0], "y": places[:, 1], "fwhm": np.full(7, fwhm), "flux": flux}
    sky = {
        "x": places[:, 0] + 0.5,
        "y": places[:, 1],
        "v": np.full(7, 9.0),
        "b_v": np.array([0.6] * 6 + [0.6]),
        "b_v_error": np.full(7, 0.05),
    }
    sky["b_v"][2] = np.nan
    stars = starcolours.measured(planes, np.full(planes.shape, 25.0, np.float32), mask, sky, found, saturation=None)
    assert list(stars["fault"]) == ["", "", "colour", "saturated", "neighbour", "neighbour", "rim"]
    share = stars["flux"][:2] / (flux[:2, None] * factors)
    np.testing.assert_allclose(share, share.mean(), rtol=0.02)
    assert 0.93 < share.mean() < 1.0
    assert starcolours.good(stars)["v"].size == 2
