"""Robust statistics. Lean: numpy only."""

import numpy as np

# Standard deviation of a normal distribution that is cut off at 3 sigma.
CUT_AT_3 = 0.98658


def spread(values):
    """Standard deviation by the median absolute deviation from the median; NaN of nothing."""
    return 1.4826 * np.median(np.abs(values - np.median(values))) if len(values) else np.nan


def sample(image):
    """About a million of the pixels that have data, (n,) float64; the step is odd, so that they are of all colours of a
    mosaic."""
    values = image.ravel()[:: image.size // 1_000_000 | 1]
    return values[np.isfinite(values)].astype(float)
