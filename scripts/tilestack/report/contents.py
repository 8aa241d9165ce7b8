"""What the report reads of a run: records, timeline, benchmarks and configuration, each as far as it is there."""

import csv
import json
from pathlib import Path

from tilestack import records

RECORDS = (
    "scan_input registration channel_split normalization global_metrics tile_grid common_overlap local_metrics "
    "tile_reconstruction state_clustering synthetic_frames stacking debayer astrometry bge pcc validation run_status "
    "efficiency"
).split()


def read(folder):
    """Everything but pixels.

    Returns
    -------
    dict
        ``folder``, ``records`` (name -> record; a phase that left none is missing), ``events``, ``benchmarks`` (one a
        rule: ``rule``, ``jobs``, ``wall_s``, ``cpu_s``, ``memory_mb`` of the largest job), ``config`` (text).
    """
    folder = Path(folder)
    paths = {name: folder / f"artifacts/{name}.json" for name in RECORDS}
    found = {name: records.read(path) for name, path in paths.items() if path.exists()}
    # The measurement is made at the user's wish, and perhaps of an earlier stack.
    measured = found.get("efficiency")
    if measured and any(measured["formula"][key] != found["stacking"][key] for key in ("eta_sb", "eta_pt")):
        found["stale_efficiency"] = found.pop("efficiency")
    config = folder / "config.yaml"
    return {
        "folder": folder,
        "records": found,
        "events": events(folder / "logs/run_events.jsonl"),
        "benchmarks": benchmarks(folder / "benchmarks"),
        "config": config.read_text() if config.exists() else "",
    }


def events(path):
    """Lines of the timeline; those that a kill cut short are left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def benchmarks(folder):
    """Time and memory by rule, the most expensive first."""
    rules = {}
    for path in sorted(folder.rglob("*.tsv")):
        name = path.relative_to(folder).parts[0].removesuffix(".tsv")
        entry = rules.setdefault(name, {"rule": name, "jobs": 0, "wall_s": 0.0, "cpu_s": 0.0, "memory_mb": 0.0})
        with open(path) as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                entry["jobs"] += 1
                entry["wall_s"] += number(row.get("s"))
                entry["cpu_s"] += number(row.get("cpu_time"))
                entry["memory_mb"] = max(entry["memory_mb"], number(row.get("max_rss")))
    return sorted(rules.values(), key=lambda entry: -entry["cpu_s"])


def number(text):
    """A number of a benchmark file: jobs too short to be looked at have NA or -."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return 0.0
