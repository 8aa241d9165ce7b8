import shutil
import subprocess

import pytest

from browsing import CHROMIUM, DRIVER
from support import REAL, SMALL, Workdir


def slurm_answers():
    return bool(shutil.which("sinfo")) and subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0


# Marker: (what its tests need, whether it is there).
NEEDS = {
    "real": ("real frames in ../shared/data", REAL.is_dir()),
    "browser": ("Debian packages chromium and chromium-driver", bool(CHROMIUM and DRIVER)),
    "siril": ("Debian package siril", bool(shutil.which("siril-cli"))),
    "slurm": ("a Slurm that answers", slurm_answers()),
}


def pytest_report_header():
    return [
        f"{what}: {'found' if there else f'not found, tests marked {marker} are deselected'}"
        for marker, (what, there) in NEEDS.items()
    ]


def pytest_collection_modifyitems(config, items):
    missing = [marker for marker, (_, there) in NEEDS.items() if not there]
    left_out = [item for item in items if any(item.get_closest_marker(marker) for marker in missing)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    # Whole runs first: at the end short files keep both workers busy.
    items.sort(key=lambda item: item.path.parent.name not in ("real", "workflow"))


@pytest.fixture
def workdir(tmp_path):
    return Workdir(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A demonstration run at its end, never changed: ``copied`` is there for that."""
    work = Workdir(tmp_path_factory.mktemp("finished"))
    work.said = work.snakemake("--config", SMALL)
    work.run = work.root / "runs/demo"
    return work


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to change; the plan of a demonstration run holds no absolute path."""
    work = Workdir(tmp_path / "copy")
    shutil.copytree(finished.root, work.root)
    work.run = work.root / "runs/demo"
    return work
