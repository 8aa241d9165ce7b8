"""Affine transforms between frames and the lattice.

A transform is a (2, 3) float64 array that maps (x, y, 1) to (x, y); 0 is the centre of the first pixel. Images are
indexed [y, x] all the same.
"""

import numpy as np

IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def apply(transform, points):
    """Map (n, 2) points x, y."""
    return points @ transform[:, :2].T + transform[:, 2]


def inverse(transform):
    """The transform back."""
    matrix = np.linalg.inv(transform[:, :2])
    return np.column_stack([matrix, -matrix @ transform[:, 2]])


def compose(outer, inner):
    """The transform that does `inner` first, then `outer`."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def area_scale(transform):
    """Area in the image of the transform that a unit area becomes."""
    return abs(np.linalg.det(transform[:, :2]))


def describe(transform, shape):
    """Scale, rotation, shear, parity and shift of a transform, for records.

    Parameters
    ----------
    transform : (2, 3) array
    shape : (int, int)
        Rows and columns of the frame.

    Returns
    -------
    dict
        ``scale`` (geometric mean of both axes), ``rotation_deg`` (of the frame's x axis, from x to y), ``shear`` (ratio
        of the larger to the smaller scale, less 1), ``parity`` (-1: mirrored) and ``shift_px`` (y, x: by how much the
        centre of the frame moves).
    """
    matrix = transform[:, :2]
    largest, smallest = np.linalg.svd(matrix, compute_uv=False)
    parity = 1 if np.linalg.det(matrix) > 0 else -1
    flip = np.diag([1.0, parity])
    rotation = matrix @ flip
    angle = np.degrees(np.arctan2(rotation[1, 0] - rotation[0, 1], rotation[0, 0] + rotation[1, 1]))
    centre = np.array([[(shape[1] - 1) / 2, (shape[0] - 1) / 2]])
    dx, dy = (apply(transform, centre) - centre)[0]
    return {
        "scale": float(np.sqrt(largest * smallest)),
        "rotation_deg": float(angle),
        "shear": float(largest / smallest - 1),
        "parity": parity,
        "shift_px": [float(dy), float(dx)],
    }


def footprint_box(transform, shape, even):
    """Box of the lattice that holds a moved frame.

    Parameters
    ----------
    transform : (2, 3) array
        Frame to lattice.
    shape : (int, int)
        Rows and columns of the frame.
    even : bool
        Move the origin down to even numbers, so that the Bayer phase of the lattice holds in the box.

    Returns
    -------
    (int, int, int, int)
        y0, x0, rows, columns.
    """
    h, w = shape
    corners = apply(transform, np.array([[0, 0], [w - 1, 0], [0, h - 1], [w - 1, h - 1]], float))
    x0, y0 = (int(v) for v in np.floor(corners.min(0) + 1e-9))
    x1, y1 = (int(v) for v in np.ceil(corners.max(0) - 1e-9))
    if even:
        y0, x0 = y0 - y0 % 2, x0 - x0 % 2
    return y0, x0, y1 - y0 + 1, x1 - x0 + 1


def union_box(boxes):
    """The smallest box y0, x0, rows, columns that holds all of the boxes; of none a cell of 2x2 at the origin."""
    if not boxes:
        return 0, 0, 2, 2
    boxes = np.array(boxes)
    (y0, x0), (y1, x1) = boxes[:, :2].min(0), (boxes[:, :2] + boxes[:, 2:]).max(0)
    return int(y0), int(x0), int(y1 - y0), int(x1 - x0)


def fit(source, target, weight, model):
    """Weighted least squares for a transform.

    Parameters
    ----------
    source, target : (n, 2) float64 arrays
        Points x, y.
    weight : (n,) float64 array
    model : str
        ``similarity`` (shift, rotation, scale), ``mirrored`` (the same, reflected) or ``affine``.

    Returns
    -------
    (2, 3) float64 array
    """
    mean_s = (weight[:, None] * source).sum(0) / weight.sum()
    mean_t = (weight[:, None] * target).sum(0) / weight.sum()
    s, t = source - mean_s, target - mean_t
    if model == "affine":
        matrix = np.linalg.solve((weight[:, None] * s).T @ s, (weight[:, None] * s).T @ t).T
    else:
        sign = -1.0 if model == "mirrored" else 1.0
        # Of the matrices ((a, -sign b), (b, sign a)) the best, in closed form.
        power = (weight * (s**2).sum(1)).sum()
        a = (weight * (s[:, 0] * t[:, 0] + sign * s[:, 1] * t[:, 1])).sum() / power
        b = (weight * (s[:, 0] * t[:, 1] - sign * s[:, 1] * t[:, 0])).sum() / power
        matrix = np.array([[a, -sign * b], [b, sign * a]])
    return np.column_stack([matrix, mean_t - matrix @ mean_s])
