"""Bayer mosaics: which colour stands where."""

import numpy as np

PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")
CHANNELS = ("R", "G", "B")


def pattern_of_header(header, shape):
    """Colours of the first 2x2 cell of the file, row by row, or None for a light without a pattern.

    BAYERPAT stands for the first rows of the picture as it is shown. Without ROWORDER, and with ROWORDER = TOP-DOWN,
    those are the first rows of the file (measured on Seestar frames: star colours grow with BT - VT); with BOTTOM-UP
    they are the last. XBAYROFF and YBAYROFF move the pattern.

    Returns
    -------
    str or None
        One of PATTERNS; another name is given back as it is, for the one who knows what to do about it.
    """
    name = header.get("BAYERPAT", header.get("COLORTYP"))
    if not isinstance(name, str) or not name.strip():
        return None
    name = name.strip().upper()
    if name in ("NONE", "MONO", "MONOCHROME"):
        return None
    if name not in PATTERNS:
        return name
    cell = [list(name[:2]), list(name[2:])]
    y_offset, x_offset = (_offset(header, key) for key in ("YBAYROFF", "XBAYROFF"))
    if str(header.get("ROWORDER", "TOP-DOWN")).strip().upper() == "BOTTOM-UP":
        # Row y of the file is row h - 1 - y of the picture.
        rows = [(shape[0] - 1 - y + y_offset) % 2 for y in (0, 1)]
    else:
        rows = [(y + y_offset) % 2 for y in (0, 1)]
    columns = [(x + x_offset) % 2 for x in (0, 1)]
    return "".join(cell[y][x] for y in rows for x in columns)


def pattern_for_header(pattern, shape, row_order):
    """BAYERPAT that stands for a pattern of the rows of the file, under a ROWORDER (null: top down)."""
    if (row_order or "").upper() != "BOTTOM-UP" or shape[0] % 2:
        return pattern
    return pattern[2:] + pattern[:2]


def _offset(header, key):
    value = header.get(key, 0)
    if isinstance(value, float) and not np.isfinite(value):
        return 0
    return int(value) % 2 if isinstance(value, (int, float)) else 0


def channel_cell(pattern):
    """Channel of each phase of a 2x2 cell, as indices into the channels of the run.

    Parameters
    ----------
    pattern : str or None
        Bayer pattern; None is mono.

    Returns
    -------
    (2, 2) int64 array
        0, 1, 2 for red, green, blue; all 0 for mono.
    """
    if pattern is None:
        return np.zeros((2, 2), np.int64)
    return np.array([CHANNELS.index(colour) for colour in pattern]).reshape(2, 2)


def channels(pattern):
    """Names of the channels: R, G, B of a mosaic, L of a mono light."""
    return ["L"] if pattern is None else list(CHANNELS)
