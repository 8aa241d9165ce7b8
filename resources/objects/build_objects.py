"""Make objects.csv from the database of PyOngc 1.2 (OpenNGC): build_objects.py ongc.db > objects.csv"""

import math
import re
import sqlite3
import sys


def key(name):
    """Name without blanks, leading zeros and case: NGC0224 as ngc224."""
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", re.sub(r"[^a-z0-9]", "", name.lower()))


def main():
    query = (
        "select name, ra, dec, messier, commonnames from objects where ra is not null and type not in ('NonEx', 'Dup')"
    )
    rows = {}
    for name, ra, dec, messier, common in sqlite3.connect(sys.argv[1]).execute(query):
        if re.search(r"[0-9][A-Z]+[0-9]*$| NED", name):
            continue  # parts of an object
        names = [name, *(f"M{int(number)}" for number in re.findall("[0-9]+", messier or ""))]
        names += [text for text in (common or "").split(",") if len(text) > 3]
        for text in names:
            rows.setdefault(key(text), f"{math.degrees(ra):.3f},{math.degrees(dec):.3f}")
    print("name,ra_deg,dec_deg")
    print("\n".join(f"{name},{place}" for name, place in sorted(rows.items())))


if __name__ == "__main__":
    main()
