"""The phases after the stack: sky coordinates, background, colours; continued alone, and repaired after a fault."""

import json
import os
import subprocess
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import skycatalogue
from support import ROOT, events, record, stamps
from tilestack import fieldstars

LATER = {"astrometry": ["astrometry", "bge", "pcc"], "bge": ["bge", "pcc"], "pcc": ["pcc"]}


@pytest.fixture(scope="module")
def run(finished):
    return finished.run


def quiet_header(path):
    """Header without its dates, of which wcslib says at length that it understands them."""
    header = fits.getheader(path)
    for key in ("DATE-OBS", "DATE-BEG", "DATE-AVG", "DATE-END"):
        header.pop(key, None)
    return header


def images(run):
    for path in sorted((run / "outputs").rglob("*.fits")):
        if "unsolved" not in path.parts:
            with fits.open(path) as hdus:
                for hdu in hdus:
                    for key in ("DATE-OBS", "DATE-BEG", "DATE-AVG", "DATE-END"):
                        hdu.header.pop(key, None)
                yield from (
                    (path, hdu.header.copy(), hdu.shape) for hdu in hdus if hdu.is_image and len(hdu.shape) >= 2
                )


def test_astrometry__stars_of_the_catalogue_stand_where_the_header_says(run):
    """Truth: the simulator's places of stars in the reference frame."""
    found = record(run, "astrometry")
    assert found["status"] == "ok" and found["solver"] == "seiza" and found["median_arcsec"] < 1
    truth = json.loads((run / "lights/truth/truth.json").read_text())
    transforms = {frame["file"]: np.array(frame["transform"]) for frame in truth["frames"]}
    transform = transforms[record(run, "registration")["reference"]]
    header = quiet_header(run / "outputs/stacked.fits")
    stars = {key: np.array(truth["stars"][key], float) for key in ("x", "y", "ra_deg", "dec_deg")}
    known = np.isfinite(stars["ra_deg"])
    plane = np.column_stack([stars["x"], stars["y"]])[known]
    true = (plane - transform[:, 2]) @ np.linalg.inv(transform[:, :2]).T - [header["LATTX0"], header["LATTY0"]]
    expected = WCS(header).all_world2pix(np.column_stack([stars["ra_deg"], stars["dec_deg"]])[known], 0)
    inside = ((true > 0) & (true < [header["NAXIS1"], header["NAXIS2"]])).all(1)
    assert np.median(np.hypot(*(expected - true)[inside].T)) < 0.3


def test_astrometry__is_in_every_header_and_in_the_wcs_files(run):
    middle = record(run, "astrometry")
    seen = 0
    for path, header, shape in images(run):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            wcs = WCS(header, naxis=2)
        assert wcs.wcs.ctype[0].startswith("RA---TAN"), path
        place = wcs.all_pix2world([[(shape[-1] - 1) / 2, (shape[-2] - 1) / 2]], 0)[0]
        assert place == pytest.approx([middle["ra_deg"], middle["dec_deg"]], abs=1e-6), path
        seen += 1
    assert seen > 30
    for name in ("stacked", "stacked_rgb"):
        alone, product = (fits.getheader(run / f"outputs/{name}.{kind}") for kind in ("wcs", "fits"))
        assert (alone["IMAGEH"], alone["IMAGEW"]) == (product["NAXIS2"], product["NAXIS1"])
        for key in ("CTYPE1", "CRVAL1", "CRPIX2", "CD1_2", "CD2_2"):
            assert alone[key] == product[key]


@pytest.mark.siril
def test_products__open_in_siril(run, tmp_path):
    products = {path: shape for path, header, shape in images(run) if not header.get("EXTNAME")}
    script = ["requires 1.0.0", *(f"load {path}" for path in products), "close"]
    (tmp_path / "load.ssf").write_text("\n".join(script))
    command = ["siril-cli", "-d", tmp_path, "-s", tmp_path / "load.ssf"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert done.returncode == 0 and len(products) >= 13, done.stdout
    for path, shape in products.items():
        layers = shape[0] if len(shape) == 3 else 1
        assert f"file {path.name}, {layers} layer(s), {shape[-1]}x{shape[-2]} pixels" in done.stdout, path


def test_products__pixels_are_those_that_stacking_and_debayer_wrote(run):
    for name in ("stacked.fits", "stacked_rgb.fits", "planes/even.fits"):
        with fits.open(run / "outputs" / name) as ours, fits.open(run / "outputs/unsolved" / name) as theirs:
            for one, other in zip(ours, theirs, strict=False):
                assert one.name == other.name and one.data.tobytes() == other.data.tobytes()


def test_background__is_what_was_subtracted(run):
    parts = [
        fits.getdata(run / "outputs" / name)
        for name in ("stacked_rgb.fits", "stacked_rgb_bge.fits", "planes/bge_model.fits")
    ]
    known = np.isfinite(parts[0])
    np.testing.assert_allclose((parts[0] - parts[1])[known], parts[2][known], atol=2e-3)
    assert np.nanmedian(parts[1], axis=(1, 2)) == pytest.approx(np.nanmedian(parts[0], axis=(1, 2)), rel=0.03)


def test_colours__stay_as_they_are_with_fewer_than_five_good_stars(run):
    """The field is small: most of its stars are faint, saturated or at the rim. Many: tests/unit/test_colourfit.py."""
    found = record(run, "pcc")
    assert found["n_stars"] < 5 and found["grade"] == "FAIL" and found["gains"] == [1, 1, 1]
    assert (found["status"], found["reason"]) == ("skipped", "too_few_stars") and sum(found["left_out"].values()) >= 5
    one, other = (fits.getdata(run / f"outputs/stacked_rgb_{name}.fits") for name in ("bge", "pcc"))
    np.testing.assert_array_equal(one, other)
    table = fits.getdata(run / "outputs/pcc_stars.fits", 1)
    assert (table["fault"] == "").sum() == found["n_stars"] and len(table) >= 10


def test_forcerun__continues_from_a_phase_and_nothing_earlier_runs(copied):
    work = copied
    for phase, expected in LATER.items():
        before = stamps(work.run)
        work.snakemake("--config", "run_id=demo", "--forcerun", phase)
        after = stamps(work.run)
        begun = [
            e["phase_name"] for e in events(work.run) if e["type"] in ("run_start", "phase_start") and "phase_name" in e
        ]
        last = begun[-len(expected) - 1 :]
        assert last == [name.upper() for name in expected] + ["DONE"], last
        for path, stamp in before.items():
            if path.parts[0] == "work" or "unsolved" in path.parts or path.parts[0] == "lights":
                assert after[path] == stamp, path
        assert work.settled("--config", "run_id=demo")


def test_forcerun__that_fails_is_repaired_by_the_same_command(copied):
    work = copied
    products = {path.relative_to(work.run) for path in (work.run / "outputs").rglob("*") if path.is_file()}
    before, table = record(work.run, "pcc"), work.run / "outputs/field_stars.fits"
    content, stamp = table.read_bytes(), table.stat()
    table.write_bytes(b"broken")  # a fault put in
    said = work.snakemake("--config", "run_id=demo", "--forcerun", "pcc", fails=True)
    assert "pcc" in said and events(work.run)[-1]["status"] == "error"
    assert (work.run / "outputs/stacked.fits").exists() and (work.run / "outputs/stacked_rgb.fits").exists()
    table.write_bytes(content)
    os.utime(table, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    work.snakemake("--config", "run_id=demo", "--forcerun", "pcc")
    assert {path.relative_to(work.run) for path in (work.run / "outputs").rglob("*") if path.is_file()} == products
    assert events(work.run)[-1]["status"] == "ok" and record(work.run, "pcc") == before


def test_phases__switched_off_or_without_coordinates_pass_their_image_through(copied):
    work = copied
    off = ["astrometry={enabled: false}", "bge={enabled: false}"]
    work.snakemake("--config", "run_id=demo", *off)
    reasons = {name: record(work.run, name)["reason"] for name in LATER}
    assert reasons == {"astrometry": "switched_off", "bge": "switched_off", "pcc": "no_sky_coordinates"}
    image = fits.getdata(work.run / "outputs/stacked_rgb.fits")
    for name in ("stacked_rgb_bge.fits", "stacked_rgb_pcc.fits"):
        np.testing.assert_array_equal(fits.getdata(work.run / "outputs" / name), image)
    assert "CTYPE1" not in fits.getheader(work.run / "outputs/stacked.fits")
    assert events(work.run)[-1]["status"] == "ok" and record(work.run, "run_status")["status"] == "ok"


def test_astrometry__that_solves_nothing_is_skipped_and_the_run_goes_on(copied):
    work = copied
    work.snakemake("--config", "run_id=demo", "astrometry={solvers: [astap]}")
    found = record(work.run, "astrometry")
    assert (found["status"], found["reason"]) == ("skipped", "no_solution")
    assert found["tries"] and all(entry["reason"] for entry in found["tries"])
    assert record(work.run, "pcc")["reason"] == "no_sky_coordinates" and record(work.run, "bge")["status"] == "ok"
    assert events(work.run)[-1]["status"] == "ok" and record(work.run, "run_status")["status"] == "ok"
    assert "no sky coordinates" in (work.run / "artifacts/report.html").read_text()


def test_catalogue__gaia_without_a_network_falls_back_with_a_warning(copied, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing answers there
    work = copied
    work.snakemake("--config", "run_id=demo", "catalogue={source: gaia}")
    found = record(work.run, "astrometry")
    assert found["catalogue"] == "Tycho-2" and found["warnings"] == {"catalogue_fallback": 1}
    assert any(e["type"] == "warning" and e["code"] == "catalogue_fallback" for e in events(work.run))


def test_catalogue__columns_are_those_of_the_embedded_one():
    assert set(fieldstars.COLUMNS) <= skycatalogue.cone(10, 10, 0.5).keys()
    assert (ROOT / "resources/objects/objects.csv").stat().st_size < 1e6
