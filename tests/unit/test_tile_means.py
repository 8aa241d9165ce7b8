"""What TILE_RECONSTRUCTION says of each tile, against sums over the pixels of each tile of the whole image."""

import numpy as np
import pytest

from tilestack import masks, tiles


@pytest.mark.parametrize("band_rows", [7, 16, 128])
def test_means__are_those_over_the_pixels_of_each_tile(band_rows):
    rng = np.random.default_rng(21)
    canvas, stride, tile_range = (-5, 11, 61, 90), 16, (0, 1, 3, 5)  # beyond the outer tiles the nearest one counts
    shape = (2, *canvas[2:])
    planes = {name: rng.normal(0, 2, shape).astype(np.float32) for name in ("SCI", "MEAN", "SPLIT", "ETA")}
    planes |= {
        "VAR": rng.uniform(1, 2, shape).astype(np.float32),
        "NIM": rng.integers(0, 9, shape),
        "REJ": rng.integers(0, 3, shape),
    }
    planes["MASK"] = rng.choice([0, masks.DIFFERS, masks.SATURATED], shape).astype(np.int16)
    for name in ("SCI", "SPLIT", "ETA"):
        planes[name][planes["NIM"] == 0] = np.nan
    found = tiles.Means(tile_range, stride, canvas)
    for top in range(0, shape[1], band_rows):
        band = (canvas[0] + top, canvas[1], min(band_rows, shape[1] - top), canvas[3])
        found.add(band, {name: plane[:, top : top + band[2]] for name, plane in planes.items()})

    j = np.clip((canvas[0] + np.arange(61)) // stride - 0, 0, 2)
    i = np.clip((canvas[1] + np.arange(90)) // stride - 1, 0, 4)
    with np.errstate(invalid="ignore"):
        chi2 = planes["SPLIT"] ** 2 / planes["VAR"]
        quiet = chi2 < tiles.MOST_SIGMA**2
    difference = planes["SCI"] - planes["MEAN"]
    means = found.means()
    for ty, tx in np.ndindex(3, 5):
        mine = np.ix_([True, True], j == ty, i == tx)
        n = (planes["NIM"][mine] > 0).sum()
        assert means["mean_frames"][ty, tx] == pytest.approx(planes["NIM"][mine].sum() / n)
        seen = planes["NIM"][mine].sum() + planes["REJ"][mine].sum()
        assert means["rejected_share"][ty, tx] == pytest.approx(planes["REJ"][mine].sum() / seen)
        assert means["eta_sb"][ty, tx] == pytest.approx(np.nansum(planes["ETA"][mine], dtype=float) / n)
        assert means["split_chi2"][ty, tx] == pytest.approx(chi2[mine][quiet[mine]].mean(dtype=float))
        rows = difference[:, j == ty].astype(float)
        np.testing.assert_allclose(found.along_y[0, ty], np.nansum(rows, axis=(0, 1)), atol=1e-12)
        np.testing.assert_array_equal(found.along_y[1, ty], np.isfinite(rows).sum((0, 1)))
        columns = difference[:, :, i == tx].astype(float)
        np.testing.assert_allclose(found.along_x[0, :, tx], np.nansum(columns, axis=(0, 2)), atol=1e-12)
        np.testing.assert_array_equal(found.along_x[1, :, tx], np.isfinite(columns).sum((0, 2)))
    whole = found.whole()
    assert whole["differs_px"] == (planes["MASK"] == masks.DIFFERS).sum()
    assert whole["saturated_px"] == (planes["MASK"] == masks.SATURATED).sum()
