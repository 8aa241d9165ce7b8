"""What a new night costs, in CPU seconds of all processes, and that it gives the bits of both nights at once.

increment.py --n-frames 20 --height-px 480 --width-px 640 --work /tmp/increment
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests")]
from support import Workdir, kept_stamps, pixels, same_bits, simulate, stamps  # noqa: E402


def cpu_s(command):
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--n-frames", default="20")
    parser.add_argument("--height-px", default="480")
    parser.add_argument("--width-px", default="640")
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    for name, seed in (("night1", "21"), ("night2", "22")):
        size = ["--n-frames", given.n_frames, "--height-px", given.height_px, "--width-px", given.width_px]
        simulate(given.work / name, *size, "--seed", seed)
    work, run = Workdir(given.work), given.work / "runs/grown"

    def cost(run_id, nights):
        seconds = cpu_s(work.command("--config", f"run_id={run_id}", f"input=[{nights}]"))
        print(f"{run_id}, {nights}: {seconds:.0f} CPU s", flush=True)
        return seconds

    cost("grown", "night1")
    old = kept_stamps(run / "work")
    alone = cost("alone", "night2")
    added = cost("grown", "night1,night2")
    new = stamps(run / "work")
    assert {path: new[path] for path in old} == old, "a file of the old night was made again"
    cost("once", "night1,night2")
    nothing = cost("grown", "night1,night2")
    for product in ("stacked.fits", "stacked_rgb.fits", "planes/even.fits"):
        assert same_bits(pixels(run, product), pixels(given.work / "runs/once", product)), product
    print(f"the new night added: {added / alone:.2f} of the night alone; {len(old)} old files untouched; same bits as")
    print(f"both at once; a start with nothing to do: {nothing:.1f} CPU s")


if __name__ == "__main__":
    main()
