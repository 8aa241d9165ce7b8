"""Faults that cost little to make: those of tests/acceptance/faults.py that change a finished run, kills, locks."""

import fcntl
import random
import subprocess
import sys
import time

import pytest

from support import ROOT, SMALL, Workdir, events

sys.path.append(str(ROOT / "tests/acceptance"))
import faults  # noqa: E402
import kills  # noqa: E402


@pytest.mark.parametrize("fault", ["damaged_file", "left_over"])
def test_fault__ends_with_a_reason_and_is_repaired(fault, finished, tmp_path):
    assert faults.OF_FINISHED[fault](tmp_path, finished.root)


def test_run__kills_are_repaired_by_the_same_command(finished, tmp_path):
    """Snakemake with all its jobs, Snakemake alone, and one job: three kills of one run."""
    work, ways = Workdir(tmp_path), ["all", "snakemake", "job"]
    hits, wrong = kills.trial(work, ["--config", SMALL], ways, [4, 12, 25], random.Random(1))
    assert hits == ways and wrong == []
    assert kills.digests(tmp_path / "runs/demo") == kills.digests(finished.run)


def test_run__is_held_by_one_start_and_waits_for_jobs_of_a_killed_one(copied):
    work, run = copied, copied.run
    n_events = len(events(run))
    with open(run / ".lock", "a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = work.snakemake("--forcerun", "report", fails=True)
    assert "run demo is being processed by another snakemake" in said and len(events(run)) == n_events
    with open(run / ".jobs", "a") as alive:
        fcntl.flock(alive, fcntl.LOCK_SH)
        start = subprocess.Popen(work.command("--forcerun", "report"), stderr=subprocess.PIPE, text=True)
        line = next(line for line in start.stderr if "waits for jobs" in line)
        time.sleep(1)
        assert start.poll() is None and len(events(run)) == n_events, line
    said = start.communicate()[1]
    assert start.returncode == 0, said
    assert events(run)[-1]["status"] == "ok"
