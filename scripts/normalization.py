"""Fit the photometric scale and the sky of a session's frames."""

import numpy as np

from tilestack import job, records, regression
from tilestack import normalization as normalizations
from tilestack.records import rounded


def normalization(paths, out, *, sky_model, sky_mesh_px):
    """paths: records, images and stars (lists), registration, reference; of later sessions first (normalization),
    layers (records of the template so far) and layer_images."""
    reference, registration = records.read(paths["reference"]), records.read(paths["registration"])
    lattice = reference["lattice"]
    frames, table = normalizations.star_table(registration, [records.read(path) for path in paths["stars"]])
    images = list(zip(paths["images"], [records.read(path)["frames"] for path in paths["records"]], strict=True))
    entry_of = {entry["file"]: entry for _, batch in images for entry in batch}
    entries = [entry_of[frame["file"]] for frame in frames]
    first = records.read(paths["first"][0]) if paths["first"] else None
    files = [frame["file"] for frame in frames]
    if first is None:
        known, anchor = None, normalizations.anchor_of(frames, reference["photometric"]["file"])
        n_stars, target = len(registration["stars"]["x"]), entries[anchor]
    else:
        known, anchor = records.array(first["log_flux"]), None
        n_stars, target = known.shape[1], records.read(paths["layers"][-1])
    fwhm, fwhm_error, width_offset, width_stars = normalizations.widths(table, len(frames), n_stars)
    corrections = normalizations.flux_corrections(table, fwhm)
    normalizations.apply_corrections(table, corrections, fwhm)
    log_scale, error, brightness, used = normalizations.scales(frames, table, n_stars, known, anchor)
    few = [k for k in range(len(used)) if used[k] < normalizations.FEWEST_STARS and k != anchor]
    log_scale, error, methods = regression.in_place_of_few_stars(
        log_scale, error, few, images, files, paths["layer_images"], lattice["bayer_pattern"]
    )
    exposure = np.array([frame["exposure_s"] or np.nan for frame in frames])
    typical = normalizations.typical_scale(log_scale, exposure, first["typical"] if first else None)
    scale = np.exp(normalizations.filled_scale(log_scale, exposure, typical))
    reference_sky = (
        first["reference_sky"] if first else normalizations.smooth_sky(target, lattice["shape"], lattice["mesh_px"])
    )
    models = normalizations.sky_models(
        entries, scale, target, lattice["shape"], lattice["mesh_px"], sky_model, sky_mesh_px, later=first is not None
    )
    records.write(
        out,
        {
            "session": registration["session"],
            "channels": registration["channels"],
            "anchor": None if anchor is None else files[anchor],
            "gain": normalizations.measure_gain(entries, [frame["gain_e_adu"] for frame in frames]),
            "typical": typical,
            "log_flux": rounded(brightness),
            "flux_corrections": corrections,
            "ln_fwhm_offset": rounded(width_offset),
            "reference_sky": reference_sky,
            "frames": [
                normalizations.frame_record(frame, entry, model)
                | {
                    "session": registration["session"],
                    "fwhm_px": rounded(fwhm[k]),
                    "fwhm_error_px": rounded(fwhm_error[k], 3),
                    "n_fwhm_stars": width_stars[k],
                    "scale": rounded(scale[k]),
                    "scale_error": rounded(error[k], 3),
                    "n_stars": used[k],
                    "scale_method": methods[k],
                }
                for k, (frame, entry, model) in enumerate(zip(frames, entries, models, strict=True))
            ],
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        inputs = snakemake.input
        paths = {key: inputs[key] for key in ("registration", "reference")}
        paths |= {
            key: [inputs[key]] if isinstance(inputs[key], str) else list(inputs[key])
            for key in ("records", "images", "stars")
        }
        paths |= {key: list(inputs.get(key, [])) for key in ("first", "layers", "layer_images")}
        normalization(
            paths,
            snakemake.output[0],
            sky_model=snakemake.params.sky_model,
            sky_mesh_px=snakemake.params.sky_mesh_px,
        )
