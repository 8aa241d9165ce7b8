"""The table of all lights that were found, and which values stand out."""

import csv

import numpy as np

from tilestack import records
from tilestack.report import words
from tilestack.robust import spread

# A value stands out where it is so many robust standard deviations from the median of its night.
STANDS_OUT = 3.5
# key: (title, unit, digits after the point, what it is)
COLUMNS = {
    "fwhm_px": ("FWHM", "px", 2, "width of stars; smaller is sharper"),
    "roundness": ("Round", "", 3, "short over long axis of stars; 1 is round"),
    "stars": ("Stars", "", 0, "stars that were measured"),
    "sky_adu": ("Sky", "ADU", 0, "level of the sky, mean of the channels"),
    "noise_adu": ("Noise", "ADU", 1, "noise of a raw pixel, mean of the channels"),
    "transparency": ("Transp.", "", 3, "light that came through, relative to the best frame of the night"),
    "weight": ("Weight", "", 3, "what the frame counts for; 1 is the mean frame"),
    "shift_px": ("Shift", "px", 1, "distance from the reference"),
    "rotation_deg": ("Rotation", "deg", 3, "against the reference"),
    "residual_px": ("Residual", "px", 3, "rms distance of matched stars"),
    "rejected_percent": ("Rejected", "%", 3, "share of its pixels that were rejected"),
}
# What drifts through the night is held against its neighbours in time.
COURSES = ("shift_px", "rotation_deg")
NEIGHBOURS = 4


def build(read):
    """Rows of all lights, in the order of the nights and of time.

    Parameters
    ----------
    read : dict
        Records by name.

    Returns
    -------
    list of dict
        The keys of COLUMNS (float, None where unknown), ``file``, ``night`` (session), ``time``, ``status``, ``flags``
        (words), ``codes``, ``reason``, ``outliers`` (key -> robust sigma).
    """
    tables = {
        name: {(f["session"], f["file"]): f for f in read[name]["frames"]} if name in read else {}
        for name in ("registration", "global_metrics", "normalization", "tile_reconstruction")
    }
    rows, home = [], read["registration"]["reference_session"]
    for light in read["scan_input"]["files"]:
        key = (light["session"], light["name"])
        placed, measured, scaled, rejected = (tables[name].get(key, {}) for name in tables)
        codes = [*light["warnings"], *([light["reason"]] if light["reason"] else [])]
        if placed.get("method") in ("predicted", "none") and not light["reason"]:
            codes.append("predicted" if placed["method"] == "predicted" else "not_placed")
        if scaled.get("scale_method") in ("regression", "exposure"):
            codes.append("scaled_by_structure" if scaled["scale_method"] == "regression" else "scaled_by_exposure")
        streak = rejected.get("streak_px", 0) > 0
        reference = light["name"] == read["registration"]["reference"] and light["session"] == home
        shift = placed.get("shift_px")
        rows.append(
            {
                "file": light["name"],
                "night": light["session"],
                "time": light.get("date_obs"),
                "exposure_s": light["exposure_s"],
                "status": "excluded" if light["status"] == "excluded" or not measured else "used",
                "left_out": light["status"] == "excluded",  # before registration
                "codes": codes,
                "flags": [short(code) for code in dict.fromkeys(codes)]
                + ["trail"] * streak
                + ["reference"] * reference,
                "reason": light["message"] or placed.get("reason"),
                "fwhm_px": measured.get("fwhm_px"),
                "roundness": measured.get("roundness"),
                "stars": measured.get("n_stars", placed.get("n_stars")),
                "sky_adu": mean(measured.get("sky_adu")),
                "noise_adu": mean(measured.get("noise_adu")),
                "transparency": mean(measured.get("transparency")),
                "weight": mean(measured.get("weight")),
                "shift_px": float(np.hypot(*shift)) if shift else None,
                "rotation_deg": placed.get("rotation_deg"),
                "residual_px": None if reference else placed.get("residual_px"),
                "rejected_percent": 100 * rejected["rejected_share"] if rejected else None,
                "outliers": {},
            }
        )
    total = [row["weight"] for row in rows if row["weight"] is not None]
    for row in rows:  # relative to the mean frame
        row["weight"] = row["weight"] / np.mean(total) if row["weight"] is not None else None
    nights = list(dict.fromkeys(row["night"] for row in rows))
    rows.sort(key=lambda row: (nights.index(row["night"]), row["time"] or "", row["file"]))
    for night in nights:
        mark([row for row in rows if row["night"] == night])
    return rows


def short(code):
    """A code as a flag of one to three words."""
    return code.replace("_", " ")


def mean(values):
    values = [value for value in values or () if value is not None]
    return float(np.mean(values)) if values else None


def mark(rows):
    """Note which values of a night stand out, in robust standard deviations."""
    for key in COLUMNS:
        values = records.array([row[key] for row in rows])
        if key in COURSES:
            values = off_course(values)
        known = values[np.isfinite(values)]
        sigma = spread(known)
        if len(known) < 5 or not sigma > 0:
            continue
        for row, z in zip(rows, (values - np.median(known)) / sigma, strict=True):
            if abs(z) > STANDS_OUT:
                row["outliers"][key] = round(float(z), 1)


def off_course(values):
    """Difference of each value from the median of as many neighbours before as after it; NaN at both ends."""
    result = np.full(len(values), np.nan)
    for k in range(1, len(values) - 1):
        n = min(NEIGHBOURS, k, len(values) - 1 - k)
        around = np.r_[values[k - n : k], values[k + 1 : k + 1 + n]]
        if np.isfinite(around).all():
            result[k] = values[k] - np.median(around)
    return result


def text(row, key):
    """A value of the table as text."""
    value = row[key]
    return "\N{EN DASH}" if value is None else f"{value:.{COLUMNS[key][2]}f}"


def write_csv(path, rows):
    """The table as CSV, in one step. A cell that a spreadsheet would take for a formula begins with an apostrophe."""
    with records.replacing(path) as draft, open(draft, "w", newline="", encoding="utf-8") as stream:
        out = csv.writer(stream)
        out.writerow(["file", "night", "time", "exposure_s", "status", *COLUMNS, "outliers", "flags", "reason"])
        for row in rows:
            outliers = " ".join(f"{key}:{z:+.1f}" for key, z in row["outliers"].items())
            numbers = ["" if row[key] is None else f"{row[key]:.7g}" for key in COLUMNS]
            cells = [row["file"], row["night"], row["time"] or ""]
            tail = [outliers, "; ".join(row["flags"]), row["reason"] or ""]
            exposure = "" if row["exposure_s"] is None else f"{row['exposure_s']:g}"
            out.writerow([*map(harmless, cells), exposure, row["status"], *numbers, *map(harmless, tail)])


def harmless(cell):
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def reasons(rows):
    """Lights left out, by reason: code, words, advice, files."""
    found = {}
    for row in rows:
        if row["status"] == "excluded":
            found.setdefault(row["codes"][-1] if row["codes"] else "not_placed", []).append(row["file"])
    return [
        {"code": code, "meaning": words.meaning(code), "advice": words.advice(code), "files": names}
        for code, names in found.items()
    ]
