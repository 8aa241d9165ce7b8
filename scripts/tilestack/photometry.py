"""Relative photometry: the scale of each frame and the flux of each star, from the same stars in many frames."""

import numpy as np

# Scatter of well-exposed stars from frame to frame beyond the photon noise: scintillation, flat field, and the misfit
# of the profile at the star's place in its pixel. ASSUME 2 %; it keeps a few bright stars from deciding alone.
FLOOR = 0.02
ROUNDS, START_ROUNDS, CENTRE_ROUNDS = 30, 5, 5
# Stars that a frame must share with others to have a place among them.
FEWEST_STARS = 3


def relative(
    frame, star, log_flux, variance, n_frames, n_stars, fixed=None, anchor=None, n_channels=1, fewest=FEWEST_STARS
):
    """Solve log flux = scale of the frame + brightness of the star, robustly.

    Parameters
    ----------
    frame, star : (m,) int arrays
        Which frame and star a measurement is of.
    log_flux, variance : (m,) float64 arrays
        Natural logarithm of the flux and its variance.
    n_frames, n_stars : int
    fixed : (n_stars,) float64 array, optional
        Known brightness; NaN where unknown. Then only the scales are solved, from stars that are known.
    anchor : int, optional
        Frame whose scale is 0; needed where nothing is fixed.
    n_channels : int
        Brightness of star s in channel c is number s + c n_stars / n_channels.
    fewest : int
        Stars that a frame needs.

    Returns
    -------
    scale, scale_error : (n_frames,) float64 arrays
        NaN for a frame with fewer than `fewest` stars that lead, over frames and their stars, to the anchor or to
        known brightness: what hangs together with neither has a scale of its own that nobody knows.
    brightness : (n_stars,) float64 array
        NaN for a star without measurements.
    used : (n_frames,) int array
        Stars behind each scale.

    Notes
    -----
    Least squares in rounds; weights fall off as in Tukey's biweight at 4.685 standard deviations of the scatter that
    the frame itself shows, so variable stars and misfits do not count. The first rounds minimise the absolute
    deviations, so that the start is good too.
    """
    variance = variance + FLOOR**2
    brightness = np.full(n_stars, np.nan) if fixed is None else np.array(fixed, float)
    one_star = n_stars // n_channels
    known = (
        np.isfinite(brightness[star])
        if fixed is not None
        else _connected(frame, star % one_star, n_frames, one_star, anchor, fewest)
    )
    frame, star, log_flux, variance = frame[known], star[known], log_flux[known], variance[known]
    robust, scale = np.ones(len(frame)), np.zeros(n_frames)
    for turn in range(ROUNDS):
        weight, before = robust / variance, scale
        if fixed is None:
            scale, brightness = _solve(frame, star, log_flux, weight, n_frames, n_stars, anchor, before)
        else:
            scale = np.nan_to_num(_means(log_flux - brightness[star], weight, frame, n_frames))
        residual = (log_flux - scale[frame] - brightness[star]) / np.sqrt(variance)
        spread = np.maximum(1.4826 * _medians(np.abs(residual), frame, n_frames), 1.0)
        distance = np.abs(residual) / spread[frame]
        if turn < START_ROUNDS:
            robust = 1 / np.maximum(distance, 0.5)
        else:
            robust = np.where(distance < 4.685, (1 - (distance / 4.685) ** 2) ** 2, 0.0)
            if np.abs(scale - before).max(initial=0) < 1e-7:
                break
    weight = robust / variance
    total = np.bincount(frame, weight, n_frames)
    used = np.bincount(np.unique((frame * one_star + star % one_star)[robust > 0]) // one_star, minlength=n_frames)
    enough = used >= fewest
    scale_error = np.where(enough, spread / np.sqrt(np.maximum(total, 1e-30)), np.nan)
    scale = np.where(enough, scale, np.nan)
    if fixed is None:
        if not enough[anchor]:
            return scale * np.nan, scale_error * np.nan, brightness * np.nan, used
        brightness = _centres(log_flux - scale[frame], variance, star, n_stars)
    return scale, scale_error, brightness, used


def _connected(frame, star, n_frames, n_stars, anchor, fewest):
    """Which measurements are of frames that shared stars tie, one frame after the other, to the anchor."""
    pairs = np.unique(frame * n_stars + star)
    frames, stars = pairs // n_stars, pairs % n_stars
    tied = np.zeros(n_frames, bool)
    tied[anchor] = True
    while True:
        known = np.zeros(n_stars, bool)
        known[stars[tied[frames]]] = True
        more = tied | (np.bincount(frames[known[stars]], minlength=n_frames) >= fewest)
        if (more == tied).all():
            return tied[frame]
        tied = more


def _solve(frame, star, value, weight, n_frames, n_stars, anchor, start):
    """Least squares of value = scale + brightness, the anchor at scale 0: both; NaN without weight."""
    from scipy import sparse  # 0.2 s that jobs which only read scales need not wait
    from scipy.sparse import linalg

    table = sparse.csr_matrix((weight, (frame, star)), shape=(n_frames, n_stars))
    across = table.T.tocsr()
    of_star, of_frame = np.bincount(star, weight, n_stars), np.bincount(frame, weight, n_frames)
    of_star = np.where(of_star > 0, of_star, np.inf)
    free = (of_frame > 0) & (np.arange(n_frames) != anchor)
    # Brightness drops out: what is left is a system in the scales.
    right = np.bincount(frame, weight * value, n_frames) - table @ (
        np.bincount(star, weight * value, n_stars) / of_star
    )
    whole = np.zeros(n_frames)

    def of_scales(part):
        whole[free] = part
        return (of_frame * whole - table @ ((across @ whole) / of_star))[free]

    n_free = int(free.sum())
    scale = np.zeros(n_frames)
    if n_free:
        system = linalg.LinearOperator((n_free, n_free), of_scales, dtype=float)
        jacobi = linalg.LinearOperator((n_free, n_free), lambda part: part / of_frame[free], dtype=float)
        scale[free], failed = linalg.cg(system, right[free], start[free], rtol=1e-10, maxiter=5000, M=jacobi)
        if failed:
            raise ValueError(f"the scales of {n_free} frames do not settle in 5000 steps: are all weights finite?")
    brightness = _means(value - scale[frame], weight, star, n_stars)
    return scale, brightness


def _centres(values, variance, group, n_groups):
    """Robust centre of each group, by the scatter that the group itself shows; NaN of an empty one.

    A star under the edge of a cloud differs from the frame's scale by far more than the frame's scatter. Were those
    frames left out, its brightness would come from the few where the cloud is thin, and all scales around it be off.
    """
    known = np.isfinite(values)
    values, variance, group = values[known], variance[known], group[known]
    centre = _medians(values, group, n_groups)
    for _ in range(CENTRE_ROUNDS):
        away = np.abs(values - centre[group])
        spread = np.maximum(1.4826 * _medians(away, group, n_groups), FLOOR)[group]
        robust = np.where(away < 4.685 * spread, (1 - (away / (4.685 * spread)) ** 2) ** 2, 0.0)
        centre = _means(values, robust / (variance + spread**2), group, n_groups)
    return centre


def _means(values, weight, group, n_groups):
    total = np.bincount(group, weight, n_groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.bincount(group, weight * values, n_groups) / np.where(total > 0, total, np.nan)


def _medians(values, group, n_groups):
    """Median of each group; NaN of an empty one."""
    n = np.bincount(group, minlength=n_groups)
    order = np.argsort(group, kind="stable")
    place = np.arange(len(values)) - (np.cumsum(n) - n)[group[order]]
    # A line for each group, with nothing but infinities behind its values.
    lines = np.full((n_groups, n.max(initial=1)), np.inf)
    lines[group[order], place] = values[order]
    lines.sort(axis=1)
    each = np.arange(n_groups)
    middle = (lines[each, np.maximum(n - 1, 0) // 2] + lines[each, n // 2]) / 2
    return np.where(n > 0, middle, np.nan)
