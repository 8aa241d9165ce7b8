"""The report: what it says is what the records hold, nothing from outside runs, and it stays small."""

import ast
import csv
import html.parser
import re

import numpy as np
import pytest
from scipy import stats

import made_run
from support import ROOT
from tilestack.report import contents, depth, drawing, figures, frametable, gallery, page, pictures, verdict, words


def built(folder, *, drawn=False):
    """Page, rows, and what the verdict says; without its figures, which take most of the time."""
    run = contents.read(folder)
    rows = frametable.build(run["records"])
    shown = pictures.gather(run)
    text = page.render(run, rows, shown, gallery.draw(run, rows, shown) if drawn else {})
    return text, rows, verdict.judge(run["records"], rows)


@pytest.fixture
def run(tmp_path):
    made_run.make(tmp_path / "made")
    return tmp_path / "made"


class Reader(html.parser.HTMLParser):
    """Elements, their attributes, and the text of scripts and of the rest."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.within = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.within.append(tag)

    def handle_endtag(self, tag):
        if self.within and self.within[-1] == tag:
            self.within.pop()

    def handle_data(self, data):
        if not self.within:
            self.text.append(data)


HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(2)>\"'{{ 7 * 7 }}"


def test_report__text_from_outside_is_shown_and_never_run(tmp_path):
    folder = tmp_path / "made"
    made_run.make(folder, light={key: HOSTILE for key in ("object", "camera", "filter", "message")})

    def rename(key, entries):
        def edit(record):
            for entry in record[entries]:
                if entry[key] == "light_00002.fits":
                    entry[key] = f"2{HOSTILE}.fits"

        return edit

    for name in ("registration", "global_metrics", "normalization", "tile_reconstruction"):
        made_run.change(folder, name, rename("file", "frames"))
    made_run.change(folder, "scan_input", rename("name", "files"))
    made_run.change(folder, "scan_input", lambda record: record["sessions"][0].update(folder=HOSTILE))
    made_run.change(folder, "registration", lambda record: record.update(reference=HOSTILE))
    (folder / "config.yaml").write_text(f"input: ['{HOSTILE}']\n")
    text, _, _ = built(folder, drawn=True)
    page_read = Reader(text)
    assert [tag for tag, _ in page_read.elements].count("script") == 1
    assert not [a for _, attrs in page_read.elements for a in attrs if a.startswith("on")]
    assert all(attrs["src"].startswith("data:") for _, attrs in page_read.elements if "src" in attrs)
    assert "".join(page_read.text).count(HOSTILE) >= 8


def test_report__only_its_own_script_may_run_and_nothing_is_fetched(run):
    text, _, _ = built(run, drawn=True)
    read = Reader(text)
    policy = next(attrs["content"] for tag, attrs in read.elements if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'") and "script-src 'sha256-" in policy and "http" not in policy
    for tag, attrs in read.elements:
        for key in ("src", "href", "xlink:href"):
            assert attrs.get(key, "#").startswith(("#", "data:")), (tag, attrs)
    assert not re.search(r"@import|url\((?!#)", text)


def test_table__holds_what_the_records_hold(run):
    read = contents.read(run)["records"]
    rows = frametable.build(read)
    assert [row["file"] for row in rows] == [f["name"] for f in read["scan_input"]["files"]]
    for row, measured, placed in zip(
        rows, read["global_metrics"]["frames"], read["registration"]["frames"], strict=True
    ):
        assert row["fwhm_px"] == measured["fwhm_px"] and row["rotation_deg"] == placed["rotation_deg"]
        assert row["sky_adu"] == pytest.approx(np.mean(measured["sky_adu"]))
        assert row["shift_px"] == pytest.approx(np.hypot(*placed["shift_px"]))
    assert np.mean([row["weight"] for row in rows]) == pytest.approx(1)
    assert "reference" in rows[0]["flags"] and rows[0]["residual_px"] is None


def test_table__marks_what_stands_out_and_not_a_steady_turn(run):
    def spoil(record):
        record["frames"][4]["fwhm_px"] = 9.0

    made_run.change(run, "global_metrics", spoil)
    rows = frametable.build(contents.read(run)["records"])
    widths = np.array([row["fwhm_px"] for row in rows])
    z = (widths - np.median(widths)) / stats.median_abs_deviation(widths, scale="normal")
    assert z[4] > 10
    for row, expected in zip(rows, z, strict=True):
        marked = row["outliers"].get("fwhm_px")
        assert (marked is not None) == (abs(expected) > 3.5)
        assert marked is None or marked == pytest.approx(expected, abs=0.06)
    assert not any("rotation_deg" in row["outliers"] for row in rows)  # 0.01 degrees a frame


def test_table__says_why_a_light_is_missing(run):
    def leave_out(record):
        record["files"][3] |= {"status": "excluded", "reason": "odd_exposure", "message": "3 stars, others show 60"}
        record["reasons"] = {"odd_exposure": 1}

    def drop(record):
        del record["frames"][3]

    made_run.change(run, "scan_input", leave_out)
    for name in ("registration", "global_metrics", "normalization", "tile_reconstruction"):
        made_run.change(run, name, drop)
    text, rows, judged = built(run)
    assert (judged["used"], judged["found"]) == (11, 12) and rows[3]["status"] == "excluded"
    assert rows[3]["fwhm_px"] is None and "3 stars, others show 60" in text
    assert "11 <span" in text and words.CODES["odd_exposure"][0] in text
    # Exposure by exposure: one of twelve lights is a twelfth of the light.
    assert depth.waterfall(contents.read(run)["records"], rows)[0][1] == pytest.approx(1 / 12)


def test_table__csv_is_the_table_and_no_formula(tmp_path):
    made_run.make(tmp_path / "made", light={"message": "=HYPERLINK(1)"})
    rows = frametable.build(contents.read(tmp_path / "made")["records"])
    frametable.write_csv(tmp_path / "frames.csv", rows)
    with open(tmp_path / "frames.csv", newline="") as stream:
        read = list(csv.DictReader(stream))
    assert len(read) == len(rows) and read[0]["reason"] == "'=HYPERLINK(1)"
    for got, row in zip(read, rows, strict=True):
        assert got["file"] == row["file"] and float(got["fwhm_px"]) == pytest.approx(row["fwhm_px"], rel=1e-6)


def test_verdict__of_a_clean_run(run):
    _, _, judged = built(run)
    assert judged["level"] == "good" and "every check passed" in judged["headline"] and judged["warnings"] == []
    assert judged["live_s"] == 120 and judged["effective_s"] == pytest.approx(0.98 * 120)
    assert {judged[key]["kind"] for key in ("eta_pt", "eta_sb")} == {"formula"}


def test_verdict__failed_check_comes_first_with_its_advice(run):
    def fail(record):
        record["checks"][1] |= {"value": 2.0, "ok": False, "advice": "Raise tile.size_factor."}
        record |= {"status": "validation_failed", "reason": "tile_lattice", "warnings": {"tile_lattice": 1}}

    made_run.change(run, "validation", fail)
    made_run.change(run, "run_status", lambda record: record.update(status="validation_failed"))
    made_run.change(run, "scan_input", lambda record: record.update(warnings={"nonlinear": 2}))
    text, _, judged = built(run)
    assert judged["level"] == "bad" and "a check failed" in judged["headline"]
    first, second = judged["warnings"]
    assert (
        first["level"] == "failure" and first["advice"] == "Raise tile.size_factor." and "at most 1" in first["meaning"]
    )
    assert second["meaning"].startswith("2 lights") and second["advice"] == words.CODES["nonlinear"][1]
    assert "<code>validation_failed</code>" in text


SKIPPED = {
    **made_run.head(14, "ASTROMETRY"),
    "status": "skipped",
    "reason": "no_solution",
    "n_matches": 0,
    "tries": [],
    **dict.fromkeys("solver catalogue matched_share rms_arcsec median_arcsec max_arcsec scale_arcsec".split()),
    **dict.fromkeys("lattice_scale_arcsec rotation_deg parity ra_deg dec_deg field_deg sip_order".split()),
}


def test_verdict__tells_of_a_field_that_was_not_recognised_but_not_of_a_switch(run):
    made_run.write(run, "astrometry", SKIPPED)
    text, _, judged = built(run)
    assert judged["level"] == "fair" and "1 thing to know" in judged["headline"]
    assert (
        "sky coordinates" in judged["warnings"][0]["meaning"] and "astrometry.hint" in judged["warnings"][0]["advice"]
    )
    made_run.write(run, "astrometry", SKIPPED | {"reason": "switched_off"})
    text, _, judged = built(run)
    assert judged["level"] == "good" and words.CODES["switched_off"][0] in text


MEASURED = {
    "kind": "measured",
    "channels": [
        {
            "channel": channel,
            "eta_pt": eta,
            "eta_pt_error": 0.01,
            "n_stars": 50,
            "eta_bright": 0.9,
            "eta_bright_error": 0.01,
            "n_bright": 20,
            "eta_sb": 0.9,
            "eta_sb_error": 0.02,
            "n_patches": 20,
            "split_chi2": 1.0,
            "split_chi2_error": 0.01,
            "blank_share": 0.8,
        }
        for channel, eta in (("R", 0.5), ("G", 0.91), ("B", 0.6))
    ],
    "formula": {"eta_pt": 0.97, "eta_sb": 0.98},
}


def test_verdict__takes_measured_efficiencies_of_this_stack_only(run):
    made_run.write(run, "efficiency", MEASURED)
    text, _, judged = built(run)
    assert judged["eta_pt"] == {"value": 0.91, "error": 0.01, "kind": "measured"}
    assert judged["effective_s"] == pytest.approx(0.9 * 120) and ">measured</span>" in text
    made_run.write(run, "efficiency", MEASURED | {"formula": {"eta_pt": 0.9, "eta_sb": 0.98}})
    text, _, judged = built(run)
    assert judged["eta_pt"]["kind"] == "formula" and "earlier stack" in text


SECTIONS = (
    "verdict compare light maps frames normalization global-metrics star-metrics registration tiles reconstruction "
    "clusters astrometry bge pcc validation timeline cost provenance config"
).split()


def test_skipped_phases__have_their_reason_and_no_plot(run):
    text, _, _ = built(run, drawn=True)
    assert [name for name in SECTIONS if f'id="{name}"' not in text] == []
    assert text.count("<b>Skipped:</b>") == 4  # clusters; astrometry, background and colours left no record
    assert words.CODES["reduced_mode"][0] in text and text.count(words.CODES["no_record"][0]) == 3
    assert 'id="figure-clusters"' not in text and 'id="figure-depth"' in text


def reasons_of_the_sky():
    """Reason codes of phases 14 to 16: texts of one word that are set as a reason or returned by a guard."""
    for path in ("astrometry.py", "bge.py", "pcc.py", "tilestack/background.py", "tilestack/calibration.py"):
        text = (ROOT / "scripts" / path).read_text()
        yield from re.findall(r"""(?:"reason": |reason = .*?|else )"([a-z]+(?:_[a-z]+)*)\"""", text)
        yield from re.findall(r"""return "([a-z]+_[a-z_]+)\"""", text)


def test_words__know_every_reason_of_the_sky():
    found = set(reasons_of_the_sky())
    wanted = {
        "no_solution",
        "switched_off",
        "too_few_samples",
        "too_few_stars",
        "guard_object",
        "no_sky_coordinates",
        "mono",
    }
    assert wanted <= found and not {code for code in found if "_" in code} - words.CODES.keys()


def test_events__a_line_cut_short_is_passed_over(tmp_path):
    path = tmp_path / "run_events.jsonl"
    path.write_text('{"type": "run_start"}\n{"type": "phase_st\n{"type": "run_end", "status": "aborted"}\n{"type": "ru')
    assert [entry["type"] for entry in contents.events(path)] == ["run_start", "run_end"]


def codes_of_the_source():
    """Reason and warning codes where the scan sets them: texts alone in a list or first in a pair that is returned."""
    for name in ("selection", "lights"):
        for node in ast.walk(ast.parse((ROOT / f"scripts/tilestack/{name}.py").read_text())):
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                node = node.value.elts[0]
            elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in (
                "BadLight",
                "append",
            ):
                node = node.args[0]
            else:
                continue
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_words__know_every_code_of_the_scan():
    found = set(codes_of_the_source())
    assert {"duplicate", "nonlinear", "truncated"} <= found and len(found) > 18
    assert not found - words.CODES.keys()


def test_depth__equal_frames_grow_as_the_root_of_time_and_no_weight_beats_the_ceiling(run):
    frames = contents.read(run)["records"]["global_metrics"]["frames"]
    equal = depth.curves([frames[0]] * 25)
    for kind in ("extended", "stars"):
        for curve in equal[kind].values():
            np.testing.assert_allclose(curve, np.sqrt(np.arange(1, 26)), rtol=1e-9)
    mixed = depth.curves(frames)
    for kind in ("extended", "stars"):
        assert (mixed[kind]["stack"] <= mixed[kind]["ceiling"] * (1 + 1e-9)).all()
        assert (mixed[kind]["mean"] <= mixed[kind]["ceiling"] * (1 + 1e-9)).all()


def test_difference__is_in_sigma_of_the_colour_that_differs_most():
    stack, mean = np.zeros((3, 4, 4), np.float32), np.zeros((3, 4, 4), np.float32)
    variance = np.full((3, 4, 4), 4, np.float32)
    stack[1, 2, 3], stack[2, 2, 3], stack[0, 0, 0] = -10, 4, np.nan
    stack[1:, 0, 0] = np.nan
    sigma = pictures.largest_difference(stack, mean, variance)
    assert sigma[2, 3] == -5 and np.isnan(sigma[0, 0]) and sigma[1, 1] == 0
    assert pictures.extreme(sigma[None], 2)[1, 1] == -5


def test_detail__shows_the_galaxy_and_neither_noise_nor_a_star():
    y, x = np.indices((900, 1200))
    variance = np.where(x > 1000, 900.0, 4.0).astype(np.float32)  # a rim of few frames
    image = np.random.default_rng(3).normal(0, np.sqrt(variance)).astype(np.float32)
    image += 30 * np.exp(-((y - 600) ** 2 + (x - 400) ** 2) / 2 / 60**2)
    image[100:104, 100:104] += 30000
    image += 0.05 * x + 0.03 * y  # light pollution
    rows, columns = pictures.busiest(image, variance)
    assert rows.stop - rows.start == columns.stop - columns.start == pictures.DETAIL_PX
    assert rows.start + 100 < 600 < rows.stop - 100 and columns.start + 100 < 400 < columns.stop - 100


def test_figures__have_a_name_and_a_unit_on_every_axis(run):
    """Not the categories of bars, which name themselves."""
    read = contents.read(run)
    rows = frametable.build(read["records"])
    frames, shown = figures.Frames(read["records"], rows), pictures.gather(read)
    for make in (figures.normalization, figures.global_metrics, figures.star_metrics, figures.registration):
        for ax in make(read["records"], frames, shown).axes:
            assert ax.get_xlabel() and ax.get_ylabel(), (make.__name__, ax.get_title())
    for make in (figures.tiles, figures.reconstruction, figures.coverage):
        maps = make(read["records"], frames, shown).axes
        assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in maps] == [("x (px)", "y (px)")] * len(maps)
        assert all(ax.child_axes[0].get_ylabel() for ax in maps)


def test_figures__same_bits_twice_and_colours_of_the_page(run):
    read = contents.read(run)
    rows, shown = frametable.build(read["records"]), pictures.gather(read)
    one, two = gallery.draw(read, rows, shown), gallery.draw(read, rows, shown)
    assert one == two and set(gallery.ALWAYS) == set(one)
    for text in one.values():
        assert not re.search("|".join(marker for marker, _, _ in drawing.COLOURS.values()), drawing.inline(text, ""))


def test_captions__of_snakemakes_report_are_those_of_the_page():
    for name in gallery.ALWAYS:
        assert (ROOT / f"rules/captions/{name}.rst").read_text().strip() == gallery.CAPTIONS[name]


def test_report__of_1000_frames_of_noise_is_at_most_8_mb(tmp_path):
    made_run.make(tmp_path / "made", n_frames=1000, size=(2100, 2900))
    text, rows, _ = built(tmp_path / "made", drawn=True)
    assert len(rows) == 1000 and len(text.encode()) <= 8e6
