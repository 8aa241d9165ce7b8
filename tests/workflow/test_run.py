"""The whole workflow on a small simulated series: its science, and its promises about files and reruns."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import time

import jsonschema
import numpy as np
import pytest
import sep
import yaml
from astropy.io import fits
from conftest import ROOT, Workdir

SMALL = "demonstration={n_frames: 10, height_px: 360, width_px: 480, seed: 11}"
LIGHTS = ["--n-frames", "10", "--height-px", "260", "--width-px", "380", "--faint-stars"]


def simulate(folder, *options):
    command = [os.sys.executable, ROOT / "scripts/simulate_lights.py", folder, *LIGHTS, *options]
    subprocess.run(command, check=True, capture_output=True)


def record(run, name):
    return json.loads((run / f"artifacts/{name}.json").read_text())


def events(run):
    return [json.loads(line) for line in (run / "logs/run_events.jsonl").read_text().splitlines()]


def pixels(run, product="stacked.fits"):
    with fits.open(run / "outputs" / product) as hdus:
        return {hdu.name: hdu.data.copy() for hdu in hdus if hdu.is_image}


def same_bits(one, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(one.values(), other.values(), strict=True))


def stamps(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A demonstration run at its end, never changed."""
    work = Workdir(tmp_path_factory.mktemp("finished"))
    work.said = work.snakemake("--config", SMALL)
    work.run = work.root / "runs/demo"
    return work


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it to change; the plan of a demonstration run holds no absolute path."""
    work = Workdir(tmp_path / "copy")
    shutil.copytree(finished.root, work.root)
    work.run = work.root / "runs/demo"
    return work


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


def test_run__status_lists_products_with_their_checksums(finished):
    status = record(finished.run, "run_status")
    assert status["status"] == "ok" and len(status["products"]) >= 9
    for product in status["products"]:
        path = finished.run / product["path"]
        assert path.stat().st_size == product["bytes"] and len(product["sha256"]) == 64


def test_run__products_verify_and_say_where_they_come_from(finished):
    for path in (finished.run / "outputs").rglob("*.fits"):
        with fits.open(path, checksum=True) as hdus:
            hdus.verify("exception")
            header = hdus[0].header
            assert header["RUNID"] == "demo" and header["NCOMBINE"] == 10 and header["EXPTIME"] == 10
            assert header["LIVETIME"] == 100 and 0.9 < header["ETA_SB"] <= 1 and len(header["CONFHASH"]) == 12
    with fits.open(finished.run / "outputs/stacked.fits") as hdus:
        assert [h.name for h in hdus] == ["PRIMARY", "VAR", "WHT", "EXP", "NIM", "REJ", "MASK", "INPUTS"]
        assert hdus[0].header["BAYERPAT"] == "GRBG"
        assert list(hdus["INPUTS"].data["METHOD"]) == ["triangles"] * 10
        full = hdus["NIM"].data == 10
        assert full.mean() > 0.5 and (hdus["EXP"].data[full] == 100).all()
        np.testing.assert_array_equal(np.isnan(hdus[0].data), hdus["NIM"].data == 0)
    rgb = fits.getdata(finished.run / "outputs/stacked_rgb.fits")
    assert rgb.shape[0] == 3 and "BAYERPAT" not in fits.getheader(finished.run / "outputs/stacked_rgb.fits")
    assert len(list((finished.run / "outputs/previews").glob("*.png"))) == 2


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
    bright = (flux[:, 1] > 40) & (flux[:, 1] < 4000) & (xy > 25).all(1) & (xy < [440, 320]).all(1)
    planes = [np.nan_to_num(plane - level).astype(np.float32) for plane, level in zip(stack, sky, strict=True)]
    counts = np.stack([sep.sum_circle(plane, *xy[bright].T.copy(), 6.0)[0] for plane in planes])
    colour, expected = -2.5 * np.log10(counts[2] / counts[0]), -2.5 * np.log10(flux[bright, 2] / flux[bright, 0])
    assert bright.sum() >= 5 and np.ptp(b_v[bright]) > 0.3
    assert np.median(np.abs(colour - expected)) < 0.15


def test_run__same_bits_on_one_core(finished, tmp_path):
    other = Workdir(tmp_path)
    other.snakemake("--config", SMALL, cores=1)
    for product in ("stacked.fits", "stacked_rgb.fits", "planes/even.fits"):
        assert same_bits(pixels(finished.run, product), pixels(other.root / "runs/demo", product))


def test_run__other_batches_change_the_order_of_sums_only(finished, tmp_path):
    other = Workdir(tmp_path)
    other.snakemake("--config", SMALL, "frames_per_batch=4")
    assert len(json.loads((other.root / "runs/demo/plan.json").read_text())["sessions"][0]["batches"]) == 3
    one, two = pixels(finished.run), pixels(other.root / "runs/demo")
    for name in ("PRIMARY", "VAR", "WHT", "EXP", "NIM", "REJ", "MASK"):
        np.testing.assert_allclose(one[name], two[name], rtol=1e-6, equal_nan=True)


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
    work.snakemake("--config", "run_id=mono", "input=mono")
    run = tmp_path / "runs/mono"
    truth = json.loads((tmp_path / "mono/truth/truth.json").read_text())
    anchor = record(run, "normalization")["anchor"]
    state = next(f for f in truth["frames"] if f["file"] == anchor)
    planes, header = pixels(run), fits.getheader(run / "outputs/stacked.fits")
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
    # Against the reference: 2-4 % of the light is in an aureole, half of it beyond 9 px; and the reference's own scale.
    assert mean == pytest.approx(0.98, abs=0.02)


def test_run__new_night_in_front_runs_no_job_of_the_old_ones(tmp_path):
    for name, seed in (("night1", "21"), ("night2", "22"), ("night0", "23")):
        simulate(tmp_path / name, "--seed", seed)
    work = Workdir(tmp_path)
    work.snakemake("--config", "run_id=t", "input=[night1,night2]")
    run = tmp_path / "runs/t"
    old = {path: stamp for path, stamp in stamps(run / "work").items() if path.name != "reconstruction.fits"}
    work.snakemake("--config", "run_id=t", "input=[night0,night1,night2]")
    new = stamps(run / "work")
    assert {path: new[path] for path in old} == old
    assert {p.parts[1] if len(p.parts) > 2 else p.stem for p in new.keys() - old.keys()} >= {"03_night0"}
    assert record(run, "registration")["summary"]["matched"] == 30
    # Frames added to a known folder become a session of their own.
    for number in (11, 12):
        source = tmp_path / f"night0/light_{number - 10:04d}.fits"
        with fits.open(source) as hdus:
            hdus[0].data[0, 0] += 1  # else it were a duplicate
            hdus.writeto(tmp_path / f"night1/light_{number:04d}.fits")
    work.snakemake("--config", "run_id=t", "input=[night0,night1,night2]")
    later = stamps(run / "work")
    assert {path: later[path] for path in new if path.name != "reconstruction.fits"} == {
        path: stamp for path, stamp in new.items() if path.name != "reconstruction.fits"
    }
    assert [s["id"] for s in json.loads((run / "plan.json").read_text())["sessions"]][-1] == "04_night1"
    assert work.settled("--config", "run_id=t")


def test_run__touched_lights_rerun_nothing_and_one_that_is_gone_stops_a_change(copied):
    lights = copied.run / "lights"
    assert copied.settled()
    copied.snakemake("--", "clean_work")
    assert not list((copied.run / "work/prewarp").rglob("*.fits")) and copied.settled()
    copied.snakemake("--config", "debayer={method: bilinear}")
    assert record(copied.run, "debayer")["method"] == "bilinear"
    assert not list((copied.run / "work/prewarp").rglob("*.fits"))
    assert (copied.run / "config.001.yaml").exists() and "bilinear" in (copied.run / "config.yaml").read_text()
    (lights / "light_0003.fits").unlink()
    said = copied.snakemake("--config", "registration={sigma: 5}", fails=True)
    assert "light_0003.fits" in said


def test_run__kill_is_repaired_by_the_same_command(finished, tmp_path):
    work = Workdir(tmp_path)
    process = subprocess.Popen(
        work.command("--config", SMALL), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    end = time.monotonic() + 300
    while not list((tmp_path / "runs/demo/work/prewarp").rglob("*")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    work.snakemake("--config", SMALL)
    assert same_bits(pixels(finished.run), pixels(tmp_path / "runs/demo"))
    story = events(tmp_path / "runs/demo")
    assert [e["status"] for e in story if e["type"] == "run_end"] == ["aborted", "ok"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Nine good lights and one of everything that can lie among them."""
    root = tmp_path_factory.mktemp("mixed")
    simulate(root / "lights", "--seed", "31")
    lights = root / "lights"
    shutil.rmtree(lights / "truth")
    good = (lights / "light_0002.fits").read_bytes()
    with fits.open(lights / "light_0001.fits") as hdus:
        raw, header = hdus[0].data, hdus[0].header
    short, _ = np.random.default_rng(1).normal(330, 25, raw.shape), None

    def write(name, data, **cards):
        head = header.copy()
        for key, value in cards.items():
            head[key] = value
        fits.PrimaryHDU(data, head).writeto(lights / name)

    (lights / "cut.fits").write_bytes(good[: len(good) // 2])
    (lights / "text.fits").write_text("no image")
    (lights / "copy.fits").write_bytes(good)
    write("zero.fits", np.zeros_like(raw))
    write("bright.fits", np.full_like(raw, 65535))
    write("small.fits", raw[:200])
    write("pattern.fits", raw + 1, BAYERPAT="RGGB")
    write("camera.fits", raw + 2, INSTRUME="Another")
    write("stacked.fits", (raw + 3).astype(np.float32), STACKCNT=30)
    write("cube.fits", np.stack([raw] * 3))
    write("short.fits", short.astype(np.uint16))
    holes = raw.astype(np.float32)
    holes[:160] = np.nan
    write("holes.fits", holes)
    with gzip.open(lights / "light_0004.fits.gz", "wb") as stream:
        stream.write((lights / "light_0004.fits").read_bytes())
    (lights / "light_0004.fits").unlink()
    with fits.open(lights / "light_0005.fits") as hdus:
        packed = fits.CompImageHDU(hdus[0].data, hdus[0].header, compression_type="RICE_1")
        packed.writeto(lights / "light_0005.fits.fz")
    (lights / "light_0005.fits").unlink()
    (lights / "notes.txt").write_text("left alone")
    for path in lights.iterdir():
        path.chmod(0o444)
    lights.chmod(0o555)
    yield root
    lights.chmod(0o755)


def test_run__bad_input_gets_a_reason_and_the_run_goes_on(mixed):
    before = stamps(mixed / "lights")
    work = Workdir(mixed)
    work.snakemake("--config", "run_id=bad", "input=lights")
    assert stamps(mixed / "lights") == before
    reasons = {f["name"]: f["reason"] for f in record(mixed / "runs/bad", "scan_input")["files"] if f["reason"]}
    assert reasons == {
        "cut.fits": "truncated",
        "text.fits": "not_fits",
        "light_0002.fits": "duplicate",  # of copy.fits, which comes first
        "zero.fits": "all_zero",
        "bright.fits": "all_saturated",
        "small.fits": "wrong_size",
        "pattern.fits": "wrong_bayer_pattern",
        "camera.fits": "other_camera",
        "stacked.fits": "stacked_product",
        "cube.fits": "rgb_product",
        "short.fits": "odd_exposure",
        "holes.fits": "nan_share",
    }
    assert record(mixed / "runs/bad", "registration")["summary"]["matched"] == 10


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run_id=007"], "at least one letter or hyphen"),
        (["run_id=../up"], "run_id must match"),
        (["run_id=t", "input=nowhere"], "nowhere does not exist"),
        (["run_id=t", "input=empty"], "no lights in"),
        (["run_id=t", "tile_reconstruction={kapa: 4}"], "did you mean tile_reconstruction.kappa"),
        (["run_id=t", "tile_reconstruction={kappa: 400}"], "400"),
        (["run_id=t", "weights={objective: deep}"], "deep"),
        (["run_id=t", "tile={min_px: 300}"], "tile.min_px must not exceed"),
    ],
)
def test_run__refuses_what_cannot_be_meant(workdir, args, message):
    (workdir.root / "empty").mkdir()
    assert message in workdir.snakemake("--config", *args, fails=True)
    assert not (workdir.root / "runs").exists()


def test_run__stops_with_a_reason_where_frames_do_not_do(tmp_path):
    simulate(tmp_path / "few", "--n-frames", "5")
    simulate(tmp_path / "grey", "--mono")
    simulate(tmp_path / "blank", "--zero-point-mag", "1", "--no-extended", "--hot-share", "0", "--trail-share", "0")
    work = Workdir(tmp_path)
    for run_id, source, reason in (
        ("few", "few", "insufficient_frames"),
        ("mix", "[few,grey]", "mixed_colour_modes"),
        ("filters", "[{path: few, filter: Ha},{path: grey, filter: OIII}]", "mixed"),
        ("blank", "blank", "no_stars"),
    ):
        said = work.snakemake("--config", f"run_id={run_id}", f"input={source}", fails=True)
        last = events(tmp_path / f"runs/{run_id}")[-1]
        assert last["type"] == "run_end" and reason in last["reason"] and last["message"] in said, said
    assert events(tmp_path / "runs/few")[-1]["status"] == "insufficient_frames"
    work.snakemake("--config", "run_id=few", "assumptions={allow_emergency_mode: true}")
    assert record(tmp_path / "runs/few", "scan_input")["mode"] == "emergency"
