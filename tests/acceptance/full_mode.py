"""Full mode on a night of three states, at full length: its clusters, and its stack against that of reduced mode.

Usage: full_mode.py FOLDER [frames] [rows and columns]
"""

import dataclasses
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests/acceptance")]

import numpy as np  # noqa: E402
from case import PLAIN, Case  # noqa: E402
from checks import paired, spreads  # noqa: E402
from efficiency.restack import planes  # noqa: E402
from sklearn.metrics import adjusted_rand_score  # noqa: E402


def full_mode(folder, n_frames=240, size=480, seed=41):
    """Figures by name, with what they are to be."""
    night = spreads(0.10, 0.08, 0.05, state_frames=n_frames // 3)
    options = dataclasses.replace(
        PLAIN, **night, n_frames=n_frames, height_px=size, width_px=size, seed=seed, interval_s=30.0
    )
    # A factor that changes nothing: without any the stack of synthetic frames is the reconstruction.
    config = (f"assumptions={{frames_reduced_threshold: {n_frames}}}", "stacking={cluster_quality_kappa: 1e-9}")
    case = Case(folder, [options], config=config)
    found = {f["file"]: f["cluster"] for f in case.run.record("artifacts/state_clustering.json")["frames"]}
    state = [case.known.state(case.first, file)["group"] for file in found]
    rows = {"adjusted Rand index >= 0.9": adjusted_rand_score(state, list(found.values()))}
    assert case.base and case.injected  # which make both
    stacks = {name: planes(case.folder / "base" / name) for name in ("reconstruction", "synthetic_stack")}
    one, other = stacks.values()
    rows["largest relative difference <= 1e-6"] = float(np.nanmax(np.abs(other["SCI"] / one["SCI"] - 1)))
    injected = {name: planes(case.folder / "injected" / name) for name in stacks}
    measured = {name: case.efficiencies(base, injected[name]) for name, base in stacks.items()}
    for name in ("eta_pt", "eta_sb"):
        for mode, figures in zip(("reduced", "full"), measured.values(), strict=True):
            rows[f"{name} of {mode} mode"] = (figures[name], figures[f"{name}_error"])
        rows[f"{name} of full mode over that of reduced, less 1 >= -0.002"] = paired(
            measured["synthetic_stack"], measured["reconstruction"], name
        )
    rows["validation"] = case.run.record("artifacts/validation.json")["checks"]
    return rows


if __name__ == "__main__":
    for name, value in full_mode(Path(sys.argv[1]), *map(int, sys.argv[2:])).items():
        print(name, value)
