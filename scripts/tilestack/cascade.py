"""How a frame finds its place: the stages of registration, from star triangles down to the motion of the session.

Each stage gives a rough transform or says why it cannot; stars then refine it. A frame keeps the stage that won and why
the earlier ones failed. No stage ever answers with the identity for want of something better.
"""

import numpy as np

from tilestack import distortion, geometry, motion, processes, starmatch
from tilestack.kernels import matching
from tilestack.starmatch import NoMatch

# The longer triangle lists of the second attempt.
N_WIDE_STARS = 60
# A frame with this many stars that match nothing shows another field: it is not placed by prediction.
MANY_STARS = 15
# How far a scale of headers, or of the rest of the session, is believed.
SCALE_HINT = 0.03
# Scale between frames of one telescope; the session's own scale, for pairs.
SAME_SCALE = 0.01
# Stars that are looked for near where the prediction puts them.
PREDICTION_REACH_PX = 12.0


class Frame:
    """What the stages need of a frame.

    Parameters
    ----------
    record : dict
        Star record.
    time : float
        Seconds, or its place in the session.
    read : callable
        Gives its luminance as (h, w) float32 array, on the pixels of the light.
    """

    def __init__(self, record, time, read):
        self.record, self.time, self.read = record, time, read
        self.stars, self.hint = arrays(record["stars"]), record["hint"]
        self.aspect = record["pixel_aspect"]
        self.trailed = record["trailed"]


def arrays(stars):
    """Positions of a star record as float64 arrays."""
    return {key: np.array(stars[key], float) for key in ("x", "y", "position_error")}


def register(frames, targets, reference, shape, *, model, min_matches, max_residual_px, n_processes=1):
    """Register the frames of a session.

    Parameters
    ----------
    frames : list of Frame
        Its used frames, in order.
    targets : list of (str, dict)
        Star lists on the lattice, the best first: of the reference frame, of the first session.
    reference : dict
        Of the lattice: ``stars`` with flux, ``shape``, ``hint``, ``aspect``, and ``read`` for its luminance, or null.
    shape : (int, int)
        Rows and columns of the frames.
    model : str
        ``auto``, ``similarity`` or ``affine``.
    n_processes : int
        For the triangles, which nearly all frames need only.

    Returns
    -------
    dict
        ``model``, ``distortion`` (null for none), ``stars`` (list of the session on the lattice) and ``results``: for
        each frame ``method``, ``tries`` and, where it has a place, ``transform``, ``against``, ``pairs``,
        ``residual_px`` and ``error_px`` (by which its place may be off).
    """
    models = ("similarity", "affine") if model == "auto" else (model,)
    limits = {"min_matches": min_matches, "max_residual_px": max_residual_px}
    aspect = reference["aspect"]

    def first_stage(frame):
        return _by_triangles(frame, targets, aspect, models, limits, _header_scale(frame, reference))

    found = list(processes.in_order(first_stage, frames, n_processes))
    own, scale = _rough_session(frames, found)
    if len(own["x"]):
        for k, frame in enumerate(frames):
            if not found[k]["by_model"]:
                again = _by_triangles(frame, [("session", own), *targets], aspect, models, limits, scale)
                found[k] = again | {"tries": found[k]["tries"] + again["tries"]}
    # One model for the session: by Schwarz' criterion, summed over the frames that all models match.
    both = [result["by_model"] for result in found if len(result["by_model"]) == len(models)]
    taken = min(models, key=lambda name: (sum(fits[name]["criterion"] for fits in both), models.index(name)))
    results = [_with_model(result, taken) for result in found]
    lens = _distortion(frames, results, targets, shape) if taken == "affine" else None
    if lens:
        results = [
            _through_lens(frame, result, targets, lens, limits) for frame, result in zip(frames, results, strict=True)
        ]
    _check(results, shape)
    targets = [*targets, ("session", master_stars(frames, results, lens))]
    for k in range(len(frames)):
        if "transform" not in results[k]:
            results[k] = _late_stages(k, frames, results, targets, reference, shape, lens, limits)
    return {"model": taken, "distortion": lens, "stars": master_stars(frames, results, lens), "results": results}


def _by_triangles(frame, targets, aspect, models, limits, scale=None):
    """The first target on which the triangles of a frame match, with the fit of each model that holds.

    A scale that is known beforehand, to SCALE_HINT, keeps chance agreements out; the last attempts do not believe it.
    """
    tries = []
    attempts = [(starmatch.N_TRIANGLE_STARS, starmatch.SCALE_RANGE), (N_WIDE_STARS, starmatch.SCALE_RANGE)]
    if scale is not None:
        near = (scale / (1 + SCALE_HINT), scale * (1 + SCALE_HINT))
        attempts = [(starmatch.N_TRIANGLE_STARS, near), (N_WIDE_STARS, near), attempts[0]]
    for name, target in targets:
        for n_stars, scale_range in attempts:
            if n_stars == N_WIDE_STARS and len(frame.stars["x"]) <= starmatch.N_TRIANGLE_STARS:
                continue
            by_model = {}
            try:
                start = starmatch.start_by_triangles(
                    frame.stars, target, n_stars=n_stars, aspects=(frame.aspect, aspect), scale_range=scale_range
                )
                for model in models:
                    by_model[model] = starmatch.refine(start, frame.stars, target, model=model, **limits)
            except NoMatch as reason:
                tries.append({"method": "triangles", "against": name, "reason": str(reason)})
            if by_model:
                method = "trails" if frame.trailed else "triangles"
                return {"method": method, "against": name, "tries": tries, "by_model": by_model}
    return {"method": "none", "tries": tries, "by_model": {}}


def _header_scale(frame, reference):
    """Scale of a frame to the lattice as both headers give it; None where one does not."""
    ours, theirs = frame.hint["scale_arcsec"], reference["hint"]["scale_arcsec"]
    return ours / theirs if ours and theirs else None


def _with_model(result, model):
    """The result with the fit of the session's model, or of the only one that holds."""
    fits = result["by_model"]
    rest = {key: value for key, value in result.items() if key != "by_model"}
    fit = fits.get(model) or next(iter(fits.values()), None)
    return rest | (fit | {"error_px": placement_error(fit)} if fit else {})


def placement_error(fit):
    """By how much a matched frame may be off: the residual of a star over the root of the stars."""
    return float(fit["residual_px"] / np.sqrt(max(len(fit["pairs"]) - 2, 1)))


def _target(targets, name):
    return next(stars for key, stars in targets if key == name)


def _distortion(frames, results, targets, shape):
    """Distortion of the session, where its residuals ask for one: each star by its means over the frames."""
    sums = {}
    for frame, result in zip(frames, results, strict=True):
        if "transform" not in result or result["against"] == "session":
            continue
        mine, theirs = result["pairs"].T
        target = _target(targets, result["against"])
        here = starmatch.points_of(frame.stars)[mine]
        there = geometry.apply(geometry.inverse(result["transform"]), starmatch.points_of(target)[theirs])
        errors = frame.stars["position_error"][mine] ** 2 + target["position_error"][theirs] ** 2
        for star, *values in zip(theirs, here, there - here, errors, strict=True):
            sums.setdefault((result["against"], int(star)), []).append(values)
    if not sums:
        return None
    # A star that moves over the detector tells of the places it has been at; its mean tells of their mean.
    means = [[np.mean(values, axis=0) for values in zip(*star, strict=True)] for star in sums.values()]
    points, missing, variance = (np.array(values) for values in zip(*means, strict=True))
    return distortion.fit(points, missing, variance + starmatch.FLOOR_PX**2, shape)


def _through_lens(frame, result, targets, lens, limits):
    """The result with positions that are free of the distortion."""
    if "transform" not in result or result["against"] == "session":
        return result
    stars = straight_stars(frame.stars, lens)
    try:
        fit = starmatch.refine(
            result["transform"], stars, _target(targets, result["against"]), model="affine", **limits
        )
    except NoMatch as reason:  # the late stages go on from here
        tries = [*result["tries"], {"method": result["method"], "against": result["against"], "reason": str(reason)}]
        return {"method": "none", "tries": tries}
    return result | fit | {"error_px": placement_error(fit)}


def straight_stars(stars, lens):
    """A star list at the places that it would have without distortion."""
    x, y = distortion.straightened(starmatch.points_of(stars), lens).T
    return {**stars, "x": x, "y": y}


def _check(results, shape):
    """Take the place from frames that do not fit into their session; they go through the late stages."""
    for k, reason in motion.suspicious(results, shape).items():
        tries = [
            *results[k]["tries"],
            {"method": results[k]["method"], "against": results[k]["against"], "reason": reason},
        ]
        results[k] = {"method": "none", "tries": tries}


def _late_stages(k, frames, results, targets, reference, shape, lens, limits):
    """The stages for a frame that triangles did not place, the surest first."""
    frame, tries = frames[k], list(results[k]["tries"])
    known = [j for j in range(len(frames)) if "transform" in results[j] and results[j]["method"] != "predicted"]
    course = (
        motion.Motion([frames[j].time for j in known], [results[j]["transform"] for j in known], shape)
        if known
        else None
    )
    stars = straight_stars(frame.stars, lens)

    def refined(start, reach=starmatch.FIRST_REACH_PX):
        """Refine by the longest list that holds, with the few stars that there are."""
        problem = NoMatch("no star list")
        for name, target in reversed(targets):
            for fewest in (limits["min_matches"], 3):
                try:
                    fit = starmatch.refine(
                        start, stars, target, model="similarity", **limits | {"min_matches": fewest}, reach=reach
                    )
                    return fit | {"against": name, "error_px": placement_error(fit)}
                except NoMatch as reason:
                    problem = reason
        raise problem

    def pairs():
        scale = (course.scale * (1 - SAME_SCALE), course.scale * (1 + SAME_SCALE)) if course else starmatch.SCALE_RANGE
        problem = NoMatch("no star list")
        for _, target in reversed(targets):
            try:
                return refined(
                    starmatch.start_by_pairs(stars, target, scale_range=scale, parity=course.parity if course else 1)
                )
            except NoMatch as reason:
                problem = reason
        raise problem

    def plate():
        from tilestack import platesolve  # few frames come here, and the solver costs each job its import

        flux = np.array(frame.record["stars"]["flux"], float)
        mine = platesolve.solve({**frame.stars, "flux": flux}, shape, frame.hint)
        theirs = platesolve.solve(reference["stars"], reference["shape"], reference["hint"])
        start = platesolve.between(mine, theirs, shape)
        try:
            return refined(start, reach=6.0)
        except NoMatch as reason:
            # The solution itself is good to about half a pixel of the catalogue's stars.
            tries.append({"method": "plate", "against": "session", "reason": f"used unrefined: {reason}"})
            return {
                "transform": start,
                "pairs": np.empty((0, 2), int),
                "residual_px": None,
                "error_px": 0.5,
                "against": "catalogue",
            }

    def correlation():
        from tilestack.correlation import align  # as above

        nearest = min(known, key=lambda j: abs(frames[j].time - frame.time)) if known else None
        if nearest is None and reference["read"] is None:
            raise NoMatch("no frame of the session has a place, and the reference light is in another run")
        fixed = reference["read"]() if nearest is None else frames[nearest].read()
        moved, agreement = align(frame.read(), fixed)
        start = moved if nearest is None else geometry.compose(results[nearest]["transform"], moved)
        try:
            return refined(start, reach=6.0)
        except NoMatch as reason:
            tries.append({"method": "correlation", "against": "image", "reason": f"used unrefined: {reason}"})
            return {
                "transform": start,
                "pairs": np.empty((0, 2), int),
                "residual_px": None,
                "error_px": 1.0,
                "against": "image",
            }

    def predicted():
        if course is None or len(known) < 3:
            raise NoMatch(f"{len(known)} matched frames in the session, prediction needs 3")
        start, apart = course.predict(frame.time)
        try:
            return refined(start, reach=PREDICTION_REACH_PX) | {"method": "pairs"}
        except NoMatch as reason:
            if len(frame.stars["x"]) >= MANY_STARS:
                raise NoMatch(
                    f"{len(frame.stars['x'])} stars, and they are not those of the field: {reason}"
                ) from reason
        error = max(course.error_px(), apart)
        if error > motion.MOST_ERROR_PX:
            raise NoMatch(f"the session moves by {error:.1f} px between frames, more than {motion.MOST_ERROR_PX:g}")
        return {
            "transform": start,
            "pairs": np.empty((0, 2), int),
            "residual_px": None,
            "error_px": error,
            "against": "session",
        }

    for name, stage in (("pairs", pairs), ("plate", plate), ("correlation", correlation), ("predicted", predicted)):
        try:
            placed = {"method": name, **stage(), "tries": tries}
            if (reason := _misfit(placed, course, shape)) is None:
                return placed
            tries.append({"method": name, "against": placed["against"], "reason": reason})
        except NoMatch as reason:
            tries.append({"method": name, "reason": str(reason)})
    return {"method": "none", "tries": tries}


def _misfit(placed, course, shape):
    """Why a transform of a late stage cannot be that of a frame of this session, or None."""
    if course is None or len(course.times) < motion.FEWEST_FRAMES:
        return None
    told = geometry.describe(placed["transform"], shape)
    if told["parity"] != course.parity:
        return "mirrored against its session"
    if abs(np.log(told["scale"] / course.scale)) > 2 * motion.SCALE_TOLERANCE:
        return f"scale {told['scale']:.4f}, its session has {course.scale:.4f}"
    return None


def _rough_session(frames, found):
    """Star list and scale of the frames that match, under the first model that holds; empty and None of none."""
    results = [_with_model(result, "similarity") for result in found]
    scales = [geometry.area_scale(r["transform"]) ** 0.5 for r in results if "transform" in r]
    return master_stars(frames, results, None), float(np.median(scales)) if scales else None


def master_stars(frames, results, lens, reach=starmatch.LAST_REACH_PX, most=2000):
    """One star list for all frames of a session, on the lattice.

    Parameters
    ----------
    frames : list of Frame
    results : list of dict
        Frames without ``transform``, or placed without stars, add nothing.
    lens : dict or None
        Distortion of the session.
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
    points, total = np.empty((0, 2)), np.empty((0, 2))
    weight, count, flux = np.empty(0), np.empty(0, int), np.empty(0)
    n_matched = 0
    for frame, result in zip(frames, results, strict=True):
        if "transform" not in result or not len(result["pairs"]) or not len(frame.stars["x"]):
            continue
        n_matched += 1
        here = geometry.apply(result["transform"], starmatch.points_of(straight_stars(frame.stars, lens)))
        w = 1 / (frame.stars["position_error"] ** 2 + starmatch.FLOOR_PX**2)
        brightness = np.array(frame.record["stars"]["flux"], float).sum(1) * geometry.area_scale(result["transform"])
        pairs = matching.nearest_pairs(here, points, reach) if len(points) else np.empty((0, 2), int)
        np.add.at(total, pairs[:, 1], here[pairs[:, 0]] * w[pairs[:, 0], None])
        np.add.at(weight, pairs[:, 1], w[pairs[:, 0]])
        np.add.at(count, pairs[:, 1], 1)
        new = np.setdiff1d(np.arange(len(here)), pairs[:, 0])
        total, weight = np.vstack([total, here[new] * w[new, None]]), np.r_[weight, w[new]]
        count, flux = np.r_[count, np.ones(len(new), int)], np.r_[flux, brightness[new]]
        points = total / weight[:, None]
    keep = np.flatnonzero(count >= min(2, n_matched))
    keep = keep[np.argsort(-count[keep], kind="stable")][:most]
    keep = keep[np.argsort(-flux[keep], kind="stable")]
    return {"x": points[keep, 0], "y": points[keep, 1], "position_error": weight[keep] ** -0.5, "n_frames": count[keep]}
