"""Sky coordinates of simulated fields, of random star lists, and by the solvers that are installed.

    astrometry_fields.py [fields | random | far]

Catalogue stars at their places of 2026 under a telescope of 2.4 arcsec a pixel with distortion, any rotation and
parity, centroid noise by brightness, faint stars and false detections; hints off by up to a degree.
"""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import skycatalogue  # noqa: E402
from tilestack import fieldstars, plate, wcsfit  # noqa: E402

SHAPE, SCALE, YEAR = (1080, 1920), 2.4, 2026.0
PLACES = {
    "M 31": (10.68, 41.27),
    "M 42": (83.82, -5.39),
    "M 101": (210.8, 54.35),
    "Cygnus": (314.8, 44.5),
    "pole": (192.86, 27.13),
}
HINT = {"ra_deg": None, "dec_deg": None, "radius_deg": 2.0, "scale_arcsec_px": None, "object": None}


def field(place, seed):
    """Star list of a field, and the true place of a pixel."""
    rng = np.random.default_rng(seed)
    centre = (place[0] + rng.uniform(-0.5, 0.5), place[1] + rng.uniform(-0.5, 0.5))
    found = skycatalogue.cone(*centre, 1.2, year=YEAR)
    angle, parity = rng.uniform(0, 2 * np.pi), rng.choice([-1, 1])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * [parity, 1]
    scale, bend = SCALE * rng.normal(1, 0.01), rng.normal(0, 1.5)  # pixels at the end of the longer side
    middle = np.array([(SHAPE[1] - 1) / 2, (SHAPE[0] - 1) / 2])

    def pixel(radec):
        flat = wcsfit.tangent(radec, centre) * 3600 / scale @ turn
        return flat * (1 + bend / 960 * (flat**2).sum(1, keepdims=True) / 960**2) + middle

    # Tycho's errors of position and of motion.
    radec = np.column_stack([found["ra_deg"], found["dec_deg"]])
    blur = rng.normal(0, 0.06 + 0.03 * (found["vt"] > 11)[:, None] + 0.0025 * (YEAR - 1991.25), radec.shape) / 3600
    xy = pixel(radec + blur / np.cos(np.radians(radec[:, 1:])) ** [1, 0])
    error = 0.05 * 10 ** (0.2 * np.clip(found["vt"] - 9, 0, 4))
    flux = 10 ** (-0.4 * (found["vt"] - 20)) * 10 ** rng.normal(0, 0.1, len(xy))
    seen = rng.uniform(size=len(xy)) < 0.95
    n_faint, n_false = rng.integers(50, 200), rng.integers(3, 15)
    more = rng.uniform([0, 0], SHAPE[::-1], (n_faint + n_false, 2))
    extra_flux = 10 ** (-0.4 * (rng.uniform(11.8, 14, len(more)) - 20))
    xy = np.r_[xy[seen] + rng.normal(0, error[seen, None], (seen.sum(), 2)), more]
    flux, error = np.r_[flux[seen], extra_flux], np.r_[error[seen], np.full(len(more), 0.2)]
    inside = ((xy > 0) & (xy < [SHAPE[1] - 1, SHAPE[0] - 1])).all(1)
    order = np.flatnonzero(inside)[np.argsort(-flux[inside])][:400]
    stars = {"x": xy[order, 0], "y": xy[order, 1], "flux": flux[order], "position_error": error[order]}
    return stars, centre, pixel, rng


def truth_error(fit, pixel):
    """Median distance of the solution from the truth over a grid of the image, arc seconds."""
    y, x = np.meshgrid(np.linspace(20, SHAPE[0] - 20, 12), np.linspace(20, SHAPE[1] - 20, 20), indexing="ij")
    grid = np.column_stack([x.ravel(), y.ravel()])
    back = pixel(fit.wcs.all_pix2world(grid, 0))
    return np.hypot(*(back - grid).T) * SCALE


def solve(stars, header, solvers):
    def catalogue(ra, dec, radius, year):
        return fieldstars.of_field(ra, dec, radius, year, source="embedded", cache=None)

    return plate.solve(stars, SHAPE, header, {"solvers": solvers, "hint": HINT}, catalogue=catalogue)


def header_of(place):
    cards = {"FOCALLEN": 206.264806 * 2.9 / 2.39, "XPIXSZ": 2.9, "YPIXSZ": 2.9, "DATE-OBS": "2026-01-01T00:00:00"}
    return cards | ({"RA": place[0], "DEC": place[1]} if place else {})


def known_fields(n_fields):
    """Fields with hints off by up to a degree."""
    residuals, errors, seconds, solved = [], [], [], 0
    names = list(PLACES)
    for k in range(n_fields):
        stars, centre, pixel, rng = field(PLACES[names[k % 5]], k)
        hint = (centre[0] + rng.uniform(-0.7, 0.7), centre[1] + rng.uniform(-0.7, 0.7))
        start = time.process_time()
        found = solve(stars, header_of(hint), ["seiza"])
        seconds.append(time.process_time() - start)
        if found["fit"] is None:
            print(names[k % 5], k, "not solved", found["tries"])
            continue
        solved += 1
        residuals.append(np.sqrt(np.mean(found["fit"].residual_arcsec ** 2)))
        errors.append(np.median(truth_error(found["fit"], pixel)))
        worst = truth_error(found["fit"], pixel).max()
        fit = found["fit"]
        print(f"{names[k % 5]} {k}: {len(fit.stars)} stars, order {fit.order}, rms {residuals[-1]:.2f}", end=", ")
        print(f"truth {errors[-1]:.2f}, corner {worst:.2f} arcsec", flush=True)
    middle, high = ([np.quantile(values, q) for values in (residuals, errors)] for q in (0.5, 0.9))
    print(f"solved {solved} of {n_fields}; rms residual median {middle[0]:.2f}, 90 % {high[0]:.2f} arcsec;", end=" ")
    print(f"to the truth median {middle[1]:.2f}, 90 % {high[1]:.2f}; CPU {np.median(seconds):.2f} s", flush=True)


def random_lists():
    """Lists of places by chance, through the cones around the hint and the search in rings: a minute of CPU each."""
    names, false = list(PLACES), 0
    for k in range(20):
        rng = np.random.default_rng([k, 5])
        xy = rng.uniform([0, 0], SHAPE[::-1], (120, 2))
        stars = {
            "x": xy[:, 0],
            "y": xy[:, 1],
            "flux": np.sort(10 ** rng.uniform(0, 3, 120))[::-1],
            "position_error": np.full(120, 0.1),
        }
        found = solve(stars, header_of(PLACES[names[k % 5]]), ["seiza"])
        false += found["fit"] is not None
        print(f"random list {k}: {[(entry['hint'], entry['reason']) for entry in found['tries']]}", flush=True)
    print(f"false solutions of 20 random star lists: {false}", flush=True)


def far_hints():
    """A field in Cygnus with a wrong hint and with none, by each solver."""
    stars, centre, pixel, rng = field(PLACES["Cygnus"], 1000)
    away = (centre[0], centre[1] - 20)
    for label, hint, solvers in (
        ("hint 20 degrees off, seiza", away, ["seiza"]),
        ("hint 20 degrees off, solve-field", away, ["solve-field"]),
        ("no hint, solve-field", None, ["solve-field"]),
        ("no hint, package astrometry", None, ["astrometry"]),
        ("no hint, seiza", None, ["seiza"]),
    ):
        start = time.time()
        found = solve(stars, header_of(hint), solvers)
        off = (
            f"{np.median(truth_error(found['fit'], pixel)):.2f} arcsec"
            if found["fit"]
            else [t["reason"] for t in found["tries"]]
        )
        print(
            f"{label}: {'solved' if found['fit'] else 'not solved'} in {time.time() - start:.0f} s, {off}", flush=True
        )


def main(what=None):
    if what is None or what.isdigit():
        known_fields(int(what or 50))
    if what in (None, "random"):
        random_lists()
    if what in (None, "far"):
        far_hints()


if __name__ == "__main__":
    main(*sys.argv[1:])
