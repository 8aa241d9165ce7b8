"""The cache of compiled kernels, empty as on a new node, under several first jobs at once."""

import json
import os
import subprocess
import sys

import numpy as np
from astropy.io import fits

from support import ROOT

LOOK = """
import sys
sys.path.insert(0, sys.argv[1])
from tilestack import inspection, records
from tilestack.kernels import scan
facts = inspection.inspect(sys.argv[2])
hits = [sum(k.stats.cache_hits.values()) for k in vars(scan).values() if hasattr(k, "stats")]
records.write(sys.argv[3], {"facts": facts, "hits": sum(hits)})
"""


def test_kernels__of_first_jobs_at_once_are_compiled_and_kept_safely(tmp_path):
    pixels = np.random.default_rng(4).normal(900, 30, (300, 400)).astype(np.uint16)
    fits.PrimaryHDU(pixels).writeto(tmp_path / "a.fits")
    settings = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def look(k):
        words = [sys.executable, "-c", LOOK, ROOT / "scripts", tmp_path / "a.fits", tmp_path / f"{k}.json"]
        return subprocess.Popen(words, env=settings)

    first = [look(k) for k in range(4)]
    assert [job.wait() for job in first] == [0, 0, 0, 0]
    assert look(4).wait() == 0
    found = [json.loads((tmp_path / f"{k}.json").read_text()) for k in range(5)]
    assert all(one["facts"] == found[0]["facts"] for one in found)
    assert found[4]["hits"] > 0
