"""Kernels of registration: matching of star lists by triangles."""

import math

import numpy as np
from numba import njit


def triangle_transform(moving, fixed, *, tolerance, n_triples, scale_range, most_stretch):
    """Find the affine transform between two star lists without any start.

    Triangles of both lists are compared by their side ratios, which no shift, rotation, reflection or scale changes;
    those that agree vote for the stars at their corners (Groth 1986, doi:10.1086/114099; Valdes et al. 1995,
    doi:10.1086/133667). Of each three of the pairs with most votes the transform is taken, and that with most stars
    near a star of the other list wins.

    Parameters
    ----------
    moving, fixed : (n, 2), (m, 2) float64 arrays, pixels
        x and y, brightest first; at least 3 each. All their triangles are formed: give a few tens.
    tolerance : float, pixels
        Distance in ``fixed`` within which two stars count as one.
    n_triples : int
        Pairs with most votes of which all triples are tried.
    scale_range : (float, float)
        Allowed scale from ``moving`` to ``fixed``.
    most_stretch : float
        Allowed ratio between the larger and the smaller scale of the transform.

    Returns
    -------
    transform : (2, 3) float64 array
        Maps (x, y, 1) of ``moving`` to (x, y) of ``fixed``; NaN where nothing was found.
    n_near : int
        Stars of ``moving`` that land near one of ``fixed``, no star counted twice.
    """
    for name, stars in (("moving", moving), ("fixed", fixed)):
        if stars.ndim != 2 or stars.shape[1] != 2 or len(stars) < 3:
            raise ValueError(f"{name} must be (n, 2) with n >= 3, got shape {stars.shape}")
    low, high = scale_range
    if not (0 < low < high and tolerance > 0 and most_stretch > 1):
        raise ValueError(f"need 0 < low < high, tolerance > 0, stretch > 1: {scale_range}, {tolerance}, {most_stretch}")
    moving, fixed = (np.ascontiguousarray(stars, dtype=float) for stars in (moving, fixed))
    return _triangle_transform(
        moving, fixed, float(tolerance), int(n_triples), float(low), float(high), float(most_stretch)
    )


@njit(cache=True, nogil=True, fastmath={"contract"})
def _triangle_transform(moving, fixed, tolerance, n_triples, low, high, most_stretch):
    votes = _votes(moving, fixed, low, high)
    pairs = _best_pairs(votes, n_triples)
    best, best_near = np.full((2, 3), np.nan), 0
    corners = np.empty((3, 2))
    images = np.empty((3, 2))
    for a in range(len(pairs)):
        for b in range(a + 1, len(pairs)):
            for c in range(b + 1, len(pairs)):
                for m, k in enumerate((a, b, c)):
                    corners[m] = moving[pairs[k, 0]]
                    images[m] = fixed[pairs[k, 1]]
                transform = _through(corners, images)
                if np.isnan(transform[0, 0]) or not _sane(transform, low, high, most_stretch):
                    continue
                near = _count_near(moving, fixed, transform, tolerance)
                if near > best_near:
                    best, best_near = transform, near
    return best, best_near


@njit(fastmath={"contract"})
def _triangles(stars):
    """All triangles: side ratios, longest side, and corners in the order opposite to the longest, middle, shortest."""
    n = len(stars)
    count = n * (n - 1) * (n - 2) // 6
    shape = np.empty((count, 3))
    corner = np.empty((count, 3), np.int64)
    apart = np.empty((n, n))
    for a in range(n):
        for b in range(n):
            apart[a, b] = math.hypot(stars[a, 0] - stars[b, 0], stars[a, 1] - stars[b, 1])
    k = 0
    for a in range(n):
        for b in range(a + 1, n):
            for c in range(b + 1, n):
                # Sides with the corner opposite to them, the longest first.
                one, two, three = (apart[b, c], a), (apart[c, a], b), (apart[a, b], c)
                one, two = (one, two) if one[0] >= two[0] else (two, one)
                two, three = (two, three) if two[0] >= three[0] else (three, two)
                one, two = (one, two) if one[0] >= two[0] else (two, one)
                longest = one[0]
                # Triangles with two equal sides name their corners by chance, flat ones are sensitive to errors.
                if longest <= 0 or three[0] < 0.1 * longest or two[0] > 0.97 * longest:
                    continue
                shape[k, 0] = two[0] / longest
                shape[k, 1] = three[0] / longest
                if shape[k, 0] - shape[k, 1] < 0.03 or shape[k, 0] + shape[k, 1] < 1.03:
                    continue
                shape[k, 2] = longest
                corner[k, 0], corner[k, 1], corner[k, 2] = one[1], two[1], three[1]
                k += 1
    return shape[:k], corner[:k]


@njit(fastmath={"contract"})
def _votes(moving, fixed, low, high):
    votes = np.zeros((len(moving), len(fixed)))
    shape_a, corner_a = _triangles(moving)
    shape_b, corner_b = _triangles(fixed)
    if len(shape_a) == 0 or len(shape_b) == 0:
        return votes
    order = np.argsort(shape_b[:, 0])
    sorted_ratio = shape_b[order, 0]
    for k in range(len(shape_a)):
        # Errors of a pixel in the corners change a side ratio by that over the longest side; 0.4 px is a centroid
        # error that no star worth matching exceeds, and a stretch of the axes moves ratios by its own size.
        reach = 0.004 + 0.6 / shape_a[k, 2]
        first = np.searchsorted(sorted_ratio, shape_a[k, 0] - reach)
        for s in range(first, len(order)):
            m = order[s]
            if sorted_ratio[s] > shape_a[k, 0] + reach:
                break
            if abs(shape_b[m, 1] - shape_a[k, 1]) > reach:
                continue
            scale = shape_b[m, 2] / shape_a[k, 2]
            if scale < low or scale > high:
                continue
            for i in range(3):
                votes[corner_a[k, i], corner_b[m, i]] += 1
    return votes


@njit(fastmath={"contract"})
def _best_pairs(votes, most):
    """Pairs with most votes, each star in one pair; the lower indices first of equals."""
    left = votes.copy()
    pairs = np.empty((min(most, votes.shape[0], votes.shape[1]), 2), np.int64)
    for k in range(len(pairs)):
        at = np.argmax(left)
        i, j = at // left.shape[1], at % left.shape[1]
        if left[i, j] <= 0:
            return pairs[:k]
        pairs[k, 0], pairs[k, 1] = i, j
        left[i, :] = -1
        left[:, j] = -1
    return pairs


@njit(fastmath={"contract"})
def _through(corners, images):
    """The affine transform that takes three points to three others; NaN where they lie on a line."""
    transform = np.full((2, 3), np.nan)
    ax, ay = corners[1, 0] - corners[0, 0], corners[1, 1] - corners[0, 1]
    bx, by = corners[2, 0] - corners[0, 0], corners[2, 1] - corners[0, 1]
    area = ax * by - ay * bx
    if abs(area) < 0.05 * max(ax * ax + ay * ay, bx * bx + by * by):
        return transform
    for axis in range(2):
        u, v = images[1, axis] - images[0, axis], images[2, axis] - images[0, axis]
        transform[axis, 0] = (u * by - v * ay) / area
        transform[axis, 1] = (v * ax - u * bx) / area
        transform[axis, 2] = images[0, axis] - transform[axis, 0] * corners[0, 0] - transform[axis, 1] * corners[0, 1]
    return transform


@njit(fastmath={"contract"})
def _sane(transform, low, high, most_stretch):
    """Whether both scales of a transform are allowed and near each other (singular values of its matrix)."""
    a, b, c, d = transform[0, 0], transform[0, 1], transform[1, 0], transform[1, 1]
    total, half = a * a + b * b + c * c + d * d, abs(a * d - b * c)
    root = math.sqrt(max(total * total - 4 * half * half, 0.0))
    largest, smallest = math.sqrt((total + root) / 2), math.sqrt(max((total - root) / 2, 0.0))
    return smallest >= low and largest <= high and largest <= most_stretch * smallest


@njit(fastmath={"contract"})
def _count_near(moving, fixed, transform, tolerance):
    taken = np.zeros(len(fixed), np.bool_)
    count = 0
    for k in range(len(moving)):
        x = transform[0, 0] * moving[k, 0] + transform[0, 1] * moving[k, 1] + transform[0, 2]
        y = transform[1, 0] * moving[k, 0] + transform[1, 1] * moving[k, 1] + transform[1, 2]
        nearest, best = -1, tolerance * tolerance
        for j in range(len(fixed)):
            d2 = (fixed[j, 0] - x) ** 2 + (fixed[j, 1] - y) ** 2
            if d2 < best:
                nearest, best = j, d2
        if nearest >= 0 and not taken[nearest]:
            taken[nearest] = True
            count += 1
    return count


def pair_transform(moving, fixed, *, tolerance, scale_range, parity):
    """Find the similarity between two short star lists from pairs of stars of the same distance.

    Parameters
    ----------
    moving, fixed : (n, 2), (m, 2) float64 arrays, pixels
        x and y; at least 2 each.
    tolerance : float, pixels
        Distance in ``fixed`` within which two stars count as one.
    scale_range : (float, float)
        Allowed scale from ``moving`` to ``fixed``.
    parity : int
        1, or -1 for a mirrored frame.

    Returns
    -------
    transform : (2, 3) float64 array
        That with most stars near one of ``fixed``; NaN where no pair agrees.
    n_near : int
    n_trials : int
        Transforms that were tried: how often chance had its chance.
    """
    for name, stars in (("moving", moving), ("fixed", fixed)):
        if stars.ndim != 2 or stars.shape[1] != 2 or len(stars) < 2:
            raise ValueError(f"{name} must be (n, 2) with n >= 2, got shape {stars.shape}")
    if parity not in (1, -1) or not 0 < scale_range[0] < scale_range[1]:
        raise ValueError(f"need parity 1 or -1 and a rising scale range, got {parity} and {scale_range}")
    moving, fixed = (np.ascontiguousarray(stars, dtype=float) for stars in (moving, fixed))
    return _pair_transform(moving, fixed, float(tolerance), float(scale_range[0]), float(scale_range[1]), float(parity))


@njit(cache=True, nogil=True, fastmath={"contract"})
def _pair_transform(moving, fixed, tolerance, low, high, parity):
    best, best_near, n_trials = np.full((2, 3), np.nan), 0, 0
    transform = np.empty((2, 3))
    for i in range(len(moving)):
        for j in range(i + 1, len(moving)):
            dx, dy = moving[j, 0] - moving[i, 0], moving[j, 1] - moving[i, 1]
            length = math.hypot(dx, dy)
            # A short pair turns the frame by the errors of its stars over its length.
            if length < 20 * tolerance:
                continue
            for k in range(len(fixed)):
                for m in range(len(fixed)):
                    ex, ey = fixed[m, 0] - fixed[k, 0], fixed[m, 1] - fixed[k, 1]
                    scale = math.hypot(ex, ey) / length
                    if m == k or scale < low or scale > high:
                        continue
                    n_trials += 1
                    # (a, -p b; b, p a) takes (dx, dy) to (ex, ey).
                    a = (ex * dx + parity * ey * dy) / (length * length)
                    b = (ey * dx - parity * ex * dy) / (length * length)
                    transform[0, 0], transform[0, 1] = a, -parity * b
                    transform[1, 0], transform[1, 1] = b, parity * a
                    transform[0, 2] = fixed[k, 0] - a * moving[i, 0] + parity * b * moving[i, 1]
                    transform[1, 2] = fixed[k, 1] - b * moving[i, 0] - parity * a * moving[i, 1]
                    near = _count_near(moving, fixed, transform, tolerance)
                    if near > best_near:
                        best, best_near = transform.copy(), near
    return best, best_near, n_trials


def nearest_pairs(moving, fixed, reach):
    """Mutual nearest neighbours of two lists in one frame.

    Parameters
    ----------
    moving, fixed : (n, 2), (m, 2) float64 arrays, pixels
    reach : float, pixels
        Largest distance of a pair.

    Returns
    -------
    (p, 2) int64 array
        Index into ``moving`` and into ``fixed``, in the order of ``moving``.
    """
    if moving.ndim != 2 or fixed.ndim != 2 or not reach > 0:
        raise ValueError(f"need (n, 2), (m, 2) and reach > 0, got {moving.shape}, {fixed.shape} and {reach}")
    moving, fixed = (np.ascontiguousarray(stars, dtype=float) for stars in (moving, fixed))
    return _nearest_pairs(moving, fixed, float(reach))


@njit(cache=True, nogil=True, fastmath={"contract"})
def _nearest_pairs(moving, fixed, reach):
    n, m = len(moving), len(fixed)
    nearest, back = np.full(n, -1), np.full(m, -1)
    best, best_back = np.full(n, reach * reach), np.full(m, reach * reach)
    order = np.argsort(fixed[:, 0])
    across = fixed[order, 0]
    for k in range(n):
        for s in range(np.searchsorted(across, moving[k, 0] - reach), m):
            j = order[s]
            dx = fixed[j, 0] - moving[k, 0]
            if dx > reach:
                break
            d2 = dx * dx + (fixed[j, 1] - moving[k, 1]) ** 2
            if d2 < best[k]:
                nearest[k], best[k] = j, d2
            if d2 < best_back[j]:
                back[j], best_back[j] = k, d2
    pairs = np.empty((n, 2), np.int64)
    count = 0
    for k in range(n):
        if nearest[k] >= 0 and back[nearest[k]] == k:
            pairs[count, 0], pairs[count, 1] = k, nearest[k]
            count += 1
    return pairs[:count]
