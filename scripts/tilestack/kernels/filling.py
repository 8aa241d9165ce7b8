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


def fill(planes, sums, squares, weight, limit, radii, raised, spreading):
    """Add to sums those of neighbours where a pixel is thin, in place; elsewhere they stay, to the bit.

    Parameters
    ----------
    planes : (n, c, h, w) float64 array
    sums, squares : lists of int
        Which of the planes are sums of w and of w times something, and which of w^2 v; others stay as they are.
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
    (c, h, w) bool array
        Which pixels are thin.
    """
    if planes.ndim != 4 or planes.shape[1:] != weight.shape or limit.shape != weight.shape:
        raise ValueError(f"need equal images, got {planes.shape}, {weight.shape} and {limit.shape}")
    if not planes.flags.c_contiguous:
        raise ValueError("need planes in one piece, as they are changed in place")
    thin = ~(weight >= limit)
    # As they will be, of each thin pixel: its neighbours need it as it is.
    made = np.empty((np.count_nonzero(thin), len(sums) + len(squares)))
    which, room = (np.array(sums, np.int64), np.array(squares, np.int64)), np.empty((2, len(radii)))
    _fill(planes, *which, thin, limit, weight, radii, raised, spreading, room, made)
    _put(planes.reshape(len(planes), -1), np.flatnonzero(thin & (limit > NOTHING)), np.concatenate(which), made)
    return thin


@entry()
def _put(planes, pixels, which, made):
    for k in range(len(pixels)):
        for i in range(len(which)):
            planes[which[i], pixels[k]] = made[k, i]


@entry()
def _fill(planes, sums, squares, thin, limit, weight, radii, raised, spreading, room, made):
    n_channels, h, w = weight.shape
    n_radii, share, boxes = len(radii), room[0], room[1]
    n = 0
    for row in range(n_channels * h):
        c, y = row // h, row % h
        for x in range(w):
            if not thin[c, y, x] or limit[c, y, x] <= NOTHING:
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
                image = planes[sums[i], c]
                total = share[0] * image[y, x]
                for k in range(1, n_radii):
                    if share[k] > 0:
                        total += share[k] * _around(image, y, x, radii[k])
                made[n, i] = total
            for i in range(len(squares)):
                for k in range(n_radii):
                    boxes[k] = _around(planes[squares[i], c], y, x, radii[k])
                total = 0.0
                for k in range(n_radii):
                    for m in range(n_radii):
                        common = 1 + (raised[k, m] - 1) * spreading[c, y, x]
                        total += share[k] * share[m] * common * boxes[min(k, m)]
                made[n, len(sums) + i] = total
            n += 1


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
