"""The files of a stack."""

import os

import numpy as np
import pytest
from astropy.io import fits

from tilestack import stackfiles

CANVAS = (-7, 3, 21, 13)


def planes(n, seed=0):
    rng = np.random.default_rng(seed)
    made = {name: rng.normal(0, 1, (n, *CANVAS[2:])).astype(np.float32) for name in stackfiles.FILE_OF}
    return (
        made
        | {name: rng.integers(0, 40000, (n, *CANVAS[2:])) for name in ("NIM", "REJ")}
        | {"MASK": rng.integers(0, 32, (n, *CANVAS[2:]))}
    )


def paths_in(folder, names=tuple(stackfiles.OF_FILE)):
    return {name: folder / f"{name}.fits" for name in names}


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("most", "bits"), [(32767, 16), (40000, 32)])
def test_writer__lays_planes_out_as_products_have_them(tmp_path, n, most, bits):
    made, paths = planes(n), paths_in(tmp_path)
    if bits == 16:
        made |= {name: made[name] % 32768 for name in ("NIM", "REJ")}
    with stackfiles.Writer(paths, stackfiles.FILE_OF, n, CANVAS, most) as writer:
        for first, last in ((0, 8), (8, 9), (9, 21)):
            band = (CANVAS[0] + first, CANVAS[1], last - first, CANVAS[3])
            writer.put(band, {name: values[:, first:last] for name, values in made.items()})
    with fits.open(paths["image"]) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "MASK", "VAR", "WHT", "EXP", "NIM", "REJ"]
        assert [hdus[0].header[key] for key in ("LATTY0", "LATTX0")] == [-7, 3] and "NO_DATA" in hdus["MASK"].header
        assert hdus["NIM"].header["BITPIX"] == bits
        assert all(hdu.shape == (CANVAS[2:] if n == 1 else (3, *CANVAS[2:])) for hdu in hdus)
    for k in range(n):
        found = stackfiles.channel(paths, k)
        assert found.keys() == made.keys()
        for name, values in made.items():
            np.testing.assert_array_equal(found[name], values[k], err_msg=name)
            np.testing.assert_array_equal(stackfiles.rows(paths, name).read(4, 11)[k], values[k, 4:11], err_msg=name)
            loaded = stackfiles.loaded(paths, name)
            assert loaded.dtype.isnative
            np.testing.assert_array_equal(loaded.reshape(n, *CANVAS[2:])[k], values[k], err_msg=name)


def test_writer__a_file_without_planes_has_no_image(tmp_path):
    paths = paths_in(tmp_path, ("image", "even", "plain_mean"))
    with stackfiles.Writer(paths, ("MEAN",), 3, CANVAS, 9) as writer:
        writer.put(CANVAS, planes(3))
    assert list(stackfiles.channel(paths)) == ["MEAN"]
    stackfiles.empty(paths)
    assert not stackfiles.channel(paths) and all(path.exists() for path in paths.values())


def test_writer__an_error_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), stackfiles.Writer(paths_in(tmp_path), ("MEAN",), 1, CANVAS, 9):
        1 / 0  # noqa: B018
    assert not list(tmp_path.iterdir())


def test_of_end__parts_the_files_of_a_rule_by_stack():
    paths = {"image": "a", "image_rgb": "b", "even_rgb": "c", "record": "d", "split": "e"}
    assert stackfiles.of_end(paths) == {"image": "a", "split": "e"}
    assert stackfiles.of_end(paths, "_rgb") == {"image": "b", "even": "c"}


def test_used__takes_the_means_of_the_reconstruction():
    paths = {f"direct_{name}": f"d {name}" for name in ("image", "even", "odd", "plain_mean")}
    paths |= {f"synthetic_{name}": f"s {name}" for name in ("image", "even", "odd")} | {"image": "x"}
    direct = {"image": "d image", "even": "d even", "odd": "d odd", "plain_mean": "d plain_mean"}
    assert stackfiles.used(paths, False) == direct and next(iter(direct)) == "image"
    assert stackfiles.used(paths, True) == direct | {name: f"s {name}" for name in ("image", "even", "odd")}


@pytest.mark.parametrize("links", [True, False])
def test_passed_on__gives_second_names_as_new_as_one_another(links, tmp_path, monkeypatch):
    def without_links(path, to):
        raise PermissionError(1, "Operation not permitted", path)

    if not links:
        monkeypatch.setattr(os, "link", without_links)
    names = ("image", "even", "preview")
    paths, out = ({name: tmp_path / f"{name}{end}" for name in names} for end in ("", "_rgb"))
    for name in names:
        paths[name].write_bytes(name.encode())
        os.utime(paths[name], (1, 1))
    newest_input = tmp_path / "stacking.json"
    newest_input.touch()
    stackfiles.passed_on(paths, out)
    assert all(out[name].read_bytes() == paths[name].read_bytes() for name in names)
    assert all(os.path.samefile(out[name], paths[name]) == links for name in names)
    times = {out[name].stat().st_mtime_ns for name in names}
    assert len(times) == 1 and min(times) >= newest_input.stat().st_mtime_ns
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*(p.name for p in (*paths.values(), *out.values())), "stacking.json"]
    )
