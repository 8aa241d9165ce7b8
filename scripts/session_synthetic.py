"""One frame a cluster of a session: the weighted mean of its frames, with what it takes to combine it with others."""

from tilestack import job, records, splitsums, synthetic


def session_synthetic(paths, out, *, put_back_share, n_threads=1):
    """paths: record (of the clusters); clusters, sums, drizzled_clusters, drizzled_sums (a list each); out: image,
    drizzled, record."""
    record = records.read(paths["record"])
    names = [cluster["id"] for cluster in record["clusters"]] if record["split"] else []
    kinds = {
        "image": ("clusters", "sums", splitsums.MOSAIC),
        "drizzled": ("drizzled_clusters", "drizzled_sums", splitsums.DRIZZLED),
    }
    made = {}
    for key, (clusters, wholes, kind) in kinds.items():
        batches = list(zip(paths[clusters], paths[wholes], strict=True)) if names else []
        made[key] = synthetic.write(out[key], batches, names, kind, put_back_share, n_threads)
    records.write(
        out["record"],
        {
            "session": record["session"],
            "status": "ok" if names else "skipped",
            "reason": None if names else "the session is one frame: its partial sums",
            "frames": [{"cluster": name, **facts} for name, facts in zip(names, made["image"], strict=True)],
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        lists = ("clusters", "sums", "drizzled_clusters", "drizzled_sums")
        session_synthetic(
            {key: list(value) if key in lists else value for key, value in snakemake.input.items()},
            dict(snakemake.output.items()),
            put_back_share=snakemake.params.put_back_share,
            n_threads=snakemake.threads,
        )
