"""Synthetic frames: their sums are those of the frames, whatever the clusters, and so is what they combine to."""

import contextlib

import numpy as np
import pytest
from astropy.io import fits

from tilestack import colours, combination, files, masks, splitsums, stackfiles, sums, synthetic
from tilestack.kernels import coadd, drizzle
from tilestack.kernels import combination as kernel

SETTINGS = {"method": "weighted", "kappa": 4.5, "range_tolerance": 0.2, "put_back_share": 0.3}
CANVAS = (-4, 2, 24, 30)
KEPT, REJECTED, CLIPPED, MISSING = range(4)
EXPOSURE_S = 10.0


def batch_of(rng, n, box, level=100.0, channels=1):
    """Random frames: value, weight, variance and mark of their pixels, all (n, channels, h, w)."""
    shape = (n, channels, *box[2:])
    marks = rng.choice(4, shape, p=(0.8, 0.06, 0.04, 0.1))
    y, x = np.indices(box[2:]) + np.reshape(box[:2], (2, 1, 1))
    marks[:, :, (abs(y - 2) < 2) & (abs(x - 9) < 2)] = REJECTED  # more than may be: these are put back
    marks[:, :, (y == 6) & (x < 12)] = CLIPPED  # here are only saturated ones
    marks[:, :, (y == 9) & (x < 12)] = MISSING
    return rng.normal(level, 5, shape), rng.uniform(0.5, 2, shape), rng.uniform(20, 30, shape), marks


def summed(frames, chosen, names):
    """Sums (3, n, c, h, w) by their names and counts (3, 1, c, h, w) of some frames."""
    y, w, v, marks = frames
    odd = (np.arange(len(y)) % 2)[:, None, None, None] * np.ones_like(y)
    whole = {
        "W2V": w * w * v,
        "W2R": w * w * v,
        "EXPOSURE": EXPOSURE_S * (w if "A" in names else np.ones_like(y)),
        "IY": y / v,
        "I": 1 / v,
        "Y": y,
        "A": w,
    }
    halved = {"WY": w * y, "W": w, "W2V": w * w * v, "IY": y / v, "I": 1 / v, "Y": y, "N": np.ones_like(y)}
    made = {
        f"{key}_{half}": value * (odd == k) for k, half in enumerate(("EVEN", "ODD")) for key, value in halved.items()
    }
    made |= whole | {"N": np.ones_like(y)}

    def add(name, mark):
        return np.where(marks == mark, made[name], 0)[chosen].sum(0)

    return (
        np.array([[add(name, mark) for name in names] for mark in range(3)]),
        np.array([[add("N", mark)] for mark in range(3)]).astype(np.int32),
    )


def write_batch(folder, name, frames, clusters, box, drizzled, flat=False, alike=True):
    """The files of a batch: its sums by cluster, and with flat weights; of frames exposed alike or not."""
    names = (drizzle.SUMS if drizzled else coadd.SUMS, ("N",))
    kind = splitsums.DRIZZLED if drizzled else splitsums.MOSAIC
    n, channels = frames[0].shape[:2]
    paths = folder / f"{name}_sums.fits", folder / f"{name}_flat.fits"
    split = splitsums.Split(clusters, flat)
    exposure = np.full(n, EXPOSURE_S) + (0 if alike else np.arange(n))
    with splitsums.Files(*paths, {"NFRAMES": n}, exposure, split, kind, names, channels, box) as out:
        for k, members in enumerate(split.members):
            values, numbers = summed(frames, members, names[0])
            for c in range(channels):
                for row in range(0, box[2], 6):  # in bands
                    parts = (part[:, :, c, row : row + 6] for part in (values, numbers))
                    block = (k, c, (row, 0), *splitsums.separated(*parts))
                    out.put([out.sums.part(*block)], [out.flat.part(*block)] if flat else [])
    return paths


def night(folder, drizzled=False, channels=1, seed=0, levels=(100.0, 100.0, 100.0)):
    """Two sessions, batches in other boxes: one of three clusters, one batch whole in one; one not split."""
    rng = np.random.default_rng(seed)
    sessions, boxes = [], [[(-4, 2, 20, 28), (-2, 4, 22, 26), (-3, 3, 19, 27)], [(0, 2, 18, 30), (-4, 4, 16, 24)]]
    for s, pair in enumerate(boxes):
        batches = []
        for b, box in enumerate(pair):
            clusters = (["02"] * 4 if b == 2 else [f"{k % 3 + 1:02d}" for k in range(9)]) if s == 0 else [""] * 5
            parts = [batch_of(rng, 1, box, levels[int(name or 1) - 1], channels) for name in clusters]
            frames = tuple(np.concatenate(values) for values in zip(*parts, strict=True))
            sums_path, flat_path = write_batch(folder, f"{s}_{b}_{channels}", frames, clusters, box, drizzled)
            batches.append((flat_path, sums_path))
        sessions.append({"clusters": ["01", "02", "03"] if s == 0 else ["01"], "sums": batches})
    return sessions


def synthetic_frames(folder, session):
    """Images of the synthetic frames of a session, by name."""
    path = folder / "synthetic.fits"
    synthetic.write(path, session["sums"], session["clusters"], SETTINGS["put_back_share"])
    with files.opened(path) as hdus:
        return {hdu.name: files.native(hdu.data) for hdu in hdus[1:]}


def direct(folder, sessions):
    """The reconstruction: all batches added up."""
    with contextlib.ExitStack() as stack:
        opened = [[sums.Sums(stack.enter_context(files.opened(p))) for _, p in s["sums"]] for s in sessions]
        planes = sums.planes_of(*sums.add_sessions(opened, CANVAS, SETTINGS["put_back_share"]))
    with stackfiles.Writer(stack_in(folder / "direct"), stackfiles.FILE_OF, 1, CANVAS, most=99) as writer:
        writer.put(CANVAS, planes)
    return planes


def stack_in(folder):
    """Files of a stack in a folder, which is made."""
    folder.mkdir(exist_ok=True)
    return {name: folder / f"{name}.fits" for name in stackfiles.OF_FILE}


def combined(folder, sessions, factor=None, **changes):
    factor = np.ones(4) if factor is None else np.asarray(factor, float)
    ratio = combination.mosaic(
        stack_in(folder / "made"), sessions, stack_in(folder / "direct"), CANVAS, factor, {**SETTINGS, **changes}, 1
    )
    return {name: plane[None] for name, plane in stackfiles.channel(stack_in(folder / "made")).items()}, ratio


def test_combination__is_the_direct_mean_of_all_frames(tmp_path):
    sessions = night(tmp_path)
    expected = direct(tmp_path, sessions)
    made, ratio = combined(tmp_path, sessions)
    assert ratio == pytest.approx(1, abs=1e-6)
    assert set(made) == set(combination.PLANES)
    for name in made:
        limit = 1e-6 if name != "SPLIT" else 1e-4
        np.testing.assert_allclose(made[name], expected[name], rtol=limit, atol=limit, err_msg=name)
    mask = expected["MASK"]
    assert (mask & masks.DIFFERS).any() and (mask & masks.SATURATED).any() and (mask & masks.NO_DATA).any()


def test_files__with_flat_weights_hold_those_beside_the_sums_of_the_run(tmp_path):
    box = (-4, 2, 20, 28)
    frames = batch_of(np.random.default_rng(8), 9, box)
    clusters = [f"{k % 3 + 1:02d}" for k in range(9)]
    for flat in (False, True):
        sums_path, flat_path = write_batch(tmp_path, f"flat_{flat}", frames, clusters, box, False, flat)
        with files.opened(sums_path) as hdus, files.opened(flat_path) as flat_hdus:
            assert len(hdus["W_EVEN"].data) == 3 and hdus[0].header["CLUSTERS"] == "01 02 03"
            assert (len(flat_hdus) > 1) == flat and flat_hdus[0].header["NFRAMES"] == (9 if flat else 0)
            session = synthetic.Session(
                contextlib.ExitStack(), [(flat_path, sums_path)], ["01", "02", "03"], splitsums.MOSAIC, 0.3
            )
            assert session.batches[0][1].planes["W_EVEN"].path == str(flat_path if flat else sums_path)


def test_sums__of_all_clusters_are_those_of_the_batch(tmp_path):
    box = (-4, 2, 20, 28)
    frames = batch_of(np.random.default_rng(9), 9, box, channels=3)
    found = []
    for clusters in ([""] * 9, [f"{k % 3 + 1:02d}" for k in range(9)]):
        path, _ = write_batch(tmp_path, f"of_{clusters[0]}", frames, clusters, box, True)
        with files.opened(path) as hdus:
            found.append(sums.add_sessions([[sums.Sums(hdus, colours.DRIZZLED)]], CANVAS, 0.3))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("drizzled", [False, True])
def test_sums__of_frames_exposed_alike_need_no_image_of_their_exposures(drizzled, tmp_path):
    box, kind, found = (-4, 2, 20, 28), colours.DRIZZLED if drizzled else sums.MOSAIC, []
    frames = batch_of(np.random.default_rng(11), 9, box)
    for alike in (True, False):
        path, _ = write_batch(tmp_path, f"alike_{alike}", frames, [""] * 9, box, drizzled, alike=alike)
        with files.opened(path) as hdus:
            assert ("EXPOSURE" in hdus) != alike
            assert all(("EXPOSURE" in hdus[name].columns.names) != alike for name in ("REJECTED", "SATURATED"))
            found.append(sums.add_sessions([[sums.Sums(hdus, kind)]], CANVAS, 0.3))
    assert found[0][0][list(kind.sums).index("EXPOSURE")].max() > 3 * EXPOSURE_S
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_files__with_an_exposure_that_is_not_known_keep_the_image(tmp_path):
    paths, split = (tmp_path / "sums.fits", tmp_path / "flat.fits"), splitsums.Split([""] * 2)
    about = (split, splitsums.MOSAIC, (coadd.SUMS, ("N",)), 1, (0, 0, 4, 4))
    nothing = splitsums.separated(np.zeros((3, len(coadd.SUMS), 4, 4)), np.zeros((3, 1, 4, 4), np.int32))
    for exposure, kept in (((np.nan, np.nan), True), ((10, np.nan), True), ((10, 10), False)):
        with splitsums.Files(*paths, {"NFRAMES": 2}, np.array(exposure), *about) as out:
            out.put([out.sums.part(0, 0, (0, 0), *nothing)], [])
        with files.opened(paths[0]) as hdus:
            assert ("EXPOSURE" in hdus) == kept


def test_combination__of_drizzled_colours_is_the_direct_mean_too(tmp_path):
    sessions = night(tmp_path, drizzled=True, channels=3)
    paths = paths_with_headers([[path for _, path in session["sums"]] for session in sessions])
    direct, made, means = (stack_in(tmp_path / name) for name in ("direct", "made", "means"))
    told = colours.add_up(paths, direct, CANVAS, "GRBG", SETTINGS["put_back_share"])
    combination.drizzled(made, sessions, CANVAS, np.ones(4), SETTINGS, "GRBG")
    assert colours.add_up(paths, means, CANVAS, "GRBG", SETTINGS["put_back_share"], means_only=True) == told
    for c in range(3):
        expected, found, mean = (stackfiles.channel(stack, c) for stack in (direct, made, means))
        assert set(expected) == set(colours.PLANES) == {*found, "MEAN"} and list(mean) == ["MEAN"]
        for name in found:
            limit = 1e-6 if name != "SPLIT" else 1e-4
            np.testing.assert_allclose(found[name], expected[name], rtol=limit, atol=limit, err_msg=name)
        np.testing.assert_array_equal(mean["MEAN"], expected["MEAN"])


@pytest.mark.parametrize("method", ["weighted", "rej"])
@pytest.mark.parametrize("drizzled", [False, True])
def test_combination__does_not_depend_on_its_bands(tmp_path, monkeypatch, drizzled, method):
    sessions = night(tmp_path, drizzled, levels=(100.0, 110.0, 160.0))
    settings = {**SETTINGS, "method": method}
    if drizzled:
        paths_with_headers([[path for _, path in session["sums"]] for session in sessions])
    else:
        direct(tmp_path, sessions)
    made = []
    for rows, n_bytes in ((64, 64e6), (4, 1)):
        monkeypatch.setattr(combination, "BAND_ROWS", rows)
        monkeypatch.setattr(synthetic, "BAND_BYTES", n_bytes)
        out, how = stack_in(tmp_path / str(rows)), (CANVAS, np.ones(4), settings)
        if drizzled:
            combination.drizzled(out, sessions, *how, None)
        else:
            combination.mosaic(out, sessions, stack_in(tmp_path / "direct"), *how, 1)
        made.append(stackfiles.channel(out))
    for name, plane in made[0].items():
        np.testing.assert_array_equal(plane, made[1][name], err_msg=name)


@pytest.mark.parametrize("dtype", [float, bool])
def test_weighted_sum__leaves_out_what_has_no_weight(dtype):
    rng = np.random.default_rng(6)
    values, weights = rng.normal(0, 1, (4, 2, 7, 9)), rng.uniform(-1, 1, (4, 2, 7, 9)).clip(0).astype(dtype)
    expected = (values * weights).sum(0)
    values[weights == 0] = np.nan
    np.testing.assert_allclose(kernel.weighted_sum(values, weights), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"need two arrays.*\(4, 2, 7, 9\) and \(2, 7, 9\)"):
        kernel.weighted_sum(values, weights[0])


def test_left_out__of_bands_is_the_table_each_pixel_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sums, "RANGE", 4)
    _, path = night(tmp_path)[1]["sums"][0]
    with files.opened(path) as hdus:
        batch, table = sums.Sums(hdus, splitsums.MOSAIC), np.array(hdus["REJECTED"].data)
    parts = [batch.left_out("REJECTED", (y, CANVAS[1], 5, CANVAS[3]))[0] for y in range(CANVAS[0], 20, 5)]
    assert len(table) > 40 and all((part.at[1] >= 0).all() and (part.at[1] < 5).all() for part in parts)
    y = np.concatenate([part.at[1] + k * 5 + CANVAS[0] - batch.box[0] for k, part in enumerate(parts)])
    x = np.concatenate([part.at[2] + CANVAS[1] - batch.box[1] for part in parts])
    order = np.lexsort((x, y))
    wanted = np.sort(table, order=("ROW", "COLUMN"))
    np.testing.assert_array_equal(y[order], wanted["ROW"])
    np.testing.assert_array_equal(x[order], wanted["COLUMN"])
    values = np.concatenate([part.sums for part in parts], axis=1)[:, order]
    for name, found in zip(splitsums.MOSAIC.sums, values, strict=True):
        np.testing.assert_array_equal(found, EXPOSURE_S * wanted["N"] if name == "EXPOSURE" else wanted[name])


def paths_with_headers(paths):
    """The drop in the headers of the sums, as ``drizzling.write_sums`` leaves it."""
    for session in paths:
        for path in session:
            with fits.open(path, mode="update") as hdus:
                hdus[0].header.update({"DRZKERN": "square", "DRZFRAC": 0.7, "DRZSCALE": 1, "RAWAREA": 1.0})
    return paths


def test_synthetic__has_no_dark_rim_and_knows_its_coverage(tmp_path):
    planes = synthetic_frames(tmp_path, night(tmp_path)[0])
    sparse = (planes["NIM"] > 0) & (planes["NIM"] <= 2)
    assert sparse.any() and planes["SCI"].shape == (3, 1, 24, 28)
    for chosen in (sparse, planes["NIM"] >= 5):
        error = np.sqrt(planes["VAR"][chosen])
        assert np.mean((planes["SCI"][chosen] - 100) / error) == pytest.approx(0, abs=5 / np.sqrt(chosen.sum()))
    np.testing.assert_array_equal(np.isnan(planes["SCI"]), planes["NIM"] == 0)
    np.testing.assert_array_equal(planes["WHT"] > 0, planes["NIM"] > 0)
    np.testing.assert_allclose(planes["EXP"], 10 * planes["NIM"])


def test_combination__rejects_a_synthetic_frame_that_differs_by_its_known_variance(tmp_path):
    sessions = night(tmp_path, levels=(100.0, 100.0, 300.0))
    direct(tmp_path, sessions)
    plain, _ = combined(tmp_path, sessions)
    clean, _ = combined(tmp_path, sessions, method="rej")
    used = (plain["NIM"] >= 14) & (plain["MASK"] == 0)
    assert np.median(plain["SCI"][used]) > 110
    assert np.median(clean["SCI"][used]) == pytest.approx(100, abs=2)
    assert (clean["NIM"] + clean["REJ"])[used].sum() == (plain["NIM"] + plain["REJ"])[used].sum()


def test_combination__keeps_nearly_all_frames_that_agree(tmp_path):
    sessions = night(tmp_path, seed=4)
    direct(tmp_path, sessions)
    plain, _ = combined(tmp_path, sessions)
    kept, _ = combined(tmp_path, sessions, method="rej")
    assert (kept["NIM"] < plain["NIM"]).mean() < 0.01


def test_combination__by_number_counts_frames_and_not_weights(tmp_path):
    sessions = night(tmp_path, levels=(100.0, 200.0, 300.0))
    direct(tmp_path, sessions)
    made, _ = combined(tmp_path, sessions, method="average")
    frames = synthetic_frames(tmp_path, sessions[0])
    values, numbers = frames["SCI"][:, 0], frames["NIM"][:, 0]
    # Where the first session alone has data.
    expected = np.nansum(values * numbers, axis=0) / np.maximum(numbers.sum(0), 1)
    here, n = made["SCI"][0][:, :28], made["NIM"][0][:, :28]
    alone = (n == numbers.sum(0)) & (n > 0)
    assert alone.sum() > 40
    np.testing.assert_allclose(here[alone], expected[alone], rtol=1e-5)


def test_factors__are_powers_of_the_mean_weight_within_their_cap():
    weight, size = np.array([1.0, 2.0, 4.0, 0.01]), np.array([10, 20, 3, 5])
    np.testing.assert_array_equal(combination.factors(weight, size, 0.0, 20.0), np.ones(4))
    np.testing.assert_allclose(combination.factors(weight, size, 1.0, 20.0), [0.25, 0.5, 1.0, 0.05])
    np.testing.assert_allclose(combination.factors(weight, size, 2.0, 100.0), [1 / 16, 1 / 4, 1.0, 0.01])
    # Weights are in 1 / adu^2, far below 1; one without any weight must not change the others.
    tiny = np.array([1e-3, 2e-3, 0.0])
    np.testing.assert_allclose(combination.factors(tiny, np.array([5, 5, 5]), 1.0, 20.0), [0.5, 1.0, 0.5])


def test_combination__with_a_factor_is_the_mean_with_these_weights(tmp_path):
    sessions = night(tmp_path, levels=(100.0, 200.0, 300.0))
    direct(tmp_path, sessions)
    first, _ = combined(tmp_path, sessions, factor=(1, 1e-12, 1e-12, 1e-12))
    frames = synthetic_frames(tmp_path, sessions[0])
    own = frames["SCI"][0]
    clean = np.isfinite(own) & (frames["MASK"][0] == 0)
    rows, columns = slice(0, 24), slice(0, 28)
    np.testing.assert_allclose(first["SCI"][:, rows, columns][clean], own[clean], rtol=1e-6)


def test_weighted_median__is_where_half_of_the_weight_lies():
    image = np.array([1.0, 5.0, np.nan, 3.0])[:, None, None]
    assert combination.weighted_median(image, np.array([1, 1, 9, 1.5])[:, None, None])[0, 0] == 3.0
    assert combination.weighted_median(image, np.array([1, 9, 1, 1])[:, None, None])[0, 0] == 5.0
    assert np.isnan(combination.weighted_median(np.full((2, 1, 1), np.nan), np.ones((2, 1, 1))))[0, 0]


def test_neighbour_range__passes_over_what_is_missing():
    image = np.array([[1, 2, np.nan, 9], [1, 4, 1, 1], [1, 1, 1, 1]], float)
    assert combination.neighbour_range(image, 1)[2].tolist() == [3, 3, 3, 0]
    assert combination.neighbour_range(image, 2)[0, 1] == 9 - 1
