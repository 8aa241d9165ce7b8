"""Colour image from the stacked mosaic; a mono image passes through."""

import numpy as np
from astropy.io import fits

from tilestack import bayer, files, job, preview, products, records
from tilestack.kernels import debayer as kernel

COMPARISONS = ("even", "odd", "plain_mean")
# What auto and drizzle give as long as nothing but the mosaic is there.
OF_MOSAIC = {
    "auto": "malvar",
    "drizzle": "malvar",
    "malvar": "malvar",
    "bilinear": "bilinear",
    "superpixel": "superpixel",
}


def debayer(paths, out, *, method):
    """paths: image, channels and the comparison images; out: image, preview, record and the comparisons in colour."""
    pattern = records.read(paths["channels"])["bayer_pattern"]
    with fits.open(paths["image"]) as hdus:
        header, stack = hdus[0].header, files.native(hdus[0].data)
        planes = {hdu.name: files.native(hdu.data) for hdu in hdus[1:] if hdu.is_image}
        table = hdus["INPUTS"].copy()
    flip = header.get("ROWORDER", "").upper() == "BOTTOM-UP"
    if pattern is None:
        method, image, variance = "none", stack, planes["VAR"]
    else:
        method = OF_MOSAIC[method]
        image, variance = colours(stack, planes["VAR"], pattern, method)
    cards = {
        key: header[key] for key in header if key not in BASIC and key not in ("BAYERPAT", "HISTORY", "COMMENT", "")
    }
    extensions = [("VAR", variance), *((name, planes[name]) for name in ("WHT", "EXP", "NIM", "REJ", "MASK"))]
    products.write(out["image"], image, cards, extensions, [table], [*header["HISTORY"], f"colours by {method}"])
    for name in COMPARISONS:
        with fits.open(paths[name]) as hdus:
            part, content = files.native(hdus[0].data), hdus[0].header["CONTENT"]
        if pattern is not None:
            part, _ = colours(part, planes["VAR"], pattern, method)
        products.write(out[name], part, {**cards, "CONTENT": content})
    preview.write(out["preview"], image, flip=flip)
    skipped = pattern is None
    records.write(
        out["record"],
        {
            "phase": 13,
            "phase_name": "DEBAYER",
            "status": "skipped" if skipped else "ok",
            "reason": "mono lights have no colours: the image passes through" if skipped else None,
            "summary": {"method": method},
            "method": method,
            "missing_share": [float(np.isnan(plane).mean()) for plane in np.atleast_3d(image.T).T],
        },
    )


# Cards that say how the pixels are stored; astropy writes its own.
BASIC = ("SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "EXTEND", "CHECKSUM", "DATASUM")


def colours(mosaic, variance, pattern, method):
    """Colours of a mosaic by a method of OF_MOSAIC."""
    cell = bayer.channel_cell(pattern)
    if method == "superpixel":
        return kernel.superpixel(mosaic, variance, cell)
    return kernel.debayer(mosaic, variance, cell, kernel.MALVAR if method == "malvar" else kernel.BILINEAR)


if __name__ == "__main__":
    with job.started(snakemake):
        debayer(dict(snakemake.input.items()), dict(snakemake.output.items()), method=snakemake.params.method)
