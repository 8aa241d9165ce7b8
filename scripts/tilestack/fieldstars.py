"""Catalogue stars of a solved field: the embedded catalogue, or Gaia DR3 over the network, kept in a file a field."""

import http.client
import logging
from pathlib import Path

import numpy as np
from astropy.table import Table
from numpy.polynomial import polynomial

import skycatalogue
from tilestack import files

COLUMNS = ("ra_deg", "dec_deg", "v", "b_v", "b_v_error")
# Gaia's stars: all of the field down to this magnitude, the brightest where they are more.
FAINTEST_G, MOST_STARS = 15.5, 5000
NEEDED = ("ra", "dec", "pmra", "pmdec", "ref_epoch", "phot_g_mean_mag", "phot_bp_mean_mag", "phot_rp_mean_mag")
QUERY = """
SELECT TOP {most} source_id, ra, dec, pmra, pmdec, ref_epoch, phot_g_mean_mag, phot_bp_mean_mag, phot_rp_mean_mag
FROM gaiadr3.gaia_source
WHERE 1 = CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', {ra:.5f}, {dec:.5f}, {radius:.5f}))
  AND phot_g_mean_mag < {faintest}
ORDER BY phot_g_mean_mag
"""
# G - V_T and G - B_T by BP - RP, and where they hold (Gaia EDR3 documentation, section 5.5.1).
G_VT = (-0.01077, -0.0682, -0.2387, 0.02342)
G_BT = (-0.004288, -0.8547, 0.1244, -0.9085, 0.4843, -0.06814)
VALID_BP_RP = (-0.3, 2.5)
# What that relation leaves, mag of B - V; 40 stars of M 94 and M 8 scatter by 0.06 with Tycho's own errors.
COLOUR_ERROR = 0.05


def of_field(ra_deg, dec_deg, radius_deg, year, *, source, cache):
    """Stars around a place.

    Parameters
    ----------
    ra_deg, dec_deg, radius_deg : float
    year : float
        Time of the image, to which proper motions carry the stars.
    source : str
        ``embedded`` or ``gaia``.
    cache : path
        Folder for answers of Gaia.

    Returns
    -------
    stars : dict
        Arrays, brightest first: ``ra_deg``, ``dec_deg``, ``v``, ``b_v``, ``b_v_error`` (mag; NaN unknown).
    name : str
        ``Tycho-2`` or ``Gaia DR3``: what it came from.
    """
    if source == "gaia":
        try:
            return gaia_stars(gaia_table(ra_deg, dec_deg, radius_deg, cache), year), "Gaia DR3"
        except NoAnswer as error:
            logging.warning("Gaia does not answer, the embedded catalogue stands in: %s", error)
    found = skycatalogue.cone(ra_deg, dec_deg, radius_deg, year=year)
    return {key: found[key] for key in COLUMNS}, "Tycho-2"


def gaia_table(ra_deg, dec_deg, radius_deg, cache):
    """Gaia's answer for a cone, from the file of an earlier one that contains it where there is one."""
    cache = Path(cache)
    for path in sorted(cache.glob("gaia_dr3_*.fits")):
        ra, dec, radius = map(float, path.stem.split("_")[2:5])
        if distance(ra_deg, dec_deg, ra, dec) + radius_deg <= radius:
            return Table.read(path)
    table = ask_gaia(ra_deg, dec_deg, 1.1 * radius_deg)
    cache.mkdir(parents=True, exist_ok=True)
    with files.replacing(cache / f"gaia_dr3_{ra_deg:.4f}_{dec_deg:+.4f}_{1.1 * radius_deg:.4f}.fits") as draft:
        table.write(draft, format="fits")
    return table


class NoAnswer(Exception):
    """Gaia cannot be reached, or what comes is no table."""


def ask_gaia(ra_deg, dec_deg, radius_deg):
    """The service's table for a cone; NoAnswer without one."""
    query = QUERY.format(most=MOST_STARS, ra=ra_deg, dec=dec_deg, radius=radius_deg, faintest=FAINTEST_G)
    try:
        from astroquery.gaia import GaiaClass  # asks the network when imported

        table = GaiaClass(show_server_messages=False).launch_job_async(query).get_results()
    except (OSError, http.client.HTTPException, ValueError) as error:  # sockets and requests; cut off; no VOTable
        raise NoAnswer(f"{type(error).__name__}: {error}") from error
    table.meta.clear()  # FITS cannot hold it
    return table


def gaia_stars(table, year):
    """Stars of a table of gaiadr3.gaia_source, in the columns of ``of_field``."""
    column = {}
    for name in table.colnames:
        if name.lower() in NEEDED:
            column[name.lower()] = np.ma.filled(np.ma.asarray(table[name], float), np.nan)
    missing = [name for name in NEEDED if name not in column]
    if missing:
        raise ValueError(f"the answer of Gaia has no column {', '.join(missing)}, got {', '.join(table.colnames)}")
    step = (year - column["ref_epoch"]) / 3.6e6
    dec = column["dec"] + np.nan_to_num(column["pmdec"]) * step
    ra = (column["ra"] + np.nan_to_num(column["pmra"]) * step / np.cos(np.radians(dec))) % 360
    colour = column["phot_bp_mean_mag"] - column["phot_rp_mean_mag"]
    colour = np.where((colour > VALID_BP_RP[0]) & (colour < VALID_BP_RP[1]), colour, np.nan)
    vt = column["phot_g_mean_mag"] - polynomial.polyval(colour, G_VT)
    bt_vt = polynomial.polyval(colour, G_VT) - polynomial.polyval(colour, G_BT)
    stars = {
        "ra_deg": ra,
        "dec_deg": dec,
        # As of Tycho-2 (skycatalogue); G where the colour is not known.
        "v": np.where(np.isfinite(colour), vt - 0.090 * bt_vt, column["phot_g_mean_mag"]),
        "b_v": 0.850 * bt_vt,
        "b_v_error": np.where(np.isfinite(colour), COLOUR_ERROR, np.nan),
    }
    order = np.argsort(column["phot_g_mean_mag"], kind="stable")
    return {name: values[order] for name, values in stars.items()}


def distance(ra, dec, other_ra, other_dec):
    """Distance of two places, degrees."""
    a, d, d0 = np.radians(ra - other_ra), np.radians(dec), np.radians(other_dec)
    h = np.sin((d - d0) / 2) ** 2 + np.cos(d) * np.cos(d0) * np.sin(a / 2) ** 2
    return float(np.degrees(2 * np.arcsin(np.sqrt(h))))
