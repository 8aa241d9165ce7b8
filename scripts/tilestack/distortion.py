"""Distortion of a telescope: a low-order polynomial that all frames of a session share, relative to the lattice."""

import numpy as np

N_TERMS = 7  # u^2, u v, v^2, u^3, u^2 v, u v^2, v^3
# Fewer stars than this do not bear 14 coefficients: on the 30 of the Seestar frames they followed the errors of single
# stars, and positions became worse (0.15 to 0.20 px against astrometry.net).
FEWEST = 60


def terms(points, model):
    """Polynomial terms of second and third order at points x, y: (n, 7)."""
    u, v = ((points - np.array(model["centre"])) / model["length"]).T
    return np.column_stack([u * u, u * v, v * v, u**3, u * u * v, u * v * v, v**3])


def straightened(points, model):
    """Points of the frame, (n, 2) x, y, as they were without distortion; no model leaves them as they are."""
    if model is None:
        return points
    return points + terms(points, model) @ np.array(model["coefficients"])


def as_array(model):
    """The model as ``kernels.warp`` takes it: (9, 2) float64; None of none."""
    if model is None:
        return None
    length = model["length"]
    return np.vstack([[length, length], np.array(model["centre"]) / length, model["coefficients"]])


def fit(points, missing, variance, shape):
    """Fit the distortion to what is missing between stars and where they should be.

    Parameters
    ----------
    points : (n, 2) float64 array, pixels
        x, y of stars in the raw frame, each star of the sky once: its errors repeat from frame to frame, so more frames
        tell no more about the telescope.
    missing : (n, 2) float64 array, pixels
        Where the lattice puts them less where they are, in the raw frame, under each frame's own affine transform.
    variance : (n,) float64 array
    shape : (int, int)
        Rows and columns of the frame.

    Returns
    -------
    dict or None
        ``centre`` (x, y), ``length`` (px), ``coefficients`` ((7, 2): pixels in x and y); None where the data do not ask
        for it: fewer than FEWEST stars, or no lower Schwarz criterion with its 14 parameters.
    """
    model = {"centre": [(shape[1] - 1) / 2, (shape[0] - 1) / 2], "length": max(shape) / 2}
    if len(points) < FEWEST:
        return None
    linear = np.column_stack([np.ones(len(points)), (points - np.array(model["centre"])) / model["length"]])
    matrix = np.column_stack([linear, terms(points, model)])
    kept, root = np.ones(len(points), bool), 1 / np.sqrt(variance)[:, None]
    for _ in range(4):
        solution = np.linalg.lstsq((matrix * root)[kept], (missing * root)[kept], rcond=None)[0]
        distance = np.hypot(*(missing - matrix @ solution).T) * root[:, 0]
        kept = distance <= 3 * np.median(distance[kept]) / 1.1774
    plain = np.linalg.lstsq((linear * root)[kept], (missing * root)[kept], rcond=None)[0]
    before, after = (
        ((root * (missing - part @ solved))[kept] ** 2).sum() for part, solved in ((linear, plain), (matrix, solution))
    )
    n = 2 * kept.sum()
    if n * np.log(after / n) + 2 * N_TERMS * np.log(n) >= n * np.log(before / n):
        return None
    return model | {"coefficients": solution[3:].tolist()}
