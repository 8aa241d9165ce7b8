"""The image that partial sums add up to: sessions in the order of the plan, and its planes."""

import numpy as np

from tilestack import masks
from tilestack.kernels import coadd as kernel
from tilestack.splitsums import Kind

# Planes of the reconstruction: what a stack is made of.
PLANES = ("SCI", "VAR", "WHT", "EXP", "NIM", "REJ", "MASK", "EVEN", "ODD", "SPLIT", "MEAN", "IVAR", "ETA")
INTEGER_PLANES = {"NIM": "i4", "REJ": "i4", "MASK": "i2"}
# A session with fewer frames at a pixel has no majority that could differ from the template.
FEWEST_DIFFERING = 5

MOSAIC = Kind(kernel.SUMS, kernel.COUNTS, ("I_EVEN", "I_ODD"))


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
        self.planes = {name: hdus[name].data for name in (*kind.sums, *kind.counts, "N_REJECTED", "N_SATURATED")}
        self.tables = {name: np.asarray(hdus[name].data) for name in ("REJECTED", "SATURATED")}
        self.box = (self.header["LATTY0"], self.header["LATTX0"], *self.planes["W_EVEN"].shape[-2:])

    def rows(self, band):
        """Sums (s, planes, h, w), counts (n + 2, planes, h, w) in a band of the canvas; and of what was left out."""
        y0, x0, h, w = band
        planes, n_counts = len(self.planes["W_EVEN"]), len(self.kind.counts)
        sums = np.zeros((len(self.kind.sums), planes, h, w))
        counts = np.zeros((n_counts + 2, planes, h, w), np.int64)
        if min(self.box[2:]) == 0:  # of a batch without usable frames
            return sums, counts, {name: (np.zeros_like(sums), np.zeros_like(counts[:n_counts])) for name in self.tables}
        top, bottom = max(y0, self.box[0]), min(y0 + h, self.box[0] + self.box[2])
        out = {name: (np.zeros_like(sums), np.zeros_like(counts[:n_counts])) for name in self.tables}
        if top >= bottom:
            return sums, counts, out
        here = (slice(None), slice(top - y0, bottom - y0), slice(self.box[1] - x0, self.box[1] - x0 + self.box[3]))
        there = (slice(None), slice(top - self.box[0], bottom - self.box[0]))
        for k, name in enumerate(self.kind.sums):
            sums[k][here] = self.planes[name][there]
        for k, name in enumerate((*self.kind.counts, "N_REJECTED", "N_SATURATED")):
            counts[k][here] = self.planes[name][there]
        for name, table in self.tables.items():
            y, x = table["ROW"] + self.box[0] - y0, table["COLUMN"] + self.box[1] - x0
            mine = (y >= 0) & (y < h)
            at = (table["PLANE"][mine], y[mine], x[mine])
            for k, column in enumerate(self.kind.sums):
                out[name][0][k][at] = table[column][mine]
            for k, column in enumerate(self.kind.counts):
                out[name][1][k][at] = table[column][mine]
        return sums, counts, out


class Planes:
    """Planes of a stack, written band by band.

    Parameters
    ----------
    writer : files.Writer
    names : tuple of str
    n_planes : int
        Images of each name.
    canvas : (int, int, int, int)
        y0, x0, rows, columns.
    """

    def __init__(self, writer, names, n_planes, canvas):
        self.writer, self.canvas = writer, canvas
        shape = (n_planes, *canvas[2:])
        self.places = {name: writer.reserve(name, shape, INTEGER_PLANES.get(name, "f4")) for name in names}

    def put(self, band, planes):
        """Write a band of the canvas: name -> (planes, rows, columns) array."""
        for name, place in self.places.items():
            for k, plane in enumerate(planes[name]):
                first = (k * self.canvas[2] + band[0] - self.canvas[0]) * self.canvas[3]
                self.writer.put(place, plane.astype(INTEGER_PLANES.get(name, "f4")), first)


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
    kind, total = sessions[0][0].kind, None
    of_ceiling = [kind.sums.index(name) for name in kind.ceiling]
    for batches in sessions:
        session = None
        for batch in batches:
            sums, counts, out = batch.rows(band)
            n = len(kind.counts)
            parts = [sums, counts[:n], counts[n], *out["REJECTED"], *out["SATURATED"]]
            session = parts if session is None else [a + b for a, b in zip(session, parts, strict=True)]
        sums, counts, rejected, lost, n_lost, clipped, n_clipped = session
        seen = counts.sum(0) + rejected
        differs = (rejected > put_back_share * seen) & (seen >= FEWEST_DIFFERING)
        ceiling = sums[of_ceiling].sum(0) + lost[of_ceiling].sum(0)
        sums = sums + np.where(differs, lost, 0.0)
        counts = counts + np.where(differs, n_lost, 0)
        rejected = np.where(differs, 0, rejected)
        parts = [sums, counts, ceiling, rejected, differs.astype(np.int16) * masks.DIFFERS, clipped, n_clipped]
        if total is None:
            total = parts
        else:
            merged = total[4] | parts[4]
            total = [a + b for a, b in zip(total, parts, strict=True)]
            total[4] = merged
    sums, counts, ceiling, rejected, mask, clipped, n_clipped = total
    # Saturated samples count only where there is nothing else.
    bare = (counts.sum(0) == 0) & (n_clipped.sum(0) > 0)
    sums = sums + np.where(bare, clipped, 0.0)
    ceiling = ceiling + np.where(bare, clipped[of_ceiling].sum(0), 0.0)
    counts = counts + np.where(bare, n_clipped, 0)
    mask = mask | bare.astype(np.int16) * masks.SATURATED
    mask = mask | (counts.sum(0) == 0).astype(np.int16) * masks.NO_DATA
    return sums, counts, ceiling, rejected, mask


def planes_of(sums, counts, ceiling, rejected, mask):
    """Planes of the coadd from its sums: name -> (planes, h, w) array; NaN where there is no data."""
    named = dict(zip(kernel.SUMS, sums, strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        w = named["W_EVEN"] + named["W_ODD"]
        w = np.where(w > 0, w, np.nan)
        i = named["I_EVEN"] + named["I_ODD"]
        share = np.sqrt(
            np.where((named["W_EVEN"] > 0) & (named["W_ODD"] > 0), named["W_ODD"] / named["W_EVEN"], np.nan)
        )
        return {
            "SCI": (named["WY_EVEN"] + named["WY_ODD"]) / w,
            "VAR": named["W2V"] / w**2,
            "WHT": np.nan_to_num(w),
            "EXP": named["EXPOSURE"],
            "NIM": counts.sum(0),
            "REJ": rejected,
            "MASK": mask,
            "EVEN": named["WY_EVEN"] / np.where(named["W_EVEN"] > 0, named["W_EVEN"], np.nan),
            "ODD": named["WY_ODD"] / np.where(named["W_ODD"] > 0, named["W_ODD"], np.nan),
            # Difference of the halves with the variance of the stack: noise without the sky.
            "SPLIT": (named["WY_EVEN"] * share - named["WY_ODD"] / share) / w,
            "MEAN": (named["Y_EVEN"] + named["Y_ODD"]) / np.where(counts.sum(0) > 0, counts.sum(0), np.nan),
            "IVAR": (named["IY_EVEN"] + named["IY_ODD"]) / np.where(i > 0, i, np.nan),
            # Squared S/N for extended light over the best possible, rejection included.
            "ETA": w**2 / (named["W2R"] * ceiling),
        }
