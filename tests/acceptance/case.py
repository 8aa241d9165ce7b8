"""A simulated series, its run, and what the run makes of known light."""

import dataclasses
import os
import shutil
import subprocess
import sys
from functools import cached_property
from pathlib import Path

import numpy as np
from efficiency import injection, measure
from efficiency.restack import Run, as_it_is, planes, restack
from known import Simulated, cells

from simulation import series
from simulation.options import Options
from tilestack import geometry, lattice

ROOT = Path(__file__).parents[2]
# Equal frames of a field without nebulae, trails or hot pixels: what each test adds stands there.
PLAIN = Options(
    pattern=None,
    fwhm_px=3.1,
    fwhm_spread=0.0,
    transparency_spread=0.0,
    sky_spread=0.0,
    local_seeing=0.0,
    cloud_share=0.0,
    trail_share=0.0,
    gradient=0.05,
    hot_share=0.0,
    cosmic_share=0.0,
    rotation=False,
    faint_stars=False,
    extended=False,
)
# Halves beside those of even and odd frames: of any two as many frames share a half as do not.
HALVES = (lambda k: k // 2 % 2, lambda k: (k // 2 + k) % 2, lambda k: k // 4 % 2)
# Further stacks of the same frames with other noise, which colours are measured by.
N_REDRAWN = 9
# Pixels with less light of catalogue stars than this share of the sky are blank.
BLANK_LIGHT = 0.003


class Case:
    """A series in a folder, simulated and run where that has not been done.

    Parameters
    ----------
    folder : Path
    sessions : list of Options
        One each; the first holds the reference.
    config : tuple of str
        Further ``--config`` arguments of the run.
    """

    # Whether faults are planted: once is enough, the further realisations of a test go without.
    plants = True
    # Colour that is measured, of the drizzled planes; None: the planes of a mono run.
    colour = None

    def __init__(self, folder, sessions, config=()):
        self.folder, self.options = Path(folder), sessions
        names = [f"night{k + 1}" for k in range(len(sessions))]
        if not (self.folder / "runs/a/artifacts/run_status.json").exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            for name, options in zip(names, sessions, strict=True):
                series.write(options, self.folder / name)
            command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", self.folder]
            lights = "[" + ",".join(str(self.folder / name) for name in names) + "]"
            command += ["--cores", "2", "--config", "run_id=a", f"input={lights}", *config]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"the run of {folder} failed: {done.stdout[-1500:]} {done.stderr[-1500:]}")
        self.run = Run(self.folder / "runs/a", os.cpu_count())
        self.made = {s: series.Series(o) for s, o in zip(self.run.sessions, sessions, strict=True)}
        self.first = next(iter(self.made))
        self.reference = self.run.lattice["file"]
        self.canvas = self.run.record("artifacts/common_overlap.json")["canvas"]
        self.channel = self.colour or 0
        self.n_stacks = 0

    @cached_property
    def base(self):
        made = as_it_is(self.run, self.folder / "base")
        return made if self.colour is None else planes(self.folder / f"base/{self.run.stack}_rgb", self.colour)

    @cached_property
    def seen(self):
        """Frames that reach a pixel, rejected ones too: (h, w)."""
        image = planes(self.run.folder / "work/reconstruction")
        return image["NIM"] + image["REJ"]

    def stack(self, folder, **changes):
        """Planes of the stack made once more; of colours kept on disk, as a test asks for the same ones for each."""
        if self.colour is None:
            return restack(self.run, self.folder / folder, **changes)
        kept = self.folder / f"stack_{self.n_stacks}"
        self.n_stacks += 1
        if not kept.exists():
            restack(self.run, self.folder / folder, **changes)
            np.save(kept.with_suffix(".npy"), self.added.ceiling if "added" in changes else 0)
            (self.folder / folder / f"{self.run.stack}_rgb").rename(kept)
        if "added" in changes:
            self.added.ceiling[:] = np.load(kept.with_suffix(".npy"))
        return planes(kept, self.colour)

    @cached_property
    def known(self):
        kind, xy = injection.places(self.seen > 0)
        return Simulated(self.made, (self.first, self.reference), kind, xy + self.canvas[1::-1])

    @cached_property
    def added(self):
        return injection.Added(self.known, self.known.kind, self.known.xy, cells(self.run))

    @property
    def xy(self):
        """Places of the known light in the stack."""
        return self.known.xy - self.canvas[1::-1]

    @cached_property
    def injected(self):
        return self.stack("injected", added=self.added)

    @cached_property
    def noises(self):
        """Realisations of the noise of the stack, independent of each other: SPLIT, and the VAR it has to be held to.

        Of colours by stacks of the same frames with other noise: halves hold half of the drops, which fall the less
        evenly, and so have 1 to 9 % more noise over large areas than the whole.
        """
        if self.colour is None:
            return [self.base, *self.other_halves]
        total, splits = self.base["SCI"].astype(float), []
        for k in range(1, N_REDRAWN + 1):
            other = self.stack("redrawn", added=self._redrawn(k))["SCI"]
            splits.append((total - k * other) / np.sqrt(k * (k + 1)))
            total = total + other
        return [{"SPLIT": split, "VAR": self.base["VAR"]} for split in splits]

    def _redrawn(self, number):
        """What makes of the lights those of the same night with other noise."""

        def difference(session, frame, image):
            light, _ = self.made[session].light(series.number(frame["file"]), (number,))
            return light.astype(np.float32) - image

        return difference

    @cached_property
    def other_halves(self):
        """The stack with its frames in other halves: further realisations of its noise, independent of each other."""
        return [self.stack("halves", halves=half) for half in HALVES]

    @cached_property
    def ideal(self):
        """Base and injected stack with the true weights for extended light, nothing rejected.

        Its efficiency for extended light is 1 by theory, and its noise is nearly that of the run's own stack: their
        ratio is known ten times better than either.
        """
        return self.again(changed=self._true_weights, options={"reject": False})

    def _true_weights(self, session, made):
        tiles = self.run.record(f"work/weights/{session}.json")["tiles"]
        stride = self.run.record("artifacts/tile_grid.json")["stride_px"]
        rows, columns = lattice.tile_centres((*tiles["first"], *tiles["shape"]), stride)
        x, y = np.meshgrid(columns, rows)
        centres = np.column_stack([x.ravel(), y.ravel()])
        for k, frame in enumerate(self.run.frames(session)):
            at = geometry.apply(geometry.inverse(self.known.transform(session, frame)), centres)
            through = self.made[session].through(self.known.state(session, frame["file"]))
            i, j = (np.clip(np.round(at[:, n]).astype(int), 0, through.shape[1 - n] - 1) for n in (0, 1))
            weight = through[j, i][:, None] ** 2 / self.known.variance(session, frame, at)
            made["WEIGHT"][k] = weight.T.reshape(-1, *x.shape)

    def again(self, **changes):
        """Base and injected stack with something changed, as in ``restack``."""
        assert self.injected  # whose pass over the lights makes the ceiling; a second one would add to it
        ceiling = self.added.ceiling.copy()
        made = self.stack("changed", **changes)
        injected = self.stack("changed", **changes, added=self.added)
        self.added.ceiling[:] = ceiling
        return made, injected

    def faulty(self, measured, **changes):
        """What is measured on base and injected stack with a planted fault; None where none is planted."""
        return measured(*self.again(**changes)) if self.plants else None

    @cached_property
    def plain_mean(self):
        """Base and injected stack with the same weight for all frames, nothing rejected."""
        return self.again(changed=lambda session, made: made["WEIGHT"].fill(1.0), options={"reject": False})

    @cached_property
    def best_direct(self):
        """Base and injected stack with the best one weight a frame for stars, from the truth; nothing rejected."""
        return self.again(changed=self._best_weights, options={"reject": False})

    def _best_weights(self, session, made):
        profiles, deviations = self._profiles
        scaled = profiles / deviations[:, None]
        best = np.abs(np.linalg.eigh(scaled @ scaled.T)[1][:, -1]) / deviations
        names = [(s, f["file"]) for s in self.made for f in self.run.frames(s)]
        for k, frame in enumerate(self.run.frames(session)):
            # A weight of the raw frame is that of the normalised one over its scale.
            at = names.index((session, frame["file"]))
            made["WEIGHT"][k] = best[at] * self.truth(session, frame["file"])[0]

    @cached_property
    def blank(self):
        """Pixels of the stack where the truth has no light above the sky, and all frames are: (h, w) bool."""
        made = self.made[self.first]
        state = self.known.state(self.first, self.reference)
        sky = made.sky(state)
        light = (made.expected({**state, "trails": []}) - sky - made.dark * made.options.exposure_s) / sky
        h, w = self.base["SCI"].shape
        y, x = np.mgrid[:h, :w]
        field = np.column_stack([x.ravel() + self.canvas[1], y.ravel() + self.canvas[0]])
        at = np.round(geometry.apply(geometry.inverse(self.to_lattice(self.reference)), field)).astype(int)
        inside = (at >= 0).all(1) & (at < np.array(light.shape)[::-1]).all(1)
        dark = np.zeros(h * w, bool)
        dark[inside] = light[at[inside, 1], at[inside, 0]] < BLANK_LIGHT
        return dark.reshape(h, w) & (self.seen == self.seen.max()) & np.isfinite(self.base["SPLIT"])

    def to_lattice(self, file, session=None):
        return self.known.transform(session or self.first, {"file": file})

    def truth(self, session, file):
        """Transparency of a frame and its FWHM in the middle."""
        state = self.known.state(session, file)
        return state["transparency"], state["fwhm_px"]

    def efficiencies(self, base=None, injected=None, region=None):
        """Measured efficiencies; in a region of the field only, where given: a function of places from its centre."""
        drawn = self.noises if base is None else [base]
        base, injected = base or self.base, injected or self.injected
        usable = self.blank & np.all([np.isfinite(noise["SPLIT"]) for noise in drawn], axis=0)
        mine = self.surroundings_full()
        if region is not None:
            h, w = usable.shape
            y, x = np.mgrid[:h, :w]
            pixels = np.column_stack([x.ravel() + self.canvas[1], y.ravel() + self.canvas[0]])
            usable = usable & region(geometry.apply(self.known.to_field, pixels)).reshape(h, w)
            mine = mine & region(self.known.field)
        noises = [measure.whitened(noise, usable) for noise in drawn]
        return measure.efficiencies(
            base,
            injected,
            noises,
            usable,
            self.known.kind[mine],
            self.xy[mine],
            self.added.ceiling[mine, self.channel],
        )

    def surroundings_full(self):
        """Known light that all frames see."""
        seen = self.seen
        x, y = np.round(self.xy).astype(int).T
        corners = [seen[y + dy, x + dx] for dy in (-16, 0, 15) for dx in (-16, 0, 15)]
        return np.min(corners, axis=0) == seen.max()

    @cached_property
    def _profiles(self):
        """Star of unit flux in each frame of all sessions, flattened, and the noise of its raw pixels."""
        profiles, variances = [], []
        for session, made in self.made.items():
            small = dataclasses.replace(made.options, height_px=64, width_px=64, pattern=None)
            bench = series.Series(dataclasses.replace(small, extended=False, faint_stars=False))
            middle = np.array(made.dark.shape)[None, ::-1] / 2
            for frame in self.run.frames(session):
                state = {**self.known.state(session, frame["file"]), "cloud": None, "quadrant": 1.0}
                state["shift"] = np.zeros(2)
                star = {"x": np.zeros(1), "y": np.zeros(1), "flux": np.ones((1, 1))}
                profiles.append(bench.added(state, star).ravel())
                variances.append(self.known.variance(session, frame, middle)[0, self.channel])
        return np.array(profiles), np.sqrt(np.array(variances))

    def best_direct_coadd(self):
        """Largest efficiency for stars that any weighted mean of the frames can reach (docs/method.md)."""
        profiles, deviations = self._profiles
        scaled = profiles / deviations[:, None]
        gram = scaled @ scaled.T
        return float(np.linalg.eigvalsh(gram)[-1] / np.trace(gram))
