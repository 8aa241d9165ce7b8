"""The embedded star catalogue: Tycho-2 (Hog et al. 2000, A&A 355, L27), read a cone at a time.

Used by the simulator and by the phases that know the sky; it stands apart from the package that processes frames.
"""

from pathlib import Path

import numpy as np

CATALOGUE = Path(__file__).resolve().parents[2] / "resources/catalogue/tycho2.npz"
EPOCH = 2000.0
N_ZONES = 180
# Values that stand for none: no proper motion, no BT.
PM_NULL, BRIGHT_NULL = -32768, -32768
# Column: how its numbers are stored, and in how many bytes. Positions in 10 mas, motions in mas a year, magnitudes and
# the error of BT - VT in 0.01 mag.
COLUMNS = {
    "ra": ("rising", 4),
    "dec": ("plain", 4),
    "pmra": ("plain", 2),
    "pmdec": ("plain", 2),
    "bt": ("colour", 2),
    "vt": ("plain", 2),
    "colour_error": ("unsigned", 1),
}


def zone_of(dec_deg):
    """Zone of a declination in degrees: one degree each, from the south pole."""
    return np.clip(np.floor(np.asarray(dec_deg) + 90).astype(int), 0, N_ZONES - 1)


def cone(ra_deg, dec_deg, radius_deg, *, year=EPOCH, path=CATALOGUE):
    """Stars around a place in the sky.

    Parameters
    ----------
    ra_deg, dec_deg : float
        ICRS.
    radius_deg : float
    year : float
        Positions are moved to this year by proper motion, where it is known.
    path : path
        Catalogue file.

    Returns
    -------
    dict
        Arrays, brightest first: ``ra_deg``, ``dec_deg`` (ICRS), ``bt``, ``vt`` (Tycho magnitudes), ``v``, ``b_v``
        (Johnson, V = VT - 0.090 (BT - VT) and B - V = 0.850 (BT - VT), ESA 1997 vol. 1 sec. 1.3), ``b_v_error``. BT
        and what follows from it is NaN where the catalogue has none; V is then VT.

    Raises
    ------
    ValueError
        If the place or the radius makes no sense.
    """
    if not (-90 <= dec_deg <= 90 and 0 < radius_deg <= 180 and np.isfinite(ra_deg)):
        raise ValueError(f"need a place on the sky and a radius in degrees, got {ra_deg}, {dec_deg} and {radius_deg}")
    parts = []
    with np.load(path) as archive:
        for zone in range(zone_of(dec_deg - radius_deg), zone_of(dec_deg + radius_deg) + 1):
            parts.append(_zone(archive, zone, ra_deg, dec_deg, radius_deg))
    raw = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    return _stars(raw, year)


def _zone(archive, zone, ra_deg, dec_deg, radius_deg):
    """Raw columns of the stars of a zone that lie in a cone."""
    ra = _decoded("ra", archive[f"ra_{zone:03d}"])
    dec = _decoded("dec", archive[f"dec_{zone:03d}"])
    a, d, d0 = np.radians(ra / 360_000 - ra_deg), np.radians(dec / 360_000), np.radians(dec_deg)
    # Haversine: exact for small distances, which float64 cosines are not.
    h = np.sin((d - d0) / 2) ** 2 + np.cos(d) * np.cos(d0) * np.sin(a / 2) ** 2
    near = np.flatnonzero(h <= np.sin(np.radians(radius_deg) / 2) ** 2)
    columns = {"ra": ra[near], "dec": dec[near]}
    for name in ("vt", "pmra", "pmdec", "bt", "colour_error"):
        columns[name] = _decoded(name, archive[f"{name}_{zone:03d}"])[near]
    columns["bt"] = np.where(columns["bt"] == BRIGHT_NULL, BRIGHT_NULL, columns["bt"] + columns["vt"])
    return columns


def _decoded(name, planes):
    kind, n_bytes = COLUMNS[name]
    words = np.zeros((planes.shape[1], 4), np.uint8)
    words[:, :n_bytes] = planes.T
    values = words.view("<i4")[:, 0].astype(np.int64)
    if n_bytes == 2:
        values = (values ^ 0x8000) - 0x8000
    return np.cumsum(values) if kind == "rising" else values


def _stars(raw, year):
    ra, dec = raw["ra"] / 360_000, raw["dec"] / 360_000
    moves = raw["pmra"] != PM_NULL
    step = (year - EPOCH) / 3.6e6
    dec = dec + np.where(moves, raw["pmdec"], 0) * step
    ra = (ra + np.where(moves, raw["pmra"], 0) * step / np.cos(np.radians(np.clip(dec, -89.99, 89.99)))) % 360
    vt = raw["vt"] / 100
    bt = np.where(raw["bt"] == BRIGHT_NULL, np.nan, raw["bt"] / 100)
    colour = bt - vt
    order = np.argsort(vt, kind="stable")
    stars = {
        "ra_deg": ra,
        "dec_deg": dec,
        "bt": bt,
        "vt": vt,
        "v": vt - 0.090 * np.nan_to_num(colour),
        "b_v": 0.850 * colour,
        "b_v_error": 0.850 * np.where(raw["colour_error"] == 255, np.nan, raw["colour_error"] / 100),
    }
    return {name: values[order] for name, values in stars.items()}
