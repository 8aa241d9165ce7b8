"""Fixtures that several groups of tests share."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared/data"


def pytest_report_header():
    return (
        f"real frames: {'found' if REAL.is_dir() else 'not found, tests marked real are deselected'} (../shared/data)"
    )


def pytest_collection_modifyitems(config, items):
    if REAL.is_dir():
        return
    real = [item for item in items if item.get_closest_marker("real")]
    config.hook.pytest_deselected(items=real)
    items[:] = [item for item in items if item not in real]


class Workdir:
    """A folder in which the workflow runs."""

    def __init__(self, root):
        self.root = root

    def command(self, *args, cores=2):
        where = ["--snakefile", ROOT / "Snakefile", "--directory", self.root]
        return [sys.executable, "-m", "snakemake", *where, "--cores", str(cores), *args]

    def snakemake(self, *args, cores=2, fails=False):
        """Run the workflow; what it said."""
        done = subprocess.run(self.command(*args, cores=cores), capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, said
        return said

    def settled(self, *args):
        return "Nothing to be done" in self.snakemake("--dry-run", *args)


@pytest.fixture
def workdir(tmp_path):
    return Workdir(tmp_path)
