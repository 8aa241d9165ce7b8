"""Colour image from the drizzled planes or from the stacked mosaic; a mono image passes through."""

import numpy as np
from astropy.io import fits

from tilestack import bayer, files, job, preview, products, records
from tilestack.kernels import debayer as kernel

COMPARISONS = {"even": "EVEN", "odd": "ODD", "plain_mean": "MEAN"}
EXTENSIONS = ("VAR", "WHT", "EXP", "NIM", "REJ", "MASK")
DROP = ("kernel", "pixfrac", "scale", "r_factor")
# Where neighbours fill in for more than this share of the pixels of a colour the mosaic is the better product.
MOST_FILLED = 0.5


def debayer(paths, out, *, method):
    """paths: image, drizzled, reconstruction, channels and the comparison images; out: image, preview, record and the
    comparisons in colour."""
    pattern = records.read(paths["channels"])["bayer_pattern"]
    drizzled = records.read(paths["reconstruction"])["drizzled"]
    method, why = chosen(method, pattern, drizzled)
    with fits.open(paths["image"]) as hdus:
        header, table = hdus[0].header, hdus["INPUTS"].copy()
        stack, planes = files.native(hdus[0].data), {h.name: files.native(h.data) for h in hdus[1:] if h.is_image}
    cards = own_cards(header)
    if method == "drizzle":
        image, extensions, others, cards = of_drops(paths["drizzled"])
    else:
        image, extensions, others = of_mosaic(paths, stack, planes, pattern, method)
    flip = header.get("ROWORDER", "").upper() == "BOTTOM-UP"
    products.write(out["image"], image, cards, extensions, [table], [*header["HISTORY"], f"colours by {method}"])
    for name, part in others.items():
        products.write(out[name], part, {**cards, "CONTENT": f"{name} stack, for comparison"})
    preview.write(out["preview"], image, flip=flip)
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


def chosen(method, pattern, drizzled):
    """The method that is used, and why."""
    if pattern is None:
        if drizzled is None:
            return "none", "mono lights have no colours: the image passes through"
        return "drizzle", "mono lights, drizzled by choice"
    if method != "auto":
        return method, "asked for by debayer.method"
    worst = max(drizzled["filled_share"])
    if worst > MOST_FILLED:
        return "malvar", f"neighbours would have to fill in for {worst:.0%} of the pixels of a colour: too few dithers"
    return "drizzle", f"the drops of the frames reach {1 - worst:.0%} of the pixels of each colour"


# Cards that say how the pixels are stored, which astropy writes itself, and those that do not hold for colours.
NOT_OURS = ("SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "EXTEND", "CHECKSUM", "DATASUM")
NOT_OURS += ("BAYERPAT", "HISTORY", "COMMENT", "")


def own_cards(header):
    """Cards of a product that go on to the next one, with their comments."""
    return {key: (header[key], header.comments[key]) for key in header if key not in NOT_OURS}


def of_drops(path):
    """Image, extensions, comparisons and cards from the drizzled planes; a single plane without its axis."""
    with fits.open(path) as hdus:
        cards = own_cards(hdus[0].header)
        planes = {hdu.name: files.native(hdu.data[0] if len(hdu.data) == 1 else hdu.data) for hdu in hdus}
    extensions = [(name, planes[name]) for name in EXTENSIONS]
    return planes["PRIMARY"], extensions, {name: planes[plane] for name, plane in COMPARISONS.items()}, cards


def of_mosaic(paths, stack, planes, pattern, method):
    """Image, extensions and comparisons from the mosaic; a mono image passes through."""
    variance = planes["VAR"]
    image, its_variance = (stack, variance) if method == "none" else demosaiced(stack, variance, pattern, method)
    others = {}
    for name in COMPARISONS:
        with fits.open(paths[name]) as hdus:
            part = files.native(hdus[0].data)
        others[name] = part if method == "none" else demosaiced(part, variance, pattern, method)[0]
    return image, [("VAR", its_variance), *((name, planes[name]) for name in EXTENSIONS[1:])], others


def demosaiced(mosaic, variance, pattern, method):
    """Colours of a mosaic, and their variance, by ``malvar``, ``bilinear`` or ``superpixel``."""
    cell = bayer.channel_cell(pattern)
    if method == "superpixel":
        return kernel.superpixel(mosaic, variance, cell)
    return kernel.debayer(mosaic, variance, cell, kernel.MALVAR if method == "malvar" else kernel.BILINEAR)


if __name__ == "__main__":
    with job.started(snakemake):
        debayer(dict(snakemake.input.items()), dict(snakemake.output.items()), method=snakemake.params.method)
