"""Find the transforms of a session to the lattice, and the pixels of its sensor that are defective."""

import numpy as np
from tilestack import geometry, job, records
from tilestack import registration as registrations
from tilestack.kernels import matching
from tilestack.records import rounded

# A pixel that stands out in this share of the frames while the sky moves belongs to the sensor.
DEFECT_SHARE = 0.5
FEWEST_DEFECT_FRAMES = 3


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
        frame["name"]: as_record(frame, result, points, head["shape"])
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
            "defects": defects_of(batches.values()),
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


def as_record(frame, result, master, shape):
    """What later phases need of a frame: its transform, and which of its stars is which of the session's list."""
    stars = frame["stars"]
    entry = {
        "n_detected": frame["n_detected"],
        "n_stars": len(stars["x"]),
        "elongation": rounded(np.median(stars["elongation"]) if stars["x"] else np.nan, 4),
        "method": result["method"],
        "tries": result["tries"],
        "transform": None,
        "inliers": 0,
    }
    if result["method"] == "none":
        return entry | {"reason": "not_registered"}
    transform = result["transform"]
    here = geometry.apply(transform, np.column_stack([stars["x"], stars["y"]]).astype(float))
    pairs = matching.nearest_pairs(here, master, registrations.LAST_REACH_PX)
    return entry | {
        "against": result["against"],
        "transform": rounded(transform, 10),
        "inliers": len(result["pairs"]),
        "residual_px": rounded(result["residual_px"], 4),
        **geometry.describe(transform, shape),
        "pairs": pairs.T,
    }


def defects_of(batches):
    """Pixels that stand out in most frames of a session."""
    n_frames = sum(record["defects"]["n_frames"] for record in batches)
    counts = {}
    for record in batches:
        for y, x, count in zip(*(record["defects"][key] for key in ("y", "x", "count")), strict=True):
            counts[y, x] = counts.get((y, x), 0) + count
    few = n_frames < FEWEST_DEFECT_FRAMES
    places = sorted(place for place, count in counts.items() if not few and count >= DEFECT_SHARE * n_frames)
    return {"y": [y for y, _ in places], "x": [x for _, x in places]}


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
