"""Relative photometry: the scale of each frame and the flux of each star, from the same stars in many frames."""

import numpy as np

# Scatter of well-exposed stars from frame to frame beyond the photon noise: scintillation, flat field, and the misfit
# of the profile at the star's place in its pixel. ASSUME 2 %; it keeps a few bright stars from deciding alone.
FLOOR = 0.02
ROUNDS = 30


def relative(frame, star, log_flux, variance, n_frames, n_stars, fixed=None, anchor=None):
    """Solve log flux = scale of the frame + brightness of the star, robustly.

    Parameters
    ----------
    frame, star : (m,) int arrays
        Which frame and star a measurement is of.
    log_flux, variance : (m,) float64 arrays
        Natural logarithm of the flux and its variance.
    n_frames, n_stars : int
    fixed : (n_stars,) float64 array, optional
        Known brightness; NaN where unknown. Then only the scales are solved, from stars that are known.
    anchor : int, optional
        Frame whose scale is 0; needed where nothing is fixed.

    Returns
    -------
    scale, scale_error : (n_frames,) float64 arrays
        NaN for a frame with fewer than 3 stars.
    brightness : (n_stars,) float64 array
        NaN for a star without measurements.
    used : (n_frames,) int array
        Stars behind each scale.

    Notes
    -----
    Alternating weighted means; weights fall off as in Tukey's biweight at 4.685 standard deviations of the scatter
    that the frame itself shows, so variable stars and misfits do not count.
    """
    variance = variance + FLOOR**2
    brightness = np.full(n_stars, np.nan) if fixed is None else np.array(fixed, float)
    scale = np.zeros(n_frames)
    if fixed is not None:
        known = np.isfinite(brightness[star])
        frame, star, log_flux, variance = frame[known], star[known], log_flux[known], variance[known]
        scale = _medians(log_flux - brightness[star], frame, n_frames)
    else:
        # Start: the brightness of a star is its median over frames that are brought level by their own medians.
        level = _medians(log_flux, frame, n_frames)
        for _ in range(3):
            brightness = _medians(log_flux - level[frame], star, n_stars)
            level = level + _medians(log_flux - level[frame] - brightness[star], frame, n_frames)
        scale = level
    robust = np.ones(len(frame))
    for _ in range(ROUNDS):
        weight = robust / variance
        if fixed is None:
            brightness = _means(log_flux - scale[frame], weight, star, n_stars)
        step = _means(log_flux - scale[frame] - brightness[star], weight, frame, n_frames)
        scale = scale + np.nan_to_num(step)
        residual = (log_flux - scale[frame] - brightness[star]) / np.sqrt(variance)
        spread = np.maximum(1.4826 * _medians(np.abs(residual), frame, n_frames), 1.0)
        distance = residual / (4.685 * spread[frame])
        robust = np.where(np.abs(distance) < 1, (1 - distance**2) ** 2, 0.0)
        if np.nanmax(np.abs(step), initial=0) < 1e-7:
            break
    weight = robust / variance
    total = np.bincount(frame, weight, n_frames)
    used = np.bincount(frame, robust > 0, n_frames).astype(int)
    enough = used >= 3
    scale_error = np.where(enough, spread / np.sqrt(np.maximum(total, 1e-30)), np.nan)
    scale = np.where(enough, scale, np.nan)
    if fixed is None:
        if not enough[anchor]:
            return scale * np.nan, scale_error * np.nan, brightness * np.nan, used
        brightness, scale = brightness + scale[anchor], scale - scale[anchor]
    return scale, scale_error, brightness, used


def _means(values, weight, group, n_groups):
    total = np.bincount(group, weight, n_groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.bincount(group, weight * values, n_groups) / np.where(total > 0, total, np.nan)


def _medians(values, group, n_groups):
    """Median of each group; NaN of an empty one."""
    medians = np.full(n_groups, np.nan)
    order = np.lexsort((values, group))
    values, group = values[order], group[order]
    starts = np.searchsorted(group, np.arange(n_groups + 1))
    for k in range(n_groups):
        part = values[starts[k] : starts[k + 1]]
        if len(part):
            medians[k] = (part[(len(part) - 1) // 2] + part[len(part) // 2]) / 2
    return medians
