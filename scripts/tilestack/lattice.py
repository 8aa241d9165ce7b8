"""The lattice of a run, the mesh of sky and noise, and the tiles: all anchored to the grid of the reference frame."""

import numpy as np


def mesh_px(shape):
    """Side of a mesh cell: a power of two that gives the longer side of the reference frame 12 to 24 cells."""
    return int(np.clip(2 ** np.floor(np.log2(max(shape) / 12)), 32, 512))


def mesh_centres(origin, shape, mesh):
    """Lattice rows and columns of the centres of mesh cells: two arrays (ny,), (nx,)."""
    return tuple((first + np.arange(n)) * mesh + (mesh - 1) / 2 for first, n in zip(origin, shape, strict=True))


def tile_range(box, stride):
    """Indices of the tiles whose centres a box needs for interpolation anywhere in it.

    Tile (j, i) has its centre at lattice position ((j + 1/2) stride - 1/2, (i + 1/2) stride - 1/2).

    Returns
    -------
    (int, int, int, int)
        First row, first column, number of rows, number of columns.
    """
    y0, x0, rows, columns = box
    first = [int(np.floor((start + 0.5) / stride - 0.5)) for start in (y0, x0)]
    last = [int(np.floor((start + n - 0.5) / stride - 0.5)) + 1 for start, n in ((y0, rows), (x0, columns))]
    return first[0], first[1], last[0] - first[0] + 1, last[1] - first[1] + 1


def tile_centres(tiles, stride):
    """Lattice rows and columns of the centres of a range of tiles: two arrays."""
    j0, i0, ny, nx = tiles
    return (j0 + np.arange(ny) + 0.5) * stride - 0.5, (i0 + np.arange(nx) + 0.5) * stride - 0.5


def bilinear(values, y, x):
    """Interpolate a grid at fractional indices, held to its rims; NaN values spread to what they touch.

    Parameters
    ----------
    values : (..., ny, nx) array
    y, x : arrays of one shape
        Indices into the last two axes.
    """
    ny, nx = values.shape[-2:]
    y, x = np.clip(y, 0, ny - 1), np.clip(x, 0, nx - 1)
    j, i = np.minimum(y.astype(int), max(ny - 2, 0)), np.minimum(x.astype(int), max(nx - 2, 0))
    j1, i1 = np.minimum(j + 1, ny - 1), np.minimum(i + 1, nx - 1)
    fy, fx = y - j, x - i
    top = values[..., j, i] * (1 - fx) + values[..., j, i1] * fx
    bottom = values[..., j1, i] * (1 - fx) + values[..., j1, i1] * fx
    return top * (1 - fy) + bottom * fy


def filled(mesh):
    """A mesh (ny, nx) with NaN cells filled by the mean of their neighbours, step by step; all NaN stays NaN."""
    mesh = np.array(mesh, dtype=float)
    while np.isnan(mesh).any() and not np.isnan(mesh).all():
        padded = np.pad(mesh, 1, constant_values=np.nan)
        around = np.stack(
            [padded[dy : dy + mesh.shape[0], dx : dx + mesh.shape[1]] for dy in range(3) for dx in range(3)]
        )
        known = np.isfinite(around)
        n = known.sum(0)
        mean = np.where(known, around, 0).sum(0) / np.maximum(n, 1)
        mesh = np.where(np.isnan(mesh) & (n > 0), mean, mesh)
    return mesh
