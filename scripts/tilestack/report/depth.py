"""How the S/N of the stack grows with time, and the most that its frames allow."""

import numpy as np

from tilestack import records

POINTS = 60


def curves(frames):
    """S/N over exposure, frames in the order given, each relative to a single frame of median quality.

    Formula values, as in STACKING: extended light `sum w / sqrt(sum w^2 v)`, stars with Gaussian profiles under a
    matched filter (Zackay and Ofek 2017, doi:10.3847/1538-4357/836/2/187), ceilings with the weights best for each.

    Parameters
    ----------
    frames : list of dict
        Of global_metrics.json.

    Returns
    -------
    dict
        ``x`` (exposure in s, or frames where an exposure is unknown), ``unit``, and for ``extended`` and ``stars`` the
        curves ``ceiling``, ``stack``, ``mean``.
    """
    scale, noise, weight = (records.array([f[key] for f in frames]).mean(1) for key in ("scale", "noise_adu", "weight"))
    fwhm, area = (records.array([f[key] for f in frames]) for key in ("fwhm_px", "area"))
    fwhm = np.where(np.isfinite(fwhm), fwhm, np.nanmedian(fwhm))
    variance = noise**2 * area / scale**2
    exposures = [f["exposure_s"] for f in frames]
    timed = all(exposures)
    x = np.cumsum(exposures) if timed else np.arange(1, len(frames) + 1)
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(POINTS, len(frames))).round().astype(int))
    ones = np.ones(len(frames))
    extended = {
        "ceiling": np.sqrt(np.cumsum(1 / variance)),
        "stack": np.cumsum(weight) / np.sqrt(np.cumsum(weight**2 * variance)),
        "mean": np.cumsum(ones) / np.sqrt(np.cumsum(variance)),
    }
    stars = {
        "ceiling": np.sqrt(np.cumsum(1 / (variance * 2 * fwhm**2))),
        "stack": filtered(weight, variance, fwhm),
        "mean": filtered(ones, variance, fwhm),
    }
    one_extended, one_star = np.median(1 / np.sqrt(variance)), np.median(1 / np.sqrt(variance * 2 * fwhm**2))
    return {
        "x": x[chosen],
        "unit": "s" if timed else "frames",
        "extended": {key: curve[chosen] / one_extended for key, curve in extended.items()},
        "stars": {key: curve[chosen] / one_star for key, curve in stars.items()},
    }


def filtered(weight, variance, fwhm):
    """S/N of a star under a matched filter after each frame, up to the factor common to all curves."""
    pairs = weight[:, None] * weight[None, :] / (fwhm[:, None] ** 2 + fwhm[None, :] ** 2)
    # Sum over the first n rows and columns: what row n adds below the diagonal, twice, and the diagonal.
    added = 2 * np.tril(pairs, -1).sum(1) + np.diag(pairs)
    return np.sqrt(np.cumsum(added) / np.cumsum(weight**2 * variance))


def waterfall(read, rows):
    """What becomes of all light found, step by step: list of (cause, share of what was left, left after it)."""
    known = [row["exposure_s"] or 1.0 for row in rows]
    left_out = sum(e for e, row in zip(known, rows, strict=True) if row["left_out"])
    excluded = left_out / max(sum(known), 1e-9)
    steps, left = [], 1.0
    for cause, share in [("excluded", excluded), *((s["cause"], s["share"]) for s in read["stacking"]["waterfall"])]:
        if cause == "coverage" or share is None:
            continue
        left *= 1 - share
        steps.append((cause, share, left))
    return steps
