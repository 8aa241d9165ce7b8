"""Both reports of a finished run, and what a reader finds in Chromium."""

import base64
import csv
import re
import subprocess

import pytest

from browsing import browser, read_report, read_snakemakes, requests
from support import SMALL, events, record, stamps

NO_NETWORK = ["unshare", "--net", "--map-root-user"]


def test_report__is_there_at_the_end_of_a_plain_run(finished):
    text = (finished.run / "artifacts/report.html").read_text()
    assert "<b>Skipped:</b>" in text and "too few frames to group them" in text  # reduced mode
    for name in ("normalization", "registration", "tiles", "depth", "losses", "timeline"):
        assert f'id="figure-{name}"' in text
        assert (finished.run / f"artifacts/figures/{name}.svg").stat().st_size > 2000
    with open(finished.run / "artifacts/frames.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    measured = {f["file"]: f["fwhm_px"] for f in record(finished.run, "global_metrics")["frames"]}
    assert {row["file"]: float(row["fwhm_px"]) for row in rows} == pytest.approx(measured, rel=1e-6)
    assert (finished.run / "config.yaml").read_text().splitlines()[0] in text
    for light in record(finished.run, "scan_input")["files"]:
        assert light["sha256"] in text
    assert "reconstruct_batch" in text  # time and memory by rule
    done = [event for event in events(finished.run) if event.get("phase_name") == "DONE"]
    assert [event["type"] for event in done] == ["phase_start", "phase_progress", "phase_end"]


def test_report__target_makes_it_again_where_it_is_gone(copied):
    page = copied.run / "artifacts/report.html"
    before, products = page.read_text(), stamps(copied.run / "outputs")
    page.unlink()
    copied.snakemake("--config", SMALL, "--", "report")
    assert page.exists() and len(page.read_text()) > 0.9 * len(before)
    assert stamps(copied.run / "outputs") == products
    assert copied.settled()


def test_snakemakes_report__has_figures_tables_and_captions_without_any_network(finished):
    command = finished.command("--config", SMALL, "--report", "snakemake.html")
    isolated = subprocess.run([*NO_NETWORK, "true"], capture_output=True, check=False).returncode == 0
    done = subprocess.run([*(NO_NETWORK if isolated else []), *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = (finished.root / "snakemake.html").read_text()
    for label in ("Registration", "Depth against time", "Table of all frames", "Annotated", "Pictures"):
        assert label in text
    assert "The wide grey line" in text  # a caption
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']?http", text)
    page = base64.b64encode((finished.run / "artifacts/report.html").read_bytes()).decode()
    assert page[1000:1200] not in text and len(text) < 8e6  # the page stays beside it


@pytest.mark.browser
def test_report__in_a_browser(finished):
    verdict = record(finished.run, "stacking")
    with browser() as driver:
        found = read_report(driver, finished.run / "artifacts/report.html")
    assert found["headline"].startswith("The stack is")
    assert found["numbers"]["Frames used"] == "10 of 10" and found["numbers"]["Status"] == "ok"
    assert found["numbers"]["Exposure"] == "1 min 40 s"
    assert found["numbers"]["Stars, η_pt"] == f"{100 * verdict['eta_pt']:.2f} %"


@pytest.mark.browser
def test_report__fits_a_phone(finished):
    with browser(width=390, height=844) as driver:
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True},
        )
        driver.get((finished.run / "artifacts/report.html").as_uri())
        assert driver.execute_script("return document.documentElement.scrollWidth") == 390


@pytest.mark.browser
def test_snakemakes_report__in_a_browser(finished, tmp_path):
    page = tmp_path / "snakemake.html"
    finished.snakemake("--config", SMALL, "--report", str(page))
    with browser() as driver:
        read_snakemakes(driver, page)


@pytest.mark.browser
def test_browser__tells_of_requests_and_of_errors(tmp_path):
    """The watch itself: a page that asks for a picture and has a broken script."""
    (tmp_path / "page.html").write_text("<img src='http://127.0.0.1:9/picture.png'><script>nothing.there()</script>")
    with browser() as driver:
        driver.get((tmp_path / "page.html").as_uri())
        assert requests(driver) == ["http://127.0.0.1:9/picture.png"]
        assert any("nothing is not defined" in entry["message"] for entry in driver.get_log("browser"))
