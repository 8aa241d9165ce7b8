"""The sky: stars of the catalogue with true colours, fainter ones at random, galaxies and a nebula."""

import numpy as np

import skycatalogue

# Colour terms of a Sony colour sensor: 2.5 log10 of the flux over that in green, at B - V = 0.65 and by B - V.
COLOUR_TERMS = {"R": (-0.35, 0.49), "G": (0.0, 0.0), "B": (-0.30, -0.65), "L": (0.95, -0.05)}
# Sky and nebula by channel, over green.
SKY_COLOUR = {"R": 0.78, "G": 1.0, "B": 0.72, "L": 2.5}
NEBULA_COLOUR = {"R": 1.6, "G": 0.5, "B": 0.6, "L": 2.4}
GALAXY_COLOUR = {"R": 0.8, "G": 1.0, "B": 0.62, "L": 2.4}
FAINTEST_V = 16.0


def stars(options, rng):
    """Stars of the field.

    Returns
    -------
    dict
        ``x``, ``y``: place on the tangent plane in pixels from its centre, x to the west and y to the south (as a
        Seestar shows the sky, rows from the top); ``flux``: (n, c) electrons a second; ``v``, ``b_v``, ``ra_deg``,
        ``dec_deg`` (NaN of the invented ones).
    """
    radius_px = np.hypot(options.height_px, options.width_px) / 2 + 60
    found = skycatalogue.cone(options.ra_deg, options.dec_deg, radius_px * options.scale_arcsec / 3600)
    x, y = tangent_plane(found["ra_deg"], found["dec_deg"], options)
    v, b_v = found["v"], np.nan_to_num(found["b_v"], nan=0.65)
    ra, dec = found["ra_deg"], found["dec_deg"]
    if options.faint_stars:
        # Star counts rise by 0.33 dex a magnitude; the catalogue is complete to about 11.5.
        n_brighter = max((v < 11.0).sum(), 5)
        n_faint = int(n_brighter * 10 ** (0.33 * (FAINTEST_V - 11.0)) * (1 - 10 ** (-0.33 * (FAINTEST_V - 12.0))))
        share = rng.uniform(10 ** (0.33 * (12.0 - FAINTEST_V)), 1, n_faint)
        r, angle = radius_px * np.sqrt(rng.uniform(0, 1, n_faint)), rng.uniform(0, 2 * np.pi, n_faint)
        x, y = np.r_[x, r * np.cos(angle)], np.r_[y, r * np.sin(angle)]
        v = np.r_[v, FAINTEST_V + np.log10(share) / 0.33]
        b_v = np.r_[b_v, rng.normal(0.8, 0.25, n_faint)]
        ra, dec = (np.r_[values, np.full(n_faint, np.nan)] for values in (ra, dec))
    flux = np.stack([_flux(v, b_v, channel, options.zero_point_mag) for channel in options.channels], axis=1)
    return {"x": x, "y": y, "flux": flux, "v": v, "b_v": b_v, "ra_deg": ra, "dec_deg": dec}


def _flux(v, b_v, channel, zero_point_mag):
    offset, slope = COLOUR_TERMS[channel]
    return 10 ** (0.4 * (zero_point_mag - v + offset + slope * (b_v - 0.65)))


def tangent_plane(ra_deg, dec_deg, options):
    """Gnomonic projection in pixels about the centre of the field: x to the west, y to the south."""
    a = np.radians(ra_deg - options.ra_deg)
    d, d0 = np.radians(dec_deg), np.radians(options.dec_deg)
    depth = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(a)
    east = np.cos(d) * np.sin(a) / depth
    north = (np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(a)) / depth
    pixel = np.radians(options.scale_arcsec / 3600)
    return -east / pixel, -north / pixel


def extended(options, rng):
    """Galaxies and a nebula on a grid of pixels about the centre of the field.

    Returns
    -------
    (c, n, n) float32 array
        Electrons a second and pixel; the middle of the grid, (n - 1) / 2, is the centre of the field.
    """
    half = int(np.hypot(options.height_px, options.width_px) / 2) + 40
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    grid = np.zeros((len(options.channels), *y.shape), np.float32)
    if not options.extended:
        return grid
    size = min(options.height_px, options.width_px)
    # A face-on spiral, an edge-on one, and a nebula of threads in a corner; sizes go with the frame.
    spiral = _spiral(y + 0.10 * size, x - 0.12 * size, 0.085 * size, tilt=0.6, turn=0.5)
    edge_on = _disc(y - 0.22 * size, x + 0.22 * size, 0.06 * size, tilt=0.2, turn=1.2)
    nebula = _nebula(y + 0.28 * size, x + 0.45 * size, 0.28 * size, rng)
    for c, channel in enumerate(options.channels):
        grid[c] = options.sky_e_s * (
            GALAXY_COLOUR[channel] * (1.2 * spiral + 1.6 * edge_on) + NEBULA_COLOUR[channel] * 0.25 * nebula
        )
    return grid


def _turned(y, x, tilt, turn):
    along, across = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / tilt
    return along, across


def _disc(y, x, length, tilt, turn):
    along, across = _turned(y, x, tilt, turn)
    return np.exp(-np.sqrt(along**2 + across**2 + 4) / (0.45 * length))


def _spiral(y, x, length, tilt, turn):
    along, across = _turned(y, x, tilt, turn)
    r = np.sqrt(along**2 + across**2 + 9)
    angle = np.arctan2(across, along)
    arms = 1 + 0.55 * np.cos(2 * (angle - 2.2 * np.log(r / length + 0.05))) * (1 - np.exp(-((r / (0.4 * length)) ** 2)))
    bulge = 3.0 / (1 + (r / (0.12 * length)) ** 2) ** 1.4
    return np.exp(-r / (0.55 * length)) * arms + bulge * np.exp(-((r / length) ** 2))


def _nebula(y, x, length, rng):
    """Threads: absolute values of waves, bent by other waves, under a soft edge."""
    wave = np.zeros_like(y)
    for octave in range(4):
        k = 2 * np.pi * 2**octave / length
        angle, phase, bend = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.0)
        u = (x * np.cos(angle) + y * np.sin(angle)) * k + phase
        w = (y * np.cos(angle) - x * np.sin(angle)) * k
        wave += 0.6**octave * (1 - np.sqrt(np.sin(u + bend * np.sin(0.7 * w)) ** 2 + 0.02))
    return np.maximum(wave, 0) / (1 + np.exp((np.hypot(y, x) - 0.6 * length) / (0.12 * length)))
