"""Drizzle the sharpest frames of a session into the template that colours are measured against."""

from pathlib import Path

import numpy as np

from tilestack import colour_template as templates
from tilestack import files, geometry, job, lattice, rawpixels, records


def colour_template(paths, image_path, *, folder, cosmetic, n_threads=1):
    """paths: layer (of the mosaics), layer_record, normalization, registration, reference, channels; records, one of
    each batch."""
    read = {key: records.read(paths[key]) for key in ("layer_record", "normalization", "registration", "channels")}
    pattern = read["channels"]["bayer_pattern"]
    wanted = read["layer_record"]["frames"][: templates.MOST_FRAMES]
    if pattern is None or not wanted:
        with files.Writer(image_path, {"CONTENT": "no template by colour: mono lights, or no usable frame"}):
            return
    entries = [entry for path in paths["records"] for entry in records.read(path)["frames"] if entry["file"] in wanted]
    fit_of = {frame["file"]: frame for frame in read["normalization"]["frames"]}
    fits = [fit_of[entry["file"]] for entry in entries]
    mesh_px = records.read(paths["reference"])["lattice"]["mesh_px"]
    tiles = lattice.tile_range(geometry.union_box([entry["box"] for entry in entries]), mesh_px)
    demosaiced = templates.Demosaiced(paths["layer"], pattern)
    gain = read["normalization"]["gain"]["e_per_adu"]
    batch = templates.drizzling.Batch(
        rawpixels.Raw([Path(folder) / e["file"] for e in entries], read["registration"], cosmetic=cosmetic),
        entries,
        read["registration"],
        templates.fields_of(entries, fits, tiles, mesh_px),
        tiles,
        mesh_px,
        {
            "planes": demosaiced,
            "reference_sky": read["normalization"]["reference_sky"],
            "mesh_px": mesh_px,
            **{key: read["layer_record"][key] for key in ("sky", "mesh_origin")},
        },
        {**templates.OPTIONS, "inverse_gain": 1 / gain if gain else 0.0},
        n_threads,
    )
    widths = records.array([fit["fwhm_px"] for fit in fits])
    fwhm = float(np.nanmedian(widths)) if np.isfinite(widths).any() else None
    templates.write_layer(image_path, batch, demosaiced, fwhm)


if __name__ == "__main__":
    with job.started(snakemake):
        inputs = snakemake.input
        names = ("layer", "layer_record", "normalization", "registration", "reference", "channels")
        colour_template(
            {key: inputs[key] for key in names} | {"records": list(inputs["records"])},
            snakemake.output[0],
            folder=snakemake.params.folder,
            cosmetic=snakemake.params.cosmetic,
            n_threads=snakemake.threads,
        )
