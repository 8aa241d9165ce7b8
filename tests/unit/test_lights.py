import gzip
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy.io import fits

from tilestack import bayer, inspection, job, lights


@pytest.fixture
def pixels():
    return np.random.default_rng(3).integers(0, 60000, (120, 150)).astype(np.uint16)


def write(path, pixels, compressed=False, **cards):
    hdu = fits.CompImageHDU(pixels, compression_type="RICE_1") if compressed else fits.PrimaryHDU(pixels)
    hdu.header.update(cards)
    (fits.HDUList([fits.PrimaryHDU(), hdu]) if compressed else hdu).writeto(path)
    return path


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("name", ["a.fit", "a.fits", "a.fts", "a.fit.gz", "a.fits.fz"])
def test_read__gives_the_pixels_of_every_form(tmp_path, pixels, dtype, name):
    pixels = (pixels / 4).astype(dtype)
    path = write(tmp_path / name, pixels, compressed=name.endswith(".fz") and dtype != np.float32)
    image, _ = lights.read(path)
    np.testing.assert_array_equal(image, pixels)
    assert image.dtype == np.float32 and image.dtype.isnative


def test_read__takes_scaled_and_blank_pixels(tmp_path):
    hdu = fits.PrimaryHDU(np.array([[1, 2], [3, -32768]], np.int16))
    hdu.header.update(BSCALE=0.5, BZERO=10, BLANK=-32768)
    hdu.writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(lights.read(tmp_path / "a.fits")[0], [[10.5, 11], [11.5, np.nan]])


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("name", ["a.fits", "a.fits.gz", "a.fits.fz"])
def test_opened__gives_in_any_thread_what_read_does(tmp_path, pixels, dtype, name, monkeypatch):
    monkeypatch.setattr(lights, "PIECE", 1000)  # of which an image is several, and a part of one
    path = write(tmp_path / name, (pixels / 4).astype(dtype), name.endswith(".fz") and dtype != np.float32)
    with ThreadPoolExecutor(1) as pool:
        image = pool.submit(lights.opened(path)).result()
    np.testing.assert_array_equal(image, lights.read(path)[0])
    assert image.dtype == np.float32 and image.dtype.isnative


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"no light", None])
def test_opened__tells_a_light_that_changed(tmp_path, pixels, damage):
    path = write(tmp_path / "a.fits", pixels)
    if damage:
        path.write_bytes(damage(path.read_bytes()))
    else:
        path.unlink()
    with pytest.raises(job.Stop, match=r"light_changed.*a.fits" if damage else r"light_gone.*a.fits"):
        lights.opened(path)()


@pytest.mark.parametrize("zipped", [False, True])
def test_read__tells_a_cut_off_file(tmp_path, pixels, zipped):
    path = write(tmp_path / "a.fits", pixels)
    data = gzip.compress(path.read_bytes()) if zipped else path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(lights.BadLight, match="truncated.*a.fits"):
        lights.read(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "not_fits"), (b"\xff\xd8\xff\xe0 JPEG", "not_fits"), (gzip.compress(b"text", mtime=0), "not_fits")],
)
def test_read__tells_what_is_not_fits(tmp_path, content, reason):
    (tmp_path / "a.fits").write_bytes(content)
    with pytest.raises(lights.BadLight, match=reason):
        lights.read(tmp_path / "a.fits")


def test_read__refuses_cubes_and_files_without_an_image(tmp_path, pixels):
    write(tmp_path / "cube.fits", np.stack([pixels] * 3))
    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    with pytest.raises(lights.BadLight, match="rgb_product"):
        lights.read(tmp_path / "cube.fits")
    with pytest.raises(lights.BadLight, match="no_image"):
        lights.read(tmp_path / "empty.fits")


def test_read__missing_file_is_an_error_of_the_run(tmp_path):
    with pytest.raises(FileNotFoundError):
        lights.read(tmp_path / "gone.fits")


@pytest.mark.parametrize("pattern", bayer.PATTERNS)
@pytest.mark.parametrize("height", [8, 9])
@pytest.mark.parametrize("order", [None, "TOP-DOWN", "BOTTOM-UP"])
@pytest.mark.parametrize("offset", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_pattern_of_header__equals_the_colours_of_the_picture(pattern, height, order, offset):
    header = fits.Header({"BAYERPAT": pattern, "YBAYROFF": offset[0], "XBAYROFF": offset[1]})
    if order:
        header["ROWORDER"] = order
    cell = np.array(list(pattern)).reshape(2, 2)
    y, x = np.mgrid[:height, :6]
    picture = cell[(y + offset[0]) % 2, (x + offset[1]) % 2]
    stored = picture[::-1] if order == "BOTTOM-UP" else picture
    found = bayer.pattern_of_header(header, stored.shape)
    np.testing.assert_array_equal(np.array(list(found)).reshape(2, 2), stored[:2, :2])


@pytest.mark.parametrize("pattern", bayer.PATTERNS)
@pytest.mark.parametrize("order", [None, "TOP-DOWN", "BOTTOM-UP"])
@pytest.mark.parametrize("height", [8, 9])
def test_pattern_for_header__is_read_back(pattern, order, height):
    header = fits.Header({"BAYERPAT": bayer.pattern_for_header(pattern, (height, 6), order)})
    if order:
        header["ROWORDER"] = order
    assert bayer.pattern_of_header(header, (height, 6)) == pattern


def test_pattern_of_header__hands_on_what_is_no_bayer_pattern():
    assert bayer.pattern_of_header(fits.Header({"BAYERPAT": " xtrans"}), (8, 8)) == "XTRANS"
    assert bayer.pattern_of_header(fits.Header({"BAYERPAT": "NONE"}), (8, 8)) is None


def test_read__takes_infinite_pixels_for_missing_ones(tmp_path, pixels):
    image = pixels.astype(np.float32)
    image[1, 2], image[2, 3] = np.inf, -np.inf
    read = lights.read(write(tmp_path / "a.fits", image))[0]
    assert np.argwhere(~np.isfinite(read)).tolist() == [[1, 2], [2, 3]] and np.isnan(read[1, 2])


def test_read__damaged_files_are_unreadable_and_no_error_of_the_run(tmp_path):
    rng = np.random.default_rng(8)
    fits.CompImageHDU(rng.normal(900, 30, (64, 96)).astype(np.int16)).writeto(tmp_path / "a.fits.fz")
    whole = (tmp_path / "a.fits.fz").read_bytes()
    fates = []
    for _ in range(60):
        content = bytearray(whole)
        for at in rng.integers(5760, len(whole), 40):
            content[at] = rng.integers(256)
        (tmp_path / "b.fits.fz").write_bytes(content)
        try:
            lights.read(tmp_path / "b.fits.fz")
            fates.append("read")
        except lights.BadLight as bad:
            fates.append(bad.reason)
    assert set(fates) <= {"read", "unreadable", "truncated"} and "unreadable" in fates


@pytest.mark.parametrize(
    ("card", "key", "value"),
    [
        ("EXPTIME = 10,0", "exposure_s", None),
        ("BAYERPAT= GRBG", "bayer_pattern", None),
        ("DATE-OBS= '14/03/26'", "date_obs", None),
        ("DATE-OBS= '2026-03-14T24:00:00'", "date_obs", None),
        ("GAIN    = NAN", "camera_gain", None),
        ("DATE-OBS= '2026-03-14T23:00:00Z'", "date_obs", "2026-03-14T23:00:00Z"),
    ],
)
def test_inspect__a_card_that_cannot_be_read_is_a_missing_one(tmp_path, pixels, card, key, value):
    path = write(tmp_path / "a.fits", pixels, OBSERVER="x")
    content = path.read_bytes()
    at = content.index(b"OBSERVER")
    path.write_bytes(content[:at] + card.ljust(80).encode() + content[at + 80 :])
    facts = inspection.inspect(path)
    assert facts["error"] is None and facts[key] == value
    assert facts["bad_cards"] == ([] if value else [card[:8].strip()])


def test_inspect__measures_noise_and_level_where_the_converter_has_coarse_steps(tmp_path):
    rng = np.random.default_rng(5)
    image = 16 * np.floor(rng.normal(905, 85, (400, 600)) / 16)  # steps of a fifth of sigma, as a Seestar's
    write(tmp_path / "a.fits", image.astype(np.uint16), EXPTIME=10.0, FILTER="L ", RA="12 50 53")
    facts = inspection.inspect(tmp_path / "a.fits")
    assert facts["noise_adu"] == pytest.approx(np.hypot(85, 16 / 12**0.5), rel=0.01)
    assert (facts["exposure_s"], facts["filter"], facts["ra_deg"], facts["looks_cfa"]) == (10.0, "L", None, False)


def test_inspect__sees_a_mosaic_without_a_header(tmp_path):
    levels = np.tile([[990.0, 840.0], [795.0, 992.0]], (100, 120))
    image = np.random.default_rng(6).normal(levels, 80).astype(np.float32)
    assert inspection.inspect(write(tmp_path / "a.fits", image))["looks_cfa"]
    columns = np.random.default_rng(6).normal(np.tile([990.0, 840.0], (200, 120)), 80).astype(np.float32)
    assert not inspection.inspect(write(tmp_path / "b.fits", columns))["looks_cfa"]  # two converters, not two colours


@pytest.mark.parametrize("level", [895.5, 896.0, 896.5, 903.7])
def test_inspect__takes_no_mono_light_for_a_mosaic_where_the_sky_lies_between_two_steps(tmp_path, level):
    rng = np.random.default_rng(7)
    found = []
    for k in range(10):
        image = 16 * np.floor(rng.normal(level, 50, (300, 400)) / 16)
        found.append(inspection.inspect(write(tmp_path / f"{k}.fits", image.astype(np.uint16)))["looks_cfa"])
    assert not any(found)


def test_inspect__gives_a_reason_and_no_exception(tmp_path):
    (tmp_path / "a.fits").write_bytes(b"junk")
    facts = inspection.inspect(tmp_path / "a.fits")
    assert facts["error"]["reason"] == "not_fits" and facts["sha256"]


def test_inspect__the_same_pixels_show_under_other_headers_and_other_noise_does_not(tmp_path):
    rng = np.random.default_rng(8)
    scene = rng.normal(900, 10, (60, 80))
    first, second = ((scene + rng.normal(0, 30, scene.shape)).astype(np.uint16) for _ in range(2))
    one = inspection.inspect(write(tmp_path / "a.fits", first, OBSERVER="x"))
    same = inspection.inspect(write(tmp_path / "b.fits", first, OBSERVER="y"))
    other = inspection.inspect(write(tmp_path / "c.fits", second, OBSERVER="x"))
    assert one["pixel_sha256"] == same["pixel_sha256"] != other["pixel_sha256"]
    assert one["sha256"] != same["sha256"]
