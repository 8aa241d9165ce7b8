"""Fluxes of catalogue stars in the channels of a stack: apertures on linear pixels, the same for all channels."""

import numpy as np
from scipy.spatial import cKDTree

from tilestack import masks
from tilestack.kernels import clipping

# Radius of the aperture, and of the ring that gives the sky, in FWHM.
APERTURE, RING = 2.5, (4.0, 6.5)
# A detection this near to the expected place is the star. Pixels.
REACH_PX = 2.0
# Stars of the catalogue whose neighbours within two apertures give more than this share of their light are left out.
MOST_NEIGHBOUR = 0.03
LEAST_SNR = 30.0
# Above this share of the saturation level a stack's star was saturated in sharp frames.
HIGHEST_PEAK = 0.6
COLOURS = (-0.3, 1.5)
# Sub-pixels along each axis at the rim of an aperture.
OVERSAMPLING = 5


def measured(planes, variance, mask, sky, found, *, saturation):
    """Fluxes of the catalogue stars of a field.

    Parameters
    ----------
    planes, variance : (c, h, w) float32 arrays, ADU and ADU^2
    mask : (c, h, w) int array
        Bits of ``masks``.
    sky : dict
        Catalogue stars: ``x``, ``y`` (pixels, by the sky coordinates), ``v``, ``b_v``, ``b_v_error``, ``ra_deg``,
        ``dec_deg``.
    found : dict
        Detections: ``x``, ``y``, ``fwhm``, ``flux``.
    saturation : float or None, ADU

    Returns
    -------
    dict
        The columns of `sky` for the stars that have a detection, and ``flux``, ``flux_error`` ((n, c), ADU) and
        ``fault`` ((n,) text): why a star is left out, or nothing.
    """
    xy = np.column_stack([found["x"], found["y"]]).astype(float)
    expected = np.column_stack([sky["x"], sky["y"]]).astype(float)
    if not len(xy) or not len(expected):
        return _nothing(sky, len(planes))
    apart, nearest = cKDTree(xy).query(expected)
    back = cKDTree(expected).query(xy)[1]
    matched = np.flatnonzero((apart <= REACH_PX) & (back[nearest] == np.arange(len(expected))))
    fwhm = float(np.median(np.asarray(found["fwhm"], float)[nearest[matched]])) if len(matched) else 1.0
    total = np.asarray(found["flux"], float).reshape(len(xy), -1).sum(1)
    tree, radius = cKDTree(xy), APERTURE * fwhm
    stars = {key: np.asarray(sky[key], float)[matched] for key in sky}
    flux, error, faults = [], [], []
    for star in nearest[matched]:
        near = [k for k in tree.query_ball_point(xy[star], 2 * radius) if k != star]
        one = _aperture(planes, variance, mask, xy[star], radius, [factor * fwhm for factor in RING])
        if one is None:
            flux.append(np.full(len(planes), np.nan)), error.append(np.full(len(planes), np.nan))
            faults.append("rim")
            continue
        flux.append(one["flux"]), error.append(one["error"])
        if one["saturated"] or (saturation and one["peak"] > HIGHEST_PEAK * saturation):
            faults.append("saturated")
        elif total[near].sum() > MOST_NEIGHBOUR * total[star]:
            faults.append("neighbour")
        elif not (one["flux"] > LEAST_SNR * one["error"]).all():
            faults.append("faint")
        else:
            faults.append("")
    shape = (len(matched), len(planes))
    stars |= {"flux": np.reshape(flux, shape), "flux_error": np.reshape(error, shape)}
    known = np.isfinite(stars["b_v"]) & (stars["b_v"] > COLOURS[0]) & (stars["b_v"] < COLOURS[1])
    faults = [fault or ("" if good else "colour") for fault, good in zip(faults, known, strict=True)]
    return stars | {"fault": np.array(faults, dtype="U10")}


def good(stars):
    """The stars without a fault; a colour error that is not known is taken as 0.1 mag."""
    chosen = stars["fault"] == ""
    picked = {key: values[chosen] for key, values in stars.items()}
    picked["b_v_error"] = np.where(np.isfinite(picked["b_v_error"]), picked["b_v_error"], 0.1)
    return picked


def _nothing(sky, n_channels):
    empty = {key: np.zeros(0) for key in sky}
    return empty | {name: np.zeros((0, n_channels)) for name in ("flux", "flux_error")} | {"fault": np.zeros(0, "U10")}


def _aperture(planes, variance, mask, centre, radius, ring):
    """Flux, error and peak of a star in each channel; None where its ring leaves the image or has no data."""
    reach = int(np.ceil(ring[1])) + 1
    ix, iy = (int(round(value)) for value in centre)
    h, w = planes.shape[1:]
    if not (reach <= ix < w - reach and reach <= iy < h - reach):
        return None
    window = (slice(None), slice(iy - reach, iy + reach + 1), slice(ix - reach, ix + reach + 1))
    cut, noise = planes[window].astype(float), variance[window].astype(float)
    dx, dy = centre[0] - ix, centre[1] - iy
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    step = (np.arange(OVERSAMPLING) + 0.5) / OVERSAMPLING - 0.5
    share = np.zeros(x.shape)
    for sy in step:
        for sx in step:
            share += np.hypot(x + sx - dx, y + sy - dy) <= radius
    share /= OVERSAMPLING**2
    distance = np.hypot(x - dx, y - dy)
    around = (distance >= ring[0]) & (distance <= ring[1])
    if np.isnan(cut[:, share > 0]).any() or np.isfinite(cut[:, around]).mean() < 0.9:
        return None
    level, spread = np.array([clipping.clipped(plane[around]) for plane in cut]).T
    area = share.sum()
    flux = (cut * share).sum(axis=(1, 2), where=share > 0) - level * area
    own = np.nansum(np.maximum(noise, 0) * share**2, axis=(1, 2))
    return {
        "flux": flux,
        "error": np.sqrt(own + (spread * area) ** 2 / around.sum()),
        "peak": float(np.nanmax(cut[:, share > 0])),
        "saturated": bool((mask[window][:, share > 0] & masks.SATURATED).any()),
    }


def on_superpixels(sky, found):
    """Star positions in super-pixels of a mosaic from those in its pixels: (sky, found)."""
    half = [{**part, **{key: (np.asarray(part[key], float) - 0.5) / 2 for key in ("x", "y")}} for part in (sky, found)]
    half[1]["fwhm"] = np.asarray(found["fwhm"], float) / 2
    return half


def saturation_share(planes, limit, soft=0.15):
    """How near the brightest channel of each pixel comes to saturation: 0 below (1 - soft) of the limit, 1 at it."""
    if not limit:
        return np.zeros(planes.shape[1:], np.float32)
    highest = np.nanmax(np.where(np.isnan(planes), -np.inf, planes), axis=0)
    t = np.clip((highest / limit - (1 - soft)) / soft, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)
