"""What each tile of the canvas got, in numbers."""

import numpy as np

from tilestack import files, masks
from tilestack.kernels import stack as kernel

# A half-split difference above so many sigma is no noise: a star under other seeing.
MOST_SIGMA = 4.0


class Means:
    """Means of planes over tiles: each pixel counts for the tile whose centre is nearest.

    Parameters
    ----------
    tile_range : (int, int, int, int)
        First row and column, number of rows and columns of the tiles.
    stride : int
        Pitch of the tiles, even.
    canvas : (int, int, int, int)
        y0, x0, rows, columns.
    """

    def __init__(self, tile_range, stride, canvas):
        self.range, self.stride, self.canvas = tile_range, stride, canvas
        self.totals = np.zeros((len(kernel.OF_TILE), *tile_range[2:]))
        self.sums = dict(zip(kernel.OF_TILE, self.totals, strict=True))  # views
        # Tile stack less plain mean, summed along tiles in both directions: where its steps lie.
        self.along_y = np.zeros((2, tile_range[2], canvas[3]))
        self.along_x = np.zeros((2, canvas[2], tile_range[3]))
        self.differs = self.saturated = 0

    def add(self, band, planes):
        j, i = (
            np.clip((start + np.arange(n)) // self.stride - first, 0, size - 1)
            for start, n, first, size in zip(band[:2], band[2:], self.range[:2], self.range[2:], strict=True)
        )
        rows = slice(band[0] - self.canvas[0], band[0] - self.canvas[0] + band[2])
        kernel.tile_sums(planes, j, i, MOST_SIGMA, self.totals, self.along_y, self.along_x[:, rows])
        self.differs += int((planes["MASK"] & masks.DIFFERS > 0).sum())
        self.saturated += int((planes["MASK"] & masks.SATURATED > 0).sum())

    def means(self):
        with np.errstate(invalid="ignore", divide="ignore"):
            seen = self.sums["frames"] + self.sums["rejected"]
            return {
                "mean_frames": self.sums["frames"] / self.sums["n"],
                "rejected_share": self.sums["rejected"] / seen,
                "eta_sb": self.sums["eta"] / self.sums["n"],
                "split_chi2": self.sums["split"] / self.sums["n_split"],
            }

    def boundary_step(self):
        """Steps of the tile stack against the plain mean at the middles between tiles, over those elsewhere.

        Weights run smoothly from tile centre to tile centre, so 1 is what must come out. Medians, as
        stars differ between the two; NaN without data, or where both are one and the same.
        """
        steps, at_edge = [], []
        for sums, first in ((self.along_y, self.canvas[1]), (np.swapaxes(self.along_x, 1, 2), self.canvas[0])):
            with np.errstate(invalid="ignore", divide="ignore"):
                profile = np.where(sums[1] > self.stride / 2, sums[0] / sums[1], np.nan)
            # Two pixels back: of a mosaic the same colour.
            steps.append((profile[:, 2:] - profile[:, :-2]).ravel())
            place = (first + 2 + np.arange(profile.shape[1] - 2)) % self.stride
            at_edge.append(np.broadcast_to(place < 2, (len(profile), len(place))).ravel())
        steps, at_edge = np.concatenate(steps), np.concatenate(at_edge)
        known = np.isfinite(steps)
        if not (known & at_edge).any() or not (known & ~at_edge).any():
            return np.nan
        elsewhere = np.median(np.abs(steps[known & ~at_edge]))
        return float(np.median(np.abs(steps[known & at_edge])) / elsewhere) if elsewhere else np.nan

    def whole(self):
        total = {key: values.sum() for key, values in self.sums.items()}
        return {
            "mean_frames": total["frames"] / max(total["n"], 1),
            "rejected_share": total["rejected"] / max(total["frames"] + total["rejected"], 1),
            "eta_sb": total["eta"] / max(total["n"], 1),
            "differs_px": self.differs,
            "saturated_px": self.saturated,
        }


def of_weights(paths, tile_range):
    """What the weights of each tile make of its frames.

    Parameters
    ----------
    paths : list of path
        Weight fields of the sessions.
    tile_range : (int, int, int, int)
        First row and column, number of rows and columns.

    Returns
    -------
    dict
        (ny, nx) float64 arrays, NaN without frames: ``effective_frames``, (sum w)^2 / sum w^2; ``fwhm_px``, weighted;
        ``predicted_gain`` of squared S/N over one weight a frame.
    """
    w, w2, wf, w2v, g, g2v = (np.zeros(tile_range[2:]) for _ in range(6))
    for path in paths:
        with files.opened(path) as hdus:
            header = hdus[0].header
            j, i = header["TILEY0"] - tile_range[0], header["TILEX0"] - tile_range[1]
            weight = np.asarray(files.pixels(hdus["WEIGHT"]), float).mean(1) * np.asarray(
                files.pixels(hdus["COVERAGE"]), float
            )
            fwhm, variance = (
                np.nan_to_num(np.asarray(files.pixels(hdus[k]), float).mean(1)) for k in ("FWHM", "VARIANCE")
            )
            covered = np.asarray(files.pixels(hdus["COVERAGE"]), float)
        with np.errstate(invalid="ignore", divide="ignore"):
            whole = np.nan_to_num(weight.sum((1, 2)) / covered.sum((1, 2)))[:, None, None] * covered
        ny, nx = weight.shape[1:]
        # Both ranges hold all tiles near a frame of the session; the session's may stand out by a rim.
        ys, xs = slice(max(j, 0), min(j + ny, w.shape[0])), slice(max(i, 0), min(i + nx, w.shape[1]))
        part = (slice(None), slice(ys.start - j, ys.stop - j), slice(xs.start - i, xs.stop - i))
        w[ys, xs] += weight[part].sum(0)
        w2[ys, xs] += (weight[part] ** 2).sum(0)
        wf[ys, xs] += (weight[part] * fwhm[part]).sum(0)
        w2v[ys, xs] += (weight[part] ** 2 * variance[part]).sum(0)
        g[ys, xs] += whole[part].sum(0)
        g2v[ys, xs] += (whole[part] ** 2 * variance[part]).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"effective_frames": w**2 / w2, "fwhm_px": wf / w, "predicted_gain": (w**2 / w2v) / (g**2 / g2v) - 1}
