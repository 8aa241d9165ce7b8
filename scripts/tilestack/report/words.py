"""Codes of the records in plain words, with what to do about them."""

# code: (what it means, what to do)
CODES = {
    # lights that were left out
    "excluded_by_user": ("left out by your own setting scan.exclude", "Nothing, if that was the intention."),
    "not_fits": ("not a FITS file", "Remove the file from the folder, or copy it from the camera again."),
    "truncated": ("cut short: the file ends before its data does", "Copy the file from the camera again."),
    "unreadable": ("cannot be read", "Copy the file from the camera again."),
    "no_image": ("holds no image", "Remove the file from the folder of lights."),
    "rgb_product": (
        "a finished colour picture, not a raw light",
        "Nothing: stacks lying among the lights are left out.",
    ),
    "stacked_product": ("already a stack, not a single light", "Nothing: stacks lying among the lights are left out."),
    "not_a_light": ("a dark, flat or bias frame", "Nothing: only lights are stacked."),
    "wrong_size": (
        "has another size than most lights",
        "Stack lights of another camera or binning in a run of its own.",
    ),
    "wrong_bayer_pattern": (
        "has another colour pattern than most lights",
        "Set scan.bayer_pattern if the header is wrong.",
    ),
    "unknown_bayer_pattern": ("names a colour pattern that does not exist", "Set scan.bayer_pattern."),
    "other_camera": ("comes from another camera", "Put the lights of each camera into a folder of its own."),
    "nan_share": ("holds too many pixels without data", "Raise scan.nan_share_max if that is as it should be."),
    "all_zero": ("is black", "Nothing: there is no light in it."),
    "all_saturated": ("is white: almost all pixels are saturated", "Expose shorter, or start later in the evening."),
    "no_noise": ("shows no noise, so it is not as the camera wrote it", "Use the raw files of the camera."),
    "duplicate": ("is a copy of another light", "Nothing: each light counts once."),
    "odd_exposure": ("shows hardly any stars and little noise: a test shot", "Nothing, if that is what it was."),
    "not_registered": (
        "could not be placed on the sky",
        "Look at the light: clouds, a closed cover, another field, or no focus.",
    ),
    "not_placed": (
        "could not be placed on the sky",
        "Look at these lights: clouds, a closed cover, another field, or no focus.",
    ),
    # warnings about lights
    "emergency_mode": ("few frames: the run goes on in emergency mode", "Take more lights: outliers are hard to tell."),
    "bad_card": ("header cards that cannot be read", "Nothing, unless the exposure or the filter is among them."),
    "nonlinear": (
        "looks stretched, not linear",
        "Use the raw lights. Stretched ones make all brightnesses, and so the weights, wrong.",
    ),
    "no_exposure": ("has no exposure time in its header", "Set scan.exposure_s, then times are known."),
    "other_exposure": ("has another exposure time than most", "Nothing: weights take care of it."),
    "nan_pixels": ("holds some pixels without data", "Nothing: other frames fill in."),
    "zero_pixels": (
        "has more than 1 % of its pixels at 0",
        "Raise the offset of the camera, or check the calibration.",
    ),
    "predicted": (
        "had too few stars, so its place was predicted from its neighbours",
        "Look whether clouds passed; such frames count less.",
    ),
    "scaled_by_structure": (
        "has too few stars to measure transparency; nebulosity was used",
        "Nothing: the error is known.",
    ),
    "scaled_by_exposure": (
        "has too few stars to measure transparency; its exposure time was used",
        "Look at these frames: clouds would go unnoticed.",
    ),
    "catalogue_fallback": (
        "the online catalogue was not reached; the built-in one was used",
        "Nothing, or try again online.",
    ),
    # phases that were skipped
    "reduced_mode": (
        "too few frames to group them by the state of the sky; the stack is made of the frames themselves",
        "Nothing. With assumptions.frames_reduced_threshold frames or more it is done.",
    ),
    "switched_off": ("switched off in the configuration", "Set its enabled key in config.yaml."),
    "mono": ("the lights are mono: there are no colours to work on", "Nothing."),
    "no_solution": (
        "the field was not recognised",
        "Give astrometry.hint with the coordinates or the name of the object.",
    ),
    "no_sky_coordinates": ("needs sky coordinates, which were not found", "See Astrometry."),
    "too_few_samples": ("too little blank sky to fit a gradient", "Nothing: the image is passed on as it is."),
    "too_few_stars": (
        "too few stars with known colours; the image is passed on as it is",
        "Set catalogue.source: gaia where the network can be reached.",
    ),
    "guard_stars": (
        "the fitted background would have changed stars; the image is passed on as it is",
        "Try bge.order 1 or 2.",
    ),
    "guard_object": (
        "the fitted background would have taken light of the object; the image is passed on as it is",
        "Try bge.order 1.",
    ),
    "guard_flatness": (
        "without the fitted background the sky would not have been flatter; the image is passed on as it is",
        "Nothing.",
    ),
    "no_record": ("this run has no record of the phase", "Start the run again to make it."),
}

CHECKS = {
    "fwhm_of_frames": "Star width against that of the frames",
    "fwhm_of_plain_mean": "Star width against the plain mean",
    "elongation": "Star shape (long over short axis)",
    "background_rms": "Noise of the sky against the expected",
    "tile_lattice": "Pattern of the tile grid, in sigma of a pixel",
    "weight_stability": "Signal that the weights give up",
    "rejected_share": "Share of pixels rejected",
    "registration_residual": "Residual of star pairs, px",
}

CAUSES = {
    "excluded": "lights left out",
    "registration": "lights not placed",
    "weights": "weights away from the ideal",
    "rejection": "rejected pixels",
    "synthetic frames": "synthetic frames",
    "coverage": "only some frames reach",
    "measured": "measured beyond the formula",
}

STATUS = {
    "ok": "finished, all checks passed",
    "validation_failed": "finished, but a check failed",
    "error": "stopped with an error",
    "aborted": "was interrupted",
    "insufficient_frames": "stopped: too few frames",
    "insufficient_disk_space": "stopped: too little disk space",
    "skipped": "skipped",
}

METHODS = {
    "triangles": "star triangles",
    "pairs": "star pairs",
    "plate": "sky coordinates",
    "trails": "star trails",
    "correlation": "correlation of the image",
    "predicted": "predicted from neighbours",
    "none": "not placed",
}

BACKGROUNDS = {
    "polynomial": "polynomial",
    "vignetting": "vignetting",
    "lens": "fall-off of a wide lens",
    "glow": "a light outside of the frame",
    "rbf": "spline",
}


def meaning(code):
    """Plain words for a code."""
    return CODES[code][0] if code in CODES else CHECKS.get(code, str(code).replace("_", " "))


def advice(code):
    """What to do about a code; None where nothing is known."""
    return CODES[code][1] if code in CODES else None


def duration(seconds):
    """A time as people say it."""
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def plain(value, digits=4):
    """A number with so many significant digits and no exponent where people would not expect one; a dash for null."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item, digits) for item in value)
    if not isinstance(value, float):
        return str(value)
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 1e6:
        text = f"{value:.{digits}g}"
        return f"{float(text):.0f}" if "e" in text else text
    return f"{value:.{max(digits - 1, 1)}e}"


def fixed(value, digits):
    """A number with so many digits after the point; a dash for null."""
    return "\N{EN DASH}" if value is None else f"{value:.{digits}f}"


def percent(share, digits=3):
    """A share as text."""
    return "\N{EN DASH}" if share is None else f"{plain(100.0 * share, digits)} %"
