"""Drizzled colours and those of the mosaic, side by side: efficiency, width and colours of known stars.

python tests/acceptance/colour.py --frames 8 20 60 --fwhm 2.2 2.7 3.5 --still

Equal frames; the ceiling is that of each colour's own raw pixels. FWHM is that of the mean response to faint known
stars, colours those of bright ones in an aperture against what their frames hold.
"""

import argparse
import dataclasses
import itertools
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "scripts")]

import numpy as np  # noqa: E402
import sep  # noqa: E402
from case import HALVES, PLAIN, Case  # noqa: E402
from checks import fwhm_of, mean_response  # noqa: E402
from efficiency import injection, measure  # noqa: E402
from efficiency.restack import planes, restack  # noqa: E402
from measure_efficiency import colours  # noqa: E402

HEAD = "| frames | dithered | FWHM px | method | eta_pt | eta_sb | chi^2 of halves | FWHM of stars | R/G, B/G error % |"


class Products:
    """Drizzled planes and those of the mosaic by Malvar's filters, of a run or of a folder of ``restack``."""

    def __init__(self, folder, drizzled, pattern):
        mosaic = planes(folder)
        self.by_method = {
            "drizzle": [planes(drizzled, c) for c in range(3)],
            "malvar": colours(mosaic, pattern),
        }


def rows(case, scale):
    """A row a method: name, and lists by colour of eta_pt, its error, eta_sb, its error, chi^2, FWHM, flux ratio."""
    work = case.run.folder
    pattern = case.run.record("artifacts/channel_split.json")["bayer_pattern"]
    base = Products(work / "work/reconstruction.fits", work / "work/drizzled.fits", pattern)
    others = []
    for change in ({"added": case.added}, *({"halves": half} for half in HALVES)):
        restack(case.run, case.folder / "again", **change)
        again = case.folder / "again"
        others.append(Products(again / "reconstruction.fits", again / "drizzled.fits", pattern))
    injected, *halves = others
    mine = case.surroundings_full()
    for method, plain in base.by_method.items():
        s = scale if method == "drizzle" else 1
        blank = np.kron(case.blank, np.ones((s, s), bool))
        xy = (case.xy + 0.5) * s - 0.5
        found = []
        for c, plane in enumerate(plain):
            with_light = injected.by_method[method][c]
            usable = blank & np.isfinite(plane["SPLIT"]) & np.isfinite(plane["VAR"])
            noises = [measure.whitened(stack, usable) for stack in (plane, *(h.by_method[method][c] for h in halves))]
            ceiling = case.added.ceiling[mine, c]
            eta = measure.efficiencies(plane, with_light, noises, usable, case.known.kind[mine], xy[mine], ceiling, s)
            chi2 = measure.split_chi2(plane, usable, 256)
            response = np.ascontiguousarray(np.nan_to_num(with_light["SCI"] - plane["SCI"]), np.float32)
            bright = mine & (case.known.kind == injection.BRIGHT)
            flux, _, _ = sep.sum_circle(response, *xy[bright].T.copy(), 6.0 * s, subpix=5)
            flux_ratio = np.median(flux / s**2 / case.known.flux[bright, c])
            fwhm = fwhm_of(mean_response(case, (plane, with_light), injection.STAR)) if s == 1 else np.nan
            keys = ("eta_pt", "eta_pt_error", "eta_sb", "eta_sb_error")
            found.append((*(eta[key] for key in keys), chi2.mean(), fwhm, flux_ratio))
        yield method, np.array(found).T


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/acceptance"))
    parser.add_argument("--fwhm", type=float, nargs="+", default=[2.2, 2.7, 3.5])
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 20, 60, 200])
    parser.add_argument("--still", action="store_true", help="frames without dither or rotation")
    parser.add_argument("--side", type=int, default=768, help="pixels")
    parser.add_argument("--kernel", default="square")
    parser.add_argument("--pixfrac", type=float, nargs="+", default=[0.7])
    parser.add_argument("--scale", type=int, default=1)
    parser.add_argument("--seed", type=int, default=500)
    given = parser.parse_args()
    print(HEAD, "|---" * 9 + "|", sep="\n")
    for n, fwhm, pixfrac in itertools.product(given.frames, given.fwhm, given.pixfrac):
        size = {"n_frames": n, "height_px": given.side, "width_px": given.side, "seed": given.seed}
        options = dataclasses.replace(PLAIN, pattern="GRBG", fwhm_px=fwhm, **size)
        if given.still:
            options = dataclasses.replace(options, dither_px=0.0)
        drop = f"drizzle={{kernel: {given.kernel}, pixfrac: {pixfrac}, scale: {given.scale}}}"
        name = f"colour_{n}_{fwhm}_{given.kernel}_{pixfrac}_{given.scale}_{given.side}_{given.still}_{given.seed}"
        case = Case(given.folder.resolve() / name, [options], config=(drop, "debayer={method: drizzle}"))
        for method, found in rows(case, given.scale):
            eta_pt, pt_error, eta_sb, sb_error, chi2, widths, flux = found
            cells = [", ".join(f"{v:.3f}" for v in values) for values in (eta_pt, eta_sb, chi2, widths)]
            cells[0] += f" +- {pt_error.max():.3f}"
            cells[1] += f" +- {sb_error.max():.3f}"
            errors = ", ".join(f"{100 * (flux[c] / flux[1] - 1):.1f}" for c in (0, 2))
            label = f"{method} {pixfrac}, scale {given.scale}" if method == "drizzle" else method
            dithered = "no" if given.still else "yes"
            print(f"| {n} | {dithered} | {fwhm} | {label} | {' | '.join(cells)} | {errors} |", flush=True)


if __name__ == "__main__":
    main()
