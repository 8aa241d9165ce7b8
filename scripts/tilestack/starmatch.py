"""Matching of star lists: the transform from one to another, by triangles, by pairs, or from a start near it."""

import math

import numpy as np

from tilestack import geometry
from tilestack.kernels import matching

# Stars that form triangles: 30 make 4060 of them.
N_TRIANGLE_STARS = 30
N_TRIPLE_PAIRS = 12
# Telescopes of one run; and non-square pixels under rotation.
SCALE_RANGE = (0.4, 2.5)
MOST_STRETCH = 1.25
# Pairs of the 20 brightest stars are tried against those of 40.
N_PAIR_STARS = 20
PAIR_REACH_PX = 2.5
CHANCE_LIMIT = 1e-3
FIRST_REACH_PX = 4.0
LAST_REACH_PX = 1.5
# What centroids of undersampled stars and optics leave beyond the photon noise. ASSUME 0.05 px: residuals of the
# Seestar frames at S/N > 100 are 0.05-0.1 px.
FLOOR_PX = 0.05


class NoMatch(Exception):
    """A stage found no transform; its text says why."""


def points_of(stars):
    """Positions of a star list as (n, 2) float64 array of x, y."""
    return np.column_stack([np.asarray(stars["x"], float), np.asarray(stars["y"], float)])


def start_by_triangles(moving, fixed, *, n_stars=N_TRIANGLE_STARS, aspects=(1.0, 1.0), scale_range=SCALE_RANGE):
    """A rough transform between two star lists, by triangles of their brightest stars.

    Parameters
    ----------
    moving, fixed : dict
        ``x``, ``y`` as float64 arrays, brightest first.
    n_stars : int
        Stars of each list that form triangles.
    aspects : (float, float)
        Height over width of the pixels of both lists: triangles are compared as they are in the sky.
    scale_range : (float, float)
        Allowed scale.

    Returns
    -------
    (2, 3) float64 array

    Raises
    ------
    NoMatch
        With the reason.
    """
    if min(len(moving["x"]), len(fixed["x"])) < 4:
        raise NoMatch(f"{len(moving['x'])} stars against {len(fixed['x'])}, triangles need 4")
    squeeze = [np.array([[1.0, 0.0, 0.0], [0.0, aspect, 0.0]]) for aspect in aspects]
    start, n_near = matching.triangle_transform(
        geometry.apply(squeeze[0], points_of(moving)[:n_stars]),
        geometry.apply(squeeze[1], points_of(fixed)[:n_stars]),
        tolerance=FIRST_REACH_PX,
        n_triples=N_TRIPLE_PAIRS,
        scale_range=scale_range,
        most_stretch=MOST_STRETCH,
    )
    if n_near < 4:
        raise NoMatch(f"no triangles of {len(moving['x'])} and {len(fixed['x'])} stars agree")
    return geometry.compose(geometry.inverse(squeeze[1]), geometry.compose(start, squeeze[0]))


def start_by_pairs(moving, fixed, *, scale_range, parity):
    """A rough transform between two short star lists, by pairs of stars of the same distance.

    Parameters
    ----------
    moving, fixed : dict
        ``x``, ``y`` as float64 arrays, brightest first.
    scale_range : (float, float)
        Allowed scale; a narrow one, as the session or the telescope gives it.
    parity : int
        1, or -1 for a mirrored frame.

    Returns
    -------
    (2, 3) float64 array

    Raises
    ------
    NoMatch
        With the reason; also where chance would give as many matches.
    """
    points, targets = points_of(moving)[:N_PAIR_STARS], points_of(fixed)[: 2 * N_PAIR_STARS]
    if min(len(points), len(targets)) < 3:
        raise NoMatch(f"{len(points)} stars against {len(targets)}, pairs need 3")
    start, n_near, n_trials = matching.pair_transform(
        points, targets, tolerance=PAIR_REACH_PX, scale_range=scale_range, parity=parity
    )
    # Two stars always agree; each further one agrees by chance with the share of the field that the targets cover.
    area = max(np.ptp(targets, axis=0).prod(), 1.0)
    share = min(len(targets) * np.pi * PAIR_REACH_PX**2 / area, 1.0)
    expected = n_trials * at_least(n_near - 2, max(len(points) - 2, 0), share)
    if n_near < 3 or expected > CHANCE_LIMIT:
        raise NoMatch(
            f"{n_near} of {len(points)} stars agree on a pair transform, which chance gives {expected:.2g} times"
        )
    return start


def at_least(k, n, share):
    """Chance of at least k successes in n trials, each with the chance `share`."""
    return sum(math.comb(n, i) * share**i * (1 - share) ** (n - i) for i in range(max(k, 0), n + 1))


def refine(start, moving, fixed, *, model, min_matches, max_residual_px, reach=FIRST_REACH_PX):
    """Match all stars under a rough transform, and fit it to them.

    Parameters
    ----------
    start : (2, 3) float64 array
        Right to a few pixels.
    moving, fixed : dict
        ``x``, ``y``, ``position_error`` as float64 arrays.
    model : str
        ``similarity`` (mirrored where the start is) or ``affine``.
    min_matches : int
        Fewest matched stars.
    max_residual_px : float
        Largest rms distance of matched stars.
    reach : float
        Distance within which a star is first looked for.

    Returns
    -------
    dict
        ``transform``, ``pairs`` ((p, 2): index into moving and fixed), ``residual_px`` (rms distance), ``criterion``
        (Schwarz 1978, doi:10.1214/aos/1176344136; the lower the better).

    Raises
    ------
    NoMatch
        With the reason.
    """
    points, targets = points_of(moving), points_of(fixed)
    error = [np.hypot(stars["position_error"], FLOOR_PX / np.sqrt(2)) for stars in (moving, fixed)]
    name = "affine" if model == "affine" else "mirrored" if np.linalg.det(start[:, :2]) < 0 else "similarity"
    transform = start
    for within in (reach, max(reach / 2, FIRST_REACH_PX), 2.5, LAST_REACH_PX, LAST_REACH_PX):
        pairs = matching.nearest_pairs(geometry.apply(transform, points), targets, within)
        if len(pairs) < max(min_matches, 3):
            raise NoMatch(
                f"{len(pairs)} of {len(points)} stars have a partner within {within:g} px, needs {min_matches}"
            )
        weight = 1 / (error[0][pairs[:, 0]] ** 2 + error[1][pairs[:, 1]] ** 2)
        transform, kept, residual, criterion = _robust_fit(points, targets, pairs, weight, name)
    n_kept = int(kept.sum())
    if n_kept < min_matches:
        raise NoMatch(f"{n_kept} stars agree on a transform, needs {min_matches}")
    if residual > max_residual_px:
        raise NoMatch(f"residual {residual:.2f} px exceeds {max_residual_px:g} px")
    expected = len(points) * len(targets) * np.pi * LAST_REACH_PX**2 / max(np.ptp(targets, axis=0).prod(), 1)
    if n_kept <= 2 + 5 * expected:  # two stars always agree on a similarity
        raise NoMatch(f"{n_kept} matches, where chance gives {expected:.1f}")
    return {"transform": transform, "pairs": pairs[kept], "residual_px": residual, "criterion": criterion}


def _robust_fit(points, targets, pairs, weight, name):
    """Fit with rounds of clipping at 3 robust standard deviations of the normalised residual.

    Returns the transform, which pairs were kept, the rms residual of those, and Schwarz' criterion.
    """
    source, target = points[pairs[:, 0]], targets[pairs[:, 1]]
    kept = np.ones(len(pairs), bool)
    n_parameters = 6 if name == "affine" else 4
    for _ in range(4):
        transform = geometry.fit(source[kept], target[kept], weight[kept], name)
        distance = np.hypot(*(geometry.apply(transform, source) - target).T)
        normalised = distance * np.sqrt(weight)
        limit = 3 * max(np.median(normalised) / 1.1774, 1.0)  # median of a Rayleigh distribution
        now = normalised <= limit
        if now.sum() < n_parameters or (now == kept).all():
            break
        kept = now
    chi2 = (np.minimum(normalised, limit) ** 2).sum()
    n = 2 * len(pairs)
    criterion = n * np.log(max(chi2 / n, 1e-12)) + n_parameters * np.log(n)
    return transform, kept, float(np.sqrt((distance[kept] ** 2).mean())), float(criterion)
