"""ASTROMETRY: the sky coordinates of the result, by one solver after the other, and what shows them."""

import functools
import logging

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from matplotlib import figure, image
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tilestack import fieldstars, files, hints, preview, products, solvers, stars, wcsfit

# Detection limit in standard deviations of the smoothed sky, and brightest detections that are measured.
SIGMA, MAX_STARS = 4.0, 400
# Radii of the search by a hint, over the first one, before the wide search. Degrees.
WIDER_DEG = 5.0
# Catalogue stars are taken from a field this much larger than the image.
MARGIN = 1.15
# Stars with a name on the annotated preview.
N_NAMED = 12
# Letters of the annotated preview are drawn to be read where its longer side is shrunk to this.
READABLE_PX = 700
# Cards of a .wcs file that are not for images.
NOT_WCS = ("SIMPLE", "BITPIX", "NAXIS", "EXTEND", "IMAGEH", "IMAGEW")


def year_of(header, default=2000.0):
    """Year of an image by its DATE-AVG or DATE-OBS."""
    text = header.get("DATE-AVG") or header.get("DATE-OBS")
    if not text:
        return default
    day = np.datetime64(str(text)[:10])
    return 2000 + float((day - np.datetime64("2000-01-01")) / np.timedelta64(1, "D")) / 365.25


def detections(image_planes):
    """Stars of a stack, on the mean of its planes: as ``stars.find``."""
    planes = np.atleast_3d(np.asarray(image_planes, np.float32).T).T
    return stars.find(np.ascontiguousarray(planes.mean(0)), None, sigma=SIGMA, max_stars=MAX_STARS, saturation=None)


def solve(found, shape, header, options, *, size=1.0, catalogue):
    """Solve a star list by the solvers in their order, and fit the coordinates.

    Parameters
    ----------
    found : dict
        Star list of ``detections``.
    shape : (int, int)
    header : mapping
        Cards of the image.
    options : dict
        ``solvers``, ``hint`` of the configuration.
    size : float
        Pixels of the image to one of the lights, along each axis.
    catalogue : callable
        Right ascension, declination, radius (degrees), year -> stars and the name of their catalogue.

    Returns
    -------
    dict
        ``fit`` (``wcsfit.Fit`` or None), ``sky`` (stars of the field), ``catalogue``, ``solver``, ``tries``.
    """
    tries = []
    try:
        field = solvers.Field(
            found, shape, hints.scales(options["hint"], header, size), hints.aspect(header), year_of(header)
        )
    except solvers.Unsolved as error:
        return {"fit": None, "solver": None, "tries": [{"solver": "none", "hint": None, "reason": str(error)}]}
    for solver, hint, attempt in _attempts(field, header, options):
        entry = {"solver": solver, "hint": hint, "reason": None}
        tries.append(entry)
        try:
            start = attempt()
            radius = MARGIN * np.hypot(*shape) / 2 * np.sqrt(abs(np.linalg.det(start.wcs.cd)))
            middle = start.all_pix2world([[(shape[1] - 1) / 2, (shape[0] - 1) / 2]], 0)[0]
            sky, name = catalogue(*map(float, middle), float(radius), field.year)
            fit = wcsfit.refine(found, sky, start, shape)
        except (solvers.Unsolved, wcsfit.Refused) as error:
            entry["reason"] = str(error)
            logging.info("%s by %s: %s", solver, hint, error)
            continue
        return {"fit": fit, "sky": sky, "catalogue": name, "solver": solver, "tries": tries}
    return {"fit": None, "solver": None, "tries": tries}


def _attempts(field, header, options):
    """What to try, in order: solver, hint, and a function that gives a WCS or raises Unsolved."""
    places, first = hints.places(options["hint"], header), options["hint"]["radius_deg"]
    wider = [radius for radius in (WIDER_DEG,) if radius > first]
    for solver in options["solvers"]:
        if solver == "seiza":
            for radius in (first, *wider):
                # Farther out only bright stars: in the Milky Way all of them cost a minute.
                most = None if radius == first else solvers.STARS_IN_FIELD
                for hint, *place in places:
                    yield (
                        solver,
                        f"{hint}, {radius:g} deg",
                        lambda p=place, r=radius, n=most: solvers.near(field, p, r, n),
                    )
        elif solver == "astrometry":
            yield solver, None, lambda: solvers.by_package(field)
        elif solver == "solve-field":
            yield solver, None, lambda: solvers.by_solve_field(field)
        else:
            for hint, *place in places[:1] or [(None,)]:
                yield solver, hint, lambda p=place: solvers.by_astap(field, p)
    if "seiza" in options["solvers"] and len(field.scales) == 1:  # at each of many scales it would take minutes
        searched = []
        for hint, *place in places:
            if all(fieldstars.distance(*place, *other) > solvers.CONE_DEG for other in searched):
                searched.append(place)
                inner = max(first, *wider)
                yield "seiza", f"{hint}, around it", lambda p=place, r=inner: solvers.around(field, p, r)


def cards_of(fit, shape, size=1.0):
    """Cards of a solution, for an image of `size` times as many pixels along each axis; none without a solution."""
    if fit is None:
        return {}
    place = wcsfit.geometry(fit.wcs, shape)
    middle = {"RA": (place["ra_deg"], "[deg] of the middle, solved"), "DEC": (place["dec_deg"], "[deg] the same")}
    return wcsfit.cards(fit.wcs, size) | middle


def cards_in(path):
    """Shape of the image (rows, columns) that a ``.wcs`` file is for, and its cards; none without a solution."""
    header = fits.getheader(path)
    cards = {key: (header[key], header.comments[key]) for key in header if key not in (*NOT_WCS, "COMMENT", "")}
    return (header["IMAGEH"], header["IMAGEW"]), cards if "CTYPE1" in cards else {}


def cards_for(shape, known):
    """Cards of the solution for an image of the field by its rows and columns.

    Parameters
    ----------
    shape : (int, int)
    known : list
        Of ``cards_in``, the lattice first: a drizzled image that is not the colour product has whole times its pixels.
    """
    for own, cards in known:
        if shape == own or not cards:
            return cards
    (rows, columns), cards = known[0]
    size = shape[1] // columns
    if shape != (size * rows, size * columns):
        raise ValueError(
            f"an image of {shape} pixels is neither the lattice of {(rows, columns)} nor finer by whole times"
        )
    header = fits.Header()
    header.update(cards)
    return wcsfit.cards(WCS(header), size) | {key: cards[key] for key in ("RA", "DEC")}


def write_product(source, out, solutions, cards, tables=(), history=()):
    """Write a product: pixels of a file of a stack, with all that is known and sky coordinates in their headers.

    Parameters
    ----------
    source, out : path
    solutions : list
        As ``cards_for`` takes them.
    cards, tables, history
        As in ``products.write``.
    """
    with files.opened(source) as hdus:
        (_, image), *planes = ((hdu.name, functools.partial(files.stored, hdu)) for hdu in hdus)
        cards = cards | cards_for(tuple(hdus[0].shape[-2:]), solutions)
        products.write(out, image, cards, planes, tables, history)


def write_header(path, cards, shape):
    """A ``.wcs`` file: a FITS header without pixels; without a solution, one that says so."""
    header = fits.PrimaryHDU().header
    header.update({"IMAGEW": (shape[1], "[px] columns of the image"), "IMAGEH": (shape[0], "[px] rows of the image")})
    header.update(cards or {"COMMENT": "no sky coordinates were found: see artifacts/astrometry.json"})
    with files.replacing(path) as draft:
        fits.PrimaryHDU(header=header).writeto(draft)


def write_stars(path, sky, fit, shape):
    """The catalogue stars in the field as a table, with their pixels; without a solution, an empty one."""
    columns = {name: np.asarray(sky[name], float) if sky else np.zeros(0) for name in fieldstars.COLUMNS}
    expected = np.zeros((0, 2))
    if fit is not None:
        expected = fit.wcs.all_world2pix(np.column_stack([columns["ra_deg"], columns["dec_deg"]]), 0, quiet=True)
    inside = ((expected >= 0) & (expected <= [shape[1] - 1, shape[0] - 1])).all(1)
    columns |= {"x": expected[:, 0], "y": expected[:, 1]}
    units = {
        "ra_deg": "deg",
        "dec_deg": "deg",
        "v": "mag",
        "b_v": "mag",
        "b_v_error": "mag",
        "x": "pixel",
        "y": "pixel",
    }
    table = fits.BinTableHDU.from_columns(
        [fits.Column(name, "D", unit=units[name], array=values[inside]) for name, values in columns.items()],
        name="STARS",
    )
    with files.replacing(path) as draft:
        fits.HDUList([fits.PrimaryHDU(), table]).writeto(draft, checksum=True)


def annotate(path, planes, header, fit, sky):
    """The preview with a grid of right ascension and declination and rings around catalogue stars."""
    picture, factor = preview.picture(planes)
    h, w = picture.shape[:2]
    large = max(1.0, max(h, w) / READABLE_PX)
    width, height = round(w + 120 * large), round(h + 90 * large)
    drawn = figure.Figure(figsize=(width / 100, height / 100), dpi=100)
    frame = [80 * large / width, 50 * large / height, w / width, h / height]
    if fit is None:
        axes = drawn.add_axes(frame)
        axes.set_title("no sky coordinates were found")
    else:
        axes = drawn.add_axes(frame, projection=WCS(fits.Header(wcsfit.cards(fit.wcs, 1 / factor))))
        axes.coords.grid(color="white", alpha=0.35, linewidth=0.6 * large)
        for k, name in enumerate(("RA (ICRS)", "Dec (ICRS)")):
            axes.coords[k].set_axislabel(name, fontsize=9 * large)
            axes.coords[k].set_ticklabel(size=8 * large)
        expected = fit.wcs.all_world2pix(np.column_stack([sky["ra_deg"], sky["dec_deg"]]), 0, quiet=True)
        at = (expected + 0.5) / factor - 0.5
        matched = np.isin(np.arange(len(at)), fit.stars)
        inside = ((at > 0) & (at < [w - 1, h - 1])).all(1)
        for chosen, colour in ((inside & matched, "#56b4e9"), (inside & ~matched, "#f0b429")):
            axes.scatter(*at[chosen].T, s=70 * large**2, facecolors="none", edgecolors=colour, linewidths=large)
        for k in np.flatnonzero(inside)[:N_NAMED]:
            label = f"{sky['v'][k]:.1f}"
            axes.annotate(
                label, at[k], (6 * large, 4 * large), textcoords="offset points", color="white", fontsize=8 * large
            )
        axes.set_title(f"{len(fit.stars)} catalogue stars matched (blue), V magnitudes", fontsize=9 * large)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, origin="lower")
    axes.set(xlim=(-0.5, w - 0.5), ylim=(-0.5, h - 0.5) if products.bottom_up(header) else (h - 0.5, -0.5))
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    with files.replacing(path) as draft:
        image.imsave(draft, np.asarray(canvas.buffer_rgba()), format="png")
