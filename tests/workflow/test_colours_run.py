"""Drizzled products: finer grids, mono lights, lights in other containers, and what a change of them reruns."""

import numpy as np
import pytest
import sep
from astropy.io import fits
from astropy.wcs import WCS

from support import ADDED_UP, Workdir, pixels, record, simulate, stamps

# What is made of raw pixels for colours, and what is added up from it.
SUMS = {"sums", "flat", "drizzled", "flat_drizzled", "synthetic", *ADDED_UP}


def apertures(image, xy, radius):
    """Fluxes less the sky around."""
    plane = np.ascontiguousarray(np.nan_to_num(image, nan=np.nanmedian(image)), np.float32)
    return sep.sum_circle(plane, *xy.T.copy(), radius, subpix=5, bkgann=(1.4 * radius, 2 * radius))[0]


def bright_stars(plane, n):
    """Places of the brightest stars away from the rims."""
    filled = np.ascontiguousarray(np.nan_to_num(plane, nan=np.nanmedian(plane)), np.float32)
    background = sep.Background(filled)
    found = sep.extract(filled - background.back(), 10, err=background.globalrms)
    h, w = plane.shape
    inner = (found["x"] > 60) & (found["x"] < w - 60) & (found["y"] > 60) & (found["y"] < h - 60)
    found = found[inner & (found["peak"] < 30000)]
    found = found[np.argsort(-found["flux"])][:n]
    return np.column_stack([found["x"], found["y"]])


def sky_of(header):
    """Coordinates without the dates, of which wcslib says at length that it understands them."""
    return WCS(fits.Header([card for card in header.cards if not card.keyword.startswith("DATE")]), naxis=2)


def test_run__twice_as_fine_a_grid_has_the_same_light(copied):
    work, run = copied, copied.run
    before, coarse = stamps(run / "work"), pixels(run, "stacked_rgb.fits")["PRIMARY"]
    header, was = fits.getheader(run / "outputs/stacked_rgb.fits"), record(run, "astrometry")
    work.snakemake("--config", "drizzle={scale: 2}")
    made = record(run, "debayer")
    assert (made["method"], made["scale"]) == ("drizzle", 2)
    fine, finer = pixels(run, "stacked_rgb.fits")["PRIMARY"], fits.getheader(run / "outputs/stacked_rgb.fits")
    assert fine.shape == (3, 2 * coarse.shape[1], 2 * coarse.shape[2])
    for key, factor in (("XPIXSZ", 0.5), ("YPIXSZ", 0.5), ("LATTX0", 2), ("LATTY0", 2), ("FWHM", 2)):
        if key in header:
            assert finer[key] == pytest.approx(factor * header[key])
    xy = bright_stars(coarse[1], 8)
    assert len(xy) == 8
    for plain, double in zip(coarse, fine, strict=True):
        one, other = apertures(plain, xy, 6.0), apertures(double, 2 * xy + 0.5, 12.0) / 4
        assert np.median(other / one) == pytest.approx(1, abs=0.02)
    # Sky coordinates are found anew, for pixels half as large, and put each star where they did before.
    solved = record(run, "astrometry")
    assert solved["scale_arcsec"] == pytest.approx(was["scale_arcsec"] / 2, rel=1e-3)
    assert solved["lattice_scale_arcsec"] == pytest.approx(was["lattice_scale_arcsec"], rel=1e-3)
    for name in ("stacked_rgb", "stacked_rgb_bge", "stacked_rgb_pcc", "planes/bge_model"):
        wcs = sky_of(fits.getheader(run / f"outputs/{name}.fits"))
        apart = wcs.all_pix2world(2 * xy + 0.5, 0) - sky_of(header).all_pix2world(xy, 0)
        assert np.hypot(apart[:, 0] * np.cos(np.radians(was["dec_deg"])), apart[:, 1]).max() * 3600 < 0.5, name
    assert record(run, "bge")["status"] == "ok"
    # The same lights, places and weights: only what is drizzled is made again.
    after = stamps(run / "work")
    changed = {path.parts[0] for path in before if after[path] != before[path]}
    assert changed == SUMS


def test_run__drizzles_mono_lights_by_choice_and_reads_any_container(tmp_path):
    for name in ("plain", "packed"):
        simulate(tmp_path / name, "--mono", "--seed", "31")
    for path in sorted((tmp_path / "packed").glob("*.fits"))[::2]:  # every other one compressed
        with fits.open(path) as hdus:
            packed = fits.CompImageHDU(hdus[0].data, hdus[0].header)
            fits.HDUList([fits.PrimaryHDU(), packed]).writeto(path.with_suffix(".fits.fz"))
        path.unlink()
    images = []
    for name in ("plain", "packed"):
        work = Workdir(tmp_path / f"of_{name}")
        work.root.mkdir()
        keys = ["run_id=t", f"input=[{tmp_path / name}]", "drizzle={mono: true, scale: 2, kernel: turbo}"]
        work.stack("--config", *keys)
        run = work.root / "runs/t"
        assert record(run, "debayer")["why"] == "mono lights, drizzled by choice"
        images.append(pixels(run, "unsolved/stacked_rgb.fits"))
    for key, plane in images[0].items():
        np.testing.assert_array_equal(plane, images[1][key])
    fine, coarse = images[0]["PRIMARY"], pixels(run, "unsolved/stacked.fits")["PRIMARY"]
    assert fine.shape == (2 * coarse.shape[0], 2 * coarse.shape[1])
    xy = bright_stars(coarse, 8)
    one, other = apertures(coarse, xy, 6.0), apertures(fine, 2 * xy + 0.5, 12.0) / 4
    assert len(xy) == 8 and np.median(other / one) == pytest.approx(1, abs=0.02)
    # Halves of equal frames differ by twice the standard deviation of the whole, by the median for the stars' sake.
    planes = pixels(run, "unsolved/stacked_rgb.fits")
    even, odd = (pixels(run, f"unsolved/planes/{half}_rgb.fits")["PRIMARY"] for half in ("even", "odd"))
    full = (planes["NIM"] >= 8) & (planes["MASK"] == 0)
    ratio = np.abs(even - odd)[full] / (2 * np.sqrt(planes["VAR"][full]))
    assert full.mean() > 0.5 and np.nanmedian(ratio) / 0.6745 == pytest.approx(1, abs=0.08)


def test_run__cut_to_what_most_frames_cover_keeps_the_mosaic_in_phase(copied):
    work, run = copied, copied.run
    before, header = pixels(run, "stacked_rgb.fits"), fits.getheader(run / "outputs/stacked.fits")
    work.snakemake("--config", "stacking={crop_coverage: 0.8}")
    made, cut = pixels(run, "stacked_rgb.fits"), fits.getheader(run / "outputs/stacked.fits")
    assert cut["BAYERPAT"] == header["BAYERPAT"]
    y, x = cut["LATTY0"] - header["LATTY0"], cut["LATTX0"] - header["LATTX0"]
    assert y % 2 == x % 2 == 0 and (y, x) != (0, 0)
    for name, plane in made.items():
        h, w = plane.shape[1:]
        np.testing.assert_array_equal(plane, before[name][:, y : y + h, x : x + w])


def test_run__superpixels_go_through_all_phases(copied, finished):
    work, run = copied, copied.run
    work.snakemake("--config", "debayer={method: superpixel}")
    mosaic, made = pixels(run), pixels(run, "stacked_rgb.fits")
    header, of_mosaic = (fits.getheader(run / f"outputs/{name}.fits") for name in ("stacked_rgb", "stacked"))
    h, w = (n // 2 for n in mosaic["PRIMARY"].shape)
    assert {plane.shape[-2:] for plane in made.values()} == {(h, w)}
    assert header["XPIXSZ"] == 2 * of_mosaic["XPIXSZ"] and header["LATTX0"] == of_mosaic["LATTX0"] / 2
    greens = [k for k, letter in enumerate(of_mosaic["BAYERPAT"]) if letter == "G"]
    cut = [mosaic["PRIMARY"][k // 2 : 2 * h : 2, k % 2 : 2 * w : 2] for k in greens]
    known = np.isfinite(made["PRIMARY"][1])
    assert known.mean() > 0.5
    np.testing.assert_allclose(made["PRIMARY"][1][known], np.mean(cut, axis=0)[known], rtol=1e-6)
    assert record(run, "run_status")["status"] == record(run, "validation")["status"]
    assert record(run, "astrometry")["status"] == record(finished.run, "astrometry")["status"]


def test_run__colours_have_sums_by_cluster_only_where_the_stack_needs_them(copied):
    work, run = copied, copied.run
    (path,) = run.glob("work/drizzled/*/*.fits")
    work.snakemake("--config", "state_clustering={enabled: always}")
    assert record(run, "stacking")["source"] == "synthetic" and fits.getval(path, "CLUSTERS") == ""
    plain = pixels(run, "stacked_rgb.fits"), pixels(run, "planes/even_rgb.fits")
    # A factor that changes nothing, and so does the combination.
    work.snakemake("--config", "stacking={cluster_quality_kappa: 1e-9}")
    assert len(fits.getval(path, "CLUSTERS").split()) >= 2
    combined = pixels(run, "stacked_rgb.fits"), pixels(run, "planes/even_rgb.fits")
    for one, other in zip(plain, combined, strict=True):
        assert one.keys() == other.keys()
        for name, plane in one.items():
            np.testing.assert_allclose(other[name], plane, rtol=2e-6, atol=1e-6, err_msg=name)
