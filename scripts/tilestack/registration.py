"""Registration of star lists: the transform of a frame to the lattice, and how far it can be believed."""

import numpy as np

from tilestack import geometry
from tilestack.kernels import matching
from tilestack.records import rounded

# Stars that form triangles: 30 make 4060 of them.
N_TRIANGLE_STARS = 30
N_TRIPLE_PAIRS = 12
# Telescopes of one run; and non-square pixels under rotation.
SCALE_RANGE = (0.4, 2.5)
MOST_STRETCH = 1.25
FIRST_REACH_PX = 4.0
LAST_REACH_PX = 1.5
# What centroids of undersampled stars and optics leave beyond the photon noise. ASSUME 0.05 px: residuals of the
# Seestar frames at S/N > 100 are 0.05-0.1 px.
FLOOR_PX = 0.05


# A pixel that stands out in this share of the frames while the sky moves belongs to the sensor.
DEFECT_SHARE = 0.5
FEWEST_DEFECT_FRAMES = 3


class NoMatch(Exception):
    """A stage found no transform; its text says why."""


def start_by_triangles(moving, fixed):
    """A rough transform between two star lists, by triangles of their brightest stars.

    Parameters
    ----------
    moving, fixed : dict
        ``x``, ``y``, ``position_error`` as float64 arrays, brightest first.

    Returns
    -------
    (2, 3) float64 array

    Raises
    ------
    NoMatch
        With the reason.
    """
    points, targets = (np.column_stack([stars["x"], stars["y"]]) for stars in (moving, fixed))
    if min(len(points), len(targets)) < 4:
        raise NoMatch(f"{len(points)} stars against {len(targets)}, triangles need 4")
    start, n_near = matching.triangle_transform(
        points[:N_TRIANGLE_STARS],
        targets[:N_TRIANGLE_STARS],
        tolerance=FIRST_REACH_PX,
        n_triples=N_TRIPLE_PAIRS,
        scale_range=SCALE_RANGE,
        most_stretch=MOST_STRETCH,
    )
    if n_near < 4:
        raise NoMatch(f"no triangles of {len(points)} and {len(targets)} stars agree")
    return start


def refine(start, moving, fixed, *, model, min_matches, max_residual_px):
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
    points, targets = (np.column_stack([stars["x"], stars["y"]]) for stars in (moving, fixed))
    error = [np.hypot(stars["position_error"], FLOOR_PX / np.sqrt(2)) for stars in (moving, fixed)]
    name = "affine" if model == "affine" else "mirrored" if np.linalg.det(start[:, :2]) < 0 else "similarity"
    transform = start
    for reach in (FIRST_REACH_PX, FIRST_REACH_PX, 2.5, LAST_REACH_PX, LAST_REACH_PX):
        pairs = matching.nearest_pairs(geometry.apply(transform, points), targets, reach)
        if len(pairs) < max(min_matches, 3):
            raise NoMatch(
                f"{len(pairs)} of {len(points)} stars have a partner within {reach:g} px, needs {min_matches}"
            )
        weight = 1 / (error[0][pairs[:, 0]] ** 2 + error[1][pairs[:, 1]] ** 2)
        transform, kept, residual, criterion = _robust_fit(points, targets, pairs, weight, name)
    n_kept = int(kept.sum())
    if n_kept < min_matches:
        raise NoMatch(f"{n_kept} stars agree on a transform, needs {min_matches}")
    if residual > max_residual_px:
        raise NoMatch(f"residual {residual:.2f} px exceeds {max_residual_px:g} px")
    expected = len(points) * len(targets) * np.pi * LAST_REACH_PX**2 / max(np.ptp(targets, axis=0).prod(), 1)
    if n_kept < 3 + 5 * expected:
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


def register_session(frames, lattice_stars, master, *, model, min_matches, max_residual_px):
    """Register the frames of a session.

    Parameters
    ----------
    frames : list of dict
        Star records of its used frames, in order.
    lattice_stars : dict
        ``x``, ``y``, ``position_error`` of the stars of the reference frame.
    master : dict or None
        Star list of the first session (``master_stars``); None while that is being registered.
    model : str
        ``auto``, ``similarity`` or ``affine``.

    Returns
    -------
    model : str
        The one that was taken for all frames.
    results : list of dict
        For each frame ``method`` (``triangles`` or ``none``), ``tries`` (reason by stage that failed) and, where
        matched, ``against`` and as from ``refine``.
    """
    targets = [("reference", _arrays(lattice_stars))] + ([("first_session", _arrays(master))] if master else [])
    models = ("similarity", "affine") if model == "auto" else (model,)
    limits = {"min_matches": min_matches, "max_residual_px": max_residual_px}
    found = [_first_match(_arrays(frame["stars"]), targets, models, limits) for frame in frames]
    # One model for the session: by Schwarz' criterion, summed over the frames that all models match.
    both = [result["by_model"] for result in found if len(result["by_model"]) == len(models)]
    taken = min(models, key=lambda name: (sum(fits[name]["criterion"] for fits in both), models.index(name)))
    return taken, [_with_model(result, taken) for result in found]


def _first_match(stars, targets, models, limits):
    """The first target on which a frame matches, with the fit of each model that holds."""
    tries = []
    for name, target in targets:
        by_model = {}
        try:
            start = start_by_triangles(stars, target)
            for model in models:
                by_model[model] = refine(start, stars, target, model=model, **limits)
        except NoMatch as reason:
            tries.append({"method": "triangles", "against": name, "reason": str(reason)})
        if by_model:
            return {"method": "triangles", "against": name, "tries": tries, "by_model": by_model}
    return {"method": "none", "tries": tries, "by_model": {}}


def _with_model(result, model):
    """The result with the fit of the session's model, or of the only one that holds."""
    fits = result.pop("by_model")
    return result | (fits.get(model) or next(iter(fits.values()), {}))


def _arrays(stars):
    return {key: np.array(stars[key], float) for key in ("x", "y", "position_error")}


def master_stars(frames, results, reach=LAST_REACH_PX, most=2000):
    """One star list for all frames of a session, on the lattice.

    Parameters
    ----------
    frames, results : lists of dict
        Star records, and what ``register_session`` gave for them.
    reach : float
        Distance in lattice pixels within which two detections are one star.
    most : int
        Stars that are kept, those seen in most frames.

    Returns
    -------
    dict
        ``x``, ``y`` (mean over frames), ``position_error``, ``n_frames``; brightest first in the frame that showed
        each first. Stars seen in one frame only are left out where there are more frames.
    """
    points = np.empty((0, 2))
    total, weight, count = np.empty((0, 2)), np.empty(0), np.empty(0, int)
    flux = np.empty(0)
    for frame, result in zip(frames, results, strict=True):
        if result["method"] == "none":
            continue
        stars = frame["stars"]
        here = geometry.apply(result["transform"], np.column_stack([stars["x"], stars["y"]]).astype(float))
        w = 1 / (np.array(stars["position_error"], float) ** 2 + FLOOR_PX**2)
        brightness = np.array(stars["flux"], float).sum(1) * geometry.area_scale(result["transform"])
        pairs = matching.nearest_pairs(here, points, reach) if len(points) else np.empty((0, 2), int)
        np.add.at(total, pairs[:, 1], here[pairs[:, 0]] * w[pairs[:, 0], None])
        np.add.at(weight, pairs[:, 1], w[pairs[:, 0]])
        np.add.at(count, pairs[:, 1], 1)
        new = np.setdiff1d(np.arange(len(here)), pairs[:, 0])
        total, weight = np.vstack([total, here[new] * w[new, None]]), np.r_[weight, w[new]]
        count, flux = np.r_[count, np.ones(len(new), int)], np.r_[flux, brightness[new]]
        points = total / weight[:, None]
    keep = np.flatnonzero(count >= min(2, sum(result["method"] != "none" for result in results)))
    keep = keep[np.argsort(-count[keep], kind="stable")][:most]
    keep = keep[np.argsort(-flux[keep], kind="stable")]
    return {"x": points[keep, 0], "y": points[keep, 1], "position_error": weight[keep] ** -0.5, "n_frames": count[keep]}


def as_record(frame, result, master, shape):
    """What later phases need of a frame: its transform, and which of its stars is which of the session's list."""
    stars = frame["stars"]
    entry = {
        "n_detected": frame["n_detected"],
        "n_stars": len(stars["x"]),
        "elongation": rounded(np.median(stars["elongation"]) if stars["x"] else np.nan, 4),
        "method": result["method"],
        "tries": result["tries"],
        "transform": None,
        "inliers": 0,
    }
    if result["method"] == "none":
        return entry | {"reason": "not_registered"}
    transform = result["transform"]
    here = geometry.apply(transform, np.column_stack([stars["x"], stars["y"]]).astype(float))
    pairs = matching.nearest_pairs(here, master, LAST_REACH_PX)
    return entry | {
        "against": result["against"],
        "transform": rounded(transform, 10),
        "inliers": len(result["pairs"]),
        "residual_px": rounded(result["residual_px"], 4),
        **geometry.describe(transform, shape),
        "pairs": pairs.T,
    }


def defects_of(batches):
    """Pixels that stand out in most frames of a session."""
    n_frames = sum(record["defects"]["n_frames"] for record in batches)
    counts = {}
    for record in batches:
        for y, x, count in zip(*(record["defects"][key] for key in ("y", "x", "count")), strict=True):
            counts[y, x] = counts.get((y, x), 0) + count
    few = n_frames < FEWEST_DEFECT_FRAMES
    places = sorted(place for place, count in counts.items() if not few and count >= DEFECT_SHARE * n_frames)
    return {"y": [y for y, _ in places], "x": [x for _, x in places]}
