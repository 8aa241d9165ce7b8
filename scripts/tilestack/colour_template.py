"""The template of a colour run, as sharp as its frames: the sharpest of them, drizzled and frozen.

The median of the mosaics, demosaiced, is broader than a raw frame by a third. Measured against that the cores of stars
would pass for outliers. So it serves only to find those of the frames that make this template.
"""

import numpy as np

from tilestack import bayer, drizzling, files, geometry, lattice, sky, template, threads
from tilestack.kernels import drizzle, prewarp

# Frames behind it: more only cost time, as its noise is then below a fifth of a frame's.
MOST_FRAMES = 24
DROP = drizzle.Drop(drizzle.TURBO, 0.7, 1)
# Against the demosaiced median, which is broader than the frames.
OPTIONS = {
    "reject": True,
    "kappa": 4.5,
    "range_tolerance": 0.5,
    "signal_tolerance": 0.1,
    "seeing_tolerance": 0.3,
    "grow_px": 1,
    "streaks": True,
}
# What demosaicing adds to the variance of a star's profile, px^2: FWHM 2.2 becomes 2.8.
DEMOSAIC_VARIANCE = 0.54


class Demosaiced:
    """A layer of the mosaics' template in all its colours; reads like ``template.Layers``."""

    def __init__(self, path, pattern):
        self.mosaic, self.cell = template.Layers([path]), bayer.channel_cell(pattern)
        self.widths = [np.hypot(width, np.sqrt(drizzle.FWHM2 * DEMOSAIC_VARIANCE)) for width in self.mosaic.widths]

    def read(self, box):
        wide = (box[0] - 2, box[1] - 2, box[2] + 4, box[3] + 4)
        mosaic, variance = (plane[0] for plane in self.mosaic.read(wide, 2))
        phase = np.roll(self.cell, (-(wide[0] % 2), -(wide[1] % 2)), (0, 1))
        # As PREWARP does it. The variance between pixels of a colour is about that of those around.
        image, variance = prewarp.demosaic(mosaic, phase), np.maximum(prewarp.demosaic(variance, phase), 0)
        inner = (slice(None), slice(2, -2), slice(2, -2))
        width = np.full((len(image), *box[2:]), self.widths[0] if self.widths else np.nan, np.float32)
        return (*(np.ascontiguousarray(planes[inner]) for planes in (image, variance)), width)


def fields_of(entries, fits, tiles, pitch):
    """Fields of frames as wholes: (n, 5, c, ny, nx) float32 in the order of ``drizzle.FIELDS``."""
    nodes = lattice.tile_centres(tiles, pitch)
    fields = np.empty((len(entries), len(drizzle.FIELDS), len(fits[0]["scale"]), *tiles[2:]), np.float32)
    for k, (entry, fit) in enumerate(zip(entries, fits, strict=True)):
        area = geometry.area_scale(np.array(entry["transform"]))
        noise = np.array([np.nanmedian(plane) for plane in np.array(entry["noise"], float)])
        scale = np.array(fit["scale"], float)
        variance = area * noise**2 / scale**2
        skies = np.array([sky.evaluate(model, *nodes) for model in fit["sky"]])
        width = np.nan if fit["fwhm_px"] is None else fit["fwhm_px"]
        for m, values in enumerate((scale, skies, variance, np.full_like(scale, width), 1 / variance)):
            fields[k, m] = values if values.ndim == 3 else values[:, None, None]
    return fields


def write_layer(path, batch, demosaiced, fwhm_px):
    """Drizzle the frames of a batch, and write what they give as a layer.

    Parameters
    ----------
    path : path
        FITS file as that of ``template.write_layer``, with a plane a colour.
    batch : drizzling.Batch
        The frames behind the layer, against the demosaiced median.
    demosaiced : Demosaiced
        Fills in where no drop fell, and says which pixels have enough frames.
    fwhm_px : float or None
        Median FWHM of the frames.
    """
    box, n_channels = batch.box, batch.n_channels
    # Raw samples are spread by their drop and collected by a pixel.
    broader = drizzle.FWHM2 * (DROP.pixfrac**2 + 1) / 12
    width = None if fwhm_px is None else float(np.sqrt(fwhm_px**2 + broader))
    cards = {"LATTY0": box[0], "LATTX0": box[1], "BUNIT": "adu", "FWHM": (width, "[px] of its stars")}
    found = batch.outliers()
    unknown = np.full(len(batch.entries), np.nan)
    with files.Writer(path, {"CONTENT": "sky template by colour"}) as writer:
        shape = (n_channels, *box[2:])
        places = [writer.reserve(name, shape, dtype, cards) for name, dtype in template.COLUMNS]

        def drizzled(block):
            signal = drizzling.around(batch, block)
            added = drizzling.add(batch, block, found, DROP, unknown, signal, batch.deposited)
            kept = dict(zip(drizzle.SUMS[:-1], np.moveaxis(added.sums, -1, 0), strict=True))
            weight = kept["W_EVEN"] + kept["W_ODD"]
            median, its_variance, _ = demosaiced.read(block)
            with np.errstate(invalid="ignore", divide="ignore"):
                image = (kept["WY_EVEN"] + kept["WY_ODD"]) / weight
                variance = (kept["W2V_EVEN"] + kept["W2V_ODD"]) / weight**2
            bare = ~(weight > 0)
            image, variance = np.where(bare, median, image), np.where(bare, its_variance, variance)
            count = np.where(np.isfinite(median) & np.isfinite(image), template.FEWEST_FRAMES, 0)
            return block, (image.astype(np.float32), variance.astype(np.float32), count.astype(np.uint8))

        for block, parts in threads.in_order(drizzled, drizzling.blocks_of(batch, DROP), batch.n_threads):
            for place, planes in zip(places, parts, strict=True):
                for c, plane in enumerate(planes):
                    writer.put_block(place, plane, shape, (c, block[0] - box[0], block[1] - box[1]))
