"""What is done to the planes of the stack by choice."""

import os

import matplotlib.image
import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays

from tilestack import finishing, job, masks, records, stackfiles

MONO = np.zeros((2, 2), np.int64)


def planes(seed=0, size=80):
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size))
    image = rng.normal(1000, 2, (size, size))
    for cy, cx, peak in ((20, 20, 400), (50.4, 33.7, 200), (60, 66.5, 2000)):
        image += peak * np.exp(-4 * np.log(2) * ((y - cy) ** 2 + (x - cx) ** 2) / 2.0**2)
    variance = np.full((size, size), 4.0) + np.maximum(image - 1000, 0) * 0.05
    sky = image.astype(np.float32)
    return {
        **{name: sky.copy() for name in ("SCI", "EVEN", "ODD")},
        "VAR": variance.astype(np.float32),
        "MASK": np.zeros((size, size), np.int16),
        "NIM": np.full((size, size), 10),
        "REJ": np.zeros((size, size), int),
    }


def test_replace_defects__takes_out_lone_pixels_and_leaves_stars():
    made = planes()
    before = made["SCI"].copy()
    hot = [(10, 40), (40, 10), (70, 12), (33, 60)]
    for k, (y, x) in enumerate(hot):
        for name in ("SCI", "EVEN", "ODD"):
            made[name][y, x] += (60, 300, -80, 5000)[k]
    assert finishing.replace_defects(made, MONO) == len(hot)
    for name in ("SCI", "EVEN", "ODD"):
        difference = np.abs(made[name] - before)
        marked = made["MASK"] & masks.REPLACED > 0
        assert (difference[~marked] == 0).all() and difference.max() < 12
    assert sorted(map(tuple, np.argwhere(marked).tolist())) == sorted(hot)


@settings(max_examples=60, deadline=None)
@given(arrays(bool, some.tuples(some.integers(1, 7), some.integers(1, 7))))
def test_largest__is_the_largest_rectangle(good):
    y, x, h, w = finishing._largest(good)
    assert good[y : y + h, x : x + w].all()
    rows, columns = good.shape
    every = [
        (b - a) * (d - c)
        for a in range(rows)
        for b in range(a + 1, rows + 1)
        for c in range(columns)
        for d in range(c + 1, columns + 1)
        if good[a:b, c:d].all()
    ]
    assert h * w == max(every, default=0)


def test_of_mosaic__cuts_all_planes_to_the_box_that_is_covered():
    made, canvas = planes(size=96), (-40, 6, 96, 96)
    y, x = np.indices((96, 96))
    made["NIM"] = np.where((y >= 17) & (x < 70), 10, 3)
    made["REJ"] = np.where((y == 40) & (x == 30), 1, 0)
    made["NIM"][40, 30] = 9  # rejected, and so covered
    made["NIM"][60:66, 20:26] = 4  # the core of a star, saturated in most frames and so in neither count
    whole = {name: plane.copy() for name, plane in made.items()}
    cut, box, _ = finishing.of_mosaic(made, canvas, None, False, 0.8)
    assert box == (-40 + 24, 6, 72, 64) and all(plane.shape == (72, 64) for plane in cut.values())
    for name, plane in cut.items():
        np.testing.assert_array_equal(plane, whole[name][24:, :64])
    colours = {"SCI": np.arange(3 * 192 * 192).reshape(3, 192, 192)}
    fine = finishing.cut(colours, canvas, box, 2)["SCI"]
    np.testing.assert_array_equal(fine, colours["SCI"][:, 48:, :128])


def written(folder, made, canvas):
    """The files of a stack."""
    made = {name: values.reshape(-1, *values.shape[-2:]) for name, values in made.items()}
    paths = {name: folder / f"{name}.fits" for name in stackfiles.OF_FILE}
    with stackfiles.Writer(paths, stackfiles.FILE_OF, len(made["SCI"]), canvas, 99) as writer:
        writer.put(canvas, {name: made.get(name, made["SCI"]) for name in stackfiles.FILE_OF})
    return paths


@pytest.mark.parametrize("crop_coverage", [0, 0.8])
@pytest.mark.parametrize("cosmetic", [False, True])
def test_of_mosaic_in__gives_the_planes_as_if_all_were_held(tmp_path, cosmetic, crop_coverage):
    made, canvas = planes(size=96), (-40, 6, 96, 96)
    made["NIM"][:17] = 3
    made["SCI"][70, 50] += 5000
    made["WHT"] = np.random.default_rng(5).uniform(1, 2, (96, 96)).astype(np.float32)
    plane, *facts = finishing.of_mosaic_in(written(tmp_path, made, canvas), canvas, None, cosmetic, crop_coverage)
    if not cosmetic and not crop_coverage:
        assert plane is None and facts == [canvas, None]
        return
    expected, *others = finishing.of_mosaic(made, canvas, None, cosmetic, crop_coverage)
    assert facts == others and (facts[1] or 0) == (1 if cosmetic else 0)
    for name, values in expected.items():
        np.testing.assert_array_equal(plane(name), values, err_msg=name)


def test_covered_box__says_that_nothing_is_covered():
    with pytest.raises(job.Stop, match="stacking.crop_coverage"):
        finishing.covered_box(np.ones((40, 40), int), 2, (0, 0, 40, 40))


@pytest.mark.parametrize("cosmetic", [False, True])
def test_of_colours_in__cleans_each_colour_and_leaves_the_rest_as_it_is(tmp_path, cosmetic):
    made = {name: np.stack([values, values + 1, values + 2]) for name, values in planes(size=96).items()}
    made["SCI"][1, 70, 50] += 5000
    canvas, box = (-40, 6, 48, 48), (-40, 10, 48, 40)
    paths = written(tmp_path, made, (-80, 12, 96, 96))
    plane = finishing.of_colours_in(paths, canvas, box, 2, cosmetic)
    inside = (..., slice(8, 88))
    changed = np.argwhere(plane("SCI") != made["SCI"][inside])
    assert changed.tolist() == ([[1, 70, 42]] if cosmetic else [])
    assert (abs(plane("SCI")[1, 70, 42] - made["SCI"][1, 70, 50]) > 4000) == cosmetic
    assert (plane("MASK")[1, 70, 42] & masks.REPLACED > 0) == cosmetic
    for name in set(made) - {"SCI", "EVEN", "ODD", "MASK"}:
        np.testing.assert_array_equal(plane(name), made[name][inside], err_msg=name)
    assert (finishing.of_colours_in(paths, canvas, canvas, 2, cosmetic) is None) == (not cosmetic)


@pytest.mark.parametrize("cosmetic", [False, True])
@pytest.mark.parametrize("n_colours", [1, 3])
def test_write__gives_a_product_the_pixels_of_the_stack_and_a_preview(tmp_path, n_colours, cosmetic):
    made, canvas = planes(size=96), (-40, 6, 96, 96)
    made |= {name: values.astype(np.int16) for name, values in made.items() if values.dtype == int}
    made["SCI"][70, 50] += 5000
    if n_colours == 3:
        made = {name: np.stack([values, values + 1, values + 2]) for name, values in made.items()}
    paths = written(tmp_path, made, canvas)
    names = ("image", "even", "plain_mean")
    out = {name: tmp_path / f"out_{name}" for name in (*names, "preview", "preview_full")}
    plane = finishing.of_colours_in(paths, canvas, canvas, 1, cosmetic)
    image = finishing.write({name: paths[name] for name in names}, plane, out, {"LATTY0": -40, "LATTX0": 6}, 1)
    got = stackfiles.channel({name: out[name] for name in names}, n_colours - 1)
    for name, values in made.items():
        if name in got and not (cosmetic and name in ("SCI", "EVEN", "MASK")):
            np.testing.assert_array_equal(got[name], values.reshape(-1, 96, 96)[-1], err_msg=name)
    np.testing.assert_array_equal(image.reshape(-1, 96, 96)[-1], got["SCI"])
    assert (got["SCI"][70, 50] < 2000) == cosmetic
    assert all(os.path.samefile(out[name], paths[name]) != cosmetic for name in names)
    assert [fits.getheader(out["image"])[key] for key in ("LATTY0", "LATTX0")] == [-40, 6]
    assert matplotlib.image.imread(out["preview"]).shape[:2] == (96, 96)


def test_write__does_not_pass_on_a_file_that_ends_too_early(tmp_path):
    paths = written(tmp_path, planes(size=96), (-40, 6, 96, 96))
    paths["image"].write_bytes(paths["image"].read_bytes()[: -4 * 96])
    out = {name: tmp_path / f"out_{name}" for name in ("image", "preview", "preview_full")}
    with pytest.raises(records.DamagedFile, match="image.fits"):
        finishing.write({"image": paths["image"]}, None, out, {}, 1)
    assert not any(path.exists() for path in out.values())
