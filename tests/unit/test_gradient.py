"""Background models."""

import numpy as np
import pytest

from tilestack import background, bayer, gradient

H, W = 320, 480


def scene(kind, seed=3, nebula=False):
    """Image (3, h, w), gradient of 200 ADU and object."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:H, :W]
    v, u = (y - (H - 1) / 2) / (W / 2), (x - (W - 1) / 2) / (W / 2)
    shapes = {
        "flat": 0 * u,
        "plane": 0.6 * u - 0.8 * v,
        "cubic": u**3 - 0.7 * u * v + 0.8 * v + 0.5 * u * v**2,
        "vignetting": -(((u - 0.03) ** 2 + v**2) ** 2),
        "lens": (1 + 1.21 * ((u + 0.08) ** 2 + (v - 0.05) ** 2)) ** -2.0,  # cos^4
        "moon": 1 / (0.4 + (u - 1.5) ** 2 + (v + 0.7) ** 2),
    }
    light = shapes[kind] - shapes[kind].min()
    light = 200 * light / max(light.max(), 1e-9)
    r = np.hypot(y - 150, x - 260) if not nebula else np.hypot((y - 150) / 0.75, x - 230)
    thing = 80 * np.exp(-r / 22) if not nebula else 50 / (1 + np.exp((r - 150) / 8))
    image = 1000 + light + thing + rng.normal(0, 3, (3, H, W))
    core = 2.8 / (2 * np.sqrt(2 ** (1 / 3) - 1))
    for sx, sy, f in zip(rng.uniform(0, W, 60), rng.uniform(0, H, 60), 300 / rng.uniform(0.01, 1, 60), strict=True):
        image += f * 2 / (np.pi * core**2) * (1 + ((x - sx) ** 2 + (y - sy) ** 2) / core**2) ** -3
    return image.astype(np.float32), light, thing


@pytest.mark.parametrize("nebula", [False, True], ids=["galaxy", "nebula"])
@pytest.mark.parametrize(
    ("kind", "most"), [("plane", 0.01), ("cubic", 0.01), ("vignetting", 0.03), ("lens", 0.03), ("moon", 0.03)]
)
def test_extracted__is_the_gradient_and_leaves_the_object(kind, most, nebula):
    image, light, thing = scene(kind, nebula=nebula)
    found = background.extracted(image, {"method": "polynomial", "order": "auto"})
    assert found["reason"] is None
    rest = background.over_sky(found["model"], (H, W), found["boxes"], found["kept"]) - light
    rest -= np.median(rest, axis=(1, 2), keepdims=True)
    assert rest.std(axis=(1, 2)).max() / 200 <= most
    inside = thing > 0.05 * thing.max()
    level = np.median(rest[:, ~inside], axis=1)[:, None]
    assert np.abs((rest[:, inside] - level).sum(1) / thing[inside].sum()).max() <= 0.05
    assert max(channel["star_bend"] for channel in found["channels"]) < 1


def test_extracted__of_an_even_sky_is_nothing():
    found = background.extracted(scene("flat")[0], {"method": "polynomial", "order": "auto"})
    model = background.over_sky(found["model"], (H, W), found["boxes"], found["kept"])
    assert np.ptp(model) < 1.0


def test_extracted__by_a_spline():
    image, light, _ = scene("moon")
    found = background.extracted(image, {"method": "rbf", "order": "auto"})
    rest = background.over_sky(found["model"], (H, W), found["boxes"], found["kept"]) - light
    rest -= np.median(rest, axis=(1, 2), keepdims=True)
    assert found["method"] == "rbf" and rest.std(axis=(1, 2)).max() / 200 <= 0.05


def test_extracted__needs_samples():
    image = np.full((1, 60, 60), np.nan, np.float32)
    image[:, :30] = 100 + np.random.default_rng(1).normal(0, 1, (1, 30, 60))
    found = background.extracted(image[:, :, :30], {"method": "polynomial", "order": "auto"})
    assert found["reason"] == "too_few_samples" and found["model"] is None


def test_refusal__is_that_of_any_channel():
    good = {
        "star_bend": 0.0,
        "object_share": 0.0,
        "hole_adu": 0.0,
        "amplitude_adu": 9.0,
        "residual_adu": 1.0,
        "before_adu": 2.0,
    }
    assert background._refusal([good, good]) is None
    assert background._refusal([good, good | {"star_bend": 3.0}]) == "guard_stars"
    assert background._refusal([good | {"object_share": 0.3, "hole_adu": 1.0}, good]) == "guard_object"
    assert background._refusal([good, good | {"residual_adu": 3.0}]) == "guard_flatness"


def test_model__is_the_same_on_a_finer_image_and_on_the_mosaic():
    image, *_ = scene("cubic")
    found = background.extracted(image, {"method": "polynomial", "order": 3})
    coarse = gradient.evaluate(found["model"], (H, W))
    fine = gradient.evaluate(found["model"], (2 * H, 2 * W))
    np.testing.assert_allclose(fine.reshape(3, H, 2, W, 2).mean((2, 4)), coarse, atol=0.02)
    mosaic, cell = background.of_mosaic(coarse, (H, W), "GRBG"), bayer.channel_cell("GRBG")
    assert mosaic[0, 1] == coarse[cell[0, 1], 0, 1] and mosaic[11, 20] == coarse[cell[1, 0], 11, 20]


def test_glow_slopes__are_those_of_differences():
    y, x = np.random.default_rng(1).uniform(-1, 1, (2, 50))
    geometry, step = np.array([0.9, -1.2, -0.3, 0.4]), 1e-6
    ends = [[gradient._glow(y, x, geometry + sign * step * axis) for axis in np.eye(4)] for sign in (1, -1)]
    expected = (np.array(ends[0]) - ends[1]).T / (2 * step)
    np.testing.assert_allclose(gradient._glow_slopes(y, x, geometry), expected, atol=1e-8)
