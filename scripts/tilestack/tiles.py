"""What each tile of the canvas got, in numbers."""

import numpy as np

from tilestack import files
from tilestack.sums import MASK_BITS


class Means:
    """Means of planes over tiles: each pixel counts for the tile whose centre is nearest."""

    def __init__(self, tile_range, stride):
        self.range, self.stride = tile_range, stride
        self.sums = {key: np.zeros(tile_range[2:]) for key in ("n", "frames", "rejected", "eta")}
        self.differs = self.saturated = 0

    def add(self, band, planes):
        j, i = (
            np.clip((start + np.arange(n)) // self.stride - first, 0, size - 1)
            for start, n, first, size in zip(band[:2], band[2:], self.range[:2], self.range[2:], strict=True)
        )
        index = (j[:, None] * self.range[3] + i[None]).ravel()
        known = planes["NIM"] > 0
        parts = {
            "n": known,
            "frames": planes["NIM"],
            "rejected": planes["REJ"],
            "eta": np.where(known, np.nan_to_num(planes["ETA"]), 0),
        }
        for key, part in parts.items():
            flat = part.sum(0).ravel().astype(float)
            self.sums[key] += np.bincount(index, flat, self.sums[key].size).reshape(self.sums[key].shape)
        self.differs += int((planes["MASK"] & MASK_BITS["DIFFERS"] > 0).sum())
        self.saturated += int((planes["MASK"] & MASK_BITS["SATURATED"] > 0).sum())

    def means(self):
        with np.errstate(invalid="ignore", divide="ignore"):
            seen = self.sums["frames"] + self.sums["rejected"]
            return {
                "mean_frames": self.sums["frames"] / self.sums["n"],
                "rejected_share": self.sums["rejected"] / seen,
                "eta_sb": self.sums["eta"] / self.sums["n"],
            }

    def whole(self):
        total = {key: values.sum() for key, values in self.sums.items()}
        return {
            "mean_frames": total["frames"] / max(total["n"], 1),
            "rejected_share": total["rejected"] / max(total["frames"] + total["rejected"], 1),
            "eta_sb": total["eta"] / max(total["n"], 1),
            "differs_px": self.differs,
            "saturated_px": self.saturated,
        }


def effective_frames(paths, tile_range):
    """Effective number of frames, (sum w)^2 / sum w^2, and the weighted FWHM of each tile.

    Parameters
    ----------
    paths : list of path
        Weight fields of the sessions.
    tile_range : (int, int, int, int)
        First row and column, number of rows and columns.

    Returns
    -------
    frames, fwhm : (ny, nx) float64 arrays
        NaN where no frame is.
    """
    w, w2, wf = (np.zeros(tile_range[2:]) for _ in range(3))
    for path in paths:
        with files.opened(path) as hdus:
            header = hdus[0].header
            j, i = header["TILEY0"] - tile_range[0], header["TILEX0"] - tile_range[1]
            weight = np.asarray(files.pixels(hdus["WEIGHT"]), float).mean(1) * np.asarray(
                files.pixels(hdus["COVERAGE"]), float
            )
            fwhm = np.nan_to_num(np.asarray(files.pixels(hdus["FWHM"]), float))
        ny, nx = weight.shape[1:]
        # Both ranges hold all tiles near a frame of the session; the session's may stand out by a rim.
        ys, xs = slice(max(j, 0), min(j + ny, w.shape[0])), slice(max(i, 0), min(i + nx, w.shape[1]))
        part = (slice(None), slice(ys.start - j, ys.stop - j), slice(xs.start - i, xs.stop - i))
        w[ys, xs] += weight[part].sum(0)
        w2[ys, xs] += (weight[part] ** 2).sum(0)
        wf[ys, xs] += (weight[part] * fwhm[part]).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return w**2 / w2, wf / w
