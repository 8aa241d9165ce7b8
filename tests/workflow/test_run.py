"""The whole workflow on a small simulated series: its science and its files."""

import json

import jsonschema
import numpy as np
import pytest
import sep
import yaml
from astropy.io import fits

from simulation import night, series
from simulation.options import Options
from support import ROOT, SMALL, Workdir, events, pixels, record, same_bits, simulate


def test_run__shows_its_progress_and_ends_ok(finished):
    lines = [line for line in finished.said.splitlines() if line.startswith("demo ")]
    assert any("REGISTRATION" in line and "%" in line for line in lines) and any("left" in line for line in lines)
    assert lines[-1] == "demo done: runs/demo/outputs"
    assert finished.settled()


def test_run__artifacts_and_events_match_their_schemas(finished):
    for path in (finished.run / "artifacts").glob("*.json"):
        schema = yaml.safe_load((ROOT / f"config/artifacts/{path.stem}.yaml").read_text())
        jsonschema.Draft202012Validator(schema).validate(json.loads(path.read_text()))
    schema = yaml.safe_load((ROOT / "config/artifacts/event.yaml").read_text())
    story = events(finished.run)
    for event in story:
        jsonschema.Draft202012Validator(schema).validate(event)
    begun, ended = ([e["phase_name"] for e in story if e["type"] == kind] for kind in ("phase_start", "phase_end"))
    assert sorted(begun) == sorted(ended) and len(set(begun)) == len(begun) >= 13
    assert story[0]["type"] == "run_start" and story[0]["frames_discovered"] == 10
    assert story[-1]["type"] == "run_end" and story[-1]["status"] == "ok"
    for event in story:
        if event["type"] == "phase_end":
            assert event["phase"] == sum(e["phase"] < event["phase"] for e in [{"phase": k} for k in range(18)])


def test_run__is_validated_and_says_why_there_are_no_clusters(finished):
    assert record(finished.run, "validation")["status"] == "ok"
    for name in ("state_clustering", "synthetic_frames"):
        assert (record(finished.run, name)["status"], record(finished.run, name)["reason"]) == (
            "skipped",
            "reduced_mode",
        )


def test_run__status_lists_products_with_their_checksums(finished):
    status = record(finished.run, "run_status")
    assert status["status"] == "ok" and len(status["products"]) >= 9
    for product in status["products"]:
        path = finished.run / product["path"]
        assert path.stat().st_size == product["bytes"] and len(product["sha256"]) == 64


def test_run__products_verify_and_say_where_they_come_from(finished):
    for path in (finished.run / "outputs").rglob("*.fits"):
        if path.parent.name == "unsolved" or path.parents[1].name == "unsolved":
            continue  # pixels, and what is known of them apart
        with fits.open(path, checksum=True) as hdus:
            hdus.verify("exception")
            header = hdus[0].header
            if path.stem in ("field_stars", "pcc_stars"):
                continue
            assert header["RUNID"] == "demo" and header["NCOMBINE"] == 10 and header["EXPTIME"] == 10
            assert header["LIVETIME"] == 100 and 0.9 < header["ETA_SB"] <= 1 and len(header["CONFHASH"]) == 12
    with fits.open(finished.run / "outputs/stacked.fits") as hdus:
        assert [h.name for h in hdus] == ["PRIMARY", "MASK", "VAR", "WHT", "EXP", "NIM", "REJ", "INPUTS"]
        assert hdus[0].header["BAYERPAT"] == "GRBG"
        assert list(hdus["INPUTS"].data["METHOD"]) == ["triangles"] * 10
        full = hdus["NIM"].data == 10
        assert full.mean() > 0.5 and (hdus["EXP"].data[full] == 100).all()
        np.testing.assert_array_equal(np.isnan(hdus[0].data), hdus["NIM"].data == 0)
    rgb = fits.getdata(finished.run / "outputs/stacked_rgb.fits")
    assert rgb.shape[0] == 3 and "BAYERPAT" not in fits.getheader(finished.run / "outputs/stacked_rgb.fits")
    assert len(list((finished.run / "outputs/previews").glob("*.png"))) == 9


def test_run__transforms_are_those_of_the_truth(finished):
    truth = json.loads((finished.run / "lights/truth/truth.json").read_text())
    frames = {f["file"]: np.array(f["transform"]) for f in truth["frames"]}
    found = record(finished.run, "registration")
    assert found["summary"]["matched"] == 10
    reference = frames[found["reference"]]
    back = np.linalg.inv(reference[:, :2])
    corners = np.array([[0, 0], [479, 0], [0, 359], [479, 359]], float)
    for frame in found["frames"]:
        true, ours = frames[frame["file"]], np.array(frame["transform"])
        expected = (corners @ true[:, :2].T + true[:, 2] - reference[:, 2]) @ back.T
        assert np.hypot(*(corners @ ours[:, :2].T + ours[:, 2] - expected).T).max() < 0.35


def test_run__halves_agree_and_colours_are_not_swapped(finished):
    even, odd = (pixels(finished.run, f"planes/{name}_rgb.fits")["PRIMARY"] for name in ("even", "odd"))
    stack = pixels(finished.run, "stacked_rgb.fits")["PRIMARY"]
    truth = json.loads((finished.run / "lights/truth/truth.json").read_text())
    sky = np.nanmedian(stack, axis=(1, 2))
    assert sky[1] > sky[0] > sky[2]  # as simulated: green, red, blue
    assert np.nanmedian(even - odd) == pytest.approx(0, abs=3)
    transforms = {f["file"]: np.array(f["transform"]) for f in truth["frames"]}
    reference = transforms[record(finished.run, "registration")["reference"]]
    header = fits.getheader(finished.run / "outputs/stacked.fits")
    stars = truth["stars"]
    xy = (np.column_stack([stars["x"], stars["y"]]) - reference[:, 2]) @ np.linalg.inv(reference[:, :2]).T
    xy -= [header["LATTX0"], header["LATTY0"]]
    flux, b_v = np.array(stars["flux"]), np.array(stars["b_v"])
    bright = (flux[:, 1] > 100) & (flux[:, 1] < 4000) & (xy > 25).all(1) & (xy < [440, 320]).all(1)
    planes = [np.nan_to_num(plane - level).astype(np.float32) for plane, level in zip(stack, sky, strict=True)]
    counts = np.stack([sep.sum_circle(plane, *xy[bright].T.copy(), 6.0)[0] for plane in planes])
    colour, expected = -2.5 * np.log10(counts[2] / counts[0]), -2.5 * np.log10(flux[bright, 2] / flux[bright, 0])
    assert bright.sum() >= 5 and np.ptp(b_v[bright]) > 0.3
    assert np.median(np.abs(colour - expected)) < 0.15


def test_run__same_bits_on_one_core(finished, tmp_path):
    other = Workdir(tmp_path)
    other.stack("--config", SMALL, cores=1)
    for name in ("stacked.fits", "stacked_rgb.fits", "planes/even.fits"):
        product = f"unsolved/{name}"
        assert same_bits(pixels(finished.run, product), pixels(other.root / "runs/demo", product))


def test_run__other_batches_change_the_order_of_sums_only(tmp_path):
    """The field turns by 85 degrees over the frames, so that boxes, tiles and rims of batches differ."""
    simulate(tmp_path / "turning", "--interval-s", "900", "--scale-arcsec", "4", "--seed", "13")
    planes = {}
    for run_id, most in (("one", 100), ("three", 4)):
        Workdir(tmp_path).stack("--config", f"run_id={run_id}", "input=turning", f"frames_per_batch={most}")
        planes[run_id] = pixels(tmp_path / "runs" / run_id, "unsolved/stacked.fits")
    plan = json.loads((tmp_path / "runs/three/plan.json").read_text())
    assert len(plan["sessions"][0]["batches"]) == 3
    found = record(tmp_path / "runs/three", "registration")
    assert found["summary"]["matched"] == 10 and np.ptp([frame["rotation_deg"] for frame in found["frames"]]) > 60
    assert planes["one"].keys() == {"PRIMARY", "VAR", "WHT", "EXP", "NIM", "REJ", "MASK"}
    for name, plane in planes["one"].items():
        np.testing.assert_allclose(planes["three"][name], plane, rtol=1e-6, equal_nan=True, err_msg=name)


def test_run__mono_keeps_the_background_level_and_star_fluxes(tmp_path):
    """Truth: the same light without noise. The scale is that of the reference, whose own error counts once."""
    options = [
        "--mono",
        "--cloud-share",
        "0",
        "--trail-share",
        "0.3",
        "--no-extended",
        "--no-faint-stars",
        "--seed",
        "12",
    ]
    options += ["--height-px", "520", "--width-px", "640", "--fwhm-px", "2.9", "--zero-point-mag", "17.5"]
    simulate(tmp_path / "mono", *options)
    work = Workdir(tmp_path)
    work.stack("--config", "run_id=mono", "input=mono")
    run = tmp_path / "runs/mono"
    truth = json.loads((tmp_path / "mono/truth/truth.json").read_text())
    anchor = record(run, "normalization")["anchor"]
    state = next(f for f in truth["frames"] if f["file"] == anchor)
    planes = pixels(run, "unsolved/stacked.fits")
    header = fits.getheader(run / "outputs/unsolved/stacked_header.fits")
    stack, full = planes["PRIMARY"], planes["NIM"] == 10
    raw = fits.getdata(tmp_path / "mono" / anchor).astype(np.float32)
    transform = np.array(state["transform"])
    stars = truth["stars"]
    centre = np.column_stack([stars["x"], stars["y"]])
    in_raw = (centre - transform[:, 2]) @ np.linalg.inv(transform[:, :2]).T
    xy = in_raw - [header["LATTX0"], header["LATTY0"]]
    y, x = np.indices(stack.shape)
    flux = np.array(stars["flux"])[:, 0]
    inside = (xy > 20).all(1) & (xy < [stack.shape[1] - 20, stack.shape[0] - 20]).all(1)
    empty = full & np.isfinite(stack)
    for (cx, cy), f in zip(xy[inside], flux[inside], strict=True):
        if f > 20:
            empty &= np.hypot(x - cx, y - cy) > 14
    # Background: the stack against the reference frame itself, both away from stars.
    shift_y, shift_x = -header["LATTY0"], -header["LATTX0"]
    ours = stack[shift_y : shift_y + 520, shift_x : shift_x + 640]
    same = empty[shift_y : shift_y + 520, shift_x : shift_x + 640]
    error = raw[same].std() / np.sqrt(same.sum())
    # The mean of raw pixels below a high quantile on both sides: cosmic rays and trails are in the raw frame only.
    low, high = np.quantile(raw[same], [0.001, 0.999])
    kept = same & (raw > low) & (raw < high)
    assert ours[kept].mean() == pytest.approx(raw[kept].mean(), abs=3 * error + 0.001 * raw[kept].mean())
    # Fluxes: bright, isolated stars of the stack against their electrons, all with one factor.
    apart = np.hypot(centre[:, None, 0] - centre[None, :, 0], centre[:, None, 1] - centre[None, :, 1])
    lonely = np.array([not ((d > 0) & (d < 24) & (flux > 0.02 * f)).any() for d, f in zip(apart, flux, strict=True)])
    ok = inside & lonely & (flux > 150) & (flux < 6000)
    sky = np.ascontiguousarray(np.nan_to_num(stack, nan=np.nanmedian(stack)), dtype=np.float32)
    counts, _, _ = sep.sum_circle(sky, *xy[ok].T.copy(), 9.0, bkgann=(13.0, 20.0))
    ratio = counts / (flux[ok] * 10 / 0.08 * state["transparency"])
    noise = np.sqrt(254 * planes["VAR"][full].mean()) / counts
    assert ok.sum() >= 15
    # The same over the field and over brightness, within their own noise and 0.5 %.
    weight = 1 / (noise**2 + 0.004**2)
    mean = (weight * ratio).sum() / weight.sum()
    for groups in (xy[ok, 0] < 320, xy[ok, 1] < 260, flux[ok] < np.median(flux[ok])):
        one, other = ((weight * ratio)[g].sum() / weight[g].sum() for g in (groups, ~groups))
        error = np.sqrt(1 / weight[groups].sum() + 1 / weight[~groups].sum())
        assert one / other == pytest.approx(1, abs=0.005 + 2 * error)
    # Against the share of the light that the aperture holds in the frames without noise; and the reference's own scale.
    assert mean / np.mean(shares_in_aperture(truth, ok)) == pytest.approx(1, abs=0.02)


def shares_in_aperture(truth, chosen):
    """Share of the light of chosen stars in the aperture of 9 px, by frame, as simulated."""
    made = series.Series(Options(**{key: value for key, value in truth["options"].items() if key != "channels"}))
    flux, shares = np.array(truth["stars"]["flux"])[chosen, 0] * made.options.exposure_s, []
    for k in range(made.options.n_frames):
        state = night.frame_state(k, made.options) | {"trails": []}
        light = made.expected(state) - made.sky(state) - made.dark * made.options.exposure_s
        transform = made.transform(state)
        places = np.column_stack([truth["stars"]["x"], truth["stars"]["y"]])[chosen] - transform[:, 2]
        xy = places @ np.linalg.inv(transform[:, :2]).T
        counts, _, _ = sep.sum_circle(light.astype(np.float32), *xy.T.copy(), 9.0, bkgann=(13.0, 20.0))
        shares.append(np.median(counts / (flux * state["transparency"])))
    return shares
