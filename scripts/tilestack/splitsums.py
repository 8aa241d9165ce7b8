"""Partial sums of a batch, cluster by cluster: what the stack and the synthetic frames are added up from."""

import contextlib
from collections import namedtuple

import numpy as np

from tilestack import files

# What is taken of a file of partial sums: names of the sums, of the counts, and of the sums of 1 / v.
Kind = namedtuple("Kind", "sums counts ceiling")
# Of each cluster: what its weighted mean, its halves, its variance and its coverage take.
MOSAIC = Kind(("WY_EVEN", "W_EVEN", "WY_ODD", "W_ODD", "W2V", "EXPOSURE"), ("N",), ())
DRIZZLED = Kind(("WY_EVEN", "W_EVEN", "WY_ODD", "W_ODD", "W2V_EVEN", "W2V_ODD", "EXPOSURE", "A"), ("N",), ())
LEFT_OUT = {1: "REJECTED", 2: "SATURATED"}
# Sum of the exposures: of frames exposed alike the number of them, or of drops, says it, and the header the exposure.
EXPOSURE = "EXPOSURE"


class Split:
    """Which frames of a batch belong to which cluster.

    Parameters
    ----------
    clusters : list of str
        Cluster of each frame of the batch; of a session that is not split an empty name.
    flat : bool
        Whether a frame has one weight in its cluster, the mean over its tiles.
    """

    def __init__(self, clusters, flat=False):
        self.names, self.flat = sorted(set(clusters)) or [""], flat
        self.members = [np.flatnonzero(np.array(clusters) == name) for name in self.names]
        if len(self.names) == 1:
            self.members = [slice(None)]  # which copies no pixels

    def fields(self, fields):
        """Fields of frames (n, 5, c, ny, nx) with WEIGHT, the last, flat."""
        flat = fields.copy()
        flat[:, -1] = fields[:, -1].mean((-2, -1), keepdims=True)
        return flat


def whole(names):
    """A batch that is not split."""
    return Split([""] * len(names))


def of_frames(names, clusters):
    """Split of a batch by the record of its session's clusters.

    Parameters
    ----------
    names : list of str
        Files of the batch.
    clusters : dict
        ``work/state_clustering/{session}.json``.
    """
    if not clusters["split"]:
        return whole(names)
    cluster_of = {frame["file"]: frame["cluster"] for frame in clusters["frames"]}
    return Split([cluster_of[name] for name in names], clusters["weighting"] == "global")


def stack_source(wanted, sessions):
    """What the stack is made of: ``reconstruction``, the sums of all frames, or ``synthetic``, those of the clusters.

    Parameters
    ----------
    wanted : str
        ``stacking.source``.
    sessions : list of dict
        ``work/state_clustering/{session}.json`` of all sessions.
    """
    if wanted != "auto":
        return wanted
    return "synthetic" if any(session["status"] == "ok" for session in sessions) else "reconstruction"


class File:
    """A file of partial sums, written block by block.

    FITS: images (clusters x channels, h, w), one for each of the sums (float32) and counts (int16) of its kind. Tables
    REJECTED and SATURATED hold, for each pixel that has any, PLANE, ROW, COLUMN (of the box) and the same sums and
    counts of what was left out. CLUSTERS in the header names the clusters, CHANNELS says how many planes each has.

    Parameters
    ----------
    path : path
    cards : dict
        With EXPOSURE there is no image of that name.
    split : Split
    kind : Kind
    names : (tuple of str, tuple of str)
        Names of the sums and the counts that ``part`` gets.
    n_channels : int
    box : (int, int, int, int)
    """

    def __init__(self, path, cards, split, kind, names, n_channels, box):
        self.n_channels = n_channels
        self.sums, self.counts = (
            {name: given.index(name) for name in own if name not in cards}
            for given, own in zip(names, kind[:2], strict=True)
        )
        place = {"LATTY0": box[0], "LATTX0": box[1], "CLUSTERS": " ".join(split.names), "CHANNELS": n_channels}
        self.shape = (len(split.names) * n_channels, *box[2:])
        self.writer = files.Writer(path, {**place, **cards, "BUNIT": "adu"})
        self.left_out = {name: [] for name in LEFT_OUT.values()}

    def __enter__(self):
        self.writer.__enter__()
        self.places = {name: self.writer.reserve(name, self.shape, "f4") for name in self.sums}
        self.places |= {name: self.writer.reserve(name, self.shape, "i2") for name in self.counts}
        return self

    def __exit__(self, *error):
        if error[0] is None:
            for name, parts in self.left_out.items():
                self.writer.append_table(name, *parts)
        self.writer.__exit__(*error)

    def part(self, cluster, channel, corner, kept, left_out):
        """A block of a channel of a cluster as ``put`` takes it.

        Parameters
        ----------
        cluster, channel : int
        corner : (int, int)
            Its first row and column in the box.
        kept : (n arrays, m arrays)
            Sums and counts, (h, w) each.
        left_out : list of (rows, columns, n arrays, m arrays)
            For each of LEFT_OUT its pixels, sorted by rows, and their sums and counts.
        """
        plane, others = cluster * self.n_channels + channel, {}
        images = {name: kept[0][k].astype(np.float32) for name, k in self.sums.items()}
        images |= {name: _short(kept[1][k]) for name, k in self.counts.items()}
        for name, (y, x, sums, counts) in zip(LEFT_OUT.values(), left_out, strict=True):
            others[name] = {
                "PLANE": np.full(len(y), plane, np.int16),
                "ROW": (y + corner[0]).astype(np.int32),
                "COLUMN": (x + corner[1]).astype(np.int32),
                **{s: sums[k].astype(np.float32) for s, k in self.sums.items()},
                **{c: _short(counts[k]) for c, k in self.counts.items()},
            }
        return (plane, *corner), images, others

    def put(self, part):
        """Write a block."""
        corner, images, others = part
        for name, columns in others.items():
            self.left_out[name].append(columns)
        for name, image in images.items():
            self.writer.put_block(self.places[name], image, self.shape, corner)


def separated(sums, counts):
    """Sums (3, n, h, w) and counts (3, m, h, w) of kept, rejected and saturated pixels, as ``File.part`` takes them."""
    left_out = []
    for mark in LEFT_OUT:
        y, x = np.nonzero(counts[mark].any(0))
        left_out.append((y, x, sums[mark][:, y, x], counts[mark][:, y, x]))
    return (sums[0], counts[0]), left_out


def _short(counts):
    return np.minimum(counts, 32767).astype(np.int16)


class Files:
    """The sums of a batch, and those with the flat weights of its clusters where these have any; else a file without
    images.

    Parameters
    ----------
    path, flat_path : path
    cards : dict
        Of the first one.
    exposure_s : (n,) float64 array
        Of the frames; NaN: unknown.
    split : Split
    flat_kind : Kind
        What the second one holds; the first has all.
    names, n_channels, box
        As in ``File``.
    """

    def __init__(self, path, flat_path, cards, exposure_s, split, flat_kind, names, n_channels, box):
        own, alike = (names, n_channels, box), np.unique(exposure_s)
        exposure = {EXPOSURE: float(alike[0])} if len(alike) == 1 and np.isfinite(alike[0]) else {}
        self.sums = File(path, cards | exposure, split, Kind(*names, ()), *own)
        if split.flat:
            self.flat = File(flat_path, {"NFRAMES": cards["NFRAMES"], **exposure}, split, flat_kind, *own)
        else:
            self.flat = files.Writer(flat_path, {"NFRAMES": 0})

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            for file in (self.sums, self.flat):
                stack.enter_context(file)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error):
        self._open.__exit__(*error)

    def put(self, parts, flat_parts):
        """Write blocks as from ``File.part`` of both files."""
        for part in parts:
            self.sums.put(part)
        for part in flat_parts:
            self.flat.put(part)
