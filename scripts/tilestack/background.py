"""BGE on products: the gradient of a stack, the guards that let it be subtracted, and the figure that shows it."""

import numpy as np
from matplotlib import figure
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tilestack import bayer, files, gradient, robust, stars

SIGMA, MAX_STARS = 4.0, 4000
# Guards: what a model may take. How far it bends from the ring to the aperture of a star, in the noise of a pixel: a
# steep gradient has curvature of its own, which should go, but no structure as small as stars. The share of an object's
# light is an estimate, and large by chance where objects are faint: it counts where the error in the holes that it
# comes from is more than MOST_HOLE of the gradient.
MOST_STAR_BEND, MOST_OBJECT_SHARE, MOST_HOLE = 1.0, 0.1, 0.03
RING_FWHM, APERTURE_FWHM = 5.0, 2.5


def extracted(planes, options):
    """Fit the background of a stack.

    Parameters
    ----------
    planes : (c, h, w) float32 array, ADU
    options : dict
        ``method``, ``order`` of the configuration.

    Returns
    -------
    dict
        ``model`` (``gradient.Model`` or None), ``reason`` (code why there is none), ``boxes``, ``kept``, ``method``,
        ``order``, ``channels`` (diagnostics by channel).
    """
    proxy = np.ascontiguousarray(planes.mean(0))
    found = stars.find(proxy, None, sigma=SIGMA, max_stars=MAX_STARS, saturation=None)
    mask = gradient.star_mask(proxy.shape, found, float(found["noise"][0]))
    boxes = gradient.boxes_of(planes, mask)
    known = np.isfinite(boxes.values).all(0)
    if known.sum() < gradient.FEW_SAMPLES // 2:
        return {"model": None, "reason": "too_few_samples", "boxes": boxes, "kept": known, "channels": []}
    kind, order, kept, _ = gradient.choose(boxes, options["order"])
    if options["method"] == "rbf":
        kind, order = "rbf", min(order, 2)
    model = gradient.fitted(boxes, kept, kind, order)
    holes = _holes(boxes, known, kept, kind, order)
    channels = [_diagnosis(c, planes[c], boxes, known, kept, model, found, holes) for c in range(len(planes))]
    return {
        "model": model,
        "reason": _refusal(channels),
        "boxes": boxes,
        "kept": kept,
        "method": kind,
        "order": order,
        "channels": channels,
    }


def _diagnosis(c, plane, boxes, known, kept, model, found, holes):
    """Numbers of one channel."""
    values = model.at(boxes.y, boxes.x)[c]
    rest = boxes.values[c] - values
    change, bend = _star_change(c, plane, found, model)
    share, hole = _object_share(c, boxes, known & ~kept, holes, rest)
    return {
        "amplitude_adu": float(np.ptp(values[known])),
        "residual_adu": float(robust.spread(rest[kept])),
        "before_adu": float(robust.spread(boxes.values[c][kept])),
        "object_share": share,
        "hole_adu": hole,
        "star_flux_change": change,
        "star_bend": bend,
    }


def _holes(boxes, known, kept, kind, order):
    """Holes of the shape of the objects elsewhere, and what the model is without the samples there."""
    objects, found = known & ~kept, []
    if objects.sum() < 9:
        return found
    for hole in (objects[::-1], objects[:, ::-1], objects[::-1, ::-1]):
        test, train = kept & hole, kept & ~hole
        if test.sum() >= 9 and train.sum() >= gradient.FEW_SAMPLES:
            found.append((test, gradient.fitted(boxes, train, kind, order)))
    return found


def _object_share(c, boxes, objects, holes, rest):
    """Share of the objects' light that the model may hold, by its error (ADU) in holes of their shape elsewhere."""
    height = float(np.mean(rest[objects])) if objects.any() else 0.0
    if height <= 0 or objects.sum() < 9:
        return 0.0, 0.0
    errors = [
        float(np.mean(boxes.values[c][test] - model.at(boxes.y[test], boxes.x[test])[c])) for test, model in holes
    ]
    error = abs(float(np.median(errors))) if errors else 0.0
    return error / height, error


def _star_change(c, plane, found, model):
    """Median relative change of the fluxes of bright stars by the curvature of the model over their apertures, and that
    curvature over the noise of a pixel."""
    if not len(found["x"]):
        return 0.0, 0.0
    fwhm = float(np.median(found["fwhm"]))
    n = min(len(found["x"]), 200)
    x, y = (np.asarray(found[key], float)[:n] for key in ("x", "y"))
    flux = np.asarray(found["flux"], float).reshape(len(found["x"]), -1)[:n, 0]
    angle = np.arange(8) * np.pi / 4
    ring_y = y[:, None] + RING_FWHM * fwhm * np.sin(angle)
    ring_x = x[:, None] + RING_FWHM * fwhm * np.cos(angle)
    size, (h, w) = max(plane.shape) / 2, plane.shape

    def at(rows, columns):
        return model.at((rows - (h - 1) / 2) / size, (columns - (w - 1) / 2) / size)[c]

    bend = at(y, x) - at(ring_y, ring_x).mean(1)
    error = np.asarray(found["flux_error"], float).reshape(len(found["x"]), -1)[:n, 0]
    good = flux > 30 * error
    change = np.abs(bend[good]) * np.pi * (APERTURE_FWHM * fwhm) ** 2
    if not good.any():
        return 0.0, 0.0
    return float(np.median(change / flux[good])), float(np.median(np.abs(bend[good]))) / float(found["noise"][0])


def _refusal(channels):
    """Why the model is not subtracted, from any channel: all or none."""
    for channel in channels:
        if channel["star_bend"] > MOST_STAR_BEND:
            return "guard_stars"
        if channel["object_share"] > MOST_OBJECT_SHARE and channel["hole_adu"] > MOST_HOLE * channel["amplitude_adu"]:
            return "guard_object"
        if channel["residual_adu"] > 1.05 * channel["before_adu"]:
            return "guard_flatness"
    return None


def over_sky(model, shape, boxes, kept):
    """The model on all pixels, less its median over the samples, so that the sky keeps its level: (c, h, w) float32."""
    level = np.median(model.at(boxes.y[kept], boxes.x[kept]), axis=1)
    return gradient.evaluate(model, shape) - level[:, None, None].astype(np.float32)


def of_mosaic(full, shape, pattern):
    """The model for the mosaic of the same field: each pixel that of its colour; (h, w) float32."""
    if pattern is None:
        return full[0]
    cell = bayer.channel_cell(pattern)
    result = np.empty(shape, np.float32)
    for y in (0, 1):
        for x in (0, 1):
            result[y::2, x::2] = full[cell[y, x]][y::2, x::2]
    return result


def draw(path, found, names, shape, *, bottom_up=False):
    """Figure: samples, model and what remains, by channel; shape: rows and columns of the image."""
    boxes = found["boxes"]
    if boxes is None:  # switched off
        drawn = figure.Figure(figsize=(4, 1), dpi=90)
        drawn.text(0.5, 0.5, found["reason"], ha="center")
        with files.replacing(path) as draft:
            FigureCanvasAgg(drawn).print_png(draft)
        return
    kept = found["kept"]
    height = min(4.2, 2.7 * shape[0] / shape[1] + 0.8)
    drawn = figure.Figure(figsize=(11, height * len(names)), dpi=90, layout="constrained")
    axes = drawn.subplots(len(names), 3, squeeze=False)
    model = found["model"]
    for c, name in enumerate(names):
        values = boxes.values[c]
        fitted = model.at(boxes.y, boxes.x)[c] if model else np.full(values.shape, np.nan)
        shown = values[kept] if kept.any() else np.zeros(1)
        low, high = np.nanpercentile(shown, [0.5, 99.5])
        pad = 0.1 * max(high - low, 1e-6)
        rest = values - fitted
        spread = max(robust.spread(rest[kept & np.isfinite(rest)]) if model else 1.0, 1e-6)
        level, apart = (low - pad, high + pad, "cividis"), (-5 * spread, 5 * spread, "PuOr_r")
        for axis, part, title, (least, most, colours) in (
            (axes[c, 0], np.where(kept, values, np.nan), f"{name}: samples of blank sky", level),
            (axes[c, 1], fitted, f"{name}: model", level),
            (axes[c, 2], rest, f"{name}: rest, objects too", apart),
        ):
            image = axis.imshow(part, vmin=least, vmax=most, cmap=colours, extent=_extent(boxes, shape))
            drawn.colorbar(image, ax=axis, label="ADU", shrink=0.75)
            axis.set(title=title, xlabel="x (px)", ylabel="y (px)")
            axis.locator_params(nbins=4)
            if bottom_up:
                axis.invert_yaxis()
    with files.replacing(path) as draft:
        FigureCanvasAgg(drawn).print_png(draft)


def _extent(boxes, shape):
    """Left, right, lower and upper rim of the boxes in pixels of the image, first row up."""
    size = max(shape) / 2
    x, y = boxes.x[0] * size + (shape[1] - 1) / 2, boxes.y[:, 0] * size + (shape[0] - 1) / 2
    half = (x[1] - x[0]) / 2
    return x[0] - half, x[-1] + half, y[-1] + half, y[0] - half
