import numpy as np
import pytest

from tilestack import files, prewarped, regression
from tilestack.kernels import spans


def batch(path, rng, scales, pattern, shape=(200, 260), noise=20.0):
    """Prewarped frames of one star field; and their entries."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    field = np.zeros(shape)
    for _ in range(25):
        at_y, at_x, flux = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), 10 ** rng.uniform(3, 4.3)
        field += flux / 14 * np.exp(-((y - at_y) ** 2 + (x - at_x) ** 2) / 4.5)
    entries = []
    with prewarped.Writer(path, {}) as writer:
        for k, scale in enumerate(scales):
            image = scale * field + 900 + 0.3 * x + rng.normal(0, noise, shape)
            codes = np.round((image - 900) / 2).astype(np.int16)
            writer.frame("FRAME", [spans.pack(codes)], {"SCALE": 2.0, "ZERO": 900.0})
            n_channels = 1 if pattern is None else 3
            entries.append(
                {
                    "file": f"f{k}",
                    "extension": k + 1,
                    "box": (0, 0, *shape),
                    "zero": 900.0,
                    "scale": 2.0,
                    "pixel_noise": np.full((n_channels, 2, 2), noise).tolist(),
                }
            )
    return entries


@pytest.mark.parametrize("pattern", [None, "GRBG"])
@pytest.mark.parametrize("n_known", [1, 12])
def test_scales__follow_the_structure_and_know_their_error(tmp_path, pattern, n_known):
    pulls, sizes = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        true = np.r_[rng.uniform(0.7, 1.2, n_known), 0.4, 0.1, 0.03]
        true[0] = 1.0
        entries = batch(tmp_path / f"{seed}.fits", rng, true, pattern)
        known = np.where(np.arange(len(true)) < n_known, np.log(true), np.nan)
        log_scale = np.repeat(known[:, None], 1 if pattern is None else 3, axis=1)
        wanted = list(range(n_known, len(true)))
        names = [entry["file"] for entry in entries]
        found, error = regression.scales([(tmp_path / f"{seed}.fits", entries)], names, log_scale, wanted, [], pattern)
        own = np.sqrt(error**2 - (regression.SEEING_ERROR * found) ** 2)
        pulls.append((found - true[wanted]) / own)
        sizes.append(own / true[wanted])
    assert np.mean(pulls) == pytest.approx(0, abs=0.7) and np.sqrt(np.mean(np.square(pulls))) < 1.5
    assert np.max(sizes) < 0.3  # the weakest frame is measured, not guessed


def test_scales__a_frame_of_noise_counts_next_to_nothing(tmp_path):
    rng = np.random.default_rng(3)
    entries = batch(tmp_path / "a.fits", rng, [1, 1, 1, 0], None)
    log_scale = np.array([[0.0], [0.0], [0.0], [np.nan]])
    found, _ = regression.scales([(tmp_path / "a.fits", entries)], ["f0", "f1", "f2", "f3"], log_scale, [3], [], None)
    assert 0 < found[0] < 0.03


def test_scales__of_a_field_without_structure_are_unknown(tmp_path):
    entries = batch(tmp_path / "a.fits", np.random.default_rng(4), [0, 0, 0], None)
    log_scale = np.array([[0.0], [0.0], [np.nan]])
    found, _ = regression.scales([(tmp_path / "a.fits", entries)], ["f0", "f1", "f2"], log_scale, [2], [], None)
    assert np.isnan(found[0])


@pytest.mark.parametrize("pattern", [None, "GRBG"])
def test_scales__of_a_later_session_are_those_against_the_template(tmp_path, pattern):
    true, pulls = np.array([0.4, 0.1, 0.03]), []
    for seed in range(8):
        entries = batch(tmp_path / "l.fits", np.random.default_rng(seed), [1.0], pattern, noise=5.0)
        codes = prewarped.Frames([(tmp_path / "l.fits", entries)]).rows(0, entries[0]["box"])
        image = 900 + 2 * codes.astype(np.float32)
        with files.Writer(tmp_path / "layer.fits", {}) as writer:
            for name, plane in (
                ("IMAGE", image),
                ("VARIANCE", 0 * image + 25),
                ("COUNT", np.full(image.shape, 9, "i2")),
            ):
                writer.append(name, plane[None], {"LATTY0": 0, "LATTX0": 0, "FWHM": 2.4})
        entries = batch(tmp_path / "a.fits", np.random.default_rng(seed), true, pattern)
        unknown = np.full((3, 1 if pattern is None else 3), np.nan)
        names, images = [entry["file"] for entry in entries], [(tmp_path / "a.fits", entries)]
        found, error = regression.scales(images, names, unknown, [0, 1, 2], [tmp_path / "layer.fits"], pattern)
        pulls.append((found - true) / error)
    assert np.mean(pulls) == pytest.approx(0, abs=0.7) and np.sqrt(np.mean(np.square(pulls))) < 1.5
