"""Gather the transforms of the sessions, with drift, dither and rotation."""

from collections import Counter

import numpy as np

from tilestack import job, records
from tilestack.records import rounded

# A move between neighbours in time beyond this is a dither, not drift.
DITHER_PX = 1.0


def registration_summary(reference_path, session_paths, out):
    reference = records.read(reference_path)
    sessions = [records.read(path) for path in session_paths]
    frames = [{key: value for key, value in f.items() if key != "pairs"} for s in sessions for f in s["frames"]]
    used = [frame for frame in frames if frame["status"] != "excluded"]
    methods = Counter(frame["method"] for frame in used)
    matched = [frame for frame in used if frame["method"] not in ("predicted", "none")]
    residuals = [frame["residual_px"] for frame in matched if frame["residual_px"] is not None]
    summary = {
        "frames": len(used),
        "matched": len(matched),
        "predicted": methods["predicted"],
        "unregistered": methods["none"],
        "median_residual_px": rounded(np.median(residuals), 4) if residuals else None,
    }
    records.write(
        out,
        {
            "phase": 1,
            "phase_name": "REGISTRATION",
            "status": "ok",
            "summary": summary,
            "reference": reference["lattice"]["file"],
            "reference_session": reference["lattice"]["session"],
            "photometric_reference": reference["photometric"]["file"],
            "methods": dict(methods),
            "warnings": {
                code: n for code, n in (("not_placed", methods["none"]), ("predicted", methods["predicted"])) if n
            },
            "sessions": [
                {
                    "session": s["session"],
                    "model": s["model"],
                    "distortion": s["distortion"] is not None,
                    **motion(s["frames"]),
                }
                for s in sessions
            ],
            "frames": frames,
        },
    )


def motion(frames):
    """Drift, dither and rotation of a session, from its registered frames in their order."""
    known = [frame for frame in frames if frame["transform"] is not None]
    if not known:
        return {"shift_range_px": None, "rotation_range_deg": None, "median_step_px": None, "dither_share": None}
    shift = np.array([frame["shift_px"] for frame in known])
    angle = np.unwrap(np.radians([frame["rotation_deg"] for frame in known]))
    steps = np.hypot(*np.diff(shift, axis=0).T) if len(known) > 1 else np.zeros(1)
    return {
        "shift_range_px": rounded(np.ptp(shift, axis=0), 5),
        "rotation_range_deg": rounded(np.degrees(np.ptp(angle)), 5),
        "median_step_px": rounded(np.median(steps), 4),
        "dither_share": rounded((steps > DITHER_PX).mean(), 4),
    }


if __name__ == "__main__":
    with job.started(snakemake):
        registration_summary(snakemake.input.reference, snakemake.input.sessions, snakemake.output[0])
