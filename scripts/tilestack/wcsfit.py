"""Sky coordinates of an image: fitted to matched catalogue stars, as FITS cards, and for images of another scale.

Gnomonic projection (Calabretta and Greisen 2002, doi:10.1051/0004-6361:20021327) with SIP distortion (Shupe et al.
2005, ADASS XIV). About a fixed reference pixel the place on the tangent plane is a polynomial, so each fit is linear.
"""

from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from scipy.spatial import cKDTree

# Reach of a match, step by step.
REACHES_PX = (4.0, 3.0, 2.0, 1.5, 1.5)
# Fewest matches, and least share of the catalogue stars that could be there.
FEWEST, LEAST_SHARE = 6, 0.45
# Stars from which a distortion of an order may be fitted.
STARS_OF_ORDER = {2: 18, 3: 30}
# A higher order must lower the error of stars that are left out by this share. ASSUME.
ORDER_GAIN = 0.03
# Robust standard deviations at which a match is dropped.
CLIP = 3.5
# What centroids and the catalogue are worth, at best.
FLOOR_PX = 0.05


class Refused(Exception):
    """A solution that the stars do not bear out; its text says why."""


@dataclass
class Fit:
    """``wcs``; pixels and places of the matched stars, their residuals (arcsec) and the share of stars matched."""

    wcs: WCS
    detections: np.ndarray
    stars: np.ndarray
    residual_arcsec: np.ndarray
    share: float
    order: int


def refine(stars, sky, start, shape):
    """Fit sky coordinates to all stars that match, from a start that is a few pixels off at the most.

    Parameters
    ----------
    stars : dict
        ``x``, ``y``, ``position_error`` in pixels, brightest first.
    sky : dict
        ``ra_deg``, ``dec_deg`` of catalogue stars at the time of the image, brightest first.
    start : astropy.wcs.WCS
    shape : (int, int)
        Rows and columns.

    Returns
    -------
    Fit

    Raises
    ------
    Refused
        With fewer than FEWEST matches or less than LEAST_SHARE of the stars that could match.
    """
    xy = np.column_stack([stars["x"], stars["y"]]).astype(float)
    weight = 1 / (np.asarray(stars["position_error"], float) ** 2 + FLOOR_PX**2)
    radec = np.column_stack([sky["ra_deg"], sky["dec_deg"]])
    wcs, order = start, 1
    for reach in REACHES_PX:
        ours, theirs, share = _matches(xy, radec, wcs, shape, reach)
        if len(ours) < FEWEST:
            raise Refused(f"{len(ours)} stars of the catalogue match, expected {FEWEST}")
        wcs, order, kept = _fit(xy[ours], radec[theirs], weight[ours], wcs, shape)
    if kept.sum() < FEWEST or share < LEAST_SHARE:
        raise Refused(
            f"{kept.sum()} stars and {share:.0%} of the catalogue's match, expected {FEWEST} and {LEAST_SHARE:.0%}"
        )
    ours, theirs = ours[kept], theirs[kept]
    residual = np.hypot(*(tangent(radec[theirs], wcs.wcs.crval) - _plane(wcs, xy[ours])).T) * 3600
    return Fit(wcs, ours, theirs, residual, share, order)


def _matches(xy, radec, wcs, shape, reach):
    """Mutual nearest neighbours within the reach, and the share of the stars in the frame that have one."""
    expected = wcs.all_world2pix(radec, 0, quiet=True)
    inside = np.flatnonzero(((expected > 0) & (expected < [shape[1] - 1, shape[0] - 1])).all(1))
    if not len(inside):
        return np.array([], int), np.array([], int), 0.0
    tree, back = cKDTree(xy), cKDTree(expected[inside])
    apart, nearest = tree.query(expected[inside])
    mutual = (apart <= reach) & (back.query(xy[nearest])[1] == np.arange(len(inside)))
    # The brightest of both lists, as many as the shorter one has: those should match.
    n_bright = min(len(inside), len(xy))
    return nearest[mutual], inside[mutual], float((apart[:n_bright] <= reach).mean())


def _fit(xy, radec, weight, wcs, shape):
    """The fit of the order that predicts best, clipped at CLIP robust deviations: WCS, order, kept stars."""
    kept = np.ones(len(xy), bool)
    for _ in range(3):
        best = None
        for order in (1, *(n for n, least in STARS_OF_ORDER.items() if kept.sum() >= least)):
            solved, error = _polynomial(xy[kept], radec[kept], weight[kept], wcs, shape, order)
            if best is None or error < best[2] * (1 - ORDER_GAIN):
                best = (solved, order, error)
        apart = np.hypot(*(tangent(radec, best[0].wcs.crval) - _plane(best[0], xy)).T)
        normal = apart * np.sqrt(weight)
        now = normal <= CLIP * np.median(normal[kept]) / 1.1774  # the median of a Rayleigh distribution
        if now.sum() < FEWEST or (now == kept).all():
            break
        kept = now
    return best[0], best[1], kept


def _polynomial(xy, radec, weight, wcs, shape, order):
    """Weighted least squares of one order: WCS, and rms error of each star by the fit to all others (arcsec)."""
    centre, length = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2]), max(shape) / 2
    powers = [(p, n - p) for n in range(order + 1) for p in range(n, -1, -1)]
    u = (xy - centre) / length
    matrix = np.stack([u[:, 0] ** p * u[:, 1] ** q for p, q in powers], axis=1)
    root = np.sqrt(weight / weight.mean())[:, None]
    crval = np.asarray(wcs.wcs.crval, float)
    for _ in range(3):  # the tangent point moves to the reference pixel
        target = tangent(radec, crval)
        coefficients = np.linalg.lstsq(matrix * root, target * root, rcond=None)[0]
        crval = celestial(coefficients[:1], crval)[0]
    target = tangent(radec, crval)
    coefficients, *_ = np.linalg.lstsq(matrix * root, target * root, rcond=None)
    leverage = (np.linalg.qr(matrix * root)[0] ** 2).sum(1)
    left_out = (target - matrix @ coefficients) / np.maximum(1 - leverage, 0.05)[:, None]
    error = np.sqrt(((left_out * root) ** 2).sum(1).mean()) * 3600
    terms = {power: coefficients[k] / length ** sum(power) for k, power in enumerate(powers)}
    return _wcs(crval, centre, terms, order, shape), error


def _wcs(crval, centre, terms, order, shape):
    """WCS of a polynomial from pixels about the centre to the tangent plane in degrees."""
    cd = np.column_stack([terms[1, 0], terms[0, 1]])
    header = fits.Header(linear_cards(crval, centre + 1, cd))
    if order > 1:
        back = np.linalg.inv(cd)
        for name in "AB":
            header[f"{name}_ORDER"] = order
        for (p, q), value in terms.items():
            if p + q > 1:
                header[f"A_{p}_{q}"], header[f"B_{p}_{q}"] = back @ value
        header.update(_inverse(header, shape, centre, order))
        for axis in "12":
            header[f"CTYPE{axis}"] += "-SIP"
    return WCS(header)


def _inverse(header, shape, centre, order):
    """AP and BP: the polynomial back, of one order more, fitted on a grid over the image."""
    y, x = np.meshgrid(np.linspace(0, shape[0] - 1, 25), np.linspace(0, shape[1] - 1, 25), indexing="ij")
    u, v = x.ravel() - centre[0], y.ravel() - centre[1]
    names = [(p, n - p) for n in range(2, order + 1) for p in range(n + 1)]
    shift = [sum(header[f"{a}_{p}_{q}"] * u**p * v**q for p, q in names) for a in "AB"]
    length = max(shape) / 2
    big_u, big_v = (u + shift[0]) / length, (v + shift[1]) / length
    powers = [(p, n - p) for n in range(order + 2) for p in range(n + 1)]
    matrix = np.stack([big_u**p * big_v**q for p, q in powers], axis=1)
    cards = {"AP_ORDER": order + 1, "BP_ORDER": order + 1}
    for axis, moved in zip("AB", shift, strict=True):
        for (p, q), value in zip(powers, np.linalg.lstsq(matrix, -moved, rcond=None)[0], strict=True):
            cards[f"{axis}P_{p}_{q}"] = value / length ** (p + q)
    return cards


def linear_cards(crval, crpix, cd):
    """Cards of a gnomonic projection: crval (degrees), crpix (first pixel is 1), cd ((2, 2), degrees a pixel)."""
    return {
        "WCSAXES": 2,
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRVAL1": float(crval[0]),
        "CRVAL2": float(crval[1]),
        "CRPIX1": float(crpix[0]),
        "CRPIX2": float(crpix[1]),
        "CD1_1": float(cd[0][0]),
        "CD1_2": float(cd[0][1]),
        "CD2_1": float(cd[1][0]),
        "CD2_2": float(cd[1][1]),
        "RADESYS": "ICRS",
        "EQUINOX": 2000.0,
    }


def cards(wcs, size=1.0):
    """FITS cards of a solution, for an image of `size` times as many pixels along each axis of the same field."""
    centre = (np.asarray(wcs.wcs.crpix) - 0.5) * size + 0.5
    result = linear_cards(wcs.wcs.crval, centre, wcs.wcs.cd / size)
    if wcs.sip is None:
        return result
    for axis in "12":
        result[f"CTYPE{axis}"] += "-SIP"
    for name, table in (("A", wcs.sip.a), ("B", wcs.sip.b), ("AP", wcs.sip.ap), ("BP", wcs.sip.bp)):
        order = len(table) - 1
        result[f"{name}_ORDER"] = order
        for p in range(order + 1):
            for q in range(order + 1 - p):
                if table[p, q]:
                    result[f"{name}_{p}_{q}"] = float(table[p, q]) * size ** (1 - p - q)
    return result


def geometry(wcs, shape):
    """Centre, scale, rotation, parity and size of a solved image.

    Returns
    -------
    dict
        ``ra_deg``, ``dec_deg`` of the middle, ``scale_arcsec`` (geometric mean of both axes), ``rotation_deg`` (angle
        of north from the direction of growing rows, towards growing columns), ``parity`` (1: with rows growing upwards
        as on the sky; -1: mirrored), ``field_deg`` (height, width).
    """
    cd = wcs.wcs.cd
    determinant = np.linalg.det(cd)
    north = np.linalg.inv(cd) @ [0, 1]
    steps = np.hypot(*cd) * 3600
    ra, dec = wcs.all_pix2world([[(shape[1] - 1) / 2, (shape[0] - 1) / 2]], 0)[0]
    return {
        "ra_deg": float(ra),
        "dec_deg": float(dec),
        "scale_arcsec": float(np.sqrt(abs(determinant)) * 3600),
        "rotation_deg": float(np.degrees(np.arctan2(north[0], north[1]))),
        "parity": 1 if determinant < 0 else -1,
        "field_deg": [float(shape[0] * steps[1] / 3600), float(shape[1] * steps[0] / 3600)],
    }


def tangent(radec, crval):
    """Gnomonic projection about a place: (n, 2) degrees east and north."""
    a, d = np.radians(radec[:, 0] - crval[0]), np.radians(radec[:, 1])
    d0 = np.radians(crval[1])
    depth = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(a)
    east, north = np.cos(d) * np.sin(a), np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(a)
    return np.degrees(np.column_stack([east, north]) / depth[:, None])


def celestial(plane, crval):
    """Right ascension and declination (degrees) of places on the tangent plane: the inverse of ``tangent``."""
    x, y = np.radians(plane).T
    d0 = np.radians(crval[1])
    ra = crval[0] + np.degrees(np.arctan2(x, np.cos(d0) - y * np.sin(d0)))
    dec = np.arctan2(np.sin(d0) + y * np.cos(d0), np.hypot(x, np.cos(d0) - y * np.sin(d0)))
    return np.column_stack([ra % 360, np.degrees(dec)])


def _plane(wcs, xy):
    """Places of pixels on the tangent plane of a solution, degrees."""
    return tangent(wcs.all_pix2world(xy, 0), wcs.wcs.crval)
