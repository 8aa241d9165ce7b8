"""Registration in whole runs: aligned frames, lights without any star, and sets of them."""

import json

import numpy as np
import pytest
import sep
from astropy.io import fits

from support import Workdir, events, pixels, record, same_bits, simulate, stamps

N_FRAMES, BLANK = 12, "light_0006.fits"
SERIES = ["--n-frames", str(N_FRAMES), "--height-px", "400", "--width-px", "560", "--mono", "--seed", "44"]
SERIES += ["--scale-arcsec", "4.0"]  # many stars
# The field turns by 4 degrees and drifts; no dither, so that a frame without stars can be placed by prediction.
NIGHT = ["--interval-s", "120", "--dither-px", "1", "--cloud-share", "0", "--trail-share", "0"]
NO_STARS = ["--zero-point-mag", "1", "--no-extended", "--trail-share", "0"]


class Nights:
    """A night with one light under clouds, stacked; and the same with a later night of nothing but clouds."""

    def __init__(self, root):
        simulate(root / "night", *SERIES, *NIGHT)
        simulate(root / "clouds", *SERIES, *NIGHT, *NO_STARS)  # the same camera, with its hot pixels
        self.truth = json.loads((root / "night/truth/truth.json").read_text())
        with fits.open(root / "night" / BLANK, mode="update") as hdus:
            hdus[0].data[:] = fits.getdata(root / "clouds" / BLANK)
            hdus[0].data[0, 0] += 1  # else it were a duplicate
        self.before = {name: stamps(root / name) for name in ("night", "clouds")}
        work = Workdir(root)
        work.snakemake("--config", "run_id=t", "input=[night]", "output={write_registered_frames: true}")
        self.run, self.root = root / "runs/t", root
        self.first = {"pixels": pixels(self.run), "registration": record(self.run, "registration")}
        work.snakemake("--config", "run_id=t", "input=[night,clouds]")
        self.registration = record(self.run, "registration")


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    return Nights(tmp_path_factory.mktemp("nights"))


def test_registered_frames__stars_stand_where_those_of_the_reference_do(nights):
    found = nights.first["registration"]
    transforms = {frame["file"]: np.array(frame["transform"]) for frame in nights.truth["frames"]}
    stars = {key: np.array(nights.truth["stars"][key], float) for key in ("x", "y", "flux")}
    xy, flux = np.column_stack([stars["x"], stars["y"]]), stars["flux"][:, 0]
    apart = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1))
    alone = np.array([not ((d > 0) & (d < 9) & (flux > 0.05 * f)).any() for d, f in zip(apart, flux, strict=True)])
    chosen = xy[alone & (flux > 300) & (flux < 2500)]
    in_reference = (chosen - transforms[found["reference"]][:, 2]) @ np.linalg.inv(
        transforms[found["reference"]][:, :2]
    ).T
    folder = nights.run / "outputs/registered/01_night/0001"
    assert sorted(path.name for path in folder.glob("*.fits")) == sorted(transforms)
    for frame in found["frames"]:
        with fits.open(folder / frame["file"]) as hdus:
            image, header = hdus[0].data.astype(float), hdus[0].header
        assert image.shape == nights.first["pixels"]["PRIMARY"].shape and header["METHOD"] == frame["method"]
        if frame["file"] == BLANK:
            continue
        expected = in_reference - [header["LATTX0"], header["LATTY0"]]
        known = np.isfinite(image)
        window = [np.clip(np.rint(expected[:, k]).astype(int), 8, image.shape[1 - k] - 9) for k in (0, 1)]
        inside = np.array([known[y - 8 : y + 9, x - 8 : x + 9].all() for x, y in zip(*window, strict=True)])
        inside &= (expected > 10).all(1) & (expected < np.array(image.shape[::-1]) - 11).all(1)
        flat = np.where(known, image - np.nanmedian(image), 0)
        x, y, failed = sep.winpos(flat, *expected[inside].T.copy(), 1.1)
        off = np.column_stack([x, y]) - expected[inside]
        assert inside.sum() >= 12 and not failed.any()
        assert np.sqrt((off**2).sum(1).mean()) < 0.1, frame["file"]


def test_run__never_writes_to_its_input(nights):
    assert {name: stamps(nights.root / name) for name in ("night", "clouds")} == nights.before


def test_run__light_without_stars_is_predicted_counted_apart_and_weighs_nothing(nights):
    found = nights.first["registration"]
    assert found["methods"] == {"triangles": N_FRAMES - 1, "predicted": 1}
    assert (found["summary"]["matched"], found["summary"]["predicted"]) == (N_FRAMES - 1, 1)
    assert found["warnings"] == {"predicted": 1}
    weights = {frame["file"]: frame["weight"][0] for frame in record(nights.run, "global_metrics")["frames"]}
    assert weights.pop(BLANK) < 0.01 * min(weights.values())


def test_run__later_night_without_stars_changes_nothing(nights):
    found = nights.registration
    assert (found["summary"]["frames"], found["summary"]["unregistered"]) == (2 * N_FRAMES, N_FRAMES)
    assert found["summary"]["matched"] == N_FRAMES - 1 and found["warnings"]["not_placed"] == N_FRAMES
    for frame in found["frames"]:
        if frame["session"] == "02_clouds":
            assert (frame["method"], frame["transform"], frame["reason"]) == ("none", None, "not_registered")
            assert frame["tries"][-1]["reason"]
    assert record(nights.run, "run_status")["status"] == "ok"
    assert same_bits(nights.first["pixels"], pixels(nights.run))
    assert fits.getheader(nights.run / "outputs/stacked.fits")["NCOMBINE"] == N_FRAMES


def test_run__stops_where_hot_pixels_are_all_that_frames_share(tmp_path):
    """They stand still, as no field does that a telescope follows: no place may be made of them."""
    simulate(tmp_path / "dark", "--n-frames", "8", "--height-px", "400", "--width-px", "600", "--seed", "2", *NO_STARS)
    said = Workdir(tmp_path).snakemake("--config", "run_id=dark", "input=dark", fails=True)
    last = events(tmp_path / "runs/dark")[-1]
    assert last["type"] == "run_end" and last["reason"].startswith("registration_failed")
    assert "Are the lights of one field" in last["message"] and last["message"] in said
