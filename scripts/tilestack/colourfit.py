"""PCC: gains of the colours, and zero points, from star colours against those of a catalogue.

Each star gives m = 2.5 log10(F / F_green); m = a + s (C - C_white) with C = B - V. Colours of the
catalogue are first shrunk to their mean by their errors, which so do not flatten the line, and the slope has a Gaussian
prior: sensors of one kind differ by less than few stars with poor colours can tell.
"""

import numpy as np
from scipy.optimize import minimize_scalar

from tilestack import robust

# B - V of what becomes white: the Sun's type; mean of the medians of Sa, Sb, Sc and Sd galaxies (Roberts and Haynes
# 1994, doi:10.1146/annurev.aa.32.090194.000555, table 1).
WHITE_B_V = {"G2V": 0.65, "average_spiral": 0.61}
# Slopes of red over green and blue over green by B - V at 0.65, Pickles' stars through the curves of colour sensors.
SLOPES = {"canon": (0.43, -0.52), "sony": (0.49, -0.65)}
SLOPE_RMS = 0.06
# Of a single channel against V nothing is known but that it is near it.
CHANNEL_SLOPE, CHANNEL_SLOPE_RMS = 0.0, 0.3
# Scatter of stars of one B - V: their spectra differ. Mag, of Pickles' dwarfs and giants.
INTRINSIC = 0.03
CLIP, ROUNDS = 2.5, 3
# Least scatter of the colours in a field, mag. ASSUME: stars of any field differ by more.
LEAST_SCATTER = 0.2
ENOUGH, LEAST = 10, 5


def slopes_of(camera):
    """Prior slopes for a camera by its name: Canon's sensors, else Sony's."""
    return SLOPES["canon" if "canon" in (camera or "").lower() else "sony"]


def grade(n_stars):
    """OK from ENOUGH stars, LOW from LEAST, else FAIL."""
    return "OK" if n_stars >= ENOUGH else "LOW" if n_stars >= LEAST else "FAIL"


def fit(m, m_error, colour, colour_error, *, slope, slope_rms, white):
    """Fit m = a + s (colour - white), clipped, with a prior on s.

    Parameters
    ----------
    m, m_error, colour, colour_error : (n,) float64 arrays, mag
        n >= LEAST.
    slope, slope_rms : float
        Prior.
    white : float
        Colour at which a holds.

    Returns
    -------
    dict
        ``a`` at ``white``, ``a_error``, ``slope``, ``slope_of_stars`` (without prior), ``scatter`` (robust, mag),
        ``kept`` ((n,) bool).
    """
    colour, colour_error = shrunk(colour, colour_error)
    x = colour - white
    base = np.hypot(m_error, INTRINSIC)
    s = np.clip(_theil_sen(x, m), slope - 3 * slope_rms, slope + 3 * slope_rms) if len(m) >= ENOUGH else slope
    a, kept = np.median(m - s * x), np.ones(len(m), bool)
    for _ in range(ROUNDS):
        sigma = np.hypot(base, s * colour_error)
        normal = (m - a - s * x) / sigma
        kept = np.abs(normal) <= CLIP * max(robust.spread(normal), 1.0)
        a, s = _map(x[kept], m[kept], base[kept], colour_error[kept], slope, slope_rms)
    residual = (m - a - s * x)[kept]
    weight = 1 / (base**2 + (s * colour_error) ** 2)[kept]
    mean = (weight * x[kept]).sum() / weight.sum()
    curvature = (weight * (x[kept] - mean) ** 2).sum() + 1 / slope_rms**2
    return {
        "a": float(a),
        "white": white,
        "a_error": float(np.sqrt(1 / weight.sum() + mean**2 / curvature)),
        "slope": float(s),
        "slope_of_stars": float(_map(x[kept], m[kept], base[kept], colour_error[kept], slope, 1e3)[1]),
        "scatter": float(max(robust.spread(residual), 0.0)),
        "kept": kept,
    }


def shrunk(colour, error):
    """Colours as they most likely are, and their errors, when stars of a field scatter about a mean by a normal law.

    An error in a colour flattens a line through it; the colour that is expected behind a measured one does not (Gelman
    et al. 2013, Bayesian Data Analysis, ch. 5).
    """
    weight = 1 / (error**2 + np.var(colour))
    mean = (weight * colour).sum() / weight.sum()
    within = max(float(np.mean((colour - mean) ** 2 - error**2)), LEAST_SCATTER**2)
    share = within / (within + error**2)
    return mean + share * (colour - mean), error * np.sqrt(share)


def _map(x, m, base, colour_error, slope, slope_rms):
    """Offset and slope of the highest posterior."""

    def offset(s):
        weight = 1 / (base**2 + (s * colour_error) ** 2)
        return (weight * (m - s * x)).sum() / weight.sum()

    def minus_log(s):
        variance = base**2 + (s * colour_error) ** 2
        return (
            0.5 * ((m - offset(s) - s * x) ** 2 / variance + np.log(variance)).sum()
            + 0.5 * ((s - slope) / slope_rms) ** 2
        )

    width = min(5 * slope_rms, 2.0)
    s = minimize_scalar(minus_log, bounds=(slope - width, slope + width), method="bounded", options={"xatol": 1e-6}).x
    return float(offset(s)), float(s)


def _theil_sen(x, m):
    i, j = np.triu_indices(len(x), 1)
    apart = np.abs(x[i] - x[j]) > 0.05
    return np.median((m[i] - m[j])[apart] / (x[i] - x[j])[apart]) if apart.any() else np.nan


def gains(stars, camera, white):
    """Gains of red, green and blue that make white stars white.

    Parameters
    ----------
    stars : dict
        ``flux``, ``flux_error`` ((n, 3), ADU), ``b_v``, ``b_v_error`` ((n,), mag), good ones only.
    camera : str or None
    white : float
        B - V of white.

    Returns
    -------
    dict
        ``gains`` (3), ``fits`` (two of ``fit``, red and blue over green), ``grade``, ``kept`` ((n,) bool).
    """
    n = len(stars["b_v"])
    if n < LEAST:
        return {"gains": [1.0, 1.0, 1.0], "fits": [], "grade": grade(n), "kept": np.zeros(n, bool)}
    fits = []
    for channel, slope in zip((0, 2), slopes_of(camera), strict=True):
        m = 2.5 * np.log10(stars["flux"][:, channel] / stars["flux"][:, 1])
        share = stars["flux_error"][:, [channel, 1]] / stars["flux"][:, [channel, 1]]
        error = 1.0857 * np.hypot(share[:, 0], share[:, 1])
        fits.append(fit(m, error, stars["b_v"], stars["b_v_error"], slope=slope, slope_rms=SLOPE_RMS, white=white))
    kept = fits[0]["kept"] & fits[1]["kept"]
    worst = min(int(one["kept"].sum()) for one in fits)
    found = [10 ** (-0.4 * fits[0]["a"]), 1.0, 10 ** (-0.4 * fits[1]["a"])]
    if worst < LEAST:
        return {"gains": [1.0, 1.0, 1.0], "fits": fits, "grade": "FAIL", "kept": kept}
    return {"gains": found, "fits": fits, "grade": grade(worst), "kept": kept}


def zero_points(stars, exposure_s, white):
    """V magnitude of a white star that gives one ADU a second, by channel; null with too few stars or no exposure."""
    points = []
    for flux, error in zip(stars["flux"].T, stars["flux_error"].T, strict=True):
        if not exposure_s or len(flux) < LEAST:
            points.append(None)
            continue
        m = stars["v"] + 2.5 * np.log10(flux / exposure_s)
        one = fit(
            m,
            1.0857 * error / flux,
            stars["b_v"],
            stars["b_v_error"],
            slope=CHANNEL_SLOPE,
            slope_rms=CHANNEL_SLOPE_RMS,
            white=white,
        )
        points.append(one["a"])
    return points


def applied(image, gain, sky, level, saturated):
    """Calibrated image: gains about the sky, the sky at one level in all channels, saturated cores neutral.

    Parameters
    ----------
    image : (3, h, w) float32 array, ADU
    gain, sky : (3,) float arrays
    level : float
        Sky of the result, ADU.
    saturated : (h, w) float array
        0 where no channel comes near saturation, 1 where one is there.

    Returns
    -------
    (3, h, w) float32 array
        Linear, also below the sky. Of a saturated core all channels get the brightest one's value.
    """
    gain, sky = (np.asarray(values, np.float32)[:, None, None] for values in (gain, sky))
    result = (image - sky) * gain + np.float32(level)
    core = saturated > 0
    share = saturated[core].astype(np.float32)
    result[:, core] = result[:, core] * (1 - share) + result[:, core].max(0) * share
    return result


def colour_check(stars, gain):
    """Slope and scatter of -2.5 log10(B / R) of calibrated fluxes over BT - VT; nulls with too few stars."""
    if len(stars["b_v"]) < LEAST:
        return {"n_stars": len(stars["b_v"]), "slope": None, "at_white_mag": None, "scatter_mag": None}
    ratio = -2.5 * np.log10(stars["flux"][:, 2] * gain[2] / (stars["flux"][:, 0] * gain[0]))
    tycho = stars["b_v"] / 0.850
    slope = _theil_sen(tycho, ratio)
    level = np.median(ratio - slope * (tycho - WHITE_B_V["G2V"] / 0.850))
    residual = ratio - level - slope * (tycho - WHITE_B_V["G2V"] / 0.850)
    return {
        "n_stars": len(tycho),
        "slope": float(slope),
        "at_white_mag": float(level),
        "scatter_mag": float(robust.spread(residual)),
    }
