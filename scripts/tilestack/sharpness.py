"""FWHM of tiles without stars, from how much of the sky's small structure a frame shows there. Lean: numpy only."""

import numpy as np

# Tiles and frames that calibrate structure against seeing, and the significance of what they say.
FEWEST_TILES, FEWEST_FRAMES, LEAST_SIGMA = 10, 8, 4.0
LEAST_SNR = 5.0


def from_structure(slope, error, ln_scale, ln_fwhm):
    """Local deviations of ln FWHM from the frame's, by the structure of tiles.

    Broader stars flatten the structure: a frame's slope on the template falls as FWHM^-p times its scale. The exponent
    depends on the field, so the session's own frames give it: slopes of whole frames against their FWHM.

    Parameters
    ----------
    slope, error : (n, c, ny, nx) float64 arrays
        From ``local.structure``.
    ln_scale : (n, c, ny, nx) float64 array
        Logarithm of the scale field.
    ln_fwhm : (n,) float64 array
        Logarithm of the FWHM of the frames.

    Returns
    -------
    deviation, its_error : (n, ny, nx) float64 arrays
        NaN where there is too little structure, and all NaN where the frames do not settle the exponent.
    exponent : float
        NaN where it is not settled.
    """
    n, n_channels, *shape = slope.shape
    nothing = np.full((n, *shape), np.nan)
    if n < FEWEST_FRAMES:
        return nothing, nothing, np.nan
    # Channel by channel, as the tiles of all frames take much memory. Of each the tiles that all frames show, so that
    # what lies in the same places drops out.
    common, pattern, weight = (np.empty((n_channels, *shape), dtype) for dtype in (bool, float, float))
    whole = np.zeros(n)
    for c in range(n_channels):
        logs, spread = _logs(slope[:, c], error[:, c], ln_scale[:, c])
        common[c] = np.isfinite(spread).all(0)
        weight[c] = common[c] / np.where(common[c], (spread**2).mean(0), 1.0)
        pattern[c] = np.where(common[c], logs.mean(0), 0.0)
        whole += (weight[c] * np.where(common[c], logs - pattern[c], 0.0)).sum((1, 2))
    if common.sum() < FEWEST_TILES:
        return nothing, nothing, np.nan
    whole /= weight.sum()
    seeing = ln_fwhm - np.nanmean(ln_fwhm)
    known = np.isfinite(seeing)
    power = (seeing[known] ** 2).sum()
    exponent = -(whole[known] * seeing[known]).sum() / max(power, 1e-30)
    scatter = (whole + exponent * seeing)[known].std()
    if exponent * np.sqrt(power) < LEAST_SIGMA * scatter:
        return nothing, nothing, np.nan
    total, deviation = np.zeros((n, *shape)), np.zeros((n, *shape))
    for c in range(n_channels):
        logs, spread = _logs(slope[:, c], error[:, c], ln_scale[:, c])
        with np.errstate(invalid="ignore", divide="ignore"):
            its_own = -(logs - pattern[c] - whole[:, None, None]) / exponent
            precision = np.where(np.isfinite(its_own) & common[c], (exponent / spread) ** 2, 0.0)
        total += precision
        deviation += precision * np.nan_to_num(its_own)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation, its_error = deviation / total, total**-0.5
    return np.where(total > 0, deviation, np.nan), np.where(total > 0, its_error, np.nan), float(exponent)


def _logs(slope, error, ln_scale):
    """Logarithm of the slopes of a channel without the scale, and its error; NaN where a slope is not significant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        good = (slope > LEAST_SNR * error) & np.isfinite(error)
        logs = np.where(good, np.log(np.where(good, slope, 1.0)) - ln_scale, np.nan)
        return logs, np.where(good, error / slope, np.nan)


def error_by_stars(deviation, its_error, of_stars, error_of_stars):
    """Errors of what structure says of the FWHM, by how it agrees with stars in the same tiles.

    The error of a slope knows of noise alone. But a tile whose structure is one bright star follows another power of
    the FWHM than the field, and none holds for a frame much sharper than the template: so what structure and stars
    differ by beyond their errors counts as an error of structure, everywhere.

    Parameters
    ----------
    deviation, its_error, of_stars, error_of_stars : (n, ny, nx) float64 arrays
        By structure and by stars; NaN where unknown.

    Returns
    -------
    (n, ny, nx) float64 array
        NaN everywhere where fewer than FEWEST_TILES have both: then nothing vouches for structure.
    """
    beyond = (deviation - of_stars) ** 2 - its_error**2 - error_of_stars**2
    known = np.isfinite(beyond)
    if known.sum() < FEWEST_TILES:
        return np.full(deviation.shape, np.nan)
    return np.sqrt(its_error**2 + max(0.0, float(beyond[known].mean())))


def combined(one, its_error, other, other_error):
    """Mean of two estimates by their errors; where one is NaN the other counts."""
    a, b = (
        np.where(np.isfinite(e) & np.isfinite(v), e**-2.0, 0.0) for v, e in ((one, its_error), (other, other_error))
    )
    total = a + b
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (a * np.nan_to_num(one) + b * np.nan_to_num(other)) / total
        return np.where(total > 0, mean, np.nan), np.where(total > 0, total**-0.5, np.nan)
