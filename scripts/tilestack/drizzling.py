"""CFA drizzle of a batch: every raw pixel in its own colour where it belongs, as partial sums.

No demosaic and no interpolation: so the noise stays white, and a star keeps its colour and its width.
"""

import itertools

import numpy as np

from tilestack import bayer, cells, distortion, geometry, lattice, reconstruction, splitsums, streaks, threads
from tilestack.kernels import coadd
from tilestack.kernels import drizzle as kernel

# Bytes that a thread may hold: sums of a block (without the list of what is left out), or its template; and raw pixels.
BLOCK_BYTES, LIGHT_BYTES = 40e6, 24e6
# Pixels of a template that all frames are compared with in turn, so that it stays in the cache.
TEMPLATE_PIXELS = 1 << 16
ALL = slice(None)


def drop_of(options):
    """Drop of the ``drizzle`` section of the configuration."""
    return kernel.Drop(kernel.KERNELS.index(options["kernel"]), float(options["pixfrac"]), int(options["scale"]))


class Batch:
    """Raw frames of a batch as the kernels take them, block by block.

    Parameters
    ----------
    raw : rawpixels.Raw
        Its lights, in the order of `entries`.
    entries : list of dict
        Prewarp records of the frames: ``box``, ``transform``, ``index``.
    session : dict
        Registration record: ``bayer_pattern``, ``distortion``, ``shape``.
    fields : (n, 5, c, ny, nx) float32 array
        ``drizzle.FIELDS`` of the frames over `tiles`.
    tiles, stride
        As in ``lattice``.
    sky_template : dict
        ``planes`` (``template.Layers`` or what reads like it, by colour), ``reference_sky``, ``sky``, ``mesh_origin``
        and ``mesh_px``, as in ``reconstruction.write_sums``.
    options : dict
        ``reject``, ``kappa``, ``range_tolerance``, ``signal_tolerance``, ``seeing_tolerance``, ``grow_px``,
        ``streaks``, ``inverse_gain``.
    n_threads : int
    """

    def __init__(self, raw, entries, session, fields, tiles, stride, sky_template, options, n_threads=1):
        self.raw, self.entries, self.fields, self.options, self.n_threads = raw, entries, fields, options, n_threads
        self.marked, self.deposited = (kernel.chosen(fields, which) for which in (kernel.MARKED, kernel.DEPOSITED))
        self.cell = bayer.channel_cell(session["bayer_pattern"])
        self.n_channels = int(self.cell.max()) + 1
        self.box = geometry.union_box([entry["box"] for entry in entries])
        self.to_lattice = np.array([entry["transform"] for entry in entries], float)
        self.to_frame = [geometry.inverse(transform) for transform in self.to_lattice]
        self.lens = distortion.as_array(session["distortion"])
        self.bend = _bend(session["distortion"], raw.shape)
        self.grid = (*(nodes[0] for nodes in lattice.tile_centres(tiles, stride)), float(stride))
        self.planes = sky_template["planes"]
        self.sky = [model["coefficients"][0] for model in sky_template["reference_sky"]]
        self.local_sky = np.array([lattice.filled(mesh) for mesh in np.array(sky_template["sky"], float)])
        self.mesh_px, self.mesh_origin = sky_template["mesh_px"], sky_template["mesh_origin"]
        self.n_blurs = reconstruction.n_blurs(fields[:, 3], self.planes.widths)

    def places(self, block, reach):
        """What of each light comes within `reach` lattice pixels (n,) of a block: rows and columns from the first to
        before the last, (n, 2, 2); a first and last that are alike where nothing does."""
        y0, x0, h, w = block
        places = np.zeros((len(self.entries), 2, 2), int)
        for k, transform in enumerate(self.to_frame):
            x, y = (x0 - reach[k] - 1, x0 + w + reach[k]), (y0 - reach[k] - 1, y0 + h + reach[k])
            corners = geometry.apply(transform, np.array([[x[i], y[j]] for i in (0, 1) for j in (0, 1)], float))
            low, high, size = corners.min(0)[::-1] - self.bend, corners.max(0)[::-1] + self.bend, self.raw.shape
            if (high >= -1).all() and (low <= size).all():
                places[k, :, 0] = np.clip(np.floor(low), 0, np.subtract(size, 1))
                places[k, :, 1] = np.clip(np.ceil(high) + 1, places[k, :, 0] + 1, size)
        return places

    def lights(self, block, reach, fields, members=ALL):
        """Frames as the kernels take them, as many at a time as LIGHT_BYTES allow.

        Parameters
        ----------
        block : (int, int, int, int)
        reach : (n,) array of int
            Lattice pixels around the block, of each frame.
        fields : (n, c, ny, nx, 4) float32 array
            Of ``drizzle.chosen``.
        members : array of int, or slice
            Frames that are wanted.

        Yields
        ------
        which : (m,) int array
        lights : drizzle.Lights
        marks : (m, h, w) uint8 array
            Before rejection.
        """
        places = self.places(block, reach)
        sizes = places[..., 1] - places[..., 0]
        wanted = np.arange(len(self.entries))[members]
        wanted = wanted[sizes[wanted].all(1)]
        while len(wanted):
            largest = np.maximum.accumulate(sizes[wanted])
            n = max(int(np.sum(np.arange(1, len(wanted) + 1) * largest.prod(1) * 4 <= LIGHT_BYTES)), 1)
            which, wanted, shape = wanted[:n], wanted[n:], (n, *largest[n - 1])
            images, marks = np.empty(shape, np.float32), np.empty(shape, np.uint8)
            for k, image, its_marks in zip(which, images, marks, strict=True):
                self.raw.read(k, *places[k].tolist(), image, its_marks)
            of_light = (places[which, :, 0], self.cell, self.to_lattice[which], self.lens)
            yield which, kernel.Lights(images, *of_light, fields[which], self.grid), marks

    def template(self, block, halo, n_blurs):
        """Template on a block and a halo to all sides."""
        wide = (block[0] - halo, block[1] - halo, block[2] + 2 * halo, block[3] + 2 * halo)
        image, variance, width = self.planes.read(wide)
        at = ((wide[k] + 0.5) / self.mesh_px - 0.5 - self.mesh_origin[k] for k in (0, 1))
        grid = (*at, float(self.mesh_px))
        tolerances = [self.options[key] for key in ("range_tolerance", "signal_tolerance")]
        one = np.zeros((2, 2), np.int64)
        squared = [
            coadd.tolerance(image[c], variance[c], np.full((2, 2), self.sky[c]), 1, *tolerances)
            for c in range(self.n_channels)
        ]
        signal = [coadd.light(image[c], self.local_sky[c : c + 1], grid, one) for c in range(self.n_channels)]
        bank = np.stack([coadd.blurred(plane, 1, n_blurs) for plane in image], axis=1)
        return kernel.Template(bank, width, np.stack(squared), np.stack(signal))

    def outliers(self):
        """Rejected pixels of all frames, grown and with whole streaks: a list of (m,) int32 arrays, sorted places in
        the light as counted along its rows."""
        n = len(self.entries)
        parts = [[np.zeros((0, 2), np.int64)] for _ in range(n)]
        # A template has image, variance, width, tolerance and signal, and a bank; all but the first two once more as
        # strips, with a halo each. Its blocks are larger than those of sums: of each raw row that is read they use
        # more. But at least three for each thread.
        halo = kernel.TEMPLATE_HALO + self.n_blurs
        strips = 1 + 2 * halo * self.box[3] / TEMPLATE_PIXELS
        per_pixel = 4 * self.n_channels * (2 + (3 + self.n_blurs) * (1 + strips))
        per_pixel = max(per_pixel, 3 * self.n_threads * BLOCK_BYTES / (self.box[2] * self.box[3]))
        if self.options["reject"]:
            for of_block in threads.in_order(self._rejected, _blocks(self, per_pixel), self.n_threads):
                for k, part in of_block:
                    parts[k].append(part)
        return list(threads.in_order(lambda mine: self._grown(np.concatenate(mine)), parts, self.n_threads))

    def _rejected(self, block):
        """Row and column in the light of rejected pixels in a block: a list of (index, (m, 2) int64 array)."""
        found, halo = [], kernel.TEMPLATE_HALO + self.n_blurs
        strips = list(_strips(block, self.template(block, halo, self.n_blurs), halo))
        for which, lights, marks in self.lights(block, np.ones(len(self.entries), int), self.marked):
            for strip, known in strips:
                kernel.mark(lights, marks, strip, known, self.options)
            for k, its_marks, corner in zip(which, marks, lights.top_left, strict=True):
                y, x = np.divmod(np.flatnonzero(its_marks == kernel.REJECTED), marks.shape[2])
                found.append((k, np.column_stack([y, x]) + corner))
        return found

    def _grown(self, points):
        """Rejected pixels of a light, with its streaks, and those near them: places along its rows, sorted."""
        points = points[
            np.lexsort(points.T[::-1])
        ]  # blocks go with the threads, and lines with the order in their bits
        if self.options["streaks"] and len(points):
            y, x = streaks.strips(*points.T, (0, 0, *self.raw.shape))
            points = np.concatenate([points, np.column_stack([y, x])])
        return _grown(points, self.options["grow_px"], self.raw.shape)


def _bend(lens, shape):
    """By how much the lens moves a pixel at the most."""
    if lens is None:
        return 0.0
    y, x = np.mgrid[0 : shape[0] - 1 : 17j, 0 : shape[1] - 1 : 17j]
    points = np.column_stack([x.ravel(), y.ravel()])
    return float(np.abs(distortion.straightened(points, lens) - points).max())


def _strips(block, known, halo):
    """Parts of a block of TEMPLATE_PIXELS, each with its part of the template."""
    y0, x0, h, w = block
    most = max(1, TEMPLATE_PIXELS // w)
    for first in range(0, h, most):
        rows = min(most, h - first)
        cut = [np.ascontiguousarray(planes[..., first : first + rows + 2 * halo, :]) for planes in known]
        yield (y0 + first, x0, rows, w), kernel.Template(*cut)


def _grown(points, reach, shape):
    """Pixels and those within `reach` of them along each axis: places along the rows of the light, sorted."""
    steps = np.arange(2 * reach + 1)
    near = np.zeros((shape[0] + 2 * reach, shape[1] + 2 * reach), bool)
    near[points[:, 0, None, None] + steps[:, None], points[:, 1, None, None] + steps] = True
    inner = near[reach : reach + shape[0], reach : reach + shape[1]]
    return np.flatnonzero(inner).astype(np.int32)  # of all frames they are held to the end


def _within(places, width, corner, shape):
    """Rows and columns in a part of a light, from its corner, of those places (sorted) that lie in it."""
    first, last = np.searchsorted(places, np.array([corner[0], corner[0] + shape[0]], np.int32) * np.int32(width))
    y, x = np.divmod(places[first:last], width)
    here = (x >= corner[1]) & (x < corner[1] + shape[1])
    return y[here] - corner[0], x[here] - corner[1]


def around(batch, block):
    """Light above the local sky around a block, as ``drizzle.deposit`` takes it, as far as drops of any frame reach."""
    return batch.template(block, max(reaches(batch)), 1).signal


def reaches(batch):
    """Lattice pixels that no drop of each frame reaches beyond, not even a Gaussian's."""
    return np.ceil(1.3 * np.abs(batch.to_lattice[..., :2]).sum(2).max(1)).astype(int) + 2


def add(batch, block, found, drop, exposure_s, signal, fields, members=ALL):
    """Sums of frames of a batch in a block of the lattice.

    Parameters
    ----------
    batch : Batch
    block : (int, int, int, int)
    found : list of (m,) int32 arrays
        From ``outliers``.
    drop : drizzle.Drop
    exposure_s : (n,) float64 array
    signal : array
        Of ``around``.
    fields : (n, c, ny, nx, 4) float32 array
        Of ``drizzle.chosen``, DEPOSITED.
    members : array of int, or slice
        Frames to add.

    Returns
    -------
    cells.Cells
    """
    onto = cells.Cells((batch.n_channels, block[2] * drop.scale, block[3] * drop.scale))
    width, gain = batch.raw.shape[1], batch.options["inverse_gain"]
    odd = np.array([entry["index"] % 2 == 1 for entry in batch.entries])
    for which, lights, marks in batch.lights(block, reaches(batch), fields, members):
        for k, its_marks, corner in zip(which, marks, lights.top_left, strict=True):
            y, x = _within(found[k], width, corner, its_marks.shape)
            its_marks[y, x] = np.where(its_marks[y, x] == kernel.KEPT, kernel.REJECTED, its_marks[y, x])
        kernel.deposit(lights, marks, block, signal, gain, odd[which], exposure_s[which], drop, onto)
    return onto


def added(batch, block, found, drop, exposure_s, split, kinds):
    """Sums of a block, as ``splitsums.Files`` take them; `kinds` are these files and the fields of each."""
    signal, parts = around(batch, block), [[], []]
    corner = [(block[k] - batch.box[k]) * drop.scale for k in (0, 1)]
    for cluster, mine in enumerate(split.members):
        for (file, fields), to in zip(kinds, parts, strict=False):
            sums = add(batch, block, found, drop, exposure_s, signal, fields, mine)
            for c in range(batch.n_channels):
                left_out = [sums.left_out(c, mark) for mark in splitsums.LEFT_OUT]
                to.append(file.part(cluster, c, corner, sums.kept(c), left_out))
    return parts


def blocks_of(batch, drop):
    """Blocks of the lattice whose sums fit into memory."""
    return _blocks(batch, drop.scale**2 * batch.n_channels * cells.PIXEL_BYTES)


def _blocks(batch, per_pixel):
    """Blocks of the lattice of BLOCK_BYTES, at so many bytes a pixel.

    The more a frame is turned the less wide: a band across the whole lattice would need nearly all of its raw rows. So
    a block's columns reach over no more of them than its rows do.
    """
    y0, x0, h, w = batch.box
    area = BLOCK_BYTES / per_pixel
    turned = max(abs(m[1, 0]) / np.hypot(m[0, 0], m[1, 0]) for m in batch.to_lattice)
    n_columns = int(np.clip(np.ceil(w * np.sqrt(turned / area)), 1, w))
    n_rows = int(np.clip(np.ceil(h * w / n_columns / area), 1, h))
    ys, xs = ([size * k // n for k in range(n + 1)] for size, n in ((h, n_rows), (w, n_columns)))
    return [
        (y0 + top, x0 + left, bottom - top, right - left)
        for top, bottom in itertools.pairwise(ys)
        for left, right in itertools.pairwise(xs)
    ]


def write_sums(path, flat_path, batch, drop, exposure_s, split):
    """Add up the frames of a batch and write the partial sums.

    Parameters
    ----------
    path, flat_path : path
        The two of ``splitsums.Files``, of ``drizzle.SUMS`` and N; the box, in output pixels, stands in the header.
    batch : Batch
    drop : drizzle.Drop
    exposure_s : (n,) float64 array
        NaN for frames of unknown exposure.
    split : splitsums.Split
        Clusters of the frames.

    Returns
    -------
    (n,) int64 array
        Raw pixels of each frame that are rejected.
    """
    box = tuple(n * drop.scale for n in batch.box)
    area = float(np.mean([geometry.area_scale(transform) for transform in batch.to_lattice]))
    cards = {
        "NFRAMES": len(batch.entries),
        "DRZKERN": (kernel.KERNELS[drop.kernel], "shape of a drop"),
        "DRZFRAC": (drop.pixfrac, "size of a drop in raw pixels"),
        "DRZSCALE": (drop.scale, "output pixels per lattice pixel and axis"),
        "RAWAREA": (area, "of a raw pixel on the lattice, mean"),
    }
    about = (splitsums.DRIZZLED, (kernel.SUMS, ("N",)), batch.n_channels, box)
    with splitsums.Files(path, flat_path, cards, exposure_s, split, *about) as written:
        found, kinds = batch.outliers(), [(written.sums, batch.deposited)]
        if split.flat:
            kinds.append((written.flat, kernel.chosen(split.fields(batch.fields), kernel.DEPOSITED)))

        def of_block(block):
            return added(batch, block, found, drop, exposure_s, split, kinds)

        for parts in threads.in_order(of_block, blocks_of(batch, drop), batch.n_threads):
            written.put(*parts)
    return np.array([len(mine) for mine in found], np.int64)
