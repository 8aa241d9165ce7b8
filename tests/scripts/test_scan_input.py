import shutil
from collections import namedtuple

import pytest
from scan_input import check_disk

from tilestack.job import Stop

DECIDED = {"01_a": {"shape": [1000, 2000], "files": [{"status": "ok"}] * 50}}
FACTS = {"01_a": [[{}] * 25, [{}] * 25]}
# No drizzled planes, no clusters.
MONO = 0, {"split_sessions": 0, "flat_weights": False, "by_cluster": False}
Usage = namedtuple("Usage", "total used free")


def test_check_disk__stops_where_there_is_too_little_room(tmp_path, monkeypatch):
    need = check_disk(DECIDED, FACTS, tmp_path, *MONO)["need_bytes"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1e12, 0, need - 1))
    with pytest.raises(Stop, match="GB under .* the disk has") as stop:
        check_disk(DECIDED, FACTS, tmp_path, *MONO)
    assert stop.value.status == "insufficient_disk_space"
    # What the run has written already needs no room again.
    batch = tmp_path / "work/prewarp/01_a/0001.fits"
    batch.parent.mkdir(parents=True)
    batch.write_bytes(b"x" * 100)
    assert check_disk(DECIDED, FACTS, tmp_path, *MONO)["written_bytes"] == 100


def test_check_disk__a_batch_with_sums_is_done_with_or_without_its_pixels(tmp_path):
    whole = check_disk(DECIDED, FACTS, tmp_path, *MONO)["need_bytes"]
    sums = tmp_path / "work/sums/01_a/0002.fits"
    sums.parent.mkdir(parents=True)
    sums.write_bytes(b"x")
    (tmp_path / "work/prewarp/01_a").mkdir(parents=True)
    (tmp_path / "work/prewarp/01_a/0002.fits").write_bytes(b"x" * 100)
    told = check_disk(DECIDED, FACTS, tmp_path, *MONO)
    assert (
        told["written_bytes"] == 0 and whole / 2 < told["need_bytes"] + 4 * 60 * 2e6 * 1.5 < whole + 4 * 60 * 2e6 * 1.5
    )


def test_check_disk__leaves_excluded_lights_out(tmp_path):
    excluded = {"01_a": {"shape": [1000, 2000], "files": [{"status": "excluded"}] * 25 + [{"status": "ok"}] * 25}}
    assert (
        check_disk(excluded, FACTS, tmp_path, *MONO)["need_bytes"]
        < check_disk(DECIDED, FACTS, tmp_path, *MONO)["need_bytes"]
    )
