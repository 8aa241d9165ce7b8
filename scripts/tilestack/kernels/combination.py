"""Kernel of the synthetic frames: their weighted sum."""

import numpy as np

from tilestack.kernels import entry


def weighted_sum(values, weights):
    """Sum of values times weights along the first axis; what has no weight may be anything.

    Parameters
    ----------
    values, weights : (n, c, h, w) arrays
        Float64, and float64 or bool.

    Returns
    -------
    (c, h, w) float64 array
    """
    if values.shape != weights.shape or values.ndim != 4:
        raise ValueError(f"need two arrays (n, c, h, w), got {values.shape} and {weights.shape}")
    out = np.zeros(values.shape[1:])
    _weighted_sum(values, weights, out)
    return out


@entry()
def _weighted_sum(values, weights, out):
    n, n_channels, h, w = values.shape
    for row in range(n_channels * h):
        c, y = row // h, row % h
        line = out[c, y]
        for k in range(n):
            of_line, weight = values[k, c, y], weights[k, c, y]
            for x in range(w):
                line[x] += of_line[x] * weight[x] if weight[x] > 0 else 0.0
