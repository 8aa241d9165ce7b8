"""Plate solutions of star lists, by seiza with a cone of the embedded catalogue."""

import numpy as np
import seiza

import skycatalogue
from tilestack import geometry
from tilestack.starmatch import NoMatch

# Headers of smart telescopes give positions of date and where the mount believes it is: 0.3 degrees off at M 94.
SEARCH_DEG = 2.0
SCALE_TOLERANCE = 0.1
FEWEST_STARS = 6
# Chance that a solution is a chance one; those of real frames are below 1e-20.
MOST_CHANCE = 1e-6


def solve(stars, shape, hint):
    """Solve a star list.

    Parameters
    ----------
    stars : dict
        ``x``, ``y`` (pixels, 0 is the centre of the first) and ``flux`` ((n,) or (n, c)).
    shape : (int, int)
        Rows and columns of the frame.
    hint : dict
        ``ra_deg``, ``dec_deg``, ``scale_arcsec``; null where unknown.

    Returns
    -------
    seiza.Solution
        ``wcs.pixel_to_world`` and ``wcs.world_to_pixel`` take 0-based pixels and degrees.

    Raises
    ------
    NoMatch
        Where there is no hint, too few stars, or no believable solution.
    """
    missing = [key for key, value in hint.items() if value is None]
    if missing:
        raise NoMatch(f"no plate solution without {', '.join(missing)} in the header")
    if len(stars["x"]) < FEWEST_STARS:
        raise NoMatch(f"no plate solution with {len(stars['x'])} stars, needs {FEWEST_STARS}")
    field_deg = np.hypot(*shape) * hint["scale_arcsec"] / 3600
    found = skycatalogue.cone(hint["ra_deg"], hint["dec_deg"], SEARCH_DEG + field_deg / 2)
    catalog = seiza.StarCatalog.from_stars(list(zip(found["ra_deg"], found["dec_deg"], found["vt"], strict=True)))
    flux = np.asarray(stars["flux"], float).reshape(len(stars["x"]), -1).sum(1)
    detections = list(zip(map(float, stars["x"]), map(float, stars["y"]), map(float, flux), strict=True))
    try:
        solution = seiza.solve(
            detections,
            catalog,
            shape[1],
            shape[0],
            ra=hint["ra_deg"],
            dec=hint["dec_deg"],
            scale_arcsec_px=hint["scale_arcsec"],
            radius_deg=SEARCH_DEG,
            scale_tolerance=SCALE_TOLERANCE,
        )
    except seiza.SolveError as error:
        raise NoMatch(f"no plate solution: {error}") from error
    if solution.false_match_probability > MOST_CHANCE:
        raise NoMatch(f"a plate solution of {solution.matched_stars} stars that chance explains")
    return solution


def between(moving, fixed, shape):
    """The affine transform from the pixels of one solution to those of another, exact in the corners to their
    projections.

    Parameters
    ----------
    moving, fixed : seiza.Solution
    shape : (int, int)
        Rows and columns of the moving frame.

    Returns
    -------
    (2, 3) float64 array
    """
    y, x = np.meshgrid(np.linspace(0, shape[0] - 1, 5), np.linspace(0, shape[1] - 1, 5), indexing="ij")
    points = np.column_stack([x.ravel(), y.ravel()])
    targets = [fixed.wcs.world_to_pixel(*moving.wcs.pixel_to_world(*map(float, point))) for point in points]
    return geometry.fit(points, np.array(targets, float), np.ones(len(points)), "affine")
