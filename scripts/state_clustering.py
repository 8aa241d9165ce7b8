"""Gather the clusters of the sessions."""

from tilestack import job, records

KEPT = ("session", "n_clusters", "silhouette", "stability", "method", "clusters")


def state_clustering(session_paths, out):
    sessions = [records.read(path) for path in session_paths]
    made = [session for session in sessions if session["status"] == "ok"]
    summary = {"clusters": sum(session["n_clusters"] for session in sessions), "clustered_sessions": len(made)}
    records.write(
        out,
        {
            "phase": 10,
            "phase_name": "STATE_CLUSTERING",
            "status": "ok" if made else "skipped",
            "reason": None if made else sessions[-1]["reason"],
            "summary": summary,
            "sessions": [{key: session[key] for key in KEPT} for session in sessions],
            "frames": [{**frame, "session": session["session"]} for session in sessions for frame in session["frames"]],
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        state_clustering(list(snakemake.input), snakemake.output[0])
