"""Gather the facts about the lights of a batch."""

from pathlib import Path

from tilestack import inspection, job, records


def scan_frames(folder, names, out):
    records.write(out, {"files": [inspection.inspect(Path(folder, name)) for name in names]})


if __name__ == "__main__":
    with job.started(snakemake):
        lights = snakemake.params.lights
        scan_frames(lights["folder"], lights["names"], snakemake.output[0])
