"""Gains of PCC on simulated fields of ten stars with known spectra and the colour errors of Tycho-2.

    pcc_fields.py SASP_data.fits [fields]

The table of spectra (Pickles 1998) and of sensor curves lies in the package setiastrosuitepro on PyPI (GPL-3, 4 MB); it
is read here and nowhere else. Sensors: Sony's colour sensor behind a UV/IR cut, and two Canon cameras.
"""

import re
import sys
from pathlib import Path

import numpy as np
from astropy.io import fits

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import skycatalogue  # noqa: E402
from tilestack import colourfit  # noqa: E402

WAVES = np.arange(3000.0, 10000.0, 10.0)
# Passbands of Bessell (1990, PASP 102, 1181), from 3600 and 4700 A in steps of 100 A.
BAND_B = [
    0,
    0.03,
    0.134,
    0.567,
    0.92,
    0.978,
    1,
    0.978,
    0.935,
    0.853,
    0.74,
    0.64,
    0.536,
    0.424,
    0.325,
    0.235,
    0.15,
    0.095,
    0.043,
]
BAND_B += [0.009, 0]
BAND_V = [
    0,
    0.03,
    0.163,
    0.458,
    0.78,
    0.967,
    1,
    0.973,
    0.898,
    0.792,
    0.684,
    0.574,
    0.461,
    0.359,
    0.27,
    0.197,
    0.135,
    0.081,
    0.045,
]
BAND_V += [0.025, 0.017, 0.013, 0.009, 0]
SENSORS = {
    "sony": ("sony", ["SONY_COLOR_SENSOR_R-UVIRCUT", "SONY_COLOR_SENSOR_G-UVIRCUT", "SONY_COLOR_SENSOR_B-UVIRCUT"]),
    "canon 40D": ("Canon EOS 40D", ["CANON_EOS_40D_R", "CANON_EOS_40D_G", "CANON_EOS_40D_B"]),
}


def curve(hdu, column):
    wave = np.asarray(hdu.data["WAVELENGTH"], float)
    wave = wave * 10 if wave.max() < 3000 else wave
    return np.interp(WAVES, wave, np.asarray(hdu.data[column], float), left=0, right=0)


def counts(spectrum, band):
    """Photons through a band."""
    return float((spectrum * band * WAVES).sum())


def load(path):
    """Spectra of stars O to M by name, and the curves of the sensors."""
    with fits.open(path) as hdus:
        spectra = {
            hdu.name: curve(hdu, "FLUX")
            for hdu in hdus[1:]
            if hdu.header.get("CTYPE") == "SED" and re.fullmatch(r"[OBAFGKM][0-9.]+(I|II|III|IV|V)", hdu.name)
        }
        sensors = {
            key: (camera, [curve(hdus[name], hdus[name].columns.names[1]) for name in names])
            for key, (camera, names) in SENSORS.items()
        }
    return spectra, sensors


def extinction(e_b_v, airmass, rng):
    """Dust between the stars and air: transmissions by simple laws."""
    dust = 10 ** (-0.4 * 3.1 * e_b_v * (5500 / WAVES) ** 1.3)
    air = 10 ** (-0.4 * airmass * (0.12 * (5500 / WAVES) ** 4 + 0.10 * (5500 / WAVES) ** rng.uniform(0.8, 1.6)))
    return dust, air


def main(path, n_fields=300):
    spectra, sensors = load(path)
    bands = [
        np.interp(WAVES, first + 100 * np.arange(len(band)), band, left=0, right=0)
        for first, band in ((3600, BAND_B), (4700, BAND_V))
    ]

    def b_v(spectrum):
        return -2.5 * np.log10(counts(spectrum, bands[0]) / counts(spectrum, bands[1]))

    zero = b_v(spectra["A0V"])
    white = b_v(spectra["G2V"]) - zero  # the star that is to become white, by its colour in these passbands
    # Errors of bright stars all over the sky.
    errors = []
    for ra, dec in ((10, 41), (83, -5), (192, 41), (303, 38), (271, -24), (210, 54)):
        found = skycatalogue.cone(ra, dec, 1.0)
        near = (found["v"] > 8) & (found["v"] < 11.3) & np.isfinite(found["b_v_error"])
        errors.append(found["b_v_error"][near])
    errors = np.concatenate(errors)
    print(
        f"Tycho-2 colour errors, V 8 to 11.3: median {np.median(errors):.3f}, 90 % {np.quantile(errors, 0.9):.3f} mag"
    )
    kinds = {"mixed": (-0.1, 1.4), "blue": (-0.1, 0.55), "red": (0.95, 1.45)}
    for sensor, (camera, curves) in sensors.items():
        for kind, (low, high) in kinds.items():
            off = []
            for k in range(n_fields):
                rng = np.random.default_rng([k, 77])
                dust, air = extinction(abs(rng.normal(0, 0.15)), rng.uniform(1, 2.2), rng)
                chosen = []
                while len(chosen) < 10:
                    spectrum = spectra[list(spectra)[rng.integers(len(spectra))]] * dust
                    if low < b_v(spectrum) - zero < high:
                        chosen.append(spectrum)
                true = np.array([b_v(spectrum) - zero for spectrum in chosen])
                flux = np.array([[counts(spectrum * air, band) for band in curves] for spectrum in chosen])
                flux *= 10 ** rng.normal(0, 0.02 / 2.5, flux.shape)
                bad = rng.uniform(size=10) < 0.05
                flux[bad, rng.integers(3)] *= 10 ** rng.normal(0, 0.12)
                error = rng.choice(errors, 10)
                stars = {
                    "flux": flux,
                    "flux_error": 0.02 * flux,
                    "b_v": true + rng.normal(0, error),
                    "b_v_error": error,
                }
                keep = (stars["b_v"] > -0.3) & (stars["b_v"] < 1.5)
                stars = {key: values[keep] for key, values in stars.items()}
                found = colourfit.gains(stars, camera, white)
                sun = np.array([counts(spectra["G2V"] * air, band) for band in curves])
                off.append(2.5 * np.log10([found["gains"][c] * sun[c] / sun[1] for c in (0, 2)]))
            off = np.array(off)
            rms, bias = np.sqrt((off**2).mean(0)), off.mean(0)
            print(
                f"{sensor}, {kind}: rms R {rms[0]:.3f} B {rms[1]:.3f} mag, mean R {bias[0]:+.3f} B {bias[1]:+.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
