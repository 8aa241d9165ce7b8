"""Partial sums of a batch by cluster: what the synthetic frames of a session are added up from."""

from collections import namedtuple

import numpy as np

from tilestack import files

# What a file of partial sums holds: names of the sums, of the counts, and of the sums of 1 / v.
Kind = namedtuple("Kind", "sums counts ceiling")
# Of each cluster: what its weighted mean, its halves, its variance and its coverage take.
MOSAIC = Kind(("WY_EVEN", "W_EVEN", "WY_ODD", "W_ODD", "W2V", "EXPOSURE"), ("N",), ())
DRIZZLED = Kind(("WY_EVEN", "W_EVEN", "WY_ODD", "W_ODD", "W2V_EVEN", "W2V_ODD", "EXPOSURE", "A"), ("N",), ())
LEFT_OUT = {1: "REJECTED", 2: "SATURATED"}


class Split:
    """Which frames of a batch belong to which cluster.

    Parameters
    ----------
    clusters : list of str
        Cluster of each frame of the batch.
    flat : bool
        Whether a frame has one weight in its cluster, the mean over its tiles.
    """

    def __init__(self, clusters, flat):
        self.names, self.flat = sorted(set(clusters)), flat
        # Whether the sums of its one cluster are those of the batch.
        self.whole = len(self.names) == 1 and not flat
        self.members = [np.flatnonzero(np.array(clusters) == name) for name in self.names]

    def fields(self, fields):
        """Fields of frames (n, 5, c, ny, nx) as their clusters take them: WEIGHT, the last, flat where it has to be."""
        if not self.flat:
            return fields
        flat = fields.copy()
        flat[:, -1] = fields[:, -1].mean((-2, -1), keepdims=True)
        return flat


def of_frames(names, clusters):
    """Split of a batch by the record of its session's clusters; None where the session is not split.

    Parameters
    ----------
    names : list of str
        Files of the batch.
    clusters : dict
        ``work/state_clustering/{session}.json``.
    """
    if not clusters["split"] or not names:
        return None
    cluster_of = {frame["file"]: frame["cluster"] for frame in clusters["frames"]}
    return Split([cluster_of[name] for name in names], clusters["weighting"] == "global")


def join(total, sums, n, counts):
    """Add sums (3, ..., s) and counts (3, ...) of kept, rejected and saturated pixels to others, in place; few pixels
    have any of the last two."""
    total[0] += sums[0]
    n[0] += counts[0]
    for mark in LEFT_OUT:
        some = np.nonzero(counts[mark])
        total[mark][some] += sums[mark][some]
        n[mark][some] += counts[mark][some]


class File:
    """A file of sums by cluster, written band by band; one without sums where there is no split.

    Of a batch that is whole in one cluster they are not written again: WHOLE in the header, and no images.
    FITS: images (clusters x channels, h, w), one for each of the sums (float32) and counts (int16) of its kind and for
    N_REJECTED, N_SATURATED (int16); tables REJECTED and SATURATED as in ``reconstruction.write_sums``. CLUSTERS in the
    header names the clusters.

    Parameters
    ----------
    path : path
    split : Split or None
    kind : Kind
    names : (tuple of str, tuple of str)
        Names of the sums and the counts that ``put`` gets.
    n_channels : int
    box : (int, int, int, int)
    """

    def __init__(self, path, split, kind, names, n_channels, box):
        clusters = split.names if split else []
        self.kind, self.n_channels, self.box = kind, n_channels, box
        self.sums, self.counts = (
            {name: given.index(name) for name in own} for given, own in zip(names, kind[:2], strict=True)
        )
        cards = {"LATTY0": box[0], "LATTX0": box[1], "CLUSTERS": " ".join(clusters), "CHANNELS": n_channels}
        cards["NFRAMES"] = sum(map(len, split.members)) if split else 0
        cards["WHOLE"] = bool(split and split.whole)
        self.shape = (0 if cards["WHOLE"] else len(clusters) * n_channels, *box[2:])
        self.writer = files.Writer(path, {**cards, "BUNIT": "adu"})
        self.left_out = {name: [] for name in LEFT_OUT.values()}

    def __enter__(self):
        self.writer.__enter__()
        if self.shape[0]:
            self.places = {name: self.writer.reserve(name, self.shape, "f4") for name in self.kind.sums}
            counts = (*self.kind.counts, "N_REJECTED", "N_SATURATED")
            self.places |= {name: self.writer.reserve(name, self.shape, "i2") for name in counts}
        return self

    def __exit__(self, *error):
        if self.shape[0] and error[0] is None:
            for name, parts in self.left_out.items():
                self.writer.append_table(name, *parts)
        self.writer.__exit__(*error)

    def part(self, cluster, channel, corner, sums, counts):
        """A block of a channel of a cluster as ``put`` takes it.

        Parameters
        ----------
        cluster, channel : int
        corner : (int, int)
            Its first row and column in the box.
        sums : (3, n, h, w) float64 array
            Of the kept, the rejected and the saturated pixels.
        counts : (3, m, h, w) int32 array
        """
        plane, others = cluster * self.n_channels + channel, {}
        images = {name: sums[0, k].astype(np.float32) for name, k in self.sums.items()}
        images |= {name: np.minimum(counts[0, k], 32767).astype(np.int16) for name, k in self.counts.items()}
        for mark, name in LEFT_OUT.items():
            n = np.minimum(counts[mark].sum(0), 32767)
            images[f"N_{name}"] = n.astype(np.int16)
            y, x = np.nonzero(n)
            others[name] = {
                "PLANE": np.full(len(y), plane, np.int16),
                "ROW": (y + corner[0]).astype(np.int32),
                "COLUMN": (x + corner[1]).astype(np.int32),
                **{s: sums[mark, k, y, x].astype(np.float32) for s, k in self.sums.items()},
                **{c: counts[mark, k, y, x].astype(np.int16) for c, k in self.counts.items()},
            }
        return (plane, *corner), images, others

    def put(self, part):
        """Write a block."""
        corner, images, others = part
        for name, columns in others.items():
            self.left_out[name].append(columns)
        for name, image in images.items():
            self.writer.put_block(self.places[name], image, self.shape, corner)
