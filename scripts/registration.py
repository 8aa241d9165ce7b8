"""Find the transforms of a session to the lattice, and the pixels of its sensor that are defective."""

from functools import partial
from pathlib import Path

import numpy as np

from tilestack import cascade, job, records
from tilestack import registration as registrations
from tilestack.records import rounded

HEAD = ("session", "shape", "colour_mode", "bayer_pattern", "channels", "saturation_adu")


def registration(paths, out, *, folder, first_folder, **options):
    # first_folder: where the reference light lies; null on the lattice of another run
    """paths: reference; stars, by batch id; first, the registration of the first session, for the later ones."""
    lattice = records.read(paths["reference"])["lattice"]
    batches = {batch: records.read(path) for batch, path in paths["stars"].items()}
    head = next(iter(batches.values()))
    all_frames = [(batch, record) for batch, batch_record in batches.items() for record in batch_record["frames"]]
    used = [record for _, record in all_frames if record["status"] != "excluded"]
    first = records.read(paths["first"]) if paths["first"] else None
    defects = registrations.defects_of(batches.values())
    read = partial(registrations.luminance, pattern=head["bayer_pattern"], defects=defects)
    frames = [
        cascade.Frame(record, time, partial(read, Path(folder, record["name"])))
        for record, time in zip(used, registrations.times(used), strict=True)
    ]
    targets = [("reference", cascade.arrays(lattice["stars"]))]
    targets += [("first_session", cascade.arrays(first["stars"]))] if first else []
    reference = {
        "stars": lattice["stars"],
        "shape": lattice["shape"],
        "hint": lattice["hint"],
        "aspect": lattice["pixel_aspect"],
        "read": partial(
            registrations.luminance,
            Path(first_folder, lattice["file"]),
            pattern=lattice["bayer_pattern"],
            defects=first["defects"] if first else defects,
        )
        if first_folder
        else None,
    }
    found = cascade.register(frames, targets, reference, head["shape"], **options)
    if not first:
        registrations.check_whole(found["results"], head["session"], lattice["file"])
    master = first["stars"] if first else found["stars"]
    points = np.column_stack([master["x"], master["y"]]).astype(float)
    placed = {
        record["name"]: registrations.as_record(record, result, points, found["distortion"], head["shape"])
        for record, result in zip(used, found["results"], strict=True)
    }
    records.write(
        out,
        {
            **{key: head[key] for key in HEAD},
            "model": found["model"],
            "distortion": found["distortion"],
            "defects": defects,
            "stars": {key: rounded(values, 7) for key, values in master.items()},
            "frames": registrations.entries(all_frames, placed, head["session"]),
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        inputs, params = snakemake.input, snakemake.params
        paths = {
            "reference": inputs.reference,
            "stars": dict(zip(params.batches, inputs.stars, strict=True)),
            "first": next(iter(inputs.get("first", [])), None),
        }
        registration(
            paths,
            snakemake.output[0],
            folder=params.folder,
            first_folder=params.first_folder,
            model=params.model,
            min_matches=params.min_matches,
            max_residual_px=params.max_residual_px,
            n_processes=snakemake.threads,
        )
