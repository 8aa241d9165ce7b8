"""Colour image from the drizzled planes or from the stacked mosaic; a mono image passes through."""

import numpy as np
from astropy.io import fits

from tilestack import debayering, job, products, records

DROP = ("kernel", "pixfrac", "scale", "r_factor")


def debayer(paths, out, *, method, cosmetic, n_processes=1):
    """paths: image, drizzled, synthetic_drizzled, stacking, reconstruction, channels, preview, preview_full and the
    comparison images; out: image, preview, preview_full, record and the comparisons in colour."""
    pattern, stack = records.read(paths["channels"])["bayer_pattern"], records.read(paths["stacking"])
    reconstruction = records.read(paths["reconstruction"])
    drizzled = reconstruction["drizzled"]
    method, why = debayering.chosen(method, pattern, drizzled)
    if method == "none":
        image = debayering.passed_on(paths, out)
    else:
        with fits.open(paths["image"]) as hdus:
            cards, history = products.own_cards(hdus[0].header), list(hdus[0].header["HISTORY"])
            table = hdus["INPUTS"].copy()
        if method == "drizzle":
            path = paths["synthetic_drizzled" if stack["source"] == "synthetic" else "drizzled"]
            whole = (reconstruction["canvas"], stack["crop"])
            cards, image, extensions, others = debayering.of_drops(path, cards, drizzled, *whole, cosmetic)
        else:
            cards, image, extensions, others = debayering.of_mosaic(paths, cards, pattern, method)
        history.append(f"colours by {method}")
        products.write_all(out, image, cards, extensions, table, history, others, n_processes)
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
        debayer(
            dict(snakemake.input.items()),
            dict(snakemake.output.items()),
            method=snakemake.params.method,
            cosmetic=snakemake.params.cosmetic,
            n_processes=snakemake.threads,
        )
