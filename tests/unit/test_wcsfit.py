"""Sky coordinates fitted to matched stars."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from tilestack import plate, wcsfit

SHAPE, CENTRE, SCALE = (900, 1400), (192.7, 41.1), 2.4 / 3600


def made(n, bend, seed, noise=0.05, parity=-1):
    """Stars of a field with radial distortion (pixels at the end of the longer side), and a start that is off."""
    rng = np.random.default_rng(seed)
    flat = rng.uniform([-680, -430], [680, 430], (n, 2))
    turn = np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]]) @ np.diag([parity, 1])
    radec = wcsfit.celestial(flat @ turn.T * SCALE, CENTRE)
    xy = flat * (1 + bend / 700 * (flat**2).sum(1, keepdims=True) / 700**2) + [699.5, 449.5]
    xy = xy + rng.normal(0, noise, xy.shape)
    inside = ((xy > 5) & (xy < [1395, 895])).all(1)
    stars = {"x": xy[inside, 0], "y": xy[inside, 1], "position_error": np.full(inside.sum(), noise)}
    sky = {"ra_deg": radec[inside, 0], "dec_deg": radec[inside, 1]}
    start = WCS(fits.Header(wcsfit.linear_cards(CENTRE, (700 + 1.2, 450 - 0.9), turn * SCALE)))
    return stars, sky, start, turn


@pytest.mark.parametrize("parity", [-1, 1])
@pytest.mark.parametrize(("n", "bend", "order"), [(15, 0.0, 1), (120, 0.0, 1), (120, 4.0, 3)])
def test_refine__finds_the_truth_with_the_order_that_is_there(n, bend, order, parity):
    stars, sky, start, _ = made(n, bend, 3, parity=parity)
    fit = wcsfit.refine(stars, sky, start, SHAPE)
    assert fit.order == order and len(fit.stars) >= 0.9 * n and fit.share > 0.9
    assert np.sqrt(np.mean(fit.residual_arcsec**2)) < 2 * 0.05 * 2.4
    ours = fit.wcs.all_world2pix(np.column_stack([sky["ra_deg"], sky["dec_deg"]]), 0)
    assert np.hypot(ours[:, 0] - stars["x"], ours[:, 1] - stars["y"]).max() < 0.3


def test_refine__refuses_stars_that_are_not_those_of_the_catalogue():
    stars, sky, start, _ = made(60, 0.0, 4)
    rng = np.random.default_rng(1)
    stars |= {"x": rng.uniform(0, 1400, len(stars["x"])), "y": rng.uniform(0, 900, len(stars["x"]))}
    with pytest.raises(wcsfit.Refused, match="match"):
        wcsfit.refine(stars, sky, start, SHAPE)


def test_refine__leaves_wrong_pairs_out():
    stars, sky, start, _ = made(60, 0.0, 5)
    stars["x"][::12] += 1.4
    fit = wcsfit.refine(stars, sky, start, SHAPE)
    wrong = np.arange(0, len(stars["x"]), 12)
    assert not set(wrong) & set(fit.stars) and len(fit.stars) >= 0.85 * (len(stars["x"]) - len(wrong))


def test_cards__of_a_finer_image_give_the_same_sky():
    stars, sky, start, _ = made(150, 5.0, 6)
    wcs = wcsfit.refine(stars, sky, start, SHAPE).wcs
    same = WCS(fits.Header(wcsfit.cards(wcs)))
    fine = WCS(fits.Header(wcsfit.cards(wcs, 2.0)))
    xy = np.random.default_rng(2).uniform([0, 0], [1399, 899], (50, 2))
    expected = wcs.all_pix2world(xy, 0)
    np.testing.assert_allclose(same.all_pix2world(xy, 0), expected, atol=1e-10)
    np.testing.assert_allclose(fine.all_pix2world(2 * (xy + 0.5) - 0.5, 0), expected, atol=1e-9)
    # The polynomials back, which simple readers use, are good to a hundredth of a pixel.
    np.testing.assert_allclose(wcs.sip_foc2pix(wcs.sip_pix2foc(xy, 0), 0), xy, atol=0.02)


def test_geometry__tells_scale_rotation_parity():
    stars, sky, start, turn = made(60, 0.0, 7)
    facts = wcsfit.geometry(wcsfit.refine(stars, sky, start, SHAPE).wcs, SHAPE)
    assert facts["scale_arcsec"] == pytest.approx(2.4, rel=1e-3) and facts["parity"] == 1
    assert facts["ra_deg"] == pytest.approx(CENTRE[0], abs=1e-3) and facts["dec_deg"] == pytest.approx(
        CENTRE[1], abs=1e-3
    )
    north = np.linalg.inv(turn) @ [0, 1]
    assert facts["rotation_deg"] == pytest.approx(np.degrees(np.arctan2(*north)), abs=0.02)


def test_cards_for__an_image_that_is_finer_than_the_lattice():
    linear = wcsfit.linear_cards((190.0, 41.0), (60.5, 50.5), np.array([[-6e-4, 1e-5], [1e-5, 6e-4]]))
    lattice = WCS(fits.Header(linear))
    cards = {key: (value, "as a file has it") for key, value in linear.items()}
    cards |= {"RA": (190.0, "middle"), "DEC": (41.0, "middle")}
    known = [((100, 120), cards), ((50, 60), wcsfit.cards(lattice, 0.5))]
    assert plate.cards_for((100, 120), known) is cards
    for size in (2, 3):
        fine = plate.cards_for((size * 100, size * 120), known)
        assert fine["RA"] == cards["RA"]
        header = fits.Header()
        header.update(fine)
        place = WCS(header).all_pix2world([[(10 + 0.5) * size - 0.5, (70 + 0.5) * size - 0.5]], 0)
        np.testing.assert_allclose(place, lattice.all_pix2world([[10, 70]], 0), atol=1e-10)
    with pytest.raises(ValueError, match="finer by whole times"):
        plate.cards_for((150, 180), known)
    assert plate.cards_for((7, 7), [((100, 120), {}), ((50, 60), {})]) == {}
