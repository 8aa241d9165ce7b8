"""Weigh the frames of a session as wholes."""

import numpy as np

from tilestack import job, records, weights
from tilestack.records import rounded


def global_metrics(normalization_path, registration_path, prewarp_paths, out, *, objective, quality_model):
    normalized = records.read(normalization_path)
    registered = {frame["file"]: frame for frame in records.read(registration_path)["frames"]}
    entry_of = {entry["file"]: entry for path in prewarp_paths for entry in records.read(path)["frames"]}
    frames = normalized["frames"]
    shape = (len(frames), len(normalized["channels"]))  # a session may have no usable frame
    columns = ("scale", "noise_adu", "sky_level_adu")
    scale, noise, level = (records.array([f[key] for f in frames]).reshape(shape) for key in columns)
    fwhm = records.array([f["fwhm_px"] for f in frames])
    energy = records.array([entry_of[f["file"]]["gradient_energy"] for f in frames])
    n_stars = records.array([registered[f["file"]]["n_stars"] for f in frames])
    exposure = records.array([f["exposure_s"] for f in frames])
    rate = scale / (exposure[:, None] if np.isfinite(exposure).all() else 1.0)
    transparency = rate / rate.max(0, initial=1e-30)
    # Energy of a frame at scale 1, so that transparency does not pass for sharpness.
    score = weights.zscore_global(
        level.mean(1) / scale.mean(1), noise.mean(1) / scale.mean(1), energy / scale.mean(1) ** 2
    )
    if quality_model == "zscore":
        weight = np.repeat(np.exp(score)[:, None], scale.shape[1], axis=1)
    else:
        area, error = (records.array([f[key] for f in frames]) for key in ("area", "error_px"))
        smeared = weights.smeared(fwhm, error, np.sqrt(area))
        weight = weights.physical(scale, noise**2 * area[:, None], smeared[:, None], objective)
    with np.errstate(divide="ignore", invalid="ignore"):
        weighted_fwhm = fwhm * n_stars.max(initial=0) / n_stars
    records.write(
        out,
        {
            "session": normalized["session"],
            "channels": normalized["channels"],
            "quality_model": quality_model,
            "objective": objective,
            "frames": [
                {
                    **{
                        key: frame[key]
                        for key in ("file", "session", "batch", "index", "exposure_s", "area", "error_px", "scale")
                    },
                    **{
                        key: frame[key]
                        for key in ("fwhm_px", "scale_error", "fwhm_error_px", "gradient_adu", "gradient_deg")
                    },
                    "sky_adu": frame["sky_level_adu"],
                    "noise_adu": frame["noise_adu"],
                    "gradient_energy": rounded(energy[k]),
                    "transparency": rounded(transparency[k]),
                    "wfwhm_px": rounded(weighted_fwhm[k]),
                    "roundness": rounded(1 / (registered[frame["file"]]["elongation"] or np.nan), 4),
                    "n_stars": registered[frame["file"]]["n_stars"],
                    "score": rounded(score[k]),
                    "weight": rounded(weight[k]),
                }
                for k, frame in enumerate(frames)
            ],
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        global_metrics(
            snakemake.input.normalization,
            snakemake.input.registration,
            snakemake.input.records,
            snakemake.output[0],
            objective=snakemake.params.objective,
            quality_model=snakemake.params.quality_model,
        )
