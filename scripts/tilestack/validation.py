"""VALIDATION: whether the stack is what its frames allow. Each check has a value, and a limit with its reason."""

import numpy as np
import sep
from scipy import ndimage

from tilestack import stars
from tilestack.records import rounded
from tilestack.weights import EXPONENTS

# Largest loss that passes as none, of FWHM and of noise: 5 % of either are 10 % of squared S/N, a tenth of the night.
# ASSUME: what is lost by less has causes that no advice helps against.
LOSS = 0.05
# After a demosaic the variance plane takes all pixels behind one for pixels of its colour; green ones have another
# noise. On M 94 that is 6 % in blue, 2 % the other way in green.
MIXED = 0.10
# Against the plain mean of the same frames no cause is left but the weights and the rejection.
LOSS_OF_PAIRS = 0.02
# What a value may exceed its limit by, in its own standard errors.
SIGMAS = 3.0
# FWHM^2 that a variance of the position adds, px^2 each.
FWHM2 = 8 * np.log(2)
# Variance that resampling adds along an axis, px^2: a demosaic by (1, 2, 1) / 4; Lanczos-3 adds none worth it.
DEMOSAIC = 0.5
# Stars whose width is known to so much count.
FWHM_ERROR, FEWEST_STARS = 0.03, 5
MOST_STARS, DETECTION_SIGMA = 400, 5.0
# Blank sky: pixels below so many sigma, and not near brighter ones.
BLANK_SIGMA, BLANK_REACH, MESH = 4.0, 6, 64
# Noise is what varies within so many pixels, far less than a tile; the share of white noise that is.
BOX, BLOCK = 9, 128
# The mean of so many tiles takes away less than a fifth of what the image has beyond its halves.
FEWEST_TILES = 6
WHITE = 1 - 1 / BOX**2
# Frames whose pixels are left out for more than this are flagged (docs/method.md); so is a run.
REJECTED = 0.02
# A residual of star pairs by which stars would be 10 % broader, if it were misplacement and not noise: share of FWHM.
RESIDUAL = 0.2
# By so much the weights may scatter beyond what the FWHM of the frames asks for.
SCATTER = 0.05
# Most that stars may be longer than those of the median frame. ASSUME: the eye takes 1.1 for round.
ELONGATION = 0.05
ADVICE = {
    "fwhm_of_frames": "Stars are broader than the frames explain: look in registration.json for frames of large "
    "residual_px or of the method predicted, and leave out by scan.exclude those that are wrong.",
    "fwhm_of_plain_mean": "Stars are broader than in the plain mean of the same frames: rejection may take their "
    "cores. Raise tile_reconstruction.range_tolerance.",
    "background_rms": "The sky is noisier than the frames explain: look for a pattern in the difference of even.fits "
    "and odd.fits in outputs/planes, and compare with stacking.source: reconstruction.",
    "weight_stability": "Weights scatter more than seeing and noise ask for, and throw light away: use quality_model: "
    "physical, or weights.objective: depth.",
    "tile_lattice": "The grid of the tiles shows in the sky: raise tile.size_factor, and compare with the plain mean, "
    "which knows no tiles.",
    "rejected_share": "Much is rejected: scales of frames may be wrong (normalization.json), or clouds change within "
    "frames. Raise tile_reconstruction.kappa, and look at the REJ plane.",
    "registration_residual": "Star pairs do not fit well: lower registration.sigma for more stars, and look in "
    "registration.json for a lens that one transform does not describe.",
    "elongation": "Stars are longer than those of the frames: these are misplaced along one direction. Look at drift "
    "and rotation in registration.json.",
}


def check(name, value, limit, error=0.0):
    """A check: fails where the value exceeds the limit by more than its error tells; what is not known passes."""
    known = value is not None and np.isfinite(value) and np.isfinite(limit)
    threshold = float(limit + SIGMAS * (error if np.isfinite(error) else 0.0))
    ok = not known or bool(value <= threshold)
    advice = None if ok else ADVICE[name]
    return {
        "name": name,
        "value": rounded(value, 5) if known else None,
        "threshold": rounded(threshold, 5),
        "ok": ok,
        "advice": advice if known else "Not known: too few stars or too little blank sky.",
    }


def star_table(image, saturation):
    """Stars of a single plane that are bright enough for their width; positions, FWHM and elongation."""
    level = np.float32(np.nanmedian(image))
    found = stars.find(
        np.ascontiguousarray(image - level, np.float32),
        None,
        sigma=DETECTION_SIGMA,
        max_stars=MOST_STARS,
        saturation=None if saturation is None else saturation - level,
    )
    good = (found["flags"] == 0) & (found["fwhm_error"] < FWHM_ERROR * found["fwhm"])
    return {key: found[key][good] for key in ("x", "y", "fwhm", "elongation")}


def centre(values):
    """Median and its standard error, of a normal distribution; NaN of too few."""
    if len(values) < FEWEST_STARS:
        return np.nan, np.nan
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle))
    return float(middle), float(1.2533 * spread / np.sqrt(len(values)))


def paired(one, other):
    """Median ratio of the FWHM of stars in both of two tables, and its error."""
    if not len(one["x"]) or not len(other["x"]):
        return np.nan, np.nan
    distance = np.hypot(one["x"][:, None] - other["x"], one["y"][:, None] - other["y"])
    nearest = distance.argmin(1)
    near = distance[np.arange(len(nearest)), nearest] < 1.0
    return centre(one["fwhm"][near] / other["fwhm"][nearest[near]])


def broadened(fwhm, error_px, resampling):
    """FWHM of a star after misplacement and resampling with variances along an axis, px and px^2."""
    return np.sqrt(fwhm**2 + FWHM2 * (error_px**2 + resampling))


def blank(image, frames):
    """Pixels of empty sky that as many frames as usual reach: (h, w) bool."""
    known = np.isfinite(image) & (frames >= np.median(frames[frames > 0]))
    filled = np.ascontiguousarray(np.where(known, image, np.nanmedian(image)), np.float32)
    sky = sep.Background(filled, mask=~known, bw=MESH, bh=MESH)
    bright = known & (filled - sky.back() > BLANK_SIGMA * sky.globalrms)
    bright = ndimage.binary_opening(bright, np.ones((2, 2)))  # lone pixels are noise: without them it would be less
    return known & ~ndimage.binary_dilation(bright, iterations=BLANK_REACH)


def high_passed(image, usable):
    """Image less its mean over BOX pixels, float32; NaN where a pixel of the box is not usable."""
    whole = ndimage.minimum_filter(usable, BOX, mode="constant")
    flat = np.where(usable, image - np.median(image[usable][::97]), 0.0).astype(np.float32)
    return np.where(whole, flat - ndimage.uniform_filter(flat, BOX), np.float32(np.nan))


def folded(image, usable, pitch):
    """What repeats at the pitch, as the mean over tiles: (h, w); 0 where fewer than FEWEST_TILES have the place."""
    y, x = (np.arange(n) % pitch for n in image.shape)
    place = (y[:, None] * pitch + x).ravel()
    n, total = (
        np.bincount(place, np.where(usable, values, 0.0).ravel(), pitch**2) for values in (usable, np.nan_to_num(image))
    )
    return np.where(n >= FEWEST_TILES, total / np.maximum(n, 1), 0.0)[place].reshape(image.shape)


def excess_noise(image, even, odd, variance, usable, pitch):
    """Standard deviation of the sky over that of its variance plane, and its error.

    Halves E and O tell the noise without the sky: a (1 - a) (E - O)^2, a being the share of the even half, by
    regression of the image on both around each pixel. What the image has beyond a E + (1 - a) O counts too, but for
    what repeats with the tiles, which ``tile_lattice`` judges.
    """
    usable = usable & np.isfinite(even + odd)
    if not usable.any():
        return np.nan, np.nan
    image = image - folded(image - (even + odd) / 2, usable, pitch)
    image, even, odd = (high_passed(values, usable) for values in (image, even, odd))
    known = np.isfinite(image) & np.isfinite(even) & np.isfinite(odd) & (variance > 0)
    image, even, odd = (np.where(known, values, np.float32(0)) for values in (image, even, odd))
    apart = even - odd
    power = ndimage.uniform_filter(apart * apart, BLOCK // 2)
    share = ndimage.uniform_filter(apart * (image - odd), BLOCK // 2) / np.maximum(power, np.float32(1e-30))
    share = np.clip(share, 0, 1)
    # Noise of the halves, and what the image has beyond their sum.
    found = share * (1 - share) * apart**2 + image**2 - (share * even + (1 - share) * odd) ** 2
    ratio = np.where(known, found / np.where(known, variance, np.float32(1)) / np.float32(WHITE), np.float32(0))
    sums, counts = (_blocks(values) for values in (ratio, known))
    full = counts > 0.2 * BLOCK**2
    if full.sum() < 4:
        full = counts > 0
    if not full.any():
        return np.nan, np.nan
    means = sums[full] / counts[full]
    error = means.std() / np.sqrt(len(means)) if len(means) > 1 else np.sqrt(2 / counts.sum())
    value = np.sqrt(max(np.average(means, weights=counts[full]), 0.0))
    return float(value), float(error / (2 * max(value, 0.1)))


def _blocks(values):
    """Sums over blocks of BLOCK pixels."""
    h, w = values.shape
    padded = np.pad(values.astype(float), ((0, -h % BLOCK), (0, -w % BLOCK)))
    return padded.reshape(padded.shape[0] // BLOCK, BLOCK, -1, BLOCK).sum((1, 3)).ravel()


def lattice_pattern(image, variance, usable, pitch):
    """Variance of what repeats at the pitch of the tiles, in units of that of a pixel, and its error.

    The power at the harmonics of the pitch over that at the modes around them; below 0.35 cycles a pixel.
    """
    h, w = (n // pitch * pitch for n in image.shape)
    if min(h, w) < 4 * pitch:  # of three tiles the modes around the harmonics are the harmonics themselves
        return np.nan, np.nan
    top, left = ((n - m) // 2 for n, m in zip(image.shape, (h, w), strict=True))
    inner = (slice(top, top + h), slice(left, left + w))
    known = usable[inner]
    cut = np.where(known, image[inner] / np.sqrt(variance[inner]), 0.0).astype(np.float32)
    mesh = int(1.37 * pitch)  # no multiple of the pitch: the model must not follow the tiles
    sky = sep.Background(np.ascontiguousarray(cut), mask=~known, bw=mesh, bh=mesh)
    flat = np.where(known, np.clip(cut - sky.back(), -5, 5), 0.0)
    power = np.abs(np.fft.rfft2(flat)) ** 2
    fy, fx = np.arange(h)[:, None], np.arange(power.shape[1])[None]
    at = (fy % (h // pitch) == 0) & (fx % (w // pitch) == 0)
    at[0, 0] = False
    # The modes 2 and 3 steps off: one step off is what a lattice under a mask spills into.
    near = ndimage.maximum_filter(at, 7) & ~ndimage.maximum_filter(at, 3)
    low = np.hypot(np.minimum(fy, h - fy) / h, fx / w) < 0.35
    n = 2 * int((at & low).sum())  # both signs of a frequency
    around = power[near & low].mean()
    scale = n / max(known.sum(), 1) ** 2
    return float(scale * (power[at & low].mean() - around)), float(scale * around * np.sqrt(2 / n))


def tile_lattice(image, plain, variance, usable, pitch):
    """Standard deviation of the tile pattern in units of the noise of a pixel, and the limit with what noise makes.

    Measured on the image less the plain mean, which knows no tiles: nebulae have power at all scales. A pattern just
    shows that equals the noise of the mean over a patch of a quarter of a tile.
    """
    found, error = lattice_pattern(image - plain, variance, usable, pitch)
    if not np.isfinite(found):
        return np.nan, 4 / pitch
    return np.sqrt(max(found, 0.0)), np.sqrt((4 / pitch) ** 2 + SIGMAS * error)


def of_weights(frames, objective):
    """Share of the squared S/N of extended light that the weights of whole frames give up; and what they may.

    With weights that follow FWHM^-p this is 1 - exp(-p^2 s^2), s being the rms of ln FWHM (docs/method.md).
    """
    weight, variance, fwhm = frames["weight"], frames["variance"], frames["fwhm"]
    given_up = 1 - weight.sum() ** 2 / ((weight**2 * variance).sum() * (1 / variance).sum())
    known = np.isfinite(fwhm)
    spread = np.average((np.log(fwhm[known]) - np.log(fwhm[known]).mean()) ** 2) if known.any() else 0.0
    return float(given_up), float(1 - np.exp(-(EXPONENTS[objective] ** 2) * spread) + SCATTER)
