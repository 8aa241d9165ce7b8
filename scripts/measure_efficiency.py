"""Measure the efficiency of a finished run: known light added to its lights, and the same stack once more."""

import tempfile

import debayer
import numpy as np
from efficiency import injection, measure
from efficiency.restack import Run, planes, restack

from tilestack import bayer, job, records
from tilestack.records import rounded


def measure_efficiency(run_folder, record_path):
    run = Run(run_folder)
    pattern = run.record("artifacts/channel_split.json")["bayer_pattern"]
    channels = run.record("artifacts/channel_split.json")["channels"]
    y0, x0 = run.record("artifacts/common_overlap.json")["canvas"][:2]
    base = planes(run.folder / "work/reconstruction.fits")
    kind, xy = injection.places(np.isfinite(base["SCI"]))
    on_lattice = xy + [x0, y0]
    cells = {
        session: bayer.channel_cell(run.record(f"work/registration/{session}.json")["bayer_pattern"])
        for session in run.sessions
    }
    added = injection.Added(injection.Fitted(run, kind, on_lattice), kind, on_lattice, cells)
    with tempfile.TemporaryDirectory(dir=run.folder / "work") as folder:
        injected = restack(run, folder, added=added)
    by_channel = zip(channels, colours(base, pattern), colours(injected, pattern), strict=True)
    found = [
        {"channel": name, **figures(one, other, kind, xy, added.ceiling[:, k])}
        for k, (name, one, other) in enumerate(by_channel)
    ]
    formula = run.record("artifacts/stacking.json")
    records.write(
        record_path,
        {
            "kind": "measured",
            "channels": found,
            "formula": {key: formula[key] for key in ("eta_pt", "eta_sb")},
        },
    )


def colours(stack, pattern):
    """SCI, VAR and SPLIT of each channel; of a mosaic by Malvar's filters."""
    names = ("SCI", "VAR", "SPLIT")
    if pattern is None:
        return [{name: stack[name] for name in names}]
    image, variance = debayer.colours(stack["SCI"], stack["VAR"], pattern, "malvar")
    split, _ = debayer.colours(stack["SPLIT"], stack["VAR"], pattern, "malvar")
    return [dict(zip(names, parts, strict=True)) for parts in zip(image, variance, split, strict=True)]


def figures(base, injected, kind, xy, ceiling):
    """Efficiencies of a channel with their errors, and chi^2 of its variance plane."""
    usable, _ = measure.blank(base["SCI"], base["VAR"])
    usable &= np.isfinite(base["SPLIT"])
    noise = measure.whitened(base, usable)
    chi2 = measure.split_chi2(base, usable)
    found = measure.efficiencies(base, injected, [noise], usable, kind, xy, ceiling)
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
        measure_efficiency(snakemake.params.run_folder, snakemake.output[0])
