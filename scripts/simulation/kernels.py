"""Compiled parts of the simulator: stars and extended light onto pixels."""

import math

import numpy as np
from numba import njit, prange

# Points a pixel and axis near the core: of bright stars, and of those whose errors drown in the sky.
SUBPIXELS, FAINT_SUBPIXELS, FAINT_E = 5, 2, 3000.0


@njit(cache=True, parallel=True)
def add_stars(image, cell, x, y, flux, width, beta, elongation, angle, aureole, coma, chromatic, reach):
    """Add stars to a frame in electrons.

    A star is a Moffat profile (share 1 - aureole - coma), an aureole of r^-3 wings five times as wide, and a second
    Moffat profile, half as wide again, displaced outwards from the middle of the frame. Pixels near the core are
    integrated over that many points squared.

    Parameters
    ----------
    image : (h, w) float64 array, changed in place
    cell : (2, 2) int64 array
        Channel of each phase.
    x, y : (n,) float64 arrays, pixels
    flux : (n, c) float64 array, electrons
    width : (n,) float64 array
        FWHM in pixels.
    beta, elongation, angle, aureole, coma : float
    chromatic : (c,) float64 array
        FWHM of a channel over `width`.
    reach : (n,) int64 array
        Half the side of the square that a star fills.
    """
    h, w = image.shape
    # Stars overlap: each thread takes rows, not stars.
    for row in prange(h):
        for k in range(len(x)):
            if abs(row - y[k]) > reach[k] + 1:
                continue
            left, right = max(int(x[k]) - reach[k], 0), min(int(x[k]) + reach[k] + 2, w)
            out = math.hypot(x[k] - w / 2, y[k] - h / 2) / (0.5 * math.hypot(w, h))
            along = math.atan2(y[k] - h / 2, x[k] - w / 2)
            for column in range(left, right):
                c = cell[row % 2, column % 2]
                fwhm = width[k] * chromatic[c]
                alpha = fwhm / (2 * math.sqrt(2 ** (1 / beta) - 1))
                dx, dy = column - x[k], row - y[k]
                near = dx * dx + dy * dy < (2.2 * fwhm + 1.5) ** 2
                n = (SUBPIXELS if flux[k, c] > FAINT_E else FAINT_SUBPIXELS) if near else 1
                total = 0.0
                for j in range(n):
                    for i in range(n):
                        u, v = dx + (i + 0.5) / n - 0.5, dy + (j + 0.5) / n - 0.5
                        total += _profile(u, v, alpha, beta, elongation, angle, aureole, coma, out, along)
                image[row, column] += flux[k, c] * total / (n * n)


@njit(fastmath={"contract"})
def _profile(u, v, alpha, beta, elongation, angle, aureole, coma, out, along):
    ca, sa = math.cos(angle), math.sin(angle)
    root = math.sqrt(elongation)
    p, q = (u * ca + v * sa) / root, (v * ca - u * sa) * root
    core = (beta - 1) / (math.pi * alpha * alpha) * (1 + (p * p + q * q) / (alpha * alpha)) ** -beta
    wide = 5 * alpha
    halo = 0.5 / (math.pi * wide * wide) * (1 + (u * u + v * v) / (wide * wide)) ** -1.5
    tail = 1.5 * alpha
    shift = 1.2 * alpha * out
    du, dv = u - shift * math.cos(along), v - shift * math.sin(along)
    comet = (beta - 1) / (math.pi * tail * tail) * (1 + (du * du + dv * dv) / (tail * tail)) ** -beta
    share = coma * out
    return (1 - aureole - share) * core + aureole * halo + share * comet


@njit(cache=True, parallel=True)
def add_extended(image, cell, grid, transform, factor):
    """Add extended light to a frame by cubic interpolation (Catmull-Rom) of a grid.

    Parameters
    ----------
    image : (h, w) float64 array, changed in place
    cell : (2, 2) int64 array
    grid : (c, n, n) float32 array
    transform : (2, 3) float64 array
        Maps (x, y, 1) of the frame to column and row of the grid.
    factor : float
    """
    h, w = image.shape
    n = grid.shape[1]
    wx, wy = np.empty((h, 4)), np.empty((h, 4))
    for row in prange(h):
        for column in range(w):
            c = cell[row % 2, column % 2]
            gx = transform[0, 0] * column + transform[0, 1] * row + transform[0, 2]
            gy = transform[1, 0] * column + transform[1, 1] * row + transform[1, 2]
            i, j = int(math.floor(gx)), int(math.floor(gy))
            if i < 1 or j < 1 or i > n - 3 or j > n - 3:
                continue
            _cubic(gx - i, wx[row])
            _cubic(gy - j, wy[row])
            total = 0.0
            for b in range(4):
                line = 0.0
                for a in range(4):
                    line += wx[row, a] * grid[c, j - 1 + b, i - 1 + a]
                total += wy[row, b] * line
            image[row, column] += factor * total


@njit(fastmath={"contract"})
def _cubic(t, weights):
    weights[0] = ((-0.5 * t + 1.0) * t - 0.5) * t
    weights[1] = (1.5 * t - 2.5) * t * t + 1.0
    weights[2] = ((-1.5 * t + 2.0) * t + 0.5) * t
    weights[3] = (0.5 * t - 0.5) * t * t
