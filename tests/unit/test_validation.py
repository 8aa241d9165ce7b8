"""Checks of the stack: each fault that is planted fails its own check, at a size that follows from its limit."""

import warnings

import numpy as np
import pytest
from scipy import ndimage

from tilestack import validation

PITCH, SHAPE = 64, (640, 700)


def scene(seed=0, fwhm=3.0, share=0.5, sky=1000.0):
    """A stack with its halves: ``image``, ``even``, ``odd``, ``variance``; stars and a gradient are in all of them."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(SHAPE)
    light = sky + 0.02 * x + 20 * np.exp(-((y - 300) ** 2 + (x - 350) ** 2) / (2 * 90.0**2))
    stars = np.zeros(SHAPE)
    for cy, cx, peak in zip(
        rng.uniform(20, 620, 60), rng.uniform(20, 680, 60), 10 ** rng.uniform(1.5, 4, 60), strict=True
    ):
        near = (slice(int(cy) - 14, int(cy) + 15), slice(int(cx) - 14, int(cx) + 15))
        r2 = (y[near] - cy) ** 2 + (x[near] - cx) ** 2
        stars[near] += peak / (1 + 4 * (2 ** (1 / 3) - 1) * r2 / fwhm**2) ** 3  # Moffat, as real stars have it
    sigma = 3.0 * (1 + 0.3 * x / SHAPE[1])
    even, odd = (light + stars + rng.normal(size=SHAPE) * sigma / np.sqrt(part) for part in (share, 1 - share))
    return {
        "image": share * even + (1 - share) * odd,
        "even": even,
        "odd": odd,
        "variance": sigma**2,
        "stars": stars,
        "light": light,
    }


def usable(made):
    return validation.blank(made["light"] + made["stars"] + (made["even"] - made["odd"]) / 2, np.full(SHAPE, 10))


def noise(made):
    parts = (made[key] for key in ("image", "even", "odd", "variance"))
    return validation.check("background_rms", *_noise(*parts, usable(made)))


def _noise(image, even, odd, variance, where):
    value, error = validation.excess_noise(image, even, odd, variance, where, PITCH)
    return value, 1 + validation.LOSS, error


def lattice(amplitude, made):
    y, x = np.indices(SHAPE)
    wave = np.sign(np.sin(2 * np.pi * x / PITCH) * np.sin(2 * np.pi * y / PITCH))
    return made["image"] + amplitude * np.sqrt(made["variance"]) * wave


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_excess_noise__is_one_by_the_halves_whatever_their_share(share):
    for seed in range(3):
        made = scene(seed, share=share)
        parts = (made[key] for key in ("image", "even", "odd", "variance"))
        value, error = validation.excess_noise(*parts, usable(made), PITCH)
        assert abs(value - 1) < 4 * error + 0.002 and error < 0.01


def test_excess_noise__counts_noise_of_the_image_alone_and_of_the_halves():
    made, rng = scene(), np.random.default_rng(9)
    extra = 0.6 * np.sqrt(made["variance"]) * rng.normal(size=SHAPE)
    alone = noise({**made, "image": made["image"] + extra})
    assert not alone["ok"] and alone["value"] == pytest.approx(np.sqrt(1.36), abs=0.02)
    everywhere = noise({**made, "variance": made["variance"] / 1.36})
    assert not everywhere["ok"] and everywhere["value"] == pytest.approx(np.sqrt(1.36), abs=0.02)
    assert noise(made)["ok"] and noise({**made, "variance": made["variance"] * 1.4})["ok"]


def test_excess_noise__takes_neither_tiles_nor_a_blur_nor_stars_for_noise():
    made = scene()
    assert noise({**made, "image": lattice(1.0, made)})["ok"]
    assert noise({**made, "image": ndimage.gaussian_filter(made["image"], 1.0)})["ok"]
    crowded = {key: made[key] + (0 if key == "variance" else made["stars"]) for key in made}
    assert noise(crowded)["ok"]


def test_tile_lattice__has_the_size_of_the_pattern():
    made = scene()
    where, plain = usable(made), made["image"]
    for amplitude in (0.0, 0.2, 0.5):
        value, limit = validation.tile_lattice(lattice(amplitude, made), plain, made["variance"], where, PITCH)
        # sep takes the mean of a mesh cell away, which is a part of a pattern as coarse as this.
        assert value == pytest.approx(amplitude, abs=0.05 + 0.25 * amplitude)
        assert 4 / PITCH <= limit < 0.13 and (value > limit) == (amplitude > 0)


def test_tile_lattice__leaves_alone_what_the_plain_mean_has_and_what_noise_makes():
    made, rng = scene(), np.random.default_rng(4)
    where, image = usable(made), lattice(0.5, made)
    assert validation.tile_lattice(image, image, made["variance"], where, PITCH)[0] < 0.02
    for _ in range(5):
        white = rng.normal(size=SHAPE) * np.sqrt(made["variance"])
        value, limit = validation.tile_lattice(made["light"] + white, made["image"], made["variance"], where, PITCH)
        assert value < limit
    for n, known in ((2, False), (3, False), (4, True)):
        even = np.ones((n * PITCH, n * PITCH))
        pattern = even + 2 * np.sign(np.sin(2 * np.pi * np.arange(n * PITCH) / PITCH))
        value, limit = validation.tile_lattice(pattern, even, even, even > 0, PITCH)
        assert value > limit if known else np.isnan(value)


def test_star_table__has_the_width_of_the_stars_and_pairs_show_a_blur():
    made = scene(fwhm=3.2)
    table = validation.star_table(made["image"], 60000)
    width, error = validation.centre(table["fwhm"])
    # The scene has no integral over the pixel, for which the fit allows.
    assert width == pytest.approx(np.sqrt(3.2**2 - validation.FWHM2 / 12), abs=0.06 + 3 * error)
    ratio, error = validation.paired(table, validation.star_table(made["even"], 60000))
    assert abs(ratio - 1) < 4 * error + 0.002
    blurred = validation.star_table(ndimage.gaussian_filter(made["image"], 0.7), 60000)
    ratio, error = validation.paired(blurred, table)
    expected = validation.broadened(width, 0.7, 0.0) / width
    assert ratio == pytest.approx(expected, abs=0.02) and ratio > 1 + validation.LOSS_OF_PAIRS + 3 * error


def test_check__fails_beyond_limit_and_error_and_says_what_to_do():
    assert validation.check("elongation", 1.1, 1.0, 0.04)["ok"]
    failed = validation.check("elongation", 1.2, 1.0, 0.04)
    assert not failed["ok"] and failed["threshold"] == pytest.approx(1.12) and "registration.json" in failed["advice"]
    unknown = validation.check("elongation", np.nan, 1.0, np.nan)
    assert unknown["ok"] and unknown["value"] is None and "Not known" in unknown["advice"]
    without_limit = validation.check("elongation", 1.2, np.nan)
    assert without_limit["ok"] and without_limit["threshold"] is None and "Not known" in without_limit["advice"]


def test_of_weights__gives_up_what_the_exponent_asks_for_and_no_more():
    rng = np.random.default_rng(2)
    fwhm, variance = 3 * np.exp(rng.normal(0, 0.2, 4000)), np.exp(rng.normal(0, 0.5, 4000))
    for objective, p in (("depth", 0), ("balanced", 1), ("sharp", 3)):
        frames = {"weight": fwhm**-p / variance, "variance": variance, "fwhm": fwhm}
        value, limit = validation.of_weights(frames, objective)
        assert value == pytest.approx(1 - np.exp(-(p**2) * 0.04), abs=0.03) and value < limit
    scattered = {**frames, "weight": np.exp(rng.normal(0, 1.0, 4000)) / variance}
    assert np.greater(*validation.of_weights(scattered, "balanced"))


def test_of_stars__passes_where_no_frame_has_a_known_width():
    from validation import of_stars

    empty = np.full((60, 60), 100.0, np.float32) + np.random.default_rng(5).normal(0, 1, (60, 60)).astype(np.float32)
    final = {"image": empty, "plain_mean": empty, "proxy": empty, "scale": 1.0, "saturation": None}
    frames = {name: np.full(4, np.nan) for name in ("fwhm", "error", "roundness")} | {"weight": np.ones(4)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # medians of nothing
        found = of_stars(final, frames, {"method": "none"})
    assert all(entry["ok"] and entry["value"] is None for entry in found)
