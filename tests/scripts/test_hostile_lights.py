"""Files that no camera writes, in small numbers; tests/acceptance/fuzz.py has thousands."""

import json
import sys
import warnings

import hypothesis
import numpy as np

import hostile
from support import ROOT, simulate
from tilestack import inspection, lights, records, selection

sys.path.append(str(ROOT / "tests/acceptance"))
import fuzz  # noqa: E402


def test_inspect__gives_facts_or_a_reason_for_faulty_lights(tmp_path):
    """In a process of its own, with limits of time and memory: a crash or a hang there is a fate too."""
    simulate(tmp_path / "good", "--n-frames", "2", "--height-px", "120", "--width-px", "160")
    (tmp_path / "lights").mkdir()
    files = hostile.series(150, 3, fuzz.sources(tmp_path / "good"))
    for name, content in [(fuzz.GOOD, (tmp_path / "good/light_0001.fits").read_bytes()), *files]:
        (tmp_path / "lights" / name).write_bytes(content)
    fates = fuzz.judged(tmp_path / "lights", [name for name, _ in files], tmp_path)
    assert fuzz.failed(fates) == []
    assert {"taken", "truncated", "unreadable", "no_image"} <= {fate["fate"] for fate in fates.values()}
    assert len(fates) == 151 and not fuzz.ESCAPED.exists()


@hypothesis.settings(max_examples=150, deadline=None, database=None, derandomize=True)
@hypothesis.given(content=hostile.headers())
def test_inspect__takes_any_header(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.fits"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what astropy has to say about them
        facts = inspection.inspect(path)
        file = selection.decide([("01_a", [facts])], fuzz.SCAN, 5.0)["01_a"]["files"][0]
    records.write(path.with_suffix(".json"), facts)
    assert json.loads(path.with_suffix(".json").read_text())["name"] == "any.fits"
    assert (file["reason"] is not None) == (file["status"] == "excluded")
    if facts["error"] is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image, _ = lights.read(path)
        assert image.dtype == np.float32 and list(image.shape) == facts["shape"] == [60, 100]
