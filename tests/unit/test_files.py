import errno

import numpy as np
import pytest
from astropy.io import fits

from tilestack import files, records

PARTS = slice(0, 2), slice(2, 2), slice(2, None)


@pytest.mark.parametrize("dtype", ["i2", "i4", "u1", "f4", "f8"])
def test_writer__makes_what_astropy_reads(tmp_path, dtype):
    cube = np.random.default_rng(2).integers(0, 200, (3, 7, 11)).astype(dtype)
    table = {"PLANE": np.arange(5, dtype=np.int16), "VALUE": np.linspace(0, 1, 5, dtype=np.float32)}
    with files.Writer(tmp_path / "x.fits", {"RUNID": "t", "NOTHING": None}) as writer:
        place = writer.reserve("ROWS", cube.shape, dtype, {"BUNIT": ("adu", "unit")})
        writer.append("WHOLE", cube)
        writer.append_table("LIST", *({key: values[part] for key, values in table.items()} for part in PARTS))
        for k in range(3):
            for y in range(7):
                writer.put(place, cube[k, y], (k * 7 + y) * 11)
    with fits.open(tmp_path / "x.fits") as hdus:
        hdus.verify("exception")
        assert hdus[0].header["RUNID"] == "t" and "NOTHING" not in hdus[0].header
        for name in ("ROWS", "WHOLE"):
            np.testing.assert_array_equal(hdus[name].data, cube)
        for name, values in table.items():
            np.testing.assert_array_equal(hdus["LIST"].data[name], values)
    assert [p.name for p in tmp_path.iterdir()] == ["x.fits"]


@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_put_block__makes_the_image_of_all_blocks(tmp_path, dtype):
    cube = np.random.default_rng(3).integers(0, 200, (2, 9, 11)).astype(dtype)
    with files.Writer(tmp_path / "x.fits", {}) as writer:
        places = {name: writer.reserve(name, cube.shape, dtype) for name in ("A", "B")}
        for top, bottom in ((0, 4), (4, 9)):
            for left, right in ((0, 5), (5, 6), (6, 11)):
                for name, sign in (("A", 1), ("B", -1)):
                    for k, plane in enumerate(cube):
                        block = sign * plane[top:bottom, left:right]
                        writer.put_block(places[name], block, cube.shape, (k, top, left))
    with fits.open(tmp_path / "x.fits") as hdus:
        np.testing.assert_array_equal(hdus["A"].data, cube)
        np.testing.assert_array_equal(hdus["B"].data, -cube)


def test_put_block__a_strip_that_is_not_whole_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="1 strips do not reach"), files.Writer(tmp_path / "x.fits", {}) as writer:
        writer.put_block(writer.reserve("A", (1, 4, 6), "f4"), np.zeros((2, 5), np.float32), (1, 4, 6), (0, 0, 0))
    assert not list(tmp_path.iterdir())


def test_writer__leaves_nothing_where_it_fails(tmp_path):
    with pytest.raises(RuntimeError), files.Writer(tmp_path / "x.fits", {}) as writer:
        writer.append("A", np.zeros((2, 2), np.float32))
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_writer__full_disk_is_an_error_when_room_is_reserved(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"), files.Writer(tmp_path / "x.fits", {}) as writer:
        writer.reserve("A", (10, 10), "f4")
    assert not list(tmp_path.iterdir())


def test_checked__makes_cards_that_fits_can_hold():
    cards = {
        "FRAME": "-m 31 ü\n\x1b.fits",
        "FILTER": ("Hα", "by the config"),
        "A": None,
        "B": float("nan"),
        "C": (2, "two"),
    }
    header = fits.Header()
    header.update(files.checked(cards))
    assert (header["FRAME"], header["FILTER"]) == ("-m 31 \\xfc\\n\\x1b.fits", "H\\u03b1")
    assert header.comments["FILTER"] == "by the config" and header["C"] == 2 and "A" not in header and "B" not in header


@pytest.mark.parametrize("kept", [0, 1000, 4000, 9000])
def test_opened__names_a_damaged_file(tmp_path, kept):
    with files.Writer(tmp_path / "a.fits", {"A": 1}) as writer:
        writer.append("SCI", np.ones((30, 40), np.float32))
    content = (tmp_path / "a.fits").read_bytes()
    assert len(content) > 9000
    (tmp_path / "a.fits").write_bytes(content[:kept])
    with (
        pytest.raises(records.DamagedFile, match="a.fits is damaged.*delete it"),
        files.opened(tmp_path / "a.fits") as hdus,
    ):
        hdus["SCI"].data.sum()


@pytest.mark.parametrize("dtype", ["i2", "i4", "f4", "f8"])
def test_rows__are_those_of_the_image(tmp_path, dtype):
    cube = np.random.default_rng(3).integers(0, 200, (2, 3, 7, 11)).astype(dtype)
    with files.Writer(tmp_path / "x.fits", {}) as writer:
        writer.append("A", cube)
    with files.opened(tmp_path / "x.fits") as hdus:
        rows = files.Rows(hdus["A"])
        for first, last in ((0, 7), (2, 5), (6, 7), (4, 4)):
            found = rows.read(first, last)
            assert found.dtype == np.dtype(dtype) == rows.dtype
            np.testing.assert_array_equal(found, cube.reshape(6, 7, 11)[:, first:last])
            part = rows.part(slice(first, last), slice(3, 9))
            assert part.dtype == rows.dtype
            np.testing.assert_array_equal(part, found[:, :, 3:9])
        with open(tmp_path / "x.fits", "r+b") as stream:
            stream.truncate(hdus["A"].fileinfo()["datLoc"] + cube.nbytes - 20)
        with pytest.raises(records.DamagedFile, match="x.fits is damaged .it ends 20 bytes too early"):
            rows.read(0, 7)


def test_numbers__are_those_of_a_file_as_far_as_it_goes(tmp_path):
    values = np.arange(100).astype(">i2")
    values.tofile(tmp_path / "x")
    np.testing.assert_array_equal(files.numbers(tmp_path / "x", ">i2", 30, 20), values[10:40])
    np.testing.assert_array_equal(files.numbers(tmp_path / "x", ">i2", 30, 180), values[90:])
    assert len(files.numbers(tmp_path / "x", ">i4", 3, 191)) == 2 and not len(
        files.numbers(tmp_path / "x", "u1", 3, 900)
    )
