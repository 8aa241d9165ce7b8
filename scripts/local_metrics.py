"""Measure the tiles of a batch."""

import numpy as np

from tilestack import (
    bayer,
    geometry,
    job,
    lattice,
    local,
    normalization,
    overlap,
    prewarped,
    processes,
    records,
    robust,
    template,
)
from tilestack.kernels import metrics


def local_metrics(paths, out, *, batch, n_processes=1):
    """paths: image, record (of the batch), stars (all of the session), registration, normalization, grid, channels,
    layer_records (of the templates so far), layers."""
    read = {key: records.read(paths[key]) for key in ("record", "registration", "normalization", "grid", "channels")}
    entries = read["record"]["frames"]
    frames, table = normalization.star_table(read["registration"], [records.read(paths["stars"])])
    widths = records.array([frame["fwhm_px"] for frame in read["normalization"]["frames"]])
    normalization.apply_corrections(table, read["normalization"]["flux_corrections"], widths)
    place = {frame["file"]: k for k, frame in enumerate(frames)}
    fits = {frame["file"]: frame for frame in read["normalization"]["frames"]}
    log_flux = records.array(read["normalization"]["log_flux"])
    width_offset = records.array(read["normalization"]["ln_fwhm_offset"])
    tile, stride = read["grid"]["tile_px"], read["grid"]["stride_px"]
    cell = bayer.channel_cell(read["channels"]["bayer_pattern"])
    behind = records.read(paths["layer_records"][-1])["frames"]  # none where the session has no usable frame
    mesh_px = read["record"]["mesh_px"]
    box = geometry.union_box([entry["box"] for entry in entries])
    tiles = lattice.tile_range(box, stride)
    image, variance = (plane[0] for plane in template.Layers(paths["layers"]).read(box, 2))
    step = 2 if cell.max() > 0 else 1
    fine = metrics.band_pass(image, step)
    some = robust.sample(variance)
    noise_of_template = float(np.median(some)) if some.size else 0.0
    samples = overlap.tile_samples(tiles, stride, tile)
    measured = {name: [] for name in (*local.COLUMNS, *local.FRAME_COLUMNS)}
    pixels = prewarped.Frames([(paths["image"], entries)])

    def of_frame(k):
        entry = entries[k]
        fit = fits[entry["file"]]
        mine = table["frame"] == place[entry["file"]]
        width = np.nan if fit["fwhm_px"] is None else fit["fwhm_px"]
        stars = local.star_fields(table, mine, log_flux, np.log(fit["scale"]), width_offset, width, tiles, stride)
        own = entry["box"]
        corner = (own[0] - box[0], own[1] - box[1])
        known = (fine, corner, noise_of_template, entry["file"] in behind, max(len(behind), 1))
        slope, error, energy = local.structure(pixels.rows(k, own), entry, *known, cell, own, tiles, tile, stride)
        return {
            "LN_T": stars["ln_t"],
            "LN_T_ERROR": stars["ln_t_error"],
            **{
                name: local.mesh_to_tiles(entry[key], entry["mesh_origin"], mesh_px, tiles, stride)
                for name, key in (("NOISE", "noise"), ("SKY", "sky"))
            },
            "STRUCTURE": slope,
            "STRUCTURE_ERROR": error,
            "ENERGY": energy,
            "LN_FWHM": stars["ln_fwhm"],
            "LN_FWHM_ERROR": stars["ln_fwhm_error"],
            "N_STARS": stars["n_stars"],
            "COVERAGE": overlap.tile_coverage(np.array(entry["transform"]), read["registration"]["shape"], samples),
        }

    for values in processes.in_order(of_frame, range(len(entries)), n_processes):
        for name, value in values.items():
            measured[name].append(np.asarray(value, np.float32))
    cards = {"BATCH": batch, "TILEPX": tile, "STRIDEPX": stride}
    local.write(out, measured, cards, tiles, cell.max() + 1)


if __name__ == "__main__":
    with job.started(snakemake):
        inputs = snakemake.input
        names = ("image", "record", "stars", "registration", "normalization", "grid", "channels")
        paths = {key: inputs[key] for key in names} | {key: list(inputs[key]) for key in ("layers", "layer_records")}
        local_metrics(paths, snakemake.output[0], batch=snakemake.wildcards.batch, n_processes=snakemake.threads)
