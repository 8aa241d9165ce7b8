"""Robust statistics. Lean: numpy only."""

import numpy as np

# Standard deviation of a normal distribution that is cut off at 3 sigma.
CUT_AT_3 = 0.98658


def spread(values):
    """Standard deviation by the median absolute deviation from the median; NaN of nothing."""
    return 1.4826 * np.median(np.abs(values - np.median(values))) if len(values) else np.nan
