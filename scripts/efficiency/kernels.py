"""Compiled parts of the injection: stars onto raw pixels."""

import math

import numpy as np
from numba import njit, prange

SUBPIXELS, REACH_FWHM = 5, 8.0


@njit(cache=True, parallel=True)
def add_moffats(image, cell, x, y, flux, fwhm, beta):
    """Add round Moffat stars to a frame, integrated over its pixels.

    Parameters
    ----------
    image : (h, w) float32 array, ADU, changed in place
    cell : (2, 2) int64 array
        Channel of each phase.
    x, y, fwhm : (n,) float64 arrays, pixels
    flux : (n, c) float64 array, ADU
    beta : float
    """
    h, w = image.shape
    for row in prange(h):
        for k in range(len(x)):
            reach = int(REACH_FWHM * fwhm[k]) + 1
            if abs(row - y[k]) > reach:
                continue
            alpha = fwhm[k] / (2 * math.sqrt(2 ** (1 / beta) - 1))
            peak = (beta - 1) / (math.pi * alpha * alpha)
            for column in range(max(int(x[k]) - reach, 0), min(int(x[k]) + reach + 2, w)):
                total = 0.0
                for j in range(SUBPIXELS):
                    for i in range(SUBPIXELS):
                        u = column - x[k] + (i + 0.5) / SUBPIXELS - 0.5
                        v = row - y[k] + (j + 0.5) / SUBPIXELS - 0.5
                        total += peak * (1 + (u * u + v * v) / (alpha * alpha)) ** -beta
                image[row, column] += np.float32(flux[k, cell[row % 2, column % 2]] * total / SUBPIXELS**2)
