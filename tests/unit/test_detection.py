import numpy as np
import pytest
import sep
from scipy.special import erf

from tilestack import bayer, stars
from tilestack.kernels import detection


def moffat(shape, x, y, fwhm, beta, n=7):
    """Unit flux over pixels, integrated over n x n points each."""
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    step = (np.arange(n) + 0.5) / n - 0.5
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    total = np.zeros(shape)
    for dy in step:
        for dx in step:
            total += (1 + ((xx + dx - x) ** 2 + (yy + dy - y) ** 2) / alpha**2) ** -beta
    return total / n**2 * (beta - 1) / (np.pi * alpha**2)


def gauss(shape, x, y, fwhm):
    s = fwhm / 2.3548 * np.sqrt(2)
    px, py = (
        (erf((np.arange(n) + 0.5 - c) / s) - erf((np.arange(n) - 0.5 - c) / s)) / 2
        for n, c in ((shape[1], x), (shape[0], y))
    )
    return py[:, None] * px[None]


def fit(image, pattern, noise, start, saturation=np.inf):
    cell = bayer.channel_cell(pattern)
    table = detection.fit_stars(image, cell, np.full(cell.max() + 1, noise), np.array(start, float), saturation)
    return dict(zip(detection.COLUMNS, table.T, strict=False)), table[:, 7 : 7 + cell.max() + 1]


@pytest.mark.parametrize("pattern", [None, "GRBG", "RGGB"])
@pytest.mark.parametrize("fwhm", [1.9, 2.4, 4.0])
@pytest.mark.parametrize("profile", [gauss, lambda *a: moffat(*a, 2.5), lambda *a: moffat(*a, 4.0)])
def test_fit_stars__position_has_no_bias_with_the_phase_in_the_pixel(pattern, fwhm, profile):
    rng = np.random.default_rng(1)
    cell = bayer.channel_cell(pattern)
    colour = np.array([0.6, 1.0, 0.7])[cell] if pattern else np.ones((2, 2))
    errors = []
    for _ in range(40):
        x, y = rng.uniform(20, 22, 2)
        image = (50000 * profile((42, 42), x, y, fwhm) * np.tile(colour, (21, 21)) + 100).astype(np.float32)
        column, _ = fit(image, pattern, 1.0, [[x + rng.normal(0, 0.3), y + rng.normal(0, 0.3), 3.0]])
        errors.append([column["x"][0] - x, column["y"][0] - y])
    errors = np.array(errors)
    assert np.abs(errors.mean(0)).max() < 0.01 and errors.std() < 0.03


@pytest.mark.parametrize("pattern", [None, "GRBG"])
@pytest.mark.parametrize("fwhm", [2.0, 3.0, 4.5, 6.0])
def test_fit_stars__recovers_the_fwhm_at_peak_signal_to_noise_20(pattern, fwhm):
    rng = np.random.default_rng(2)
    noise, found = 10.0, []
    for _ in range(150):
        x, y = rng.uniform(24, 26, 2)
        star = moffat((52, 52), x, y, fwhm, 3.0)
        image = (star / star.max() * 20 * noise + rng.normal(200, noise, star.shape)).astype(np.float32)
        column, _ = fit(image, pattern, noise, [[x, y, 3.0]])
        if column["flags"][0] == 0:
            found.append((column["fwhm"][0], column["fwhm_error"][0], column["x"][0] - x, column["position_error"][0]))
    width, width_error, dx, position_error = np.array(found).T
    assert len(found) > 140
    assert np.median(width) == pytest.approx(fwhm, rel=0.05)
    # Errors say what the scatter is.
    assert 1.4826 * np.median(abs(width - np.median(width))) == pytest.approx(np.median(width_error), rel=0.3)
    assert 1.4826 * np.median(abs(dx)) == pytest.approx(np.median(position_error), rel=0.3)


@pytest.mark.parametrize("beta", [2.5, 4.0])
def test_fit_stars__separates_the_colours_of_undersampled_stars(beta):
    rng = np.random.default_rng(3)
    cell, truth, sky = bayer.channel_cell("GRBG"), np.array([30000.0, 50000.0, 20000.0]), np.array([90, 100, 80])
    fluxes = []
    for _ in range(150):
        x, y = rng.uniform(20, 22, 2)
        image = moffat((42, 42), x, y, 2.2, beta) * np.tile(truth[cell], (21, 21)) + np.tile(sky[cell], (21, 21))
        fluxes.append(fit(image.astype(np.float32), "GRBG", 1.0, [[x, y, 2.5]])[1][0])
    ratio = np.array(fluxes) / truth
    error = ratio.std(0) / np.sqrt(len(ratio))
    # The profile is not the one that was fitted: all colours are off by the same.
    assert np.ptp(ratio.mean(0)) < 0.005 + 3 * error.max()
    assert ratio[:, 1].std() < 0.02  # green, at every other pixel


def test_fit_stars__flags():
    image = np.full((60, 80), 100, np.float32)
    for x, y, flux in ((30, 30, 2e4), (34, 30, 2e4), (60, 30, 4e4), (2, 50, 2e4)):
        image += (flux * gauss(image.shape, x, y, 2.5)).astype(np.float32)
    top = image[30, 60]
    start = [[30, 30, 2.5], [34, 30, 2.5], [60, 30, 2.5], [2, 50, 2.5], [70, 50, 2.5]]
    column, flux = fit(image, None, 1.0, start, saturation=top)
    flags = column["flags"].astype(int)
    assert flags[0] & detection.BLENDED and flags[1] & detection.BLENDED
    assert flags[2] == detection.SATURATED and flags[3] == detection.EDGE
    assert flags[4] & detection.FAILED or abs(flux[4, 0]) < 100
    assert column["x"][2] == pytest.approx(60, abs=0.02)  # the saturated pixel is left out, the star is not


@pytest.mark.parametrize("radius", [6.0, 9.5])
def test_aperture_fluxes__equal_those_of_sep(radius):
    rng = np.random.default_rng(4)
    image = np.full((200, 220), 50.0)
    xy = np.column_stack([rng.uniform(40, 180, 8), np.linspace(30, 170, 8)])
    for x, y in xy:
        image += 1e5 * moffat(image.shape, x, y, 3.0, 3.0)
    found = detection.aperture_fluxes(image.astype(np.float32), np.zeros((2, 2), int), xy, radius)[:, 0]
    expected, _, _ = sep.sum_circle(image, *xy.T.copy(), radius, bkgann=(1.4 * radius, 2.2 * radius), subpix=0)
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_aperture_fluxes__of_a_mosaic_are_those_of_each_colour():
    cell, truth = bayer.channel_cell("BGGR"), np.array([3e4, 5e4, 2e4])
    image = np.tile(truth[cell], (50, 50)) * gauss((100, 100), 50.3, 49.8, 5.0) + 77
    found = detection.aperture_fluxes(image.astype(np.float32), cell, np.array([[50.3, 49.8], [3.0, 3.0]]), 12.0)
    np.testing.assert_allclose(found[0], truth, rtol=0.01)
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize("pattern", [None, "GRBG"])
def test_defects__finds_lone_pixels_and_no_star(pattern):
    rng = np.random.default_rng(5)
    image = rng.normal(900, 80, (300, 400))
    for x, y, flux in zip(
        rng.uniform(10, 390, 150), rng.uniform(10, 290, 150), rng.uniform(2e3, 4e5, 150), strict=True
    ):
        image += flux * moffat(image.shape, x, y, 1.9, 3.0, n=3)
    places = np.unique(rng.integers(4, [296, 396], (200, 2)), axis=0)
    background = image.copy()
    image[tuple(places.T)] += np.where(rng.uniform(size=len(places)) < 0.8, rng.uniform(1500, 40000, len(places)), -850)
    cell = bayer.channel_cell(pattern)
    noise = np.full(cell.max() + 1, 80.0)
    found = {tuple(p) for p in detection.defects(image.astype(np.float32), cell, noise, 8.0)}
    clean = {tuple(p) for p in detection.defects(background.astype(np.float32), cell, noise, 8.0)}
    dark = {tuple(p) for p in places if background[tuple(p)] < 1200}  # not where a star stands
    assert len(dark & found) >= 0.97 * len(dark)
    assert len(clean) <= 1


def test_find__lists_stars_of_a_mosaic_where_they_are():
    rng = np.random.default_rng(6)
    image = rng.normal(1000, 30, (300, 400))
    truth = np.column_stack([rng.uniform(20, 380, 25), rng.uniform(20, 280, 25)])
    truth = truth[[min(np.hypot(*(np.delete(truth, k, 0) - p).T)) > 15 for k, p in enumerate(truth)]]
    for x, y in truth:
        image += 3e4 * moffat(image.shape, x, y, 2.6, 3.0, n=3)
    found = stars.find(image.astype(np.float32), "RGGB", sigma=5, max_stars=100, saturation=None)
    distance = np.hypot(truth[:, :1] - found["x"], truth[:, 1:] - found["y"])
    assert (distance.min(1) < 0.1).all() and len(found["x"]) <= len(truth) + 2
    np.testing.assert_allclose(found["noise"], 30, rtol=0.05)


def test_detect__finds_the_brightest_of_many_stars_without_the_faint_ones():
    rng = np.random.default_rng(7)
    image, flux = rng.normal(500, 10, (1400, 1400)), 2e3 * rng.uniform(0.003, 1, 1500) ** -0.8
    places = rng.uniform(20, 1380, (1500, 2))
    for (x, y), f in zip(places, flux, strict=True):
        j, i = int(y) - 15, int(x) - 15
        image[j : j + 30, i : i + 30] += f * gauss((30, 30), x - i, y - j, 3.0)
    found, limit = stars.detect(image.astype(np.float32), 4.0, 100)
    every, usual = stars.detect(image.astype(np.float32), 4.0, 10_000)
    assert limit > usual == 4.0 and 200 <= len(found) < 0.7 * len(every)
    alone = np.array([np.sort(np.hypot(*(places - p).T))[1] > 15 for p in places])
    brightest = places[alone & (flux >= np.sort(flux)[-100])]
    assert len(brightest) > 30
    assert (np.hypot(brightest[:, :1] - found["x"], brightest[:, 1:] - found["y"]).min(1) < 0.3).all()


@pytest.mark.parametrize("heights", [(3000, 2000, 1000), (1000, 2000, 3000), (1000, 3000, 2000)])
def test_defects__finds_a_row_of_hot_pixels_whichever_is_the_highest(heights):
    image = np.random.default_rng(8).normal(500, 10, (60, 70)).astype(np.float32)
    image[30, 30:36:2] += heights
    cell = bayer.channel_cell("RGGB")
    found = detection.defects(image, cell, np.full(3, 10.0), 6.0)
    assert found.tolist() == [[30, 30], [30, 32], [30, 34]]
