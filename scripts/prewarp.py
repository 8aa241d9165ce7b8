"""Resample a batch onto the lattice of the run, and measure its sky and noise on the way."""

from pathlib import Path

from tilestack import job, records
from tilestack import prewarp as prewarps


def prewarp(folder, registration_path, reference_path, image_path, record_path, *, batch, cfa, cosmetic, n_threads=1):
    lattice = records.read(reference_path)["lattice"]
    session = records.read(registration_path)
    frames = [f for f in session["frames"] if f["batch"] == batch and f["transform"] is not None]
    options = {"cfa": cfa, "cosmetic": cosmetic, "n_threads": n_threads}
    entries = prewarps.write_batch(Path(folder), frames, session, lattice, image_path, **options)
    records.write(
        record_path,
        {
            "session": session["session"],
            "batch": batch,
            "bayer_pattern": session["bayer_pattern"],
            "distortion": session["distortion"],
            "mesh_px": lattice["mesh_px"],
            "cfa": cfa,
            "frames": entries,
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        prewarp(
            snakemake.params.lights["folder"],
            snakemake.input.registration,
            snakemake.input.reference,
            snakemake.output.image,
            snakemake.output.record,
            batch=snakemake.wildcards.batch,
            cfa=snakemake.params.cfa,
            cosmetic=snakemake.params.cosmetic,
            n_threads=snakemake.threads,
        )
