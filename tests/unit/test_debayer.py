import numpy as np
import pytest
from colour_demosaicing import demosaicing_CFA_Bayer_bilinear, demosaicing_CFA_Bayer_Malvar2004

from tilestack import bayer
from tilestack.kernels import debayer


@pytest.mark.parametrize("pattern", bayer.PATTERNS)
@pytest.mark.parametrize(
    ("filters", "oracle"),
    [(debayer.MALVAR, demosaicing_CFA_Bayer_Malvar2004), (debayer.BILINEAR, demosaicing_CFA_Bayer_bilinear)],
)
def test_debayer__equals_the_published_filters(pattern, filters, oracle):
    mosaic = np.random.default_rng(1).uniform(0, 1, (40, 50)).astype(np.float32)
    image, _ = debayer.debayer(mosaic, np.ones_like(mosaic), bayer.channel_cell(pattern), filters)
    expected = np.moveaxis(oracle(mosaic, pattern), -1, 0)
    np.testing.assert_allclose(image[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], atol=1e-6)


@pytest.mark.parametrize("pattern", bayer.PATTERNS)
def test_debayer__constant_colour_stays_and_missing_pixels_are_bridged(pattern):
    colours, cell = np.array([300.0, 500.0, 200.0]), bayer.channel_cell(pattern)
    mosaic = np.tile(colours[cell], (20, 20)).astype(np.float32)
    mosaic[:, :9] = np.nan
    mosaic[20, 20] = np.nan
    image, variance = debayer.debayer(mosaic, np.ones_like(mosaic), cell, debayer.MALVAR)
    np.testing.assert_array_equal(np.isnan(image).all(0), np.isnan(mosaic))
    known = np.isfinite(image)
    np.testing.assert_allclose(image[known], np.broadcast_to(colours[:, None, None], image.shape)[known], rtol=1e-6)
    assert known[:, 2:-2, 11:-2].all(0).sum() == (~np.isnan(mosaic[2:-2, 11:-2])).sum()
    np.testing.assert_array_equal(np.isnan(variance), np.isnan(image))


def test_debayer__variance_is_that_of_the_image():
    rng = np.random.default_rng(2)
    cell = bayer.channel_cell("GRBG")
    sigma = np.tile(np.array([3.0, 2.0, 4.0])[cell], (10, 12)).astype(np.float32)
    images = np.stack(
        [
            debayer.debayer(rng.normal(0, sigma).astype(np.float32), sigma**2, cell, debayer.MALVAR)[0]
            for _ in range(3000)
        ]
    )
    _, variance = debayer.debayer(sigma, sigma**2, cell, debayer.MALVAR)
    np.testing.assert_allclose(images.var(0)[:, 2:-2, 2:-2], variance[:, 2:-2, 2:-2], rtol=0.15)


def test_superpixel__averages_the_greens():
    mosaic = np.arange(30, dtype=np.float32).reshape(5, 6)
    image, variance = debayer.superpixel(mosaic, np.ones_like(mosaic), bayer.channel_cell("GRBG"))
    assert image.shape == variance.shape == (3, 2, 3)
    assert image[0, 0, 1] == 3 and image[1, 1, 1] == (14 + 21) / 2 and image[2, 0, 0] == 6
    assert variance[1, 0, 0] == 0.5 and variance[0, 0, 0] == 1
