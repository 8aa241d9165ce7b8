"""PCC on products: fluxes of stars on pixels that no interpolation between colours has touched."""

import numpy as np
import pytest
from astropy.io import fits

from tilestack import bayer, calibration, debayering, products

PATTERN, SHAPE = "GRBG", (241, 283)
FLUX = np.array([3.0, 5.0, 2.0]) * 1e5


def star_field():
    """A mosaic of stars of one colour, of the brightness of FLUX and half of it; an odd number of rows and columns."""
    y, x = np.indices(SHAPE)
    colour = bayer.channel_cell(PATTERN)[y % 2, x % 2]
    grid = np.stack(np.meshgrid(np.arange(40, 250, 40.3), np.arange(40, 210, 40.7)), -1).reshape(-1, 2)
    light = np.zeros(SHAPE)
    for k, (at_x, at_y) in enumerate(grid):
        light += np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / (2 * 2.0**2)) / (2 * np.pi * 2.0**2) / (1 + k % 2)
    noise = np.random.default_rng(3).normal(0, 5, SHAPE)
    return (light * FLUX[colour] + 1000 + noise).astype(np.float32), grid


@pytest.mark.parametrize("method", ["malvar", "bilinear", "superpixel"])
def test_star_fluxes__of_demosaiced_images_are_those_of_the_mosaic(method, tmp_path):
    mosaic, grid = star_field()
    variance, mask = np.full(SHAPE, 25.0, np.float32), np.zeros(SHAPE, np.int16)
    products.write(tmp_path / "mosaic.fits", mosaic, {}, [("VAR", variance), ("MASK", mask)])
    columns = {name: np.zeros(len(grid)) for name in ("ra_deg", "dec_deg", "v", "b_v_error")}
    columns |= {"b_v": np.full(len(grid), 0.6), "x": grid[:, 0], "y": grid[:, 1]}
    planes, spread = debayering.demosaiced(mosaic, variance, PATTERN, method)
    whole = np.broadcast_to(mask, (3, *SHAPE))
    stack = {"planes": planes, "VAR": spread, "MASK": whole, "cards": {}}
    paths = {"stars": tmp_path / "stars.fits", "mosaic": tmp_path / "mosaic.fits"}
    if method == "superpixel":
        stack["MASK"] = np.zeros(planes.shape, np.int16)
        for name in ("x", "y"):
            columns[name] = (columns[name] - 0.5) / 2
    table = [fits.Column(name, "D", array=values) for name, values in columns.items()]
    fits.BinTableHDU.from_columns(table, name="STARS").writeto(tmp_path / "stars.fits")
    found = calibration.star_fluxes(stack, paths, method, PATTERN)
    good = found["fault"] == ""
    assert good.sum() >= 20
    # Sums over the pixels of the image; of super-pixels there are a quarter as many.
    small = method == "superpixel"
    brightness = FLUX / (4 if small else 1) / np.where(np.arange(len(grid)) % 2, 2, 1)[:, None]
    places = np.column_stack([found["x"], found["y"]]) * (2 if small else 1) + (0.5 if small else 0)
    apart = np.hypot(*(grid[:, None] - places).transpose(2, 0, 1))
    assert apart.min(0).max() < 0.01
    expected = brightness[apart.argmin(0)]
    off = (found["flux"] / expected - 1)[good]
    assert np.abs(np.median(off, axis=0)).max() < 0.01
    # Errors are of the fluxes, once the share of the light outside of the aperture is taken out.
    pull = (off - np.median(off, axis=0)) * expected[good] / found["flux_error"][good]
    assert 0.7 < np.std(pull) < 1.4
