import json

import matplotlib.image
import numpy as np
import pytest
from astropy.io import fits

from tilestack import job, preview, products


@pytest.mark.parametrize("shape", [(60, 90), (3, 60, 90), (3, 2100, 4300)])
def test_preview__is_a_picture_with_a_dark_sky_and_bright_stars(tmp_path, shape):
    rng = np.random.default_rng(1)
    image = rng.normal(1000, 10, shape).astype(np.float32)
    if len(shape) == 3:
        image += np.array([0, 300, -200], np.float32)[:, None, None]
    image[..., 20:24, 30:34] += 20000
    image[..., :5, :] = np.nan
    preview.write(tmp_path / "p.png", image)
    picture = np.atleast_3d(matplotlib.image.imread(tmp_path / "p.png"))
    factor = -(-max(shape) // 2048)
    assert picture.shape[:2] == (shape[-2] // factor, shape[-1] // factor)
    sky = np.median(picture[picture.shape[0] // 2 :], axis=(0, 1))
    np.testing.assert_allclose(sky, preview.SKY_TARGET, atol=0.03)  # colours of the sky made equal
    assert picture[0].max() == 0 and picture[20 // factor + 1, 30 // factor + 1].min() > 0.9


def test_preview__flip_puts_the_last_row_on_top(tmp_path):
    image = np.random.default_rng(2).normal(0, 1, (40, 40))
    for flip in (False, True):
        preview.write(tmp_path / f"{flip}.png", image, flip=flip)
    one, other = (matplotlib.image.imread(tmp_path / f"{flip}.png") for flip in (False, True))
    np.testing.assert_array_equal(one[::-1], other)


def test_write__makes_fits_that_verifies(tmp_path):
    row = dict.fromkeys(("weight", "scale", "noise", "fwhm", "shift_y", "shift_x", "rotation", "rejected"), 1.5) | {
        "file": "m 31 ü.fit",
        "session": "01_a",
        "sha256": "ab",
        "status": "ok",
        "method": None,
    }
    table = products.inputs_table([row, row | {"weight": None, "file": "b"}])
    history = ["made of ü", "a line of more than 72 letters" * 3]
    products.write_header(tmp_path / "h.fits", {"RUNID": ("t", "its name"), "FWHM": None}, history, table)
    cards, lines = products.read_header(tmp_path / "h.fits")
    assert cards == {"RUNID": ("t", "its name")} and "".join(lines) == "made of \\xfc" + history[1]
    image = np.ones((4, 5), np.float32)
    inputs = products.read_inputs(tmp_path / "h.fits")
    products.write(tmp_path / "s.fits", image, cards, [("VAR", image)], [inputs], lines)
    for name, images in (("h.fits", []), ("s.fits", ["VAR"])):
        with fits.open(tmp_path / name, checksum=True) as hdus:
            hdus.verify("exception")
            assert [hdu.name for hdu in hdus] == ["PRIMARY", *images, "INPUTS"]
            inputs = hdus["INPUTS"]
            assert inputs.data["FILE"].tolist() == ["m 31 \\xfc.fit", "b"] and not inputs.data["METHOD"].any()
            np.testing.assert_array_equal(inputs.data["WEIGHT"], [1.5, np.nan])
            assert inputs.columns["SIGMA"].unit == "adu" and inputs.columns["SCALE"].unit is None


def test_write__takes_parts_of_arrays_in_any_byte_order_and_what_reads_them(tmp_path):
    rng = np.random.default_rng(3)
    image = rng.normal(0, 1, (3, 40, 31)).astype(np.float32)
    mask, counts = rng.integers(0, 9, (40, 31)).astype(np.int16), rng.integers(0, 9, (40, 31)).astype(np.int32)
    kept = image.copy()
    parts = [("VAR", image[:, 3:20, 2:9]), ("NIM", lambda: counts.astype(">i4")[::2, 1:]), ("MASK", mask)]
    products.write(tmp_path / "s.fits", image[:, ::3], {"CRVAL1": 3.0}, parts)
    with fits.open(tmp_path / "s.fits", checksum=True) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "MASK", "VAR", "NIM"]
        assert all("DATASUM" in hdu.header and hdu.header["CRVAL1"] == 3 for hdu in hdus)
        wanted = image[:, ::3], mask, image[:, 3:20, 2:9], counts[::2, 1:]
        for hdu, values in zip(hdus, wanted, strict=True):
            np.testing.assert_array_equal(hdu.data, values)
    np.testing.assert_array_equal(image, kept)


class Snakemake:
    """What job.started needs of a job."""

    threads, rule = 1, "some_rule"

    def __init__(self, run):
        (run / "logs").mkdir()
        self.log = type("Log", (), {"text": str(run / "logs/a.log"), "reason": str(run / "logs/a.json")})


@pytest.fixture
def job_of_run(tmp_path, monkeypatch):
    """A job of the start that holds the run."""
    (tmp_path / ".lock").write_text("node 7 1.0")
    monkeypatch.setenv("TILESTACK_START", "node 7 1.0")
    return Snakemake(tmp_path)


@pytest.mark.parametrize(
    ("error", "raised", "status", "reason"),
    [
        (job.Stop("mixed_filters", "two filters"), SystemExit, "error", "mixed_filters"),
        (job.Stop("x", "few", "insufficient_frames"), SystemExit, "insufficient_frames", "x"),
        (OSError(28, "No space left on device", "a.fits"), SystemExit, "insufficient_disk_space", "disk_full"),
        (OSError("187562 requested and 106624 written"), SystemExit, "insufficient_disk_space", "disk_full"),
        (MemoryError("Unable to allocate 9 GiB"), SystemExit, "error", "out_of_memory"),
        (ValueError("bad shape"), ValueError, "error", "job_failed"),
    ],
)
def test_started__leaves_the_reason_of_a_failure(tmp_path, job_of_run, error, raised, status, reason):
    with pytest.raises(raised), job.started(job_of_run):
        raise error
    left = json.loads((tmp_path / "logs/a.json").read_text())
    assert (left["status"], left["reason"]) == (status, reason) and left["message"]
    assert left["message"].split()[-1] in (tmp_path / "logs/a.log").read_text()


def test_started__knows_a_full_disk_behind_the_error_of_astropy(tmp_path, job_of_run):
    with pytest.raises(SystemExit), job.started(job_of_run):
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise OSError("Not enough space on disk") from None
    assert json.loads((tmp_path / "logs/a.json").read_text())["reason"] == "disk_full"


def test_started__leaves_no_reason_of_a_success(tmp_path, job_of_run):
    (tmp_path / "logs/a.json").write_text("{}")
    with job.started(job_of_run):
        pass
    assert not (tmp_path / "logs/a.json").exists()


def test_started__a_job_of_a_killed_start_does_not_begin(tmp_path, job_of_run):
    (tmp_path / ".lock").write_text("node 8 2.0")
    (tmp_path / "logs/a.json").write_text("of the new start")
    with pytest.raises(SystemExit, match="node 7.*killed.*node 8"), job.started(job_of_run):
        pytest.fail("began")
    assert (tmp_path / "logs/a.json").read_text() == "of the new start"
