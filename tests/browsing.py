"""A report in headless Chromium: what a reader does with it, and that it asks nothing of the network."""

import contextlib
import json
import shutil
import tempfile

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SWITCHES = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --force-prefers-reduced-motion"
).split()


@contextlib.contextmanager
def browser(width=1280, height=900):
    """A new Chromium with an empty profile, its console and its requests recorded."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in SWITCHES:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        options.add_argument(f"--user-data-dir={profile}")
        options.add_argument(f"--window-size={width},{height}")
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        try:
            yield driver
        finally:
            driver.quit()


def requests(driver):
    """Addresses that pages from files asked for since the last call, but for files and what is in the page itself."""
    told = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [m["params"] for m in told if m["method"] == "Network.requestWillBeSent"]
    asked = [entry["request"]["url"] for entry in sent if entry["documentURL"].startswith("file:")]
    assert asked, "the browser recorded no request, not even that for the page"
    return [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]


def shown(driver, css):
    return [element for element in driver.find_elements("css selector", css) if element.is_displayed()]


def read_report(driver, path):
    """Open a report, read its verdict, click through A/B, sort and filter the table.

    Returns
    -------
    dict
        ``headline`` and ``numbers`` (title -> text) as the reader sees them.
    """
    driver.get(path.as_uri())
    numbers = {
        box.find_element("css selector", "dt").text: box.find_element("css selector", "dd").text
        for box in driver.find_elements("css selector", ".number")
    }
    found = {"headline": driver.find_element("css selector", ".headline h2").text, "numbers": numbers}
    compare(driver)
    sort_and_filter(driver)
    assert driver.get_log("browser") == []
    assert requests(driver) == []
    return found


def read_snakemakes(driver, path):
    """Open Snakemake's report, and find figures of frames and pictures where it lists them."""
    driver.implicitly_wait(10)
    for category, label in (("Frames", "Star metrics"), ("Frames", "Table of all frames"), ("Pictures", "Annotated")):
        driver.get(path.as_uri())
        driver.find_element("xpath", f"//*[text()='{category}']").click()
        assert driver.find_element("xpath", f"//*[contains(text(), '{label}')]").is_displayed()
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert requests(driver) == []


def compare(driver):
    """Each choice shows its own layer of the current view, loaded."""
    layers = {"mean": ["A: plain mean"], "stack": ["B: tile stack"], "slider": ["A: plain mean", "B: tile stack"]}
    for mode, names in layers.items():
        driver.find_element("css selector", f"#ab button[data-mode={mode}]").click()
        assert [entry.text for entry in shown(driver, "#ab .layer figcaption")] == names
    cut = "return getComputedStyle(document.querySelector('#ab .view.current .stack')).clipPath"
    middle = driver.execute_script(cut)
    moved = "const s = document.querySelector('.slide'); s.value = 20; s.dispatchEvent(new Event('input'))"
    driver.execute_script(moved)
    assert "20%" in driver.execute_script(cut) and "50%" in middle
    driver.find_element("css selector", "#ab button[data-mode=blink]").click()
    seen = driver.execute_async_script(
        "const [done] = arguments, box = document.getElementById('ab'), seen = new Set();"
        "const t = setInterval(() => seen.add(box.dataset.show), 50);"
        "setTimeout(() => { clearInterval(t); done([...seen].sort()); }, 1700);"
    )
    assert seen == ["mean", "stack"]
    driver.find_element("css selector", "#ab button[data-mode=sigma]").click()
    driver.find_element("css selector", "#ab button[data-view='1']").click()
    assert len(shown(driver, "#ab .layer.sigma")) == 1
    assert driver.execute_script("return [...document.images].every((i) => i.complete && i.naturalWidth > 0)")


def column(driver, number):
    script = "return [...document.querySelectorAll('#frame-table tbody tr')].filter((r) => !r.hidden)"
    return driver.execute_script(f"{script}.map((r) => r.cells[arguments[0]].textContent)", number)


def sort_and_filter(driver):
    """FWHM rises after one click and falls after two; the filter keeps the rows it finds."""

    def widths():
        return [float(text.strip(" ▲▼")) for text in column(driver, 3) if "–" not in text]

    head = driver.find_element("css selector", "#frame-table thead th:nth-child(4) button")
    before, n_rows = widths(), len(column(driver, 1))  # lights that were left out have no width
    for falls in (False, True):
        driver.execute_script("arguments[0].click()", head)
        assert widths() == sorted(before, reverse=falls)
    name = column(driver, 1)[0]
    box = driver.find_element("css selector", "#filter")
    box.send_keys(name)
    assert column(driver, 1) == [name]
    assert driver.find_element("css selector", "#count").text == f"1 of {n_rows}"
