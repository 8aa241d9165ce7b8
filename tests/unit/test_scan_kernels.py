import numpy as np
import pytest

from tilestack.kernels import scan


@pytest.mark.parametrize("shape", [(6, 8), (7, 9), (1, 5)])
def test_binned__are_means_of_2x2_pixels_and_nan_where_one_is(shape):
    image = np.random.default_rng(3).normal(1000, 30, shape).astype(np.float32)
    image[0, -1] = np.nan
    h, w = (n // 2 * 2 for n in shape)
    expected = image[:h, :w].astype(float).reshape(h // 2, 2, w // 2, 2).mean((1, 3))
    np.testing.assert_allclose(scan.binned(image), expected, rtol=1e-6)
    assert np.isnan(scan.binned(image)).sum() == (1 if shape == (6, 8) else 0)
    with pytest.raises(ValueError, match=r"\(3, 4, 5\)"):
        scan.binned(np.zeros((3, 4, 5), np.float32))


def test_levels__are_those_of_numpy():
    image = np.random.default_rng(4).normal(0, 100, (41, 53)).astype(np.float32)
    image[3, 4:9], image[20], image[30, :2], image[31, 5] = np.nan, np.inf, 0.0, -0.0
    image[[7, 8, 9], [1, 2, 3]] = 1000.0
    known = image[np.isfinite(image)]
    expected = (image.size - known.size, 3, known.min(), 1000.0, 3)
    assert scan.levels(image) == expected
    assert scan.levels(-np.abs(np.nan_to_num(image, posinf=0)))[2:4] == (-1000.0, 0.0)
    assert np.isnan(scan.levels(np.full((4, 5), np.nan, np.float32))[2:4]).all()


@pytest.mark.parametrize("zero", [0, 32768])
def test_decode__gives_the_numbers_that_fits_stores(zero):
    values = np.random.default_rng(5).integers(-32768, 32768, 1001).astype(">i2")
    values[:2] = -32768, 32767
    found = np.empty(1001, np.float32)
    scan.decode(values.view("<u2"), zero, found)
    np.testing.assert_array_equal(found, values.astype(float) + zero)
    with pytest.raises(ValueError, match=">i2"):
        scan.decode(values, zero, found)
    with pytest.raises(ValueError, match="1000"):
        scan.decode(values[:1000].view("<u2"), zero, found)


def test_sky_of_blocks__is_the_lower_median_of_every_other_pixel_with_data():
    rng = np.random.default_rng(11)
    binned = rng.normal(1000, 15, (70, 100)).astype(np.float32)
    binned[rng.random(binned.shape) < 0.01] = 60000
    binned[rng.random(binned.shape) < 0.1] = np.nan
    binned[32:64, 64:96] = np.nan
    binned[:32, 32:64] = 7
    sky = scan.sky_of_blocks(binned, 32)
    assert sky.shape == (2, 3) and np.isnan(sky[1, 2])
    for j, i in np.ndindex(2, 3):
        values = binned[32 * j : 32 * j + 32 : 2, 32 * i : 32 * i + 32 : 2]
        values = np.sort(values[np.isfinite(values)])
        if len(values):
            assert sky[j, i] == pytest.approx(values[(len(values) - 1) // 2], abs=0.06)
