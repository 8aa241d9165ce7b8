"""Turn the local metrics of a session into fields of scale, variance, sky and weight over the tiles."""

from tilestack import fields, files, job, records
from tilestack.records import rounded


def local_weights(paths, fields_path, record_path, *, objective, quality_model, profile):
    """paths: local and records (one for each batch), normalization, global_metrics."""
    normalized = records.read(paths["normalization"])
    whole_of = {frame["file"]: frame for frame in records.read(paths["global_metrics"])["frames"]}
    fit_of = {frame["file"]: frame for frame in normalized["frames"]}
    names = [entry["file"] for path in paths["records"] for entry in records.read(path)["frames"]]
    whole, fits = ([of[name] for name in names] for of in (whole_of, fit_of))
    measured = fields.Measured(paths["local"])
    tiles, grid = measured.tiles, measured.grid
    made, spread = fields.make(
        measured,
        tiles,
        grid["STRIDEPX"],
        whole,
        fits,
        normalized["reference_sky"],
        objective=objective,
        quality_model=quality_model,
        profile=profile,
    )
    cards = {**grid, "TILEY0": tiles[0], "TILEX0": tiles[1], "NFRAMES": len(names)}
    with files.Writer(fields_path, cards) as writer:
        for name, values in made.items():
            writer.append(name, values)
    changes = ("ln_fwhm", "ln_t", "ln_variance")
    records.write(
        record_path,
        {
            "session": normalized["session"],
            "channels": normalized["channels"],
            "tiles": {"first": tiles[:2], "shape": tiles[2:]},
            **{f"rms_{key}": rounded(spread[key], 4) for key in changes},
            # Gain in squared S/N of local weights over one weight a frame (docs/method.md).
            "predicted_gain": rounded(sum(spread[key] ** 2 for key in changes), 4),
            **{key: spread[key] for key in ("star_tiles", "structure_tiles")},
            "structure_exponent": rounded(spread["structure_exponent"], 3),
            "frames": [
                {
                    **{key: frame[key] for key in ("file", "session", "batch", "index", "exposure_s")},
                    "mean_weight": rounded(spread["mean_weight"][k]),
                    "rms_ln_t": rounded(spread["frame_ln_t"][k], 4),
                    "rms_ln_fwhm": rounded(spread["frame_ln_fwhm"][k], 4),
                }
                for k, frame in enumerate(whole)
            ],
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        inputs = snakemake.input
        paths = {key: inputs[key] for key in ("normalization", "global_metrics")}
        paths |= {key: list(inputs[key]) for key in ("local", "records")}
        local_weights(
            paths,
            snakemake.output.fields,
            snakemake.output.record,
            objective=snakemake.params.objective,
            quality_model=snakemake.params.quality_model,
            profile=snakemake.params.profile,
        )
