"""Real frames, with the solutions of astrometry.net as truth. Needs ../shared/data beside the repository."""

import csv
import itertools
import json
import time
import warnings

import numpy as np
import pytest
import sep
from astropy.io import fits
from astropy.wcs import WCS
from scipy.optimize import least_squares

import skycatalogue
from browsing import browser, read_report, read_snakemakes
from support import REAL, Workdir
from tilestack import geometry, inspection, lights, selection

pytestmark = pytest.mark.real
M94, M8 = REAL / "seestar_m94", REAL / "m8_lrgb"
ASPECT = 2.138 / 2.218  # height over width of the pixels of M 8


def record(run, name):
    return json.loads((run / f"artifacts/{name}.json").read_text())


def solution(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return WCS(fits.getheader(path))


def of_m94(name):
    return solution(M94 / "wcs" / name.replace(".fit.gz", ".wcs"))


def luminance(path):
    data = fits.getdata(path).astype(np.float32)
    return data if data.ndim == 2 else data[1]


def stars_of(image, n=60, edge=30, least=8.0):
    """Positions of bright, unsaturated, isolated stars, brightest first."""
    known = np.isfinite(image)
    filled = np.ascontiguousarray(np.where(known, image, np.nanmedian(image)))
    sky = sep.Background(filled, mask=~known, bw=64, bh=64)
    flat = filled - sky.back()
    found = sep.extract(flat, least, err=sky.globalrms, mask=~known)
    h, w = image.shape
    keep = (found["x"] > edge) & (found["y"] > edge) & (found["x"] < w - edge) & (found["y"] < h - edge)
    keep &= (found["flag"] == 0) & (found["peak"] < 0.7 * found["peak"].max())
    found = found[keep]
    return flat, found[np.argsort(-found["flux"])][:n]


def moffat(image, x, y, r=9):
    """Position and FWHM by a circular Moffat fit."""
    ix, iy = int(round(x)), int(round(y))
    cut = image[iy - r : iy + r + 1, ix - r : ix + r + 1]
    yy, xx = np.mgrid[-r : r + 1, -r : r + 1]

    def residual(p):
        return (p[0] * (1 + ((xx - p[1]) ** 2 + (yy - p[2]) ** 2) / p[3] ** 2) ** -p[4] + p[5] - cut).ravel()

    start = [cut.max(), x - ix, y - iy, 2.0, 3.0, 0.0]
    bounds = ([0, -3, -3, 0.3, 1.2, -np.inf], [np.inf, 3, 3, 15, 12, np.inf])
    p = least_squares(residual, start, bounds=bounds).x
    return ix + p[1], iy + p[2], 2 * p[3] * np.sqrt(2 ** (1 / p[4]) - 1)


def median_fwhm(image):
    flat, found = stars_of(image)
    return np.median([moffat(flat, x, y)[2] for x, y in zip(found["x"], found["y"], strict=True)])


def halves_apart(run, even, odd):
    """Distance of star centroids between the stacks of even and odd frames, for stars well above the noise."""
    (one, stars), (other, _) = stars_of(luminance(run / even), least=20.0), stars_of(luminance(run / odd))
    fitted = [(moffat(one, x, y), moffat(other, x, y)) for x, y in zip(stars["x"], stars["y"], strict=True)]
    return np.array([np.hypot(a[0] - b[0], a[1] - b[1]) for a, b in fitted])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return Workdir(tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="module")
def one_session(workdir):
    workdir.snakemake("--config", "run_id=s1", f"input={M94 / 'session1'}")
    return workdir.root / "runs/s1"


@pytest.fixture(scope="module")
def two_sessions(workdir):
    workdir.snakemake("--config", "run_id=s13", f"input=[{M94 / 'session1'},{M94 / 'session3'}]")
    return workdir.root / "runs/s13"


@pytest.fixture(scope="module")
def m8(workdir):
    workdir.snakemake("--config", "run_id=m8", f"input=[{M8 / 'L'},{M8 / 'odd'}]")
    return workdir.root / "runs/m8"


def test_m94__all_35_frames_of_two_telescopes_are_matched(two_sessions):
    found = record(two_sessions, "registration")
    assert found["summary"]["matched"] == 35 and found["methods"] == {"triangles": 35}


def test_prewarp__codes_add_less_than_a_thousandth_of_the_noise_and_take_little_more_than_a_byte(two_sessions, m8):
    for run in (two_sessions, m8):
        for path in (run / "work/prewarp").rglob("*.json"):
            if not (frames := json.loads(path.read_text())["frames"]):
                continue
            assert max(frame["quantisation_loss"] for frame in frames) < 1e-3
            n_known = sum(frame["coverage"] * frame["box"][2] * frame["box"][3] for frame in frames)
            assert 1 < path.with_suffix(".fits").stat().st_size / n_known < 1.5


def test_m94__star_positions_are_those_of_the_reference_solutions(two_sessions):
    found = record(two_sessions, "registration")
    measured = {}
    for path in (two_sessions / "work/stars").rglob("*.json"):
        measured |= {f["name"]: f["stars"] for f in json.loads(path.read_text())["frames"]}

    reference, errors = of_m94(found["reference"]), []
    for frame in found["frames"]:
        if frame["file"] == found["reference"]:
            continue
        stars = measured[frame["file"]]
        xy = np.column_stack([stars["x"], stars["y"]]).astype(float)
        expected = reference.all_world2pix(of_m94(frame["file"]).all_pix2world(xy, 0), 0, quiet=True)
        moved = geometry.apply(np.array(frame["transform"]), xy)
        errors.append(np.median(np.hypot(*(moved - expected).T)))
    assert np.median(errors) <= 0.35 and max(errors) < 0.6  # the solutions' own precision is 0.3-1.0"


def test_m94__halves_agree(one_session, two_sessions):
    for run in (one_session, two_sessions):
        apart = halves_apart(run, "outputs/planes/even_rgb.fits", "outputs/planes/odd_rgb.fits")
        assert len(apart) >= 8 and np.median(apart) < 0.15


def test_m94__stack_is_sharp_and_its_colours_are_those_of_the_stars(one_session):
    rgb = fits.getdata(one_session / "outputs/stacked_rgb.fits").astype(np.float32)
    assert median_fwhm(rgb[1]) <= 2.80  # Siril 2.76, seiza 2.99
    wcs = of_m94(record(one_session, "registration")["reference"])
    header = fits.getheader(one_session / "outputs/stacked.fits")
    with open(REAL / "catalogues/m94.csv") as stream:
        rows = [r for r in csv.DictReader(stream) if r["bt"] and r["vt"] and float(r["vt"]) < 12]
    sky = np.array([[float(r["ra_j2000"]), float(r["dec_j2000"])] for r in rows])
    xy = wcs.all_world2pix(sky, 0, quiet=True) - [header["LATTX0"], header["LATTY0"]]
    colour = np.array([float(r["bt"]) - float(r["vt"]) for r in rows])
    inside = (xy > 20).all(1) & (xy < np.array(rgb.shape[:0:-1]) - 20).all(1)
    planes = [np.nan_to_num(plane - np.nanmedian(plane)) for plane in rgb]
    red, blue = (sep.sum_circle(np.ascontiguousarray(planes[k]), *xy[inside].T.copy(), 5.0)[0] for k in (0, 2))
    good = (red > 0) & (blue > 0)
    ratio = -2.5 * np.log10(blue[good] / red[good])
    # Blue stars are blue: a mirrored or shifted mosaic turns this round or flattens it.
    assert good.sum() >= 8 and np.corrcoef(ratio, colour[inside][good])[0, 1] > 0.8


def test_m94__no_frame_is_taken_for_stretched_and_stretched_ones_are(tmp_path):
    paths = [*sorted((M94 / "session1").iterdir())[::6], *sorted((M94 / "session3").iterdir())[::5]]
    paths += [p for colour in "LRGB" for p in sorted((M8 / colour).iterdir())[::4]]
    scan = {"exposure_s": 1.0}
    for path in paths:
        facts = inspection.inspect(path)
        assert "nonlinear" not in selection._warnings(facts, scan, facts["exposure_s"], 5.0), path
        image, header = lights.read(path)
        level = np.median(image)
        sigma = 1.4826 * np.median(np.abs(image - level))
        black = level - 2.8 * sigma
        for softening in (0.3, 1.0):
            stretched = np.arcsinh(np.maximum(image - black, 0) / (softening * sigma))
            stretched = (65535 * stretched / stretched.max()).astype(np.uint16)
            fits.PrimaryHDU(stretched, header).writeto(tmp_path / "s.fits", overwrite=True)
            facts = inspection.inspect(tmp_path / "s.fits")
            assert "nonlinear" in selection._warnings(facts, scan, facts["exposure_s"], 5.0), (path, softening)


def test_m8__the_odd_frame_is_left_out_and_the_rest_is_used(m8):
    scan = record(m8, "scan_input")
    assert scan["colour_mode"] == "mono" and scan["summary"]["excluded"] == 1
    assert [(f["name"], f["reason"]) for f in scan["files"] if f["reason"]] == [("L_12.fit.gz", "odd_exposure")]
    assert record(m8, "registration")["summary"]["matched"] == 8


def test_m8__stack_is_as_sharp_as_its_frames_and_halves_agree(m8):
    frames = [median_fwhm(lights.read(path)[0]) for path in sorted((M8 / "L").iterdir())]
    assert median_fwhm(luminance(m8 / "outputs/stacked.fits")) <= 1.05 * np.median(frames)
    assert np.median(halves_apart(m8, "outputs/planes/even.fits", "outputs/planes/odd.fits")) < 0.15


@pytest.fixture(scope="module")
def m8_filters(workdir, m8):
    """Runs of the four filters on the lattice of the first."""
    runs, name = {"L": m8}, record(m8, "registration")["reference"]
    for band in "RGB":
        lights_of = f"input=[{{path: {M8 / band}, filter: {band}}}]"
        keys = f"registration={{reference: m8/{name}}}"
        workdir.stack("--config", f"run_id=m8{band.lower()}", lights_of, keys)
        runs[band] = workdir.root / f"runs/m8{band.lower()}"
    return runs


def test_m8__all_32_frames_of_four_filters_are_matched_to_one_lattice(m8_filters):
    for band, run in m8_filters.items():
        found = record(run, "registration")
        assert (found["summary"]["matched"], found["methods"]) == (8, {"triangles": 8}), band
        assert found["reference"] == record(m8_filters["L"], "registration")["reference"]
        assert band == "L" or fits.getheader(run / "outputs/unsolved/stacked_header.fits")["FILTER"] == band


def test_m8__frames_lie_where_the_reference_solutions_put_them(m8_filters):
    with open(M8 / "wcs_reference.csv") as stream:
        solved = {
            row["file"].split("/")[1]: {k: float(v) for k, v in row.items() if k != "file"}
            for row in csv.DictReader(stream)
        }
    centre, square = (np.array([752, 580]) - 1) / 2, np.diag([ASPECT**0.5, ASPECT**-0.5])

    def matrix(row):
        """Arc seconds to east and north by pixel x and y: the scale is the root of the area, the angle that of y."""
        cosine, sine = np.cos(np.radians(row["angle_deg"])), np.sin(np.radians(row["angle_deg"]))
        return row["scale_arcsec_px"] * np.array([[cosine, sine], [-sine, cosine]]) @ np.linalg.inv(square)

    # That this is how the file is meant, by the one solution that is there as a whole.
    whole, row = solution(M8 / "M8_light_L_15000ms_13.wcs"), solved["light_L_15000ms_13.fit.gz"]
    place = row["ra_center_deg"], row["dec_center_deg"]
    np.testing.assert_allclose(whole.all_pix2world([centre], 0)[0], place, atol=2e-6)
    np.testing.assert_allclose(matrix(row), 3600 * whole.wcs.cd, atol=0.004)

    reference = record(m8_filters["L"], "registration")["reference"]
    ours = matrix(solved[reference])
    tangent = WCS(naxis=2)
    tangent.wcs.ctype = "RA---TAN", "DEC--TAN"
    tangent.wcs.crval = solved[reference]["ra_center_deg"], solved[reference]["dec_center_deg"]
    tangent.wcs.crpix, tangent.wcs.cd = centre + 1, ours / 3600
    off, turned, grown = [], [], []
    for run in m8_filters.values():
        for frame in record(run, "registration")["frames"]:
            if frame["status"] == "excluded" or frame["file"] == reference:
                continue
            row, transform = solved[frame["file"]], np.array(frame["transform"])
            expected = tangent.all_world2pix([[row["ra_center_deg"], row["dec_center_deg"]]], 0)[0]
            off.append(np.hypot(*(geometry.apply(transform, centre[None])[0] - expected)))
            found = ours @ transform[:, :2] @ square
            angle = np.arctan2(found[0, 1] - found[1, 0], found[0, 0] + found[1, 1])
            turned.append(angle - np.radians(row["angle_deg"]))
            grown.append(np.log(np.linalg.det(found) ** 0.5 / row["scale_arcsec_px"]))
    assert len(off) == 31 and np.median(off) <= 0.35
    # What all share is the error of the reference's own solution; the same 0.35 px, half of the height away.
    for change in (np.array(turned), np.array(grown)):
        assert np.median(np.abs(change - np.median(change))) * 290 <= 0.35


def test_m8__stars_of_the_four_stacks_stand_at_the_same_places(m8_filters):
    places = {}
    for band, run in m8_filters.items():
        stack = run / "outputs/unsolved/stacked.fits"
        header, (flat, stars) = fits.getheader(stack), stars_of(luminance(stack), n=40)
        fitted = [moffat(flat, x, y)[:2] for x, y in zip(stars["x"], stars["y"], strict=True)]
        places[band] = np.array(fitted) + [header["LATTX0"], header["LATTY0"]]
    for one, other in itertools.combinations("LRGB", 2):
        apart = np.hypot(*np.moveaxis(places[one][:, None] - places[other][None], -1, 0)).min(1)
        assert (apart < 1).sum() >= 15 and np.median(apart[apart < 1]) < 0.15, (one, other)


def test_catalogue__equals_its_source():
    source = fits.getdata(REAL / "catalogues/tycho2_compact.fits.gz")
    with_vt = source["VT_MMAG"] != -32768
    for ra, dec, radius in ((192.72, 41.12, 1.5), (0.1, 0.0, 1.0), (83.8, -5.4, 2.0), (10.0, 89.5, 1.0)):
        found = skycatalogue.cone(ra, dec, radius)
        a, d = np.radians(source["RA_MAS"] / 3.6e6 - ra), np.radians(source["DEC_MAS"] / 3.6e6)
        cosine = np.sin(d) * np.sin(np.radians(dec)) + np.cos(d) * np.cos(np.radians(dec)) * np.cos(a)
        mine = source[with_vt & (cosine >= np.cos(np.radians(radius)))]
        assert abs(len(mine) - len(found["vt"])) <= 1  # a star on the rim, by rounding
        east = (found["ra_deg"][:, None] - mine["RA_MAS"][None] / 3.6e6) * np.cos(np.radians(dec))
        north = found["dec_deg"][:, None] - mine["DEC_MAS"][None] / 3.6e6
        fainter = (found["vt"][:, None] - mine["VT_MMAG"][None] / 1000) * 1e-4  # of two at one place, that one
        near = (east**2 + north**2 + fainter**2).argmin(0)
        np.testing.assert_allclose(found["dec_deg"][near], mine["DEC_MAS"] / 3.6e6, atol=1.6e-6)
        np.testing.assert_allclose(found["vt"][near], mine["VT_MMAG"] / 1000, atol=0.0051)
        has_bt = mine["BT_MMAG"] != -32768
        np.testing.assert_array_equal(np.isfinite(found["bt"][near]), has_bt)
        np.testing.assert_allclose(found["bt"][near][has_bt], mine["BT_MMAG"][has_bt] / 1000, atol=0.0051)


def test_input_files__are_left_as_they_were(one_session, m8):
    now = time.time()
    assert all(now - path.stat().st_mtime > 60 for path in REAL.rglob("*.fit.gz"))


def off_reference(run):
    """Median distance over a grid of each frame from its reference solution, arc seconds, by the stack's header."""
    header = fits.getheader(run / "outputs/stacked_rgb.fits")
    ours, off = WCS(header, naxis=2), []
    y, x = np.meshgrid(np.linspace(100, 1820, 9), np.linspace(100, 980, 7), indexing="ij")
    grid = np.column_stack([x.ravel(), y.ravel()])
    for frame in record(run, "registration")["frames"]:
        there = geometry.apply(np.array(frame["transform"]), grid) - [header["LATTX0"], header["LATTY0"]]
        apart = ours.all_pix2world(there, 0) - of_m94(frame["file"]).all_pix2world(grid, 0)
        off.append(np.median(np.hypot(apart[:, 0] * np.cos(np.radians(41.1)), apart[:, 1])) * 3600)
    return np.array(off)


def test_m94__sky_coordinates_are_those_of_the_reference_solutions(one_session, two_sessions):
    for run in (one_session, two_sessions):
        found = record(run, "astrometry")
        assert found["status"] == "ok" and found["parity"] == -1 and found["n_matches"] >= 12
        assert np.median(off_reference(run)) <= 1.0


def test_m94__colours_of_the_stars_are_calibrated(one_session):
    found = record(one_session, "pcc")
    assert found["grade"] == "OK" and found["colour_check"]["scatter_mag"] < 0.15
    # Blue stars are blue: about 1.1 mag of B/R for each of B - V, which is 0.85 of BT - VT.
    assert 0.4 < found["colour_check"]["slope"] < 1.4
    # A star as blue as the Sun is a little redder than white.
    assert abs(found["colour_check"]["at_white_mag"]) < 0.15


def test_m8__solves_by_the_name_of_its_object_alone(workdir, m8_filters):
    """No scale, no position, pixels that are not square."""
    with open(M8 / "wcs_reference.csv") as stream:
        rows = {row["file"].split("/")[-1]: row for row in csv.DictReader(stream)}
    for run in m8_filters.values():
        hint = "astrometry={hint: {object: M 8}}"
        workdir.snakemake("--config", f"run_id={run.name}", hint, "--until", "sky_headers")
        header = fits.getheader(run / "outputs/stacked.fits")
        ours, off = WCS(header), []
        for frame in record(run, "registration")["frames"]:
            row = rows.get(frame["file"])
            if row and frame["transform"]:
                middle = geometry.apply(np.array(frame["transform"]), np.array([[375.5, 289.5]]))
                ra, dec = ours.all_pix2world(middle - [header["LATTX0"], header["LATTY0"]], 0)[0]
                east = (ra - float(row["ra_center_deg"])) * np.cos(np.radians(dec))
                off.append(np.hypot(east, dec - float(row["dec_center_deg"])) * 3600)
        assert len(off) >= 7 and np.median(off) <= 1.0


@pytest.mark.browser
def test_m94__report_in_a_browser(two_sessions):
    with browser() as driver:
        found = read_report(driver, two_sessions / "artifacts/report.html")
    assert found["numbers"]["Frames used"] == "35 of 35" and found["numbers"]["Exposure"] == "5 min 50 s"


@pytest.mark.browser
def test_m94__snakemakes_report_in_a_browser(workdir, two_sessions, tmp_path):
    page, folders = tmp_path / "snakemake.html", f"input=[{M94 / 'session1'},{M94 / 'session3'}]"
    workdir.snakemake("--config", "run_id=s13", folders, "--report", str(page))
    assert page.stat().st_size < 8e6
    with browser() as driver:
        read_snakemakes(driver, page)
