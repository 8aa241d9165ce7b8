"""Partial sums of a batch: weighted by the fields of its session, outliers left out; and those of its raw pixels."""

from pathlib import Path

import numpy as np

from tilestack import drizzling, files, job, rawpixels, reconstruction, records, splitsums, template
from tilestack.kernels import coadd


def reconstruct_batch(paths, out, *, folder, batch, options, drizzle, cosmetic, by_cluster, n_threads=1):
    """paths: image, record, fields, weights, normalization, grid, channels, registration, layers, layer_record (the
    last layer's), colour_layers, clusters; out: sums, drizzled, record, and both sums with flat weights: flat,
    flat_drizzled. Colours have their sums by cluster only with by_cluster."""
    keys = ("record", "weights", "normalization", "grid", "channels", "registration", "layer_record", "clusters")
    read = {key: records.read(paths[key]) for key in keys}
    names = [entry["file"] for entry in read["record"]["frames"]]
    place = {frame["file"]: k for k, frame in enumerate(read["weights"]["frames"])}
    mine = [place[name] for name in names]
    with files.opened(paths["fields"]) as hdus:
        fields = np.stack([files.native(files.pixels(hdus[name])[mine]) for name in coadd.FIELDS], axis=1)
    gain = read["normalization"]["gain"]["e_per_adu"]
    options = {**options, "inverse_gain": 1 / gain if gain else 0.0}
    tiles = (*read["weights"]["tiles"]["first"], *read["weights"]["tiles"]["shape"])
    stride, pattern = read["grid"]["stride_px"], read["channels"]["bayer_pattern"]
    sky = {key: read["layer_record"][key] for key in ("sky", "mesh_origin")}
    sky["reference_sky"] = read["normalization"]["reference_sky"]
    exposure = np.array([read["weights"]["frames"][k]["exposure_s"] or np.nan for k in mine])
    split = splitsums.of_frames(names, read["clusters"])
    of_batch = (read["record"], fields, tiles, stride, pattern, {**sky, "layers": paths["layers"]})
    per_frame, n_streaks = reconstruction.write_sums(
        out["sums"], out["flat"], paths["image"], *of_batch, exposure, options, split, n_threads
    )
    job.give_memory_back()
    raw_rejected = np.zeros(len(names), np.int64)
    if names and (pattern is not None or drizzle["mono"]):
        layers = template.Layers(paths["layers" if pattern is None else "colour_layers"])
        raw = rawpixels.Raw([Path(folder) / name for name in names], read["registration"], cosmetic=cosmetic)
        known = {**sky, "planes": layers, "mesh_px": read["record"]["mesh_px"]}
        frames = drizzling.Batch(
            raw, read["record"]["frames"], read["registration"], fields, tiles, stride, known, options, n_threads
        )
        split = split if by_cluster else splitsums.whole(names)
        raw_rejected = drizzling.write_sums(
            out["drizzled"], out["flat_drizzled"], frames, drizzling.drop_of(drizzle), exposure, split
        )
    else:
        for key in ("drizzled", "flat_drizzled"):
            with files.Writer(out[key], {"CONTENT": "nothing was to be drizzled", "NFRAMES": 0}):
                pass
    records.write(
        out["record"],
        {
            "session": read["weights"]["session"],
            "batch": batch,
            "frames": [
                {
                    "file": name,
                    "kept_px": counts[0],
                    "rejected_px": counts[1],
                    "saturated_px": counts[2],
                    "rejected_share": counts[1] / max(counts[:3].sum(), 1),
                    "streak_px": streak,
                    "raw_rejected_px": rejected,
                }
                for name, counts, streak, rejected in zip(names, per_frame, n_streaks, raw_rejected, strict=True)
            ],
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        params, lists = snakemake.params, ("layers", "colour_layers")
        reconstruct_batch(
            {key: list(value) if key in lists else value for key, value in snakemake.input.items()},
            dict(snakemake.output.items()),
            folder=params.lights["folder"],
            batch=snakemake.wildcards.batch,
            options=dict(params.options),
            drizzle=params.drizzle,
            cosmetic=params.cosmetic,
            by_cluster=params.by_cluster,
            n_threads=snakemake.threads,
        )
