import pytest

from support import REAL, SMALL, Workdir


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


@pytest.fixture
def workdir(tmp_path):
    return Workdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A demonstration run at its end, never changed."""
    work = Workdir(tmp_path_factory.mktemp("finished"))
    work.said = work.snakemake("--config", SMALL)
    work.run = work.root / "runs/demo"
    return work
