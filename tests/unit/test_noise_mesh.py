import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tilestack import bayer
from tilestack.kernels import clipping as kernel

GAIN_E_PER_ADU, READ_ADU, SKY_ADU = 0.9, 4.0, np.array([300.0, 420.0, 260.0])


def light(rng, pattern, stars_per_px, shape=(768, 768)):
    """A light of sky and stars with photon and read noise, and the noise of its sky by channel.

    Counts of stars go with 1 / flux, the faintest with a peak of 2 sigma: 0.002 a pixel are 4000 on a Seestar's 2 MP.
    """
    cell = bayer.channel_cell(pattern)
    sky = np.tile(SKY_ADU[cell], (shape[0] // 2, shape[1] // 2))
    stars, n = np.zeros(shape), rng.poisson(stars_per_px * shape[0] * shape[1])
    flux = np.minimum(300 / rng.uniform(size=n), 2e5)
    np.add.at(stars, (rng.integers(0, shape[0], n), rng.integers(0, shape[1], n)), flux)
    stars = gaussian_filter(stars, 2.6 / 2.355)
    image = rng.poisson((sky + stars) * GAIN_E_PER_ADU) / GAIN_E_PER_ADU + rng.normal(0, READ_ADU, shape)
    return image.astype(np.float32), cell, np.sqrt(SKY_ADU / GAIN_E_PER_ADU + READ_ADU**2)[: cell.max() + 1]


@pytest.mark.parametrize("pattern", [None, "RGGB", "GRBG"])
@pytest.mark.parametrize(("stars_per_px", "error"), [(0, 0.01), (0.002, 0.015)])
def test_noise_mesh__is_the_noise_of_the_sky_between_stars(pattern, stars_per_px, error):
    for seed in range(3):
        image, cell, truth = light(np.random.default_rng(seed), pattern, stars_per_px)
        noise = kernel.noise_mesh(image, cell, 64)
        assert noise.shape == (len(truth), 12, 12) and np.isfinite(noise).all()
        np.testing.assert_allclose(noise.mean((1, 2)), truth, rtol=error)
        # Of about 1000 pairs in a cell, 500 of red: no cell is far off.
        np.testing.assert_allclose(noise, np.broadcast_to(truth[:, None, None], noise.shape), rtol=0.18)


def test_noise_mesh__knows_each_cell_and_no_more_than_it_sees():
    # A cloud over the right half, no data at the left rim, and cells that the frame cuts.
    rng = np.random.default_rng(4)
    image = rng.normal(500, 10, (200, 330)).astype(np.float32)
    image[:, 192:] = rng.normal(700, 15, (200, 138))
    image[:, :64] = np.nan
    image += np.linspace(0, 40, 330, dtype=np.float32)  # the sky is not flat
    noise = kernel.noise_mesh(image, np.zeros((2, 2), np.int64), 64)
    assert noise.shape == (1, 4, 6)
    assert np.isnan(noise[0, :, 0]).all() and np.isfinite(noise[0, :, 1:]).all()
    np.testing.assert_allclose(noise[0, :3, 1:3], 10, rtol=0.1)
    np.testing.assert_allclose(noise[0, :3, 3:5], 15, rtol=0.1)


def test_noise_mesh__says_what_does_not_fit():
    with pytest.raises(ValueError, match="even mesh >= 16"):
        kernel.noise_mesh(np.zeros((64, 64), np.float32), np.zeros((2, 2), np.int64), 33)


@pytest.mark.parametrize("step", [0.0, 1.0])
def test_noise_mesh__of_a_sky_without_noise_is_next_to_nothing_whatever_stars_there_are(step):
    """As of a clipped sky: most differences are 0, and all that are kept are within 1e-6 of their range."""
    y, x = np.indices((256, 256)) % 64
    image = (512 + 3000 * np.exp(-(y**2 + x**2) / 60) + step * (y // 32)).astype(np.float32)
    assert (kernel.noise_mesh(image, np.zeros((2, 2), np.int64), 64) < 1e-6 * 3000).all()


@pytest.mark.parametrize(
    "values", [[3.0], [5.0, 1.0], [2.0] * 9, [0.0] * 5 + [7.0] * 4, [1e9, 0.0, 1.0], list(range(99))]
)
def test_middle__is_the_lower_median(values):
    middle = kernel._middle.py_func(np.array(values, np.float32), kernel._room()[1])
    assert middle == np.sort(values)[(len(values) - 1) // 2]


def test_middle__is_one_of_the_values_and_next_to_the_median():
    rng = np.random.default_rng(6)
    for n in (10, 255, 511):
        values = np.append(rng.normal(100, 5, n), 1e4).astype(np.float32)
        middle = kernel._middle.py_func(values, kernel._room()[1])
        assert middle in values and abs(middle - np.sort(values)[n // 2]) <= 1e-6 * np.ptp(values)
