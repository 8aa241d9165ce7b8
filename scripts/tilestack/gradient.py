"""BGE: a smooth model of the background, fitted to boxes of sky between stars and objects.

Samples as dynamic background extraction takes them: clipped means of boxes, stars masked by their brightness, objects
by one-sided clipping. The model is a polynomial, with a term for vignetting, a wide lens or a glow where these foretell
boxes that were left out better, or a thin-plate spline on a quadratic (Wahba 1990). Only ever subtracted.
"""

import itertools
from dataclasses import dataclass, field

import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import binary_dilation, uniform_filter
from scipy.optimize import least_squares

from tilestack import robust

# Boxes along the shorter side, and share of a box that must be free of stars.
N_BOXES, LEAST_FREE = 40, 0.35
# A star is masked as far as its wings (Moffat, beta 2.5) rise above this share of the pixel noise.
WING_SHARE, LARGEST_STAR_PX = 0.05, 120.0
# One-sided clipping of boxes, in robust deviations: objects are bright.
HIGH, LOW, ROUNDS = 2.0, 4.0, 12
# Neighbouring boxes that together stand out by this are an object, which grows by so many boxes.
OBJECT_SIGMA, OBJECT_GROWTH = 1.5, 2
FEW_SAMPLES = 40
N_FOLDS = 6
# Kinds with a geometry of their own.
BENT = ("glow", "lens")
QUANTILE = 0.25
PASSES = 2
# The geometry of a glow comes from so many boxes.
GLOW_BOXES = 400
# A richer model must foretell more boxes that are left out by this share. ASSUME.
MODEL_GAIN = 0.03
SMOOTHING = 0.1
# Powers of the rim of a vignetted field: r^2 is a part of each quadratic.
RADIAL = (4,)
# Light fall-off of a wide lens, cos^n of the angle off its axis: how far that may lie from the middle of the field, the
# focal length in halves of the longer side, and half of n. With a shorter focal length it would be an object. ASSUME.
LENS_OFF, LENS_LENGTH, LENS_POWER = 0.3, (0.75, 4.0), (1.5, 2.5)


@dataclass
class Boxes:
    """Means of boxes: ``values``, ``errors`` (c, ny, nx; NaN: none); ``y``, ``x`` (ny, nx) of ``scaled_places``."""

    values: np.ndarray
    errors: np.ndarray
    y: np.ndarray
    x: np.ndarray


@dataclass
class Model:
    """A fitted background: its terms, coefficients (c, n terms), geometry of a glow, and spline on top."""

    kind: str
    order: int
    coefficients: np.ndarray
    glow: tuple = ()
    splines: list = field(default_factory=list)

    def at(self, y, x):
        """Values (c, ...) at scaled places."""
        terms = _terms(y.ravel(), x.ravel(), self.kind, self.order, self.glow)
        values = (terms @ self.coefficients.T).T
        for channel, spline in enumerate(self.splines):
            values[channel] += spline(np.column_stack([y.ravel(), x.ravel()]))
        return values.reshape(len(self.coefficients), *y.shape)


def scaled_places(shape, rows, columns):
    """Places of pixels from the middle of the image, in halves of its longer side."""
    size = max(shape) / 2
    y, x = (rows - (shape[0] - 1) / 2) / size, (columns - (shape[1] - 1) / 2) / size
    return np.meshgrid(y, x, indexing="ij")


def star_mask(shape, stars, noise):
    """Pixels that the light of stars reaches: (h, w) bool.

    Parameters
    ----------
    shape : (int, int)
    stars : dict
        ``x``, ``y``, ``fwhm`` (pixels), ``peak`` (ADU over the sky).
    noise : float
        Of a pixel, ADU.
    """
    mask = np.zeros(shape, bool)
    fwhm = float(np.median(stars["fwhm"])) if len(stars["x"]) else 0.0
    core = fwhm / (2 * np.sqrt(2 ** (1 / 2.5) - 1))
    for x, y, peak in zip(stars["x"], stars["y"], stars["peak"], strict=True):
        ratio = max(float(peak), noise) / (WING_SHARE * noise)
        radius = min(max(core * np.sqrt(ratio**0.4 - 1), 2 * fwhm), LARGEST_STAR_PX)
        y0, x0 = max(int(y - radius), 0), max(int(x - radius), 0)
        part = mask[y0 : int(y + radius) + 2, x0 : int(x + radius) + 2]
        j, i = np.ogrid[: part.shape[0], : part.shape[1]]
        part |= (j + y0 - y) ** 2 + (i + x0 - x) ** 2 <= radius**2
    return mask


def boxes_of(planes, mask):
    """Means of boxes of the free pixels of all channels.

    Parameters
    ----------
    planes : (c, h, w) float32 array
    mask : (h, w) bool array
        Pixels that are not sky.

    Returns
    -------
    Boxes
    """
    shape = planes.shape[1:]
    edge = max(8, min(shape) // N_BOXES)
    ny, nx = shape[0] // edge, shape[1] // edge
    rows, columns = (np.arange(n) * edge + (edge - 1) / 2 for n in (ny, nx))
    free = ~mask & np.isfinite(planes).all(0)
    values, errors = (np.full((len(planes), ny, nx), np.nan) for _ in range(2))
    for c, plane in enumerate(planes):
        for j in range(ny):
            for i in range(nx):
                window = (slice(j * edge, (j + 1) * edge), slice(i * edge, (i + 1) * edge))
                chosen = plane[window][free[window]]
                if chosen.size >= LEAST_FREE * edge**2:
                    centre, spread = _clipped(chosen.astype(float))
                    values[c, j, i], errors[c, j, i] = centre, max(spread, 1e-9) / np.sqrt(chosen.size)
    y, x = scaled_places(shape, rows, columns)
    return Boxes(values, errors, y, x)


def _clipped(values):
    """Mean and standard deviation within 3 sigma, twice."""
    centre, spread = np.median(values), robust.spread(values)
    for _ in range(2):
        kept = values[np.abs(values - centre) <= 3 * spread]
        if len(kept) < 8:
            break
        centre, spread = kept.mean(), kept.std() / robust.CUT_AT_3
    return centre, spread


def samples(boxes, kind="polynomial", order=3, start=None):
    """Boxes of sky for a model, one set for all channels: (ny, nx) bool.

    From a low quantile of all boxes, or from a set that is known, the model is fitted to what is not above it and the
    set found anew, until it stands.
    """
    known = np.isfinite(boxes.values).all(0)
    light = _light(boxes)
    fit = _quantile(boxes, light, known, order) if start is None else None
    kept = known if start is None else start
    for _ in range(ROUNDS):
        if fit is None:
            fit = fitted(boxes, kept, kind, order, light[None]).at(boxes.y, boxes.x)[0]
        before, kept = kept, _below(light - fit, known)
        if kept.sum() < 3 * _n_terms(order):
            return before
        if (kept == before).all():
            break
        fit = None
    return kept


def _light(boxes):
    """All channels together, in units of their errors."""
    return (boxes.values / np.nanmedian(boxes.errors, axis=(1, 2))[:, None, None]).mean(0)


def _quantile(boxes, light, known, order):
    """Polynomial through a low quantile of the boxes (Koenker and Bassett 1978), by reweighted least squares."""
    terms = _terms(boxes.y.ravel(), boxes.x.ravel(), "polynomial", order, ())
    matrix, values = terms[known.ravel()], light[known]
    weight = np.ones(len(values))
    for _ in range(30):
        root = np.sqrt(weight)[:, None]
        coefficients = np.linalg.lstsq(matrix * root, values * root[:, 0], rcond=None)[0]
        deviation = values - matrix @ coefficients
        floor = max(0.05 * robust.spread(deviation), 1e-9)
        weight = np.where(deviation > 0, QUANTILE, 1 - QUANTILE) / np.maximum(np.abs(deviation), floor)
    return (terms @ coefficients).reshape(light.shape)


def _below(residual, known):
    """Boxes that do not stand out, alone or together with their neighbours, and are not near an object."""
    values = residual[known]
    # The sky is the lower side of what is there: its level and spread from the densest part of the lower half.
    level, sigma = _mode(values)
    centred = np.where(known, residual - level, 0.0)
    count = uniform_filter(known.astype(float), 3, mode="constant")
    joint = uniform_filter(centred, 3, mode="constant") / np.maximum(count, 1e-9)
    bright = known & ((centred > HIGH * sigma) | (joint > OBJECT_SIGMA * sigma))
    # Lone boxes by chance are left out alone; a group is an object with a rim.
    group = bright & (uniform_filter(bright.astype(float), 3, mode="constant") > 0.5)
    rim = binary_dilation(group, iterations=OBJECT_GROWTH)
    return known & ~bright & ~rim & (centred > -LOW * sigma)


def _mode(values):
    """Level and standard deviation of the sky among values with a tail to the high side."""
    ordered = np.sort(values)
    half = max(len(ordered) // 3, 2)
    widths = ordered[half - 1 :] - ordered[: len(ordered) - half + 1]
    at = int(np.argmin(widths))
    level = float(np.mean(ordered[at : at + half]))
    below = level - ordered[ordered <= level]
    return level, max(1.4826 * float(np.median(below)) if len(below) else 0.0, 1e-9)


def _n_terms(order):
    return (order + 1) * (order + 2) // 2


def _terms(y, x, kind, order, glow):
    """Columns of a model at scaled places: (n, k)."""
    columns = [y**p * x ** (n - p) for n in range(order + 1) for p in range(n + 1)]
    if kind == "vignetting":
        columns += [np.hypot(y, x) ** power for power in RADIAL]
    if kind in BENT:
        columns.append(_glow(y, x, glow))
    return np.stack(columns, axis=1)


def _glow(y, x, geometry):
    """A light with its middle anywhere, falling off by a power: centre y and x, ln of its size, and of its power."""
    y0, x0, ln_size, ln_power = geometry
    return (1 + ((y - y0) ** 2 + (x - x0) ** 2) / np.exp(2 * ln_size)) ** -np.exp(ln_power)


def _glow_slopes(y, x, geometry):
    """Derivatives of a glow by its geometry: (n, 4)."""
    y0, x0, ln_size, ln_power = geometry
    square, power = np.exp(2 * ln_size), np.exp(ln_power)
    distance = ((y - y0) ** 2 + (x - x0) ** 2) / square
    glow = (1 + distance) ** -power
    steep = 2 * power * glow / (1 + distance)
    by = (steep * (y - y0) / square, steep * (x - x0) / square, steep * distance, -power * glow * np.log1p(distance))
    return np.stack(by, axis=1)


def fitted(boxes, kept, kind, order, values=None, glow=None):
    """Fit one model to the kept boxes: of all channels, or of other `values` (k, ny, nx) of the same boxes."""
    y, x = boxes.y[kept], boxes.x[kept]
    values = (boxes.values if values is None else values)[:, kept]
    if kind in BENT and glow is None:
        glow = _glow_of(y, x, _light(boxes)[kept], kind, order)
    glow = glow if kind in BENT else ()
    matrix = _terms(y, x, "polynomial" if kind == "rbf" else kind, order, glow)
    coefficients = np.linalg.lstsq(matrix, values.T, rcond=None)[0].T
    splines = []
    if kind == "rbf":
        residual = values - (matrix @ coefficients.T).T
        places = np.column_stack([y, x])
        splines = [
            RBFInterpolator(places, part, neighbors=None, smoothing=SMOOTHING, kernel="thin_plate_spline")
            for part in residual
        ]
    return Model("polynomial" if kind == "rbf" else kind, order, coefficients, glow, splines)


def _glow_of(y, x, light, kind, order):
    """Geometry of a glow or of a lens by least squares over the terms of a polynomial, from starts around the field."""
    thinned = slice(None, None, -(-len(y) // GLOW_BOXES))
    y, x, light = y[thinned], x[thinned], light[thinned]
    plain = _terms(y, x, "polynomial", order, ())
    basis = np.linalg.qr(plain)[0]

    rest = light - basis @ (basis.T @ light)

    def beyond(columns):
        return columns - basis @ (basis.T @ columns)

    def residual(geometry):
        term = beyond(_glow(y, x, geometry))
        norm = term @ term
        return rest - term * (term @ rest / norm) if norm > 1e-12 else rest

    def jacobian(geometry):
        """Of the residual, the brightness of the glow being the best one everywhere."""
        term, slopes = beyond(_glow(y, x, geometry)), beyond(_glow_slopes(y, x, geometry))
        norm = term @ term
        if norm <= 1e-12:
            return np.zeros_like(slopes)
        factor = term @ rest / norm
        return -np.outer(term, (rest @ slopes - 2 * factor * (term @ slopes)) / norm) - factor * slopes

    found = [
        least_squares(residual, start, jac=jacobian, bounds=(low, high), ftol=1e-5, xtol=1e-5, max_nfev=40)
        for start, low, high in _starts(y, x, kind)
    ]
    return tuple(min(found, key=lambda one: one.cost).x)


def _starts(y, x, kind):
    """Geometries to start from, each with its lowest and highest."""
    if kind == "lens":
        sizes, powers = np.log(LENS_LENGTH), np.log(LENS_POWER)
        low, high = ([side * LENS_OFF, side * LENS_OFF, sizes[k], powers[k]] for k, side in enumerate((-1, 1)))
        return [([0.0, 0.0, 0.0, np.log(2)], low, high)]
    reach, starts = (np.abs(y).max(), np.abs(x).max()), []
    for signs in itertools.product((-1, 0, 1), repeat=2):
        if any(signs):
            # A light stands outside of the frame or at its rim: one within would be an object.
            low = [end * (0.9 if sign > 0 else -3) for sign, end in zip(signs, reach, strict=True)]
            high = [end * (-0.9 if sign < 0 else 3) for sign, end in zip(signs, reach, strict=True)]
            start = [1.1 * sign * end for sign, end in zip(signs, reach, strict=True)]
            starts.append(
                ([*start, np.log(0.6), 0.0], [*low, np.log(0.25), np.log(0.3)], [*high, np.log(4), np.log(6)])
            )
    return starts


def candidates(n_samples, order):
    """Models to choose from, the plainest first: (kind, order)."""
    if order != "auto":
        return [("polynomial", order)]
    most = 3 if n_samples >= FEW_SAMPLES else 2
    plain = [("polynomial", n) for n in range(most + 1) if n_samples >= 4 * _n_terms(n)]
    if n_samples < 4 * FEW_SAMPLES:
        return plain
    return [*plain, ("vignetting", 2), ("vignetting", 3), ("lens", 1), ("glow", 1), ("glow", 2), ("glow", 3)]


def choose(boxes, order):
    """The model that predicts blocks of boxes that are left out best.

    Returns
    -------
    kind, order : str, int
    kept : (ny, nx) bool array
        Its samples.
    scores : dict
        Number of boxes foretold, by (kind, order).
    """
    known = np.isfinite(boxes.values).all(0)
    names = candidates(int(known.sum()), order)
    plain = [n for kind, n in names if kind == "polynomial"]
    sets = {name: samples(boxes, *name) for name in names if name[0] == "polynomial"}
    base, best = sets["polynomial", max(plain)], None
    for _ in range(PASSES):
        for name in names:
            # From where the richest polynomial, or the best model of the pass before, saw sky.
            other = samples(boxes, *name, start=base)
            sets[name] = max((sets.get(name, other), other), key=lambda kept, name=name: _agreement(boxes, kept, *name))
        scores = _scores(boxes, sets)
        best = names[0]
        for name in names:
            if scores[name] > scores[best] * (1 + MODEL_GAIN):
                best = name
        base = sets[best]
    return (*best, sets[best], scores)


def _agreement(boxes, kept, kind, order):
    """Number of boxes that a model meets within three errors."""
    light = _light(boxes)
    model = fitted(boxes, kept, kind, order, light[None])
    return int((np.abs(light - model.at(boxes.y, boxes.x)[0]) < 3).sum())


def _scores(boxes, sets):
    """How many boxes each model foretells, of those left out of its fit, within a width that the best one reaches."""
    light, folds = _light(boxes), _folds(boxes)
    known = np.isfinite(light)
    errors, widths = {}, []
    for (kind, n), kept in sets.items():
        error = np.full(light.shape, np.inf)
        glow = fitted(boxes, kept, kind, n, light[None]).glow if kind in BENT else None
        for fold in range(N_FOLDS):
            test, train = known & (folds == fold), kept & (folds != fold)
            if train.sum() >= 2 * _n_terms(n):
                model = fitted(boxes, train, kind, n, light[None], glow)
                error[test] = light[test] - model.at(boxes.y[test], boxes.x[test])[0]
        errors[kind, n] = error[known]
        widths.append(np.quantile(np.abs(error[known]), 0.2))
    width = max(2.0, 2 * min(widths))
    return {name: float((1 / (1 + (error / width) ** 2)).sum()) for name, error in errors.items()}


def _folds(boxes):
    """Fold of each box: blocks of an eighth of the longer side, dealt out in a fixed pattern."""
    j = np.floor((boxes.y - boxes.y.min()) / 0.25).astype(int)
    i = np.floor((boxes.x - boxes.x.min()) / 0.25).astype(int)
    return (i * 2 + j * 3) % N_FOLDS


def evaluate(model, shape, band=256):
    """The model on all pixels of an image of any scale of the same field: (c, h, w) float32."""
    result = np.empty((len(model.coefficients), *shape), np.float32)
    if model.splines:
        return _evaluated_coarse(model, shape, result)
    for row in range(0, shape[0], band):
        rows = np.arange(row, min(row + band, shape[0]))
        result[:, rows] = model.at(*scaled_places(shape, rows, np.arange(shape[1])))
    return result


def _evaluated_coarse(model, shape, result, step=16):
    """A spline on every 16th pixel, cubic between: it has no detail below its samples."""
    from scipy.interpolate import RectBivariateSpline

    rows, columns = (np.unique(np.r_[np.arange(0, n, step), n - 1]) for n in shape)
    coarse = model.at(*scaled_places(shape, rows, columns))
    for channel, values in enumerate(coarse):
        result[channel] = RectBivariateSpline(rows, columns, values)(np.arange(shape[0]), np.arange(shape[1]))
    return result
