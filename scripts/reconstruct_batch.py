"""Partial sums of a batch: weighted by the fields of its session, outliers left out."""

import numpy as np

from tilestack import files, job, reconstruction, records
from tilestack.kernels import coadd


def reconstruct_batch(paths, sums_path, record_path, *, batch, options):
    """paths: image, record, fields, weights, normalization, grid, channels, layers, layer_record (the last layer's)."""
    read = {
        key: records.read(paths[key])
        for key in ("record", "weights", "normalization", "grid", "channels", "layer_record")
    }
    names = [entry["file"] for entry in read["record"]["frames"]]
    place = {frame["file"]: k for k, frame in enumerate(read["weights"]["frames"])}
    weighed = [read["weights"]["frames"][place[name]] for name in names]
    mine = [place[name] for name in names]
    with files.opened(paths["fields"]) as hdus:
        fields = np.stack([files.native(files.pixels(hdus[name])[mine]) for name in coadd.FIELDS], axis=1)
    gain = read["normalization"]["gain"]["e_per_adu"]
    per_frame, n_streaks = reconstruction.write_sums(
        sums_path,
        paths["image"],
        read["record"],
        fields,
        (*read["weights"]["tiles"]["first"], *read["weights"]["tiles"]["shape"]),
        read["grid"]["stride_px"],
        read["channels"]["bayer_pattern"],
        {
            "layers": paths["layers"],
            "reference_sky": read["normalization"]["reference_sky"],
            **{key: read["layer_record"][key] for key in ("sky", "mesh_origin")},
        },
        np.array([frame["exposure_s"] or np.nan for frame in weighed]),
        {**options, "inverse_gain": 1 / gain if gain else 0.0},
    )
    records.write(
        record_path,
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
                }
                for name, counts, streak in zip(names, per_frame, n_streaks, strict=True)
            ],
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        inputs = snakemake.input
        names = ("image", "record", "fields", "weights", "normalization", "grid", "channels", "layer_record")
        paths = {key: inputs[key] for key in names} | {"layers": list(inputs["layers"])}
        reconstruct_batch(
            paths,
            snakemake.output.sums,
            snakemake.output.record,
            batch=snakemake.wildcards.batch,
            options=dict(snakemake.params.options),
        )
