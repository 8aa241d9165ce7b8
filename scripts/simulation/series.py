"""A series: frame by frame from the sky to 16 bits, and the truth."""

import json
from pathlib import Path

import numpy as np
from astropy.io import fits

from simulation import kernels, night, scene

# FWHM of a channel over that of the frame: blue stars are a little wider in a small refractor.
CHROMATIC = {"R": 1.03, "G": 1.0, "B": 1.08, "L": 1.02}
CELLS = {"R": 0, "G": 1, "B": 2}
HOT_E_S = 40.0


class Series:
    """Lights of one session, made on demand.

    Parameters
    ----------
    options : Options
    """

    def __init__(self, options):
        self.options = options
        rng = np.random.default_rng([options.seed, 0])
        self.stars = scene.stars(options, rng)
        self.grid = scene.extended(options, rng)
        self.cell = np.zeros((2, 2), np.int64)
        if options.pattern:
            self.cell = np.array([CELLS[colour] for colour in options.pattern]).reshape(2, 2)
        shape = (options.height_px, options.width_px)
        sensor = np.random.default_rng([options.seed, 4])
        self.dark = np.full(shape, 0.02)
        n_hot = int(options.hot_share * shape[0] * shape[1])
        places = sensor.integers(0, shape, (n_hot, 2))
        self.dark[tuple(places.T)] += HOT_E_S * sensor.exponential(1, n_hot)
        self.dead = tuple(sensor.integers(0, shape, (max(n_hot // 40, 1), 2)).T)
        self.hot_places = places

    def transform(self, state):
        """Maps (x, y, 1) of a frame to pixels from the centre of the field."""
        ca, sa = np.cos(state["angle"]), np.sin(state["angle"])
        turn = np.array([[ca, sa], [-sa, ca]])
        centre = np.array(
            [(self.options.width_px - 1) / 2 + state["shift"][1], (self.options.height_px - 1) / 2 + state["shift"][0]]
        )
        return np.column_stack([turn, -turn @ centre])

    def through(self, state):
        """Share of the light that reaches a frame: (h, w) float64."""
        y, x = self._places()
        share = state["transparency"] * night.through_quadrant(state, y, x)
        return share * np.exp(-night.cloud_depth(state["cloud"], y, x)) if state["cloud"] else share

    def sky(self, state):
        """Electrons of the sky of a frame: (h, w) float64."""
        o = self.options
        y, x = self._places()
        channel = np.array([scene.SKY_COLOUR[c] for c in o.channels])[self.cell]
        colour = np.tile(channel, (o.height_px // 2 + 1, o.width_px // 2 + 1))[: o.height_px, : o.width_px]
        sky = o.sky_e_s * o.exposure_s * state["sky"] * colour * night.glow(state, y, x)
        return sky * (1 + 0.3 * night.cloud_depth(state["cloud"], y, x)) if state["cloud"] else sky

    def expected(self, state):
        """Electrons of a frame before noise: sky, stars, extended light, trails; (h, w) float64."""
        o = self.options
        light = np.zeros((o.height_px, o.width_px))
        transform = self.transform(state)
        middle = (self.grid.shape[1] - 1) / 2
        on_grid = transform + np.array([[0, 0, middle], [0, 0, middle]])
        if o.extended:
            kernels.add_extended(light, self.cell, self.grid, on_grid, o.exposure_s)
        self._add_stars(light, self.stars, state, transform)
        return self.sky(state) + light * self.through(state) + self.dark * o.exposure_s + self.trails(state)

    def trails(self, state):
        """Electrons of the satellites of a frame: (h, w) float64, or 0."""
        o = self.options
        size = max(o.height_px, o.width_px)
        y, x = self._places()
        light = [_trail(trail, y * size, x * size, size) for trail in state["trails"]]
        return sum(light) * o.exposure_s * o.sky_e_s / 4

    def added(self, state, stars):
        """Electrons of further stars alone, as a frame sees them: (h, w) float64.

        Parameters
        ----------
        stars : dict
            ``x``, ``y`` from the centre of the field, ``flux`` (n, c) in electrons a second.
        """
        light = np.zeros((self.options.height_px, self.options.width_px))
        self._add_stars(light, stars, state, self.transform(state))
        return light * self.through(state)

    def _places(self):
        """Rows and columns from the middle of the frame, over its longer side."""
        h, w = self.options.height_px, self.options.width_px
        y, x = np.mgrid[:h, :w]
        return (y - (h - 1) / 2) / max(h, w), (x - (w - 1) / 2) / max(h, w)

    def _add_stars(self, light, group, state, transform):
        o = self.options
        back = np.linalg.inv(transform[:, :2])
        xy = (np.column_stack([group["x"], group["y"]]) - transform[:, 2]) @ back.T
        flux = group["flux"] * o.exposure_s
        if state["smear"]:
            xy, flux = _smeared(xy, flux, state["smear"])
        width = state["fwhm_px"] * self.field_width(state, xy)
        # As far as the aureole stands out: a hundredth of an electron a pixel.
        reach = np.clip((flux.max(1) * 0.03 * state["fwhm_px"] / 0.02) ** (1 / 3), 8, 160).astype(int)
        near = (
            (xy[:, 0] > -reach)
            & (xy[:, 1] > -reach)
            & (xy[:, 0] < o.width_px + reach)
            & (xy[:, 1] < o.height_px + reach)
        )
        kernels.add_stars(
            light,
            self.cell,
            *np.ascontiguousarray(xy[near].T),
            flux[near],
            width[near],
            state["beta"],
            state["elongation"],
            state["elongation_angle"],
            state["aureole"],
            state["coma"],
            np.array([CHROMATIC[c] for c in o.channels]),
            reach[near],
        )

    def field_width(self, state, xy):
        """FWHM at places x, y of a frame over that in its middle."""
        size = max(self.options.height_px, self.options.width_px)
        x, y = (xy[:, 0] - self.options.width_px / 2) / size, (xy[:, 1] - self.options.height_px / 2) / size
        width = 1 + 0.25 * (x**2 + y**2) + state["tilt"][0] * y + state["tilt"][1] * x
        for by, bx, radius, height in state["bumps"]:
            width += height / (1 + ((y - by) ** 2 + (x - bx) ** 2) / radius**2)
        return width

    def light(self, k, drawn=()):
        """Light `k`: (h, w) uint16, and its state. Further numbers `drawn` give it other noise."""
        o = self.options
        state = night.frame_state(k, o)
        rng = np.random.default_rng([o.seed, 5, k, *drawn])
        electrons = rng.poisson(self.expected(state)) + rng.normal(0, o.read_noise_e, self.dark.shape)
        electrons += cosmics(o, k, state)
        adu = electrons / o.gain_e_adu + o.bias_adu
        adu[self.dead] = 0
        # Converters of fewer bits have their top step below 65535.
        top = 65536 - o.adc_step_adu
        return np.clip(o.adc_step_adu * np.floor(adu / o.adc_step_adu + rng.uniform(0, 1e-9)), 0, top).astype(
            np.uint16
        ), state

    def truth(self):
        """All that a test needs to know, as plain numbers; stars by their place from the centre of the field."""
        frames = []
        for k in range(self.options.n_frames):
            state = night.frame_state(k, self.options)
            frames.append({"file": file_name(k), "transform": self.transform(state), **state})
        return {
            "options": vars(self.options) | {"channels": self.options.channels},
            "stars": self.stars,
            "hot_pixels": self.hot_places,
            "dead_pixels": np.array(self.dead).T,
            "frames": frames,
        }


def _smeared(xy, flux, smear):
    """Stars as rows of fainter ones along a trail."""
    n = int(np.ceil(2 * smear["length_px"]))
    along = (np.arange(n) + 0.5) / n - 0.5
    step = smear["length_px"] * np.array([np.cos(smear["angle"]), np.sin(smear["angle"])])
    places = xy[:, None] + along[None, :, None] * step
    return places.reshape(-1, 2), np.repeat(flux / n, n, axis=0)


def file_name(k):
    """Name of light `k` of a series."""
    return f"light_{k + 1:04d}.fits"


def number(file):
    """Number k of a light by its name."""
    return int(Path(file).stem.removeprefix("light_")) - 1


def _trail(trail, y, x, size):
    along = x * np.cos(trail["angle"]) + y * np.sin(trail["angle"])
    across = y * np.cos(trail["angle"]) - x * np.sin(trail["angle"]) - trail["offset"] * size
    brightness = 1 + trail["tumble"] * np.sin(2 * np.pi * along / (trail["period"] * size))
    return trail["peak"] * brightness / np.cosh(np.clip(across / trail["width_px"], -30, 30)) ** 2


def cosmics(options, k, state):
    """Electrons of the cosmic rays of light `k`: (h, w) float64."""
    rng = np.random.default_rng([options.seed, 8, k])
    electrons = np.zeros((options.height_px, options.width_px))
    for _ in range(state["cosmics"]):
        _cosmic(electrons, rng)
    return electrons


def _cosmic(electrons, rng):
    """A short track of a particle, a pixel at a time."""
    h, w = electrons.shape
    y, x, angle = rng.uniform(0, h), rng.uniform(0, w), rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(1, 12)):
        if not (0 <= y < h and 0 <= x < w):
            return
        electrons[int(y), int(x)] += rng.uniform(200, 1500)
        angle += rng.normal(0, 0.3)
        y, x = y + np.sin(angle), x + np.cos(angle)


def header(options, k):
    """Header cards of light `k`."""
    start = np.datetime64("2026-03-14T20:00:00") + np.timedelta64(int(k * options.interval_s * 1000), "ms")
    cards = {
        "EXPTIME": options.exposure_s,
        "DATE-OBS": str(start),
        "INSTRUME": "Simulated camera",
        "TELESCOP": "Simulated telescope",
        "OBJECT": "Simulated field",
        "IMAGETYP": "Light",
        "FILTER": "IRCUT" if options.pattern else "L",
        "RA": options.ra_deg,
        "DEC": options.dec_deg,
        "FOCALLEN": round(206.265 * 2.9 / options.scale_arcsec, 2),
        "XPIXSZ": 2.9,
        "YPIXSZ": 2.9,
        "GAIN": 80,
    }
    return cards | ({"BAYERPAT": options.pattern} if options.pattern else {})


def write(options, folder):
    """Write a series and, in its sub-folder truth, what is behind it."""
    folder = Path(folder)
    (folder / "truth").mkdir(parents=True, exist_ok=True)
    series = Series(options)
    for k in range(options.n_frames):
        pixels, _ = series.light(k)
        hdu = fits.PrimaryHDU(pixels)
        hdu.header.update(header(options, k))
        hdu.writeto(folder / file_name(k), overwrite=True)
    (folder / "truth/truth.json").write_text(json.dumps(series.truth(), default=_plain))
    fits.PrimaryHDU(series.grid).writeto(folder / "truth/extended.fits", overwrite=True)


def _plain(value):
    return value.tolist() if isinstance(value, np.ndarray) else value.item()
