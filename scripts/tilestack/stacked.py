"""Products of a run as VALIDATION reads them: planes of one colour, with what is known of how they were made."""

from astropy.io import fits

from tilestack import files
from tilestack.validation import DEMOSAIC, LOSS, MIXED

OTHERS = ("even", "odd", "plain_mean")


def _channel(hdu, channel):
    """A channel of an image, by itself."""
    return files.native(hdu.data if hdu.data.ndim == 2 else hdu.data[channel])


def _read(path, name, channel):
    with fits.open(path, memmap=True, do_not_scale_image_data=True) as hdus:
        return _channel(hdus[name], channel)


def binned(image, n):
    """Means of n x n pixels."""
    h, w = (size // n * n for size in image.shape)
    return image[:h, :w].reshape(h // n, n, w // n, n).mean((1, 3))


def coloured(debayer):
    """Whether the colour product is an image of its own."""
    return debayer["method"] != "none"


def final(paths, debayer):
    """The image that stars are measured on; of colours the green.

    Returns
    -------
    dict
        ``image`` and ``plain_mean``; ``proxy``, with pixels as large as those on which the shapes of stars in frames
        were measured: super-pixels of a mosaic; ``scale``, pixels to one of the lattice; ``saturation``.
    """
    own = coloured(debayer)
    end = "_rgb" if own else ""
    path = paths["rgb" if own else "stacked"]
    image, mosaic, known = (fits.getheader(p) for p in (path, paths["stacked"], paths["header"]))
    channel, scale = 1 if image["NAXIS"] == 3 else 0, image["NAXIS2"] / mosaic["NAXIS2"]
    images = {"image": _read(path, 0, channel), "plain_mean": _read(paths[f"plain_mean{end}"], 0, channel)}
    n = max(int(round(scale * (2 if "BAYERPAT" in known else 1))), 1)
    return {**images, "proxy": binned(images["image"], n), "scale": scale, "saturation": known.get("SATURATE")}


def planes(paths, debayer):
    """Planes of one colour, one after the other: ``image``, ``variance``, ``frames``, OTHERS, ``scale`` and
    ``loss``, by how much its noise may exceed its variance plane.

    A mosaic is read as its four sub-planes, so its scale is a half: their pixels have the noise that its VAR says,
    which means of neighbours, correlated as they are, have not.
    """
    mosaic = "BAYERPAT" in fits.getheader(paths["header"])
    made = {"image": _read(paths["stacked"], 0, 0), "variance": _read(paths["stacked"], "VAR", 0)}
    made["frames"] = _read(paths["stacked"], "NIM", 0)
    made |= {name: _read(paths[name], 0, 0) for name in OTHERS}
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)) if mosaic else ():
        yield {**{name: plane[y::2, x::2] for name, plane in made.items()}, "scale": 0.5, "loss": MIXED}
    if not mosaic:
        yield {**made, "scale": 1.0, "loss": LOSS}
    if not coloured(debayer):
        return
    stack, rgb = (fits.getheader(paths[key]) for key in ("stacked", "rgb"))
    for channel in range(rgb.get("NAXIS3", 1)):
        made = {"image": _read(paths["rgb"], 0, channel), "variance": _read(paths["rgb"], "VAR", channel)}
        made |= {"frames": _read(paths["rgb"], "NIM", channel)}
        made |= {name: _read(paths[f"{name}_rgb"], 0, channel) for name in OTHERS}
        loss = LOSS if debayer["method"] == "drizzle" else MIXED
        yield {**made, "scale": rgb["NAXIS2"] / stack["NAXIS2"], "loss": loss}


def resampling(debayer):
    """Variance along an axis that the way of the colours adds to a star, px^2."""
    if debayer["method"] == "drizzle":
        # A drop, and the pixel that it falls on.
        return (debayer["pixfrac"] ** 2 + 1 / debayer["scale"] ** 2) / 12
    return 0.0 if debayer["method"] == "none" else DEMOSAIC
