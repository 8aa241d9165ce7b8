"""What several groups of tests share: running the workflow, simulating lights, and reading what a run leaves."""

import json
import subprocess
import sys
from pathlib import Path

from astropy.io import fits

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared/data"
SMALL = "demonstration={n_frames: 10, height_px: 360, width_px: 480, seed: 11}"
LIGHTS = ["--n-frames", "10", "--height-px", "260", "--width-px", "380", "--faint-stars"]


def simulate(folder, *options):
    command = [sys.executable, ROOT / "scripts/simulate_lights.py", folder, *LIGHTS, *options]
    subprocess.run(command, check=True, capture_output=True)


def record(run, name):
    return json.loads((run / f"artifacts/{name}.json").read_text())


def events(run):
    return [json.loads(line) for line in (run / "logs/run_events.jsonl").read_text().splitlines()]


def pixels(run, product="stacked.fits"):
    with fits.open(run / "outputs" / product) as hdus:
        return {hdu.name: hdu.data.copy() for hdu in hdus if hdu.is_image}


def same_bits(one, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(one.values(), other.values(), strict=True))


def stamps(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# What all batches are added up to, and so is made again with a new night.
ADDED_UP = ("reconstruction", "reconstruction_rgb", "synthetic_stack", "synthetic_stack_rgb", "synthetic_stack.json")


def kept_stamps(work):
    """Times of the files below work/ that a new night leaves as they are."""
    return {path: stamp for path, stamp in stamps(work).items() if path.parts[0] not in ADDED_UP}


class Workdir:
    """A folder in which the workflow runs."""

    def __init__(self, root):
        self.root = root

    def command(self, *args, cores=2):
        where = ["--snakefile", ROOT / "Snakefile", "--directory", self.root]
        return [sys.executable, "-m", "snakemake", *where, "--cores", str(cores), *args]

    def snakemake(self, *args, cores=2, fails=False):
        """Run the workflow; what it said."""
        done = subprocess.run(self.command(*args, cores=cores), capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, said
        return said

    def stack(self, *args, **how):
        """Run it without what comes after the stack and its colours, in outputs/unsolved: half the time."""
        return self.snakemake(*args, "--omit-from", "astrometry", **how)

    def settled(self, *args):
        return "Nothing to be done" in self.snakemake("--dry-run", *args)
