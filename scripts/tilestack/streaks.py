"""Trails of satellites and aircraft among the rejected pixels of a frame, with their faint parts."""

import numpy as np
from numba import njit

# Angles of the search: a line through the middle of a frame of 2000 px is then off by 1.5 px at its ends at most.
N_ANGLES, STEP_PX = 2048, 2.0
# Points that vote; more of them only cost time.
MOST_VOTERS = 6000
# A streak fills so many bins of its line, more than chance puts there, and a share of those between its ends.
BIN_PX, FEWEST_BINS, LEAST_FILLED = 8.0, 12, 0.3
NEAR_PX = 3.0
MOST_STREAKS = 8


def strips(y, x, box):
    """Pixels of the streaks of a frame.

    Parameters
    ----------
    y, x : (n,) int arrays
        Rejected pixels.
    box : (int, int, int, int)
        y0, x0, rows, columns in which the frame lies.

    Returns
    -------
    y, x : (m,) int64 arrays
        All pixels of each streak, from one length before its first rejected pixel to one length after its last: what
        tumbles or fades is below the limit of single pixels there.

    Notes
    -----
    Hough transform of the rejected pixels, each peak refined by least squares; deterministic.
    """
    y, x = np.asarray(y, float), np.asarray(x, float)
    centre = np.array([box[0] + (box[2] - 1) / 2, box[1] + (box[3] - 1) / 2])
    points = np.column_stack([y, x]) - centre
    radius = 0.5 * np.hypot(box[2], box[3])
    found = []
    for _ in range(MOST_STREAKS):
        if len(points) < FEWEST_BINS:
            break
        # Two pixels of a wide trail side by side say no more than one.
        voters = np.unique(np.floor(points / STEP_PX), axis=0) * STEP_PX
        voters = voters[:: -(-len(voters) // MOST_VOTERS)]
        normal, offset = _peak(voters, radius)
        line = _refined(points, normal, offset)
        if line is None:
            break
        normal, offset, half_width, low, high = line
        along = np.array([-normal[1], normal[0]])
        filled = len(np.unique(np.floor(points[_near(points, normal, offset, NEAR_PX)] @ along / BIN_PX)))
        chance = len(points) * 2 * NEAR_PX * (high - low) / (np.pi * radius**2)
        if filled < FEWEST_BINS + chance + 6 * np.sqrt(chance) or filled * BIN_PX < LEAST_FILLED * (high - low):
            break
        found.append(_strip(normal, offset, half_width, 2 * low - high, 2 * high - low, centre, box))
        points = points[~_near(points, normal, offset, half_width + NEAR_PX)]
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))


def _near(points, normal, offset, reach):
    return np.abs(points @ normal - offset) <= reach


def _peak(voters, radius):
    """Normal (y, x) and offset of the line with most votes."""
    angles = np.arange(N_ANGLES) * np.pi / N_ANGLES
    angle, row = _vote(voters, np.sin(angles), np.cos(angles), radius, STEP_PX)
    return np.array([np.sin(angles[angle]), np.cos(angles[angle])]), (row + 0.5) * STEP_PX - radius


@njit(cache=True)
def _vote(voters, sines, cosines, radius, step):
    n_rows = int(2 * radius / step) + 2
    best, best_angle, best_row = -1, 0, 0
    votes = np.zeros(n_rows, np.int64)
    for a in range(len(sines)):
        votes[:] = 0
        for k in range(len(voters)):
            votes[int((voters[k, 0] * sines[a] + voters[k, 1] * cosines[a] + radius) / step)] += 1
        for r in range(n_rows - 1):
            if votes[r] + votes[r + 1] > best:  # a line may lie between two rows
                best, best_angle, best_row = votes[r] + votes[r + 1], a, r
    return best_angle, best_row + 0.5


def _refined(points, normal, offset):
    """Line by least squares through the points near it: normal, offset, half width, first and last place along it."""
    for reach in (2 * NEAR_PX, NEAR_PX, NEAR_PX):
        mine = points[_near(points, normal, offset, reach)]
        if len(mine) < FEWEST_BINS:
            return None
        middle = mine.mean(0)
        _, _, axes = np.linalg.svd(mine - middle, full_matrices=False)
        normal = axes[1]
        offset = float(middle @ normal)
    across = np.abs(mine @ normal - offset)
    along = mine @ np.array([-normal[1], normal[0]])
    low, high = np.quantile(along, [0.01, 0.99])
    return normal, offset, max(1.0, float(np.quantile(across, 0.95))), float(low), float(high)


def _strip(normal, offset, half_width, low, high, centre, box):
    """Pixels of a box within half a width of a line, between two places along it."""
    along = np.array([-normal[1], normal[0]])
    # Walk along the axis in which the line is longer, and fill across the other.
    axis = int(abs(along[1]) > abs(along[0]))
    ends = sorted(float(centre[axis] + offset * normal[axis] + place * along[axis]) for place in (low, high))
    first, last = (int(np.clip(round(end), box[axis], box[axis] + box[2 + axis] - 1)) for end in ends)
    walk = np.arange(first, last + 1)
    other = 1 - axis
    middle = centre[other] + (offset - (walk - centre[axis]) * normal[axis]) / normal[other]
    reach = half_width / abs(normal[other])
    steps = np.arange(-int(np.ceil(reach)), int(np.ceil(reach)) + 1)
    place = np.round(middle[:, None] + steps * min(1.0, reach / max(steps[-1], 1))).astype(np.int64)
    walk = np.broadcast_to(walk[:, None], place.shape)
    inside = (place >= box[other]) & (place < box[other] + box[2 + other])
    pair = {axis: walk[inside], other: place[inside]}
    return pair[0].astype(np.int64), pair[1].astype(np.int64)
