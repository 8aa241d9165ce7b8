"""Run the acceptance tests: figures beside their goals, and whether planted faults are caught.

make acceptance runs all of them at full size, which takes hours; python tests/acceptance/suite.py --help tells of
smaller ones. A goal is reached where the error is at most a third of the margin, unsettled where it is larger.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "scripts")]

import checks  # noqa: E402
import numpy as np  # noqa: E402
from case import Case  # noqa: E402


def merged(rows):
    """Rows of realisations as one: mean, error of the mean; faults are planted in the first."""
    result = []
    for same in zip(*rows, strict=True):
        first, n = same[0], len(same)
        value, error = np.mean([row.value for row in same]), np.sqrt(np.mean([row.error**2 for row in same]) / n)
        result.append(checks.judged(first, float(value), float(error), first.caught))
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", default=[], help=f"of {', '.join(checks.TESTS)}; all by default")
    parser.add_argument("--folder", type=Path, default=Path("runs/acceptance"))
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--side", type=int, default=1440, help="pixels")
    parser.add_argument("--realisations", type=int, default=4)
    parser.add_argument("--seed", type=int, default=500)
    parser.add_argument("--colours", action="store_true", help="drizzled colours, FWHM 2.7 px, instead of mono")
    given = parser.parse_args()
    size = {"n_frames": given.frames, "height_px": given.side, "width_px": given.side}
    if given.colours:
        size |= {"pattern": "GRBG", "fwhm_px": 2.7}
    print("| test | figure | value | error | goal | reached | planted fault |")
    print("|---|---|---|---|---|---|---|")
    failed = 0
    for name in given.tests or checks.TESTS:
        rows = []
        for k in range(given.realisations):
            seed, Case.plants = given.seed + 10 * k, k == 0
            label = f"{name}{'c' * given.colours}_{given.frames}_{given.side}_{seed}"
            made = []
            for Case.colour in range(3) if given.colours else [None]:
                of_one = checks.TESTS[name](given.folder.resolve() / label, size, seed)
                colour = "" if Case.colour is None else f"{'RGB'[Case.colour]}: "
                made += [dataclasses.replace(row, name=colour + row.name) for row in of_one]
            rows.append(made)
        for row in merged(rows):
            fault = {None: "", True: "caught", False: "MISSED"}[row.caught]
            reached = "" if row.goal == "-" else "yes" if checks.settled(row) else "unsettled" if row.ok else "NO"
            failed += reached in ("unsettled", "NO") or row.caught is False
            print(
                f"| {row.test} | {row.name} | {row.value:.4g} | {row.error:.2g} | {row.goal} | {reached} | {fault} |",
                flush=True,
            )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
