import dataclasses
import json

import numpy as np
import pytest
from astropy.io import fits
from simulate_lights import simulate_lights

from simulation import night, series
from simulation.options import Options

SMALL = {"n_frames": 3, "height_px": 200, "width_px": 260, "seed": 4}


def test_simulate_lights__writes_the_same_bits_each_time(tmp_path):
    for name in ("a", "b"):
        simulate_lights(tmp_path / name, **SMALL)
    for path in sorted((tmp_path / "a").glob("*.fits")):
        np.testing.assert_array_equal(fits.getdata(path), fits.getdata(tmp_path / "b" / path.name))
    truth = json.loads((tmp_path / "a/truth/truth.json").read_text())
    assert len(truth["frames"]) == 3 and truth["options"]["channels"] == ["R", "G", "B"]
    header = fits.getheader(tmp_path / "a/light_0001.fits")
    assert header["BAYERPAT"] == "GRBG" and header["BITPIX"] == 16


def test_series__a_longer_one_begins_with_the_shorter():
    short, long = (series.Series(Options(**{**SMALL, "n_frames": n})) for n in (2, 5))
    np.testing.assert_array_equal(short.light(1)[0], long.light(1)[0])


def test_series__star_fluxes_add_up():
    options = Options(**SMALL, pattern=None, extended=False, faint_stars=False, hot_share=0.0, gradient=0.0)
    made = series.Series(options)
    made.dark[:] = 0
    made.stars = {"x": np.array([3.3]), "y": np.array([-7.6]), "flux": np.array([[5000.0]])}
    state = {**night.frame_state(0, options), "trails": [], "cloud": None}
    with_star = made.expected(state)
    made.stars["flux"][:] = 0
    light = (with_star - made.expected(state)).sum() / (5000 * options.exposure_s * state["transparency"])
    # The square that is drawn holds all but the far wings of the aureole.
    assert light == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("pattern", ["GRBG", "RGGB", None])
def test_series__noise_is_that_of_its_electrons(pattern):
    options = Options(**SMALL, pattern=pattern, extended=False, cloud_share=0, trail_share=0, hot_share=0.0)
    options = dataclasses.replace(options, zero_point_mag=5.0, gradient=0.0)
    made = series.Series(options)
    pixels, state = made.light(0)
    electrons = made.expected({**state, "trails": []})
    noise = np.std((pixels - options.bias_adu - electrons / options.gain_e_adu)[20:-20, 20:-20])
    step = options.adc_step_adu / np.sqrt(12)
    expected = np.sqrt((electrons.mean() + options.read_noise_e**2) / options.gain_e_adu**2 + step**2)
    assert noise == pytest.approx(expected, rel=0.03)
