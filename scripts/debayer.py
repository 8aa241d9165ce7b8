"""Colour image from the drizzled planes or from the stacked mosaic; a mono image passes through."""

import numpy as np
from astropy.io import fits

from tilestack import debayering, job, preview, products, records

DROP = ("kernel", "pixfrac", "scale", "r_factor")


def debayer(paths, out, *, method):
    """paths: image, drizzled, reconstruction, channels, preview, preview_full and the comparison images; out: image,
    preview, preview_full, record and the comparisons in colour."""
    pattern = records.read(paths["channels"])["bayer_pattern"]
    drizzled = records.read(paths["reconstruction"])["drizzled"]
    method, why = debayering.chosen(method, pattern, drizzled)
    if method == "none":
        image = debayering.passed_on(paths, out)
    else:
        if method == "drizzle":
            cards, image, extensions, others = debayering.of_drops(paths["drizzled"])
        else:
            cards, image, extensions, others = debayering.of_mosaic(paths, pattern, method)
        with fits.open(paths["image"]) as hdus:
            history, table = list(hdus[0].header["HISTORY"]), hdus["INPUTS"].copy()
        products.write(out["image"], image, cards, extensions, [table], [*history, f"colours by {method}"])
        for name, part in others.items():
            products.write(out[name], part, {**cards, "CONTENT": f"{name} stack, for comparison"})
        preview.write(out["preview"], image, flip=products.bottom_up(cards), full=out["preview_full"])
    skipped = method == "none"
    records.write(
        out["record"],
        {
            "phase": 13,
            "phase_name": "DEBAYER",
            "status": "skipped" if skipped else "ok",
            "reason": why if skipped else None,
            "why": why,
            "summary": {"method": method},
            "method": method,
            **({key: drizzled[key] for key in DROP} if method == "drizzle" else {}),
            "missing_share": [float(np.isnan(plane).mean()) for plane in np.atleast_3d(image.T).T],
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        debayer(dict(snakemake.input.items()), dict(snakemake.output.items()), method=snakemake.params.method)
