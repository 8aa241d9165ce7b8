"""The demonstration series through a real Slurm (tests/slurm/local_slurm.sh) and on this machine: the same bits."""

import subprocess
import sys

import pytest

from support import ROOT, SMALL, events, pixels, same_bits

# A Slurm without accounting is asked by squeue.
LOCAL = ["--slurm-init-seconds-before-status-checks", "5", "--slurm-no-account", "--slurm-status-command", "squeue"]
PRODUCTS = ("stacked.fits", "stacked_rgb.fits", "planes/even.fits", "planes/plain_mean.fits")


@pytest.mark.slurm
def test_slurm__gives_the_bits_of_this_machine(finished):
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", finished.root]
    command += ["--profile", ROOT / "profiles/slurm", *LOCAL, "--config", "run_id=cluster", SMALL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "submitted with SLURM jobid" in done.stdout + done.stderr
    run = finished.root / "runs/cluster"
    for name in PRODUCTS:
        assert same_bits(pixels(finished.run, name), pixels(run, name)), name
    assert events(run)[-1]["status"] == events(finished.run)[-1]["status"] == "ok"
