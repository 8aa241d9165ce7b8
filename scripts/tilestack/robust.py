"""Robust statistics. Lean: numpy only."""

import numpy as np

# Standard deviation of a normal distribution that is cut off at 3 sigma.
CUT_AT_3 = 0.98658
# Values behind the medians from which clipping starts: what it ends at does not depend on them.
START_SAMPLE = 4096


def spread(values):
    """Standard deviation by the median absolute deviation from the median; NaN of nothing."""
    return 1.4826 * np.median(np.abs(values - np.median(values))) if len(values) else np.nan


def clipped(values):
    """Mean and standard deviation of the values within 3 sigma of their mean, from a start by medians.

    Unlike medians they do not jump from step to step where a converter has coarse ones. NaN of nothing.
    """
    if not len(values):
        return np.nan, np.nan
    some = values[:: max(1, len(values) // START_SAMPLE)]
    centre, sigma = np.median(some), spread(some)
    for _ in range(8):
        kept = values[np.abs(values - centre) <= 3 * sigma]
        if len(kept) < 8:
            break
        before, centre, sigma = centre, kept.mean(), kept.std() / CUT_AT_3
        if abs(centre - before) < 1e-4 * sigma:
            break
    return float(centre), float(sigma)


def pixel_noise(rows):
    """Standard deviation of a pixel, by differences of neighbours in a row: gradients and nebulae drop out.

    Parameters
    ----------
    rows : (n, m) array
        Pixels of one colour; NaN marks no data.
    """
    differences = (rows[:, 1:] - rows[:, :-1]).ravel()
    return clipped(differences[np.isfinite(differences)])[1] / np.sqrt(2)
