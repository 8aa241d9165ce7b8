"""Efficiency of a stack from its response to known light and the spectrum of its noise."""

import numpy as np
import sep
from scipy import ndimage

from efficiency.injection import BRIGHT, PATCH, PATCH_REACH_PX, STAR, STAR_REACH_PX

# Pixels that stand out of the sky by so many sigma, and those near them, are no blank sky.
BLANK_SIGMA, BLANK_REACH = 4.0, 5
# What varies over more than this is the sky that is left, not noise that a star or a patch would meet.
SMOOTH_PX = 128
BLOCKS = 4
COUNTS = {"eta_pt": "n_stars", "eta_bright": "n_bright", "eta_sb": "n_patches"}


def blank(image, variance):
    """Pixels of empty sky: (h, w) bool; and the image less its smooth sky."""
    known = np.isfinite(image) & np.isfinite(variance)
    filled = np.ascontiguousarray(np.where(known, image, np.nanmedian(image)), np.float32)
    background = sep.Background(filled, mask=~known, bw=64, bh=64)
    flat = filled - background.back()
    bright = known & (flat > BLANK_SIGMA * np.sqrt(np.where(known, variance, 1.0)))
    bright = ndimage.binary_opening(
        bright, np.ones((2, 2))
    )  # lone pixels are noise, and leaving them out would bias it
    return known & ~ndimage.binary_dilation(bright, iterations=BLANK_REACH), flat


def whitened(base, usable):
    """Half-split difference over its expected standard deviation, less what is smooth: (h, w); 0 where not usable.

    The smooth part is one of modes, and noise has a skewness: halves that differ in their sky or weights differ in it.
    A skewness of 0.1 moves the mode by 0.04 standard deviations, which over a patch is a third of the noise. So the
    mean comes off on top.
    """
    noise = np.where(usable, base["SPLIT"] / np.sqrt(base["VAR"]), 0.0).astype(np.float32)
    smooth = sep.Background(np.ascontiguousarray(noise), mask=~usable, bw=SMOOTH_PX, bh=SMOOTH_PX)
    flat = noise - smooth.back()
    return np.where(usable, flat - flat[usable].mean(dtype=float), 0.0) if usable.any() else np.zeros(noise.shape)


class Spectrum:
    """Power of noise that is 1 a pixel when white, by spatial frequency, from boxes of blank sky.

    Parameters
    ----------
    noises : list of (h, w) array
        Over their own expected standard deviations; independent of each other.
    usable : (h, w) bool array
    reach : int
        Half the side of a box.
    """

    def __init__(self, noises, usable, reach):
        size = 2 * reach
        edge = np.hanning(size + 2)[1:-1]
        window = np.outer(edge, edge)
        self.powers, self.where, self.n_noises = [], [], len(noises)
        clean = [np.where(usable, noise, 0.0) for noise in noises]
        for top in range(0, usable.shape[0] - size + 1, reach):
            for left in range(0, usable.shape[1] - size + 1, reach):
                box = (slice(top, top + size), slice(left, left + size))
                weight = window * usable[box]
                total = (weight**2).sum()
                if total > 0.6 * (window**2).sum():
                    each = [np.abs(np.fft.fft2(noise[box] * weight)) ** 2 / total for noise in clean]
                    self.powers.append(np.mean(each, axis=0))
                    self.where.append((top + reach, left + reach))
        self.powers, self.where = np.array(self.powers), np.array(self.where).reshape(-1, 2)

    def mean(self, chosen):
        """Mean power (size, size) of chosen boxes, the same along both axes and diagonals; and boxes behind it."""
        power = self.powers[chosen].mean(0)
        flipped = np.roll(power[::-1], 1, axis=0)
        power = (power + flipped) / 2
        # Half-overlapping Hann windows: each box counts for about a half; two reflections and a transposition.
        return (power + power.T) / 2, 4 * 0.52 * chosen.sum() * self.n_noises


def squared_snr(response, variance, xy, reach, power, n_behind):
    """Squared S/N of known light under a matched filter.

    Parameters
    ----------
    response : (h, w) float array
        What the stack makes of known light.
    variance : (h, w) array
        The stack's own, by which both light and noise are measured pixel by pixel; the spectrum says how the noise
        differs from it.
    xy : (n, 2) array
    reach : int
    power : (2 reach, 2 reach) array
    n_behind : float
        Independent boxes behind the power; takes out the bias of its inverse.

    Returns
    -------
    squared : (n,) float64 array
    light : (2 reach, 2 reach) float64 array
        Sum of their power spectra: where their signal is.
    """
    result, mean_light = np.empty(len(xy)), np.zeros(power.shape)
    for k, (x, y) in enumerate(np.round(xy).astype(int)):
        box = (slice(y - reach, y + reach), slice(x - reach, x + reach))
        light = np.abs(np.fft.fft2(response[box] / np.sqrt(variance[box]))) ** 2
        result[k] = (light / power).sum() / light.size
        mean_light += light
    return result * (1 - 1 / n_behind), mean_light


def efficiencies(base, injected, noises, usable, kind, xy, ceiling, scale=1):
    """Measured efficiencies of a plane.

    Parameters
    ----------
    base, injected : (h, w) arrays
        Stack without and with the known light.
    noises : list of (h, w) array
        Independent realisations of the noise of the stack, over the root of its variance.
    usable : (h, w) bool array
        Blank sky.
    kind, xy, ceiling : arrays
        Known light: kind, place in the stack, best squared S/N.
    scale : int
        Pixels of the stack to one of the lattice along each axis.

    Returns
    -------
    dict
        ``eta_pt``, ``eta_bright``, ``eta_sb`` with ``..._error`` (jackknife over 16 blocks of the image) and
        ``n_stars``, ``n_bright``, ``n_patches``; ``..._parts``: values with a block left out.
    """
    variance = np.where(np.isfinite(base["VAR"]), base["VAR"], np.inf)
    response = np.nan_to_num(injected["SCI"].astype(float) - base["SCI"])
    h, w = response.shape
    found = {}
    for name, which, reach in (
        ("eta_pt", STAR, STAR_REACH_PX),
        ("eta_bright", BRIGHT, STAR_REACH_PX),
        ("eta_sb", PATCH, PATCH_REACH_PX),
    ):
        mine = (kind == which) & (ceiling > 0)
        reach = reach * scale
        if which != BRIGHT:
            mine &= _steady(base, injected, xy, reach // 2)
        spectrum = Spectrum(noises, usable, reach)
        if not len(spectrum.where) or not mine.any():  # no blank sky, or no known light on it
            found |= {
                name: np.nan,
                f"{name}_error": np.nan,
                f"{name}_parts": np.full(BLOCKS**2, np.nan),
                COUNTS[name]: 0,
            }
            continue
        block = _block(spectrum.where[:, 0], spectrum.where[:, 1], h, w)
        mine_block = _block(xy[mine, 1], xy[mine, 0], h, w)
        power, n_behind = spectrum.mean(np.ones(len(block), bool))
        gained, light = squared_snr(response, variance, xy[mine], reach, power, n_behind)
        parts = []
        for left_out in range(BLOCKS**2):
            others = block != left_out
            part, _ = spectrum.mean(others)
            level = (light / part).sum() / (light / power).sum()
            kept = mine_block != left_out
            parts.append(level * gained[kept].sum() / ceiling[mine][kept].sum())
        parts = np.array(parts)
        found |= {
            name: float(gained.sum() / ceiling[mine].sum()),
            f"{name}_error": jackknife(parts),
            f"{name}_parts": parts,
            COUNTS[name]: int(mine.sum()),
        }
    return found


def _steady(base, injected, xy, reach):
    """Where the light changes nothing in what is left out: near a trail or a bright star it may, which is not its own.

    One such place in a thousand spoilt a measurement: 15700 ADU of a catalogue star came or went with a frame.
    """
    changed = np.zeros(base["SCI"].shape, bool)
    for name in ("NIM", "REJ"):
        if name in base:
            changed |= base[name] != injected[name]
    total = np.pad(changed.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    x, y = np.round(xy).astype(int).T
    h, w = changed.shape
    x0, x1, y0, y1 = (np.clip(at + reach * side, 0, n) for at, n in ((x, w), (y, h)) for side in (-1, 1))
    return total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0] == 0


def jackknife(parts):
    """Standard error of a figure from its values with one block left out each."""
    n = len(parts)
    return float(np.sqrt((n - 1) / n * ((parts - parts.mean()) ** 2).sum()))


def _block(y, x, h, w):
    """Number of the block of the image that a place lies in."""
    return (np.asarray(y) * BLOCKS // h).astype(int) * BLOCKS + (np.asarray(x) * BLOCKS // w).astype(int)


def split_chi2(base, usable, size=256):
    """Mean square of the half-split difference over VAR, in boxes of blank sky: (n,) array."""
    ratio = np.where(usable & np.isfinite(base["SPLIT"]), base["SPLIT"] ** 2 / base["VAR"], np.nan)
    h, w = (n // size * size for n in ratio.shape)
    boxes = ratio[:h, :w].reshape(h // size, size, w // size, size)
    known = np.isfinite(boxes).sum((1, 3))
    means = np.nanmean(np.where(np.isfinite(boxes), boxes, np.nan), axis=(1, 3))
    return means[known > 0.5 * size * size]
