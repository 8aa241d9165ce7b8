"""Trails of satellites and aircraft among the rejected pixels of a frame, with their faint parts."""

import numpy as np
from numba import njit

# Angles of the search: a line through the middle of a frame of 2000 px is then off by 1.5 px at its ends at most.
N_ANGLES, STEP_PX = 2048, 2.0
# Points that vote; more of them only cost time.
MOST_VOTERS = 6000
# A streak fills so many bins of its line, more than the lines beside it, and a share of those between its ends.
BIN_PX, FEWEST_BINS, LEAST_FILLED = 8.0, 12, 0.3
NEAR_PX, WIDEST_PX = 3.0, 24
# Lines beside a line, which tell what chance fills.
BESIDE_PX = (-39, -32, -25, -18, 18, 25, 32, 39)
MOST_STREAKS, MOST_FAILED = 8, 1


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
    found, failed = [], 0
    for _ in range(MOST_STREAKS):
        if len(points) < FEWEST_BINS or failed > MOST_FAILED:
            break
        # Two pixels of a wide trail side by side say no more than one.
        voters = _distinct(np.floor(points / STEP_PX).astype(np.int64)) * STEP_PX
        voters = voters[:: -(-len(voters) // MOST_VOTERS)]
        normal, offset = _refined(points, *_peak(voters, radius))
        if normal is None:
            break
        across = points @ normal - offset
        place = np.floor(points @ np.array([-normal[1], normal[0]]) / BIN_PX).astype(int)
        first, last = _fullest_run(np.unique(place[np.abs(across) <= NEAR_PX]))
        inside = (place >= first) & (place <= last)
        # What chance puts on a line is what lies on its neighbours: galaxies and halos are no streaks.
        chance = np.median([_filled(place[inside], across[inside] - side) for side in BESIDE_PX])
        half_width = _half_width(np.abs(across[inside]))
        if _filled(place[inside], across[inside]) >= FEWEST_BINS + chance + 6 * np.sqrt(chance):
            low, high = first * BIN_PX, (last + 1) * BIN_PX
            found.append(_strip(normal, offset, half_width, 2 * low - high, 2 * high - low, centre, box))
        else:
            failed += 1
        points = points[np.abs(across) > half_width + NEAR_PX]
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return tuple(_distinct(np.concatenate(found, axis=1).T).T)


def _distinct(places):
    """Rows of whole numbers (n, 2), each once, sorted: as ``numpy.unique`` by rows, which sorts records."""
    low, high = places.min(0), places.max(0)
    width = high[1] - low[1] + 1
    keys = np.unique((places[:, 0] - low[0]) * width + (places[:, 1] - low[1]))
    return np.column_stack(np.divmod(keys, width)) + low


def _filled(place, across):
    """Bins along a line that hold a point near it."""
    return len(np.unique(place[np.abs(across) <= NEAR_PX]))


def _fullest_run(bins):
    """First and last of the bins between which most are filled beyond a share LEAST_FILLED."""
    best, total, start, before, ends = 0.0, 0.0, bins[0], bins[0], (bins[0], bins[0])
    for place in bins:
        total -= LEAST_FILLED * max(place - before - 1, 0)
        if total <= 0:
            total, start = 0.0, place
        total += 1 - LEAST_FILLED
        if total > best:
            best, ends = total, (start, place)
        before = place
    return ends


def _half_width(distance):
    """Half the width of a streak from the distances of points from its line: as far as they are more than beside it."""
    counts = np.bincount(np.rint(distance[distance < WIDEST_PX]).astype(int), minlength=WIDEST_PX)
    counts[0] *= 2
    thick = counts > 0.25 * counts[:4].max() + np.median(counts[-8:])
    return float(WIDEST_PX) if thick.all() else max(1.0, float(np.argmin(thick)) - 0.5)


def _near(points, normal, offset, reach):
    return np.abs(points @ normal - offset) <= reach


def _peak(voters, radius):
    """Normal (y, x) and offset of the line with most votes."""
    angles = np.arange(N_ANGLES) * np.pi / N_ANGLES
    angle, row = _vote(voters, np.sin(angles), np.cos(angles), radius, STEP_PX)
    return np.array([np.sin(angles[angle]), np.cos(angles[angle])]), (row + 0.5) * STEP_PX - radius


@njit(cache=True, nogil=True)
def _vote(voters, sines, cosines, radius, step):
    n_rows = int(2 * radius / step) + 2
    best, best_angle, best_row = -1, 0, 0
    votes, per_step = np.zeros(n_rows, np.int32), 1 / step
    for a in range(len(sines)):
        votes[:] = 0
        for k in range(len(voters)):
            row = (voters[k, 0] * sines[a] + voters[k, 1] * cosines[a] + radius) * per_step
            votes[np.uintp(int(row))] += 1  # unsigned: of others numba looks whether they count from the end
        most = _most_of_two(votes[:-1], votes[1:])
        if most > best:
            best, best_angle = most, a
            best_row = np.argmax(votes[:-1] + votes[1:])
    return best_angle, best_row + 0.5


@njit
def _most_of_two(votes, following):
    """Most votes of two rows side by side, as a line may lie between them; without branches."""
    most = np.int32(-1)
    for r in range(len(votes)):
        most = max(most, votes[r] + following[r])
    return most


def _refined(points, normal, offset):
    """Normal and offset of a line by least squares through the points near it; None where there are too few."""
    for reach in (2 * NEAR_PX, NEAR_PX, NEAR_PX):
        mine = points[_near(points, normal, offset, reach)]
        if len(mine) < FEWEST_BINS:
            return None, None
        middle = mine.mean(0)
        _, _, axes = np.linalg.svd(mine - middle, full_matrices=False)
        normal = axes[1]
        offset = float(middle @ normal)
    return normal, offset


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
