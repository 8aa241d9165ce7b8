"""The tile stack beside plainer stacks of the same registered pixels, in nights of known truth; sizes by --help."""

import argparse
import sys
from pathlib import Path
from unittest import mock

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "scripts")]

import case as cases  # noqa: E402
import checks  # noqa: E402
import numpy as np  # noqa: E402
from efficiency import injection, measure  # noqa: E402
from efficiency.restack import restack  # noqa: E402
from global_metrics import global_metrics  # noqa: E402
from local_weights import local_weights  # noqa: E402

from tilestack import files, lattice, prewarped, records  # noqa: E402
from tilestack.kernels import coadd  # noqa: E402

KAPPA, BAND_ROWS = 3.0, 64


def night(name, folder, size, seed):
    """The case of a test, as the test builds it."""
    if name == "T1":
        return checks.typical_night(folder, size, seed)
    with mock.patch.object(checks, "typical", lambda case, *_: case):
        return checks.TESTS[name](folder, size, seed)


def zscore(case, session):
    """Weights that the zscore model gives the frames of a session: (n, c, ny, nx)."""
    work, made = case.run.folder / "work", [case.folder / f"zscore_{k}" for k in range(3)]
    paths = {"normalization": work / f"normalization/{session}.json", "global_metrics": made[0]}
    for key, name in (("records", "prewarp/{}/{}.json"), ("local", "local/{}/{}.fits")):
        paths[key] = [work / name.format(session, batch) for batch in case.run.batches(session)]
    model = {"objective": "balanced", "quality_model": "zscore"}
    global_metrics(paths["normalization"], work / f"registration/{session}.json", paths["records"], made[0], **model)
    local_weights(paths, *made[1:], profile="strict", **model)
    with files.opened(made[1]) as hdus:
        return np.array(files.native(hdus["WEIGHT"].data))


WEIGHTS = {
    "plain mean": lambda case, session: 1.0,
    "inverse-variance mean": lambda case, session: checks.remade(case, session, "depth", local=False)["WEIGHT"],
    "zscore model": zscore,
}


def weighted(case, weights):
    """Stack with other weights: planes without and with the known light, and differences of halves."""

    def change(session, fields):
        fields["WEIGHT"][:] = weights(case, session)

    base, injected = case.again(changed=change)
    others = [restack(case.run, case.folder / "changed", changed=change, halves=half) for half in cases.HALVES]
    return base, injected, [stack["SPLIT"] for stack in (base, *others)]


def clipped(case, prewarp, halves=()):
    """Mean of the frames in a folder, within limits and of one weight: SCI and NIM; and differences of halves.

    Each half is clipped by itself: between common limits the difference of halves has less noise than the mean.
    """
    run, images, fields, rows = case.run, [], [], []
    for session in run.sessions:
        paths = [prewarp / session / f"{batch}.fits" for batch in run.batches(session)]
        images += [(path, records.read(path.with_suffix(".json"))["frames"]) for path in paths]
        with files.opened(run.folder / f"work/weights/{session}.fits") as hdus:
            grid = [hdus[0].header[key] for key in ("STRIDEPX", "TILEY0", "TILEX0")]
            made = np.concatenate([np.asarray(files.pixels(hdus[name]), float) for name in ("SCALE", "SKY")], axis=1)
        fields += [(*grid, both) for both in made]
    pixels = prewarped.Frames(images)
    with np.errstate(invalid="ignore", divide="ignore"):
        odds = [np.array([half(entry["index"]) == 1 for entry in pixels.entries]) for half in halves]
        for band in prewarped.bands(case.canvas, BAND_ROWS):
            y, x = np.mgrid[band[0] : band[0] + band[2], band[1] : band[1] + band[3]] + 0.5
            codes = pixels.stack(band)
            values = np.where(np.isin(codes, (coadd.NO_DATA, coadd.SATURATED)), np.nan, codes).astype(np.float32)
            for plane, entry, (stride, j0, i0, both) in zip(values, pixels.entries, fields, strict=True):
                scale, sky = lattice.bilinear(both, y / stride - 0.5 - j0, x / stride - 0.5 - i0)
                plane[:] = (entry["zero"] + entry["scale"] * plane - sky) / scale
            differences = [split(clip(values[~odd]), clip(values[odd])) for odd in odds]
            values = clip(values)
            n = np.isfinite(values).sum(0)
            rows.append([np.nansum(values, axis=0) / n, n, *differences])
    mean, n, *splits = (np.concatenate(plane) for plane in zip(*rows, strict=True))
    return {"SCI": mean, "NIM": n}, splits


def clip(values):
    """Values (n, h, w) without what is more than KAPPA standard deviations from a pixel's median, until nothing is."""
    far = np.array(True)
    while far.any():
        n, ordered = np.maximum(np.isfinite(values).sum(0), 2), np.sort(values, axis=0)
        median = np.mean([np.take_along_axis(ordered, at[None], 0)[0] for at in ((n - 1) // 2, n // 2)], axis=0)
        deviation = np.sqrt(np.nansum((values - np.nansum(values, axis=0) / n) ** 2, axis=0) / (n - 1))
        far = np.abs(values - median) > KAPPA * deviation
        values = np.where(far, np.nan, values)
    return values


def split(even, odd):
    """Difference of the halves with the variance of the mean, as in ``sums.planes_of``."""
    n = [np.isfinite(half).sum(0) for half in (even, odd)]
    share = np.sqrt(n[1] / n[0])
    return (np.nansum(even, axis=0) * share - np.nansum(odd, axis=0) / share) / (n[0] + n[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nights", nargs="*", default=["T1", "T2", "T3"], help="T1, T2 or T3; all by default")
    parser.add_argument("--folder", type=Path, default=Path("runs/acceptance"))
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--side", type=int, default=1440, help="pixels")
    parser.add_argument("--seed", type=int, default=500)
    given = parser.parse_args()
    size = {"n_frames": given.frames, "height_px": given.side, "width_px": given.side}
    print("| night | stack | eta_pt | of the tile stack's | eta_sb | of the tile stack's | FWHM px | bright stars |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.nights:
        folder = given.folder.resolve() / f"{name}_{given.frames}_{given.side}_{given.seed}"
        case = night(name, folder, size, given.seed)
        stacks = {"tile stack": (case.base, case.injected, [one["SPLIT"] for one in (case.base, *case.other_halves)])}
        stacks |= {stack: weighted(case, weights) for stack, weights in WEIGHTS.items()}
        base, splits = clipped(case, case.run.folder / "work/prewarp", (lambda k: k % 2, *cases.HALVES))
        plain = stacks["plain mean"][0]
        base["VAR"] = plain["VAR"] * np.where(base["NIM"] > 0, plain["NIM"] / np.maximum(base["NIM"], 1), 1.0)
        stacks["sigma-clipped mean"] = base, clipped(case, case.folder / "injected")[0], splits
        mine, first = case.surroundings_full(), None
        usable = case.blank & np.isfinite([one for *_, splits in stacks.values() for one in splits]).all(0)
        for stack, (base, injected, splits) in stacks.items():
            noises = [measure.whitened({"SPLIT": one, "VAR": base["VAR"]}, usable) for one in splits]
            light = case.known.kind[mine], case.xy[mine], case.added.ceiling[mine, 0]
            found = measure.efficiencies(base, injected, noises, usable, *light)
            first = first or found
            cells = []
            for eta in ("eta_pt", "eta_sb"):
                ratio, error = checks.paired(found, first, eta)
                cells += [f"{found[eta]:.4f} +- {found[eta + '_error']:.4f}", f"{1 + ratio:.4f} +- {error:.4f}"]
            for kind in (injection.STAR, injection.BRIGHT):
                cells.append(f"{checks.fwhm_of(checks.mean_response(case, (base, injected), kind)):.3f}")
            print(f"| {name} | {stack} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
