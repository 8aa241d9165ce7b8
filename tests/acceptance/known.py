"""Known light on simulated frames: drawn by the simulator, with its own profiles, transparency and noise."""

import numpy as np
from efficiency import injection

from simulation import night, series
from tilestack import bayer, geometry


class Simulated:
    """Draws known light as the simulator draws its stars.

    Parameters
    ----------
    made : dict of str to simulation.series.Series
        By session of the run.
    reference : (str, str)
        Session and file of the reference frame.
    kind, xy : arrays
        From ``injection.places``, on the lattice.
    snr : dict
        S/N in a frame of each kind of star.
    """

    def __init__(self, made, reference, kind, xy, snr=None):
        self.made, self.kind, self.xy = made, kind, xy
        self.states = {}
        session, file = reference
        first = made[session]
        state = self.state(session, file)
        self.to_field = first.transform(state)
        self.field = geometry.apply(self.to_field, xy)
        o = first.options
        snr = snr or {injection.STAR: injection.STAR_SNR, injection.BRIGHT: injection.BRIGHT_SNR}
        noise = np.sqrt(self._variance(first, state)) * o.gain_e_adu
        self.level = np.array([np.median(noise[_channel(first, c)]) for c in range(len(o.channels))])
        per_star = np.array([snr.get(k, 0.0) for k in (injection.STAR, injection.BRIGHT, injection.PATCH)])[kind]
        width = o.fwhm_px * np.sqrt(np.pi / (2 * np.log(2)))
        self.flux = per_star[:, None] * self.level * width / o.exposure_s / state["transparency"]
        self.height = injection.PATCH_HEIGHT * self.level / o.exposure_s / state["transparency"]

    def state(self, session, file):
        key = session, file
        if key not in self.states:
            self.states[key] = night.frame_state(series.number(file), self.made[session].options)
        return self.states[key]

    @staticmethod
    def _variance(made, state):
        """Variance of a raw pixel of sky, ADU^2: (h, w)."""
        o = made.options
        electrons = made.sky(state) + 0.02 * o.exposure_s + o.read_noise_e**2
        return electrons / o.gain_e_adu**2 + o.adc_step_adu**2 / 12

    def transform(self, session, frame):
        """True transform of a frame to the lattice."""
        mine = self.made[session].transform(self.state(session, frame["file"]))
        return geometry.compose(geometry.inverse(self.to_field), mine)

    def variance(self, session, frame, xy):
        made = self.made[session]
        plane = self._variance(made, self.state(session, frame["file"]))
        h, w = plane.shape
        x, y = (np.clip(np.round(xy[:, k]).astype(int), 0, n - 2) for k, n in ((0, w), (1, h)))
        result = np.empty((len(xy), len(made.options.channels)))
        for dy in (0, 1):
            for dx in (0, 1):
                at = plane[y + (y + dy) % 2, x + (x + dx) % 2]
                result[:, made.cell[dy, dx]] = at
        return result

    def draw(self, session, frame, shape):
        made, state = self.made[session], self.state(session, frame["file"])
        o = made.options
        stars = self.kind != injection.PATCH
        electrons = made.added(state, {"x": self.field[stars, 0], "y": self.field[stars, 1], "flux": self.flux[stars]})
        patches = np.zeros(shape, np.float32)
        transform = made.transform(state)
        scale = 1 / np.sqrt(geometry.area_scale(transform) / geometry.area_scale(self.to_field))
        for x, y in geometry.apply(geometry.inverse(transform), self.field[~stars]):
            injection.add_patch(patches, made.cell, x, y, self.height, injection.PATCH_SIGMA_PX * scale)
        electrons = electrons + patches * o.exposure_s * made.through(state)
        return (electrons / o.gain_e_adu).astype(np.float32)


def cells(run):
    """Channel of each Bayer phase of the raw frames, by session."""
    return {s: bayer.channel_cell(run.record(f"work/registration/{s}.json")["bayer_pattern"]) for s in run.sessions}


def _channel(made, c):
    """Pixels of a channel: (h, w) bool."""
    h, w = made.dark.shape
    return made.cell[np.arange(h)[:, None] % 2, np.arange(w) % 2] == c
