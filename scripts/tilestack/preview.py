"""Previews: stretched pictures for the eye, never for measurement."""

import io
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tilestack import records, robust

# Screen transfer: the sky goes to this share of full white, clipped this many robust deviations below it.
SKY_TARGET = 0.22
BLACK_SIGMA = -2.8
LONGEST_PX = 2048
# Pictures of noise repeat nothing but black: looking for nothing else takes a quarter less time, and no more room.
COMPRESSION = {"compress_level": 3, "compress_type": zlib.Z_RLE}
# Rows that are stretched at once, so that they stay in the cache.
ROWS = 64


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
    planes = np.atleast_3d(np.asarray(image).T).T
    known = [robust.sample(plane) for plane in planes]
    sky = [np.median(values) if values.size else 0.0 for values in known]
    known = [values - level for values, level in zip(known, sky, strict=True) if values.size]
    spread = max(1.4826 * np.mean([np.median(np.abs(values)) for values in known] or 0), 1e-12)
    # White at the brightest but few pixels, so that one hot star does not set the scale.
    white = np.percentile(np.concatenate(known), 99.98) if known else 1.0
    black = BLACK_SIGMA * spread
    reach = max(white - black, 1e-12)
    balance = midtones(np.clip(-black / reach, 1e-6, 0.5), SKY_TARGET)
    shown = np.empty(planes.shape, np.uint8)
    for plane, level, out in zip(planes, sky, shown, strict=True):
        for first in range(0, len(plane), ROWS):
            scaled = (plane[first : first + ROWS] - np.float32(level + black)) / np.float32(reach)
            np.clip(scaled, 0, 1, out=scaled)
            out[first : first + ROWS] = np.nan_to_num(255 * midtones(scaled, np.float32(balance)) + 0.5)
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
    png = encoded(small[::-1] if flip else small, "png", **COMPRESSION)
    _put(path, png)
    if full is not None:
        if factor > 1:
            large = stretched(image)
            png = encoded(large[::-1] if flip else large, "png", **COMPRESSION)
        _put(full, png)


def encoded(shown, kind, **options):
    """A picture (h, w) or (h, w, 3) uint8 as the bytes of a file, ``jpeg`` or ``png``."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(shown)).save(stream, kind, **options)
    return stream.getvalue()


def _put(path, content):
    with records.replacing(path) as draft:
        Path(draft).write_bytes(content)
