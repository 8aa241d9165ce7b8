"""Background gradient: fitted to samples of sky and subtracted, from all channels or from none."""

import numpy as np
from astropy.io import fits

from tilestack import background, files, job, preview, products, records

KEPT_PLANES = ("VAR", "MASK")


def bge(paths, out, *, options):
    """paths: image, mosaic, channels; out: image, mosaic, model, preview, preview_full, figure, record."""
    names = records.read(paths["channels"])["channels"]
    pattern = records.read(paths["channels"])["bayer_pattern"]
    cards, planes, extensions = opened(paths["image"])
    found = {"model": None, "reason": "switched_off", "boxes": None, "channels": []}
    if options["enabled"]:
        found = background.extracted(planes, options)
    model = np.zeros_like(planes)
    if found["reason"] is None:
        model = background.over_sky(found["model"], planes.shape[1:], found["boxes"], found["kept"])
    history = [f"background: {found['reason'] or found['method']}"]
    flat = planes - model
    products.write(out["image"], squeezed(flat), cards, extensions, history=history)
    about = {**cards, "CONTENT": "model of the background that was subtracted"}
    products.write(out["model"], squeezed(model), about, history=history)
    mosaic_cards, mosaic, mosaic_extensions = opened(paths["mosaic"])
    if found["reason"] is None:
        full = background.over_sky(found["model"], mosaic.shape[1:], found["boxes"], found["kept"])
        mosaic = mosaic - background.of_mosaic(full, mosaic.shape[1:], pattern)
    products.write(out["mosaic"], mosaic[0], mosaic_cards, mosaic_extensions, history=history)
    preview.write(out["preview"], squeezed(flat), flip=products.bottom_up(cards), full=out["preview_full"])
    background.draw(out["figure"], found, names, planes.shape[1:], bottom_up=products.bottom_up(cards))
    records.write(out["record"], record_of(found, names))


def opened(path):
    """Cards, planes (c, h, w) and the extensions of a product that go on."""
    with fits.open(path) as hdus:
        cards = products.own_cards(hdus[0].header)
        image = files.native(hdus[0].data)
        extensions = [(name, files.native(hdus[name].data)) for name in KEPT_PLANES]
    return cards, image.reshape(-1, *image.shape[-2:]), extensions


def squeezed(planes):
    """A single plane without its axis."""
    return planes[0] if len(planes) == 1 else planes


def record_of(found, names):
    """The record of the phase."""
    kept = found.get("kept")
    keys = ("amplitude_adu", "residual_share", "object_share", "star_flux_change")
    channels = []
    for name, numbers in zip(names, found["channels"], strict=False):
        share = numbers["residual_adu"] / max(numbers["amplitude_adu"], 1e-12)
        channels.append({"channel": name, **{key: {**numbers, "residual_share": share}[key] for key in keys}})
    method, order = found.get("method"), found.get("order")
    return {
        "phase": 15,
        "phase_name": "BGE",
        "status": "ok" if found["reason"] is None else "skipped",
        "reason": found["reason"],
        "summary": {"method": method, "order": order, "n_samples": 0 if kept is None else int(kept.sum())},
        "method": method,
        "order": order,
        "n_samples": 0 if kept is None else int(kept.sum()),
        "kept_share": None if kept is None else float(kept.mean()),
        "channels": channels,
    }


if __name__ == "__main__":
    with job.started(snakemake):
        bge(dict(snakemake.input.items()), dict(snakemake.output.items()), options=snakemake.params.options)
