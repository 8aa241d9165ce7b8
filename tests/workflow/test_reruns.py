"""What runs again and what does not: new nights, changed keys, changed code, lights that are gone."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from astropy.io import fits

from support import ROOT, Workdir, kept_stamps, record, simulate, stamps


def test_run__new_night_in_front_runs_no_job_of_the_old_ones(tmp_path):
    for name, seed in (("night1", "21"), ("night2", "22"), ("night0", "23")):
        simulate(tmp_path / name, "--seed", seed)
    work = Workdir(tmp_path)
    work.stack("--config", "run_id=t", "input=[night1,night2]")
    run = tmp_path / "runs/t"
    old = kept_stamps(run / "work")
    work.stack("--config", "run_id=t", "input=[night0,night1,night2]")
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
    old = kept_stamps(run / "work")
    work.snakemake("--config", "run_id=t", "input=[night0,night1,night2]")
    later = stamps(run / "work")
    assert {path: later[path] for path in old} == old
    assert [s["id"] for s in json.loads((run / "plan.json").read_text())["sessions"]][-1] == "04_night1"
    assert work.settled("--config", "run_id=t")
    # Touched lights, and lights that were archived, rerun nothing.
    for path in (tmp_path / "night2").iterdir():
        os.utime(path)
    (tmp_path / "night1").rename(tmp_path / "archive")
    assert work.settled("--config", "run_id=t")


# What depends on which: (key or file of scripts/tilestack, first rules that run again, rules that must not).
EARLY = {"scan_frames", "detect_stars", "registration", "prewarp", "normalization", "local_metrics"}
MIDDLE = {"colour_template", "reconstruct_batch", "tile_reconstruction", "synthetic_stack", "stacking"}
CHANGES = [
    ("kernels/debayer.py", {"debayer"}, EARLY | MIDDLE),
    ("debayering.py", {"debayer"}, EARLY | MIDDLE),
    ("kernels/drizzle.py", {"reconstruct_batch"}, EARLY - {"local_metrics"}),
    ("calibration.py", {"pcc"}, EARLY | MIDDLE | {"debayer", "astrometry", "bge"}),
    ("report/words.py", {"report"}, EARLY | MIDDLE | {"debayer", "astrometry", "bge", "pcc", "done"}),
    ("debayer={method: bilinear}", {"debayer"}, EARLY | MIDDLE),
    ("pcc={enabled: false}", {"pcc"}, EARLY | MIDDLE | {"debayer", "astrometry", "bge"}),
    ("tile_reconstruction={kappa: 5.5}", {"reconstruct_batch"}, EARLY),
    ("registration={sigma: 5.5}", {"detect_stars"}, {"scan_frames"}),
]


@pytest.mark.parametrize(("change", "first", "untouched"), CHANGES, ids=[change for change, *_ in CHANGES])
def test_change__runs_again_what_depends_on_it_and_nothing_earlier(change, first, untouched, finished, tmp_path):
    repository = tmp_path / "repository"
    repository.mkdir()
    shutil.copy(ROOT / "Snakefile", repository)
    for name in ("config", "envs", "profiles", "rules", "scripts"):
        shutil.copytree(ROOT / name, repository / name)
    args = []
    if change.endswith(".py"):
        with open(repository / "scripts/tilestack" / change, "a") as stream:
            stream.write("\nCHANGED = 1\n")
    else:
        args = ["--config", change]
    command = [sys.executable, "-m", "snakemake", "--snakefile", repository / "Snakefile", "--directory", finished.root]
    done = subprocess.run([*command, "--dry-run", *args], capture_output=True, text=True, check=True)
    jobs = set(re.findall(r"^([a-z_]+) +[0-9]+$", done.stdout, re.MULTILINE)) - {"all", "total"}
    assert first <= jobs and not untouched & jobs, jobs


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
