"""Which part of the lattice which frame covers, from the outlines of the frames. Lean: numpy only."""

import numpy as np


def inside(transform, shape, points, rim=0.0):
    """Whether lattice points lie in a moved frame.

    Parameters
    ----------
    transform : (2, 3) array
        Frame to lattice.
    shape : (int, int)
        Rows and columns of the frame.
    points : (..., 2) array
        Lattice positions x, y.
    rim : float
        Pixels along the edge of the frame that do not count.
    """
    matrix = np.linalg.inv(transform[:, :2])
    x, y = np.moveaxis((points - transform[:, 2]) @ matrix.T, -1, 0)
    return (x >= rim) & (y >= rim) & (x <= shape[1] - 1 - rim) & (y <= shape[0] - 1 - rim)


def tile_samples(tiles, stride, tile, n=4):
    """Points spread evenly over each of a range of tiles: (ny, nx, n * n, 2) array of x, y."""
    j0, i0, ny, nx = tiles
    spread = ((np.arange(n) + 0.5) / n - 0.5) * tile
    y = ((j0 + np.arange(ny) + 0.5) * stride - 0.5)[:, None, None, None] + spread[None, None, :, None]
    x = ((i0 + np.arange(nx) + 0.5) * stride - 0.5)[None, :, None, None] + spread[None, None, None, :]
    y, x = np.broadcast_arrays(y, x)
    return np.stack([x, y], axis=-1).reshape(ny, nx, n * n, 2)


def tile_coverage(transform, shape, samples, rim=0.0):
    """Share of each tile that a frame covers: (ny, nx) float64."""
    return inside(transform, shape, samples, rim).mean(-1)
