"""The image that partial sums add up to: sessions in the order of the plan, and its planes."""

import contextlib

import numpy as np

from tilestack import files, masks, splitsums, stackfiles, threads
from tilestack.kernels import coadd as kernel
from tilestack.kernels import stack
from tilestack.prewarped import bands

# A session with fewer frames at a pixel has no majority that could differ from the template.
FEWEST_DIFFERING = 5

# Pixels that were left out, as many as are looked at together.
RANGE = 1 << 8
# Rows of the canvas at a time.
BAND_ROWS = 128

MOSAIC = splitsums.Kind(kernel.SUMS, kernel.COUNTS, ("I",))


class Sums:
    """Partial sums of a batch, by rows of the canvas.

    Parameters
    ----------
    hdus : dict-like
        The file, opened.
    kind : Kind
    """

    def __init__(self, hdus, kind=MOSAIC):
        self.header, self.kind = hdus[0].header, kind
        self.exposure_s = self.header.get(splitsums.EXPOSURE)
        self.planes = {hdu.name: files.Rows(hdu) for hdu in hdus[1:] if hdu.name in (*kind.sums, *kind.counts)}
        self.tables = {name: np.asarray(hdus[name].data) for name in ("REJECTED", "SATURATED")}
        # Where to look for those of a band: first and last row of so many pixels each.
        self.ranges = {name: _ranges(table["ROW"]) for name, table in self.tables.items()}
        n_planes, *size = self.planes["W_EVEN"].shape
        self.n_clusters = max(len(self.header["CLUSTERS"].split()), 1)
        self.n_channels = n_planes // self.n_clusters
        self.box = (self.header["LATTY0"], self.header["LATTX0"], *size)

    def add_to(self, sums, counts, band, places=None):
        """Add what counts in a band of the canvas, in place.

        Parameters
        ----------
        sums : (s, planes, h, w) float64 array
        counts : (n, planes, h, w) int array
        band : (int, int, int, int)
            y0, x0, rows, columns.
        places : sequence of int, optional
            Plane to which each one of the file is added; by default that of its channel.
        """
        top, bottom = max(band[0], self.box[0]), min(band[0] + band[2], self.box[0] + self.box[2])
        if top >= bottom or not self.box[3]:
            return
        x = self.box[1] - band[1]
        here = (slice(top - band[0], bottom - band[0]), slice(x, x + self.box[3]))
        there = (top - self.box[0], bottom - self.box[0])
        places = places or list(range(self.n_channels)) * self.n_clusters
        for names, totals in ((self.kind.sums, sums), (self.kind.counts, counts)):
            for name, total in zip(names, totals, strict=True):
                for k, rows in zip(places, self._of(name, lambda of: self.planes[of].read(*there)), strict=True):
                    total[k][here] += rows

    def left_out(self, name, band):
        """What was left out in a band of the canvas.

        Parameters
        ----------
        name : str
            ``REJECTED`` or ``SATURATED``.
        band : (int, int, int, int)

        Returns
        -------
        list of LeftOut
            Of each cluster.
        """
        table = self.tables[name]
        first = band[0] - self.box[0]
        low, high = self.ranges[name]
        parts = np.flatnonzero((high >= first) & (low < first + band[2]))
        mine = (parts[:, None] * RANGE + np.arange(RANGE)).ravel()
        here = table[mine[mine < len(table)]]
        here = here[(here["ROW"] >= first) & (here["ROW"] < first + band[2])]
        return [
            self._left_out(here if self.n_clusters == 1 else here[here["PLANE"] // self.n_channels == k], band)
            for k in range(self.n_clusters)
        ]

    def _of(self, name, values_of):
        """Values of a sum or a count, by what gives those that the file has."""
        if name != splitsums.EXPOSURE or self.exposure_s is None:
            return values_of(name)
        return self.exposure_s * values_of("A" if "A" in self.kind.sums else "N")

    def _left_out(self, rows, band):
        sums = np.array([self._of(column, rows.__getitem__) for column in self.kind.sums], float)
        counts = np.array([rows[column] for column in self.kind.counts], np.int64)
        y, x = rows["ROW"] + (self.box[0] - band[0]), rows["COLUMN"] + (self.box[1] - band[1])
        return LeftOut((rows["PLANE"] % self.n_channels, y, x), sums, counts)


def _ranges(rows):
    """Least and largest of each RANGE values."""
    starts = np.arange(0, len(rows), RANGE)
    return [f.reduceat(rows, starts) if len(rows) else rows for f in (np.minimum, np.maximum)]


class LeftOut:
    """Pixels of a cluster in a batch with samples that were left out, each once: `at`, index arrays (m,) of each axis,
    sums (s, m), counts (n, m)."""

    def __init__(self, at, sums, counts):
        self.at, self.sums, self.counts = at, sums, counts

    def where(self, chosen):
        """Those of a mask."""
        mine = chosen[self.at]
        return LeftOut(tuple(axis[mine] for axis in self.at), self.sums[:, mine], self.counts[:, mine])

    def add_to(self, sums, counts):
        """Add them to sums (s, ...) and counts (n, ...), in place."""
        sums[:, *self.at] += self.sums
        counts[:, *self.at] += self.counts


def add_sessions(sessions, band, put_back_share):
    """Add the sums of all batches in a band of the canvas.

    Parameters
    ----------
    sessions : list of list of Sums
        Batches by session, in the order of the plan.
    band : (int, int, int, int)
        y0, x0, rows, columns.
    put_back_share : float
        Where a session rejects more than this share of its frames, they are put back.

    Returns
    -------
    sums : (s, planes, h, w) float64 array
        By the names of the kind.
    counts : (n, planes, h, w) int64 array
        What counts; by the names of the kind.
    ceiling : (planes, h, w) float64 array
        Sum of 1 / v over all frames with data, rejected ones too.
    rejected : (planes, h, w) int64 array
    mask : (planes, h, w) int16 array
        ``masks.BITS``.
    """
    kind = sessions[0][0].kind
    n, shape = len(kind.counts), (sessions[0][0].n_channels, *band[2:])
    of_ceiling = [kind.sums.index(name) for name in kind.ceiling]
    total, count = None, None
    ceiling, rejected, mask = np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape, np.int16)
    clipped, n_clipped = [], np.zeros(shape, np.int64)
    for batches in sessions:
        sums, kept = np.zeros((len(kind.sums), *shape)), np.zeros((n, *shape), np.int64)
        for batch in batches:
            batch.add_to(sums, kept, band)
        lost, saturated = (
            [part for batch in batches for part in batch.left_out(name, band)] for name in ("REJECTED", "SATURATED")
        )
        n_lost = counted(lost, shape)
        seen = kept.sum(0) + n_lost
        differs = (n_lost > put_back_share * seen) & (seen >= FEWEST_DIFFERING)
        ceiling += sums[of_ceiling].sum(0)
        for part in lost:
            ceiling[part.at] += part.sums[of_ceiling].sum(0)
            part.where(differs).add_to(sums, kept)
        total, count = (sums, kept) if total is None else (total + sums, count + kept)
        rejected += np.where(differs, 0, n_lost)
        mask |= differs.astype(np.int16) * masks.DIFFERS
        n_clipped += counted(saturated, shape)
        clipped += saturated
    # Saturated samples count only where there is nothing else.
    bare = (count.sum(0) == 0) & (n_clipped > 0)
    for part in clipped:
        alone = part.where(bare)
        alone.add_to(total, count)
        ceiling[alone.at] += alone.sums[of_ceiling].sum(0)
    mask |= bare.astype(np.int16) * masks.SATURATED
    mask |= (count.sum(0) == 0).astype(np.int16) * masks.NO_DATA
    return total, count, ceiling, rejected, mask


def counted(parts, shape):
    """Number of samples in parts of what was left out: an int64 array of a shape."""
    n = np.zeros(shape, np.int64)
    for part in parts:
        n[part.at] += part.counts.sum(0)
    return n


def planes_of(sums, counts, ceiling, rejected, mask):
    """Planes of the coadd from its sums: name -> (planes, h, w) array; NaN where there is no data."""
    n = counts.sum(0)
    floats = stack.planes(sums, n, np.broadcast_to(ceiling, n.shape))
    return {**dict(zip(stack.PLANES, floats, strict=True)), "NIM": n, "REJ": rejected, "MASK": mask}


def add_up(paths, out, canvas, put_back_share, n_threads=1):
    """Add up the sums of all batches and write the planes of the reconstruction.

    Parameters
    ----------
    paths : list of list of path
        Files of sums by session, in the order of the plan.
    out : dict of str to path
        Files of the stack, by the keys of ``stackfiles.OF_FILE``.
    canvas : (int, int, int, int)
        y0, x0, rows, columns.
    put_back_share : float
        As in ``add_sessions``.
    n_threads : int

    Yields
    ------
    band : (int, int, int, int)
    planes : dict of str to (planes, rows, columns) array
        As they are written, and ETA; the files appear after the last of them.
    """
    with contextlib.ExitStack() as opened:
        sessions = [[Sums(opened.enter_context(files.opened(path))) for path in batches] for batches in paths]
        n_frames = sum(batch.header["NFRAMES"] for batches in sessions for batch in batches)
        writer = stackfiles.Writer(out, stackfiles.FILE_OF, sessions[0][0].n_channels, canvas, n_frames)
        image = opened.enter_context(writer)

        def added(band):
            return band, planes_of(*add_sessions(sessions, band, put_back_share))

        for band, planes in threads.in_order(added, bands(canvas, BAND_ROWS), n_threads):
            image.put(band, planes)
            yield band, planes
