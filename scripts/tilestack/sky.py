"""The smooth sky difference of a frame to the reference: fitted to mesh cells, evaluated anywhere on the lattice."""

import numpy as np

from tilestack.lattice import bilinear, filled

ORDERS = {"constant": 0, "plane": 1, "quadratic": 2}
# Fewest frames that have anything in common.
FEWEST_IN_COMMON = 5


def terms(y, x, order):
    """Polynomial terms 1, v, u, v^2, v u, u^2 of scaled positions, as far as the order goes: (n, 1, 3 or 6)."""
    columns = [np.ones_like(y), y, x, y * y, y * x, x * x]
    return np.stack(columns[: (1, 3, 6)[order]], axis=-1)


def fit(difference, rows, columns, shape, model, mesh_px):
    """Fit a sky model to the difference of mesh cells.

    Parameters
    ----------
    difference : (ny, nx) float64 array, ADU
        Frame less scaled reference; NaN where either has none.
    rows, columns : (ny,), (nx,) float64 arrays
        Lattice positions of the cells.
    shape : (int, int)
        Rows and columns of the reference frame; scales the positions.
    model : str
        ``constant``, ``plane``, ``quadratic`` or ``mesh``.
    mesh_px : int
        Pitch of the ``mesh`` model.

    Returns
    -------
    dict
        ``model``, ``centre`` (y, x), ``length`` and ``coefficients`` of ``terms``; of a mesh besides ``rows``,
        ``columns`` and ``residual`` (its cells, on top of a plane). ``n_cells`` and ``rms`` tell of the fit.

    Notes
    -----
    From a start of least absolute deviations, which a nebula that one side lacks does not lead astray, four rounds of
    least squares with clipping at 3 robust standard deviations; of too few cells a lower order.
    """
    centre, length = [(n - 1) / 2 for n in shape], max(shape) / 2
    y, x = np.meshgrid((rows - centre[0]) / length, (columns - centre[1]) / length, indexing="ij")
    known = np.isfinite(difference)
    values, y_known, x_known = difference[known], y[known], x[known]
    order = ORDERS.get(model, 1)
    while order and len(values) < 2 * (3, 6)[order - 1]:
        order -= 1
    result = {"model": model, "centre": centre, "length": length, "n_cells": int(known.sum())}
    if not len(values):
        return result | {"coefficients": [0.0], "rms": None}
    matrix = terms(y_known, x_known, order)
    coefficients = _least_deviations(matrix, values)
    for _ in range(4):
        residual = values - matrix @ coefficients
        kept = np.abs(residual) <= 3 * max(1.4826 * np.median(np.abs(residual)), 1e-12)
        if kept.sum() < 2 * matrix.shape[1]:
            break
        coefficients = np.linalg.lstsq(matrix[kept], values[kept], rcond=None)[0]
    residual = values - matrix @ coefficients
    result |= {"coefficients": coefficients.tolist(), "rms": float(residual[kept].std())}
    if model == "mesh":
        whole = np.full(difference.shape, np.nan)
        whole[known] = np.where(kept, residual, np.nan)
        result |= _coarse(whole, rows, columns, mesh_px)
    return result


def add_common(fits, places, scale, mesh_px):
    """Add to the models of a session what its frames have in common beyond them, in place.

    Parameters
    ----------
    fits : list of (dict, (ny, nx) float64 array)
        Model and difference of each frame, as from and for ``fit``.
    places : list of ((ny,) array, (nx,) array)
        Lattice positions of its cells.
    scale : (n,) float64 array
        Photometric scales: what is common is common at scale 1.
    mesh_px : int
        Side of a cell.
    """
    first = [min(place[axis][0] for place in places) for axis in (0, 1)]
    size = [int(round((max(place[axis][-1] for place in places) - first[axis]) / mesh_px)) + 1 for axis in (0, 1)]
    stack = np.full((len(fits), *size), np.nan)
    for k, ((model, difference), (rows, columns)) in enumerate(zip(fits, places, strict=True)):
        j, i = (int(round((at[0] - start) / mesh_px)) for at, start in zip((rows, columns), first, strict=True))
        left = (difference - evaluate(model, rows, columns)) / scale[k]
        stack[k, j : j + len(rows), i : i + len(columns)] = left
    known = np.isfinite(stack).sum(0) >= max(len(fits) / 2, FEWEST_IN_COMMON)
    if not known.any():
        return
    common = np.full(known.shape, np.nan)
    common[known] = np.nanmedian(stack[:, known], axis=0)
    common = filled(common)
    axes = [(start + mesh_px * np.arange(n)).tolist() for start, n in zip(first, size, strict=True)]
    for (model, _), t in zip(fits, scale, strict=True):
        model |= {"rows": axes[0], "columns": axes[1], "residual": (t * common).tolist()}


def _least_deviations(matrix, values):
    """Coefficients of least absolute deviations, by reweighted least squares."""
    weight = np.ones(len(values))
    for _ in range(12):
        root = np.sqrt(weight)[:, None]
        coefficients = np.linalg.lstsq(matrix * root, values * root[:, 0], rcond=None)[0]
        deviation = np.abs(values - matrix @ coefficients)
        weight = 1 / np.maximum(deviation, max(0.1 * np.median(deviation), 1e-9))
    return coefficients


def _coarse(residual, rows, columns, mesh_px):
    """Medians of the residual in cells of the coarse mesh."""
    j, i = ((positions // mesh_px).astype(int) for positions in (rows, columns))
    cells_y, cells_x = np.arange(j.min(), j.max() + 1), np.arange(i.min(), i.max() + 1)
    coarse = np.full((len(cells_y), len(cells_x)), np.nan)
    for a, cell_y in enumerate(cells_y):
        for b, cell_x in enumerate(cells_x):
            values = residual[np.ix_(j == cell_y, i == cell_x)]
            if np.isfinite(values).sum() >= 3:
                coarse[a, b] = np.nanmedian(values)
    if np.isnan(coarse).all():
        coarse[:] = 0.0
    return {
        "rows": ((cells_y + 0.5) * mesh_px - 0.5).tolist(),
        "columns": ((cells_x + 0.5) * mesh_px - 0.5).tolist(),
        "residual": filled(coarse).tolist(),
    }


def evaluate(result, rows, columns):
    """Value of a fitted model on a grid of lattice positions: (len(rows), len(columns)) float64, ADU."""
    (yc, xc), length = result["centre"], result["length"]
    y, x = np.meshgrid((rows - yc) / length, (columns - xc) / length, indexing="ij")
    coefficients = np.array(result["coefficients"])
    order = {1: 0, 3: 1, 6: 2}[len(coefficients)]
    value = terms(y, x, order) @ coefficients
    if "residual" in result:
        at_y, at_x = (_fractional(np.array(result[key]), at) for key, at in (("rows", rows), ("columns", columns)))
        value = value + bilinear(np.array(result["residual"]), *np.meshgrid(at_y, at_x, indexing="ij"))
    return value


def _fractional(positions, at):
    step = positions[1] - positions[0] if len(positions) > 1 else 1.0
    return (at - positions[0]) / step


def mesh_difference(mesh, origin, reference, reference_origin, scale):
    """Mesh of a frame less `scale` times that of the reference, on the cells of the frame; NaN where one has none."""
    difference = np.full(mesh.shape, np.nan)
    j0, i0 = origin[0] - reference_origin[0], origin[1] - reference_origin[1]
    ys, xs = (
        slice(max(0, -start), max(max(0, -start), min(n, n_reference - start)))
        for start, n, n_reference in zip((j0, i0), mesh.shape, reference.shape, strict=True)
    )
    part = reference[ys.start + j0 : ys.stop + j0, xs.start + i0 : xs.stop + i0]
    difference[ys, xs] = mesh[ys, xs] - scale * part
    return difference


def gradient(result):
    """Size (ADU over the longer side) and direction (degrees, from x to y) of the linear part of a model."""
    coefficients = result["coefficients"]
    if len(coefficients) < 3:
        return 0.0, 0.0
    by_y, by_x = coefficients[1], coefficients[2]
    return float(2 * np.hypot(by_y, by_x)), float(np.degrees(np.arctan2(by_y, by_x)))
