"""Gather the facts about the lights of a batch."""

from pathlib import Path

from tilestack import inspection, job, records, threads


def scan_frames(folder, names, out, *, n_threads=1):
    opened = (inspection.opened(Path(folder, name)) for name in names)
    facts = threads.in_order(lambda light: inspection.completed(*light), opened, n_threads)
    records.write(out, {"files": list(facts)})


if __name__ == "__main__":
    with job.started(snakemake):
        lights = snakemake.params.lights
        scan_frames(lights["folder"], lights["names"], snakemake.output[0], n_threads=snakemake.threads)
