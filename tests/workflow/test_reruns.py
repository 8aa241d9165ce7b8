"""What runs again and what does not: new nights, changed keys, changed code, lights that are gone."""

import json
import shutil

import pytest
from astropy.io import fits

from support import Workdir, record, simulate, stamps

# What all batches are added up to, and so is made again with a new night.
ADDED_UP = ("reconstruction.fits", "drizzled.fits")
ADDED_UP += ("synthetic_stack.fits", "synthetic_stack_drizzled.fits", "synthetic_stack.json")


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it to change; the plan of a demonstration run holds no absolute path."""
    work = Workdir(tmp_path / "copy")
    shutil.copytree(finished.root, work.root)
    work.run = work.root / "runs/demo"
    return work


def test_run__new_night_in_front_runs_no_job_of_the_old_ones(tmp_path):
    for name, seed in (("night1", "21"), ("night2", "22"), ("night0", "23")):
        simulate(tmp_path / name, "--seed", seed)
    work = Workdir(tmp_path)
    work.snakemake("--config", "run_id=t", "input=[night1,night2]")
    run = tmp_path / "runs/t"
    old = {path: stamp for path, stamp in stamps(run / "work").items() if path.name not in ADDED_UP}
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
    assert {path: later[path] for path in new if path.name not in ADDED_UP} == {
        path: stamp for path, stamp in new.items() if path.name not in ADDED_UP
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
