"""The night: what changes from frame to frame, each frame from a random stream of its own."""

import numpy as np

LATITUDE_DEG = 48.0
FIRST_HOUR_ANGLE_DEG = -25.0
# States that a night passes through, by what they make of a frame: clear, haze, poor seeing.
STATES = ({}, {"transparency": 0.6, "sky": 1.3}, {"fwhm_px": 1.5})


def frame_state(k, options):
    """All that is particular to frame `k`.

    Returns
    -------
    dict
        ``shift`` (y, x pixels) and ``angle`` (radians, from x to y): where the centre of the field stands in the
        frame and how it is turned; ``fwhm_px``, ``beta``, ``elongation``, ``elongation_angle``, ``aureole``, ``coma``,
        ``tilt`` and ``bumps`` of the profile; ``transparency``; ``cloud`` (null or its waves and its front); ``sky``
        over the first frame's; ``glow`` of the gradient; ``trails``; ``cosmics``; ``smear`` (null, or the trail that
        each star is); ``quadrant``: transparency of the quadrant of low rows and columns, on top; ``group``: which of
        STATES the frame has, where the night passes through them.
    """
    rng = np.random.default_rng([options.seed, 1, k])
    slow = np.random.default_rng([options.seed, 2, k // 4])  # what holds for four frames
    night = np.random.default_rng([options.seed, 3])  # what holds for all
    phase = night.uniform(0, 2 * np.pi, 4)
    time_h = k * options.interval_s / 3600
    drift = np.array([4.0, -2.5]) * time_h
    seeing = 0.7 * np.sin(2 * np.pi * time_h / 0.7 + phase[0]) + 0.7 * rng.normal()
    state = {
        "shift": slow.normal(0, options.dither_px, 2) + rng.normal(0, 0.4, 2) + drift,
        "angle": _field_angle(time_h, options) - _field_angle(0.0, options) if options.rotation else 0.0,
        "fwhm_px": options.fwhm_px * np.exp(options.fwhm_spread * seeing),
        "beta": rng.uniform(2.6, 3.8),
        "elongation": 1 + abs(rng.normal(0, 0.05)),
        "elongation_angle": rng.uniform(0, np.pi),
        "aureole": night.uniform(0.02, 0.04),
        "coma": night.uniform(0.05, 0.10),
        "tilt": night.normal(0, 0.04, 2),
        "bumps": _bumps(rng, options),
        "transparency": np.exp(
            options.transparency_spread * (0.6 * np.sin(2 * np.pi * time_h / 1.3 + phase[1]) + 0.8 * rng.normal())
        ),
        "cloud": _cloud(rng, options) if rng.uniform() < options.cloud_share else None,
        "sky": (1 + 0.10 * time_h) * np.exp(options.sky_spread * rng.normal()),
        "glow": {
            "size": options.gradient * (1 + 0.5 * np.sin(2 * np.pi * time_h + phase[2])),
            "angle": phase[3] + 0.8 * time_h,
            "length": 0.7,
        },
        "trails": _trails(rng, options),
        "cosmics": int(rng.poisson(options.height_px * options.width_px * options.cosmic_share)),
    }
    fault = np.random.default_rng([options.seed, 6, k])  # a stream of its own, so that faults change nothing else
    if fault.uniform() < options.thick_cloud_share:
        state["transparency"] *= fault.uniform(options.thick_cloud_least, options.thick_cloud_most)
    smear = {"length_px": options.smear_px, "angle": fault.uniform(0, np.pi)}
    state["smear"] = smear if fault.uniform() < options.smear_share else None
    # In pairs above and below one, so that no mean or median over the frames has a say in what is right.
    quadrant = np.random.default_rng([options.seed, 7, k // 2]).normal() * (1 - 2 * (k % 2))
    state["quadrant"] = float(np.exp(options.quadrant_spread * quadrant))
    if options.state_frames:
        state["group"] = k // options.state_frames % len(STATES)
        for key, factor in STATES[state["group"]].items():
            state[key] *= factor
    return state


def _field_angle(time_h, options):
    """Parallactic angle, by which an alt-azimuth mount turns the field; radians."""
    hour = np.radians(FIRST_HOUR_ANGLE_DEG + 15.041 * time_h)
    dec, lat = np.radians(options.dec_deg), np.radians(LATITUDE_DEG)
    return np.arctan2(np.sin(hour), np.tan(lat) * np.cos(dec) - np.sin(dec) * np.cos(hour))


def _bumps(rng, options):
    """Places where the seeing differs: y, x and radius over the frame's longer side, and size."""
    return [
        (rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), rng.uniform(0.15, 0.4), rng.normal(0, options.local_seeing))
        for _ in range(3)
    ]


def _cloud(rng, options):
    """Thin cloud behind a front: direction and place of the front, depth, and waves in it."""
    waves = [(rng.uniform(4, 25), rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)) for _ in range(5)]
    return {
        "angle": rng.uniform(0, 2 * np.pi),
        "front": rng.uniform(-0.3, 0.3),
        "depth": rng.uniform(0.1, 0.5),
        "waves": waves,
    }


def _trails(rng, options):
    """Satellites: a straight line through the frame, of varying brightness."""
    n = int(rng.uniform() < options.trail_share) + int(rng.uniform() < options.trail_share / 4)
    return [
        {
            "angle": rng.uniform(0, np.pi),
            "offset": rng.uniform(-0.35, 0.35),
            "peak": rng.uniform(3, 60),
            "width_px": rng.uniform(1.0, 1.8),
            "tumble": rng.uniform(0, 0.9),
            "period": rng.uniform(0.1, 0.8),
        }
        for _ in range(n)
    ]


def cloud_depth(cloud, y, x):
    """Optical depth of a cloud at places given over the frame's longer side, from its middle."""
    ahead = x * np.cos(cloud["angle"]) + y * np.sin(cloud["angle"]) - cloud["front"]
    pattern = np.zeros_like(ahead)
    for k, angle, phase in cloud["waves"]:
        pattern += np.sin(k * (x * np.cos(angle) + y * np.sin(angle)) + phase) / len(cloud["waves"])
    return cloud["depth"] * (1 + 0.8 * pattern) / (1 + np.exp(-ahead / 0.08))


def through_quadrant(state, y, x):
    """Share of the light that the quadrant of low rows and columns lets through; its edges are soft."""
    inside = 1 / (1 + np.exp(np.clip(y / 0.008, -50, 50))) / (1 + np.exp(np.clip(x / 0.008, -50, 50)))
    return 1 + (state["quadrant"] - 1) * inside


def glow(state, y, x):
    """Sky over its mean from a light below the horizon: falls off exponentially, and is no polynomial."""
    ahead = x * np.cos(state["glow"]["angle"]) + y * np.sin(state["glow"]["angle"])
    return 1 + state["glow"]["size"] * (np.exp(ahead / state["glow"]["length"]) - 1) + 0.02 * np.hypot(y, x) ** 3
