"""Gather the global metrics of the sessions."""

import numpy as np

from tilestack import job, records
from tilestack.records import rounded


def global_metrics_summary(session_paths, out):
    sessions = [records.read(path) for path in session_paths]
    frames = [frame for session in sessions for frame in session["frames"]]
    fwhm = records.array([frame["fwhm_px"] for frame in frames])
    known = fwhm[np.isfinite(fwhm)]
    weight = records.array([frame["weight"] for frame in frames]).mean(1)
    summary = {
        "frames": len(frames),
        "median_fwhm_px": rounded(np.median(known), 4) if known.size else None,
        # Frames of equal weight that would weigh as much as all together.
        "effective_frames": rounded(weight.sum() ** 2 / (weight**2).sum(), 4),
    }
    records.write(
        out,
        {
            "phase": 5,
            "phase_name": "GLOBAL_METRICS",
            "status": "ok",
            "summary": summary,
            **{key: sessions[0][key] for key in ("channels", "quality_model", "objective")},
            "frames": frames,
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        global_metrics_summary(snakemake.input.sessions, snakemake.output[0])
