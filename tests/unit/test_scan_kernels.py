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
