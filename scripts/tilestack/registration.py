"""Records of REGISTRATION: what later phases need of each frame, and the defective pixels of a session."""

import numpy as np

from tilestack import cascade, geometry, job, starmatch
from tilestack.kernels import matching
from tilestack.records import rounded

# A pixel that stands out in this share of the frames while the sky moves belongs to the sensor.
DEFECT_SHARE = 0.5
FEWEST_DEFECT_FRAMES = 3
# What goes on from the star record of a frame.
KEPT = ("status", "reason", "exposure_s", "filter", "gain_e_adu", "date_obs", "sha256", "index")


def times(records):
    """Time of each frame in seconds, by DATE-OBS; its place in the session where a frame has none."""
    stamps = [record["date_obs"] for record in records]
    try:
        parsed = np.array([stamp.rstrip("Z")[:26] for stamp in stamps], dtype="datetime64[us]")
    except (AttributeError, ValueError):  # no date, or one that is none
        return np.arange(len(records), dtype=float)
    return (parsed - parsed.min()).astype(float) / 1e6 if len(parsed) else np.empty(0)


def as_record(record, result, master, lens, shape):
    """What later phases need of a frame: its transform, and which of its stars is which of the session's list.

    Parameters
    ----------
    record : dict
        Star record of the frame.
    result : dict
        From ``cascade.register``.
    master : (m, 2) float64 array
        Star list on the lattice.
    lens : dict or None
        Distortion of the session.
    shape : (int, int)
    """
    stars = record["stars"]
    entry = {
        "n_detected": record["n_detected"],
        "n_stars": len(stars["x"]),
        "elongation": rounded(np.median(stars["elongation"]) if stars["x"] else np.nan, 4),
        "method": result["method"],
        "tries": result["tries"],
        "transform": None,
        "inliers": 0,
    }
    if "transform" not in result:
        return entry | {"reason": "not_registered"}
    here = starmatch.points_of(cascade.straight_stars(cascade.arrays(stars), lens))
    pairs = matching.nearest_pairs(geometry.apply(result["transform"], here), master, starmatch.LAST_REACH_PX)
    return entry | {
        "against": result["against"],
        "transform": rounded(result["transform"], 10),
        "inliers": len(result["pairs"]),
        "residual_px": None if result["residual_px"] is None else rounded(result["residual_px"], 4),
        "error_px": rounded(result["error_px"], 3),
        **geometry.describe(result["transform"], shape),
        "pairs": pairs.T,
    }


def entries(frames, placed, session):
    """Entries of all frames, (batch, star record) each; `placed` has ``as_record`` of those that are used, by name."""
    unused = {"method": "none", "tries": [], "transform": None}
    return [
        {key: record.get(key) for key in KEPT}
        | {"file": record["name"], "session": session, "batch": batch}
        | placed.get(record["name"], unused)
        for batch, record in frames
    ]


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


def check_whole(results, session, reference):
    """Stop where no frame but the reference has a place: then the lights are not of one field, or show no stars."""
    placed = sum("transform" in result for result in results)
    if placed >= min(2, len(results)):
        return
    reasons = {t["reason"] for result in results if "transform" not in result for t in result["tries"][-1:]}
    raise job.Stop(
        "registration_failed",
        f"{placed} of {len(results)} frames of {session} could be placed on the reference {reference}: "
        f"{'; '.join(sorted(reasons)[:3]) or 'no usable frame'}. Are the lights of one field, and in focus?",
    )


def luminance(path, *, pattern, defects):
    """Luminance of a light on its own pixels, without the defects: those of two frames agree where no star does."""
    from tilestack import lights
    from tilestack.kernels import prewarp, scan

    image, _ = lights.scanned(path)
    prewarp.replace_defects(image, np.column_stack([defects["y"], defects["x"]]), 1 if pattern is None else 2)
    image[:2] = image[-2:] = image[:, :2] = image[:, -2:] = np.nan  # where defects are not looked for
    return image if pattern is None else np.repeat(np.repeat(scan.binned(image), 2, 0), 2, 1)
