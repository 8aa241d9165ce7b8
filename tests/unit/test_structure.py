import numpy as np
import pytest
from scipy import ndimage

from tilestack.kernels import metrics

MONO, BAYER = np.zeros((2, 2), np.int64), np.array([[1, 0], [2, 1]])


def plain_sums(codes, scale, template, cell, box, tiles, tile, stride, step):
    """The sums tile by tile, band-pass by convolution."""
    near, ring = np.zeros((6 * step + 1,) * 2), np.zeros((6 * step + 1,) * 2)
    near[2 * step : 4 * step + 1 : step, 2 * step : 4 * step + 1 : step] = 1 / 9
    ring[:: 3 * step, :: 3 * step] = 1 / 8
    ring[3 * step, 3 * step] = 0
    values = np.where((codes == metrics.NO_DATA) | (codes == metrics.SATURATED), np.nan, codes * scale)
    values = ndimage.convolve(values, near - ring, mode="constant", cval=np.nan)
    y, x = np.mgrid[: box[2], : box[3]]
    channel = cell[(y + box[0]) % 2, (x + box[1]) % 2]
    known = np.isfinite(values * template)
    sums = np.zeros((4, cell.max() + 1, *tiles[2:]))
    for j, i in np.ndindex(*tiles[2:]):
        low_y = (tiles[0] + j) * stride + (stride - tile) // 2 - box[0]
        low_x = (tiles[1] + i) * stride + (stride - tile) // 2 - box[1]
        inside = known & (y >= low_y) & (y < low_y + tile) & (x >= low_x) & (x < low_x + tile)
        for c in range(len(sums[0])):
            v, t = values[inside & (channel == c)], template[inside & (channel == c)].astype(float)
            sums[:, c, j, i] = len(v), (v * t).sum(), (t * t).sum(), (v * v).sum()
    return sums


@pytest.mark.parametrize("cell", [MONO, BAYER])
@pytest.mark.parametrize(("tile", "stride"), [(16, 16), (32, 16), (22, 16), (10, 16), (40, 16)])
@pytest.mark.parametrize("box", [(-7, 3, 70, 91), (8, 11, 33, 40)])
def test_structure_sums__are_those_of_each_tile(cell, tile, stride, box):
    rng = np.random.default_rng(2)
    step = 2 if cell.max() else 1
    codes = rng.integers(-3000, 3000, box[2:]).astype(np.int16)
    codes[rng.random(codes.shape) < 0.003] = metrics.NO_DATA
    codes[rng.random(codes.shape) < 0.003] = metrics.SATURATED
    whole = rng.normal(0, 5, (box[2] + 9, box[3] + 6)).astype(np.float32)
    whole[rng.random(whole.shape) < 0.01] = np.nan
    # Some of the tiles reach over the rim, some hold nothing at all.
    tiles = (box[0] // stride - 2, box[1] // stride - 2, box[2] // stride + 5, box[3] // stride + 5)
    found = metrics.structure_sums(codes, 0.7, whole, (4, 2), cell, box, tiles, tile, stride, step)
    template = whole[4 : 4 + box[2], 2 : 2 + box[3]]
    expected = plain_sums(codes, 0.7, template, cell, box, tiles, tile, stride, step)
    assert (expected[0].sum(0) == 0).any() and (expected[0].sum(0) > 50).any()
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1:], expected[1:], rtol=1e-5, atol=1e-2)


def test_structure_sums__of_a_frame_beside_all_tiles_or_too_small_are_zero():
    codes, template = np.ones((20, 30), np.int16), np.ones((20, 30), np.float32)
    for tiles in ((50, 50, 3, 2), (0, 0, 2, 2)):
        size = 20 if tiles[0] else 5
        part = codes[:size], 1.0, template[:size]
        found = metrics.structure_sums(*part, (0, 0), MONO, (0, 0, size, 30), tiles, 16, 16, 1)
        assert found.shape == (4, 1, *tiles[2:]) and not found.any()


def test_structure_sums__need_a_template_around_the_frame():
    codes, template = np.ones((20, 30), np.int16), np.ones((20, 30), np.float32)
    with pytest.raises(ValueError, match=r"a template around it, got \(20, 30\), \(20, 30\), \(0, 1\)"):
        metrics.structure_sums(codes, 1.0, template, (0, 1), MONO, (0, 0, 20, 30), (0, 0, 1, 1), 16, 16, 1)
