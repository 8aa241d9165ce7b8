"""One frame a cluster of a session: the weighted mean of its frames, with what it takes to combine it with others."""

from tilestack import job, records, synthetic


def session_synthetic(paths, out, *, put_back_share, n_threads=1):
    """paths: record (of the clusters); flat, sums (a list each); out: image, record."""
    record = records.read(paths["record"])
    names = [cluster["id"] for cluster in record["clusters"]] if record["split"] else []
    batches = list(zip(paths["flat"], paths["sums"], strict=True)) if names else []
    made = synthetic.write(out["image"], batches, names, put_back_share, n_threads)
    records.write(
        out["record"],
        {
            "session": record["session"],
            "status": "ok" if names else "skipped",
            "reason": None if names else "the session is one frame: its partial sums",
            "frames": [{"cluster": name, **facts} for name, facts in zip(names, made, strict=True)],
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        lists = ("flat", "sums")
        session_synthetic(
            {key: list(value) if key in lists else value for key, value in snakemake.input.items()},
            dict(snakemake.output.items()),
            put_back_share=snakemake.params.put_back_share,
            n_threads=snakemake.threads,
        )
