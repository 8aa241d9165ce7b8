"""The sky template: what the sky looks like, frozen, as the measure of outliers and of sharpness.

A session adds a layer: the median of its sharpest frames. Where several sessions have one, the first counts; so a later
session never changes what an earlier one was measured against.
"""

import numpy as np

from tilestack import bayer, files, geometry, prewarped, sky, threads
from tilestack.kernels import clipping
from tilestack.kernels import template as kernel
from tilestack.lattice import tile_centres, tile_range
from tilestack.records import rounded

# Fewer frames than this behind a pixel are no measure of anything.
FEWEST_FRAMES = 5
# Bytes of codes that a thread may hold of a band.
BAND_BYTES = 96e6


def by_sharpness(fwhm_px, most):
    """Which frames make the template.

    Parameters
    ----------
    fwhm_px : (n,) float64 array
        NaN where unknown.
    most : int
        ``normalization.template_frames``.

    Returns
    -------
    order : list of int
        Frames to read, the sharpest first: twice as many as wanted, so that rims, which few frames reach, have some
        too.
    wanted : int
        Frames behind a pixel: a third of all, at least 8, at most `most`.
    """
    n = len(fwhm_px)
    wanted = min(max(n // 3, 8), most, n)
    order = np.argsort(np.nan_to_num(fwhm_px, nan=np.inf), kind="stable")
    return order[: min(max(2 * wanted, 64), n)].tolist(), wanted


def write_layer(path, images, order, wanted, normalized, lattice, n_threads=1):
    """Make the layer of a session.

    Parameters
    ----------
    path : path
        FITS file: ``IMAGE`` (1, h, w) float32 ADU of the reference, ``VARIANCE``, ``COUNT``; the box in its header.
    images : list of (path, list of dict)
        Prewarped batch files with the entries of the frames in `order`.
    order : list of str
        Their files, the sharpest first.
    wanted : int
        Frames behind a pixel.
    normalized : dict
        Entry of the normalization record by file.
    lattice : dict
        ``bayer_pattern`` and ``mesh_px``.
    n_threads : int

    Returns
    -------
    dict
        ``box``, ``mesh_origin``, ``sky`` (by channel and mesh cell), ``frames``, and ``spare``: those that
        only rims needed.
    """
    cell = bayer.channel_cell(lattice["bayer_pattern"])
    frames = prewarped.Frames(images)
    frames.sort([entry["file"] for entry in frames.entries], order)
    entries = frames.entries
    with files.Writer(path, {"CONTENT": "sky template"}) as writer:
        if not entries:
            return _write_empty(writer, cell.max() + 1)
        box = geometry.union_box([entry["box"] for entry in entries])
        fits = [normalized[entry["file"]] for entry in entries]
        scale = np.array([fit["scale"] for fit in fits])
        variance = np.array([fit["pixel_noise_adu"] for fit in fits], float) ** 2 / scale**2
        widths = np.array([fit["fwhm_px"] or np.nan for fit in fits])
        fwhm = float(np.median(widths[np.isfinite(widths)])) if np.isfinite(widths).any() else None
        cards = {"LATTY0": box[0], "LATTX0": box[1], "BUNIT": "adu", "FWHM": (fwhm, "[px] of its frames")}
        places = [writer.reserve(name, (1, *box[2:]), dtype, cards) for name, dtype in COLUMNS]
        whole = np.empty(box[2:], np.float32)

        def made(band):
            return band[0] - box[0], _band(frames, fits, scale, variance, cell, band, lattice["mesh_px"], wanted)

        bands = prewarped.bands(box, int(BAND_BYTES / (4 * len(entries) * box[3])))
        for first, parts in threads.in_order(made, bands, n_threads):
            whole[first : first + len(parts[0])] = parts[0]
            stored = (*parts[:2], np.minimum(parts[2], MOST_COUNTED).astype(np.uint8))
            for place, part in zip(places, stored, strict=True):
                writer.put(place, part, first * box[3])
    origin, level, _ = clipping.sky_mesh(whole, cell, box[0], box[1], lattice["mesh_px"])
    return {"box": box, "mesh_origin": origin, "sky": rounded(level), "frames": order[:wanted], "spare": order[wanted:]}


def _write_empty(writer, n_channels):
    """The layer of a session without usable frames."""
    for name, dtype in COLUMNS:
        writer.append(name, np.zeros((1, 2, 2), dtype), {"LATTY0": 0, "LATTX0": 0, "FWHM": None})
    sky_mesh = np.full((n_channels, 1, 1), np.nan)
    return {"box": (0, 0, 2, 2), "mesh_origin": (0, 0), "sky": rounded(sky_mesh), "frames": [], "spare": []}


COLUMNS = (("IMAGE", "f4"), ("VARIANCE", "f4"), ("COUNT", "u1"))
# COUNT says so many where there are more.
MOST_COUNTED = 255


def _band(frames, fits, scale, variance, cell, band, pitch, wanted):
    codes = frames.stack(band)
    tiles = tile_range(band, pitch)
    nodes = tile_centres(tiles, pitch)
    skies = np.array([[sky.evaluate(model, *nodes) for model in fit["sky"]] for fit in fits])
    start = [(band[k] - nodes[k][0]) / pitch for k in (0, 1)]
    zero, step = (np.array([entry[key] for entry in frames.entries]) for key in ("zero", "scale"))
    phase = np.roll(cell, (-(band[0] % 2), -(band[1] % 2)), (0, 1))
    return kernel.median(codes, zero, step, skies, (*start, float(pitch)), scale, phase, variance, wanted)


class Layers:
    """Layers of a template.

    Parameters
    ----------
    paths : list of path
        Of files from ``write_layer``, in the order of sessions.

    Attributes
    ----------
    widths : list of float
        FWHM in pixels of the layers that have one.
    """

    def __init__(self, paths):
        self.layers = []
        for path in paths:
            with files.opened(path) as hdus:
                header, fwhm = hdus["IMAGE"].header, hdus["IMAGE"].header.get("FWHM")
                planes = [files.Rows(hdus[name]) for name, _ in COLUMNS]
            corner = (header["LATTY0"], header["LATTX0"])
            self.layers.append((corner, fwhm if isinstance(fwhm, float) else np.nan, planes))
        self.widths = [fwhm for _, fwhm, _ in self.layers if np.isfinite(fwhm)]

    def read(self, box, n=3):
        """The template in a box of the lattice: of each pixel the first layer that has enough frames there.

        Parameters
        ----------
        box : (int, int, int, int)
            y0, x0, rows, columns.
        n : int
            Arrays that are wanted, the first ones.

        Returns
        -------
        image, variance, fwhm : (planes, rows, columns) float32 arrays, ADU, ADU^2 and pixels
            NaN where no layer has FEWEST_FRAMES frames; the FWHM also where it is not known.
        """
        y0, x0, h, w = box
        n_planes = len(self.layers[0][2][0])
        found = [np.full((n_planes, h, w), np.nan, np.float32) for _ in range(n)]
        for (top, left), width, (own_image, own_variance, count) in self.layers:
            _, rows, columns = own_image.shape
            ys, xs = slice(max(top, y0), min(top + rows, y0 + h)), slice(max(left, x0), min(left + columns, x0 + w))
            if ys.start >= ys.stop or xs.start >= xs.stop:
                continue
            there = (slice(ys.start - top, ys.stop - top), slice(xs.start - left, xs.stop - left))
            here = (slice(None), slice(ys.start - y0, ys.stop - y0), slice(xs.start - x0, xs.stop - x0))
            new = (count.part(*there) >= FEWEST_FRAMES) & np.isnan(found[0][here])
            for target, own in zip(found, (own_image, own_variance), strict=False):
                np.copyto(target[here], own.part(*there), where=new)
            for target in found[2:]:
                np.copyto(target[here], np.float32(width), where=new)
        return found
