"""Motion of the telescope over a session, from the frames that match: for checks, and for frames that show no stars."""

import numpy as np

from tilestack import geometry

# A frame that is placed worse than this would smear the others.
MOST_ERROR_PX = 2.0
# Checks against the session: what a frame may differ by, beyond what the others differ by.
SCALE_TOLERANCE, SHEAR_TOLERANCE, ROTATION_TOLERANCE_DEG, RESIDUAL_TOLERANCE_PX = 0.005, 0.01, 2.0, 0.5
FEWEST_FRAMES = 5


class Motion:
    """Place and angle of matched frames over time.

    Parameters
    ----------
    times : (n,) float64 array
        Time of each matched frame; seconds, or its place in the session.
    transforms : list of (2, 3) float64 arrays
    shape : (int, int)
        Rows and columns of the frames.
    """

    def __init__(self, times, transforms, shape):
        order = np.argsort(times, kind="stable")  # frames come by name: light_10 before light_2
        transforms = [transforms[k] for k in order]
        self.times, self.shape = np.asarray(times, float)[order], shape
        self.told = [geometry.describe(transform, shape) for transform in transforms]
        self.centre = np.array([[(shape[1] - 1) / 2, (shape[0] - 1) / 2]])
        self.places = np.array([geometry.apply(transform, self.centre)[0] for transform in transforms])
        self.angles = np.unwrap(np.radians([told["rotation_deg"] for told in self.told]))
        self.scale = float(np.median([told["scale"] for told in self.told]))
        self.parity = 1 if sum(told["parity"] for told in self.told) >= 0 else -1

    def predict(self, time, without=None):
        """Transform at a time, between its neighbours; and half of what these differ by, in pixels.

        Parameters
        ----------
        time : float
        without : int, optional
            A frame to leave out.

        Returns
        -------
        transform : (2, 3) float64 array
        apart : float
            Half the distance between the neighbours, or their whole distance where the time lies outside.
        """
        known = np.arange(len(self.times))
        known = known[known != without]
        at = int(np.clip(np.searchsorted(self.times[known], time), 1, len(known) - 1))
        one, other = known[at - 1], known[at]
        span = self.times[other] - self.times[one]
        share = (time - self.times[one]) / span if span > 0 else 0.5
        inside = 0 <= share <= 1
        share = float(np.clip(share, 0, 1))  # beyond the ends: as the nearest
        place = (1 - share) * self.places[one] + share * self.places[other]
        angle = (1 - share) * self.angles[one] + share * self.angles[other]
        turn = self.scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = turn @ np.diag([1.0, self.parity])
        apart = np.hypot(*(self.places[other] - self.places[one])) * (0.5 if inside else 1.0)
        return np.column_stack([matrix, place - matrix @ self.centre[0]]), float(apart)

    def error_px(self):
        """Median distance by which the others predict a matched frame, in its corners."""
        if len(self.times) < 3:
            return np.inf
        h, w = self.shape
        corners = np.array([[0, 0], [w - 1, 0], [0, h - 1], [w - 1, h - 1]], float)
        errors = []
        for k, time in enumerate(self.times):
            predicted, _ = self.predict(time, without=k)
            angle, place, told = self.angles[k], self.places[k], self.told[k]
            turn = told["scale"] * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            own = turn @ np.diag([1.0, told["parity"]])
            own = np.column_stack([own, place - own @ self.centre[0]])
            errors.append(np.hypot(*(geometry.apply(predicted, corners) - geometry.apply(own, corners)).T).mean())
        return float(np.median(errors))


def suspicious(results, shape):
    """Which matched frames do not fit into their session, and why.

    Parameters
    ----------
    results : list of dict
        Of the frames in their order: ``transform``, ``residual_px``, ``pairs``; frames without a transform have none.
    shape : (int, int)

    Returns
    -------
    dict
        Reason by place in the list. A session of fewer than FEWEST_FRAMES matched frames has none to compare with.
    """
    known = [k for k, result in enumerate(results) if "transform" in result]
    if len(known) < FEWEST_FRAMES:
        return {}
    told = {k: geometry.describe(results[k]["transform"], shape) for k in known}
    parity = 1 if sum(told[k]["parity"] for k in known) >= 0 else -1
    typical = {key: np.median([told[k][key] for k in known]) for key in ("scale", "shear")}
    residual = np.median([results[k]["residual_px"] for k in known])
    reasons = {}
    for place, k in enumerate(known):
        one = told[k]
        around = [told[known[j]]["rotation_deg"] for j in (place - 1, place + 1) if 0 <= j < len(known)]
        turned = min(abs((one["rotation_deg"] - other + 180) % 360 - 180) for other in around)
        if results[k]["residual_px"] < 1e-6:
            continue  # the reference itself
        if one["parity"] != parity:
            reasons[k] = "mirrored against its session"
        elif abs(np.log(one["scale"] / typical["scale"])) > SCALE_TOLERANCE:
            reasons[k] = f"scale {one['scale']:.4f}, its session has {typical['scale']:.4f}"
        elif one["shear"] > typical["shear"] + SHEAR_TOLERANCE:
            reasons[k] = f"shear {one['shear']:.4f}, its session has {typical['shear']:.4f}"
        elif results[k]["residual_px"] > 3 * residual + RESIDUAL_TOLERANCE_PX:
            reasons[k] = f"residual {results[k]['residual_px']:.2f} px, its session has {residual:.2f}"
        elif turned > ROTATION_TOLERANCE_DEG and len(results[k]["pairs"]) < 10:
            reasons[k] = f"turned by {turned:.1f} degrees against its neighbours, by {len(results[k]['pairs'])} stars"
    return reasons
