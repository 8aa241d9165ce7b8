"""Colour image from the drizzled planes or from the stacked mosaic; a mono image passes through."""

import numpy as np

from tilestack import debayering, finishing, job, products, records, stackfiles

DROP = ("kernel", "pixfrac", "scale", "r_factor")


def debayer(paths, out, *, method, cosmetic, n_processes=1):
    """paths: header, image, preview, preview_full and the comparison images of STACKING; direct_... and synthetic_...,
    files of both stacks of drizzled colours; synthetic_record, stacking, reconstruction, channels; out: record, and of
    the colours what STACKING has."""
    pattern, stack = records.read(paths["channels"])["bayer_pattern"], records.read(paths["stacking"])
    reconstruction = records.read(paths["reconstruction"])
    drizzled = reconstruction["drizzled"]
    method, why = debayering.chosen(method, pattern, drizzled)
    if method == "none":
        names = ("header", "preview", "image", *debayering.COMPARISONS, "preview_full")
        stackfiles.passed_on(paths, {name: out[name] for name in names})
        image = stackfiles.loaded(out, "SCI")
    else:
        cards, history = products.read_header(paths["header"])
        cards.pop("BAYERPAT", None)
        if method == "drizzle":
            ours = stackfiles.used(paths, records.read(paths["synthetic_record"])["combined"])
            whole = (reconstruction["canvas"], stack["crop"])
            plane = finishing.of_colours_in(ours, *whole, drizzled["scale"], cosmetic)
            cards = debayering.cards_of_drops(cards, drizzled)
            image = finishing.write(ours, plane, out, cards, n_processes)
        else:
            cards, image, planes, others = debayering.of_mosaic(paths, cards, pattern, method)
            products.write_all(out, image, planes, others, cards, n_processes)
        products.write_header(out["header"], cards, [*history, f"colours by {method}"])
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
