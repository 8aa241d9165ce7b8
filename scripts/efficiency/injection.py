"""Light that is known: stars and faint patches, put onto raw frames where the sky is empty."""

import numpy as np

from efficiency import kernels
from tilestack import bayer, files, geometry, lattice

# A cell holds one patch in its middle and stars around it, so that no response reaches into another.
CELL_PX, STAR_PITCH_PX, PATCH_SIGMA_PX, PATCH_REACH_PX, STAR_REACH_PX = 128, 32, 5.0, 24, 16
# S/N of a star in one frame; every eighth is bright. A patch's height is a share of the noise of a pixel.
STAR_SNR, BRIGHT_SNR, PATCH_HEIGHT = 5.0, 60.0, 0.3
BETA = 3.0
STAR, BRIGHT, PATCH = 0, 1, 2


def places(covered):
    """Where known light goes.

    Parameters
    ----------
    covered : (h, w) bool array
        Pixels of the stack that hold data.

    Returns
    -------
    kind : (n,) int64 array
        STAR, BRIGHT or PATCH.
    xy : (n, 2) float64 array
        Positions in the stack, of all phases in the pixel; those of light whose surroundings are covered.
    """
    rng = np.random.default_rng(20)
    h, w = covered.shape
    kinds, points = [], []
    for top in range(0, h - CELL_PX + 1, CELL_PX):
        for left in range(0, w - CELL_PX + 1, CELL_PX):
            kinds.append(PATCH)
            points.append((left + CELL_PX / 2 + rng.uniform(-0.5, 0.5), top + CELL_PX / 2 + rng.uniform(-0.5, 0.5)))
            near = PATCH_REACH_PX + STAR_REACH_PX
            for y in range(STAR_PITCH_PX // 2, CELL_PX, STAR_PITCH_PX):
                for x in range(STAR_PITCH_PX // 2, CELL_PX, STAR_PITCH_PX):
                    if max(abs(x - CELL_PX / 2), abs(y - CELL_PX / 2)) >= near - 1:
                        kinds.append(BRIGHT if len(kinds) % 8 == 0 else STAR)
                        points.append((left + x + rng.uniform(-0.5, 0.5), top + y + rng.uniform(-0.5, 0.5)))
    kind, xy = np.array(kinds), np.array(points).reshape(-1, 2)
    reach = np.where(kind == PATCH, PATCH_REACH_PX, STAR_REACH_PX)
    corner = np.round(xy).astype(int) - reach[:, None]
    total = np.pad(covered.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = (corner >= 0).all(1) & (corner + 2 * reach[:, None] < [w, h]).all(1)
    x0, y0 = np.where(inside[:, None], corner, 0).T
    x1, y1 = x0 + 2 * reach + 1, y0 + 2 * reach + 1
    x1, y1 = np.minimum(x1, w), np.minimum(y1, h)
    full = total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0] == (2 * reach + 1) ** 2
    return kind[inside & full], xy[inside & full]


class Added:
    """Adds known light to the frames of a run, and adds up what perfect use of it would give.

    Parameters
    ----------
    sources : Sources
        ``draw(session, frame, shape)`` gives the light of a frame, ``variance(session, frame, xy)`` (n, c) the variance
        of its raw sky pixels there, both in ADU; ``transform(session, frame)`` leads to the lattice.
    kind, xy : arrays
        From ``places``, on the lattice.
    cells : dict
        Channel of each Bayer phase, by session.

    Attributes
    ----------
    ceiling : (n, c) float64 array
        Sum over frames and raw pixels of light^2 / variance: the best squared S/N there is.
    """

    def __init__(self, sources, kind, xy, cells):
        self.sources, self.kind, self.xy, self.cells = sources, kind, xy, cells
        n_channels = max(cell.max() for cell in cells.values()) + 1
        self.ceiling = np.zeros((len(kind), n_channels))

    def __call__(self, session, frame, image):
        light = self.sources.draw(session, frame, image.shape)
        transform = np.asarray(self.sources.transform(session, frame))
        xy = geometry.apply(geometry.inverse(transform), self.xy)
        variance = self.sources.variance(session, frame, xy)
        finer = 1 / np.sqrt(geometry.area_scale(transform))
        reach = np.where(self.kind == PATCH, PATCH_REACH_PX, STAR_REACH_PX) * finer
        cell = self.cells[session]
        h, w = image.shape
        for k, ((x, y), r) in enumerate(zip(xy, reach, strict=True)):
            top, left = max(round(y - r), 0), max(round(x - r), 0)
            cut = light[top : min(round(y + r) + 1, h), left : min(round(x + r) + 1, w)].astype(np.float64)
            if not cut.size:
                continue
            channel = np.roll(cell, (-(top % 2), -(left % 2)), (0, 1))
            for dy in (0, 1):
                for dx in (0, 1):
                    c = channel[dy, dx]
                    self.ceiling[k, c] += (cut[dy::2, dx::2] ** 2).sum() / variance[k, c]
        return light


class Fitted:
    """Known light with the profiles, scales and noise that a run found for its frames.

    Parameters
    ----------
    run : efficiency.restack.Run
    kind, xy : arrays
        From ``places``, on the lattice.
    """

    def __init__(self, run, kind, xy):
        self.run, self.kind, self.xy = run, kind, xy
        self.fields = {session: self._read(session) for session in run.sessions}
        first = next(iter(run.sessions))
        record = run.record(f"work/normalization/{first}.json")
        anchor = next(f for f in record["frames"] if f["file"] == run.reference["photometric"]["file"])
        noise, fwhm = np.array(anchor["noise_adu"], float), run.reference["fwhm_px"]
        snr = np.array([STAR_SNR, BRIGHT_SNR, 0])[kind]
        self.flux = snr[:, None] * noise * fwhm * np.sqrt(np.pi / (2 * np.log(2)))
        self.height = PATCH_HEIGHT * noise

    def _read(self, session):
        names = [f["file"] for f in self.run.record(f"work/weights/{session}.json")["frames"]]
        with files.opened(self.run.folder / f"work/weights/{session}.fits") as hdus:
            stride, j0, i0 = (hdus[0].header[key] for key in ("STRIDEPX", "TILEY0", "TILEX0"))
            at_x, at_y = (((self.xy[:, k] + 0.5) / stride - 0.5 - first) for k, first in ((0, i0), (1, j0)))
            values = {
                name: lattice.bilinear(np.asarray(files.pixels(hdus[name]), float), at_y, at_x)
                for name in ("SCALE", "VARIANCE", "FWHM")
            }
        return {name: {key: value[k] for key, value in values.items()} for k, name in enumerate(names)}

    def transform(self, session, frame):
        return np.array(frame["transform"])

    def variance(self, session, frame, xy):
        """Of raw pixels of the frame: fields hold it by lattice area and at scale 1."""
        mine = self.fields[session][frame["file"]]
        return (mine["VARIANCE"] * mine["SCALE"] ** 2).T / geometry.area_scale(self.transform(session, frame))

    def draw(self, session, frame, shape):
        mine, transform = self.fields[session][frame["file"]], self.transform(session, frame)
        area = geometry.area_scale(transform)
        xy = geometry.apply(geometry.inverse(transform), self.xy)
        pattern = self.run.record(f"work/registration/{session}.json")["bayer_pattern"]
        cell = bayer.channel_cell(pattern)
        light = np.zeros(shape, np.float32)
        stars = self.kind != PATCH
        kernels.add_moffats(
            light,
            cell,
            *np.ascontiguousarray(xy[stars].T),
            self.flux[stars] * mine["SCALE"].T[stars] / area,
            mine["FWHM"][0, stars] / np.sqrt(area),
            BETA,
        )
        for (x, y), t in zip(xy[~stars], mine["SCALE"].T[~stars], strict=True):
            add_patch(light, cell, x, y, self.height * t, PATCH_SIGMA_PX / np.sqrt(area))
        return light


def add_patch(light, cell, x, y, height, sigma):
    """Add a round patch of Gaussian profile to a frame, in place; `height` by channel."""
    reach = int(5 * sigma)
    top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
    cut = light[top : max(int(y) + reach, 0), left : max(int(x) + reach, 0)]
    rows, columns = top + np.arange(cut.shape[0]), left + np.arange(cut.shape[1])
    profile = np.exp(-((rows[:, None] - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
    cut += (profile * np.asarray(height)[cell[rows[:, None] % 2, columns % 2]]).astype(np.float32)
