"""Gather the facts about the lights of a batch."""

from pathlib import Path

from tilestack import inspection, job, processes, records


def scan_frames(folder, names, out, *, n_processes=1):
    facts = processes.in_order(lambda name: inspection.inspect(Path(folder, name)), names, n_processes)
    records.write(out, {"files": list(facts)})


if __name__ == "__main__":
    with job.started(snakemake):
        lights = snakemake.params.lights
        scan_frames(lights["folder"], lights["names"], snakemake.output[0], n_processes=snakemake.threads)
