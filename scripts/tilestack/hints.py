"""Where a field may be and how large its pixels are, before it is solved."""

import csv
import re
from pathlib import Path

OBJECTS = Path(__file__).resolve().parents[2] / "resources/objects/objects.csv"
# Arc seconds in a radian, over um and mm.
ARCSEC = 206.264806
# Pixels of telescopes and lenses, in arc seconds, where nothing is known; steps as wide as a solver's tolerance.
UNKNOWN_SCALES = tuple(0.4 * 1.45**k for k in range(11))


def place_of(name, path=OBJECTS):
    """Right ascension and declination (ICRS, degrees) of an object of the Messier, NGC and IC lists, or with a common
    name; None of others.

    ``Messier 8``, ``M8``, ``NGC 6523`` and ``Lagoon Nebula`` are one.
    """
    key = re.sub(r"[^a-z0-9]", "", (name or "").lower())
    key = re.sub(r"(?<![0-9])0+(?=[0-9])", "", re.sub(r"^messier(?=[0-9])", "m", key))
    with open(path, newline="") as stream:
        for row in csv.DictReader(stream):
            if row["name"] == key:
                return float(row["ra_deg"]), float(row["dec_deg"])
    return None


def places(given, header):
    """Places to look at, best first.

    Parameters
    ----------
    given : dict
        ``astrometry.hint`` of the configuration.
    header : mapping
        Cards of the image: ``RA``, ``DEC`` (degrees, J2000 or of date), ``OBJECT``.

    Returns
    -------
    list of (str, float, float)
        Where the hint comes from, right ascension and declination in degrees.
    """
    found = []
    if given["ra_deg"] is not None and given["dec_deg"] is not None:
        found.append(("config", given["ra_deg"], given["dec_deg"]))
    named = place_of(given["object"])
    if named:
        found.append((f"config object {given['object']}", *named))
    if _on_sky(header.get("RA"), header.get("DEC")):
        found.append(("header", float(header["RA"]), float(header["DEC"])))
    named = place_of(header.get("OBJECT"))
    if named:
        found.append((f"object {header['OBJECT']}", *named))
    return found


def scales(given, header, size):
    """Sizes of a pixel to try, in arc seconds.

    Parameters
    ----------
    given : dict
        ``astrometry.hint``; its ``scale_arcsec_px`` is that of the lights.
    header : mapping
        ``FOCALLEN`` (mm) and ``XPIXSZ`` (um, of the image).
    size : float
        Pixels of the image to one of the lights, along each axis.
    """
    if given["scale_arcsec_px"] is not None:
        return [given["scale_arcsec_px"] / size]
    if all(_number(header.get(key)) and header[key] > 0 for key in ("FOCALLEN", "XPIXSZ")):
        return [ARCSEC * header["XPIXSZ"] / header["FOCALLEN"]]
    return [scale / size for scale in UNKNOWN_SCALES]


def aspect(header):
    """Height over width of a pixel, by the header; 1 where it says nothing."""
    if all(_number(header.get(key)) and header[key] > 0 for key in ("XPIXSZ", "YPIXSZ")):
        return header["YPIXSZ"] / header["XPIXSZ"]
    return 1.0


def _on_sky(ra_deg, dec_deg):
    """Whether two cards are a place; some programs write 999 where they know none."""
    return _number(ra_deg) and _number(dec_deg) and 0 <= ra_deg <= 360 and abs(dec_deg) <= 90


def _number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)
