"""DEBAYER: the colour product, from the drizzled planes or from the stacked mosaic; mono images pass through."""

import numpy as np

from tilestack import bayer, files, products, stackfiles
from tilestack.kernels import debayer as kernel

COMPARISONS = ("even", "odd", "plain_mean")
# Where neighbours fill in more than this share of a colour the mosaic is the better product: at 0.03 colours of drizzle
# scatter half as much, at 0.26 as much, and its red and blue are wider (docs/decisions.md).
MOST_FILLED = 0.15
# What a super-pixel has of the planes of its four pixels.
OF_CELL = {"WHT": np.add, "EXP": np.fmin, "NIM": np.minimum, "REJ": np.maximum, "MASK": np.bitwise_or}


def chosen(method, pattern, drizzled):
    """The method that is used, and why.

    Parameters
    ----------
    method : str
        ``debayer.method``.
    pattern : str or None
        Bayer pattern of the mosaic.
    drizzled : dict or None
        Of the record of TILE_RECONSTRUCTION.
    """
    if pattern is None:
        if drizzled is None:
            return "none", "mono lights have no colours: the image passes through"
        return "drizzle", "mono lights, drizzled by choice"
    if method != "auto":
        return method, "asked for by debayer.method"
    worst = max(drizzled["filled_share"])
    if drizzled["scale"] > 1:
        return "drizzle", f"drizzle.scale asks for finer pixels; neighbours fill in for up to {worst:.0%} of a colour's"
    if worst > MOST_FILLED:
        return "malvar", f"neighbours would have to fill in for {worst:.0%} of the pixels of a colour: too few dithers"
    return "drizzle", f"the drops of the frames reach {1 - worst:.0%} of the pixels of each colour"


def cards_of_drops(cards, drizzled):
    """Cards of drizzled colours, from those of the mosaic and what ``colours.add_up`` said of the planes."""
    return products.at_scale(cards, drizzled["scale"]) | {
        "DRZKERN": (drizzled["kernel"], "shape of a drop"),
        "DRZFRAC": (drizzled["pixfrac"], "size of a drop in raw pixels"),
        "DRZSCALE": (drizzled["scale"], "output pixels per lattice pixel and axis"),
        "NOISERAT": (drizzled["r_factor"], "noise of large areas over that of VAR"),
    }


def of_mosaic(paths, cards, pattern, method):
    """Cards, image, planes and comparisons from the mosaic by a method of ``demosaiced``.

    Parameters
    ----------
    paths : dict
        ``image`` and the comparisons.
    cards : dict
        Those of ``image``.
    pattern : str or None
    method : str
    """
    with files.opened(paths["image"]) as hdus:
        stack, *planes = (files.loaded(hdu) for hdu in hdus)
    planes = dict(zip(stackfiles.OF_FILE["image"][1:], planes, strict=True))
    parts = {}
    for name in COMPARISONS:
        with files.opened(paths[name]) as hdus:
            parts[name] = files.loaded(hdus[0])
    variance = planes["VAR"]
    stack, planes["VAR"] = demosaiced(stack, variance, pattern, method)
    if method == "superpixel":
        cards = products.at_scale(cards, 0.5)
        planes |= {name: by_cells(planes[name], OF_CELL[name]) for name in OF_CELL}
    parts = {name: demosaiced(part, variance, pattern, method)[0] for name, part in parts.items()}
    return cards, stack, list(planes.items()), parts


def by_cells(plane, of_cell):
    """A plane of a mosaic by its cells of 2x2 pixels: (h // 2, w // 2)."""
    h, w = (n // 2 * 2 for n in plane.shape)
    return of_cell.reduce(np.stack([plane[y:h:2, x:w:2] for y in (0, 1) for x in (0, 1)]), axis=0)


def demosaiced(mosaic, variance, pattern, method):
    """Colours of a mosaic, and their variance, by ``malvar``, ``bilinear`` or ``superpixel``."""
    cell = bayer.channel_cell(pattern)
    if method == "superpixel":
        return kernel.superpixel(mosaic, variance, cell)
    return kernel.debayer(mosaic, variance, cell, kernel.MALVAR if method == "malvar" else kernel.BILINEAR)
