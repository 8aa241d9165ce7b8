"""PCC on products: from a stack with sky coordinates to calibrated colours, zero points, and what shows them."""

import numpy as np
from astropy.io import fits
from matplotlib import figure
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tilestack import colourfit, debayering, files, masks, plate, products, robust, starcolours
from tilestack.kernels import clipping

CHANNELS = ("R", "G", "B")


def opened(path):
    """A product: ``cards``, ``planes`` (c, h, w), ``VAR`` and ``MASK`` of the same shape."""
    with fits.open(path) as hdus:
        planes = files.native(hdus[0].data)
        planes = planes.reshape(-1, *planes.shape[-2:])
        parts = {name: files.native(hdus[name].data).reshape(-1, *planes.shape[-2:]) for name in ("VAR", "MASK")}
        cards = products.own_cards(hdus[0].header)
    parts = {name: np.broadcast_to(values, planes.shape) for name, values in parts.items()}
    return {"cards": cards, "planes": planes, **parts}


def value(cards, key):
    """Value of a card, null where it is missing."""
    card = cards.get(key)
    return card[0] if isinstance(card, tuple) else card


def nothing(reason):
    """What PCC found where it did not look."""
    return {
        "reason": reason,
        "note": reason or "",
        "gains": [1.0, 1.0, 1.0],
        "sky": None,
        "level": 0.0,
        "stars": None,
        "fits": [],
        "grade": None,
        "zero_points": [],
        "check": None,
    }


def star_fluxes(stack, paths, method, pattern):
    """Fluxes of the catalogue stars on pixels that no interpolation between colours has touched.

    Drizzled, mono and super-pixel images as they are; of a demosaiced image, super-pixels of the mosaic it came from.
    """
    with fits.open(paths["stars"]) as hdus:
        sky = {name: np.asarray(hdus["STARS"].data[name], float) for name in hdus["STARS"].columns.names}
    found = plate.detections(stack["planes"])
    planes, variance, mask = stack["planes"], stack["VAR"], stack["MASK"]
    if pattern and method in ("malvar", "bilinear"):
        mosaic = opened(paths["mosaic"])
        planes, variance = debayering.demosaiced(mosaic["planes"][0], mosaic["VAR"][0], pattern, "superpixel")
        mask = np.broadcast_to(debayering.by_cells(mosaic["MASK"][0], np.bitwise_or), planes.shape)
        sky, found = starcolours.on_superpixels(sky, found)
        stars = starcolours.measured(planes, variance, mask, sky, found, saturation=value(stack["cards"], "SATURATE"))
        # In the pixels of the image: four of them are a super-pixel.
        fluxes = {key: 4 * stars[key] for key in ("flux", "flux_error")}
        return stars | fluxes | {key: 2 * stars[key] + 0.5 for key in ("x", "y")}
    return starcolours.measured(planes, variance, mask, sky, found, saturation=value(stack["cards"], "SATURATE"))


def calibrated(stack, stars, white_name):
    """Gains, sky levels, zero points and the check of the colours, from measured stars."""
    white = colourfit.WHITE_B_V[white_name]
    good = starcolours.good(stars)
    result = nothing(None) | {"stars": stars, "sky": sky_levels(stack["planes"])}
    exposure = value(stack["cards"], "EXPTIME")
    if len(stack["planes"]) == 1:
        points = colourfit.zero_points(good, exposure, white)
        return result | {"reason": "mono", "note": "one channel", "zero_points": points}
    found = colourfit.gains(good, value(stack["cards"], "INSTRUME"), white)
    result |= {key: found[key] for key in ("gains", "fits", "grade")}
    result["level"] = float(result["sky"][1])
    after = {**good, "flux": good["flux"] * found["gains"], "flux_error": good["flux_error"] * found["gains"]}
    result["zero_points"] = colourfit.zero_points(after, exposure, white)
    result["check"] = colourfit.colour_check(good, found["gains"])
    result["kept"] = np.flatnonzero(stars["fault"] == "")[found["kept"]]
    if found["grade"] == "FAIL":
        return result | {"reason": "too_few_stars", "note": f"{len(good['v'])} stars: gains stay 1"}
    texts = ", ".join(f"{name} {gain:.4f}" for name, gain in zip(CHANNELS, found["gains"], strict=True))
    return result | {"note": f"gains {texts} by {len(good['v'])} stars"}


def sky_levels(planes):
    """Level of the sky of each channel, ADU: (c,) float64."""
    step = max(1, planes[0].size // 400_000)
    levels = []
    for plane in planes:
        values = plane[np.isfinite(plane)][::step].astype(float)
        low = values[values <= np.median(values) + 2 * robust.spread(values)]
        levels.append(clipping.clipped(low)[0])
    return np.array(levels)


def image_of(stack, found):
    """The calibrated image; the image as it is where there is nothing to calibrate."""
    planes = stack["planes"]
    if len(planes) == 1:
        return planes[0]
    if found["reason"] is not None:
        return planes
    share = starcolours.saturation_share(stack["before"], value(stack["cards"], "SATURATE"))
    share = np.maximum(share, (stack["MASK"] & masks.SATURATED).any(0))
    return colourfit.applied(planes, found["gains"], found["sky"], found["level"], share)


def extensions_of(stack, found):
    """Variance by the square of the gains, and the mask."""
    gain = np.array(found["gains"][: len(stack["planes"])], np.float32)[:, None, None]
    parts = [("VAR", stack["VAR"] * (gain**2 if len(gain) == 3 else 1)), ("MASK", stack["MASK"])]
    return [(name, values[0] if len(gain) == 1 else values) for name, values in parts]


def cards_of(found):
    """Cards of zero points, gains and the level of the sky."""
    cards = {}
    for k, point in enumerate(found["zero_points"]):
        if point is not None:
            cards[f"MAGZERO{k + 1}"] = (point, "V of a white star of 1 adu/s in this plane")
    points = found["zero_points"]
    if points and points[len(points) // 2] is not None:
        cards["MAGZERO"] = (points[len(points) // 2], "[mag] the same, green or only plane")
    if found["reason"] is None:
        for name, gain in zip(CHANNELS, found["gains"], strict=True):
            cards[f"PCCGAIN{name}"] = (gain, "gain of the colour calibration")
        cards["PCCGRADE"] = (found["grade"], "OK, LOW: by the number of stars")
        cards["SKYLEVEL"] = (found["level"], "[adu] sky of all channels")
    return cards


def write_stars(path, found):
    """The matched stars as a table; an empty one where PCC did not look."""
    stars = found["stars"]
    columns = []
    if stars is not None:
        used = np.isin(np.arange(len(stars["v"])), found.get("kept", []))
        for name in ("ra_deg", "dec_deg", "x", "y", "v", "b_v", "b_v_error"):
            columns.append(fits.Column(name, "D", array=stars[name]))
        n_channels = stars["flux"].shape[1]
        for name in ("flux", "flux_error"):
            columns.append(fits.Column(name, f"{n_channels}D", unit="adu", array=stars[name]))
        columns += [fits.Column("used", "L", array=used), fits.Column("fault", "10A", array=stars["fault"])]
    with files.replacing(path) as draft:
        fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="STARS")]).writeto(
            draft, checksum=True
        )


def record_of(found, white_name, astrometry):
    """The record of the phase."""
    stars = found["stars"]
    faults = [] if stars is None else sorted(set(stars["fault"]) - {""})
    n_good = 0 if stars is None else int((stars["fault"] == "").sum())
    fits_ = found["fits"]
    return {
        "phase": 16,
        "phase_name": "PCC",
        "status": "ok" if found["reason"] is None else "skipped",
        "reason": found["reason"],
        "summary": {"grade": found["grade"], "n_stars": n_good, "gains": found["gains"]},
        "grade": found["grade"],
        "catalogue": astrometry["catalogue"] if stars is not None else None,
        "white_reference": white_name,
        "n_stars": n_good,
        "left_out": {} if stars is None else {name: int((stars["fault"] == name).sum()) for name in faults},
        "gains": found["gains"],
        "gain_errors_mag": [one["a_error"] for one in fits_],
        "slopes": [one["slope"] for one in fits_],
        "slopes_of_stars": [one["slope_of_stars"] for one in fits_],
        "residual_mag": [one["scatter"] for one in fits_],
        "zero_points_mag": found["zero_points"],
        "colour_check": found["check"],
    }


def draw(path, found):
    """Colours of the stars against those of the catalogue, with the lines that were fitted."""
    drawn = figure.Figure(figsize=(11, 4.2), dpi=90, layout="constrained")
    axes = drawn.subplots(1, 2)
    stars = found["stars"]
    for axis, channel, name, k in ((axes[0], 0, "R/G", 0), (axes[1], 2, "B/G", 1)):
        axis.set(
            xlabel="B \N{MINUS SIGN} V of the catalogue (mag)",
            ylabel=f"2.5 log {name} (mag)",
            title=f"{name}: {found['note']}"[:60],
        )
        if stars is None or stars["flux"].shape[1] != 3 or not found["fits"]:
            continue
        good = np.flatnonzero(stars["fault"] == "")
        used = np.isin(good, found["kept"])
        m = 2.5 * np.log10(stars["flux"][good, channel] / stars["flux"][good, 1])
        error = np.nan_to_num(stars["b_v_error"][good], nan=0.1)
        for chosen, style, colour in ((used, "o", "#0072b2"), (~used, "x", "#d55e00")):
            axis.errorbar(
                stars["b_v"][good][chosen], m[chosen], xerr=error[chosen], fmt=style, lw=0.7, ms=4, color=colour
            )
        one, x = found["fits"][k], np.array([-0.2, 1.5])
        axis.plot(x, one["a"] + one["slope"] * (x - one["white"]), "-", color="grey")
        axis.axvline(one["white"], color="grey", lw=0.6, ls=":")
    with files.replacing(path) as draft:
        FigureCanvasAgg(drawn).print_png(draft)
