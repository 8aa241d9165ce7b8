import copy

import pytest

from tilestack import selection
from tilestack.job import Stop

SCAN = {
    "exclude": [],
    "colour_mode": "auto",
    "bayer_pattern": "auto",
    "exposure_s": None,
    "filter": None,
    "gain_e_adu": None,
    "saturation_adu": None,
    "nan_share_max": 0.5,
}
ASSUMPTIONS = {"frames_min": 3, "frames_reduced_threshold": 6, "allow_emergency_mode": False}


def light(k, **changes):
    facts = {
        "name": f"light_{k:02d}.fits",
        "error": None,
        "shape": [100, 200],
        "bitpix": 16,
        "bzero": 32768,
        "bayer_pattern": "GRBG",
        "looks_cfa": True,
        "camera": "A",
        "exposure_s": 10.0,
        "filter": "IRCUT",
        "gain_e_adu": None,
        "saturate_adu": None,
        "image_type": "Light",
        "n_stacked": 1,
        "nan_share": 0.0,
        "zero_share": 0.0,
        "highest_adu": 20000.0 + k,
        "n_highest": 1,
        "noise_adu": 80.0,
        "n_peaks": 40,
        "reach": 300.0,
        "pixel_sha256": f"pixels {k}",
        "level_adu": 900.0,
        "bad_cards": [],
    }
    return facts | changes


def decide(*sessions, **scan):
    return selection.decide([(f"s{k}", facts) for k, facts in enumerate(sessions)], SCAN | scan, 5.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"error": {"reason": "truncated", "message": "cut off"}}, "truncated"),
        ({"shape": [100, 201]}, "wrong_size"),
        ({"bayer_pattern": "RGGB"}, "wrong_bayer_pattern"),
        ({"camera": "B"}, "other_camera"),
        ({"nan_share": 0.6}, "nan_share"),
        ({"highest_adu": 0.0, "n_highest": 20000}, "all_zero"),
        ({"n_highest": 15000}, "all_saturated"),
        ({"pixel_sha256": "pixels 0"}, "duplicate"),
        ({"n_stacked": 12}, "stacked_product"),
        ({"bitpix": -32, "noise_adu": 20.0}, "stacked_product"),
        ({"image_type": "Dark Frame"}, "not_a_light"),
        ({"noise_adu": 30.0, "n_peaks": 1}, "odd_exposure"),
        ({"noise_adu": 30.0, "n_peaks": 1, "exposure_s": None}, "odd_exposure"),
        ({"bayer_pattern": "XTRANS"}, "unknown_bayer_pattern"),
        ({"noise_adu": 0.0}, "no_noise"),
    ],
)
def test_decide__gives_a_reason_code_and_keeps_the_rest(changes, reason):
    facts = [light(k) for k in range(5)] + [light(5, **changes)]
    files = decide(facts)["s0"]["files"]
    assert [file["reason"] for file in files] == [None] * 5 + [reason]
    assert files[5]["status"] == "excluded" and files[5]["message"]


@pytest.mark.parametrize(
    "changes",
    [
        {"n_peaks": 0},  # a cloud: as noisy as the others
        {"noise_adu": 30.0},  # a short exposure, but of the same stars
        {"exposure_s": 30.0},
        {"exposure_s": 1.0, "noise_adu": 30.0, "n_peaks": 1},  # as its header says
        {"bayer_pattern": None},
        {"camera": None},
        {"bitpix": -32},
    ],
)
def test_decide__throws_no_light_away_for_its_quality(changes):
    assert decide([light(k) for k in range(5)] + [light(5, **changes)])["s0"]["files"][5]["reason"] is None


def test_decide__odd_light_in_a_session_of_its_own_is_judged_by_the_earlier_ones():
    first, odd = [light(k) for k in range(8)], [light(9, noise_adu=30.0, n_peaks=1)]
    assert decide(first, odd)["s1"]["files"][0]["reason"] == "odd_exposure"


def test_decide__later_sessions_change_nothing():
    first, second = [light(k) for k in range(4)], [light(k, noise_adu=300.0, camera="B") for k in range(4)]
    alone, both = decide(copy.deepcopy(first)), decide(first, second)
    assert alone["s0"] == both["s0"]
    assert [file["reason"] for file in both["s1"]["files"]] == ["duplicate"] * 4


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"reach": 40.0}, "nonlinear"),
        ({"exposure_s": None}, "no_exposure"),
        ({"exposure_s": 10.6}, "other_exposure"),
        ({"nan_share": 0.01}, "nan_pixels"),
        ({"zero_share": 0.02}, "zero_pixels"),
        ({"bad_cards": ["GAIN"]}, "bad_card"),
    ],
)
def test_decide__warns(changes, warning):
    file = decide([light(k) for k in range(3)] + [light(3, **changes)])["s0"]["files"][3]
    assert (file["status"], file["warnings"]) == ("warning", [warning])


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, 0.98 * 65535),
        ({"bzero": 0}, 0.98 * 32767),
        ({"bitpix": -32}, None),
        ({"highest_adu": 16383.0, "n_highest": 30}, 0.98 * 16383),
        ({"saturate_adu": 50000.0}, 50000.0),
    ],
)
def test_decide__finds_the_level_of_saturation(changes, level):
    assert decide([light(k, **changes) for k in range(4)])["s0"]["saturation_adu"] == level


def test_decide__configuration_stands_for_headers_that_say_nothing():
    bare = [light(k, exposure_s=None, filter=None, bayer_pattern=None, looks_cfa=False) for k in range(4)]
    result = decide(bare, exposure_s=15.0, filter="Ha", bayer_pattern="RGGB", gain_e_adu=0.5, saturation_adu=4000.0)
    assert (result["s0"]["colour_mode"], result["s0"]["bayer_pattern"]) == ("osc", "RGGB")
    file = result["s0"]["files"][0]
    assert (file["exposure_s"], file["filter"], file["gain_e_adu"]) == (15.0, "Ha", 0.5)
    assert result["s0"]["saturation_adu"] == 4000.0
    assert decide(bare)["s0"]["colour_mode"] == "mono"


def test_decide__an_asked_mode_stands_over_headers():
    result = decide([light(k) for k in range(4)], colour_mode="mono")["s0"]
    assert (result["colour_mode"], result["bayer_pattern"], result["kinds"]) == ("mono", None, {"mono": 4})
    assert [file["reason"] for file in result["files"]] == [None] * 4
    odd = [light(k, bayer_pattern="XTRANS") for k in range(4)]
    assert decide(odd, bayer_pattern="RGGB")["s0"]["bayer_pattern"] == "RGGB"
    assert {file["reason"] for file in decide(odd)["s0"]["files"]} == {"unknown_bayer_pattern"}


def test_decide__what_is_left_out_has_no_say():
    product = light(9, bayer_pattern="GRBG", n_stacked=30)
    result = decide([light(k, bayer_pattern=None, looks_cfa=False) for k in range(4)] + [product])["s0"]
    assert (result["colour_mode"], result["kinds"]) == ("mono", {"mono": 4})


def test_decide__a_session_without_usable_lights_is_like_the_first():
    junk = light(9, error={"reason": "not_fits", "message": "junk"})
    decided = decide([light(k) for k in range(4)], [junk])
    assert (decided["s1"]["colour_mode"], decided["s1"]["bayer_pattern"]) == ("osc", "GRBG")
    assert selection.check(decided, ASSUMPTIONS) == "reduced"


def test_decide__leaves_out_what_the_user_names():
    files = decide([light(k) for k in range(4)], exclude=["light_0[13].fits"])["s0"]["files"]
    assert [file["reason"] for file in files] == [None, "excluded_by_user", None, "excluded_by_user"]


@pytest.mark.parametrize(
    ("sessions", "reason"),
    [
        ([[light(k) for k in range(2)]], "insufficient_frames"),
        ([[light(0, error={"reason": "not_fits", "message": "junk"})]], "insufficient_frames"),
        (
            [[light(k) for k in range(4)], [light(k + 9, bayer_pattern=None, looks_cfa=False) for k in range(4)]],
            "mixed_colour_modes",
        ),
        ([[light(k) for k in range(4)] + [light(9, bayer_pattern=None, looks_cfa=False)]], "mixed_colour_modes"),
        ([[light(k, bayer_pattern=None, looks_cfa=False) for k in range(4)] + [light(9)]], "mixed_colour_modes"),
        ([[light(k, filter="Ha" if k % 2 else "OIII") for k in range(4)]], "mixed_filters"),
        ([[light(k) for k in range(4)], [light(k + 9, filter="Ha") for k in range(4)]], "mixed_filters"),
        ([[light(k, bayer_pattern=None) for k in range(4)]], "no_bayer_pattern"),
    ],
)
def test_check__stops(sessions, reason):
    with pytest.raises(Stop) as stop:
        selection.check(decide(*sessions), ASSUMPTIONS)
    assert stop.value.reason == reason and len(stop.value.message) > 40


@pytest.mark.parametrize(
    ("n", "changes", "mode"),
    [(2, {"allow_emergency_mode": True}, "emergency"), (3, {}, "reduced"), (5, {}, "reduced"), (6, {}, "full")],
)
def test_check__tells_the_mode(n, changes, mode):
    assert selection.check(decide([light(k) for k in range(n)]), ASSUMPTIONS | changes) == mode


@pytest.mark.parametrize(
    ("lights", "options", "written_mb"),
    [
        ((60, 4000, 6000), {}, 6848),
        ((60, 1080, 1920), {"drizzled": 3}, 1484),
        ((200, 1080, 1920), {"drizzled": 3, "split_sessions": 1, "canvas_share": 2.3}, 3351),
    ],
)
def test_disk_need__is_above_what_runs_wrote_and_not_twice_as_much(lights, options, written_mb):
    """Whole runs to DONE, measured (docs/benchmarks.md)."""
    assert written_mb < selection.disk_need_bytes([lights], **options) / 1e6 < 2 * written_mb


def test_disk_need__grows_with_frames_and_batches():
    one = selection.disk_need_bytes([(50, 1080, 1920)])
    assert 50 * 2 * 1080 * 1920 < one < selection.disk_need_bytes([(50, 1080, 1920)] * 2)
    needs = [
        selection.disk_need_bytes([(50, 1080, 1920)], *more)
        for more in ((1, 0), (3, 0), (12, 0), (12, 1), (12, 2), (12, 2, True), (12, 2, True, True))
    ]
    assert [one, *needs] == sorted({one, *needs})
