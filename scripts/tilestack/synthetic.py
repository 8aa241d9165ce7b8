"""SYNTHETIC_FRAMES: the weighted mean of each cluster, and the sums that it is combined with others by.

A synthetic frame has its sum of weights at each pixel. So a rim that few of its frames reach counts by those few, a
large cluster by its size, and the combination by weight is the weighted mean of all frames.
"""

import contextlib
from collections import namedtuple

import numpy as np

from tilestack import files, masks, splitsums, sums, threads
from tilestack.prewarped import bands

# Images of synthetic frames (clusters, channels, h, w).
IMAGES = ("SCI", "VAR", "WHT", "EXP", "NIM", "REJ", "MASK")
INTEGERS = {"NIM": "i2", "REJ": "i2", "MASK": "u1"}
# Bytes of sums that a thread may hold of a band.
BAND_BYTES = 64e6
# Parts of a session by cluster in a band: kept, rejected and saturated sums and counts.
PARTS = 3

# Sums of frames in a band: `values` by name (frames, channels, h, w), `n`, `rejected` and `bare` (only saturated
# samples) likewise, and `mask` (channels, h, w).
Frames = namedtuple("Frames", "values n rejected bare mask")


def n_rows(kind, n_frames, n_channels, width):
    """Rows of a band that fit into memory."""
    return int(BAND_BYTES / (8 * PARTS * (len(kind.sums) + 3) * max(n_frames, 1) * n_channels * width))


class Session:
    """Clusters of a session, added up from its batches.

    Parameters
    ----------
    stack : contextlib.ExitStack
        Which closes the files.
    paths : list of (path, path)
        Of each batch the two of ``splitsums.Files``, that with flat weights first, which counts where it has any.
    clusters : list of str
        Names of the clusters.
    kind : splitsums.Kind
    put_back_share : float
        As in ``sums.add_sessions``.
    """

    def __init__(self, stack, paths, clusters, kind, put_back_share):
        self.clusters, self.kind, self.put_back_share = clusters, kind, put_back_share
        self.batches = []
        for flat, whole in paths:
            hdus = stack.enter_context(files.opened(flat))
            if not hdus[0].header["NFRAMES"]:
                hdus = stack.enter_context(files.opened(whole))
            if hdus[0].header["NFRAMES"]:
                names = hdus[0].header["CLUSTERS"].split() or clusters
                self.batches.append((names, sums.Sums(hdus, kind)))
        boxes = np.array([batch.box for _, batch in self.batches if min(batch.box[2:])])
        self.n_channels = 0
        self.box = (0, 0, 0, 0)
        if len(boxes):
            y0, x0 = boxes[:, :2].min(0)
            y1, x1 = (boxes[:, :2] + boxes[:, 2:]).max(0)
            self.box = (int(y0), int(x0), int(y1 - y0), int(x1 - x0))
            self.n_channels = self.batches[0][1].n_channels

    def frames(self, band):
        """Sums of each cluster in a band, as ``Frames``.

        What more than a share of the session's frames reject is put back, and where there are saturated samples only
        these are taken: both as in ``sums.add_sessions``.
        """
        shape = (len(self.clusters), self.n_channels, *band[2:])
        kept, n = np.zeros((len(self.kind.sums), *shape)), np.zeros((len(self.kind.counts), *shape), np.int32)
        by_plane = [values.reshape(len(values), -1, *band[2:]) for values in (kept, n)]
        lost, clipped = [], []
        for names, batch in self.batches:
            mine = [self.clusters.index(name) for name in names]
            places = [cluster * self.n_channels + channel for cluster in mine for channel in range(self.n_channels)]
            batch.add_to(*by_plane, band, places)
            for name, parts in (("REJECTED", lost), ("SATURATED", clipped)):
                for cluster, part in zip(mine, batch.left_out(name, band), strict=True):
                    at = (np.full(part.at[0].shape, cluster), *part.at)
                    parts.append(sums.LeftOut(at, part.sums, part.counts))
        rejected, n_clipped = sums.counted(lost, shape), sums.counted(clipped, shape)
        all_rejected = rejected.sum(0)
        seen = n.sum((0, 1)) + all_rejected
        differs = (all_rejected > self.put_back_share * seen) & (seen >= sums.FEWEST_DIFFERING)
        for part in lost:
            part.where(np.broadcast_to(differs, shape)).add_to(kept, n)
        rejected[:, differs] = 0
        bare = (n.sum((0, 1)) == 0) & (n_clipped.sum(0) > 0)
        for part in clipped:
            part.where(np.broadcast_to(bare, shape)).add_to(kept, n)
        n = n.sum(0)
        mask = differs * masks.DIFFERS + bare * masks.SATURATED
        values = dict(zip(self.kind.sums, kept, strict=True))
        return Frames(values, n, rejected.astype(np.int32), bare & (n > 0), mask.astype(np.int16))


def images(frames):
    """Images of synthetic frames: name -> (frames, channels, h, w); NaN and weight 0 where a cluster has no data."""

    weight = frames.values["W_EVEN"] + frames.values["W_ODD"]
    over = 1 / np.where(weight > 0, weight, np.nan)
    return {
        "SCI": (frames.values["WY_EVEN"] + frames.values["WY_ODD"]) * over,
        "VAR": frames.values["W2V"] * over**2,
        "WHT": weight,
        "EXP": frames.values["EXPOSURE"],
        "NIM": frames.n,
        "REJ": frames.rejected,
        "MASK": np.where(frames.n > 0, frames.mask | frames.bare * masks.SATURATED, frames.mask | masks.NO_DATA),
    }


def write(path, paths, clusters, put_back_share, n_threads=1):
    """Write the synthetic frames of a session.

    Parameters
    ----------
    path : path
        FITS file: images (clusters, channels, h, w), by the names of ``images``; the box stands in the header. Without
        images where there is nothing.
    paths, clusters, put_back_share
        As in ``Session``.
    n_threads : int

    Returns
    -------
    list of dict
        Of each cluster: ``noise_adu``, the median standard deviation of its pixels; empty where there is nothing.
    """
    with contextlib.ExitStack() as stack:
        session = Session(stack, paths, clusters, splitsums.MOSAIC, put_back_share)
        box = session.box
        cards = {"LATTY0": box[0], "LATTX0": box[1], "CLUSTERS": " ".join(clusters), "CHANNELS": session.n_channels}
        writer = stack.enter_context(files.Writer(path, {**cards, "BUNIT": "adu"}))
        if not session.n_channels:
            return []
        shape = (len(clusters), session.n_channels, *box[2:])
        places = {name: writer.reserve(name, shape, INTEGERS.get(name, "f4")) for name in IMAGES}
        samples = [[] for _ in clusters]
        parts = bands(box, n_rows(session.kind, len(clusters), session.n_channels, box[3]))
        for band, made in threads.in_order(lambda band: (band, images(session.frames(band))), parts, n_threads):
            for k in range(len(clusters)):
                for c in range(session.n_channels):
                    first = ((k * shape[1] + c) * shape[2] + band[0] - box[0]) * shape[3]
                    for name in IMAGES:
                        values = made[name][k, c].astype(INTEGERS.get(name, "f4"))
                        writer.put(places[name], values, first)
                variance = made["VAR"][k, :, ::4, ::4]
                samples[k].append(variance[np.isfinite(variance)])
    known = [np.concatenate([np.empty(0), *parts]) for parts in samples]
    return [{"noise_adu": float(np.sqrt(np.median(variance))) if variance.size else None} for variance in known]
