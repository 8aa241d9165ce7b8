"""Acceptance tests on small series: the same figures, goals and planted faults, with the errors of small numbers."""

import sys

import pytest

from support import ROOT

sys.path[:0] = [str(ROOT / "tests/acceptance")]
import checks  # noqa: E402

SIZE = {"n_frames": 16, "height_px": 480, "width_px": 480}


@pytest.mark.parametrize("test", ["t0", "t5", "t7", "t9", "t10"])
def test_acceptance__reaches_its_goals_and_catches_planted_faults(test, tmp_path):
    rows = getattr(checks, test)(tmp_path / "case", SIZE, seed=77)
    assert rows and [row for row in rows if not row.ok or row.caught is False] == []
