"""Kernels of the drizzled colours: sums over neighbours, and what fills in where drops are few."""

import numpy as np

from tilestack.kernels import entry, part

NOTHING = np.finfo(float).tiny


def box_sum(values, radius):
    """Sum over (2 radius + 1)^2 neighbours along the last two axes; nothing beyond the rims.

    Parameters
    ----------
    values : (..., h, w) array
    radius : int

    Returns
    -------
    (..., h, w) float64 array
    """
    planes = np.ascontiguousarray(values, float).reshape(-1, *values.shape[-2:])
    along_rows, out = np.empty_like(planes), np.empty_like(planes)
    _box_sum(planes, radius, along_rows, out)
    return out.reshape(values.shape)


@entry()
def _box_sum(planes, radius, along_rows, out):
    n, h, w = planes.shape
    for row in range(n * h):
        p, y = row // h, row % h
        line = along_rows[p, y]
        line[:] = 0.0
        for k in range(max(-radius, 1 - w), min(radius, w - 1) + 1):
            low, high = max(0, -k), min(w, w - k)
            _add(line[low:high], planes[p, y, low + k : high + k])
    for row in range(n * h):
        p, y = row // h, row % h
        line = out[p, y]
        line[:] = 0.0
        for k in range(max(-radius, -y), min(radius + 1, h - y)):
            _add(line, along_rows[p, y + k])


@part()
def _add(line, other):
    for x in range(len(line)):
        line[x] += other[x]


def filled(sums, variance, weight, limit, radii, raised, spreading):
    """Sums with those of neighbours where a pixel is thin; elsewhere as they are, to the bit.

    Parameters
    ----------
    sums : (n, c, h, w) float64 array
    variance : (m, c, h, w) float64 array
        Sums of w^2 v.
    weight, limit : (c, h, w) float64 arrays
        A pixel of less weight than its limit is thin. Where the limit is NOTHING there is nothing around either.
    radii : (r,) int64 array
        Of the neighbourhoods, rising from 0. Each counts as far as its own mean weight is not thin, and leaves the rest
        to the next.
    raised : (r, r) float64 array
        ``colours.correlations``.
    spreading : (c, h, w) float64 array
        ``colours.spread``.

    Returns
    -------
    sums, variance : arrays as given
    thin : (c, h, w) bool array
    """
    if sums.shape[1:] != weight.shape or variance.shape[1:] != weight.shape or limit.shape != weight.shape:
        raise ValueError(f"need equal images, got {sums.shape}, {variance.shape}, {weight.shape} and {limit.shape}")
    results = sums.copy(), variance.copy(), np.zeros(weight.shape, np.bool_)
    _filled(sums, variance, weight, limit, radii, raised, spreading, np.empty((2, len(radii))), *results)
    return results


@entry()
def _filled(sums, variance, weight, limit, radii, raised, spreading, room, out, noise, thin):
    n_channels, h, w = weight.shape
    n_radii, share, boxes = len(radii), room[0], room[1]
    for row in range(n_channels * h):
        c, y = row // h, row % h
        for x in range(w):
            if weight[c, y, x] >= limit[c, y, x]:
                continue
            thin[c, y, x] = True
            if limit[c, y, x] <= NOTHING:
                continue
            left = 1.0
            for k in range(n_radii):
                side = 2 * radii[k] + 1
                own = 1.0
                if k < n_radii - 1:
                    mean = _around(weight[c], y, x, radii[k]) / (side * side)
                    part = min(max(mean / limit[c, y, x], 0.0), 1.0)
                    own = part * part * (3 - 2 * part)
                share[k] = left * own / (side * side)
                left *= 1 - own
            for i in range(len(sums)):
                total = share[0] * sums[i, c, y, x]
                for k in range(1, n_radii):
                    if share[k] > 0:
                        total += share[k] * _around(sums[i, c], y, x, radii[k])
                out[i, c, y, x] = total
            for i in range(len(variance)):
                for k in range(n_radii):
                    boxes[k] = _around(variance[i, c], y, x, radii[k])
                total = 0.0
                for k in range(n_radii):
                    for m in range(n_radii):
                        common = 1 + (raised[k, m] - 1) * spreading[c, y, x]
                        total += share[k] * share[m] * common * boxes[min(k, m)]
                noise[i, c, y, x] = total


@part()
def _around(image, y, x, radius):
    """Sum over the (2 radius + 1)^2 pixels around one, those beyond the rims left out."""
    total = 0.0
    for yn in range(max(y - radius, 0), min(y + radius + 1, image.shape[0])):
        line = 0.0
        for xn in range(max(x - radius, 0), min(x + radius + 1, image.shape[1])):
            line += image[yn, xn]
        total += line
    return total
