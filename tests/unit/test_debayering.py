"""Which product the colours come from."""

import os

import numpy as np
import pytest
from astropy.io import fits

from tilestack import debayering


def drizzled(worst, scale=1):
    return {"filled_share": [worst, 0.0, worst / 2], "scale": scale}


@pytest.mark.parametrize(
    ("method", "pattern", "record", "expected"),
    [
        ("auto", "GRBG", drizzled(0.04), "drizzle"),
        ("auto", "GRBG", drizzled(0.26), "malvar"),
        ("auto", "GRBG", drizzled(0.26, scale=2), "drizzle"),
        ("drizzle", "GRBG", drizzled(0.75), "drizzle"),
        ("bilinear", "GRBG", drizzled(0.0), "bilinear"),
        ("auto", None, None, "none"),
        ("auto", None, drizzled(0.0), "drizzle"),
    ],
)
def test_chosen__follows_the_choice_and_the_share_of_empty_pixels(method, pattern, record, expected):
    chosen, why = debayering.chosen(method, pattern, record)
    assert chosen == expected and why


@pytest.mark.parametrize("links", [True, False])
def test_passed_on__gives_the_products_of_a_mono_stack_their_other_names(links, tmp_path, monkeypatch):
    def without_links(path, to):
        raise PermissionError(1, "Operation not permitted", path)

    if not links:
        monkeypatch.setattr(os, "link", without_links)
    names = ("preview", "image", "even", "odd", "plain_mean", "preview_full")
    paths, out = ({name: tmp_path / f"{name}{end}" for name in names} for end in ("", "_rgb"))
    fits.PrimaryHDU(np.arange(6, dtype=np.float32).reshape(2, 3)).writeto(tmp_path / "image")
    for name in names:
        if name != "image":
            paths[name].write_bytes(name.encode())
        os.utime(paths[name], (1, 1))
    newest_input = tmp_path / "stacking.json"
    newest_input.touch()
    image = debayering.passed_on(paths, out)
    assert image.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert all(out[name].read_bytes() == paths[name].read_bytes() for name in names)
    assert all(os.path.samefile(out[name], paths[name]) == links for name in names)
    oldest = min(out[name].stat().st_mtime for name in names)
    assert oldest >= max(path.stat().st_mtime for path in (*paths.values(), newest_input))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*(p.name for p in (*paths.values(), *out.values())), "stacking.json"]
    )
