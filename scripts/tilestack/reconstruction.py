"""TILE_RECONSTRUCTION: partial sums of a batch, and the image that all of them add up to."""

import numpy as np

from tilestack import (
    bayer,
    distortion,
    geometry,
    lattice,
    noisegain,
    prewarp,
    prewarped,
    splitsums,
    streaks,
    template,
    threads,
)
from tilestack.kernels import coadd as kernel
from tilestack.kernels.warp import LEAST_STRETCH

# Bytes of codes and marks, and of sums, that a thread may hold of a band.
BAND_BYTES = 64e6
SUM_BYTES = 3 * (8 * len(kernel.SUMS) + 4 * len(kernel.COUNTS))


def write_sums(
    path,
    flat_path,
    image_path,
    record,
    fields,
    tiles,
    stride,
    pattern,
    sky_template,
    exposure_s,
    options,
    split,
    n_threads=1,
):
    """Add up the frames of a batch and write the partial sums.

    Parameters
    ----------
    path, flat_path : path
        The two of ``splitsums.Files``, of ``coadd.SUMS`` and ``coadd.COUNTS``.
    image_path : path
        Prewarped frames of the batch.
    record : dict
        Prewarp record of the batch.
    fields : (n, 5, c, ny, nx) float32 array
        ``coadd.FIELDS`` of its frames over `tiles`.
    tiles, stride
        As in ``lattice``.
    pattern : str or None
        Bayer pattern of the lattice.
    sky_template : dict
        ``layers`` (paths of the template up to this session), ``reference_sky`` (smooth sky of the reference by
        channel, ``sky.fit``), ``sky`` and ``mesh_origin`` (mesh of the template).
    exposure_s : (n,) float64 array
        NaN for frames of unknown exposure; so is EXP where they count.
    options : dict
        ``reject``, ``kappa``, ``range_tolerance``, ``signal_tolerance``, ``seeing_tolerance``, ``grow_px``,
        ``streaks``, ``inverse_gain``.
    split : splitsums.Split
        Clusters of the frames.
    n_threads : int

    Returns
    -------
    per_frame : (n, 4) int64 array
        Pixels of each frame that are kept, rejected, saturated, missing.
    n_streaks : (n,) int64 array
        Pixels of each frame that belong to a streak.
    """
    entries = record["frames"]
    batch = Batch(record, fields, tiles, stride, pattern, sky_template, options, n_threads)
    odd = np.array([entry["index"] % 2 == 1 for entry in entries], bool)
    box = batch.box
    per_frame = np.zeros((len(entries), 4), np.int64)
    cards = {"NFRAMES": len(entries), "PLANES": "MOSAIC" if pattern else "MONO"}
    names, pixels = (kernel.SUMS, kernel.COUNTS), prewarped.Frames([(image_path, entries)])
    about = (splitsums.MOSAIC, names, 1, box)
    with splitsums.Files(path, flat_path, cards, exposure_s, split, *about) as written:
        starts, y, x, n_streaks = batch.outliers(pixels, bands_of(box, len(entries), 1))

        def added(band):
            codes = pixels.stack(band)
            marks = kernel.painted(codes, band[0] - box[0], starts, y, x, options["grow_px"])
            return batch.added(band, codes, marks, odd, exposure_s, split, written)

        # With flat weights there are sums of two kinds at a time.
        for marked, *parts in threads.in_order(added, bands_of(box, len(entries), 1 + split.flat), n_threads):
            per_frame += marked
            written.put(*parts)
    return per_frame, n_streaks


class Batch:
    """Frames of a batch as the kernels take them, band by band; parameters as in ``write_sums``."""

    def __init__(self, record, fields, tiles, stride, pattern, sky_template, options, n_threads=1):
        self.fields, self.stride, self.options, self.n_threads = fields, stride, options, n_threads
        self.layers = template.Layers(sky_template["layers"])
        self.entries = record["frames"]
        self.box = geometry.union_box([entry["box"] for entry in self.entries])
        self.cell = bayer.channel_cell(pattern)
        self.step = 2 if pattern else 1
        self.zero, self.scale = (np.array([entry[key] for entry in self.entries], float) for key in ("zero", "scale"))
        self.first_nodes = [nodes[0] for nodes in lattice.tile_centres(tiles, stride)]
        self.sky = np.array([model["coefficients"][0] for model in sky_template["reference_sky"]])
        self.mesh_px, self.mesh_origin = record["mesh_px"], sky_template["mesh_origin"]
        self.local_sky = np.array([lattice.filled(mesh) for mesh in np.array(sky_template["sky"], float)])
        self.n_blurs = n_blurs(fields[:, 3], self.layers.widths)
        transforms = [np.array(entry["transform"]) for entry in self.entries]
        self.to_frame = np.array([geometry.inverse(transform) for transform in transforms]).reshape(-1, 2, 3)
        self.area = np.array([geometry.area_scale(transform) for transform in transforms])
        self.lens = distortion.as_array(record["distortion"])
        self._read_tables(record)

    def _read_tables(self, record):
        cell = bayer.channel_cell(record["bayer_pattern"])
        plane_of, step, offsets = prewarp.layout(cell, self.cell, record["cfa"])
        stretches = 1 / np.sqrt(self.area)
        stretches = np.where(  # a rounded one stays on its side of where stretching begins
            stretches > LEAST_STRETCH, np.maximum(stretches.round(2), LEAST_STRETCH + 0.01), 1.0
        )
        kinds, self.table_of = np.unique(stretches, return_inverse=True)
        made = [
            noisegain.table(
                tuple(cell.ravel().tolist()),
                tuple(plane_of.ravel().tolist()),
                tuple(map(tuple, offsets.tolist())),
                step,
                float(stretch),
            )
            for stretch in kinds
        ]
        self.tables = np.array(made, np.float32).reshape(-1, 4, 2 * noisegain.PER_PIXEL, 2 * noisegain.PER_PIXEL)

    def added(self, band, codes, marks, odd, exposure_s, split, written):
        """Pixels of the frames in a band by mark, and its sums as ``splitsums.Files`` take them."""
        ((image,),) = self.layers.read(band, 1)
        signal, inverse_gain = self.light(image, band), self.options["inverse_gain"]
        per_frame, parts, flat_parts = np.zeros((len(codes), 4), np.int64), [], []
        for cluster, members in enumerate(split.members):
            after = (signal, inverse_gain, odd, exposure_s, members)
            place = (cluster, 0, (band[0] - self.box[0], 0))
            *own, counted = kernel.accumulate(codes, marks, *self.frames_in(band), *after)
            per_frame += counted
            parts.append(written.sums.part(*place, *splitsums.separated(*own)))
            if split.flat:
                own = kernel.accumulate(codes, marks, *self.frames_in(band, split.fields(self.fields)), *after)[:2]
                flat_parts.append(written.flat.part(*place, *splitsums.separated(*own)))
        return per_frame, parts, flat_parts

    def frames_in(self, band, fields=None):
        """Zero and scale of the codes, fields, grid, phase and places, as the kernels take them."""
        grid = (*((band[k] - self.first_nodes[k]) / self.stride for k in (0, 1)), float(self.stride))
        phase = np.roll(self.cell, (-(band[0] % 2), -(band[1] % 2)), (0, 1))
        places = kernel.Places(*band[:2], self.to_frame, self.lens, self.tables, self.table_of, self.area)
        return self.zero, self.scale, self.fields if fields is None else fields, grid, phase, places

    def template(self, band):
        """Template in a band, ``image``, ``width``, what a frame may differ from it by, ``squared``, and ``signal``."""
        image, variance, width = (plane[0] for plane in self.layers.read(band))
        phase = np.roll(self.cell, (-(band[0] % 2), -(band[1] % 2)), (0, 1))
        tolerances = (self.options[key] for key in ("range_tolerance", "signal_tolerance"))
        squared = kernel.tolerance(image, variance, self.sky[phase], self.step, *tolerances)
        return {"image": image, "width": width, "squared": squared, "signal": self.light(image, band)}

    def light(self, image, band):
        """Light of the template in a band above the local sky."""
        phase = np.roll(self.cell, (-(band[0] % 2), -(band[1] % 2)), (0, 1))
        at = ((band[k] + 0.5) / self.mesh_px - 0.5 - self.mesh_origin[k] for k in (0, 1))
        return kernel.light(image, self.local_sky, (*at, float(self.mesh_px)), phase)

    def outliers(self, pixels, bands):
        """Rejected pixels of all frames, before they grow.

        Returns
        -------
        starts : (n + 1,) int64 array
            Where the pixels of each frame begin.
        y, x : int64 arrays
            Row and column in the box.
        n_streaks : (n,) int64 array
            How many belong to a streak.
        """
        n = len(self.entries)
        parts = [[np.zeros((0, 2), np.int64)] for _ in range(n)]
        if self.options["reject"]:
            for of_band in threads.in_order(lambda band: self._rejected(pixels, band), bands, self.n_threads):
                for mine, part in zip(parts, of_band, strict=True):
                    mine.append(part)
        found = list(
            threads.in_order(lambda k: self._with_streaks(k, np.concatenate(parts[k])), range(n), self.n_threads)
        )
        n_streaks = np.array([n_of for _, n_of in found], np.int64)
        found = [mine for mine, _ in found]
        starts = np.concatenate([[0], np.cumsum([len(mine) for mine in found])]).astype(np.int64)
        y, x = np.concatenate(found).T if n else np.zeros((2, 0), np.int64)
        return starts, np.ascontiguousarray(y), np.ascontiguousarray(x), n_streaks

    def _rejected(self, pixels, band):
        """Row and column in the box of the rejected pixels of each frame in a band: a list of (m, 2) int64 arrays."""
        halo = self.step * (self.n_blurs + 1)
        halo += halo % 2
        known = self.template((band[0] - halo, band[1], band[2] + 2 * halo, band[3]))
        bank = kernel.blurred(known["image"], self.step, self.n_blurs)
        inner = slice(halo, halo + band[2])
        cut = {key: np.ascontiguousarray(known[key][inner]) for key in ("width", "squared", "signal")}
        bank = np.ascontiguousarray(bank[:, inner])
        marks = kernel.mark(pixels.stack(band), *self.frames_in(band), bank, **cut, options=self.options)
        places = (np.divmod(np.flatnonzero(own == kernel.REJECTED), band[3]) for own in marks)
        return [np.column_stack(here) + [band[0] - self.box[0], 0] for here in places]

    def _with_streaks(self, k, mine):
        """Rejected pixels of a frame and those of its streaks, and how many these are."""
        if not self.options["streaks"] or not len(mine):
            return mine, 0
        y0, x0, rows, columns = self.entries[k]["box"]
        y, x = streaks.strips(*mine.T, (y0 - self.box[0], x0 - self.box[1], rows, columns))
        return np.concatenate([mine, np.column_stack([y, x])]), len(y)


def bands_of(box, n_frames, n_held):
    """Bands of a box, of which the codes and marks of so many frames fit into memory, and so many sums at a time."""
    return prewarped.bands(box, int(BAND_BYTES / (box[3] * max(3 * n_frames, SUM_BYTES * n_held))))


def n_blurs(frames, templates):
    """Levels of blur between the sharpest template and the broadest frame; 1 where a FWHM is not known."""
    if not templates or not np.isfinite(frames).any():
        return 1
    squares = np.nanmax(frames) ** 2 - min(templates) ** 2
    levels = np.ceil(squares / (kernel.FWHM2 * kernel.BLUR_STEP)) + 1
    return int(np.clip(levels, 2, kernel.MOST_BLURS))
