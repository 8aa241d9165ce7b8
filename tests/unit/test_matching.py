import astroalign
import numpy as np
import pytest

from tilestack import geometry, starmatch
from tilestack.kernels import matching


def star_list(xy, error=0.05):
    return {"x": xy[:, 0], "y": xy[:, 1], "position_error": np.full(len(xy), error)}


def turned(angle_deg, scale=1.0, mirror=False, shift=(37.0, -21.0)):
    a = np.radians(angle_deg)
    matrix = (
        scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ np.diag([1.0, -1.0 if mirror else 1.0])
    )
    centre = np.array([540.0, 960.0])
    return np.column_stack([matrix, centre - matrix @ centre + shift])


def scene(seed, n, transform, share=0.8, noise=0.05):
    """Two lists, brightest first, that have a share of their stars in common, in an order of their own."""
    rng = np.random.default_rng(seed)
    fixed = rng.uniform(0, [1080, 1920], (n, 2))
    both = rng.uniform(size=n) < share
    moving = np.where(
        both[:, None], geometry.apply(geometry.inverse(transform), fixed), rng.uniform(0, [1080, 1920], (n, 2))
    )
    order = np.argsort(np.arange(n) + rng.normal(0, 0.1 * n, n))
    return (moving + rng.normal(0, noise, (n, 2)))[order], fixed


@pytest.mark.parametrize("angle", [0, 0.5, 37, 70, 180])
@pytest.mark.parametrize("scale", [0.5, 0.998, 1.4, 2.0])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("n", [15, 40, 200])
def test_registration__finds_the_transform(angle, scale, mirror, n):
    true = turned(angle, scale, mirror)
    moving, fixed = scene(int(2 * angle) + n, n, true)
    start = starmatch.start_by_triangles(star_list(moving), star_list(fixed))
    limits = {"min_matches": 6, "max_residual_px": 1.0}
    found = starmatch.refine(start, star_list(moving), star_list(fixed), model="similarity", **limits)
    corners = np.array([[0, 0], [1080, 0], [0, 1920], [1080, 1920]], float)
    error = np.hypot(*(geometry.apply(found["transform"], geometry.apply(geometry.inverse(true), corners)) - corners).T)
    assert error.max() < 0.4 * max(scale, 1) and len(found["pairs"]) >= 0.6 * n


def test_registration__is_as_near_to_the_truth_as_astroalign():
    ours, theirs = [], []
    corners = np.array([[0, 0], [1080, 0], [0, 1920], [1080, 1920]], float)
    for seed in range(12):
        true = turned(seed * 31.0)
        moving, fixed = scene(seed, 40, true)
        start = starmatch.start_by_triangles(star_list(moving), star_list(fixed))
        found = starmatch.refine(
            start, star_list(moving), star_list(fixed), model="similarity", min_matches=6, max_residual_px=1.0
        )
        other, _ = astroalign.find_transform(moving, fixed)
        expected = geometry.apply(true, corners)
        ours.append(np.hypot(*(geometry.apply(found["transform"], corners) - expected).T).mean())
        theirs.append(np.hypot(*(other(corners) - expected).T).mean())
    assert np.median(ours) <= 1.1 * np.median(theirs) and max(ours) < 0.3


@pytest.mark.parametrize(("aspect", "told"), [(0.964, 1.0), (0.964, 1 / 0.964), (1.3, 1 / 1.3)])
def test_registration__affine_takes_pixels_that_are_not_square(aspect, told):
    # The same sky in frames turned against each other, rows closer or wider than columns: 0.964 in the M 8 frames,
    # whose headers do not say so.
    squeeze = np.array([[1, 0, 0], [0, aspect, 0]])
    true = geometry.compose(squeeze, geometry.compose(turned(25.0), geometry.inverse(squeeze)))
    moving, fixed = scene(5, 60, true)
    start = starmatch.start_by_triangles(star_list(moving), star_list(fixed), aspects=(told, told))
    limits = {"min_matches": 6, "max_residual_px": 9.0}
    found = starmatch.refine(start, star_list(moving), star_list(fixed), model="affine", **limits)
    assert found["residual_px"] < 0.15 and len(found["pairs"]) >= 35
    try:
        other = starmatch.refine(start, star_list(moving), star_list(fixed), model="similarity", **limits)
    except starmatch.NoMatch:
        return
    assert len(other["pairs"]) < len(found["pairs"]) or other["criterion"] > found["criterion"]


@pytest.mark.parametrize("seed", range(15))
def test_registration__refuses_frames_of_another_field(seed):
    rng = np.random.default_rng(seed)
    n = (20, 60, 250)[seed % 3]
    moving, fixed = (star_list(rng.uniform(0, [1080, 1920], (n, 2))) for _ in range(2))
    with pytest.raises(starmatch.NoMatch):
        start = starmatch.start_by_triangles(moving, fixed)
        starmatch.refine(start, moving, fixed, model="similarity", min_matches=6, max_residual_px=1.0)


def test_registration__says_why_few_stars_do_not_do():
    few = star_list(np.array([[1.0, 2.0], [30.0, 40.0], [70.0, 10.0]]))
    with pytest.raises(starmatch.NoMatch, match="3 stars against 3"):
        starmatch.start_by_triangles(few, few)


def test_nearest_pairs__equals_brute_force():
    rng = np.random.default_rng(10)
    a, b = rng.uniform(0, 50, (60, 2)), rng.uniform(0, 50, (80, 2))
    distance = np.hypot(a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1])
    j, k = distance.argmin(1), distance.argmin(0)
    expected = [(m, j[m]) for m in range(60) if k[j[m]] == m and distance[m, j[m]] < 3]
    assert [tuple(pair) for pair in matching.nearest_pairs(a, b, 3.0)] == expected


@pytest.mark.parametrize("mirror", [False, True])
def test_geometry__inverse_compose_and_describe_agree(mirror):
    one, other = turned(70, 0.998, mirror), turned(-20, 1.1)
    points = np.random.default_rng(11).uniform(0, 1000, (5, 2))
    np.testing.assert_allclose(geometry.apply(geometry.inverse(one), geometry.apply(one, points)), points, atol=1e-9)
    np.testing.assert_allclose(
        geometry.apply(geometry.compose(other, one), points), geometry.apply(other, geometry.apply(one, points))
    )
    told = geometry.describe(one, (1921, 1081))
    assert told["rotation_deg"] == pytest.approx(70) and told["scale"] == pytest.approx(0.998)
    assert told["parity"] == (-1 if mirror else 1) and told["shear"] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(told["shift_px"], [-21, 37], atol=1e-6)


@pytest.mark.parametrize("model", ["similarity", "mirrored", "affine"])
def test_fit__is_the_least_squares_solution(model):
    rng = np.random.default_rng(12)
    source, weight = rng.uniform(0, 100, (20, 2)), rng.uniform(0.5, 2, 20)
    target = geometry.apply(turned(33, 1.2, model == "mirrored"), source) + rng.normal(0, 1, (20, 2))
    best = geometry.fit(source, target, weight, model)

    def cost(transform):
        return (weight * ((geometry.apply(transform, source) - target) ** 2).sum(1)).sum()

    for k in range(6):
        nudge = np.zeros(6)
        nudge[k] = 1e-4 if k % 3 < 2 else 1e-2
        if model == "affine":
            assert cost(best + nudge.reshape(2, 3)) > cost(best) and cost(best - nudge.reshape(2, 3)) > cost(best)
    rotation, size = turned(1e-3)[:, :2], 1 + 1e-5
    for matrix in (rotation, rotation.T, size * np.eye(2), np.eye(2) / size):
        assert cost(np.column_stack([matrix @ best[:, :2], best[:, 2]])) > cost(best)


@pytest.mark.parametrize("even", [False, True])
def test_footprint_box__holds_the_frame_and_keeps_the_phase(even):
    transform = turned(33, 1.1, shift=(-77.3, 41.9))
    y0, x0, rows, columns = geometry.footprint_box(transform, (300, 200), even)
    edge = geometry.apply(transform, np.array([[0, 0], [199, 0], [0, 299], [199, 299]], float))
    assert edge[:, 0].min() >= x0 and edge[:, 1].min() >= y0
    assert edge[:, 0].max() <= x0 + columns - 1 and edge[:, 1].max() <= y0 + rows - 1
    assert not even or (y0 % 2 == 0 and x0 % 2 == 0)
