"""Gather the synthetic frames of the sessions: what each stands for."""

import numpy as np

from tilestack import job, records
from tilestack.records import rounded


def synthetic_frames(paths, out):
    """paths: clusters, synthetic, weights (one a session each), global_metrics."""
    sessions = [records.read(path) for path in paths["clusters"]]
    frame_of = {(f["session"], f["file"]): f for f in records.read(paths["global_metrics"])["frames"]}
    frames = []
    for session, synthetic, weights in zip(sessions, paths["synthetic"], paths["weights"], strict=True):
        facts = {frame["cluster"]: frame for frame in records.read(synthetic)["frames"]}
        weight_of = {frame["file"]: np.mean(frame["mean_weight"]) for frame in records.read(weights)["frames"]}
        for cluster in session["clusters"]:
            names = [frame["file"] for frame in session["frames"] if frame["cluster"] == cluster["id"]]
            weight = np.array([weight_of[name] for name in names], float)
            fwhm = records.array([frame_of[session["session"], name]["fwhm_px"] for name in names])
            known = np.isfinite(fwhm)
            wide = np.average(fwhm[known], weights=weight[known]) if known.any() else np.nan
            noise = facts.get(cluster["id"], {}).get("noise_adu")
            frames.append(
                {
                    "cluster": cluster["id"],
                    "session": session["session"],
                    "frames": len(names),
                    "words": cluster["words"],
                    "weight": rounded(weight.sum()),
                    "fwhm_px": rounded(wide, 5),
                    "noise_adu": rounded(noise, 5) if noise is not None else None,
                }
            )
    made = [session for session in sessions if session["status"] == "ok"]
    records.write(
        out,
        {
            "phase": 11,
            "phase_name": "SYNTHETIC_FRAMES",
            "status": "ok" if made else "skipped",
            "reason": None if made else sessions[-1]["reason"],
            "summary": {"synthetic_frames": len(frames) if made else 0},
            "weighting": made[-1]["weighting"] if made else None,
            "frames": frames,
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        inputs = snakemake.input
        lists = ("clusters", "synthetic", "weights")
        synthetic_frames(
            {key: list(value) if key in lists else value for key, value in inputs.items()}, snakemake.output[0]
        )
