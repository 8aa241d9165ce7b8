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
    image = np.ones((4, 5), np.float32)
    products.write(tmp_path / "s.fits", image, {"RUNID": "t"}, [("VAR", image)], [table], ["made"])
    with fits.open(tmp_path / "s.fits", checksum=True) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "VAR", "INPUTS"]
        assert hdus["INPUTS"].data["FILE"][0] == "m 31 \\xfc.fit" and np.isnan(hdus["INPUTS"].data["WEIGHT"][1])


class Snakemake:
    """What job.started needs of a job."""

    threads, rule = 1, "some_rule"

    def __init__(self, folder):
        self.log = type("Log", (), {"text": str(folder / "a.log"), "reason": str(folder / "a.json")})


@pytest.mark.parametrize(
    ("error", "raised", "status", "reason"),
    [
        (job.Stop("mixed_filters", "two filters"), SystemExit, "error", "mixed_filters"),
        (job.Stop("x", "few", "insufficient_frames"), SystemExit, "insufficient_frames", "x"),
        (OSError(28, "No space left on device", "a.fits"), OSError, "insufficient_disk_space", "disk_full"),
        (ValueError("bad shape"), ValueError, "error", "job_failed"),
    ],
)
def test_started__leaves_the_reason_of_a_failure(tmp_path, error, raised, status, reason):
    with pytest.raises(raised), job.started(Snakemake(tmp_path)):
        raise error
    left = json.loads((tmp_path / "a.json").read_text())
    assert (left["status"], left["reason"]) == (status, reason) and left["message"]
    assert left["message"].split()[-1] in (tmp_path / "a.log").read_text()


def test_started__leaves_no_reason_of_a_success(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with job.started(Snakemake(tmp_path)):
        pass
    assert not (tmp_path / "a.json").exists()
