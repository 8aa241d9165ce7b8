"""Products of a run: FITS files that other programs read, with what is behind them in their headers."""

import functools
import hashlib
import io
import json
import re

import numpy as np
from astropy.io import fits

from tilestack import bayer, files, masks, preview, processes

VERSION = "0.1.0"
# Cards of sky coordinates, which hold for all planes.
SKY_CARD = re.compile(r"WCSAXES|C(TYPE|UNIT|RVAL|RPIX)[12]|CD[12]_[12]|[AB]P?_(ORDER|\d_\d)|RADESYS|EQUINOX")
# Cards that say how the pixels are stored, which astropy writes itself, and those that do not hold for what follows.
NOT_OURS = ("SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "EXTEND", "CHECKSUM", "DATASUM")
NOT_OURS += ("HISTORY", "COMMENT", "")
# Facts of the reference light that go into the headers.
INSTRUMENT_CARDS = {
    "camera": "INSTRUME",
    "telescope": "TELESCOP",
    "object": "OBJECT",
    "focal_mm": "FOCALLEN",
    "pixel_um_x": "XPIXSZ",
    "pixel_um_y": "YPIXSZ",
    "camera_gain": "GAIN",
    "ccd_temp_c": "CCD-TEMP",
    "ra_deg": "RA",
    "dec_deg": "DEC",
}
# Units of columns of the table of inputs.
INPUT_UNITS = {"SIGMA": "adu", "FWHM": "pixel", "SHIFT_Y": "pixel", "SHIFT_X": "pixel", "ROTATION": "deg"}


def cards(scan, frames, facts):
    """Cards that all products of a run share.

    Parameters
    ----------
    scan : dict
        ``scan_input.json``.
    frames : list of dict
        Frames in the stack: ``exposure_s``, ``date_obs``.
    facts : dict
        ``run_id``, ``config_hash``, ``reference`` (entry of the reference light in the scan), ``saturation_adu``,
        ``gain_e_adu``, ``eta_sb``, ``eta_pt``, ``effective_s``, ``fwhm_px``, ``canvas``,
        ``bayer_pattern`` of the lattice; null where unknown.

    Returns
    -------
    dict
        Values, or (value, comment); what is unknown is left out.
    """
    exposures = [frame["exposure_s"] for frame in frames if frame["exposure_s"]]
    dates = sorted(frame["date_obs"] for frame in frames if frame["date_obs"])  # all of them dates (inspection)
    result = {card: facts["reference"].get(key) for key, card in INSTRUMENT_CARDS.items()}
    result |= {
        "FILTER": scan["filter"],
        "BUNIT": ("adu", "scale of the reference frame"),
        "NCOMBINE": (len(frames), "frames in the stack"),
        "STACKCNT": (len(frames), "frames in the stack"),
        "EXPTIME": (float(np.median(exposures)) if exposures else None, "[s] of one frame"),
        "LIVETIME": (float(np.sum(exposures)) if len(exposures) == len(frames) else None, "[s] of all frames"),
        "EFFTIME": (facts["effective_s"], "[s] of perfect weights with this S/N (formula)"),
        "DATE-OBS": (dates[0] if dates else None, "start of the first frame"),
        "DATE-BEG": dates[0] if dates else None,
        "DATE-AVG": _middle_date(dates),
        "DATE-END": (dates[-1] if dates else None, "start of the last frame"),
        "SATURATE": facts["saturation_adu"],
        "EGAIN": (facts["gain_e_adu"], "[electron/adu]"),
        "ETA_SB": (facts["eta_sb"], "S/N^2 over the best, extended light (formula)"),
        "ETA_PT": (facts["eta_pt"], "S/N^2 over the best, stars (formula)"),
        "FWHM": (facts["fwhm_px"], "[px] of the frames, by weight"),
        "RUNID": facts["run_id"],
        "CONFHASH": facts["config_hash"],
        "PROGRAM": f"Tilestack {VERSION}",
        "LATTY0": (facts["canvas"][0], "lattice row of the first row"),
        "LATTX0": (facts["canvas"][1], "lattice column of the first column"),
        "ROWORDER": facts["reference"].get("row_order") or None,
    }
    if facts["bayer_pattern"]:
        result["BAYERPAT"] = bayer.pattern_for_header(
            facts["bayer_pattern"], facts["canvas"][2:], facts["reference"].get("row_order")
        )
    return files.checked(result)


def _middle_date(dates):
    if not dates:
        return None
    stamps = np.array([date.rstrip("Z")[:26] for date in dates], dtype="datetime64[us]").astype(np.int64)
    return str(np.datetime64(int(stamps.mean()), "us"))


def at_scale(cards, scale):
    """Cards of an image with so many pixels to one of the lattice along each axis."""
    changed = {}
    for keys, factor in ((("XPIXSZ", "YPIXSZ"), 1 / scale), (("FWHM", "LATTY0", "LATTX0"), scale)):
        for key in keys:
            if key in cards:
                value, *comment = cards[key] if isinstance(cards[key], tuple) else (cards[key],)
                changed[key] = (value * factor, *comment)
    return {**cards, **changed}


def own_cards(header):
    """Cards of a product that say what it is, with their comments."""
    return {key: (header[key], header.comments[key]) for key in header if key not in NOT_OURS}


def bottom_up(cards):
    """Whether the first row of an image is its lowest one, by its cards."""
    order = cards.get("ROWORDER") or ""
    return (order[0] if isinstance(order, tuple) else order).upper() == "BOTTOM-UP"


def config_hash(config):
    """Short SHA-256 of a configuration."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def write(path, image, header_cards, planes=(), tables=(), history=()):
    """Write a product: the image as primary HDU, its planes and tables behind it, with checksums.

    Parameters
    ----------
    path : path
    image : (h, w) or (3, h, w) array, or callable that reads it
        NaN marks no data. Written as float32.
    header_cards : dict
    planes : iterable of (str, array or callable)
        Name and pixels of further images, or what reads them; MASK comes first.
    tables : iterable of astropy.io.fits.BinTableHDU
    history : iterable of str
    """
    with files.replacing(path) as draft, open(draft, "wb") as stream:
        primary = fits.PrimaryHDU(_big(image, np.float32))
        primary.header.update(header_cards)
        for line in history:
            primary.header.add_history(files.printable(line))
        _append(stream, primary)
        # Siril takes a file for a sequence, and fails, where the second image is of the type and size of the first.
        for name, values in sorted(planes, key=lambda plane: plane[0] != "MASK"):
            hdu = fits.ImageHDU(_big(values), name=name)
            hdu.header.update({key: card for key, card in header_cards.items() if SKY_CARD.fullmatch(key)})
            if name == "MASK":
                hdu.header.update(masks.BITS)
            _append(stream, hdu)
        for table in tables:
            whole = io.BytesIO()
            fits.HDUList([fits.PrimaryHDU(), table]).writeto(whole, checksum=True)
            stream.write(whole.getbuffer()[files.BLOCK :])


def write_header(path, header_cards, history, inputs=None):
    """Write what is known of a product and goes into its header: a file without an image, and the table of inputs."""
    with files.Writer(path, header_cards, history=history) as writer:
        if inputs is not None:
            writer.append_table("INPUTS", inputs, units=INPUT_UNITS)


def read_header(path):
    """The same: cards with their comments, and history."""
    with fits.open(path) as hdus:
        return own_cards(hdus[0].header), list(hdus[0].header.get("HISTORY", ()))


def read_inputs(path):
    """The table of inputs, as ``write`` takes it."""
    with fits.open(path) as hdus:
        return hdus["INPUTS"].copy()


def write_all(out, image, planes, comparisons, cards, n_processes):
    """Write the pixels of a product, the images it is compared with and its previews, side by side.

    Parameters
    ----------
    out : dict of str to path
        ``image``, ``preview``, ``preview_full``, and by the names of `comparisons`.
    image : (h, w) or (3, h, w) array
    planes
        As in ``write``.
    comparisons : dict of str to array or callable
    cards : dict
        Of the product: where it lies on the lattice, which way is up in its previews.
    n_processes : int
    """
    place = {key: cards[key] for key in ("LATTY0", "LATTX0")}
    first, *others = (functools.partial(write, out[name], other, place) for name, other in comparisons.items())
    whole = functools.partial(write, out["image"], image, place, planes)
    show = functools.partial(preview.write, out["preview"], image, flip=bottom_up(cards), full=out["preview_full"])
    processes.all_done([first, whole, show, *others], n_processes)


def _big(values, dtype=None):
    """Values as FITS stores them: swapped once, where astropy would swap them to and fro for sums and for writing."""
    values = values() if callable(values) else values
    return np.ascontiguousarray(values, np.dtype(dtype or values.dtype).newbyteorder(">"))


def _append(stream, hdu):
    """Write an image with its checksums: by itself, so that no more than one has to be held."""
    hdu.add_checksum()
    hdu.verify("exception")
    stream.write(hdu.header.tostring().encode())
    if hdu.data is not None:
        stream.write(hdu.data.reshape(-1).view("u1"))
        stream.write(bytes(-hdu.data.nbytes % files.BLOCK))


def inputs_table(rows):
    """Table of what went in: columns by name, a row a light.

    Parameters
    ----------
    rows : list of dict
        ``file``, ``session``, ``sha256``, ``status``, ``method``, ``weight``, ``scale``, ``noise``, ``fwhm``,
        ``shift_y``, ``shift_x``, ``rotation``, ``rejected``; null where a light did not get that far.
    """
    texts = {"FILE": "file", "SESSION": "session", "SHA256": "sha256", "STATUS": "status", "METHOD": "method"}
    numbers = {
        "WEIGHT": "weight",
        "SCALE": "scale",
        "SIGMA": "noise",
        "FWHM": "fwhm",
        "SHIFT_Y": "shift_y",
        "SHIFT_X": "shift_x",
        "ROTATION": "rotation",
        "REJECTED": "rejected",
    }
    values = {name: np.array([_ascii(row[key]) for row in rows], np.bytes_) for name, key in texts.items()}
    for name, key in numbers.items():
        values[name] = np.array([np.nan if row[key] is None else row[key] for row in rows], np.float32)
    return values


def input_rows(read):
    """A row a light for the INPUTS table."""
    registered = {(f["session"], f["file"]): f for f in read["registration"]["frames"]}
    weighed = {(f["session"], f["file"]): f for f in read["global_metrics"]["frames"]}
    rejected = {(f["session"], f["file"]): f["rejected_share"] for f in read["reconstruction"]["frames"]}
    rows = []
    for light in read["scan"]["files"]:
        key = (light["session"], light["name"])
        frame, whole = registered[key], weighed.get(key, {})
        shift = frame.get("shift_px") or [None, None]
        rows.append(
            {
                **{name: light.get(name) for name in ("session", "sha256", "status")},
                "file": light["name"],
                "method": frame["method"],
                "weight": np.mean(whole["weight"]) if whole else None,
                "scale": np.mean(whole["scale"]) if whole else None,
                "noise": np.mean(whole["noise_adu"]) if whole else None,
                "fwhm": whole.get("fwhm_px"),
                "shift_y": shift[0],
                "shift_x": shift[1],
                "rotation": frame.get("rotation_deg"),
                "rejected": rejected.get(key),
            }
        )
    return rows


def _ascii(text):
    return files.printable(text or "")
