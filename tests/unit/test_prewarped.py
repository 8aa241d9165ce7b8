import numpy as np
import pytest
from astropy.io import fits

from tilestack import prewarped, records

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
            writer.frame(f"FRAME{k}", part, {"BSCALE": 2.0, "BZERO": 900.0})
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
        writer.frame("FRAME", empty, {})
    frames = prewarped.Frames([(tmp_path / "a.fits", [{"extension": 1, "box": (0, 0, 6, 7)}])])
    assert (frames.stack((0, 0, 6, 7)) == empty).all()


def test_writer__keeps_what_lies_inside_of_a_frame_alone(tmp_path):
    codes, _ = written(tmp_path / "a.fits", [45] * 4)
    with fits.open(tmp_path / "a.fits", do_not_scale_image_data=True) as hdus:
        kept = [hdu.data for hdu in hdus[1:5]]
    for part, pixels in zip(codes, kept, strict=True):
        known = np.count_nonzero(part != prewarped.NO_DATA)
        holes = np.count_nonzero(pixels == prewarped.NO_DATA)
        assert part.size > 1.2 * known and len(pixels) == known + holes and holes < 0.1 * known


def test_frames__of_a_file_that_is_cut_short_say_so(tmp_path):
    _, entries = written(tmp_path / "a.fits", [0])
    frames = prewarped.Frames([(tmp_path / "a.fits", entries)])
    whole = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.fits").write_bytes(whole[:6000])
    with pytest.raises(records.DamagedFile, match=r"a\.fits is damaged .*delete it"):
        frames.stack(entries[0]["box"])
