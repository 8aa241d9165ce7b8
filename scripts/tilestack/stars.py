"""Stars of a raw light: detected on its luminance, measured on its raw pixels."""

import numpy as np
import sep

from tilestack import bayer
from tilestack.kernels import clipping, detection, scan

# Mesh of the sky behind detections, in pixels of the image they are found on, and which of its rows tell the sky.
MESH, SKY_ROWS = 64, 4
# Levels at which a blend is looked at. sep's own 32 find as many stars to 0.3 % and take 1.6 times as long.
DEBLENDING_LEVELS = 8
# Where many more stars are found than are measured the limit goes up by one of these; a star that counts has this many
# pixels above it, and this many times the stars asked for must be found, for the brightest to be among them.
BRIGHTER, STAR_PIXELS, STARS_TO_CHOOSE_FROM = (16, 8, 4, 2), 10, 2
# A detection much narrower than the stars of its frame is a hot pixel or a cosmic ray.
NARROWEST = 0.5
# With fewer detections the limit goes down, step by step: clouds and poor fields.
FEW_STARS, FAINTER_SIGMAS = 20, (3.0, 2.5)
# Median ratio of the axes from which stars are trails.
TRAIL_ELONGATION = 2.0
# Pixels behind the level and the noise of a channel: these are then known to 0.5 % of the noise.
SAMPLE = 50_000
# Radius of the aperture in FWHM of the frame. Beyond it a Moffat profile of beta 2.6 has 0.9 % of its flux, one of 3.8
# nothing; at 3 FWHM these are 1.9 and 0.3 %, and scales went with the wings of the frame.
APERTURE = 4.0


def sky_noise(image, pattern):
    """Level and standard deviation of a sky pixel in each channel.

    The noise comes from differences of neighbours of one colour in a row, so that gradients and nebulae drop out.

    Returns
    -------
    level, noise : (c,) float64 arrays, ADU
    """
    cell = bayer.channel_cell(pattern)
    step = 1 if pattern is None else 2
    level, noise = [], []
    for channel in range(cell.max() + 1):
        planes = [image[y::step, x::step] for y, x in np.argwhere(cell[:step, :step] == channel)]
        planes = [plane[:: max(1, plane.size // SAMPLE)] for plane in planes]
        values = np.concatenate([plane.ravel() for plane in planes])
        level.append(clipping.clipped(values)[0])
        noise.append(clipping.pixel_noise(np.concatenate(planes)))
    return np.array(level), np.array(noise)


def detect(image, sigma, enough):
    """Detections on an image, brightest first; with a lower limit where the usual one finds few, and a higher one where
    it would find far more than ``enough``.

    Parameters
    ----------
    image : (h, w) float32 array
        NaN marks no data.
    sigma : float
        Detection limit in standard deviations of the smoothed sky.
    enough : int
        How many of the brightest are asked for.

    Returns
    -------
    found : structured array
        As from ``sep.extract``.
    sigma : float
        The limit that was used.
    """
    mask = np.isnan(image)
    masked = mask if mask.any() else None
    image = np.ascontiguousarray(np.where(mask, 0, image) if mask.any() else image, dtype=np.float32)
    rows = slice(None, None, SKY_ROWS)
    sky = sep.Background(
        image[rows].copy(), mask=None if masked is None else mask[rows].copy(), bw=MESH, bh=MESH // SKY_ROWS
    )
    flat = image - sky.back(dtype=np.float32)[np.arange(len(image)) // SKY_ROWS]
    for limit in _limits(flat, sky.globalrms, sigma, enough):
        found = sep.extract(flat, limit, err=sky.globalrms, mask=masked, minarea=3, deblend_nthresh=DEBLENDING_LEVELS)
        if len(found) >= (STARS_TO_CHOOSE_FROM * enough if limit > sigma else FEW_STARS):
            break
    return found[np.argsort(-found["flux"], kind="stable")], limit


def _limits(flat, noise, sigma, enough):
    """Limits in the order in which they are tried."""
    for factor in BRIGHTER:
        if np.count_nonzero(flat > factor * sigma * noise) >= STARS_TO_CHOOSE_FROM * enough * STAR_PIXELS:
            yield factor * sigma
    yield sigma
    yield from (fainter for fainter in FAINTER_SIGMAS if fainter < sigma)


def find(image, pattern, *, sigma, max_stars, saturation):
    """Find and measure the stars of a raw light.

    Parameters
    ----------
    image : (h, w) float32 array, ADU
        NaN marks a pixel without data.
    pattern : str or None
        Bayer pattern; None is mono.
    sigma : float
        Detection limit in standard deviations of the smoothed sky.
    max_stars : int
        Brightest detections that are measured.
    saturation : float or None, ADU

    Returns
    -------
    dict
        ``n_detected``; ``sigma`` (limit that was used); ``trailed``; ``level`` and ``noise`` by channel; and by star,
        brightest first, ``x``, ``y`` (0 is the centre of the first pixel), ``position_error``, ``fwhm``,
        ``fwhm_error``, ``elongation``, ``angle`` (radians from x to y), ``peak``, ``flags`` (``kernels.detection``),
        ``flux`` and ``flux_error`` ((n, c) arrays, ADU) of the fit, and ``aperture_flux`` ((n, c)) within APERTURE
        times the FWHM of the frame, NaN near the rim. Of a frame whose stars are trails, positions are their middles
        and fluxes those of apertures around the whole trail.
    """
    level, noise = sky_noise(image, pattern)
    if not (noise > 0).all():
        raise ValueError(f"the noise of the light must be positive in each channel, got {noise} ADU")
    scale, (found, used_sigma) = 2, detect(scan.binned(image), sigma, max_stars)
    if pattern is None and (len(found) < max_stars or used_sigma < sigma):  # of narrow stars binning finds half
        scale, (found, used_sigma) = 1, detect(image, sigma, max_stars)
    n_detected, found = len(found), found[:max_stars]
    centre = np.column_stack([found["x"], found["y"]]) * scale + (scale - 1) / 2
    cell = bayer.channel_cell(pattern)
    bright = found[: max(len(found) // 2, 10)]
    trailed = len(bright) >= 5 and np.median(bright["a"] / np.maximum(bright["b"], 1e-3)) > TRAIL_ELONGATION
    measure = _trails if trailed else _profiles
    return {
        "n_detected": n_detected,
        "sigma": used_sigma,
        "trailed": bool(trailed),
        "level": level,
        "noise": noise,
        **measure(image, cell, noise, found, centre, scale, saturation),
    }


def _profiles(image, cell, noise, found, centre, scale, saturation):
    """Stars by fits of their profile."""
    width = np.clip(scale * 2.355 * np.sqrt(found["a"] * found["b"]), 1.5, 20)
    # The isophotes of faint and of blended stars say little about the width: start all from the typical one.
    width = np.clip(width, None, 1.5 * np.median(width)) if len(width) else width
    limit = np.inf if saturation is None else saturation
    table = detection.fit_stars(image, cell, noise, np.column_stack([centre, width]), limit)
    column = dict(zip(detection.COLUMNS, table.T, strict=False))
    flux, error = table[:, 7 : 7 + len(noise)], table[:, 7 + len(noise) :]
    with np.errstate(invalid="ignore"):
        good = np.isfinite(column["x"]) & (flux.sum(1) > 3 * np.sqrt((error**2).sum(1)))
        typical = np.median(column["fwhm"][good]) if good.any() else np.nan
        good &= column["fwhm"] > NARROWEST * typical
    xy = np.column_stack([column["x"], column["y"]])
    xy[~good] = np.nan
    aperture = detection.aperture_fluxes(image, cell, xy, APERTURE * np.clip(typical, 1, 20) if good.any() else 1.0)
    order = np.flatnonzero(good)
    order = order[np.argsort(-flux[order].sum(1), kind="stable")]
    return {
        **{name: values[order] for name, values in column.items()},
        "elongation": (found["a"] / np.maximum(found["b"], 1e-3))[order],
        "angle": found["theta"][order],
        "flux": flux[order],
        "flux_error": error[order],
        "aperture_flux": aperture[order],
    }


def _trails(image, cell, noise, found, centre, scale, saturation):
    """Stars that are trails: their middles by moments, their fluxes by apertures."""
    length = scale * 2.355 * found["a"]
    radius = float(np.clip(1.5 * np.median(length), 4, 40))
    flux = detection.aperture_fluxes(image, cell, centre, radius)
    n_pixels = np.pi * radius**2
    error = np.broadcast_to(noise * np.sqrt(n_pixels / _share(cell)), flux.shape)
    with np.errstate(invalid="ignore"):
        snr = flux.sum(1) / np.sqrt((error**2).sum(1))
        order = np.flatnonzero(snr > 3)
    order = order[np.argsort(-flux[order].sum(1), kind="stable")]
    across = scale * 2.355 * np.sqrt(found["a"] * found["b"])
    flags = np.zeros(len(found))
    if saturation is not None:
        flags[found["peak"] >= saturation] = detection.SATURATED
    return {
        "x": centre[order, 0],
        "y": centre[order, 1],
        "position_error": (length / 2.355 / snr)[order],
        "fwhm": across[order],
        "fwhm_error": (across / snr)[order],
        "peak": found["peak"][order].astype(float),
        "flags": flags[order],
        "elongation": (found["a"] / np.maximum(found["b"], 1e-3))[order],
        "angle": found["theta"][order],
        "flux": flux[order],
        "flux_error": error[order],
        "aperture_flux": flux[order],
    }


def _share(cell):
    """Share of each channel among the pixels."""
    return np.bincount(cell.ravel()) / 4
