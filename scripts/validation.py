"""Check the stack against what its frames allow, from the products and the records alone."""

import numpy as np

from tilestack import job, records, stacked, validation


def validate(paths, out):
    """paths: stacked and its header, rgb, even, odd, plain_mean, even_rgb, odd_rgb, plain_mean_rgb; and the records
    global_metrics, registration, reconstruction, grid, debayer."""
    keys = ("global_metrics", "registration", "reconstruction", "grid", "debayer")
    read = {key: records.read(paths[key]) for key in keys}
    frames = frame_table(read["global_metrics"]["frames"])
    final = stacked.final(paths, read["debayer"])
    checks = [*of_stars(final, frames, read["debayer"]), *of_sky(paths, read)]
    given_up, limit = validation.of_weights(frames, read["global_metrics"]["objective"])
    residual = read["registration"]["summary"]["median_residual_px"]
    checks += [
        validation.check("weight_stability", given_up, limit),
        validation.check("rejected_share", read["reconstruction"]["rejected_share"], validation.REJECTED),
        validation.check("registration_residual", residual, validation.RESIDUAL * np.nanmedian(frames["fwhm"])),
    ]
    failed = [entry["name"] for entry in checks if not entry["ok"]]
    records.write(
        out,
        {
            "phase": 12,
            "phase_name": "STACKING",
            "status": "validation_failed" if failed else "ok",
            "reason": ", ".join(failed) or None,
            "summary": {"checks": len(checks), "failed": len(failed)},
            "warnings": dict.fromkeys(failed, 1),
            "checks": checks,
        },
    )


def frame_table(frames):
    columns = ("scale", "noise_adu", "weight")
    scale, noise, weight = (records.array([frame[key] for frame in frames]).mean(1) for key in columns)
    fwhm, error, area, roundness = (
        records.array([frame[key] for frame in frames]) for key in ("fwhm_px", "error_px", "area", "roundness")
    )
    variance = noise**2 * area / scale**2
    return {"weight": weight, "variance": variance, "fwhm": fwhm, "error": error, "roundness": roundness}


def of_stars(final, frames, debayer):
    """Checks of the widths and the shapes of stars in the final image."""
    found, plain = (validation.star_table(final[key], final["saturation"]) for key in ("image", "plain_mean"))
    width, error = validation.centre(found["fwhm"] / final["scale"])
    ratio, ratio_error = validation.paired(found, plain)
    long, long_error = validation.centre(validation.star_table(final["proxy"], final["saturation"])["elongation"])
    known = np.isfinite(frames["fwhm"])
    typical = of_weights = of_mean = np.nan
    if known.any():
        typical, of_mean = np.median(frames["fwhm"][known]), np.mean(frames["fwhm"][known])
        of_weights = np.average(frames["fwhm"][known], weights=frames["weight"][known])
    misplaced = np.nan_to_num(np.nanmedian(frames["error"]))
    expected = validation.broadened(of_weights, misplaced, stacked.resampling(debayer)) / typical
    return [
        validation.check("fwhm_of_frames", width / typical, expected * (1 + validation.LOSS), error / typical),
        validation.check(
            "fwhm_of_plain_mean",
            ratio,
            np.maximum(of_weights / of_mean, 1.0) * (1 + validation.LOSS_OF_PAIRS),
            ratio_error,
        ),
        validation.check("elongation", long, np.nanmedian(1 / frames["roundness"]) + validation.ELONGATION, long_error),
    ]


def of_sky(paths, read):
    """Checks of noise and of the tile pattern: the worst of the planes of both images."""
    noise, pattern = [], []
    for plane in stacked.planes(paths, read["debayer"]):
        usable = validation.blank(plane["plain_mean"], plane["frames"])
        pitch = int(round(read["grid"]["stride_px"] * plane["scale"]))
        parts = (plane[key] for key in ("image", "even", "odd", "variance"))
        value, error = validation.excess_noise(*parts, usable, pitch)
        noise.append(validation.check("background_rms", value, 1 + plane["loss"], error))
        found = validation.tile_lattice(plane["image"], plane["plain_mean"], plane["variance"], usable, pitch)
        pattern.append(validation.check("tile_lattice", *found))
    return [max(group, key=lambda entry: (entry["value"] or 0) / entry["threshold"]) for group in (noise, pattern)]


if __name__ == "__main__":
    with job.started(snakemake):
        validate(dict(snakemake.input.items()), snakemake.output[0])
