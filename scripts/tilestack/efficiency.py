"""How close a stack is to the best there is, by formula. Lean: numpy only."""

import numpy as np

from tilestack import records
from tilestack.records import rounded


def extended(weight, variance):
    """eta_sb = (sum w)^2 / (sum w^2 v x sum 1 / v): squared S/N of extended light over the best."""
    return float(weight.sum() ** 2 / ((weight**2 * variance).sum() * (1 / variance).sum()))


def point(weight, variance, fwhm):
    """eta_pt: squared S/N of a star in the stack under a matched filter, over the sum of those in the frames.

    Parameters
    ----------
    weight, variance, fwhm : (n,) float64 arrays
        Weight, variance of a normalised raw pixel, and FWHM of the frames.

    Notes
    -----
    With Gaussian profiles the integral of P_i P_j is 4 ln 2 / (pi (FWHM_i^2 + FWHM_j^2)); the noise of the stack is
    taken as white. Zackay and Ofek 2017, doi:10.3847/1538-4357/836/2/187.
    """
    total = 0.0
    squares = fwhm**2
    for start in range(0, len(weight), 1000):
        part = slice(start, start + 1000)
        total += (weight[part, None] * weight[None] / (squares[part, None] + squares[None])).sum()
    return float(total / ((weight**2 * variance).sum() * (1 / (2 * squares * variance)).sum()))


def score(read, used, variance_ratio=1.0):
    """Efficiencies by formula, effective exposure, and where the rest went.

    Parameters
    ----------
    read : dict
        Records ``global_metrics``, ``reconstruction`` and ``registration``.
    used : list of dict
        Frames of the registration record that are in the stack.
    variance_ratio : float
        Variance of the reconstruction over that of the stack.

    Returns
    -------
    dict
        ``eta_sb``, ``eta_pt``, ``t_eff_s``, ``live_s``, ``fwhm_px``, ``waterfall``; null where not known.
    """
    frames = read["global_metrics"]["frames"]
    scale, noise, weight = (records.array([f[key] for f in frames]).mean(1) for key in ("scale", "noise_adu", "weight"))
    fwhm = records.array([f["fwhm_px"] for f in frames])
    fwhm = np.where(np.isfinite(fwhm), fwhm, np.nanmedian(fwhm))
    area = records.array([f["area"] for f in frames])
    variance = noise**2 * area / scale**2
    by_weights, rejected = extended(weight, variance), read["reconstruction"]["rejected_share"]
    exposures = [f["exposure_s"] for f in used]
    live = sum(exposures) if all(exposures) else None
    listed = [f for f in read["registration"]["frames"] if f["status"] != "excluded"]
    lost = 1 - len(used) / len(listed)
    seen = read["reconstruction"]["summary"]["mean_frames"] / max(1 - rejected, 1e-9)
    eta_sb = read["reconstruction"]["eta_sb"] * variance_ratio
    return {
        "eta_sb": rounded(eta_sb, 4),
        "eta_pt": rounded(point(weight, variance, fwhm) * (1 - rejected) * variance_ratio, 4),
        "t_eff_s": rounded(eta_sb * live, 5) if live else None,
        "live_s": live,
        "fwhm_px": rounded((weight * fwhm).sum() / weight.sum(), 4),
        "waterfall": [
            {"cause": "registration", "share": rounded(lost, 4)},
            {"cause": "weights", "share": rounded(1 - by_weights, 4)},
            {"cause": "rejection", "share": rounded(rejected, 4)},
            {"cause": "synthetic frames", "share": rounded(1 - variance_ratio, 4)},
            # Of the canvas, which holds all frames: what dithers and rotation leave to some frames only.
            {"cause": "coverage", "share": rounded(1 - seen / max(len(used), 1), 4)},
        ],
    }
