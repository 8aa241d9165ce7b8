import numpy as np
import pytest
from colour_demosaicing import demosaicing_CFA_Bayer_Malvar2004
from scipy.ndimage import gaussian_filter

from tilestack import bayer, distortion, geometry, prewarp
from tilestack.kernels import clipping, spans
from tilestack.kernels import prewarp as kernel
from tilestack.kernels import warp as resampling

MONO = np.zeros((2, 2), np.int64)


def turned(angle_deg, shift=(0.0, 0.0), scale=1.0, size=200):
    a = np.radians(angle_deg)
    matrix = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    centre = np.array([(size - 1) / 2] * 2)
    return np.column_stack([matrix, centre - matrix @ centre + shift])


def warp(image, transform, pattern=None, cfa="demosaic", lattice_pattern=None, saturation=None, lens=None):
    """Warp by the transform frame -> lattice, as the phase does."""
    stretch = 1 / np.sqrt(geometry.area_scale(transform))
    cell, lattice_cell = bayer.channel_cell(pattern), bayer.channel_cell(lattice_pattern or pattern)
    box = geometry.footprint_box(transform, image.shape, even=pattern is not None)
    plane_of, step, offsets = prewarp.layout(cell, lattice_cell, cfa)
    planes = prewarp.planes_of(image, cell, step, offsets)
    near = resampling.saturation_map(image, saturation, resampling.kernel_reach(stretch, step))
    back = geometry.inverse(transform)
    array = distortion.as_array(lens)
    warped, saturated = resampling.warp(planes, plane_of, step, offsets, near, back, box, lens=array, stretch=stretch)
    return warped, saturated, box


def lanczos_reference(image, x, y):
    """One value by the definition of the kernel, the weights of each axis with sum 1 and centre of mass x."""
    ix, iy = int(np.floor(x)), int(np.floor(y))
    k = np.arange(-2, 4)
    axes = []
    for f in (x - ix, y - iy):
        w = np.sinc(f - k) * np.sinc((f - k) / 3) * (abs(f - k) < 3)
        w /= w.sum()
        w += (f - w @ k) * (k - 0.5) / 17.5  # 17.5 = sum of (k - 0.5)^2
        axes.append(w)
    return axes[1] @ image[iy - 2 : iy + 4, ix - 2 : ix + 4] @ axes[0]


@pytest.mark.parametrize("angle", [0.3, 37, 70, 180])
@pytest.mark.parametrize(("pattern", "cfa"), [(None, "demosaic"), ("GRBG", "demosaic"), ("GRBG", "subplane")])
def test_warp__constant_light_stays_constant(angle, pattern, cfa):
    image = np.full((200, 200), 912.7, np.float32)
    warped, _, _ = warp(image, turned(angle, (3.3, -8.7)), pattern, cfa)
    known = np.isfinite(warped)
    assert known.mean() > 0.4
    np.testing.assert_allclose(warped[known], 912.7, rtol=1e-6)


@pytest.mark.parametrize("angle", [0.3, 70, 90, 180])
@pytest.mark.parametrize("pattern", bayer.PATTERNS)
@pytest.mark.parametrize("lattice_pattern", ["RGGB", "GRBG"])
@pytest.mark.parametrize("cfa", ["demosaic", "subplane"])
def test_warp__a_mosaic_of_constant_colour_keeps_each_colour_at_its_place(angle, pattern, lattice_pattern, cfa):
    colours = np.array([500.0, 1000.0, 300.0])
    image = np.tile(colours[bayer.channel_cell(pattern)], (100, 100)).astype(np.float32)
    warped, _, (y0, x0, h, w) = warp(image, turned(angle, (5.2, 9.9)), pattern, cfa, lattice_pattern)
    assert y0 % 2 == x0 % 2 == 0
    expected = np.tile(colours[bayer.channel_cell(lattice_pattern)], (h // 2 + 1, w // 2 + 1))[:h, :w]
    known = np.isfinite(warped)
    known[:8] = known[-8:] = False  # the rims of a demosaiced mosaic know less
    inner = np.zeros_like(known)
    j, i = np.mgrid[:h, :w]
    x, y = geometry.apply(
        geometry.inverse(turned(angle, (5.2, 9.9))), np.column_stack([(i + x0).ravel(), (j + y0).ravel()])
    ).T
    inner.ravel()[:] = (x > 6) & (y > 6) & (x < 193) & (y < 193)
    assert (known & inner).sum() > 20000
    np.testing.assert_allclose(warped[known & inner], expected[known & inner], rtol=2e-6)


# Where kernels lie side by side their weights are curves, good to 2e-6; else they come from a table of 1024 positions a
# pixel: off by up to 0.0005 px times the steepest slope.
@pytest.mark.parametrize(("angle", "error"), [(0.3, 1e-3), (12, 1e-3), (179.2, 1e-3), (70, 0.05)])
def test_warp__equals_the_definition(angle, error):
    rng = np.random.default_rng(1)
    image = rng.normal(100, 10, (200, 200)).astype(np.float32)
    transform = turned(angle, (1.37, -2.61))
    warped, _, (y0, x0, h, w) = warp(image, transform)
    back = geometry.inverse(transform)
    for _ in range(200):
        j, i = rng.integers(0, h), rng.integers(0, w)
        x, y = geometry.apply(back, np.array([[i + x0, j + y0]], float))[0]
        if 2 < x < 196 and 2 < y < 196:
            assert warped[j, i] == pytest.approx(lanczos_reference(image.astype(float), x, y), abs=error)


@pytest.mark.parametrize("lens", [False, True])
@pytest.mark.parametrize(("angle", "error"), [(0.3, 1e-3), (5, 1e-3), (-178, 1e-3), (20, 0.05)])
def test_warp__planes_of_colours_equal_the_definition(angle, error, lens):
    rng = np.random.default_rng(2)
    planes = rng.normal(100, 10, (3, 90, 120)).astype(np.float32)
    plane_of, offsets = np.array([[0, 1], [1, 2]]), np.zeros((3, 2), np.int64)
    back = geometry.inverse(turned(angle, (1.37, -2.61), size=100))
    known = {"centre": [60.0, 45.0], "length": 100.0, "coefficients": rng.normal(0, 0.5, (7, 2)).tolist()}
    model = distortion.as_array(known if lens else None)
    y0, x0, h, w = -3, 5, 80, 101
    near = np.zeros((90, 120), np.uint8)
    warped, _ = resampling.warp(planes, plane_of, 1, offsets, near, back, (y0, x0, h, w), lens=model)
    n = 0
    for j, i in np.argwhere(np.isfinite(warped)):
        x, y = geometry.apply(back, np.array([[i + x0, j + y0]], float))[0]
        if lens:
            straight = np.array([x, y])
            for _ in range(2):  # as the kernel goes back
                x, y = straight - (distortion.straightened(np.array([[x, y]]), known)[0] - (x, y))
        plane = planes[plane_of[(j + y0) % 2, (i + x0) % 2]].astype(float)
        if 2.01 < x < 116.9 and 2.01 < y < 86.9:
            assert warped[j, i] == pytest.approx(lanczos_reference(plane, x, y), abs=error)
            n += 1
    assert n > 4000


@pytest.mark.parametrize(
    ("pattern", "shift"), [(None, (0, 0)), (None, (4, -6)), (None, (-11, 3)), ("GRBG", (0, 0)), ("GRBG", (4, -6))]
)
def test_warp__whole_pixels_move_bit_by_bit(pattern, shift):
    image = np.random.default_rng(2).normal(100, 10, (60, 80)).astype(np.float32)
    warped, _, (y0, x0, h, w) = warp(image, np.array([[1, 0, shift[1]], [0, 1, shift[0]]], float), pattern)
    there = warped[shift[0] - y0 : shift[0] - y0 + 60, shift[1] - x0 : shift[1] - x0 + 80]
    np.testing.assert_array_equal(there, image)


@pytest.mark.parametrize("angle", [0.3, 37, 180])
def test_warp__keeps_surface_brightness_and_flux(angle):
    # Stars of FWHM 3 px on a slope; scale 1, so the flux of a star is that of its pixels.
    y, x = np.mgrid[:200, :200]
    image = np.zeros((200, 200))
    image[60, 70], image[120, 130] = 1e5, 4e4
    image = gaussian_filter(image, 3 / 2.355) + 10 + 0.01 * x + 0.02 * y
    transform = turned(angle, (0.4, 0.7))
    warped, _, (y0, x0, h, w) = warp(image.astype(np.float32), transform)
    jj, ii = np.mgrid[:h, :w]
    px, py = geometry.apply(geometry.inverse(transform), np.column_stack([(ii + x0).ravel(), (jj + y0).ravel()])).T
    slope = (10 + 0.01 * px + 0.02 * py).reshape(h, w)
    for x_star, y_star, flux in ((70, 60, 1e5), (130, 120, 4e4)):
        cx, cy = geometry.apply(transform, np.array([[x_star, y_star]], float))[0]
        near = np.hypot(ii + x0 - cx, jj + y0 - cy) < 14
        light = np.where(near, warped - slope, 0)
        assert light.sum() == pytest.approx(flux, rel=5e-4)
        assert (light * (ii + x0)).sum() / light.sum() == pytest.approx(cx, abs=0.005)
        assert (light * (jj + y0)).sum() / light.sum() == pytest.approx(cy, abs=0.005)


def star(x, y, fwhm, profile):
    """A star of flux 1 at points x, y from its middle."""
    r2 = x**2 + y**2
    if profile == "gauss":
        s2 = (fwhm / 2.3548) ** 2
        return np.exp(-r2 / (2 * s2)) / (2 * np.pi * s2)
    a2 = fwhm**2 / (4 * (2 ** (1 / 3) - 1))
    return 2 / (np.pi * a2) * (1 + r2 / a2) ** -3


@pytest.mark.parametrize("profile", ["gauss", "moffat"])
@pytest.mark.parametrize("angle", [0.0, 0.4, 21, 45, 137])
def test_warp__stars_are_what_they_would_be_on_the_lattice(profile, angle):
    """Stars at all phases of the pixel, each against its own profile at the lattice pixels."""
    rng = np.random.default_rng(9)
    transform = turned(angle, (0.37, 0.61))
    y, x = np.mgrid[:200, :200].astype(float)
    places = np.array([(40 * i + 30, 40 * j + 30) for i in range(4) for j in range(4)]) + rng.uniform(0, 1, (16, 2))
    image = sum(1e5 * star(x - px, y - py, 2.7, profile) for px, py in places)
    warped, _, (y0, x0, h, w) = warp((image + 500).astype(np.float32), transform)
    j, i = np.mgrid[y0 : y0 + h, x0 : x0 + w].astype(float)
    moved = geometry.apply(transform, places)
    expected = sum(1e5 * star(i - px, j - py, 2.7, profile) for px, py in moved)
    for px, py in moved:
        near = np.hypot(i - px, j - py) < 9
        light, true = (warped - 500)[near], expected[near]
        if profile == "gauss":  # the cusp of a Moffat profile that no pixel has smoothed is too fine for any six taps
            assert np.abs(light - true).max() < 0.01 * true.max()
        assert light.sum() == pytest.approx(true.sum(), rel=1e-3)
        for axis in (i[near], j[near]):
            assert (light * axis).sum() / light.sum() == pytest.approx((true * axis).sum() / true.sum(), abs=0.005)


@pytest.mark.parametrize("pattern", [None, "GRBG"])
@pytest.mark.parametrize("shift", [(3.3, -2.6), (0.5, 0.0), (0.0, 7.25)])
def test_warp__a_shift_equals_the_general_way(pattern, shift):
    image = np.random.default_rng(6).normal(100, 10, (90, 110)).astype(np.float32)
    image[40:43, 50:53] = 70000
    one = np.array([[1, 0, shift[1]], [0, 1, shift[0]]])
    # Turned by 1e-4: 0.005 px at the rim, too much to be taken for a shift.
    other = one + np.array([[0, -1e-4, 0], [1e-4, 0, 0]])
    (a, sa, box), (b, sb, other_box) = (warp(image, t, pattern, saturation=65000) for t in (one, other))
    h, w = min(box[2], other_box[2]), min(box[3], other_box[3])
    a, b = (
        part[box_y : box_y + h - 4, box_x : box_x + w - 4] for part, box_y, box_x in ((a, box[0] * 0, 0), (b, 0, 0))
    )
    dy, dx = other_box[0] - box[0], other_box[1] - box[1]
    assert abs(dy) <= 2 and abs(dx) <= 2
    a = a[max(dy, 0) : a.shape[0] + min(dy, 0), max(dx, 0) : a.shape[1] + min(dx, 0)]
    b = b[max(-dy, 0) : b.shape[0] + min(-dy, 0), max(-dx, 0) : b.shape[1] + min(-dx, 0)]
    both = np.isfinite(a) & np.isfinite(b)
    assert both.mean() > 0.8
    assert np.abs(a - b)[both].max() < 0.01 * 70000 and np.median(np.abs(a - b)[both]) < 0.1
    assert sa.sum() == sb.sum() > 8


@pytest.mark.parametrize("scale", [0.5, 0.7, 1.4, 2.0])
@pytest.mark.parametrize("angle", [0, 33])
def test_warp__other_scales_keep_flux_and_bring_no_false_detail(scale, angle):
    """Scale of the lattice over the frame: below 1 the frame's pixels are finer."""
    y, x = np.mgrid[:240, :240]
    fwhm = 2.6 / min(scale, 1)
    image = np.zeros((240, 240))
    for cx, cy, flux in ((90.3, 100.8, 1e5), (150.1, 140.6, 5e4)):
        s2 = (fwhm / 2.355) ** 2
        image += flux / (2 * np.pi * s2) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * s2))
    stripes = 50 * np.cos(np.pi * x)  # the finest detail of the frame
    transform = turned(angle, (1.3, 2.4), scale, size=240)
    plain, _, (y0, x0, h, w) = warp((image + 20).astype(np.float32), transform)
    striped, _, _ = warp((image + 20 + stripes).astype(np.float32), transform)
    jj, ii = np.mgrid[:h, :w]
    for cx, cy, flux in ((90.3, 100.8, 1e5), (150.1, 140.6, 5e4)):
        px, py = geometry.apply(transform, np.array([[cx, cy]]))[0]
        near = np.hypot(ii + x0 - px, jj + y0 - py) < 12 * max(scale, 1)
        light = np.where(near, plain - 20, 0)
        assert np.isfinite(light).all()
        assert light.sum() == pytest.approx(flux * scale**2, rel=2e-3)  # surface brightness times the lattice's area
        assert (light * (ii + x0)).sum() / light.sum() == pytest.approx(px, abs=0.01)
    if scale <= 0.7:
        known = np.isfinite(striped)
        assert np.abs(striped - plain)[known].max() < 50 * (0.02 if scale == 0.5 else 0.2)


def test_warp__takes_a_distortion_out():
    rng = np.random.default_rng(7)
    lens = {"centre": [99.5, 99.5], "length": 100.0, "coefficients": rng.normal(0, 1.5, (7, 2)).tolist()}
    y, x = np.mgrid[:200, :200]
    image, true = np.zeros((200, 200)), []
    for cx, cy in rng.uniform(30, 170, (12, 2)):
        image += 1e4 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 4)
        true.append([cx, cy])
    transform = turned(20, (4.4, 5.5))
    warped, _, (y0, x0, h, w) = warp(image.astype(np.float32), transform, lens=lens)
    expected = geometry.apply(transform, distortion.straightened(np.array(true), lens))
    jj, ii = np.mgrid[:h, :w]
    light = np.nan_to_num(warped)
    for px, py in expected:
        near = np.hypot(ii + x0 - px, jj + y0 - py) < 4
        part = light * near
        assert (part * (ii + x0)).sum() / part.sum() == pytest.approx(px, abs=0.15)
        assert (part * (jj + y0)).sum() / part.sum() == pytest.approx(py, abs=0.15)


def test_distortion__is_found_where_there_is_one_and_only_there():
    rng = np.random.default_rng(8)
    lens = {"centre": [539.5, 959.5], "length": 960.0, "coefficients": rng.normal(0, 1.0, (7, 2)).tolist()}
    points = rng.uniform(0, [1080, 1920], (300, 2))
    variance = np.full(300, 0.1**2)
    noise = rng.normal(0, 0.1, (300, 2))
    assert distortion.fit(points, noise, variance, (1920, 1080)) is None
    assert distortion.fit(points[:50], noise[:50] * 9, variance[:50], (1920, 1080)) is None
    found = distortion.fit(
        points, distortion.terms(points, lens) @ np.array(lens["coefficients"]) + noise, variance, (1920, 1080)
    )
    # All but what a plane takes over, which is each frame's own transform.
    left = distortion.straightened(points, found) - distortion.straightened(points, lens)
    plane = np.column_stack([np.ones(300), points])
    left -= plane @ np.linalg.lstsq(plane, left, rcond=None)[0]
    assert np.hypot(*left.T).max() < 0.1


def test_warp__takes_nothing_from_behind_the_kernel():
    # A row of the kernel is read as eight pixels, of which six count: neither NaN nor the end of the memory may matter.
    rng = np.random.default_rng(4)
    image = rng.normal(100, 10, (40, 50)).astype(np.float32)
    transform = turned(3, (0.37, -0.61), size=45)
    warped, _, (y0, x0, *_) = warp(image, transform)
    wider = np.full((60, 70), np.nan, np.float32)
    wider[:40, :50] = image
    other, _, (y1, x1, *_) = warp(wider, transform)
    known = np.argwhere(np.isfinite(other)) + (y1 - y0, x1 - x0)
    for (j, i), value in zip(known, other[np.isfinite(other)], strict=True):
        assert warped[j, i] == pytest.approx(value, rel=2e-6)
    places = geometry.apply(geometry.inverse(transform), known[:, ::-1] + np.array([x0, y0], float))
    assert places.max(0).tolist() == pytest.approx([47, 37], abs=0.5)  # three pixels right of and above a place
    assert len(known) == np.isfinite(warped).sum()


@pytest.mark.parametrize("angle", [0.0, 1, 12, 77, 90, 135, 180, 270])
def test_warp__reaches_all_that_the_frame_covers(angle):
    transform = turned(angle, (0.37, -0.61))
    warped, _, (y0, x0, h, w) = warp(np.full((200, 150), 7, np.float32), transform)
    y, x = np.mgrid[y0 : y0 + h, x0 : x0 + w]
    places = geometry.apply(geometry.inverse(transform), np.column_stack([x.ravel(), y.ravel()]).astype(float))
    inside = ((places >= 2) & (places < [147, 197])).all(1).reshape(h, w)
    near = (np.abs(places - np.array([[2, 2]])) < 1e-6) | (np.abs(places - np.array([[147, 197]])) < 1e-6)
    sure = ~near.any(1).reshape(h, w)
    assert np.isfinite(warped[sure & inside]).all()
    assert np.isnan(warped[sure & ~inside]).all()


def test_warp__no_data_stays_no_data():
    image = np.full((60, 60), 5, np.float32)
    image[30, 30] = np.nan
    warped, _, (y0, x0, *_) = warp(image, np.array([[1, 0, 0.5], [0, 1, 0.5]]))
    assert np.isnan(warped[30 - y0, 30 - x0]) and np.isfinite(warped[38 - y0, 38 - x0])
    # Nothing where the kernel has left the frame, all around.
    assert np.isnan(warped[[0, -1]]).all() and np.isnan(warped[:, [0, -1]]).all()


def test_warp__marks_saturated_cores_and_keeps_their_ringing_out():
    y, x = np.mgrid[:80, :80]
    star = 2e5 * np.exp(-((x - 40) ** 2 + (y - 40) ** 2) / 4) + 100
    image = np.minimum(star, 60000).astype(np.float32)
    transform = np.array([[1, 0, 0.3], [0, 1, 0.4]])
    plain, _, _ = warp(image, transform)
    held, saturated, _ = warp(image, transform, saturation=59000)
    assert plain[np.isfinite(plain)].max() > 61000 and held[np.isfinite(held)].max() <= 60000
    assert 4 <= saturated.sum() < 60 and (held[saturated] > 30000).all()
    far = np.isfinite(plain) & (np.hypot(*np.indices(plain.shape) - 41) > 9)
    np.testing.assert_array_equal(plain[far], held[far])


@pytest.mark.parametrize("pattern", bayer.PATTERNS)
def test_demosaic__equals_malvar(pattern):
    raw = np.random.default_rng(3).uniform(0, 1, (40, 50)).astype(np.float32)
    expected = demosaicing_CFA_Bayer_Malvar2004(raw, pattern)
    found = kernel.demosaic(raw, bayer.channel_cell(pattern))
    np.testing.assert_allclose(found[:, 2:-2, 2:-2], np.moveaxis(expected, -1, 0)[:, 2:-2, 2:-2], atol=1e-6)


def test_replace_defects__takes_neighbours_of_the_same_colour():
    image = np.tile([[100.0, 200.0], [300.0, 400.0]], (10, 10)).astype(np.float32)
    image[6, 7], image[6, 9] = 60000, 0
    kernel.replace_defects(image, np.array([[6, 7], [6, 9]]), 2)
    np.testing.assert_array_equal(image, np.tile([[100.0, 200.0], [300.0, 400.0]], (10, 10)))


@pytest.mark.parametrize("pattern", [None, "GRBG"])
@pytest.mark.parametrize("step_adu", [0, 16])
def test_sky_mesh__measures_level_and_noise(pattern, step_adu):
    rng = np.random.default_rng(4)
    cell = bayer.channel_cell(pattern)
    level, sigma = np.array([840.0, 995.0, 790.0])[: cell.max() + 1], np.array([77.0, 89.0, 73.0])[: cell.max() + 1]
    image = rng.normal(np.tile(level[cell], (128, 160)), np.tile(sigma[cell], (128, 160)))
    image += np.linspace(0, 20, 320)[None]  # a gradient is no noise
    image[20:23, 20:23] += 5000  # a star is no sky
    image = (step_adu * np.floor(image / step_adu) + step_adu / 2 if step_adu else image).astype(np.float32)
    image[:, :70] = np.nan
    origin, found, noise = clipping.sky_mesh(image, cell, 6, -70, 64)
    assert origin == (0, -2) and np.isnan(found[:, :, 0]).all()
    inner = np.isfinite(found)
    columns = np.arange(-2, found.shape[2] - 2) * 64 + 31.5 + 70
    expected = level[:, None, None] + np.clip(columns, 35, 300)[None, None] / 16 + 0 * found
    assert np.abs(found - expected)[inner].max() < 12
    assert np.abs(np.nanmean(found - expected, axis=(1, 2))).max() < 1.5
    truth = np.hypot(sigma, step_adu / 12**0.5)
    np.testing.assert_allclose(np.nanmean(noise, axis=(1, 2)), truth, rtol=0.02)
    raw = clipping.noise_mesh(image, cell, 64)
    np.testing.assert_allclose(np.nanmean(raw, axis=(1, 2)), truth, rtol=0.02)


def test_quantise__is_right_to_half_a_step_and_keeps_its_marks():
    image = np.random.default_rng(5).uniform(-50, 60000, (30, 40)).astype(np.float32)
    image[3, 4] = np.nan
    saturated = np.zeros(image.shape, bool)
    saturated[7, 8] = True
    low, high = np.nanmin(image), np.nanmax(image)
    scale = (high - low) / prewarp.CODES
    zero = low + 32767 * scale
    codes = kernel.quantise(image, saturated, zero, scale)
    assert codes[3, 4] == -32768 and codes[7, 8] == 32767 and (codes == 32767).sum() == 1
    good = np.isfinite(image) & ~saturated
    assert np.abs(zero + scale * codes - image)[good].max() <= 0.51 * scale


@pytest.mark.parametrize("step", [1, 2])
def test_looked_through__gives_extent_and_mean_squared_gradient(step):
    image = np.random.default_rng(12).normal(100, 10, (71, 53)).astype(np.float32)
    image[:, :3] = np.nan
    image[40, 20] = np.nan
    known = np.isfinite(image)
    n, low, high, energy = kernel.looked_through(image, step)
    assert (n, low, high) == (known.sum(), image[known].min(), image[known].max())
    by_y, by_x = ((image[2 * step :] - image[: -2 * step]) / (2 * step) for image in (image, image.T))
    squares = by_y[:, step:-step] ** 2 + by_x.T[step:-step] ** 2
    assert energy == pytest.approx(np.nanmean(squares), rel=1e-6)
    n, low, high, energy = kernel.looked_through(np.full((5, 7), np.nan, np.float32), step)
    assert n == 0 and np.isnan([low, high, energy]).all()


def test_prewarp__codes_add_less_than_a_thousandth_of_the_noise_also_where_most_of_a_frame_is_a_cluster():
    rng = np.random.default_rng(13)
    sigma, shape = 10.0, (768, 768)
    stars = np.zeros(shape)
    stars[rng.integers(0, 600, 20000), rng.integers(0, 768, 20000)] = rng.exponential(8000, 20000)
    image = (900 + gaussian_filter(stars, 1.2) + rng.normal(0, sigma, shape)).astype(np.float32)
    session = {"bayer_pattern": None, "defects": {"y": [], "x": []}, "distortion": None, "saturation_adu": None}
    lattice = {"bayer_pattern": None, "mesh_px": 64}
    frame = {"transform": turned(1.0, (0.37, -0.61), size=768).tolist()}
    entry, _ = prewarp._prewarp(lambda: image, frame, session, lattice, cfa="demosaic", cosmetic=True)
    noise = np.array(entry["pixel_noise"], float)
    assert np.nanmedian(noise) > 3 * sigma  # most cells show stars
    assert entry["scale"] ** 2 / 12 < 1e-3 * (0.6 * sigma) ** 2  # between four raw pixels noise is least


def unpacked(bands, shape):
    """Codes of a frame from what ``spans.pack`` made of bands of its rows."""
    codes, y = np.empty(shape, np.int16), 0
    for stream, starts, first, end in bands:
        spans.unpack(stream, starts, first, end, 0, codes[y : y + len(first)])
        y += len(first)
    return codes


@pytest.mark.parametrize("sigma", [0.0, 10.0, 200.0])
def test_prewarp__saturated_pixels_stand_for_the_brightest_value_and_no_pixel_leaves_the_codes(sigma):
    rng = np.random.default_rng(14)
    y, x = np.mgrid[:256, :256]
    star = 9e5 * np.exp(-((x - 100.3) ** 2 + (y - 140.6) ** 2) / 8)
    image = np.minimum(1000 + star + rng.normal(0, sigma, (256, 256)), 60000).astype(np.float32)
    session = {"bayer_pattern": None, "defects": {"y": [], "x": []}, "distortion": None, "saturation_adu": 60000.0}
    lattice = {"bayer_pattern": None, "mesh_px": 64}
    frame = {"transform": turned(1.0, (0.37, -0.61), size=256).tolist()}
    entry, bands = prewarp._prewarp(lambda: image, frame, session, lattice, cfa="demosaic", cosmetic=False)
    codes = unpacked(bands, entry["box"][2:])
    values = entry["zero"] + entry["scale"] * codes.astype(float)
    known, saturated = codes != -32768, codes == 32767
    assert saturated.sum() == entry["n_saturated"] > 10
    assert values[saturated] == pytest.approx(60000, abs=2 * entry["scale"] + 1)
    assert values[known & ~saturated].max() <= 60000 + entry["scale"]
    assert values[known & ~saturated].max() > 45000
    assert 900 - 6 * sigma < values[known & ~saturated].min() < 1001
