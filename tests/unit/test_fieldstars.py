"""Catalogue stars of a field: the parser of Gaia's answers, their cache, and the way out without a network."""

import numpy as np
import pytest
from astropy.table import Table

import skycatalogue
from support import ROOT
from tilestack import fieldstars

# Recorded by the astroquery project (BSD-3-Clause): all columns of gaiadr3.gaia_source for two sources.
RECORDED = ROOT / "tests/data/gaia_dr3.vot"


def test_gaia__answer_of_the_service_is_understood():
    table = Table.read(RECORDED)
    stars = fieldstars.gaia_stars(table, 2016.0)
    order = np.argsort(table["phot_g_mean_mag"])
    np.testing.assert_allclose(stars["ra_deg"], np.asarray(table["ra"])[order], atol=1e-12)
    later = fieldstars.gaia_stars(table, 2026.0)
    moved = (later["dec_deg"] - stars["dec_deg"]) * 3.6e6
    np.testing.assert_allclose(moved, 10 * np.asarray(table["pmdec"])[order], atol=1e-3)
    assert np.isfinite(stars["v"]).all() and (np.abs(stars["v"] - np.sort(table["phot_g_mean_mag"])) < 1).all()


def test_gaia__colours_are_those_of_tycho():
    """V and B - V of the Sun's type: BP - RP 0.82, G - V -0.16 (Casagrande and VandenBerg 2018)."""
    table = Table({name: np.ma.zeros(3) for name in fieldstars.NEEDED}, masked=True)
    table["ref_epoch"], table["phot_g_mean_mag"] = 2016.0, 10.0
    table["phot_bp_mean_mag"], table["phot_rp_mean_mag"] = [10.32, 10.32, 13.0], [9.5, 9.5, 9.0]
    table["phot_rp_mean_mag"].mask[1] = True
    stars = fieldstars.gaia_stars(table, 2016.0)
    assert stars["b_v"][0] == pytest.approx(0.65, abs=fieldstars.COLOUR_ERROR) and stars["v"][0] == pytest.approx(
        10.16, abs=0.05
    )
    assert np.isnan(stars["b_v"][1:]).all() and stars["v"][1] == 10.0  # no colour, and one that is out of range


def test_gaia__answer_without_a_column_is_refused():
    table = Table.read(RECORDED)
    table.remove_column("phot_bp_mean_mag")
    with pytest.raises(ValueError, match="phot_bp_mean_mag"):
        fieldstars.gaia_stars(table, 2016.0)


def test_gaia__is_asked_once_for_a_field(tmp_path, monkeypatch):
    asked = []

    def answer(ra, dec, radius):
        asked.append((ra, dec, radius))
        table = Table.read(RECORDED)[list(fieldstars.NEEDED)]
        table.meta.clear()
        return table

    monkeypatch.setattr(fieldstars, "ask_gaia", answer)
    for ra, radius in ((192.7, 0.8), (192.71, 0.8), (192.7, 0.5), (193.7, 0.8)):
        stars, name = fieldstars.of_field(ra, 41.1, radius, 2016.0, source="gaia", cache=tmp_path / "kept")
        assert name == "Gaia DR3" and len(stars["v"]) == 2
    assert len(asked) == 2  # the first field, and the one a degree away


def test_gaia__without_a_network_the_embedded_catalogue_stands_in(tmp_path, monkeypatch):
    def fail(*_):
        raise fieldstars.NoAnswer("no route to host")

    monkeypatch.setattr(fieldstars, "ask_gaia", fail)
    stars, name = fieldstars.of_field(192.7, 41.1, 0.5, 2025.0, source="gaia", cache=tmp_path)
    assert name == "Tycho-2"
    np.testing.assert_array_equal(stars["ra_deg"], skycatalogue.cone(192.7, 41.1, 0.5, year=2025.0)["ra_deg"])
    assert not list(tmp_path.iterdir())
