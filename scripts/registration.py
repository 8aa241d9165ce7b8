"""Find the transforms of a session to the lattice, and the pixels of its sensor that are defective."""

import numpy as np

from tilestack import job, records
from tilestack import registration as registrations
from tilestack.records import rounded


def registration(reference_path, stars_paths, first_path, out, *, model, min_matches, max_residual_px):
    """stars_paths: by batch id, the star records of the session; first_path: registration of the first session."""
    reference = records.read(reference_path)
    batches = {batch: records.read(path) for batch, path in stars_paths.items()}
    head = next(iter(batches.values()))
    all_frames = [(batch, frame) for batch, record in batches.items() for frame in record["frames"]]
    used = [(batch, frame) for batch, frame in all_frames if frame["status"] != "excluded"]
    master = records.read(first_path)["stars"] if first_path else None
    frames = [frame for _, frame in used]
    model, results = registrations.register_session(
        frames,
        reference["lattice"]["stars"],
        master,
        model=model,
        min_matches=min_matches,
        max_residual_px=max_residual_px,
    )
    matched = sum(result["method"] != "none" for result in results)
    if not matched and not first_path:
        raise job.Stop(
            "registration_failed",
            f"no frame of {head['session']} could be matched with the reference {reference['lattice']['file']}: "
            f"{results[0]['tries'][-1]['reason'] if results else 'no usable frame'}. Are the lights of one field?",
        )
    master = master or registrations.master_stars(frames, results)
    points = np.column_stack([master["x"], master["y"]]).astype(float)
    entry_of = {
        frame["name"]: registrations.as_record(frame, result, points, head["shape"])
        for frame, result in zip(frames, results, strict=True)
    }
    records.write(
        out,
        {
            **{
                key: head[key]
                for key in ("session", "shape", "colour_mode", "bayer_pattern", "channels", "saturation_adu")
            },
            "model": model,
            "defects": registrations.defects_of(batches.values()),
            "stars": {key: rounded(values, 7) for key, values in master.items()},
            "frames": [
                {
                    **{
                        key: frame.get(key)
                        for key in (
                            "status",
                            "reason",
                            "exposure_s",
                            "filter",
                            "gain_e_adu",
                            "date_obs",
                            "sha256",
                            "index",
                        )
                    },
                    "file": frame["name"],
                    "session": head["session"],
                    "batch": batch,
                    **entry_of.get(frame["name"], {"method": "none", "tries": [], "transform": None}),
                }
                for batch, frame in all_frames
            ],
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        registration(
            snakemake.input.reference,
            dict(zip(snakemake.params.batches, snakemake.input.stars, strict=True)),
            next(iter(snakemake.input.get("first", [])), None),
            snakemake.output[0],
            model=snakemake.params.model,
            min_matches=snakemake.params.min_matches,
            max_residual_px=snakemake.params.max_residual_px,
        )
