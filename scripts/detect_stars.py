"""List the stars and the suspicious pixels of a batch of lights."""

from pathlib import Path

import numpy as np

from tilestack import bayer, job, lights, processes, records, selection, stars
from tilestack.kernels import detection
from tilestack.records import rounded

# Height of a hot or cold pixel over its neighbours, in standard deviations; one in 10^8 pixels of noise reaches it.
DEFECT_KAPPA = 6.0


def detect_stars(
    folder, names, facts_paths, out, *, session, filters, scan, tolerance_percent, sigma, max_stars, n_processes=1
):
    """facts_paths: by session id, the facts of its batches; those of this session and of the ones before it."""
    facts = [(s, [file for path in paths for file in records.read(path)["files"]]) for s, paths in facts_paths.items()]
    decided = selection.decide(facts, scan, tolerance_percent, filters)[session]
    used = [file["name"] for file in decided["files"] if file["status"] != "excluded"]
    fact_of = {fact["name"]: fact for fact in facts[-1][1]}
    file_of = {file["name"]: file for file in decided["files"]}
    pattern, frames, suspects = decided["bayer_pattern"], [], []

    def measured(name):
        image = lights.opened(Path(folder, name))()
        found = stars.find(image, pattern, sigma=sigma, max_stars=max_stars, saturation=decided["saturation_adu"])
        return found, detection.defects(image, bayer.channel_cell(pattern), found["noise"], DEFECT_KAPPA)

    wanted = [name for name in names if file_of[name]["status"] != "excluded"]
    results = processes.in_order(measured, wanted, n_processes)
    for name in names:
        entry = {key: file_of[name][key] for key in ("name", "status", "reason", "exposure_s", "filter", "gain_e_adu")}
        entry |= {"date_obs": fact_of[name].get("date_obs"), "sha256": fact_of[name]["sha256"]}
        if entry["status"] != "excluded":
            found, unlike_sky = next(results)
            entry |= {"index": used.index(name), **sky_hint(fact_of[name]), **as_record(found)}
            suspects.append(unlike_sky)
        frames.append(entry)
    # As whole numbers, which are sorted in a tenth of the time that pairs take.
    width = decided["shape"][1] if suspects else 1
    places, counts = np.unique(np.concatenate([np.empty((0, 2), int), *suspects]) @ [width, 1], return_counts=True)
    often = counts >= max(1, 0.1 * len(suspects))
    (y, x), counts = np.divmod(places[often], width), counts[often]
    records.write(
        out,
        {
            "session": session,
            **{key: decided[key] for key in ("shape", "colour_mode", "bayer_pattern", "saturation_adu")},
            "channels": bayer.channels(pattern),
            "frames": frames,
            "defects": {"y": y, "x": x, "count": counts, "n_frames": len(suspects)},
        },
    )


def sky_hint(fact):
    """Where the header says that the frame looks, and the shape of its pixels."""
    width, height, focal = (fact.get(key) for key in ("pixel_um_x", "pixel_um_y", "focal_mm"))
    scale = 206.265 * width / focal if width and focal else None
    hint = {"ra_deg": fact.get("ra_deg"), "dec_deg": fact.get("dec_deg"), "scale_arcsec": scale}
    return {"hint": hint, "pixel_aspect": height / width if width and height else 1.0}


def as_record(found):
    """Detections as a record, rounded to what they are good for."""
    columns = {key: rounded(found[key], 7 if key in ("x", "y") else 5) for key in found if np.ndim(found[key])}
    per_channel = {key: columns.pop(key) for key in ("level", "noise")}
    told = {key: found[key] for key in ("n_detected", "sigma", "trailed")}
    return {**told, **per_channel, "stars": columns}


if __name__ == "__main__":
    with job.started(snakemake):
        paths = iter(snakemake.input.facts)
        params = snakemake.params
        detect_stars(
            params.lights["folder"],
            params.lights["names"],
            {s: [next(paths) for _ in range(n)] for s, n in params.n_batches.items()},
            snakemake.output[0],
            session=snakemake.wildcards.session,
            filters=params.filters,
            scan=params.scan,
            tolerance_percent=params.tolerance_percent,
            sigma=params.sigma,
            max_stars=params.max_stars,
            n_processes=snakemake.threads,
        )
