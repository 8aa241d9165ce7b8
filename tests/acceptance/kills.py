"""Kills at random moments: the same command afterwards, nothing unlocked by hand, must end with the same bits.

kills.py --kills 20 --per-run 4 --seed 1 --work /tmp/kills

Each run is killed several times, at moments drawn over all its jobs, in four ways: kill -9 of snakemake with all its
jobs, of snakemake alone (its jobs go on), of one job, and SIGTERM to snakemake. Prints a line a kill and a line a run.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from astropy.io import fits

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests")]
from support import SMALL, Workdir, events  # noqa: E402

# What the timeline must say of a start that was killed in this way.
STATUS = {"all": "aborted", "snakemake": "aborted", "job": "error", "term": "error"}
WAYS = tuple(STATUS)


def digests(run):
    """Checksum of each product, by path. Of FITS the pixels and cards count, not the date in the checksum cards."""
    found = {}
    for path in sorted((run / "outputs").rglob("*")):
        if path.is_file():
            digest = hashlib.sha256()
            if path.suffix == ".fits":
                with fits.open(path) as hdus:
                    for hdu in hdus:
                        cards = [str(c) for c in hdu.header.cards if c.keyword not in ("CHECKSUM", "DATASUM")]
                        digest.update("\n".join(cards).encode())
                        digest.update(b"" if hdu.data is None else hdu.data.tobytes())
            else:
                digest.update(path.read_bytes())
            found[str(path.relative_to(run))] = digest.hexdigest()
    return found


def children(pid):
    """Processes that run a script for a snakemake, from the system's own table: they bear its name (job_server.py)."""
    found, scripts = [], {path.stem[:15] for path in (ROOT / "scripts").glob("*.py")}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, stat = (entry / "stat").read_text().partition("(")[2].rsplit(")", 1)
            except (FileNotFoundError, ProcessLookupError):
                continue
            found.append((int(entry.name), int(stat.split()[1]), name in scripts))
    below = {pid}
    for _ in range(4):
        below |= {child for child, parent, _ in found if parent in below}
    return [child for child, _, script in found if child in below and script]


def n_lines(work, *kinds):
    """Events of these kinds in the timeline so far."""
    try:
        lines = (work.root / "runs/demo/logs/run_events.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return sum(f'"type": "{kind}"' in line for line in lines for kind in kinds)


def n_ended(work):
    """Jobs that have ended in all starts."""
    return n_lines(work, "phase_progress", "phase_end")


def kill_once(work, args, way, wanted, delay_s):
    """Start, kill when so many jobs have ended in all; what was hit, or None where the run was faster."""
    n_starts = n_lines(work, "run_start")
    process = subprocess.Popen(
        work.command(*args), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while (n_lines(work, "run_start") == n_starts or n_ended(work) < wanted) and process.poll() is None:
        time.sleep(0.02)
    time.sleep(delay_s)
    hit = "snakemake"
    if way == "job":
        jobs = children(process.pid)
        while not jobs and process.poll() is None:
            time.sleep(0.05)
            jobs = children(process.pid)
        if jobs:
            os.kill(jobs[0], signal.SIGKILL)
            hit = "job"
    elif process.poll() is None and way == "all":
        os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        os.kill(process.pid, signal.SIGTERM if way == "term" else signal.SIGKILL)
    code = process.wait()
    return None if code == 0 else hit


def trial(work, args, ways, moments, rng):
    """One run with several kills; (kills that hit, what went wrong)."""
    run, hits, told, wrong = work.root / "runs/demo", [], [], []
    for way, moment in zip(ways, moments, strict=True):
        hit = kill_once(work, args, way, moment, rng.uniform(0, 3))
        print(f"  {way} after {moment} jobs: {'run was over' if hit is None else hit}", flush=True)
        if hit:
            hits.append(way)
            told.append(STATUS[way])
    done = subprocess.run(work.command(*args), capture_output=True, text=True, check=False)
    if done.returncode:
        wrong.append(done.stderr[-2000:])
    story = events(run)
    starts, ends = ([e for e in story if e["type"] == kind] for kind in ("run_start", "run_end"))
    if len(starts) != len(ends) or ends[-1]["status"] != "ok":
        wrong.append(f"timeline: {len(starts)} starts, ends {[e['status'] for e in ends]}")
    if [e["status"] for e in ends[:-1]] != told:
        wrong.append(f"timeline: ends {[e['status'] for e in ends]}, expected {told} and ok")
    if left := [str(path) for path in run.rglob("*.tmp")]:
        wrong.append(f"left over: {left}")
    return hits, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--per-run", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    (given.work / "undisturbed").mkdir(parents=True)
    base = Workdir(given.work / "undisturbed")
    base.snakemake("--config", SMALL)
    expected, n_jobs = digests(base.root / "runs/demo"), n_ended(base)
    print(f"undisturbed: {n_jobs} jobs, {len(expected)} products", flush=True)
    n_hits, failed, number = 0, 0, 0
    while n_hits < given.kills:
        number += 1
        n = min(given.per_run, given.kills - n_hits)
        work = Workdir(given.work / f"run{number}")
        work.root.mkdir()
        ways = [WAYS[(n_hits + k) % len(WAYS)] for k in range(n)]
        rng.shuffle(ways)
        moments = sorted(rng.randrange(n_jobs) for _ in range(n))
        hits, wrong = trial(work, ["--config", SMALL], ways, moments, rng)
        found = digests(work.root / "runs/demo")
        if different := sorted(set(expected.items()) ^ set(found.items())):
            wrong.append(f"products differ: {sorted({name for name, _ in different})}")
        n_hits, failed = n_hits + len(hits), failed + bool(wrong)
        print(json.dumps({"run": number, "kills": hits, "wrong": wrong}), flush=True)
    print(f"{n_hits} kills in {number} runs, {number - failed} runs ended with the bits of the undisturbed one")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
