#!/usr/bin/env python3
"""Make tycho2.npz, the embedded star catalogue, from a FITS table of all Tycho-2 stars.

    build_catalogue.py tycho2_compact.fits.gz tycho2.npz

The table has RA_MAS, DEC_MAS, PMRA, PMDEC, BT_MMAG, VT_MMAG, EBTVT_CMAG and is sorted by declination. Positions are
kept to 10 mas and magnitudes to 0.01 mag, which is finer than the catalogue's own errors for all but its brightest
stars. The stars are cut into zones of declination, sorted by right ascension in each; a column of a zone is stored as
the bytes of its differences, lowest bytes first, which compresses best.
"""

import sys
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
from astropy.io import fits

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from skycatalogue import BRIGHT_NULL, COLUMNS, N_ZONES, PM_NULL, zone_of  # noqa: E402


def build(source, target):
    table = fits.getdata(source)
    table = table[table["VT_MMAG"] != -32768]
    ra, dec = table["RA_MAS"].astype(np.int64), table["DEC_MAS"].astype(np.int64)
    columns = {
        "ra": (ra + 5) // 10 % (360 * 360_000),
        "dec": (dec + 5) // 10,
        "pmra": np.where(table["PMRA"] == -32768, PM_NULL, table["PMRA"]),
        "pmdec": np.where(table["PMDEC"] == -32768, PM_NULL, table["PMDEC"]),
        "bt": np.where(table["BT_MMAG"] == -32768, BRIGHT_NULL, np.rint(table["BT_MMAG"] / 10)).astype(int),
        "vt": np.rint(table["VT_MMAG"] / 10).astype(int),
        "colour_error": table["EBTVT_CMAG"].astype(int),
    }
    zone = zone_of(columns["dec"] / 360_000)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_LZMA) as archive:
        for k in range(N_ZONES):
            mine = np.flatnonzero(zone == k)
            mine = mine[np.argsort(columns["ra"][mine], kind="stable")]
            for name in COLUMNS:
                member = BytesIO()
                np.save(member, encoded(name, columns[name][mine], columns["vt"][mine]))
                entry = zipfile.ZipInfo(f"{name}_{k:03d}.npy", (1980, 1, 1, 0, 0, 0))
                archive.writestr(entry, member.getvalue(), zipfile.ZIP_LZMA)
    print(f"{len(table)} stars, {Path(target).stat().st_size / 1e6:.1f} MB")


def encoded(name, values, vt):
    """Bytes of a column: (n_bytes, n) uint8, lowest byte first."""
    kind, n_bytes = COLUMNS[name]
    if kind == "rising":
        values = np.diff(values, prepend=0)
    elif kind == "colour":  # as BT - VT, which varies less
        values = np.where(values == BRIGHT_NULL, BRIGHT_NULL, values - vt)
    words = values.astype("<i4").view(np.uint8).reshape(len(values), 4)
    return np.ascontiguousarray(words[:, :n_bytes].T)


if __name__ == "__main__":
    build(*sys.argv[1:])
