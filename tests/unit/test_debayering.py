"""Which product the colours come from."""

import pytest

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
