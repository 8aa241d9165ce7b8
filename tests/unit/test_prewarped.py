import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from tilestack import prewarped, records
from tilestack.kernels import spans

CORNERS = ((0, 0), (-3, 5), (40, -20), (12, 31))


def turned(rng, shape, angle):
    """Codes of a frame that is turned in its box, with holes inside."""
    y, x = np.mgrid[: shape[0], : shape[1]] - np.array(shape).reshape(2, 1, 1) / 2
    a = np.radians(angle)
    inside = (np.abs(x * np.cos(a) + y * np.sin(a)) < 14) & (np.abs(y * np.cos(a) - x * np.sin(a)) < 20)
    codes = rng.integers(-32767, 32767, shape).astype(np.int16)
    return np.where(inside & (rng.random(shape) > 0.05), codes, prewarped.NO_DATA).astype(np.int16)


def written(path, angles):
    """Frames of some angles in a file: their codes and entries."""
    rng = np.random.default_rng(4)
    shapes = [(41 + 3 * k, 37 + 2 * k) for k in range(len(angles))]
    codes = [turned(rng, shape, angle) for shape, angle in zip(shapes, angles, strict=True)]
    entries = [{"file": str(k), "extension": k + 1, "box": (*CORNERS[k % 4], *shape)} for k, shape in enumerate(shapes)]
    with prewarped.Writer(path, {}) as writer:
        for k, part in enumerate(codes):
            writer.frame(f"FRAME{k}", [spans.pack(part)], {"SCALE": 2.0, "ZERO": 900.0})
    return codes, entries


def test_frames__come_back_in_any_box(tmp_path):
    codes, entries = written(tmp_path / "a.fits", [0, 30, 90, 45, -70])
    lattice = np.full((5, 160, 160), prewarped.NO_DATA, np.int16)
    for plane, part, entry in zip(lattice, codes, entries, strict=True):
        y0, x0, h, w = entry["box"]
        plane[y0 + 50 : y0 + 50 + h, x0 + 50 : x0 + 50 + w] = part
    frames = prewarped.Frames([(tmp_path / "a.fits", entries)])
    for box in (
        (-50, -50, 160, 160),
        (10, -7, 8, 90),
        (3, 12, 21, 5),
        (-50, -50, 4, 4),
        (60, 60, 30, 30),
        (0, 0, 0, 9),
    ):
        there = (slice(box[0] + 50, box[0] + 50 + box[2]), slice(box[1] + 50, box[1] + 50 + box[3]))
        assert (frames.stack(box) == lattice[:, *there]).all()


def test_frames__some_of_them_in_another_order(tmp_path):
    codes, entries = written(tmp_path / "a.fits", [0, 30, 90, 45])
    frames = prewarped.Frames([(tmp_path / "a.fits", [entries[2], entries[0], entries[3]])])
    frames.sort(["2", "0", "3"], ["3", "2", "0"])
    assert [entry["file"] for entry in frames.entries] == ["3", "2", "0"]
    for k, n in enumerate((3, 2, 0)):
        assert (frames.rows(k, entries[n]["box"]) == codes[n]).all()


def test_frames__one_without_any_data(tmp_path):
    empty = np.full((6, 7), prewarped.NO_DATA, np.int16)
    with prewarped.Writer(tmp_path / "a.fits", {}) as writer:
        writer.frame("FRAME", [spans.pack(empty)], {})
    frames = prewarped.Frames([(tmp_path / "a.fits", [{"extension": 1, "box": (0, 0, 6, 7)}])])
    assert (frames.stack((0, 0, 6, 7)) == empty).all()


def test_writer__keeps_what_lies_inside_of_a_frame_alone(tmp_path):
    codes, _ = written(tmp_path / "a.fits", [45] * 4)
    with fits.open(tmp_path / "a.fits") as hdus:
        kept = [hdu.data.nbytes for hdu in hdus[1:5]]
    for part, n_bytes in zip(codes, kept, strict=True):
        known, rows = np.count_nonzero(part != prewarped.NO_DATA), np.count_nonzero((part != prewarped.NO_DATA).any(1))
        # Such codes are not near to one another: two bytes each, and two a block, of which rows have one.
        assert 2 * known + 2 * rows <= n_bytes < 2.2 * known + 2 * rows < 0.9 * 2 * part.size


def test_pack__takes_a_byte_a_pixel_where_neighbours_of_a_colour_are_near():
    rng = np.random.default_rng(8)
    sky = np.where(np.arange(200) % 2 == 0, 1000, -9000) + rng.integers(0, 256, (30, 200))
    _, starts, *_ = spans.pack(sky.astype(np.int16))
    assert (np.diff(starts) == 200 + 4 * 4).all()
    star = np.full((1, 200), 77, np.int16)
    star[0, 70] = 77 + 255
    assert len(spans.pack(star)[0]) == 200 + 4 * 4
    star[0, 70] = 77 + 256
    assert len(spans.pack(star)[0]) == 200 + 64 + 3 * 4 + 2


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32 - 1))
def test_unpack__gives_any_codes_back(seed):
    rng = np.random.default_rng(seed)
    h, w = rng.integers(1, 6), rng.integers(1, 300)
    reach = rng.choice([1, 200, 255, 256, 257, 300, 65535])
    centre = np.where(np.arange(w) % 2 == 0, *rng.integers(-32768, 32768, 2))
    codes = np.clip(centre + rng.integers(0, reach + 1, (h, w)) - reach // 2, -32768, 32767).astype(np.int16)
    codes[rng.random((h, w)) < rng.choice([0, 0.01, 0.5])] = spans.NO_DATA
    codes[rng.random((h, w)) < rng.choice([0, 0.01])] = 32767
    stream, starts, first, end = spans.pack(codes)
    top, bottom = np.sort(rng.integers(0, h + 1, 2))
    left, width = rng.integers(-20, w + 20), rng.integers(0, w + 40)
    out = np.empty((bottom - top, width), np.int16)
    rows = slice(top, bottom)
    its = stream[starts[top] : starts[bottom]]
    spans.unpack(its, starts[top : bottom + 1], first[rows], end[rows], left, out)
    wide = np.pad(codes, ((0, 0), (400, 700)), constant_values=spans.NO_DATA)
    assert (out == wide[rows, 400 + left : 400 + left + width]).all()


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32 - 1))
def test_unpack__of_bytes_that_are_not_those_of_the_rows_says_so(seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, rng.choice([200, 3000]), (4, 150)).astype(np.int16)
    stream, starts, first, end = spans.pack(codes)
    out = np.empty((4, 150), np.int16)
    wrong = stream.copy()
    head = starts[rng.integers(0, 4)]
    wrong[head : head + 2] = [0, 1] if wrong[head] == 0x80 and wrong[head + 1] == 0 else [0x80, 0]
    with pytest.raises(ValueError, match=r"the bytes of row \d are not those of its columns"):
        spans.unpack(wrong, starts, first, end, 0, out)
    with pytest.raises(ValueError, match="need the bytes of 4 rows"):
        spans.unpack(stream[:-1], starts, first, end, 0, out)


def test_frames__of_a_file_that_is_cut_short_say_so(tmp_path):
    _, entries = written(tmp_path / "a.fits", [0])
    frames = prewarped.Frames([(tmp_path / "a.fits", entries)])
    whole = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.fits").write_bytes(whole[:6000])
    with pytest.raises(records.DamagedFile, match=r"a\.fits is damaged .*delete it"):
        frames.stack(entries[0]["box"])
