import numpy as np
import pytest

from tilestack import streaks

# 2 MP, as of a small sensor, and not at the origin.
BOX = (-700, 900, 1200, 1700)
Y, X = np.mgrid[BOX[0] : BOX[0] + BOX[2], BOX[1] : BOX[1] + BOX[3]].astype(np.int32)
MIDDLE = (BOX[0] + 600.3, BOX[1] + 849.8)
ANGLES = [0, 90, 45, 135, 0.05, 89.97, *np.random.default_rng(0).uniform(0, 180, 10).round(2).tolist()]


def line(angle_deg, width=2.0, through=MIDDLE, length=np.inf):
    """Pixels of a straight line in the box: y, x, and their place along it."""
    a = np.radians(angle_deg)
    dy, dx = Y - through[0], X - through[1]
    along = dy * np.sin(a) + dx * np.cos(a)
    here = (np.abs(dy * np.cos(a) - dx * np.sin(a)) <= width / 2) & (np.abs(along) <= length / 2)
    return Y[here], X[here], along[here]


def tumbling(pixels):
    """Of each 50 px of a line the 20 px that are bright enough to be rejected."""
    y, x, along = pixels
    return y[along % 50 < 20], x[along % 50 < 20]


def thinned(pixels, rng):
    """40 % of the pixels of a line, by chance."""
    y, x, _ = pixels
    kept = rng.uniform(size=len(y)) < 0.4
    return y[kept], x[kept]


def strays(rng, n=500):
    """Rejected pixels anywhere."""
    return rng.integers(BOX[0], BOX[0] + BOX[2], n), rng.integers(BOX[1], BOX[1] + BOX[3], n)


def disc(y0, x0, area):
    y, x = np.mgrid[y0 - 40 : y0 + 41, x0 - 40 : x0 + 41]
    near = np.pi * ((y - y0) ** 2 + (x - x0) ** 2) < area
    return y[near], x[near]


def found_in(*parts):
    y, x = (np.concatenate(axis) for axis in zip(*parts, strict=True))
    return streaks.strips(y, x, BOX)


def mask(y, x):
    """Found pixels as an image of the box; outside of it none may be."""
    image = np.zeros(BOX[2:], bool)
    assert y.dtype == x.dtype == np.int64 and len(y) == len(x)
    assert (y >= BOX[0]).all() and (x >= BOX[1]).all()
    image[y - BOX[0], x - BOX[1]] = True
    return image


def share(found, pixels):
    """Share of the pixels of a line that were found, its gaps included."""
    return mask(*found)[pixels[0] - BOX[0], pixels[1] - BOX[1]].mean()


@pytest.mark.parametrize("angle_deg", ANGLES)
@pytest.mark.parametrize("width", [1.0, 2.0, 5.0])
def test_strips__cover_a_tumbling_trail_among_strays(angle_deg, width):
    rng = np.random.default_rng(int(angle_deg * 100))
    through = (MIDDLE[0] + rng.uniform(-300, 300), MIDDLE[1] + rng.uniform(-400, 400))
    trail = line(angle_deg, width, through)
    for part in (tumbling(trail), thinned(trail, rng)):
        assert len(part[0]) < 0.45 * len(trail[0])
        found = found_in(part, strays(rng), disc(-300, 2050, 200))
        assert share(found, trail) >= 0.99
        # And little else: a strip as wide as the trail, or of 3 px, and a pixel to either side.
        around = line(angle_deg, max(width, 3.0) + 3, through)
        assert mask(*found).sum() <= len(around[0]) and share(found, around) == mask(*found).sum() / len(around[0])


@pytest.mark.parametrize("between_deg", [90, 30, 5])
@pytest.mark.parametrize("angle_deg", [0, 33.3, 117.0])
def test_strips__find_two_trails_that_cross(angle_deg, between_deg):
    rng = np.random.default_rng(1)
    one, other = line(angle_deg, 3), line(angle_deg + between_deg, 1)
    found = found_in(tumbling(one), thinned(other, rng), strays(rng))
    assert share(found, one) >= 0.99 and share(found, other) >= 0.99


@pytest.mark.parametrize("angle_deg", [0.0, 12.3, 64.9, 90.0, 135.0])
def test_strips__find_both_lights_of_a_plane(angle_deg):
    rng, a = np.random.default_rng(5), np.radians(angle_deg)
    beside = (MIDDLE[0] + 15 * np.cos(a), MIDDLE[1] - 15 * np.sin(a))
    one, other = line(angle_deg, 3), line(angle_deg, 2, beside)
    found = found_in(tumbling(one), thinned(other, rng), strays(rng))
    assert share(found, one) >= 0.99 and share(found, other) >= 0.99


@pytest.mark.parametrize("angle_deg", [0.13, 21.7, 77.2, 120.4, 160.9])
def test_strips__find_a_faint_trail_among_many_strays(angle_deg):
    # One pixel in eight, at an angle between those of a coarse search.
    rng = np.random.default_rng(6)
    y, x, _ = trail = line(angle_deg, 1)
    kept = rng.uniform(size=len(y)) < 0.12
    assert share(found_in((y[kept], x[kept]), strays(rng, 2000)), trail) >= 0.99


def test_strips__find_no_streak_in_strays():
    for seed in range(50):
        assert not len(found_in(strays(np.random.default_rng(seed)))[0])


def test_strips__find_no_streak_in_clumps():
    rng = np.random.default_rng(2)
    blob = disc(-160, 1700, 200)
    assert 180 < len(blob[0]) < 220
    assert not len(found_in(blob)[0]) and not len(found_in(blob, strays(rng))[0])
    # Nor in a disc as of a bright star, nor in many small ones.
    assert not len(found_in(disc(-160, 1700, 4500), strays(rng))[0])
    places = zip(*strays(rng, 100), strict=True)
    assert not len(found_in(*(disc(int(y), int(x), 60) for y, x in places))[0])


@pytest.mark.parametrize("angle_deg", [0, 20.0, 90, 161.0])
def test_strips__go_on_by_one_length_at_both_ends(angle_deg):
    trail = line(angle_deg, 2, length=300)
    found = found_in(thinned(trail, np.random.default_rng(3)))
    # Ends are those of all but 1 % of the pixels, so each is within a few pixels.
    assert share(found, line(angle_deg, 2, length=880)) >= 0.99
    beyond = mask(*found)
    y, x, _ = line(angle_deg, 8, length=920)
    beyond[y - BOX[0], x - BOX[1]] = False
    assert not beyond.any()


def test_strips__end_at_the_box():
    # A trail over a corner, most of its strip outside.
    corner = line(45, 2, (BOX[0] + 100, BOX[1] + BOX[3] - 100))
    across = line(135, 2, (BOX[0] + 60, BOX[1] + BOX[3] - 60))
    for trail in (corner, across):
        assert share(found_in(tumbling(trail)), trail) >= 0.99


@pytest.mark.parametrize("n", [0, 1, 11, 60])
def test_strips__of_few_pixels_are_none(n):
    # 60 px in a row are too short to tell a trail from a galaxy.
    assert not len(found_in((np.full(n, -160), np.arange(n) + 1500))[0])


def test_strips__do_not_depend_on_the_order_of_the_pixels():
    rng = np.random.default_rng(4)
    y, x = (np.concatenate(axis) for axis in zip(tumbling(line(71.0)), strays(rng), strict=True))
    order = rng.permutation(len(y))
    np.testing.assert_array_equal(mask(*streaks.strips(y, x, BOX)), mask(*streaks.strips(y[order], x[order], BOX)))


@pytest.mark.parametrize(("n", "sigma"), [(200, 30), (1000, 60), (5000, 200)])
def test_strips__none_in_a_cloud_of_rejects(n, sigma):
    # A galaxy under bad seeing, the halo of a bright star: many rejects, densest in the middle.
    for seed in range(8):
        rng = np.random.default_rng(seed)
        y, x = (np.rint(rng.normal(middle, sigma, n)).astype(int) for middle in (BOX[0] + 600, BOX[1] + 850))
        inside = (abs(y - BOX[0] - 600) < 600) & (abs(x - BOX[1] - 850) < 850)
        assert not len(streaks.strips(y[inside], x[inside], BOX)[0])


def test_distinct__rows_are_those_of_numpy_unique():
    places = np.random.default_rng(5).integers(-30, 40, (4000, 2))
    np.testing.assert_array_equal(streaks._distinct(places), np.unique(places, axis=0))
