"""Kernel of the sky template: the median of normalised frames."""

import numpy as np
from numba import njit, prange

NO_DATA, SATURATED = -32768, 32767


def median(codes, zero, scale, sky, grid, photometric, channel_rows, variance, most):
    """Median over frames of normalised pixels, for a band of rows.

    Parameters
    ----------
    codes : (n, h, w) int16 array
        Prewarped frames in a common box, the best first; -32768 no data, 32767 saturated.
    zero, scale : (n,) float64 arrays
        Value of a frame = zero + scale x code, in ADU.
    sky : (n, c, ny, nx) float64 array, ADU
        Sky difference of each frame and channel at the nodes of a grid that holds the band.
    grid : (float, float, float)
        Row and column of the band's first pixel in units of the grid, counted from its first node, and its pitch in
        pixels. Between nodes the sky is bilinear.
    photometric : (n, c) float64 array
        Photometric scales.
    channel_rows : (2, 2) int64 array
        Channel of each Bayer phase of the band.
    variance : (n, c) float64 array, ADU^2
        Of a normalised pixel.
    most : int
        Frames behind a pixel: the first so many that have data there.

    Returns
    -------
    image, variance : (h, w) float32 arrays, ADU and ADU^2
        NaN where no frame has data. Saturated pixels count only where fewer than 5 others do.
    count : (h, w) int16 array
        Frames behind each pixel.

    Notes
    -----
    The variance of the median of n Gaussian values is pi / 2 of that of their mean.
    """
    n, h, w = codes.shape
    if most < 1:
        raise ValueError(f"need at least one frame behind a pixel, got most = {most}")
    if sky.shape[:2] != photometric.shape or photometric.shape != variance.shape or len(photometric) != n:
        raise ValueError(
            f"need n frames in all arrays, got {codes.shape}, {sky.shape}, {photometric.shape}, {variance.shape}"
        )
    image, spread = np.empty((h, w), np.float32), np.empty((h, w), np.float32)
    count = np.empty((h, w), np.int16)
    _median(codes, zero, scale, sky, *grid, photometric, channel_rows, variance, int(most), image, spread, count)
    return image, spread, count


@njit(cache=True, parallel=True, fastmath={"contract"})
def _median(
    codes, zero, scale, sky, grid_y, grid_x, pitch, photometric, channel_rows, variance, most, image, spread, count
):
    n, h, w = codes.shape
    for y in prange(h):
        values, variances = np.empty(n), np.empty(n)
        at_y = grid_y + y / pitch
        j = min(max(int(at_y), 0), sky.shape[2] - 2)
        lines = np.empty((n, sky.shape[1], sky.shape[3]))
        for k in range(n):
            for c in range(sky.shape[1]):
                for i in range(sky.shape[3]):
                    lines[k, c, i] = sky[k, c, j, i] + (at_y - j) * (sky[k, c, j + 1, i] - sky[k, c, j, i])
        for x in range(w):
            c = channel_rows[y % 2, x % 2]
            at_x = grid_x + x / pitch
            i = min(max(int(at_x), 0), sky.shape[3] - 2)
            f = at_x - i
            for saturated_too in range(2):
                m = 0
                for k in range(n):
                    code = codes[k, y, x]
                    if code == NO_DATA or (code == SATURATED and not saturated_too):
                        continue
                    here = (1 - f) * lines[k, c, i] + f * lines[k, c, i + 1]
                    values[m] = (zero[k] + scale[k] * code - here) / photometric[k, c]
                    variances[m] = variance[k, c]
                    m += 1
                    if m == most:
                        break
                if m >= 5:
                    break
            count[y, x] = m
            if m == 0:
                image[y, x], spread[y, x] = np.nan, np.nan
                continue
            image[y, x] = _middle(values[:m])
            spread[y, x] = np.pi / 2 * variances[:m].sum() / (m * m)


@njit(fastmath={"contract"})
def _middle(values):
    """Median, by insertion sort of few values and by selection of many; reorders them."""
    n = len(values)
    if n > 24:
        return np.median(values)
    for a in range(1, n):
        value = values[a]
        b = a - 1
        while b >= 0 and values[b] > value:
            values[b + 1] = values[b]
            b -= 1
        values[b + 1] = value
    return (values[(n - 1) // 2] + values[n // 2]) / 2
