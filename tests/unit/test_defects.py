"""Hot and cold pixels of a session: found in its own frames by the way of the phases, and what replacing them does."""

import numpy as np
import pytest
from astropy.io import fits
from detect_stars import detect_stars

from simulation import scene, series
from simulation.options import Options
from tilestack import inspection, records, registration
from tilestack.kernels import prewarp

SHAPE = (540, 720)
SCAN = {"exclude": [], "colour_mode": "auto", "bayer_pattern": "auto", "exposure_s": None, "filter": None}
SCAN |= {"gain_e_adu": None, "saturation_adu": None, "nan_share_max": 0.5}
# Of apertures, 3 FWHM; and what makes a star bright: S/N above 20 in one.
RADIUS_PX, BRIGHT_E = 6.3, 1500


@pytest.fixture(scope="module", params=["GRBG", None])
def session(request, tmp_path_factory):
    """Ten frames of undersampled stars, and the list of defects that the phases make of them."""
    folder = tmp_path_factory.mktemp("session")
    options = Options(
        n_frames=10, height_px=SHAPE[0], width_px=SHAPE[1], seed=4, pattern=request.param, fwhm_px=2.1, cloud_share=0.0
    )
    one, facts = series.Series(options), []
    for k in range(options.n_frames):
        path = folder / series.file_name(k)
        fits.PrimaryHDU(one.light(k)[0], fits.Header(series.header(options, k))).writeto(path)
        facts.append(inspection.inspect(path))
    records.write(folder / "facts.json", {"files": facts})
    names = [fact["name"] for fact in facts]
    told = {"session": "s", "filters": {}, "scan": SCAN, "tolerance_percent": 5, "sigma": 4, "max_stars": 250}
    detect_stars(folder, names, {"s": [folder / "facts.json"]}, folder / "stars.json", **told)
    defects = registration.defects_of([records.read(folder / "stars.json")])
    return one, np.column_stack([defects["y"], defects["x"]])


def places(mask):
    return {(int(y), int(x)) for y, x in np.argwhere(mask)}


def bad_pixels(one, kappa):
    """Pixels whose dark current stands out of the noise of the sky, and the dead ones."""
    o = one.options
    sky_e = o.exposure_s * o.sky_e_s * np.array([scene.SKY_COLOUR[colour] for colour in o.channels])
    noise_e = np.tile(np.sqrt(sky_e + o.read_noise_e**2)[one.cell], (SHAPE[0] // 2, SHAPE[1] // 2))
    bad = one.dark * o.exposure_s > kappa * noise_e
    bad[one.dead] = True
    return bad


def test_defects__all_that_stand_out_are_found_and_none_else(session):
    one, found = session
    stand_out, found = places(bad_pixels(one, 10)), {tuple(place) for place in found.tolist()}
    assert len(stand_out) > 100
    assert len(stand_out & found) >= 0.99 * len(stand_out)
    assert found <= places(bad_pixels(one, 2))


def test_defects__star_fluxes_stay(session):
    """On the same frames with and without the correction, less the light that the defects themselves add or take."""
    one, found = session
    o, bad = one.options, bad_pixels(one, 2)
    y, x = np.indices(SHAPE)
    changes, electrons, clean = [], [], []
    for k in range(o.n_frames):
        light, state = one.light(k)
        raw = light.astype(np.float32)
        corrected = raw.copy()
        prewarp.replace_defects(corrected, found, 2 if o.pattern else 1)
        sound = (raw - o.bias_adu) * o.gain_e_adu - one.dark * o.exposure_s
        sound[one.dead] = (one.expected(state) - one.dark * o.exposure_s)[one.dead]
        change = np.where(corrected == raw, 0, (corrected - o.bias_adu) * o.gain_e_adu - sound)
        transform = one.transform(state)
        xy = (np.column_stack([one.stars["x"], one.stars["y"]]) - transform[:, 2]) @ np.linalg.inv(transform[:, :2]).T
        for (px, py), flux in zip(xy, one.stars["flux"].mean(1) * o.exposure_s * state["transparency"], strict=True):
            if flux > BRIGHT_E and 8 < px < SHAPE[1] - 9 and 8 < py < SHAPE[0] - 9:
                near = np.s_[int(py) - 7 : int(py) + 9, int(px) - 7 : int(px) + 9]
                inside = np.hypot(x[near] - px, y[near] - py) < RADIUS_PX
                changes.append(change[near][inside].sum())
                clean.append(not bad[near][inside].any())
                electrons.append(flux)
    changes, electrons, clean = np.array(changes), np.array(electrons), np.array(clean)
    assert clean.sum() > 150
    assert abs(changes.sum()) < 0.001 * electrons.sum()
    assert (np.abs(changes) < 0.005 * electrons)[clean].all()
