"""Full mode, gates and validation, through the whole workflow."""

import itertools
import json
import shutil

import jsonschema
import numpy as np
import pytest
import validation
import yaml
from astropy.io import fits
from scipy import ndimage

from support import ADDED_UP, ROOT, Workdir, events, kept_stamps, pixels, record, same_bits, simulate, stamps
from tilestack import files, stackfiles

NIGHT = ["--mono", "--n-frames", "18", "--state-frames", "6", "--fwhm-px", "3", "--cloud-share", "0", "--no-rotation"]
FULL = "assumptions={frames_reduced_threshold: 18}"
# A factor that changes nothing: without any the stack of synthetic frames is the reconstruction.
COMBINED = "stacking={cluster_quality_kappa: 1e-9}"
# Small enough that the pattern of tiles shows in small frames.
TILES = "tile={size_factor: 16, min_px: 32}"


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A run in full mode at its end, never changed: a night of three states."""
    work = Workdir(tmp_path_factory.mktemp("full"))
    for name, seed in (("night1", "51"), ("night2", "52")):
        simulate(work.root / name, *NIGHT, "--seed", seed)
    work.snakemake("--config", "run_id=t", "input=[night1]", FULL, TILES)
    work.run = work.root / "runs/t"
    return work


@pytest.fixture
def lent(full, tmp_path):
    """The run to change: put back afterwards, for at another path all its lights were others."""
    shutil.copytree(full.root, tmp_path / "kept")
    yield full
    shutil.rmtree(full.root)
    shutil.copytree(tmp_path / "kept", full.root)


def planes(path):
    with files.opened(path) as hdus:
        return {hdu.name: files.native(hdu.data) for hdu in hdus[1:]}


def stack(folder):
    return stackfiles.channel({path.stem: path for path in folder.iterdir()})


def end_of(run):
    return events(run)[-1]


def test_full_mode__groups_frames_and_says_so(full):
    for path in (full.run / "artifacts").glob("*.json"):
        schema = yaml.safe_load((ROOT / f"config/artifacts/{path.stem}.yaml").read_text())
        jsonschema.Draft202012Validator(schema).validate(json.loads(path.read_text()))
    ended = {e["phase_name"]: e for e in events(full.run) if e["type"] == "phase_end"}
    assert ended["SCAN_INPUT"]["mode"] == "full" and ended["STATE_CLUSTERING"]["status"] == "ok"
    clusters = record(full.run, "state_clustering")
    assert ended["SYNTHETIC_FRAMES"]["synthetic_frames"] == clusters["sessions"][0]["n_clusters"] >= 2
    assert sum(c["size"] for c in clusters["sessions"][0]["clusters"]) == len(clusters["frames"]) == 18
    assert record(full.run, "stacking")["source"] == "synthetic"
    assert record(full.run, "run_status")["status"] == "ok" and full.settled("--config", "run_id=t")


def test_full_mode__by_default_nothing_is_added_up_twice(full):
    assert not stack(full.run / "work/synthetic_stack")
    assert (full.run / "work/reconstruction/image.fits").samefile(full.run / "outputs/unsolved/stacked.fits")


def test_full_mode__combination_of_synthetic_frames_is_the_direct_mean(lent):
    lent.snakemake("--config", "run_id=t", COMBINED)
    direct, ours = (stack(lent.run / "work" / name) for name in ("reconstruction", "synthetic_stack"))
    for name, plane in ours.items():
        np.testing.assert_allclose(plane, direct[name], rtol=1e-6, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(pixels(lent.run)["PRIMARY"], ours["SCI"])
    assert set(direct) - set(ours) == {"MEAN", "IVAR"} and record(lent.run, "stacking")["source"] == "synthetic"


def test_full_mode__new_night_runs_no_pixel_pass_of_the_old_one_and_gives_the_bits_of_all_at_once(lent):
    old = kept_stamps(lent.run / "work")
    lent.stack("--config", "run_id=t", "input=[night1,night2]")
    new = stamps(lent.run / "work")
    assert {path: new[path] for path in old} == old
    found = record(lent.run, "state_clustering")
    assert [s["session"] for s in found["sessions"]] == ["01_night1", "02_night2"]
    assert all(s["n_clusters"] >= 2 for s in found["sessions"]) and len(found["frames"]) == 36
    lent.stack("--config", "run_id=once", "input=[night1,night2]", FULL, TILES, cores=1)
    product = "unsolved/stacked.fits"
    assert same_bits(pixels(lent.run, product), pixels(lent.root / "runs/once", product))
    one, other = (planes(lent.root / f"runs/{r}/work/synthetic/02_night2.fits") for r in ("t", "once"))
    assert same_bits(one, other)


def test_full_mode__global_weights_are_the_same_all_over_a_synthetic_frame(lent):
    lent.stack("--config", "run_id=g", "input=[night1]", FULL, TILES, "synthetic={weighting: global}")
    assert record(lent.root / "runs/g", "stacking")["source"] == "synthetic"
    spreads = {}
    for run_id in ("g", "t"):
        made, spreads[run_id] = planes(lent.root / f"runs/{run_id}/work/synthetic/01_night1.fits"), []
        for weight, n, rejected in zip(made["WHT"], made["NIM"], made["REJ"], strict=True):
            whole = (n == n.max()) & (rejected == 0)
            assert whole.mean() > 0.5
            spreads[run_id].append(np.ptp(weight[whole]) / weight[whole].mean())
    assert len(spreads["g"]) >= 2 and max(spreads["g"]) < 1e-5 and min(spreads["t"]) > 1e-3


def test_full_mode__a_session_from_before_the_threshold_stays_one_frame(lent):
    """A night that takes the run over the threshold changes nothing of the one before."""
    keys = ["run_id=u", "input=[night1]", "assumptions={frames_reduced_threshold: 24}", COMBINED]
    lent.stack("--config", *keys)
    run = lent.root / "runs/u"
    assert record(run, "state_clustering")["reason"] == "reduced_mode"
    assert record(run, "stacking")["source"] == "reconstruction"
    old = kept_stamps(run / "work")
    lent.stack("--config", "run_id=u", "input=[night1,night2]")
    assert {path: stamps(run / "work")[path] for path in old} == old
    assert record(run, "scan_input")["mode"] == "full" and record(run, "stacking")["source"] == "synthetic"
    sessions = record(run, "state_clustering")["sessions"]
    assert sessions[0]["n_clusters"] == 1 < sessions[1]["n_clusters"]
    direct, ours = (stack(run / "work" / name) for name in ("reconstruction", "synthetic_stack"))
    for name in ("SCI", "VAR", "NIM", "REJ", "MASK", "EVEN", "ODD"):
        np.testing.assert_allclose(ours[name], direct[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_stacking__by_other_ways_redoes_the_last_phases_only(lent):
    before, times = pixels(lent.run), [stamps(lent.run / "work")]
    for keys in ("crop_coverage: 0.9, cosmetic: true", "method: rej, cluster_quality_kappa: 1"):
        lent.snakemake("--config", "run_id=t", f"stacking={{{keys}}}")
        times.append(stamps(lent.run / "work"))
    finished, *changed = (
        {path.parts[0] for path, stamp in after.items() if earlier.get(path) != stamp}
        for earlier, after in itertools.pairwise(times)
    )
    # Where clusters count otherwise than by their weights, colours, which these lights do not have, take other sums.
    assert not finished and changed == [{*ADDED_UP, "synthetic", "sums", "drizzled", "flat", "flat_drizzled"}]
    made, found = pixels(lent.run), record(lent.run, "stacking")
    header, old = fits.getheader(lent.run / "outputs/stacked.fits"), found["crop"]
    assert found["method"] == "rej" and found["replaced_px"] is not None
    assert [header["LATTY0"], header["LATTX0"]] == old[:2]
    for product in ("stacked", "stacked_rgb", "planes/even", "planes/odd_rgb", "planes/inverse_variance"):
        assert list(pixels(lent.run, f"{product}.fits")["PRIMARY"].shape) == old[2:]
    # Frames that are saturated in the core of a star are in neither count there: such a hole is no rim.
    reached, level = made["NIM"] + made["REJ"] >= 0.9 * 18, made["PRIMARY"]
    assert ndimage.binary_fill_holes(reached).all() and (reached | (level > 0.25 * header["SATURATE"])).all()
    assert level.size < before["PRIMARY"].size
    y0, x0 = (old[k] - record(lent.run, "common_overlap")["canvas"][k] for k in (0, 1))
    was = before["PRIMARY"][y0 : y0 + old[2], x0 : x0 + old[3]]
    difference = (made["PRIMARY"] - was) / np.sqrt(made["VAR"])
    assert 0 < np.nanmedian(np.abs(difference)) < 0.5


def test_validation__a_fault_ends_as_validation_failed_and_with_strict_as_an_error(lent):
    path = lent.run / "outputs/unsolved/stacked.fits"
    rng = np.random.default_rng(3)
    with fits.open(path, mode="update") as hdus:
        noise = np.sqrt(np.nan_to_num(hdus["VAR"].data)) * rng.normal(size=hdus[0].data.shape)
        hdus[0].data += noise.astype(np.float32)
    lent.snakemake("--config", "run_id=t")
    checks = record(lent.run, "validation")["checks"]
    assert [c["name"] for c in checks if not c["ok"]] == ["background_rms"] and all(
        c["advice"] for c in checks if not c["ok"]
    )
    assert end_of(lent.run)["status"] == "validation_failed"
    status = record(lent.run, "run_status")
    assert status["status"] == "validation_failed" and status["reason"] == "background_rms"
    stacking = [e for e in events(lent.run) if e["type"] == "phase_end" and e["phase_name"] == "STACKING"]
    assert stacking[-1]["status"] == "validation_failed"
    said = lent.snakemake("--config", "run_id=t", "validation={strict: true}", fails=True)
    assert "validation_failed" in said and end_of(lent.run)["status"] == "validation_failed"
    for product in record(lent.run, "run_status")["products"]:
        assert (lent.run / product["path"]).stat().st_size == product["bytes"]
    lent.snakemake("--config", "run_id=t", "validation={strict: false}")
    assert lent.settled("--config", "run_id=t")


def noise(image, deviation, stride):
    return image + np.random.default_rng(3).normal(size=image.shape) * deviation


def lattice(image, deviation, stride):
    y, x = np.indices(image.shape)
    return image + 2 * deviation * np.cos(2 * np.pi * y / stride) * np.cos(2 * np.pi * x / stride)


def blur(image, deviation, stride):
    return ndimage.gaussian_filter(image, 1.5)


@pytest.mark.parametrize(
    ("fault", "failed"),
    [
        (None, set()),
        (noise, {"background_rms"}),
        (lattice, {"tile_lattice"}),
        (blur, {"fwhm_of_frames", "fwhm_of_plain_mean"}),
    ],
)
def test_validation__each_planted_fault_fails_its_own_checks_and_no_other(full, tmp_path, fault, failed):
    unsolved, image = full.run / "outputs/unsolved", tmp_path / "stacked.fits"
    shutil.copy(unsolved / "stacked.fits", image)
    if fault:
        with fits.open(image, mode="update") as hdus:
            clean, deviation = hdus[0].data.astype(float), np.sqrt(hdus["VAR"].data)
            known = np.isfinite(clean)
            filled = [np.where(known, plane, np.nanmedian(plane)) for plane in (clean, deviation)]
            planted = fault(*filled, record(full.run, "tile_grid")["stride_px"])
            hdus[0].data = np.where(known, planted, np.nan).astype(np.float32)
    planes = ("even", "odd", "plain_mean")
    paths = {"stacked": image, "rgb": unsolved / "stacked_rgb.fits", "header": unsolved / "stacked_header.fits"}
    paths |= {f"{name}{end}": unsolved / f"planes/{name}{end}.fits" for name in planes for end in ("", "_rgb")}
    names = {"reconstruction": "tile_reconstruction", "grid": "tile_grid"}
    for key in ("global_metrics", "registration", "reconstruction", "grid", "debayer"):
        paths[key] = full.run / f"artifacts/{names.get(key, key)}.json"
    validation.validate(paths, tmp_path / "validation.json")
    checks = json.loads((tmp_path / "validation.json").read_text())["checks"]
    assert {check["name"] for check in checks if not check["ok"]} == failed


def lights(folder, n):
    """Frames of noise alone: enough for what SCAN_INPUT decides."""
    folder.mkdir()
    rng = np.random.default_rng(n)
    for k in range(n):
        image = rng.normal(1000, 30, (96, 128)).astype(np.uint16)
        header = fits.Header({"EXPTIME": 10.0, "DATE-OBS": f"2026-11-20T{20 + k // 60:02d}:{k % 60:02d}:00"})
        fits.writeto(folder / f"light_{k:04d}.fits", image, header)


@pytest.mark.parametrize(
    ("n", "keys", "mode"),
    [
        (7, [], None),
        (8, [], "reduced"),
        (7, ["assumptions={allow_emergency_mode: true}"], "emergency"),
        (199, [], "reduced"),
        (200, [], "full"),
    ],
)
def test_gates__by_the_events_of_a_run(workdir, n, keys, mode):
    lights(workdir.root / "lights", n)
    target = ["--", "runs/t/artifacts/scan_input.json"]
    workdir.snakemake("--config", "run_id=t", "input=lights", *keys, *target, fails=mode is None)
    story = events(workdir.root / "runs/t")
    scan = next(e for e in story if e["type"] == "phase_end" and e["phase_name"] == "SCAN_INPUT")
    if mode is None:
        assert scan["status"] == "error" and story[-1]["status"] == "insufficient_frames"
        assert "assumptions.frames_min" in story[-1]["message"] and "7 usable" in story[-1]["message"]
    else:
        assert (scan["status"], scan["mode"]) == ("ok", mode) and story[-1]["status"] == "ok"
        warned = {e["code"] for e in story if e["type"] == "warning"}
        assert ("emergency_mode" in warned) == (mode == "emergency")
