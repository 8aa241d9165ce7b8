"""Measured efficiency: on made-up stacks whose efficiency is known."""

import numpy as np
import pytest
from efficiency import injection, kernels, measure

from tilestack import geometry


def made(share, seed=1, side=640, kernel=None):
    """A stack of noise 1, its response to known light, and a ceiling of which it reaches a share."""
    rng = np.random.default_rng(seed)
    kind, xy = injection.places(np.ones((side, side), bool))
    light = np.zeros((side, side), np.float32)
    cell = np.zeros((2, 2), np.int64)
    stars = kind != injection.PATCH
    flux = np.where(kind == injection.BRIGHT, 100.0, 30.0)[stars, None]
    kernels.add_moffats(light, cell, *xy[stars].T.copy(), flux, np.full(stars.sum(), 3.0), 3.0)
    for x, y in xy[~stars]:
        injection.add_patch(light, cell, x, y, [1.0], injection.PATCH_SIGMA_PX)

    class Drawn:
        def draw(self, session, frame, shape):
            return light

        def variance(self, session, frame, xy):
            return np.ones((len(xy), 1))

        def transform(self, session, frame):
            return geometry.IDENTITY

    added = injection.Added(Drawn(), kind, xy, {"s": cell})
    added("s", None, light)
    # A worse weight leaves the response and raises the noise.
    noise = rng.normal(0, share**-0.5, (side, side))
    blur = np.array([0.1, 0.8, 0.1]) if kernel is None else kernel
    for axis in (0, 1):  # the same blur of signal and noise costs a matched filter nothing
        noise = np.apply_along_axis(np.convolve, axis, noise, blur, "same")
        light = np.apply_along_axis(np.convolve, axis, light, blur, "same")
    variance = np.full((side, side), noise.var())
    base = {"SCI": np.zeros((side, side)), "VAR": variance, "SPLIT": noise}
    usable = np.ones((side, side), bool)
    usable[100:130, 300:340] = False
    injected = {**base, "SCI": light}
    white = measure.whitened(base, usable)
    return measure.efficiencies(base, injected, [white], usable, kind, xy, added.ceiling[:, 0]), base, usable


@pytest.mark.parametrize("share", [1.0, 0.8])
def test_efficiencies__are_those_of_the_stack(share):
    found, base, usable = made(share)
    for name in ("eta_pt", "eta_bright", "eta_sb"):
        assert found[f"{name}_error"] < 0.06
        assert found[name] == pytest.approx(share, abs=3 * found[f"{name}_error"])
    assert found["n_stars"] > 150 and found["n_patches"] == 25


@pytest.mark.parametrize("skewness", [0.0, 0.2])
def test_whitened__leaves_noise_its_power_whatever_its_skewness(skewness):
    # Halves of frames of unlike sky differ in the skewness of their noise.
    rng = np.random.default_rng(2)
    shape = (1024, 1024)
    k = 4 / 0.2**2  # of a gamma distribution with this skewness
    noise = (rng.gamma(k, 1, shape) - k) / np.sqrt(k) if skewness else rng.normal(size=shape)
    usable = rng.uniform(size=shape) < 0.9
    y, x = np.mgrid[: shape[0], : shape[1]]
    smooth = 0.2 * np.hypot(y - 500, x - 500) / 500  # what is left of a sky model
    found = measure.whitened({"SPLIT": noise + smooth, "VAR": np.ones(shape)}, usable)
    reach = injection.PATCH_REACH_PX
    powers = measure.Spectrum([found], usable, reach)
    power, _ = powers.mean(np.ones(len(powers.where), bool))
    k = np.hypot(*np.meshgrid(*2 * [2 * np.pi * np.fft.fftfreq(2 * reach)]))
    light = np.exp(-((k * injection.PATCH_SIGMA_PX) ** 2))
    # White noise of variance 1, known to 2 % over the frequencies of a patch; what comes off has 1-2 % of noise itself.
    assert (light * power).sum() / light.sum() == pytest.approx(1, abs=0.06)


def test_efficiencies__do_not_depend_on_the_variance_plane():
    found, base, usable = made(0.9)
    chi2 = measure.split_chi2(base, usable)
    assert chi2.mean() == pytest.approx(1, abs=0.03)
    base["VAR"] = base["VAR"] * 1.3
    assert measure.split_chi2(base, usable).mean() == pytest.approx(1 / 1.3, abs=0.03)


def test_places__lie_in_what_is_covered_and_apart():
    covered = np.zeros((500, 700), bool)
    covered[20:480, 30:650] = True
    kind, xy = injection.places(covered)
    assert (xy > [30 + 16, 20 + 16]).all() and (xy < [650 - 16, 480 - 16]).all()
    reach = np.where(kind == injection.PATCH, injection.PATCH_REACH_PX, injection.STAR_REACH_PX)
    apart = np.abs(xy[:, None] - xy[None]).max(-1) - reach[:, None] - reach[None]
    assert apart[~np.eye(len(xy), dtype=bool)].min() >= -2


def test_add_moffats__keeps_the_flux():
    light = np.zeros((201, 201), np.float32)
    kernels.add_moffats(
        light,
        np.zeros((2, 2), np.int64),
        np.array([100.3]),
        np.array([99.6]),
        np.array([[1000.0]]),
        np.array([3.0]),
        3.0,
    )
    y, x = np.indices(light.shape)
    assert light.sum() == pytest.approx(1000, rel=0.005)  # what lies beyond 8 FWHM
    assert (x * light).sum() / light.sum() == pytest.approx(100.3, abs=0.02)
