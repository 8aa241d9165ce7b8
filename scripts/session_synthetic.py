"""One frame a cluster of a session: the weighted mean of its frames, with what it takes to combine it with others."""

from tilestack import job, records, splitsums, synthetic


def session_synthetic(paths, out, *, put_back_share):
    """paths: record (of the clusters), clusters, drizzled_clusters (a list each); out: image, drizzled, record."""
    record = records.read(paths["record"])
    names = [cluster["id"] for cluster in record["clusters"]] if record["split"] else []
    kinds = {"image": ("clusters", splitsums.MOSAIC), "drizzled": ("drizzled_clusters", splitsums.DRIZZLED)}
    made = {
        key: synthetic.write(out[key], paths[files] if names else [], names, kind, put_back_share)
        for key, (files, kind) in kinds.items()
    }
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
        lists = ("clusters", "drizzled_clusters")
        session_synthetic(
            {key: list(value) if key in lists else value for key, value in snakemake.input.items()},
            dict(snakemake.output.items()),
            put_back_share=snakemake.params.put_back_share,
        )
