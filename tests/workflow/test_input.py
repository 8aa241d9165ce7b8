"""Input that is wrong: a reason code and on, or a clear stop."""

import gzip
import json
import shutil

import numpy as np
import pytest
from astropy.io import fits

from support import Workdir, events, record, simulate, stamps

ODD_NAME = "- m 31 ü\n{x} $HOME 'a'"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Nine good lights and one of everything that can lie among them, under names that shells and FITS do not like."""
    root = tmp_path_factory.mktemp("mixed")
    lights = root / ODD_NAME
    simulate(lights, "--seed", "31")
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
    (lights / "light_0006.fits").rename(root / "elsewhere")
    (lights / "-light 6 ü\n`{y}`;.fits").symlink_to(root / "elsewhere")
    (lights / "broken.fits").symlink_to("/proc/self/mem")  # to read it is an error of the system
    (lights / "nowhere.fits").symlink_to(root / "nowhere")
    (lights / "circle.fits").symlink_to(lights / "circle.fits")
    (lights / "notes.txt").write_text("left alone")
    for path in lights.iterdir():
        if not path.is_symlink():
            path.chmod(0o444)
    lights.chmod(0o555)
    yield root
    lights.chmod(0o755)


def test_run__bad_input_gets_a_reason_and_the_run_goes_on(mixed):
    before = stamps(mixed / ODD_NAME)
    work = Workdir(mixed)
    work.snakemake("--config", "run_id=bad", f"input=[{json.dumps(ODD_NAME)}]")
    assert stamps(mixed / ODD_NAME) == before
    reasons = {f["name"]: f["reason"] for f in record(mixed / "runs/bad", "scan_input")["files"] if f["reason"]}
    assert reasons == {
        "broken.fits": "unreadable",
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
    warned = {e["code"]: e["count"] for e in events(mixed / "runs/bad") if e["type"] == "warning"}
    assert warned["duplicate"] == 1 and warned["truncated"] == 1


def test_run__takes_lights_without_any_header(tmp_path):
    """Colour lights as floats from 0 to 1, with bad columns, and nothing but the structure in their headers."""
    simulate(tmp_path / "full", "--seed", "33", "--height-px", "320", "--width-px", "440")
    (tmp_path / "bare").mkdir()
    for path in sorted((tmp_path / "full").glob("*.fits")):
        data = fits.getdata(path).astype(np.float32) / 65535
        data[:, 100:102] = np.nan
        fits.PrimaryHDU(data).writeto(tmp_path / "bare" / path.with_suffix(".fts").name)
    work = Workdir(tmp_path)
    said = work.snakemake("--config", "run_id=asked", "input=bare", fails=True)
    assert "set scan.bayer_pattern to RGGB" in said
    keys = "scan={bayer_pattern: GRBG, exposure_s: 10, filter: IRCUT}"
    work.stack("--config", "run_id=bare", "input=bare", keys)
    work.stack("--config", "run_id=full", "input=full")
    bare, full = tmp_path / "runs/bare", tmp_path / "runs/full"
    assert record(bare, "registration")["summary"]["matched"] == 10
    header = fits.getheader(bare / "outputs/unsolved/stacked_header.fits")
    assert (header["EXPTIME"], header["FILTER"], header["BAYERPAT"]) == (10, "IRCUT", "GRBG")
    one, other = (fits.getdata(run / "outputs/unsolved/stacked_rgb.fits") for run in (bare, full))
    assert record(bare, "registration")["reference"][:10] == record(full, "registration")["reference"][:10]
    inner = (slice(None), slice(60, 260), slice(150, 380))
    noise = np.sqrt(fits.getdata(full / "outputs/unsolved/stacked_rgb.fits", "VAR")[inner])
    # The same stack in other units: bad columns change which frames there are, and where others are put.
    assert np.nanmedian(np.abs(one[inner] * 65535 - other[inner]) / noise) < 0.2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run_id=007"], "at least one letter or hyphen"),
        (["run_id=../up"], "run_id must match"),
        (["run_id=/tmp/up"], "run_id must match"),
        (["run_id=.."], "run_id must match"),
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


def test_run__executes_nothing_that_its_configuration_holds(workdir):
    run = workdir.root / "runs/t"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(
        f"run_id: t\nbge: !!python/object/apply:os.system ['touch {workdir.root}/escaped']\n"
    )
    assert "could not determine a constructor" in workdir.snakemake("--config", "run_id=t", fails=True)
    assert not (workdir.root / "escaped").exists()


def test_run__stops_with_a_reason_where_frames_do_not_do(tmp_path):
    simulate(tmp_path / "few", "--n-frames", "5")
    simulate(tmp_path / "more", "--n-frames", "5", "--seed", "2")
    simulate(tmp_path / "grey", "--mono")
    simulate(tmp_path / "blank", "--zero-point-mag", "1", "--no-extended", "--hot-share", "0", "--trail-share", "0")
    work = Workdir(tmp_path)
    for run_id, source, reason in (
        ("few", "few", "insufficient_frames"),
        ("mix", "[few,grey]", "mixed_colour_modes"),
        ("filters", "[{path: few, filter: Ha},{path: more, filter: OIII}]", "mixed_filters"),
        ("blank", "blank", "no_stars"),
    ):
        said = work.snakemake("--config", f"run_id={run_id}", f"input={source}", fails=True)
        last = events(tmp_path / f"runs/{run_id}")[-1]
        assert last["type"] == "run_end" and last["reason"] == reason and last["message"] in said, said
    assert events(tmp_path / "runs/few")[-1]["status"] == "insufficient_frames"
    work.stack("--config", "run_id=few", "assumptions={allow_emergency_mode: true}")
    assert record(tmp_path / "runs/few", "scan_input")["mode"] == "emergency"
