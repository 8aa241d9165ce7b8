"""Sky coordinates and colours of finished runs of the real frames, against their reference solutions.

    sky_real.py RUNS_FOLDER DATA_FOLDER s1 s3 m8-L m8-R m8-G m8-B

DATA_FOLDER holds seestar_m94 and m8_lrgb; runs whose id begins with m8 are of M 8, their last letter the filter.
"""

import csv
import json
import sys
import warnings
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from tilestack import geometry  # noqa: E402


def separation(one, other):
    """Distances in arc seconds of places in degrees."""
    east = (one[:, 0] - other[:, 0]) * np.cos(np.radians(other[:, 1]))
    return np.hypot(east, one[:, 1] - other[:, 1]) * 3600


def against_frames_of_m94(run, data):
    """Median distance over a grid from the reference solutions of all frames of the run, arc seconds."""
    header = fits.getheader(run / "outputs/stacked.fits")
    ours = WCS(header, naxis=2)
    apart = []
    for frame in json.loads((run / "artifacts/registration.json").read_text())["frames"]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reference = WCS(fits.getheader(data / "seestar_m94/wcs" / frame["file"].replace(".fit.gz", ".wcs")))
        y, x = np.meshgrid(np.linspace(100, 1820, 9), np.linspace(100, 980, 7), indexing="ij")
        grid = np.column_stack([x.ravel(), y.ravel()])
        there = geometry.apply(np.array(frame["transform"]), grid) - [header["LATTX0"], header["LATTY0"]]
        apart.append(np.median(separation(ours.all_pix2world(there, 0), reference.all_pix2world(grid, 0))))
    return np.array(apart)


def against_frames_of_m8(run, data):
    """Distance of the middle of each frame from its reference, arc seconds."""
    header = fits.getheader(run / "outputs/stacked.fits")
    ours, apart = WCS(header, naxis=2), []
    with open(data / "m8_lrgb/wcs_reference.csv", newline="") as stream:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(stream)}
    for frame in json.loads((run / "artifacts/registration.json").read_text())["frames"]:
        row = rows.get(frame["file"])
        if row is None or frame["transform"] is None:
            continue
        middle = geometry.apply(np.array(frame["transform"]), np.array([[375.5, 289.5]]))
        found = ours.all_pix2world(middle - [header["LATTX0"], header["LATTY0"]], 0)
        apart.append(separation(found, np.array([[float(row["ra_center_deg"]), float(row["dec_center_deg"])]]))[0])
    return np.array(apart)


def main(runs, data, names):
    for name in names:
        run = Path(runs, name)
        found = json.loads((run / "artifacts/astrometry.json").read_text())
        apart = (against_frames_of_m8 if name.startswith("m8") else against_frames_of_m94)(run, Path(data))
        keys = ("n_matches", "rms_arcsec", "median_arcsec", "max_arcsec", "sip_order", "solver")
        print(
            f"{name}: to the reference median {np.median(apart):.2f} arcsec, worst frame {apart.max():.2f};",
            {key: found[key] for key in keys},
            (run / "benchmarks/astrometry.tsv").read_text().splitlines()[1].split("\t")[-1],
            "CPU s",
        )
    colours = {name: json.loads((Path(runs, name) / "artifacts/pcc.json").read_text()) for name in names}
    for name, found in colours.items():
        if found["status"] == "ok":
            keys = (
                "grade",
                "n_stars",
                "gains",
                "slopes",
                "slopes_of_stars",
                "residual_mag",
                "colour_check",
                "zero_points_mag",
            )
            print(name, {key: found[key] for key in keys})
    measured = [name for name, found in colours.items() if found["status"] == "ok"]
    for one, other in zip(measured, measured[1:], strict=False):
        compare_telescopes(Path(runs, one), Path(runs, other))


def compare_telescopes(one, other):
    """Colours of the stars that two runs share, after calibration."""
    tables = []
    for run in (one, other):
        table, gain = (
            fits.getdata(run / "outputs/pcc_stars.fits", 1),
            json.loads((run / "artifacts/pcc.json").read_text()),
        )
        flux = table["flux"] * np.array(gain["gains"])
        good = table["fault"] == ""
        tables.append((np.column_stack([table["ra_deg"], table["dec_deg"]])[good], flux[good]))
    (places, flux), (other_places, other_flux) = tables
    pairs = [(k, int(np.argmin(separation(other_places, place[None])))) for k, place in enumerate(places)]
    pairs = [(k, j) for k, j in pairs if separation(other_places[j : j + 1], places[k : k + 1])[0] < 2]
    k, j = np.array(pairs).T
    for name, c, d in (("R/G", 0, 1), ("B/G", 2, 1), ("B/R", 2, 0)):
        difference = 2.5 * np.log10(flux[k, c] / flux[k, d]) - 2.5 * np.log10(other_flux[j, c] / other_flux[j, d])
        error = 1.2533 * difference.std(ddof=1) / np.sqrt(len(k))
        print(
            f"{one.name} - {other.name}, {name}: median {np.median(difference):+.3f} +- {error:.3f} mag, {len(k)} stars"
        )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
