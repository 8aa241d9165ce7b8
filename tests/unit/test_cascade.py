"""Frames that triangles cannot place: each stage, and what is never done."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tilestack import cascade, correlation, geometry, motion, starmatch

SHAPE = (1920, 1080)
LIMITS = {"min_matches": 6, "max_residual_px": 1.0, "model": "similarity"}


def turned(angle_deg, shift=(0.0, 0.0), scale=1.0, mirror=False):
    a = np.radians(angle_deg)
    matrix = (
        scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ np.diag([1.0, -1.0 if mirror else 1.0])
    )
    centre = np.array([539.5, 959.5])
    return np.column_stack([matrix, centre - matrix @ centre + shift])


class Sky:
    """A field of stars, and frames of it."""

    def __init__(self, seed, n=60):
        self.rng = np.random.default_rng(seed)
        self.xy = self.rng.uniform(-300, [1380, 2220], (n, 2))
        self.flux = np.sort(self.rng.pareto(1.0, n) + 1)[::-1]

    def frame(self, transform, time, keep=None, extra=0, read=None, hint=None):
        """Frame through the inverse of a transform frame -> lattice; `keep` the brightest stars of those in it."""
        here = geometry.apply(geometry.inverse(transform), self.xy)
        inside = np.flatnonzero((here > 0).all(1) & (here < SHAPE[::-1]).all(1))[:keep]
        xy = here[inside] + self.rng.normal(0, 0.05, (len(inside), 2))
        false = self.rng.uniform(0, SHAPE[::-1], (extra, 2))
        xy, flux = np.vstack([xy, false]), np.r_[self.flux[inside], self.rng.uniform(1, 3, extra)]
        order = np.argsort(-flux)
        stars = {
            "x": xy[order, 0],
            "y": xy[order, 1],
            "position_error": np.full(len(xy), 0.05),
            "flux": flux[order, None],
            "elongation": np.ones(len(xy)),
        }
        hint = hint or {"ra_deg": None, "dec_deg": None, "scale_arcsec": None}
        return cascade.Frame({"stars": stars, "hint": hint, "pixel_aspect": 1.0, "trailed": False}, time, read)


def register(sky, frames, reference=0, model="auto"):
    stars = frames[reference].stars | {"flux": frames[reference].record["stars"]["flux"]}
    lattice = {
        "stars": stars,
        "shape": SHAPE,
        "hint": frames[reference].hint,
        "aspect": 1.0,
        "read": frames[reference].read,
    }
    limits = LIMITS | {"model": model}
    return cascade.register(frames, [("reference", frames[reference].stars)], lattice, SHAPE, **limits)


def off(result, transform):
    corners = np.array([[0, 0], [1080, 0], [0, 1920], [1080, 1920]], float)
    return np.hypot(*(geometry.apply(result["transform"], corners) - geometry.apply(transform, corners)).T).max()


def drift(k):
    return turned(0.05 * k, (1.5 * k, -0.8 * k))


def no_image():
    raise starmatch.NoMatch("no image in this test")


@pytest.mark.parametrize("n", [3, 4, 5])
def test_pairs__places_frames_of_very_few_stars(n):
    sky = Sky(1)
    frames = [
        sky.frame(drift(k), k, keep=n if k == 7 else None, extra=2 if k == 7 else 0, read=no_image) for k in range(12)
    ]
    found = register(sky, frames)
    assert found["results"][7]["method"] == "pairs" and off(found["results"][7], drift(7)) < 0.6
    assert [r["method"] for k, r in enumerate(found["results"]) if k != 7] == ["triangles"] * 11
    assert all(t["reason"] for t in found["results"][7]["tries"])


def test_prediction__places_a_frame_without_stars_and_says_so():
    sky = Sky(2)
    frames = [sky.frame(drift(k), k, keep=0 if k == 5 else None, read=no_image) for k in range(12)]
    result = register(sky, frames)["results"][5]
    assert result["method"] == "predicted" and off(result, drift(5)) < 1.0
    assert 0.1 < result["error_px"] <= motion.MOST_ERROR_PX and result["residual_px"] is None
    assert {t["method"] for t in result["tries"]} >= {"triangles", "pairs", "plate", "correlation"}


def test_prediction__is_refused_where_the_telescope_jumps():
    sky = Sky(3)
    course = [turned(0, sky.rng.uniform(-60, 60, 2)) for _ in range(12)]
    frames = [sky.frame(t, k, keep=0 if k == 5 else None, read=no_image) for k, t in enumerate(course)]
    result = register(sky, frames)["results"][5]
    assert result["method"] == "none" and "moves by" in result["tries"][-1]["reason"]


def test_prediction__is_refused_for_frames_of_another_field():
    sky, other = Sky(4), Sky(99)
    frames = [(other if k in (3, 8) else sky).frame(drift(k), k, read=no_image) for k in range(14)]
    results = register(sky, frames)["results"]
    for k, result in enumerate(results):
        assert result["method"] == ("none" if k in (3, 8) else "triangles")
    assert "not those of the field" in results[3]["tries"][-1]["reason"]


def test_register__never_answers_with_the_identity():
    rng = np.random.default_rng(5)
    frames = [Sky(100 + k).frame(turned(0), k, read=no_image) for k in range(6)]
    results = register(Sky(100), frames)["results"]
    assert [r["method"] for r in results] == ["triangles"] + ["none"] * 5
    assert all("transform" not in r for r in results[1:]) and rng is not None


@pytest.mark.parametrize("mirror", [False, True])
def test_register__meridian_flip_and_another_parity_are_no_fault(mirror):
    sky = Sky(6)
    course = [turned(0.05 * k + (180 if k > 5 else 0), (k, 0), mirror=mirror) for k in range(12)]
    reference = sky.frame(turned(0), 0)
    frames = [sky.frame(t, k, read=no_image) for k, t in enumerate(course)]
    lattice = {"stars": reference.stars, "shape": SHAPE, "hint": reference.hint, "aspect": 1.0, "read": no_image}
    found = cascade.register(frames, [("reference", reference.stars)], lattice, SHAPE, **LIMITS)
    assert all(r["method"] == "triangles" for r in found["results"])
    assert max(off(r, t) for r, t in zip(found["results"], course, strict=True)) < 0.3


def test_check__takes_the_place_from_a_frame_that_does_not_fit():
    sky = Sky(7)
    frames = [sky.frame(drift(k), k, read=no_image) for k in range(10)]
    results = [
        {
            "method": "triangles",
            "against": "reference",
            "tries": [],
            "transform": drift(k),
            "residual_px": 0.1,
            "pairs": [0] * 20,
        }
        for k in range(10)
    ]
    for wrong in (turned(0, scale=1.02), turned(0, mirror=True), turned(40)):
        bad = [r | ({"transform": wrong, "pairs": [0] * 6} if k == 4 else {}) for k, r in enumerate(results)]
        assert list(motion.suspicious(bad, SHAPE)) == [4]
    smeared = [r | ({"residual_px": 0.95} if k == 4 else {}) for k, r in enumerate(results)]
    assert list(motion.suspicious(smeared, SHAPE)) == [4] and not motion.suspicious(results, SHAPE)
    assert len(frames) == 10


def test_plate__places_a_frame_by_the_catalogue():
    """Two frames of the sky that share no star: only their plate solutions know where they lie."""
    import skycatalogue

    ra, dec, scale = 303.0, 38.35, 2.4
    found = skycatalogue.cone(ra, dec, 1.6)
    a, d, d0 = np.radians(found["ra_deg"] - ra), np.radians(found["dec_deg"]), np.radians(dec)
    depth = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(a)
    east, north = np.cos(d) * np.sin(a) / depth, (np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(a)) / depth
    pixel = np.radians(scale / 3600)
    sky = Sky(8)
    sky.xy = np.column_stack([540 - east / pixel, 960 - north / pixel])
    sky.flux = 10 ** (-0.4 * found["vt"])
    hint = {"ra_deg": ra + 0.2, "dec_deg": dec - 0.1, "scale_arcsec": scale * 1.01}
    far = turned(30, (1150, 300))
    frames = [
        sky.frame(turned(0), 0, keep=60, hint=hint, read=no_image),
        sky.frame(far, 1, keep=60, hint=hint, read=no_image),
    ]
    result = register(sky, frames)["results"][1]
    assert result["method"] == "plate" and off(result, far) < 1.5


def picture(rng, shape, transform=None, noise=0.5, blobs=None):
    """A nebula without stars, moved by a transform frame -> lattice."""
    y, x = np.indices(shape, float)
    points = np.column_stack([x.ravel(), y.ravel()])
    if transform is not None:
        points = geometry.apply(transform, points)
    image = np.zeros(shape[0] * shape[1])
    for cx, cy, width, height in blobs:
        image += height * np.exp(-((points[:, 0] - cx) ** 2 + (points[:, 1] - cy) ** 2) / (2 * width**2))
    return (image.reshape(shape) + rng.normal(0, noise, shape)).astype(np.float32)


@pytest.mark.parametrize("angle", [0.0, 4.0, 70.0, 180.0])
def test_correlation__aligns_what_has_structure_and_no_stars(angle):
    rng = np.random.default_rng(9)
    shape = (480, 360)
    blobs = np.column_stack(
        [rng.uniform(0, 360, 60), rng.uniform(0, 480, 60), rng.uniform(4, 15, 60), rng.uniform(2, 8, 60)]
    )
    a = np.radians(angle)
    matrix = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    centre = np.array([179.5, 239.5])
    true = np.column_stack([matrix, centre - matrix @ centre + [9.3, -6.4]])
    fixed, moving = picture(rng, shape, blobs=blobs), picture(rng, shape, true, blobs=blobs)
    found, agreement = correlation.align(moving, fixed)
    corners = np.array([[60, 60], [300, 60], [60, 420], [300, 420]], float)
    assert np.hypot(*(geometry.apply(found, corners) - geometry.apply(true, corners)).T).max() < 1.0
    assert agreement > 0.3


@pytest.mark.parametrize("seed", range(5))
def test_correlation__refuses_noise_and_other_fields(seed):
    rng = np.random.default_rng(seed)
    noise = [rng.normal(0, 1, (480, 360)).astype(np.float32) for _ in range(2)]
    fields = [gaussian_filter(rng.normal(0, 1, (480, 360)), 4).astype(np.float32) * 20 + n for n in noise]
    for moving, fixed in (noise, fields):
        with pytest.raises(starmatch.NoMatch):
            correlation.align(moving, fixed)


def test_at_least__is_the_binomial_tail():
    assert starmatch.at_least(0, 5, 0.3) == pytest.approx(1)
    assert starmatch.at_least(2, 3, 0.5) == pytest.approx(0.5)
    assert starmatch.at_least(4, 3, 0.5) == 0
