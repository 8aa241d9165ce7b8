"""Measure the efficiency of a finished run: known light added to its lights, and the same stack once more."""

import tempfile
from pathlib import Path

import numpy as np
from efficiency import injection, measure
from efficiency.restack import Run, as_it_is, planes, restack

from tilestack import bayer, debayering, job, records
from tilestack.records import rounded


def measure_efficiency(run_folder, record_path, *, n_threads=1):
    run = Run(run_folder, n_threads)
    pattern = run.record("artifacts/channel_split.json")["bayer_pattern"]
    channels = run.record("artifacts/channel_split.json")["channels"]
    with tempfile.TemporaryDirectory(dir=run.folder / "work") as folder:
        found = measured(run, Path(folder), pattern, channels)
    formula = run.record("artifacts/stacking.json")
    records.write(
        record_path,
        {
            "kind": "measured",
            "channels": found,
            "formula": {key: formula[key] for key in ("eta_pt", "eta_sb")},
        },
    )


def measured(run, folder, pattern, channels):
    """Figures of each channel, from the stack as it is and that with known light, which are made in a folder."""
    y0, x0 = run.record("artifacts/common_overlap.json")["canvas"][:2]
    base = as_it_is(run, folder / "base")
    kind, xy = injection.places(np.isfinite(base["SCI"]))
    on_lattice = xy + [x0, y0]
    cells = {
        session: bayer.channel_cell(run.record(f"work/registration/{session}.json")["bayer_pattern"])
        for session in run.sessions
    }
    added = injection.Added(injection.Fitted(run, kind, on_lattice), kind, on_lattice, cells)
    product = run.record("artifacts/debayer.json")
    drizzled, scale = product["method"] == "drizzle", product.get("scale", 1)
    injected = restack(run, folder / "injected", added=added)
    if drizzled:
        stacks = [folder / name / f"{run.stack}_rgb" for name in ("base", "injected")]
        pairs = [[planes(stack, c) for stack in stacks] for c in range(len(channels))]
    else:
        pairs = list(zip(colours(base, pattern), colours(injected, pattern), strict=True))
    on_product = (xy + 0.5) * scale - 0.5
    return [
        {"channel": name, **figures(*pair, kind, on_product, added.ceiling[:, k], scale)}
        for k, (name, pair) in enumerate(zip(channels, pairs, strict=True))
    ]


def colours(stack, pattern):
    """SCI, VAR and SPLIT of each channel; of a mosaic by Malvar's filters."""
    if pattern is None:
        return [stack]
    image, variance = debayering.demosaiced(stack["SCI"], stack["VAR"], pattern, "malvar")
    # Its pattern of 2x2 pixels is none of the noise as a spectrum knows it.
    variance = np.mean([np.roll(variance, (y, x), (1, 2)) for y in (0, 1) for x in (0, 1)], axis=0)
    split, _ = debayering.demosaiced(stack["SPLIT"], stack["VAR"], pattern, "malvar")
    names, counts = ("SCI", "VAR", "SPLIT"), {name: stack[name] for name in ("NIM", "REJ")}
    return [dict(zip(names, parts, strict=True)) | counts for parts in zip(image, variance, split, strict=True)]


def figures(base, injected, kind, xy, ceiling, scale):
    """Efficiencies of a channel with their errors, and chi^2 of its variance plane."""
    usable, _ = measure.blank(base["SCI"], base["VAR"])
    usable &= np.isfinite(base["SPLIT"])
    noise = measure.whitened(base, usable)
    chi2 = measure.split_chi2(base, usable)
    found = measure.efficiencies(base, injected, [noise], usable, kind, xy, ceiling, scale)
    return {
        **{
            key: rounded(value, 5) if isinstance(value, float) else value
            for key, value in found.items()
            if key[-6:] != "_parts"
        },
        "split_chi2": rounded(chi2.mean(), 5) if len(chi2) else None,
        "split_chi2_error": rounded(chi2.std() / np.sqrt(len(chi2)), 3) if len(chi2) else None,
        "blank_share": rounded(usable.mean(), 3),
    }


if __name__ == "__main__":
    with job.started(snakemake):
        measure_efficiency(snakemake.params.run_folder, snakemake.output[0], n_threads=snakemake.threads)
