"""Previews: stretched pictures for the eye, never for measurement."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tilestack import records

# Screen transfer: the sky goes to this share of full white, clipped this many robust deviations below it.
SKY_TARGET = 0.22
BLACK_SIGMA = -2.8
LONGEST_PX = 2048
# Of zlib: the next levels cost twice the time for 3 % of the size.
COMPRESSION = 3


def midtones(values, balance):
    """Midtone transfer function: 0, balance and 1 become 0, 1/2 and 1."""
    return (balance - 1) * values / ((2 * balance - 1) * values - balance)


def stretched(image):
    """Auto-stretch an image.

    Parameters
    ----------
    image : (h, w) or (3, h, w) float array
        Linear; NaN marks no data and becomes black. Colours get their sky levels made equal, then one stretch.

    Returns
    -------
    (h, w) or (h, w, 3) uint8 array
    """
    planes = np.atleast_3d(np.asarray(image, float).T).T
    sky = np.array([_median(plane) for plane in planes])
    planes = planes - sky[:, None, None]
    spread = max(1.4826 * np.mean([_median(np.abs(plane)) for plane in planes]), 1e-12)
    # White at the brightest but few pixels, so that one hot star does not set the scale.
    known = planes[np.isfinite(planes)]
    white = np.percentile(known[:: max(1, known.size // 1_000_000)], 99.98) if known.size else 1.0
    black = BLACK_SIGMA * spread
    scaled = np.clip((planes - black) / max(white - black, 1e-12), 0, 1)
    level = np.clip(-black / max(white - black, 1e-12), 1e-6, 0.5)
    balance = midtones(level, SKY_TARGET)
    shown = np.nan_to_num(255 * midtones(scaled, balance) + 0.5).astype(np.uint8)
    return shown[0] if len(shown) == 1 else np.moveaxis(shown, 0, -1)


def picture(image):
    """A stretched image whose longer side has at most LONGEST_PX, and how many pixels were averaged along each axis."""
    factor = -(-max(image.shape[-2:]) // LONGEST_PX)
    if factor > 1:
        h, w = (n // factor * factor for n in image.shape[-2:])
        small = image[..., :h, :w].reshape(*image.shape[:-2], h // factor, factor, w // factor, factor)
        image = np.mean(small, axis=(-3, -1))
    return stretched(image), factor


def write(path, image, *, flip=False, full=None):
    """Write a stretched preview as PNG, its longer side at most LONGEST_PX.

    Parameters
    ----------
    path : path
    image : (h, w) or (3, h, w) float array
    flip : bool
        Last row on top, for files whose first row is the bottom one.
    full : path
        The same with all pixels.
    """
    small, factor = picture(image)
    png = encoded(small[::-1] if flip else small, "png", compress_level=COMPRESSION)
    _put(path, png)
    if full is not None:
        if factor > 1:
            large = stretched(image)
            png = encoded(large[::-1] if flip else large, "png", compress_level=COMPRESSION)
        _put(full, png)


def encoded(shown, kind, **options):
    """A picture (h, w) or (h, w, 3) uint8 as the bytes of a file, ``jpeg`` or ``png``."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(shown)).save(stream, kind, **options)
    return stream.getvalue()


def _put(path, content):
    with records.replacing(path) as draft:
        Path(draft).write_bytes(content)


def _median(values):
    values = values[np.isfinite(values)]
    return np.median(values[:: max(1, values.size // 1_000_000)]) if values.size else 0.0
