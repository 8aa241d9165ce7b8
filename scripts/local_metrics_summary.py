"""Gather what local weights found in the sessions."""

from tilestack import job, records


def local_metrics_summary(session_paths, out):
    sessions = [records.read(path) for path in session_paths]
    changes = ("rms_ln_fwhm", "rms_ln_t", "rms_ln_variance", "predicted_gain")
    kept = ("session", "tiles", *changes, "star_tiles", "structure_tiles", "structure_exponent")
    best = max(session["predicted_gain"] for session in sessions)
    records.write(
        out,
        {
            "phase": 8,
            "phase_name": "LOCAL_METRICS",
            "status": "ok",
            "summary": {"predicted_gain": best, "local_weights_matter": best >= 0.003},
            "channels": sessions[0]["channels"],
            "sessions": [{key: session[key] for key in kept} for session in sessions],
            "frames": [frame for session in sessions for frame in session["frames"]],
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        local_metrics_summary(snakemake.input.sessions, snakemake.output[0])
