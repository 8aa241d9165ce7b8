#!/usr/bin/env python3
"""Time whole runs on simulated series, beside Siril (where installed) and seiza on the same files: prints the tables of
docs/benchmarks.md.

python tests/benchmarks/speed.py                   (from the repository, about an hour; --series for one of them)

A run goes up to and including DEBAYER, with Snakemake and all processes; kernels are compiled by a small run before.
Memory is the sum over all processes at one time of what they hold alone and their share of what they share.
"""

import argparse
import collections
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
SERIES = {
    "colour60": ("60 x 1080 x 1920 colour", {"n_frames": 60, "height_px": 1080, "width_px": 1920, "seed": 3}),
    "colour200": ("200 x 1080 x 1920 colour", {"n_frames": 200, "height_px": 1080, "width_px": 1920, "seed": 3}),
    "tiny": ("10 x 360 x 480 colour", {"n_frames": 10, "height_px": 360, "width_px": 480}),
    "mono60": ("60 x 4000 x 6000 mono", {"n_frames": 60, "height_px": 4000, "width_px": 6000, "seed": 4, "mono": None}),
}
SIRIL = """requires 1.0.0
cd {lights}
convert light {debayer} -out={out}
cd {out}
register light_
stack r_light_ rej w 3 3 -norm=addscale -out=result
"""
# With its default limits it leaves out frames that are turned by more than 10 degrees: of the 200 frames, 121.
SEIZA = """import pathlib, sys, seiza
wide = {"maximum_rotation_degrees": 180.0, "maximum_drift_pixels": 1e6, "maximum_drift_fraction": 1.0}
options = seiza.StackOptions(**wide, minimum_overlap=0.0)
lights = sorted(map(str, pathlib.Path(sys.argv[1]).glob("*.fits")))
result = seiza.stack_fits(lights, sys.argv[2], options=options)
if result.accepted_frames < len(lights):
    sys.exit(f"seiza took {result.accepted_frames} of {len(lights)} frames")"""

# Python runs this at its start. Snakemake looks at a job every 30 s at most, and misses what comes after its last look.
# With the processes of a job, but not with the jobs of Snakemake and of their server.
NOTE_CPU = """import atexit, os, sys
@atexit.register
def note():
    script = os.path.basename(sys.argv[0])
    with open(os.environ["CPU_NOTES"], "a") as stream:
        stream.write(f"{sum(os.times()[:2 if script in ('__main__.py', 'job_server.py') else 4])} {script}\\n")
"""

Cost = collections.namedtuple("Cost", "cpu_s wall_s memory_gb written_gb")


def measured(command, folder, **options):
    """Cost of a command and all of its processes; what it wrote is what it leaves in a folder."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options)
    most, over = [0], threading.Event()
    watch = threading.Thread(target=_watch, args=(process.pid, most, over))
    watch.start()
    lines = collections.deque(process.stderr, maxlen=30)
    _, status, usage = os.wait4(process.pid, 0)
    over.set()
    watch.join()
    if status:
        raise SystemExit(f"{command} failed:\n{''.join(lines)}")
    files = (path.stat() for path in Path(folder).rglob("*") if path.is_file())
    # Each once under all its names.
    written = sum({(file.st_dev, file.st_ino): file.st_size for file in files}.values())
    return Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - start, most[0] / 1e9, written / 1e9)


def _watch(pid, most, over):
    while not over.wait(0.3):
        total = 0
        try:
            tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        for process in tree:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:  # it has ended meanwhile
                continue
        most[0] = max(most[0], total)


def run(lights, folder, cores):
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder]
    command += ["--cores", str(cores), "--config", "run_id=speed", f"input={lights}", "--until", "debayer"]
    Path(folder).mkdir(exist_ok=True)
    Path(folder, "sitecustomize.py").write_text(NOTE_CPU)
    notes = {"CPU_NOTES": str(Path(folder, "cpu_notes")), "PYTHONPATH": str(folder)}
    return measured(command, folder, env={**os.environ, **notes})


def siril(lights, folder, mono):
    script = Path(folder, "stack.ssf")
    script.write_text(SIRIL.format(lights=lights, out=folder, debayer="" if mono else "-debayer"))
    cost = measured(["siril-cli" if shutil.which("siril-cli") else "siril", "-s", script], folder, cwd=folder)
    n_lights, n_registered = len(list(Path(lights).glob("*.fits"))), len(list(Path(folder).glob("r_light_*.fit")))
    if n_registered < n_lights:
        raise SystemExit(f"Siril took {n_registered} of {n_lights} frames")
    return cost


def seiza(lights, folder, mono):
    return measured([sys.executable, "-c", SEIZA, lights, Path(folder, "result.fits")], folder)


def phases(folder):
    """By rule: its jobs, their CPU seconds as they noted them, and largest memory as Snakemake did, MB."""
    rules, cpu = collections.defaultdict(list), collections.Counter()
    for line in Path(folder, "cpu_notes").read_text().splitlines():
        seconds, script = line.split()
        cpu[script.removesuffix(".py").rpartition(".")[2]] += float(seconds)
    for path in Path(folder, "runs/speed/benchmarks").rglob("*.tsv"):
        with path.open() as stream:
            row = next(csv.DictReader(stream, delimiter="\t"))
        rule = path.relative_to(Path(folder, "runs/speed/benchmarks")).parts[0].removesuffix(".tsv")
        rules[rule].append(float(row["max_pss"]) if row["max_pss"] not in ("NA", "-") else 0.0)
    rows = [(rule, len(jobs), cpu[rule], max(jobs)) for rule, jobs in rules.items()]
    return sorted(rows, key=lambda row: -row[2])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", nargs="*", choices=SERIES, default=[name for name in SERIES if name != "tiny"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="for lights and runs; by default a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="speed") as scratch:
        scratch = Path(scratch)
        run(simulated(scratch, "small", {"n_frames": 10, "height_px": 360, "width_px": 480}), scratch / "warm", 2)
        run(
            simulated(scratch, "mono", {"n_frames": 10, "height_px": 360, "width_px": 480, "mono": None}),
            scratch / "w",
            2,
        )
        for name in given.series:
            compare(scratch, name, given.rounds, given.cores)


def simulated(scratch, name, options):
    lights = scratch / name
    words = [
        word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", value) if word is not None
    ]
    subprocess.run([sys.executable, ROOT / "scripts/simulate_lights.py", lights, *map(str, words)], check=True)
    return lights


def compare(scratch, name, rounds, cores):
    title, options = SERIES[name]
    lights, mono = simulated(scratch, name, options), "mono" in options
    workers = {
        "Tilestack": lambda folder: run(lights, folder, cores),
        "seiza": lambda folder: seiza(lights, folder, mono),
    }
    if shutil.which("siril") or shutil.which("siril-cli"):
        workers["Siril"] = lambda folder: siril(lights, folder, mono)
    costs, rows = collections.defaultdict(list), []
    for _ in range(rounds):
        for worker, work in workers.items():
            folder = scratch / "run"
            folder.mkdir()
            costs[worker].append(work(folder))
            rows = phases(folder) if worker == "Tilestack" else rows
            shutil.rmtree(folder)
    shutil.rmtree(lights)
    best = {worker: Cost(*map(min, zip(*found, strict=True))) for worker, found in costs.items()}
    print(f"\n{title}, {rounds} rounds by turns, the least of each:\n")
    print("| | CPU s | of it | wall s | of it | memory GB | written GB |\n|---|---|---|---|---|---|---|")
    for worker, cost in best.items():
        cpu, wall = (getattr(best["Tilestack"], key) / getattr(cost, key) for key in ("cpu_s", "wall_s"))
        print(
            f"| {worker} | {cost.cpu_s:.1f} | {cpu:.2f} | {cost.wall_s:.1f} | {wall:.2f} | {cost.memory_gb:.2f} "
            f"| {cost.written_gb:.2f} |"
        )
    print("\n| rule | jobs | CPU s | MB |\n|---|---|---|---|")
    for rule, n, cpu, memory in rows:
        print(f"| {rule} | {n} | {cpu:.1f} | {memory:.0f} |")
    rest = best["Tilestack"].cpu_s - sum(row[2] for row in rows)
    print(f"| Snakemake and starts of processes | {sum(row[1] for row in rows)} | {rest:.1f} | |", flush=True)


if __name__ == "__main__":
    main()
