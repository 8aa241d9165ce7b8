"""How close a stack is to the best there is, by formula. Lean: numpy only."""

import numpy as np


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
    With Gaussian profiles the integral of P_i P_j is 4 ln 2 / (pi (FWHM_i^2 + FWHM_j^2)); the noise of the stack is taken
    as white. Zackay and Ofek 2017, doi:10.3847/1538-4357/836/2/187.
    """
    total = 0.0
    squares = fwhm**2
    for start in range(0, len(weight), 1000):
        part = slice(start, start + 1000)
        total += (weight[part, None] * weight[None] / (squares[part, None] + squares[None])).sum()
    return float(total / ((weight**2 * variance).sum() * (1 / (2 * squares * variance)).sum()))
