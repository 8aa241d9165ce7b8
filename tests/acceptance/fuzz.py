"""Hostile lights: faulty files by the thousand through SCAN_INPUT and the search for stars, each with a time limit.

fuzz.py --n-files 2000 --seed 1 --work /tmp/fuzz

A file passes where it gets facts or a reason code, within 10 CPU seconds, in 2 GiB of address space beyond what the
libraries take, and with nothing written beside the run. Those that the scan takes for lights go on to detect_stars.
Prints one line a fate, and ends with 1 where a file did not pass.
"""

import argparse
import collections
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]
import hostile  # noqa: E402

LIMIT_S, MEMORY = 10.0, 2 << 30
GOOD = "0.fits"  # first in each process, so that no other file pays for imports and compilation
REAL = ROOT.parent / "shared/data"
ESCAPED = Path("/tmp/tilestack-escaped")
SCAN = {
    "exclude": [], "bayer_pattern": "auto", "colour_mode": "auto", "exposure_s": None, "filter": None,
    "gain_e_adu": None, "saturation_adu": None, "nan_share_max": 0.3,
}  # fmt: skip


def sources(simulated, real=REAL):
    """Lights to put faults into, as (name ending, content): two simulated and, where they are, two real ones, each
    plain and packed in all ways."""
    from tilestack import lights

    plain = [path.read_bytes() for path in sorted(Path(simulated).glob("*.fits"))[:2]]
    if real.is_dir():
        for path in (*sorted(real.glob("seestar_m94/session1/*.fit*"))[:1], *sorted(real.glob("m8_lrgb/L/*.fit*"))[:1]):
            plain.append(hostile.cropped(lights._unpacked(lights.as_stored(path), path), 400, 500))
    found = []
    for content in plain:
        found.append((".fits", content))
        for kind in ("gz", "RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"):
            found.append((".fits.gz" if kind == "gz" else ".fits.fz", hostile.packed(content, kind)))
    return found


def look(folder, names, out, limit_s):
    """What the workflow finds about each file, a line as it begins and a line as it ends."""
    import detect_stars
    import scan_frames

    from tilestack import records, selection

    with open(out, "a") as stream:
        for k, name in enumerate([GOOD, *names]):
            if k == 1:
                size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
            print(json.dumps({"name": name}), file=stream, flush=True)
            begun = time.process_time()
            try:
                facts = f"{out}.facts.json"
                scan_frames.scan_frames(folder, [name], facts)
                file = selection.decide([("01_a", records.read(facts)["files"])], SCAN, 5.0)["01_a"]["files"][0]
                fate = file["reason"] or "taken"
                if fate == "taken":
                    detect_stars.detect_stars(
                        *(folder, [name], {"01_a": [facts]}, f"{out}.stars.json"),
                        session="01_a", filters={}, scan=SCAN, tolerance_percent=5.0, sigma=5.0, max_stars=2000,
                    )  # fmt: skip
            except BaseException as error:
                fate = f"ERROR {type(error).__name__}: {error}"[:300]
            took = time.process_time() - begun
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(json.dumps({"name": name, "fate": fate, "s": round(took, 3), "mb": used}), file=stream, flush=True)


def judged(folder, names, work, limit_s=LIMIT_S):
    """The fate of each file; a process of its own looks, and is replaced where a file kills it or keeps it too long."""
    out = Path(work, "fates.jsonl")
    out.unlink(missing_ok=True)
    fates, left = {}, list(names)
    while left:
        child = subprocess.Popen(
            [sys.executable, __file__, "--look", str(folder), "--work", str(out)], stdin=subprocess.PIPE, text=True
        )
        child.stdin.write(json.dumps(left))
        child.stdin.close()
        seen, since, hung = 0, time.monotonic() + 300, False  # the first file also waits for imports
        while child.poll() is None:
            time.sleep(0.2)
            n_bytes = out.stat().st_size if out.exists() else 0
            if n_bytes != seen:
                seen, since = n_bytes, time.monotonic()
            elif time.monotonic() - since > limit_s * 3:  # wall time on a busy machine; the file's own is below
                os.kill(child.pid, signal.SIGKILL)
                hung = True
        lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        fates = {line["name"]: line for line in lines}
        open_ = [line["name"] for line in fates.values() if "fate" not in line]
        for name in open_:
            fates[name] |= {"fate": "HANG" if hung else f"CRASH {child.returncode}", "s": 0, "mb": 0}
            with open(out, "a") as stream:
                print(json.dumps(fates[name]), file=stream)
        if not open_ and child.returncode:
            raise RuntimeError(f"the process that looks ended with {child.returncode} between two files")
        left = [name for name in names if name not in fates]
    return fates


def failed(fates, limit_s=LIMIT_S):
    """Names of files that did not pass."""
    bad = ("ERROR", "HANG", "CRASH")
    return [f for f in fates.values() if f["fate"].startswith(bad) or f["s"] > limit_s]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--n-files", type=int, default=2000, help="a quarter of them drawn by hypothesis")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--look", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.look:
        look(given.look, json.load(sys.stdin), given.work, LIMIT_S)
        return
    ESCAPED.unlink(missing_ok=True)
    lights = given.work / "lights"
    lights.mkdir(parents=True)
    simulate = [sys.executable, ROOT / "scripts/simulate_lights.py", given.work / "good"]
    subprocess.run([*simulate, "--n-frames", "2", "--height-px", "260", "--width-px", "380"], check=True)
    n_drawn = given.n_files // 4
    files = hostile.series(given.n_files - n_drawn, given.seed, sources(given.work / "good"))
    files += hostile.by_hypothesis(n_drawn, given.seed)
    shutil.copy(given.work / "good/light_0001.fits", lights / GOOD)
    for name, content in files:
        (lights / name).write_bytes(content)
    before = {path: path.stat().st_mtime_ns for path in lights.iterdir()}
    fates = judged(lights, [name for name, _ in files], given.work)
    for fate, count in collections.Counter(f["fate"].split(":")[0] for f in fates.values()).most_common():
        print(f"{count:6} {fate}")
    print(f"slowest {max(f['s'] for f in fates.values()):.1f} s, most memory {max(f['mb'] for f in fates.values())} MB")
    for fate in failed(fates):
        print(f"FAILED {fate}")
    touched = before != {path: path.stat().st_mtime_ns for path in lights.iterdir()} or ESCAPED.exists()
    print("something was written to the input or beside the run" if touched else "no input touched, nothing beside it")
    sys.exit(bool(failed(fates) or touched))


if __name__ == "__main__":
    main()
