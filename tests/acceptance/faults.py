"""Faults, each really made to happen to a small run: what it says, how it ends, and what the same command makes of it.

faults.py --work /tmp/faults                 # all, a table line each
faults.py --work /tmp/faults disk_full clock_skew

A fault is a function (work, n) -> outcome that asserts what must hold. As root: tmpfs and read-only mounts are used.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from astropy.io import fits

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/acceptance")]
from kills import digests, n_lines  # noqa: E402

from support import SMALL, Workdir, events, record, simulate, stamps  # noqa: E402


def start(work, *args):
    """The workflow in the background."""
    return subprocess.Popen(work.command(*args), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until(process, true, limit_s=900):
    """Wait until something holds while the process runs."""
    end = time.monotonic() + limit_s
    while not true():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.02)


def ended(process):
    """Exit code and what was said."""
    said = process.communicate()[0]
    return process.returncode, said


def last(run):
    return events(run)[-1]


@contextlib.contextmanager
def mounted(folder, *options):
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *options, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def products_of(root, args):
    """Digests of an undisturbed run of the same id."""
    root.mkdir(parents=True, exist_ok=True)
    work = Workdir(root)
    work.snakemake("--config", *args)
    return digests(next((root / "runs").iterdir()))


# -- faults that need a run of their own ------------------------------------------------------------------------------


def disk_full(work, finished):
    """After the scan hardly any room is left, and a little more for each start that falls where the one before fell."""
    args, least_mb = ["--config", SMALL], 0.2
    expected = digests(finished / "runs/demo")
    fell, room_mb = [], least_mb
    with mounted(work / "disk", "-t", "tmpfs", "-o", "size=2g", "tmpfs") as disk:
        run = disk / "runs/demo"
        process = start(Workdir(disk), *args)
        until(process, (run / "artifacts/scan_input.json").exists)
        leave(disk, room_mb)
        code, said = ended(process)
        while code:
            end, failed = last(run), [e for e in events(run) if e["type"] == "phase_end" and e["status"] == "error"]
            print(f"  {room_mb:.1f} MB: {end}", flush=True)
            assert end["type"] == "run_end" and end["status"] == "insufficient_disk_space", said[-3000:]
            assert "free space and start again" in said, said[-3000:]
            rule = failed[-1]["rule"]
            room_mb = 6 * room_mb if fell[-1:] == [rule] else least_mb
            fell.append(rule)
            leave(disk, room_mb)
            code, said = ended(start(Workdir(disk), *args))
        assert digests(run) == expected
    return f"{len(fell)} starts fell, in {', '.join(dict.fromkeys(fell))}; then ok, same bits"


def disk_full_everywhere(work):
    """Each rule that writes, from the last to the first, with a page of room: none may end but by disk_full."""
    rules = "report done pcc bge sky_headers astrometry validation debayer stacking synthetic_stack tile_reconstruction"
    rules += " reconstruct_batch colour_template local_weights local_metrics global_metrics template normalization"
    rules += " prewarp registration reference detect_stars scan_frames demo_lights"
    with mounted(work / "disk", "-t", "tmpfs", "-o", "size=2g", "tmpfs") as disk:
        run, copy = disk / "runs/demo", Workdir(disk)
        copy.snakemake("--config", SMALL)
        expected, fell = digests(run), []
        leave(disk, 0.004)
        assert "is full: free space and start again" in copy.snakemake("--forcerun", "report", fails=True)
        (disk / "ballast").unlink()
        for rule in rules.split():
            process, n_starts = start(copy, "--forcerun", rule), n_lines(copy, "run_start")
            until(process, lambda n=n_starts: n_lines(copy, "run_start") > n)
            leave(disk, 0.004)
            code, said = ended(process)
            (disk / "ballast").unlink()
            if code == 0:
                print(f"  {rule}: written where the old files were", flush=True)
                continue
            end = last(run)
            print(f"  {rule}: {end}", flush=True)
            assert end["type"] == "run_end" and end.get("reason") == "disk_full", said[-3000:]
            fell.append(rule)
        copy.snakemake()
        assert digests(run) == expected
    return f"{len(fell)} of {len(rules.split())} rules fell: {', '.join(fell)}; then ok, same bits"


def leave(disk, room_mb):
    """Fill a file system but for so much."""
    (disk / "ballast").unlink(missing_ok=True)
    with open(disk / "ballast", "wb") as stream:
        while (rest := shutil.disk_usage(disk).free - int(room_mb * 1e6)) > 0:
            with contextlib.suppress(OSError):  # the run may write at the same time
                os.posix_fallocate(stream.fileno(), stream.seek(0, os.SEEK_END), rest)


def two_runs_at_once(work):
    """Two ids in one folder at once, the shorter one ends first; and the same id twice."""
    simulate(work / "night", "--seed", "31")
    simulate(work / "short", "--seed", "32", "--n-frames", "8")
    one = start(Workdir(work), "--config", "run_id=one", "input=[night]")
    until(one, (work / "runs/one/artifacts/scan_input.json").exists)
    other = start(Workdir(work), "--config", "run_id=other", "input=[short]")
    said = Workdir(work).snakemake("--config", "run_id=one", "input=[night]", fails=True)
    assert "run one is being processed by another snakemake" in said
    (code, text), (second, more) = ended(one), ended(other)
    assert (code, second) == (0, 0), text + more
    alone = products_of(work / "alone", ["run_id=one", f"input=[{work / 'night'}]"])
    assert digests(work / "runs/one") == alone
    return "both ok, same bits as alone; the third start, of the same id, refused, exit 1"


def input_goes_and_comes(work):
    """The folder of lights is moved away mid-run, a frame and an unreadable file arrive mid-run."""
    simulate(work / "night", "--seed", "31")
    args = ["--config", "run_id=t", "input=[night]"]
    run = work / "runs/t"
    process = start(Workdir(work), *args)
    until(process, (run / "artifacts/scan_input.json").exists)
    (work / "night").rename(work / "away")
    code, said = ended(process)
    assert code and last(run)["reason"] == "light_gone" and "put it back" in said, said[-3000:]
    (work / "away").rename(work / "night")
    process = start(Workdir(work), *args)
    until(process, lambda: any((run / "work/stars").rglob("*.json")))
    with fits.open(work / "night/light_0001.fits") as hdus:
        hdus[0].data[0, 0] += 1
        hdus.writeto(work / "night/light_0099.fits")
    (work / "night/light_0100.fits").symlink_to("/proc/self/mem")  # reading it is an error of the system
    code, said = ended(process)
    assert code == 0, said[-3000:]
    before, old = digests(run), stamps(run / "work")
    assert record(run, "scan_input")["summary"]["files"] == 10
    Workdir(work).snakemake(*args)
    reasons = {f["name"]: f["reason"] for f in record(run, "scan_input")["files"] if f["reason"]}
    assert reasons == {"light_0100.fits": "unreadable"}, reasons
    assert record(run, "registration")["summary"]["matched"] == 11 and digests(run) != before
    new = stamps(run / "work")
    batches = [path for path in old if len(path.parts) > 2 and path.parts[1] == "01_night"]
    assert batches and all(new[path] == old[path] for path in batches)
    return "moved away: light_gone, exit 1; put back: ok; what arrived mid-run is in the next run, unreadable excluded"


def odd_paths(work):
    """Spaces, unicode, newlines and dashes in names; links, dangling and in circles; a read-only file system."""
    lights = work / "-m 31 ü\n{x} $HOME"
    simulate(work / "night", "--seed", "31")
    shutil.rmtree(work / "night/truth")
    (work / "store").mkdir()
    lights.mkdir()
    for k, path in enumerate(sorted((work / "night").iterdir())):
        name = f"-light {k} ü\n'\"{{y}}`;.fits"
        if k % 2:
            path.rename(work / f"store/{k}.fits")
            (lights / name).symlink_to(work / f"store/{k}.fits")
        else:
            path.rename(lights / name)
    (lights / "dangling.fits").symlink_to(work / "nowhere.fits")
    (lights / "circle.fits").symlink_to(lights / "circle.fits")
    os.mkfifo(lights / "pipe.fits")
    (lights / "folder.fits").mkdir()
    (work / "link").symlink_to(lights)
    before = stamps(lights)
    with mounted(work / "ro", "--bind", "-o", "ro", str(lights)) as ro:
        subprocess.run(["mount", "-o", "remount,bind,ro", ro], check=True)
        Workdir(work).snakemake("--config", "run_id=t", f"input=[{json.dumps(str(ro))}]")
    Workdir(work).snakemake("--config", "run_id=u", f"input={json.dumps([str(lights), str(work / 'link')])}")
    for run_id in ("t", "u"):
        assert record(work / f"runs/{run_id}", "registration")["summary"]["matched"] == 10
        assert record(work / f"runs/{run_id}", "scan_input")["summary"]["files"] == 10
    assert stamps(lights) == before
    return "ok twice, 10 lights each; a folder listed by a link too counts once; nothing written to the input"


def many_files(work, n=10_000):
    """10,000 files of which 12 are lights, half of the others copies and half junk."""
    simulate(work / "night", "--seed", "31", "--n-frames", "12", "--height-px", "260", "--width-px", "380")
    shutil.rmtree(work / "night/truth")
    small = (work / "night/light_0001.fits").read_bytes()
    for k in range(n - 12):
        path = work / f"night/x{k:05d}.fits"
        if k % 20:
            path.write_bytes(b"SIMPLE  =                    T" + str(k).encode())
        else:
            path.write_bytes(small)
    begun = time.monotonic()
    Workdir(work).snakemake("--config", "run_id=t", "input=[night]", "frames_per_batch=2500")
    found = record(work / "runs/t", "scan_input")
    assert found["summary"]["files"] == n and found["summary"]["excluded"] == n - 12, found["summary"]
    return f"ok, {found['reasons']}; {time.monotonic() - begun:.0f} s wall"


def term(work):
    """SIGTERM: jobs that run are waited for, the timeline is closed, the same command goes on."""
    args, run = ["--config", SMALL], work / "runs/demo"
    process = start(Workdir(work), *args)
    until(process, lambda: any((run / "work/scan").rglob("*.json")))
    process.send_signal(signal.SIGTERM)
    code, said = ended(process)
    assert code and last(run)["type"] == "run_end" and last(run)["reason"] == "interrupted", (last(run), said[-2000:])
    Workdir(work).snakemake(*args)
    ends = [e["status"] for e in events(run) if e["type"] == "run_end"]
    assert ends == ["error", "ok"]
    return "exit 1, run_end 'interrupted'; then ok"


# -- faults of a finished run, which they may change -----------------------------------------------------------------


def copied(finished, work):
    shutil.copytree(finished, work / "copy", symlinks=True)
    return Workdir(work / "copy"), work / "copy/runs/demo"


def light_gone(work, finished):
    """A light is gone and an early parameter changes: stop, and the products stay those of the run before."""
    copy, run = copied(finished, work)
    before = digests(run)
    light = run / "lights/light_0003.fits"
    light.rename(work / "kept")
    assert copy.settled()
    said = copy.snakemake("--config", "registration={sigma: 5.5}", fails=True)
    assert last(run)["reason"] == "light_gone" and "light_0003.fits is needed" in said, said[-2000:]
    assert digests(run) == before and "sigma: 5.5" in (run / "config.yaml").read_text()
    (work / "kept").rename(light)
    copy.snakemake()
    assert digests(run) != before
    return "light_gone, exit 1, old products untouched; put back: ok"


def light_changed(work, finished):
    """A light is cut short after the scan."""
    copy, run = copied(finished, work)
    light = run / "lights/light_0003.fits"
    whole = light.read_bytes()
    light.write_bytes(whole[: len(whole) // 2])
    said = copy.snakemake("--config", "registration={sigma: 5.5}", fails=True)
    assert last(run)["reason"] == "light_changed" and "--forcerun scan_frames" in said, said[-2000:]
    copy.snakemake("--forcerun", "scan_frames")
    assert record(run, "scan_input")["reasons"] == {"truncated": 1}
    return "light_changed, exit 1; --forcerun scan_frames: ok, the light excluded as truncated"


def damaged_file(work, finished):
    """Intermediate files cut short or overwritten: named, deleted, made again with the same bits."""
    copy, run = copied(finished, work)
    before = digests(run)
    (run / "work/registration/01_demo.json").unlink(missing_ok=True)
    outcomes = []
    for name in ("work/reconstruction/image.fits", "work/synthetic_stack.json"):
        path = run / name
        path.write_bytes(path.read_bytes()[:5000] if path.suffix == ".fits" else b'{"cut')
        said = copy.snakemake("--forcerun", "stacking", fails=True)
        assert last(run)["reason"] == "damaged_file" and name in said and "delete it" in said, said[-2000:]
        path.unlink()
        copy.snakemake()
        assert digests(run) == before
        outcomes.append(path.name)
    return f"damaged_file names {' and '.join(outcomes)}, exit 1; deleted: made again, same bits"


def left_over(work, finished):
    """Half-written files of killed jobs are deleted by the next start that does something; others stay."""
    copy, run = copied(finished, work)
    drafts = [run / "work/sums/x.fits.4711.tmp", run / "artifacts/bge.json.12.tmp"]
    others = [run / "work/mine.tmp", run / "outputs/notes.txt"]
    for path in (*drafts, *others):
        path.write_text("half")
    copy.snakemake("--forcerun", "report")
    assert not any(path.exists() for path in drafts) and all(path.exists() for path in others)
    return "swept; files of other names stay"


def clock_skew(work, finished):
    """All files of the run, or its lights, are from tomorrow: as on a machine whose clock was wrong."""
    copy, run = copied(finished, work)
    before, tomorrow = digests(run), time.time() + 86400
    for path in run.rglob("*"):
        if path.is_file():
            os.utime(path, (tomorrow, tomorrow))
    assert copy.settled()
    copy.snakemake("--config", "debayer={method: bilinear}")
    copy.snakemake("--config", "debayer={method: auto}")
    assert digests(run) == before
    after = "does nothing" if copy.settled() else "runs again what was made today from files of tomorrow"
    return f"ok, same bits after a change and back; a start afterwards {after}"


OWN_RUN = {
    f.__name__: f for f in (disk_full_everywhere, two_runs_at_once, input_goes_and_comes, odd_paths, many_files, term)
}
OF_FINISHED = {f.__name__: f for f in (light_gone, light_changed, damaged_file, left_over, clock_skew, disk_full)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("names", nargs="*", default=[*OF_FINISHED, *OWN_RUN])
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    finished = given.work / "finished"
    if not finished.exists() and set(given.names) & OF_FINISHED.keys():
        finished.mkdir()
        Workdir(finished).snakemake("--config", SMALL)
    failed = 0
    for name in given.names:
        folder = given.work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            outcome = OWN_RUN[name](folder) if name in OWN_RUN else OF_FINISHED[name](folder, finished)
            shutil.rmtree(folder, ignore_errors=True)
        except AssertionError as error:
            failed += 1
            outcome = f"NOT AS IT SHOULD BE: {str(error)[-3000:]}"
        print(f"| {name} | {outcome} |", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
