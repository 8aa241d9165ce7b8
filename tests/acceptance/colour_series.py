"""Drizzled colours and those of the mosaic, side by side: efficiency, width and colours of known stars.

python tests/acceptance/colour_series.py --frames 8 20 60 --fwhm 2.2 2.7 3.5 --drops 0.5x1 0.7x1 1.0x1 0.7x2

Equal frames; the ceiling is that of each colour's own raw pixels. FWHM is that of the response to faint known stars,
colours those of bright ones in an aperture against what their frames hold.
"""

import argparse
import dataclasses
import itertools
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "scripts")]

import numpy as np  # noqa: E402
import sep  # noqa: E402
from case import HALVES, PLAIN, Case  # noqa: E402
from efficiency import injection, measure  # noqa: E402
from efficiency.restack import planes, restack  # noqa: E402
from measure_efficiency import colours  # noqa: E402
from scipy import optimize  # noqa: E402

from tilestack import records  # noqa: E402

HEAD = (
    "| frames | dithered | FWHM px | method | eta_pt | eta_sb | chi^2 of halves | FWHM of stars | R/G, B/G error % "
    "| scatter of R/G, B/G mag | filled share |"
)


class Products:
    """Drizzled planes of a stack of ``restack``, and those of its mosaic by Malvar's filters."""

    def __init__(self, stack, pattern):
        self.drizzle = [planes(f"{stack}_rgb", c) for c in range(3)]
        self.malvar = colours(planes(stack), pattern)


def products(case):
    """Products without and with the known light, and those of frames in other halves."""
    pattern = case.run.record("artifacts/channel_split.json")["bayer_pattern"]
    for change in ({}, {"added": case.added}, *({"halves": half} for half in HALVES)):
        case.added.ceiling[:] = 0
        restack(case.run, case.folder / "again", **change)
        if "added" in change:
            ceiling = case.added.ceiling.copy()
        yield Products(case.folder / "again" / case.run.stack, pattern)
    case.added.ceiling[:] = ceiling


def figures(case, made, method, scale):
    """By colour: eta_pt, its error, eta_sb, its error, chi^2, FWHM; and ratios of star fluxes to the truth's."""
    plain, injected, *halves = (getattr(product, method) for product in made)
    mine = case.surroundings_full()
    blank = np.kron(case.blank, np.ones((scale, scale), bool))
    xy = (case.xy + 0.5) * scale - 0.5
    bright = mine & (case.known.kind == injection.BRIGHT)
    found, ratios = [], []
    for c, plane in enumerate(plain):
        stacks = [stack[c] for stack in (plain, *halves)]
        usable = blank & np.all([np.isfinite(stack["SPLIT"]) for stack in stacks], axis=0)
        noises = [measure.whitened(stack, usable) for stack in stacks]
        ceiling = case.added.ceiling[mine, c]
        eta = measure.efficiencies(plane, injected[c], noises, usable, case.known.kind[mine], xy[mine], ceiling, scale)
        response = np.ascontiguousarray(np.nan_to_num(injected[c]["SCI"] - plane["SCI"]), np.float32)
        flux, _, _ = sep.sum_circle(response, *xy[bright].T.copy(), 6.0 * scale, subpix=5)
        ratios.append(flux / scale**2 / case.known.flux[bright, c])
        fwhm = width(response, xy[mine & (case.known.kind == injection.STAR)], scale)
        keys = ("eta_pt", "eta_pt_error", "eta_sb", "eta_sb_error")
        found.append((*(eta[key] for key in keys), measure.split_chi2(plane, usable, 256).mean(), fwhm))
    return np.array(found).T, np.array(ratios)


def width(response, xy, scale):
    """FWHM of the response to known stars, in lattice pixels: a circular Moffat through all pixels around them."""
    reach = 5 * scale
    offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    near = np.round(xy).astype(int)
    x, y = near[:, 0, None] + offsets[1], near[:, 1, None] + offsets[0]
    distance = np.hypot(x - xy[:, :1], y - xy[:, 1:]) / scale

    def moffat(r, height, fwhm, beta):
        return height * (1 + (2 * r / fwhm) ** 2 * (2 ** (1 / beta) - 1)) ** -beta

    values = response[y, x]
    found, _ = optimize.curve_fit(moffat, distance.ravel(), values.ravel(), (values.max(), 2.5, 3.0))
    return found[1]


def row(case, n, fwhm, still, label, found, ratios, filled):
    """A line of the table."""
    eta_pt, pt_error, eta_sb, sb_error, chi2, widths = found
    cells = [", ".join(f"{v:.3f}" for v in values) for values in (eta_pt, eta_sb, chi2, widths)]
    cells[0] += f" +- {pt_error.max():.3f}"
    cells[1] += f" +- {sb_error.max():.3f}"
    to_green = [ratios[c] / ratios[1] for c in (0, 2)]
    cells.append(", ".join(f"{100 * (np.median(r) - 1):.1f}" for r in to_green))
    scatter = [1.0857 * 1.4826 * np.median(np.abs(r / np.median(r) - 1)) for r in to_green]
    cells.append(", ".join(f"{s:.4f}" for s in scatter))
    cells.append(", ".join(f"{share:.2f}" for share in filled))
    return f"| {n} | {'no' if still else 'yes'} | {fwhm} | {label} | {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/acceptance"))
    parser.add_argument("--fwhm", type=float, nargs="+", default=[2.2, 2.7, 3.5])
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 20, 60, 200])
    parser.add_argument("--still", action="store_true", help="frames without dither or rotation")
    parser.add_argument("--side", type=int, default=768, help="pixels")
    parser.add_argument("--kernel", default="square")
    parser.add_argument("--drops", nargs="+", default=["0.7x1"], help="pixfrac x scale, as in 0.7x2")
    parser.add_argument("--seed", type=int, default=500)
    given = parser.parse_args()
    print(HEAD, "|---" * 11 + "|", sep="\n")
    for n, fwhm in itertools.product(given.frames, given.fwhm):
        size = {"n_frames": n, "height_px": given.side, "width_px": given.side, "seed": given.seed}
        options = dataclasses.replace(PLAIN, pattern="GRBG", fwhm_px=fwhm, **size)
        if given.still:
            options = dataclasses.replace(options, dither_px=0.0)
        folder = given.folder.resolve() / f"colour_{n}_{fwhm}_{given.side}_{given.still}_{given.seed}"
        case = Case(folder, [options], config=("debayer={method: drizzle}",))
        for k, drop in enumerate(given.drops):
            pixfrac, scale = drop.split("x")
            case.run.config["drizzle"] |= {"kernel": given.kernel, "pixfrac": float(pixfrac), "scale": int(scale)}
            made = list(products(case))
            filled = records.read(folder / "again/reconstruction.json")["drizzled"]["filled_share"]
            label = f"drizzle {pixfrac}, scale {scale}"
            print(
                row(case, n, fwhm, given.still, label, *figures(case, made, "drizzle", int(scale)), filled), flush=True
            )
            if k == 0:
                print(row(case, n, fwhm, given.still, "malvar", *figures(case, made, "malvar", 1), []), flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
