"""Gather the normalisation of the sessions."""

from collections import Counter

import numpy as np

from tilestack import job, records
from tilestack.records import rounded


def normalization_summary(session_paths, out):
    sessions = [records.read(path) for path in session_paths]
    frames = [frame for session in sessions for frame in session["frames"]]
    scale = records.array([frame["scale"] for frame in frames])
    methods = Counter(frame["scale_method"] for frame in frames)
    warned = {"scaled_by_structure": methods["regression"], "scaled_by_exposure": methods["exposure"]}
    summary = {
        "frames": len(frames),
        "scaled_by_stars": methods["stars"],
        "scale_range": rounded([scale.min(), scale.max()], 4),
        "median_sky_adu": rounded(np.median(records.array([frame["sky_level_adu"] for frame in frames]), axis=0), 5),
    }
    records.write(
        out,
        {
            "phase": 4,
            "phase_name": "NORMALIZATION",
            "status": "ok",
            "summary": summary,
            "channels": sessions[0]["channels"],
            "anchor": sessions[0]["anchor"],
            "warnings": {code: n for code, n in warned.items() if n},
            "sessions": [{"session": session["session"], "gain": session["gain"]} for session in sessions],
            "frames": frames,
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        normalization_summary(snakemake.input.sessions, snakemake.output[0])
