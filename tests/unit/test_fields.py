"""Weight fields of a session: metrics of batches side by side, and fields that do not show how they were made."""

import numpy as np
import pytest

from tilestack import fields, files

NAMES = ("LN_T", "LN_T_ERROR", "STRUCTURE", "STRUCTURE_ERROR", "NOISE", "ENERGY", "SKY")
OF_FRAMES = ("COVERAGE", "LN_FWHM", "LN_FWHM_ERROR")
STRIDE, TILES = 64, (0, 0, 5, 6)


def test_measured__puts_batches_side_by_side(tmp_path):
    rng = np.random.default_rng(1)
    places = {"a": (2, -1, 3, 3, 4), "none": (0, 0, 0, 1, 1), "b": (3, 1, 2, 2, 3)}  # frames, first tile, tiles
    written = {}
    for name, (n, y0, x0, ny, nx) in places.items():
        written[name] = rng.normal(size=(n, 2, ny, nx)).astype(np.float32)
        cards = {"TILEY0": y0, "TILEX0": x0, "TILEPX": 128, "STRIDEPX": STRIDE}
        with files.Writer(tmp_path / name, cards) as writer:
            for key in ("LN_T", "NOISE"):
                writer.append(key, written[name])
            writer.append("COVERAGE", np.ones((n, ny, nx), np.float32))
    measured = fields.Measured([tmp_path / name for name in places])
    assert measured.tiles == (-1, 2, 4, 5) and measured.grid == {"TILEPX": 128, "STRIDEPX": STRIDE}
    for key in ("LN_T", "NOISE"):
        found = measured[key]
        np.testing.assert_array_equal(found[:2, :, :3, 1:], written["a"])
        np.testing.assert_array_equal(found[2:, :, 2:, :3], written["b"])
    assert np.isnan(measured["LN_T"]).sum() == 2 * 2 * (20 - 12) + 3 * 2 * (20 - 6)
    # The noise is needed everywhere: the outermost tiles go on.
    np.testing.assert_array_equal(measured["NOISE"][2:, :, 0, 4], written["b"][:, :, 0, 2])
    np.testing.assert_array_equal(np.nan_to_num(measured["COVERAGE"])[2:].sum((1, 2)), 6)


def session(n=11, c=3):
    rng = np.random.default_rng(2)
    shape = (n, c, *TILES[2:])
    made = {name: rng.normal(0, 0.1, shape) for name in NAMES} | {
        name: rng.normal(0, 0.1, (n, *TILES[2:])) for name in OF_FRAMES
    }
    made |= {name: np.full(made[name].shape, 0.05) for name in ("LN_T_ERROR", "LN_FWHM_ERROR", "STRUCTURE_ERROR")}
    made |= {"NOISE": 5 * np.exp(made["NOISE"]), "STRUCTURE": np.exp(made["STRUCTURE"])}
    made |= {"COVERAGE": (made["COVERAGE"] > -0.1).astype(float), "SKY": 100 + made["SKY"]}
    frame = {"scale": [1.0, 0.9, 1.1], "noise_adu": [5.0] * 3, "weight": [1.0] * 3, "area": 1.0, "error_px": 0.1}
    whole = [frame | {"fwhm_px": 2 + 0.1 * k, "roundness": 0.9} for k in range(n)]
    whole[4] |= {"fwhm_px": None}
    return made, whole


@pytest.mark.parametrize(
    ("model", "profile"), [("physical", "strict"), ("physical", "practical"), ("zscore", "strict")]
)
def test_make__bits_do_not_depend_on_how_many_frames_are_taken_at_a_time(monkeypatch, model, profile):
    measured, whole = session()
    monkeypatch.setattr(fields.local, "sky_to_tiles", lambda sky, *_: np.full((3, *TILES[2:]), np.mean(sky)))
    fits = [{"sky": 100.0 + k} for k in range(len(whole))]

    def made(chunk):
        monkeypatch.setattr(fields, "CHUNK", chunk)
        given = {name: values.copy() for name, values in measured.items()}
        found, spread = fields.make(
            *(given, TILES, STRIDE, whole, fits, [1.0] * 3), objective="balanced", quality_model=model, profile=profile
        )
        for name, values in measured.items():  # what is given stays as it is
            np.testing.assert_array_equal(given[name], values)
        return found | {"mean_weight": spread["mean_weight"]}

    at_once, in_turn = made(64), made(3)
    for name, values in at_once.items():
        np.testing.assert_array_equal(in_turn[name], values)
    assert np.isfinite(at_once["WEIGHT"]).all() and at_once["WEIGHT"].std() > 0
