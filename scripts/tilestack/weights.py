"""Weights of frames, as wholes and as fields over the tiles. Lean: numpy only."""

import numpy as np

from tilestack import robust

EXPONENTS = {"depth": 0.0, "balanced": 1.0, "sharp": 3.0}


def physical(scale, variance, fwhm, objective):
    """Weight t^2 / sigma^2 x FWHM^-p of normalised pixels.

    Parameters
    ----------
    scale : array
        Photometric scale t.
    variance : array, ADU^2
        Of a raw sky pixel, not normalised.
    fwhm : array, lattice pixels
        NaN counts as no knowledge: the median of the rest.
    objective : str
        ``depth``, ``balanced`` or ``sharp``: p = 0, 1, 3.
    """
    return scale**2 / variance * typical_where_unknown(fwhm) ** -EXPONENTS[objective]


def typical_where_unknown(fwhm):
    """FWHM with the median of the rest in place of NaN; 1 where none is known."""
    known = fwhm[np.isfinite(fwhm)]
    return np.where(np.isfinite(fwhm), fwhm, np.median(known) if known.size else 1.0)


def smeared(fwhm, error_px, pixel_px):
    """FWHM of a star as it gets into the stack: behind the raw pixels, and placed with an error.

    Fits give the FWHM in front of the pixels, but noise is met behind them: a star twice as sharp as its pixels allow
    is not worth twice as much.

    Parameters
    ----------
    fwhm : array, lattice pixels
    error_px : array, lattice pixels
        Of the place of the frame, rms along each axis; NaN counts as none.
    pixel_px : array, lattice pixels
        Side of a raw pixel, whose variance along each axis is a twelfth of its square.
    """
    return np.sqrt(fwhm**2 + 2.355**2 * (np.nan_to_num(error_px) ** 2 + pixel_px**2 / 12))


def robust_z(values):
    """Standard scores by median and 1.4826 MAD, 0 where unknown; the MAD has a floor of 1e-3 of the median."""
    values = np.asarray(values, float)
    known = values[np.isfinite(values)]
    if not known.size:
        return np.zeros_like(values)
    centre = np.median(known)
    spread = max(robust.spread(known), 1e-3 * abs(centre), 1e-12)
    return np.where(np.isfinite(values), (values - centre) / spread, 0.0)


def zscore_global(background, noise, energy):
    """Global score of the ``zscore`` model: 0.4 (-z(B)) + 0.3 (-z(sigma)) + 0.3 z(E), clipped to +-3."""
    return np.clip(-0.4 * robust_z(background) - 0.3 * robust_z(noise) + 0.3 * robust_z(energy), -3, 3)


def zscore_local(fwhm, roundness, contrast, energy, background, with_stars):
    """Local score of the ``zscore`` model, clipped to +-3.

    Tiles with stars: 0.6 (-z(FWHM)) + 0.2 z(roundness) + 0.2 z(contrast); others: 0.7 z(energy) - 0.3 z(background).

    Parameters
    ----------
    fwhm, roundness, contrast, energy, background : arrays of one shape
        Of tiles of frames; energy over noise. Scores are over all of them.
    with_stars : bool array
    """
    stars = 0.6 * -robust_z(fwhm) + 0.2 * robust_z(roundness) + 0.2 * robust_z(contrast)
    structure = 0.7 * robust_z(energy) - 0.3 * robust_z(background)
    return np.clip(np.where(with_stars, stars, structure), -3, 3)


def shrunk(estimate, error, variance=None):
    """Local deviations drawn towards zero by as much as their errors ask for.

    Parameters
    ----------
    estimate, error : arrays
        Deviation of a local logarithm from the frame's, and its standard error; NaN where there is none.
    variance : float, optional
        Variance of the true deviations; by default measured: mean square of the estimates less that of the errors.

    Returns
    -------
    field : array
        ``lambda x estimate`` with lambda = variance / (variance + error^2); 0 where there is no estimate.
    variance : float

    Notes
    -----
    Empirical Bayes (Efron and Morris 1975): with the true variance no other linear rule has a smaller mean error, so a
    local weight is on average never worse than the frame's.
    """
    known = np.isfinite(estimate) & np.isfinite(error) & (error > 0)
    if variance is None:
        variance = 0.0
        if known.sum() >= 10:
            # Few arrays at a time: the tiles of all frames of a session take much memory.
            noise = error[known] ** 2
            beyond = estimate[known] ** 2 - noise
            # Iterated: each estimate counts by how much it says about the variance.
            for _ in range(20):
                weight = (noise + variance) ** -2.0
                total = weight.sum()
                weight *= beyond
                variance = max(0.0, float(weight.sum() / total))
            del noise, beyond, weight
    field = np.where(known, error, 1.0)
    field *= field
    field += variance
    np.divide(variance, field, out=field)
    field *= np.where(known, estimate, 0.0)
    return field, variance
