"""Solvers of star lists: each gives rough sky coordinates or says why not.

seiza searches near a hint in the embedded catalogue. The others know the whole sky by index files of their own and run
as programs, where they are installed: a script of this workflow named astrometry.py would hide the package.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import seiza
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

import skycatalogue
from tilestack import wcsfit

# Stars given to a solver, brightest first.
N_STARS = 120
FEWEST_STARS = 6
# Chance that a solution is a chance one; those of real frames are below 1e-20.
MOST_CHANCE = 1e-6
# Relative error of the scale: of headers, and half a step of the unknown scales.
SCALE_TOLERANCE, STEP_TOLERANCE = 0.1, 0.25
# Farther from the hint the sky is searched in rings of cones of this radius, so far out. Degrees.
CONE_DEG, WIDEST_DEG = 5.0, 24.0
# There, only the brightest stars of the catalogue: so many to the area of the image.
STARS_IN_FIELD = 20
# Index files of astrometry.net, as Debian's packages put them.
INDEX_FOLDER = Path("/usr/share/astrometry")
TIME_LIMIT_S = 30


class Unsolved(Exception):
    """A solver found nothing, or is not there; its text says why."""


class Field:
    """What is to be solved.

    Parameters
    ----------
    stars : dict
        ``x``, ``y`` (pixels, 0 is the centre of the first) and ``flux``, brightest first.
    shape : (int, int)
        Rows and columns.
    scales : list of float
        Sizes of a pixel to try, arc seconds.
    aspect : float
        Height over width of a pixel.
    year : float
        Time of the image, for proper motions.
    """

    def __init__(self, stars, shape, scales, aspect=1.0, year=skycatalogue.EPOCH):
        if len(stars["x"]) < FEWEST_STARS:
            raise Unsolved(f"{len(stars['x'])} stars, needs {FEWEST_STARS}")
        flux = np.asarray(stars["flux"], float).reshape(len(stars["x"]), -1).sum(1)
        brightest = np.argsort(-flux, kind="stable")[:N_STARS]
        self.x = np.asarray(stars["x"], float)[brightest]
        # Solvers look for similar figures, so the image is stretched to square pixels.
        self.y = (np.asarray(stars["y"], float)[brightest] + 0.5) * aspect - 0.5
        self.flux = flux[brightest]
        self.shape = (round(shape[0] * aspect), shape[1])
        self.scales, self.aspect, self.year = scales, aspect, year
        self.tolerance = SCALE_TOLERANCE if len(scales) == 1 else STEP_TOLERANCE

    def in_image(self, header):
        """WCS for the pixels of the image from the linear cards of one for square pixels."""
        crpix = header["CRPIX1"], (header["CRPIX2"] - 0.5) / self.aspect + 0.5
        cd = [[header[f"CD{i}_1"], header[f"CD{i}_2"] * self.aspect] for i in (1, 2)]
        return WCS(fits.Header(wcsfit.linear_cards((header["CRVAL1"], header["CRVAL2"]), crpix, cd)))


def near(field, place, radius_deg, stars_in_field=None):
    """Solve by seiza within a radius (degrees) of a place (right ascension, declination).

    The catalogue is all of it, or so many stars to the area of the image as `stars_in_field` says.
    """
    reason = "no scale to try"
    for scale in field.scales:
        half_field = np.hypot(*field.shape) * scale / 7200
        radius = min(radius_deg + half_field, 180)
        found = skycatalogue.cone(*place, radius, year=field.year)
        share = np.pi * radius**2 / (field.shape[0] * field.shape[1] * (scale / 3600) ** 2)
        brightest = slice(None if stars_in_field is None else int(stars_in_field * share))
        catalog = seiza.StarCatalog.from_stars(
            list(zip(*(found[key][brightest].tolist() for key in ("ra_deg", "dec_deg", "vt")), strict=True))
        )
        try:
            solution = seiza.solve(
                list(zip(field.x.tolist(), field.y.tolist(), field.flux.tolist(), strict=True)),
                catalog,
                field.shape[1],
                field.shape[0],
                ra=place[0],
                dec=place[1],
                scale_arcsec_px=scale,
                radius_deg=radius_deg,
                scale_tolerance=field.tolerance,
            )
        except seiza.SolveError as error:
            reason = str(error)
            continue
        if solution.false_match_probability <= MOST_CHANCE:
            return field.in_image(solution.fits_header_cards())
        reason = f"{solution.matched_stars} stars match, which chance explains"
    raise Unsolved(reason)


def around(field, place, inner_deg):
    """Solve by seiza in rings of cones around a place, beyond a radius that was searched."""
    distance = inner_deg + 0.7 * CONE_DEG
    while distance < WIDEST_DEG:
        n_cones = int(np.ceil(2 * np.pi * np.sin(np.radians(distance)) / np.radians(1.3 * CONE_DEG)))
        for k in range(n_cones):
            try:
                return near(field, offset(place, distance, 360 * k / n_cones), CONE_DEG, STARS_IN_FIELD)
            except Unsolved:
                continue
        distance += 1.3 * CONE_DEG
    raise Unsolved(f"nothing within {WIDEST_DEG:g} degrees")


def offset(place, distance_deg, angle_deg):
    """The place so many degrees away in a direction (degrees from north to east)."""
    ra, dec, r, angle = np.radians([*place, distance_deg, angle_deg])
    there = np.arcsin(np.sin(dec) * np.cos(r) + np.cos(dec) * np.sin(r) * np.cos(angle))
    east = np.arctan2(np.sin(angle) * np.sin(r) * np.cos(dec), np.cos(r) - np.sin(dec) * np.sin(there))
    return float(np.degrees(ra + east) % 360), float(np.degrees(there))


def _scale_range(field):
    return min(field.scales) / (1 + field.tolerance), max(field.scales) * (1 + field.tolerance)


def by_solve_field(field, program="solve-field"):
    """Solve blind by solve-field of astrometry.net, with the index files of its configuration."""
    _needs(program)
    with tempfile.TemporaryDirectory() as folder:
        stars = Path(folder, "stars.xyls")
        Table({"X": field.x + 1, "Y": field.y + 1, "FLUX": field.flux}).write(stars, format="fits")
        low, high = _scale_range(field)
        _run(
            [program, stars, "--overwrite", "--no-plots", "--crpix-center", "--no-tweak", "--dir", folder]
            + ["--width", field.shape[1], "--height", field.shape[0], "--x-column", "X", "--y-column", "Y"]
            + ["--sort-column", "FLUX", "--scale-units", "arcsecperpix", "--scale-low", low, "--scale-high", high]
            + ["--cpulimit", TIME_LIMIT_S],
            without=["PYTHONPATH"],  # it has Python programs of its own, in a package of the same name
        )
        return _of_file(field, Path(folder, "stars.wcs"))


# Run with -P, which keeps the folder of this workflow's scripts off the path.
PACKAGE = """
import json, pathlib, sys
import astrometry
task = json.load(sys.stdin)
indexes = sorted(pathlib.Path(task["folder"]).glob("index-*.fits"))
with astrometry.Solver(indexes) as solver:
    found = solver.solve(
        stars=task["stars"],
        size_hint=astrometry.SizeHint(*task["scales"]),
        position_hint=None,
        solution_parameters=astrometry.SolutionParameters(sip_order=0, tune_up_logodds_threshold=None),
    )
print(json.dumps({k: v[0] for k, v in found.best_match().wcs_fields.items()} if found.has_match() else {}))
"""


def by_package(field, folder=INDEX_FOLDER):
    """Solve blind by the package ``astrometry`` with the index files of a folder."""
    _needs_index(folder)
    task = {
        "folder": str(folder),
        "stars": np.column_stack([field.x, field.y]).tolist(),
        "scales": _scale_range(field),
    }
    said = _run([sys.executable, "-P", "-c", PACKAGE], json.dumps(task))
    cards = json.loads(said.splitlines()[-1])
    if not cards:
        raise Unsolved("no match")
    return field.in_image(cards)


def by_astap(field, place, program="astap"):
    """Solve by ASTAP: it looks for stars itself, so it gets a picture of ours; from a place, or from anywhere."""
    _needs(program)
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "stars.fits")
        fits.PrimaryHDU(_picture(field)).writeto(picture)
        scale = field.scales[0] if len(field.scales) == 1 else 0
        command = [program, "-f", picture, "-r", 180, "-wcs", "-fov", field.shape[0] * scale / 3600]
        if place:
            command += ["-ra", place[0] / 15, "-spd", place[1] + 90]
        _run(command)
        return _of_file(field, picture.with_suffix(".wcs"))


def _picture(field):
    """The stars as round spots on an even sky, int16."""
    image = np.full(field.shape, 1000.0)
    y, x = np.mgrid[-4:5, -4:5]
    for at_x, at_y, flux in zip(field.x, field.y, field.flux / field.flux.max(), strict=True):
        j, i = round(at_y), round(at_x)
        if 4 <= j < field.shape[0] - 4 and 4 <= i < field.shape[1] - 4:
            spot = np.exp(-((x + i - at_x) ** 2 + (y + j - at_y) ** 2) / 3.0)
            image[j - 4 : j + 5, i - 4 : i + 5] += 30000 * np.sqrt(flux) * spot
    noise = np.random.default_rng(1).normal(0, 10, field.shape)
    return np.clip(image + noise, 0, 32767).astype(np.int16)


def _needs(program):
    if not shutil.which(program):
        raise Unsolved("not installed")


def _needs_index(folder):
    if not any(Path(folder).glob("index-*.fits")):
        raise Unsolved(f"no index files in {folder}")


def _run(command, given=None, without=()):
    """Output of a program; Unsolved with the end of what it said where it fails."""
    words = [str(word) for word in command]
    environment = {key: value for key, value in os.environ.items() if key not in without}
    limits = {"timeout": 2 * TIME_LIMIT_S, "check": False, "env": environment}
    try:
        done = subprocess.run(words, input=given, capture_output=True, text=True, **limits)
    except subprocess.TimeoutExpired:
        raise Unsolved(f"no answer in {2 * TIME_LIMIT_S} s") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "nothing said").splitlines()[-1]
        missing = "No module named 'astrometry'" in done.stderr
        raise Unsolved("not installed" if missing else f"ended with code {done.returncode}: {last[:200]}")
    return done.stdout


def _of_file(field, path):
    """Coordinates in a .wcs file that a program may have left."""
    if not path.exists():
        raise Unsolved("no match")
    return field.in_image(_header(path))


def _header(path):
    """Header of a .wcs file, with or without line ends."""
    content = path.read_bytes()
    text = content.decode("ascii", "replace")
    return fits.Header.fromstring(text, sep="\n" if "\n" in text else "")
