"""Hints and solvers."""

import sys

import numpy as np
import pytest

import skycatalogue
from tilestack import hints, plate, solvers, wcsfit

NO_HINT = {"ra_deg": None, "dec_deg": None, "radius_deg": 2.0, "scale_arcsec_px": None, "object": None}
PLACE, SHAPE, SCALE = (303.0, 38.3), (700, 1000), 2.4


def stars_at(place, aspect=1.0):
    """Star list of the catalogue around a place, in an image that is turned, mirrored, and of pixels of an aspect."""
    found = skycatalogue.cone(*place, 0.45)
    flat = wcsfit.tangent(np.column_stack([found["ra_deg"], found["dec_deg"]]), place) * 3600 / SCALE
    turn = np.array([[np.cos(0.4), np.sin(0.4)], [-np.sin(0.4), np.cos(0.4)]])
    xy = flat @ turn + [499.5, 349.5]
    xy[:, 1] = (xy[:, 1] + 0.5) / aspect - 0.5
    inside = ((xy > 0) & (xy < [SHAPE[1] - 1, SHAPE[0] / aspect - 1])).all(1)
    xy, flux = (
        xy[inside] + np.random.default_rng(3).normal(0, 0.05, (inside.sum(), 2)),
        10 ** (-0.4 * found["vt"][inside]),
    )
    return {"x": xy[:, 0], "y": xy[:, 1], "flux": flux, "position_error": np.full(len(xy), 0.05)}


def catalogue(ra, dec, radius, year):
    return skycatalogue.cone(ra, dec, radius, year=year), "Tycho-2"


def solved(stars, header, shape=SHAPE, hint=(), chain=("seiza",)):
    return plate.solve(stars, shape, header, {"solvers": chain, "hint": NO_HINT | dict(hint)}, catalogue=catalogue)


def away(result, shape=SHAPE):
    """Degrees from the place to the solved middle."""
    facts = wcsfit.geometry(result["fit"].wcs, shape)
    return np.hypot((facts["ra_deg"] - PLACE[0]) * np.cos(np.radians(PLACE[1])), facts["dec_deg"] - PLACE[1])


@pytest.mark.parametrize("name", ["M 8", "m8", "Messier 8", "NGC 6523", "ngc06523", "Lagoon Nebula"])
def test_place_of__knows_an_object_by_all_its_names(name):
    assert hints.place_of(name) == pytest.approx((270.92, -24.38), abs=0.05)


def test_place_of__knows_nothing_of_others():
    assert hints.place_of("my garden") is None and hints.place_of(None) is None and hints.place_of("") is None


def test_places__config_then_header_then_object():
    header = {"RA": 193.07, "DEC": 40.98, "OBJECT": "M 94"}
    found = hints.places(NO_HINT | {"ra_deg": 10.0, "dec_deg": 20.0}, header)
    assert [name for name, *_ in found] == ["config", "header", "object M 94"] and found[0][1:] == (10.0, 20.0)
    assert hints.places(NO_HINT, {"RA": "12 51", "DEC": None}) == []


def test_scales__follow_a_finer_image():
    assert hints.scales(NO_HINT | {"scale_arcsec_px": 2.4}, {}, 2.0) == [1.2]
    assert hints.scales(NO_HINT, {"FOCALLEN": 250.0, "XPIXSZ": 1.45}, 2.0) == pytest.approx([1.196], abs=1e-3)
    assert len(hints.scales(NO_HINT, {}, 1.0)) > 5


def test_solve__by_a_header_half_a_degree_off_as_of_date():
    result = solved(stars_at(PLACE), {"RA": PLACE[0] + 0.5, "DEC": PLACE[1] - 0.3, "FOCALLEN": 250.0, "XPIXSZ": 2.9})
    assert result["solver"] == "seiza" and away(result) < 1 / 3600
    assert [attempt["reason"] for attempt in result["tries"]] == [None]


def test_solve__pixels_that_are_not_square():
    header = {"RA": PLACE[0], "DEC": PLACE[1], "FOCALLEN": 250.0, "XPIXSZ": 2.909, "YPIXSZ": 2.909 * 0.9}
    shape = (round(SHAPE[0] / 0.9), SHAPE[1])
    result = solved(stars_at(PLACE, 0.9), header, shape)
    assert away(result, shape) < 0.001
    steps = np.hypot(*result["fit"].wcs.wcs.cd) * 3600
    assert steps == pytest.approx([2.4, 2.16], rel=1e-3)


def test_solve__widens_the_search():
    header = {"RA": PLACE[0], "DEC": PLACE[1] + 3.4, "FOCALLEN": 250.0, "XPIXSZ": 2.9}
    result = solved(stars_at(PLACE), header, hint={"radius_deg": 1.0})
    assert away(result) < 1 / 3600
    assert result["tries"][0]["reason"] and result["tries"][-1]["reason"] is None


def test_solve__says_so_without_a_hint_or_with_few_stars():
    few = {key: values[:4] for key, values in stars_at(PLACE).items()}
    for stars, header in ((stars_at(PLACE), {}), (few, {"RA": PLACE[0], "DEC": PLACE[1]})):
        assert solved(stars, header)["fit"] is None
    assert "4 stars" in solved(few, {})["tries"][0]["reason"]


def test_solve__passes_over_programs_that_are_not_there(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(solvers, "INDEX_FOLDER", "/nowhere")
    result = solved(stars_at(PLACE), {"FOCALLEN": 250.0, "XPIXSZ": 2.9}, chain=("solve-field", "astap"))
    assert result["fit"] is None and {t["reason"] for t in result["tries"]} == {"not installed"}


def test_solve__goes_around_a_place_that_is_wrong():
    wrong = solvers.offset(PLACE, 8.5, 180)  # the right one lies in the first cone of the first ring
    header = {"RA": wrong[0], "DEC": wrong[1], "FOCALLEN": 250.0, "XPIXSZ": 2.9}
    result = solved(stars_at(PLACE), header)
    assert away(result) < 1 / 3600
    assert [t["hint"] for t in result["tries"]] == ["header, 2 deg", "header, 5 deg", "header, around it"]


def test_places__a_number_that_is_no_place_is_none():
    for ra, dec in ((999.0, 999.0), (10.0, -999.0), (-5.0, 10.0), (True, 10.0), ("10", 10.0)):
        assert hints.places(NO_HINT, {"RA": ra, "DEC": dec}) == []


def test_offset__goes_so_far():
    for angle in (0, 77, 200):
        there = solvers.offset((10.0, 60.0), 20.0, angle)
        a, d, d0 = np.radians(there[0] - 10), np.radians(there[1]), np.radians(60)
        cosine = np.sin(d) * np.sin(d0) + np.cos(d) * np.cos(d0) * np.cos(a)
        assert np.degrees(np.arccos(cosine)) == pytest.approx(20, abs=1e-6)


STAND_IN = """#!{python}
# Answers as {name} does: a .wcs file beside what it was given.
import pathlib, sys
given = [word for word in sys.argv if word.endswith((".xyls", ".fits"))][0]
cards = {cards!r}
text = "".join(f"{{k:8}}= {{v!r:>20}}".ljust(80) for k, v in cards.items()) + "END".ljust(80)
pathlib.Path(given).with_suffix(".wcs").write_text({lines} )
"""


@pytest.mark.parametrize("name", ["solve-field", "astap"])
def test_programs__answer_is_read_and_refined(tmp_path, monkeypatch, name):
    """astap ends its lines, solve-field does not."""
    stars = stars_at(PLACE)
    turn = np.array([[np.cos(0.4), np.sin(0.4)], [-np.sin(0.4), np.cos(0.4)]]) * SCALE / 3600
    plain = wcsfit.linear_cards(PLACE, (501.1, 350.9), turn)
    cards = {key: float(value) for key, value in plain.items() if key[:2] in ("CR", "CD")}
    lines = "text" if name == "solve-field" else '"\\n".join(text[k : k + 80] for k in range(0, len(text), 80)) + "\\n"'
    program = tmp_path / name
    program.write_text(STAND_IN.format(python=sys.executable, name=name, cards=cards, lines=lines))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = solved(stars, {"FOCALLEN": 250.0, "XPIXSZ": 2.9}, chain=(name,))
    assert result["solver"] == name, result["tries"]
    assert away(result) < 1 / 3600
