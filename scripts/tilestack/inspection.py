"""Facts about one light: what its header says and what its pixels show. No decisions here."""

import hashlib
import warnings
from pathlib import Path

import numpy as np
from astropy.io import fits

from tilestack import bayer, lights
from tilestack.kernels import clipping, scan

# Block of the sky under a peak, in pixels of the 2x2-binned light.
BLOCK = 32
PEAK_LIMIT = 8.0
# Pixels behind a level or a noise; more would not change the decisions.
SAMPLE = 50_000

# Header keywords in the order of preference; the first that holds a usable value counts.
NUMBERS = {
    "exposure_s": ("EXPTIME", "EXPOSURE", "EXP_TIME"),
    "gain_e_adu": ("EGAIN",),
    "camera_gain": ("GAIN",),
    "ccd_temp_c": ("CCD-TEMP", "CCD_TEMP"),
    "pixel_um_x": ("XPIXSZ", "PIXSIZE1"),
    "pixel_um_y": ("YPIXSZ", "PIXSIZE2"),
    "focal_mm": ("FOCALLEN",),
    "ra_deg": ("RA", "CRVAL1"),
    "dec_deg": ("DEC", "CRVAL2"),
    "saturate_adu": ("SATURATE", "DATAMAX"),
}
TEXTS = {
    "filter": ("FILTER",),
    "camera": ("INSTRUME",),
    "telescope": ("TELESCOP",),
    "object": ("OBJECT",),
    "date_obs": ("DATE-OBS",),
    "image_type": ("IMAGETYP", "FRAME"),
    "row_order": ("ROWORDER",),
}
# Of the rows of a light one in so many tells whether another file holds the same: noise repeats in no row.
ROW_STEP = 8
# Keywords that only a stacking program writes.
STACK_KEYWORDS = ("STACKCNT", "NCOMBINE", "LIVETIME", "TOTALEXP")


def inspect(path):
    """Gather the facts about one light.

    Parameters
    ----------
    path : path
        File to look at. It is only read.

    Returns
    -------
    dict
        ``name``, ``bad_cards`` (keywords whose values cannot be read), ``error`` (null, or ``{reason, message}`` for
        a file that is no light) and, for a light, the header values of ``NUMBERS`` and ``TEXTS`` (null where
        missing), ``bayer_pattern`` in the order of the rows of the file, ``n_stacked``, and of the pixels: ``shape``
        (rows, columns), ``bitpix``, ``bzero``, ``nan_share``, ``zero_share``, ``lowest_adu``, ``highest_adu``,
        ``n_highest``, ``level_adu`` (median), ``noise_adu`` (standard deviation of a pixel), ``looks_cfa``,
        ``n_peaks`` (stars) and ``reach`` (height of the highest pixel over the sky, in standard deviations), and
        SHA-256 of the file and of every ROW_STEP-th row of pixels, by which the same pixels under other headers show.
    """
    facts, image = _opened(path)
    if image is None:
        return facts
    rows = np.ascontiguousarray(image[::ROW_STEP])
    return facts | {"pixel_sha256": hashlib.sha256(rows).hexdigest()} | _pixel_facts(image)


def _opened(path):
    """What file and header say of a light, as ``inspect``, and its pixels, (h, w) float32; none of what is no light."""
    path = Path(path)
    facts = {"name": path.name, "error": None, "bytes": path.stat().st_size, "sha256": None}
    try:
        content = lights.as_stored(path)
        facts["sha256"] = hashlib.sha256(content).hexdigest()
        image, header = lights.read(path, content)
    except lights.BadLight as bad:
        return {**facts, "error": {"reason": bad.reason, "message": bad.message}}, None
    except FileNotFoundError:
        raise
    except OSError as error:  # no permission, a broken disk
        return {**facts, "error": {"reason": "unreadable", "message": f"{path}: {error.strerror}"}}, None
    header, facts["bad_cards"] = readable(header)
    for key, names in NUMBERS.items():
        facts[key] = next((value for name in names if (value := _number(header, name)) is not None), None)
    for key, names in TEXTS.items():
        facts[key] = next((value for name in names if (value := _text(header, name))), None)
    if facts["date_obs"] and not _is_date(facts["date_obs"]):
        facts["date_obs"] = None
        facts["bad_cards"].append("DATE-OBS")
    facts |= {
        "bayer_pattern": bayer.pattern_of_header(header, image.shape),
        "n_stacked": _frames_behind(header, facts["exposure_s"]),
        "shape": list(image.shape),
        "bitpix": header.get("BITPIX"),
        "bzero": header.get("BZERO", 0),
    }
    return facts, image


def readable(header):
    """The cards of a header whose values can be read, as dict, and the keywords of the others."""
    cards, bad = {}, []
    for card in header.cards:
        try:
            cards[card.keyword] = card.value
        except (fits.VerifyError, ValueError):
            bad.append(card.keyword)
    return cards, bad


def _is_date(text):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # numpy's word for a time zone
        try:
            return not np.isnat(np.datetime64(text.rstrip("Z")[:26], "us"))
        except (ValueError, UserWarning):
            return False


def _pixel_facts(image):
    n_nan, n_zero, lowest, highest, n_highest = scan.levels(image)
    facts = {
        "nan_share": n_nan / image.size,
        "zero_share": n_zero / image.size,
        "lowest_adu": lowest,
        "highest_adu": highest,
        "n_highest": n_highest,
    }
    if not highest > lowest:  # one value everywhere, or no pixel with data
        return facts | {"level_adu": highest, "noise_adu": 0.0, "looks_cfa": False, "n_peaks": 0, "reach": 0.0}
    phases = [image[y::2, x::2] for y in (0, 1) for x in (0, 1)]
    level = float(np.nanmedian(image.ravel()[:: max(1, image.size // SAMPLE)]))
    noises = [_noise(phase) for phase in phases]
    n_peaks, reach = _peaks(image)
    return facts | {
        "level_adu": level,
        "noise_adu": float(np.nanmean(noises)),
        "looks_cfa": _looks_cfa(phases, noises),
        "n_peaks": n_peaks,
        "reach": reach,
    }


def _peaks(image):
    """Number of star-like peaks in 2x2-binned pixels, and how far the highest pixel stands out."""
    rows, columns = image.shape[0] // 2, image.shape[1] // 2
    if rows < BLOCK or columns < BLOCK:
        return 0, 0.0
    binned = scan.binned(image)
    noise = _noise(binned)
    if not noise > 0:
        return 0, 0.0
    count, reach = scan.count_peaks(binned, scan.sky_of_blocks(binned, BLOCK), noise, BLOCK, PEAK_LIMIT)
    return int(count), float(reach)


def _looks_cfa(phases, noises):
    """Whether the four phases of a 2x2 cell look like a Bayer mosaic: one diagonal equal, the rest not."""
    # No medians: on the coarse steps of a converter those of equal phases lie a step apart.
    samples = [_thinned(phase) for phase in phases]
    levels = np.array([clipping.clipped(sample)[0] for sample in samples])
    errors = 1.25 * np.array(noises) / np.sqrt([min(phase.size, SAMPLE) for phase in phases])
    for one, other, *rest in ((0, 3, 1, 2), (1, 2, 0, 3)):
        green = (levels[one] + levels[other]) / 2
        apart = max(abs(levels[k] - green) for k in rest)
        if apart > 10 * errors.max() and abs(levels[one] - levels[other]) < 0.3 * apart:
            return True
    return False


def _noise(plane):
    return clipping.pixel_noise(_thinned(plane))


def _thinned(plane):
    """Some rows of a plane: whole ones, as a view with steps in both axes would be copied before it is thinned."""
    return plane[:: max(1, plane.size // SAMPLE)]


def _frames_behind(header, exposure_s):
    """How many exposures a header says were added up; 1 for a light."""
    for key in STACK_KEYWORDS[:2]:
        if (value := _number(header, key)) is not None and value > 1:
            return int(value)
    for key in STACK_KEYWORDS[2:]:
        total = _number(header, key)
        if total is not None and exposure_s and total > 1.5 * exposure_s:
            return round(total / exposure_s)
    return 1


def _number(header, key):
    value = header.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        value = float(value)
    except (ValueError, OverflowError):
        return None  # RA = '12 50 53' and the like are no degrees
    return value if np.isfinite(value) else None


def _text(header, key):
    value = header.get(key)
    return value.strip() if isinstance(value, str) else None
