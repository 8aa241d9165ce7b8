"""The page: what was gathered, put into the templates. Everything from outside is escaped by jinja2."""

import base64
import hashlib
import importlib.metadata
import platform
import statistics
from pathlib import Path

import jinja2
from markupsafe import Markup

from tilestack import products
from tilestack.report import depth, drawing, frametable, gallery, pictures, sections, verdict, words
from tilestack.report.figures import culprits

TEMPLATES = Path(__file__).parent / "templates"
PACKAGES = "snakemake numpy scipy astropy numba sep scikit-learn matplotlib jinja2 seiza".split()
# Embedded as it is up to this size.
EMBEDDED_BYTES = 600_000


def render(run, rows, shown, drawn):
    """The report as HTML text.

    Parameters
    ----------
    run : dict
        Of ``contents.read``.
    rows : list of dict
        Of ``frametable.build``.
    shown : dict
        Of ``pictures.gather``.
    drawn : dict
        Of ``gallery.draw``.
    """
    read = run["records"]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plain": words.plain,
        "percent": words.percent,
        "duration": words.duration,
        "meaning": words.meaning,
        "fixed": words.fixed,
    }
    script = (TEMPLATES / "page.js").read_text()
    judged = verdict.judge(read, rows)
    return environment.get_template("page.html").render(
        # Only this script may run: a browser refuses any other, whatever a header or a file name holds.
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup((TEMPLATES / "page.css").read_text()),
        palette=palette(),
        figures={
            name: {"svg": Markup(drawing.inline(text, gallery.CAPTIONS[name])), "caption": gallery.CAPTIONS[name]}
            for name, text in drawn.items()
        },
        run_id=run["events"][0]["run_id"] if run["events"] else run["folder"].name,
        verdict=judged,
        read=read,
        shown=shown,
        night=night(read, rows),
        rows=rows,
        columns=frametable.COLUMNS,
        cell=frametable.text,
        left_out=frametable.reasons(rows),
        medians=medians(rows),
        steps=depth.waterfall(read, rows),
        causes=words.CAUSES,
        coverage_loss=next((s["share"] for s in read["stacking"]["waterfall"] if s["cause"] == "coverage"), None),
        culprits=culprits(read)[:10],
        numbers={(row["night"], row["file"]): n for n, row in enumerate(used(rows), start=1)},
        phase=lambda name: sections.phase(read, name),
        facts=sections,
        checks=words.CHECKS,
        starts=starts(run["events"]),
        benchmarks=run["benchmarks"],
        config=run["config"],
        versions=versions(),
        status_words=words.STATUS,
        extra=extra_pictures(run),
    )


def used(rows):
    return [row for row in rows if row["status"] == "used"]


def palette():
    """CSS variables of the figures' colours, light and dark."""
    light, dark = (";".join(f"--{name}:{item[k]}" for name, item in drawing.COLOURS.items()) for k in (1, 2))
    return Markup(f":root{{{light}}}@media (prefers-color-scheme:dark){{@media screen{{:root{{{dark}}}}}}}")


def night(read, rows):
    """What was looked at, when and with what."""
    files = [f for f in read["scan_input"]["files"] if f["status"] != "excluded"]

    def values(key):
        return list(dict.fromkeys(str(f[key]) for f in files if f.get(key)))

    times = sorted(row["time"] for row in rows if row["time"])
    exposures = list(dict.fromkeys(row["exposure_s"] for row in used(rows) if row["exposure_s"]))
    return {
        "object": values("object"),
        "camera": values("camera"),
        "telescope": values("telescope"),
        "filter": values("filter"),
        "first": times[0][:16].replace("T", " ") if times else None,
        "last": times[-1][:16].replace("T", " ") if times else None,
        "exposures": exposures[:3],
        "sessions": read["scan_input"]["sessions"],
        "nights": len({row["night"] for row in used(rows)}),
        "colour": "colour" if read["scan_input"]["colour_mode"] == "osc" else "mono",
        "mode": read["scan_input"]["mode"],
    }


def medians(rows):
    """Median of each column over the frames that were used."""
    found = {}
    for key in frametable.COLUMNS:
        known = [row[key] for row in used(rows) if row[key] is not None]
        found[key] = statistics.median(known) if known else None
    return found


def starts(events):
    """One entry for each time the run was started: begin, end, status and what it said."""
    found = []
    for event in events:
        if event["type"] == "run_start":
            jobs = sum(event.get("jobs", {}).values())
            found.append({"begin": event["ts"], "jobs": jobs, "status": "running", "message": None, "end": None})
        elif event["type"] == "run_end" and found:
            found[-1] |= {"end": event["ts"], "status": event["status"], "message": event.get("message")}
    if found and found[-1]["status"] == "running":
        found[-1]["status"] = "is making this report"
    return found


def versions():
    found = {"tilestack": products.VERSION, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # the solver is optional
            found[name] = "not installed"
    return found


def extra_pictures(run):
    """Pictures that phases made themselves, of phases that were done: name -> data URI."""
    found = {}
    for name, phase, path in (
        ("annotated", "astrometry", "outputs/previews/annotated.png"),
        ("bge", "bge", "artifacts/figures/bge.png"),
        ("pcc", "pcc", "artifacts/figures/pcc.png"),
    ):
        path = run["folder"] / path
        if run["records"].get(phase, {}).get("status") == "ok" and path.exists():
            if path.stat().st_size <= EMBEDDED_BYTES:
                found[name] = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
            else:
                found[name] = pictures.main_picture(path)
    return found
