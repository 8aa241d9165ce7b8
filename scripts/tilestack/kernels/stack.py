"""Kernels of a stack: its planes from the sums that it is added up from, and what each tile has of them."""

import numpy as np

from tilestack.kernels import entry

# Planes in single precision, in this order.
PLANES = ("SCI", "VAR", "WHT", "EXP", "EVEN", "ODD", "SPLIT", "MEAN", "IVAR", "ETA")
# Sums over the pixels of a tile, in this order.
OF_TILE = ("n", "frames", "rejected", "eta", "split", "n_split")


def planes(sums, n, ceiling):
    """Planes of a coadd from its sums.

    Parameters
    ----------
    sums : (10, c, h, w) float64 array
        By the names of ``coadd.SUMS``.
    n : (c, h, w) int64 array
        Frames that count.
    ceiling : (c, h, w) float64 array
        Sum of 1 / v over all frames with data.

    Returns
    -------
    (10, c, h, w) float32 array
        PLANES; NaN where there is no data, WHT and EXP 0.
    """
    if sums.ndim != 4 or len(sums) != 10 or n.shape != sums.shape[1:] or ceiling.shape != n.shape:
        raise ValueError(
            f"need (10, c, h, w) sums with counts and ceiling, got {sums.shape}, {n.shape}, {ceiling.shape}"
        )
    out = np.empty((len(PLANES), *n.shape), np.float32)
    _planes(sums.reshape(10, -1), n.reshape(-1), ceiling.reshape(-1), out.reshape(len(PLANES), -1))
    return out


@entry(error_model="numpy")
def _planes(sums, n, ceiling, out):
    nan = np.nan
    for k in range(len(n)):
        wy_even, w_even, wy_odd, w_odd = sums[0, k], sums[1, k], sums[2, k], sums[3, k]
        w = w_even + w_odd
        over = 1 / w if w > 0 else nan
        share = np.sqrt(w_odd / w_even) if w_even > 0 and w_odd > 0 else nan
        out[0, k] = (wy_even + wy_odd) * over
        out[1, k] = sums[4, k] * over * over
        out[2, k] = w if w > 0 else 0.0
        out[3, k] = sums[9, k]
        out[4, k] = wy_even / w_even if w_even > 0 else nan
        out[5, k] = wy_odd / w_odd if w_odd > 0 else nan
        # Difference of the halves with the variance of the stack: noise without the sky.
        out[6, k] = (wy_even * share - wy_odd / share) * over
        out[7, k] = sums[8, k] / n[k] if n[k] > 0 else nan
        out[8, k] = sums[6, k] / sums[7, k] if sums[7, k] > 0 else nan
        # Squared S/N for extended light over the best possible, rejection included.
        out[9, k] = w * w / (sums[5, k] * ceiling[k]) if w > 0 else nan


def tile_sums(planes, tile_y, tile_x, most, sums, along_y, along_x):
    """Add a band of a stack to the sums over its tiles, in place.

    Parameters
    ----------
    planes : dict of str to (c, h, w) array
        ``SCI``, ``MEAN``, ``ETA``, ``SPLIT``, ``VAR`` (float32), ``NIM``, ``REJ`` (int64).
    tile_y, tile_x : (h,) and (w,) int64 arrays
        Row and column of the tile of each pixel, rising.
    most : float
        SPLIT counts below so many standard deviations.
    sums : (6, ny, nx) float64 array
        OF_TILE.
    along_y, along_x : (2, ny, w) and (2, h, nx) float64 arrays
        Sum of SCI less MEAN, and how many there are.
    """
    floats = [planes[name] for name in ("SCI", "MEAN", "ETA", "SPLIT", "VAR")]
    counts = [planes[name] for name in ("NIM", "REJ")]
    if any(plane.dtype != np.float32 for plane in floats) or any(plane.dtype != np.int64 for plane in counts):
        raise ValueError(f"need float32 planes and int64 counts, got {[p.dtype for p in (*floats, *counts)]}")
    _tile_sums(*floats, *counts, tile_y, tile_x, np.float32(most * most), sums, along_y, along_x)


@entry(error_model="numpy")
def _tile_sums(image, mean, eta, split, variance, frames, rejected, tile_y, tile_x, most, sums, along_y, along_x):
    n_channels, h, w = image.shape
    for row in range(n_channels * h):
        c, y = row // h, row % h
        j = tile_y[y]
        x = 0
        while x < w:
            i = tile_x[x]
            n, n_frames, n_rejected, n_split, n_known = 0, 0, 0, 0, 0
            of_eta, of_split, of_difference = 0.0, 0.0, 0.0
            while x < w and tile_x[x] == i:
                known = frames[c, y, x] > 0
                n += known
                n_frames += frames[c, y, x]
                n_rejected += rejected[c, y, x]
                value = eta[c, y, x]
                of_eta += value if known and value == value else 0.0
                square = split[c, y, x] * split[c, y, x] / variance[c, y, x]
                quiet = square < most
                n_split += quiet
                of_split += square if quiet else 0.0
                difference = image[c, y, x] - mean[c, y, x]
                there = difference == difference
                difference = difference if there else 0.0
                of_difference += difference
                n_known += there
                along_y[0, j, x] += difference
                along_y[1, j, x] += there
                x += 1
            sums[0, j, i] += n
            sums[1, j, i] += n_frames
            sums[2, j, i] += n_rejected
            sums[3, j, i] += of_eta
            sums[4, j, i] += of_split
            sums[5, j, i] += n_split
            along_x[0, y, i] += of_difference
            along_x[1, y, i] += n_known
