"""The demonstration series through a real Slurm (tests/slurm/local_slurm.sh) and on this machine: the same bits."""

import re
import subprocess
import sys

import pytest

from support import ROOT, SMALL, Workdir, events, pixels, same_bits

# A Slurm without accounting is asked by squeue.
LOCAL = ["--slurm-init-seconds-before-status-checks", "5", "--slurm-no-account", "--slurm-status-command", "squeue"]
PRODUCTS = [f"unsolved/{name}.fits" for name in ("stacked", "stacked_rgb", "planes/even", "planes/plain_mean")]
TWO_BATCHES = "frames_per_batch=5"


def through_slurm(root, *args):
    """What a run through Slurm says."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", root]
    command += ["--profile", ROOT / "profiles/slurm", *LOCAL, *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slurm
def test_slurm__gives_the_bits_of_this_machine(tmp_path):
    Workdir(tmp_path).stack("--config", "run_id=local", SMALL, TWO_BATCHES)
    said = through_slurm(tmp_path, "--config", "run_id=cluster", SMALL, TWO_BATCHES)
    local, cluster = tmp_path / "runs/local", tmp_path / "runs/cluster"
    for name in PRODUCTS:
        assert same_bits(pixels(local, name), pixels(cluster, name)), name
    assert events(cluster)[-1]["status"] == "ok"
    # Batches go as arrays, steps that follow one another as groups, jobs of a second not at all.
    assert len(re.findall(r"Submitted array job", said)) == 5
    assert len(re.findall(r"submitted with SLURM jobid", said)) <= 5, said


@pytest.mark.slurm
def test_slurm__a_job_that_runs_out_of_memory_is_tried_again_with_more(tmp_path):
    lights = "runs/little/lights"
    little = ["--set-resources", "demo_lights:mem_mb=40 * attempt ** 4"]
    said = through_slurm(tmp_path, *little, "--config", "run_id=little", SMALL, "--", lights)
    assert len(re.findall(r"submitted with SLURM jobid", said)) == 2, said
    assert len(list((tmp_path / lights).glob("*.fits"))) == 10
    assert events(tmp_path / "runs/little")[-1]["status"] == "ok"
