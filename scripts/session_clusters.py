"""Group the frames of a session by state, where the run is long enough up to it."""

from tilestack import job, records
from tilestack.records import rounded


def session_clusters(paths, out, *, clustering):
    """paths: global_metrics, weights, registrations (of the sessions up to this one); clustering: count_range, count,
    fewest (frames up to this session; none needed: 0), weighting; or none, with its reason in place of it."""
    whole, local = records.read(paths["global_metrics"]), records.read(paths["weights"])
    names = [frame["file"] for frame in local["frames"]]
    registrations = [records.read(path)["frames"] for path in paths["registrations"]]
    usable = sum(frame["status"] != "excluded" for frames in registrations for frame in frames)
    reason = clustering if isinstance(clustering, str) else None
    if reason is None and usable < clustering["fewest"]:
        reason = "reduced_mode"
    if reason is None and not names:
        reason = "no_frames"
    record = {"session": local["session"], "status": "skipped", "reason": reason, "usable_so_far": usable}
    labels, clusters, how = [0] * len(names), [{"size": len(names), "words": "all frames", "mean": {}}], {}
    if reason is None:
        from tilestack import clustering as states  # scikit-learn: a second that reduced mode need not wait

        whole_of = {frame["file"]: frame for frame in whole["frames"]}
        turned = {frame["file"]: frame["rotation_deg"] for frame in registrations[-1]}
        vectors = states.states(
            [whole_of[name] for name in names], local["frames"], records.array([turned[name] for name in names])
        )
        labels, how = states.grouped(vectors, clustering["count_range"], clustering["count"])
        clusters = states.described(vectors, labels)
        record |= {"status": "ok", "weighting": clustering["weighting"]}
    n_clusters = len(clusters) if names else 0
    # One cluster of the weights of the reconstruction is its partial sum: no need to add that up once more.
    split = reason is None and (n_clusters > 1 or clustering["weighting"] == "global")
    records.write(
        out,
        {
            **record,
            "split": split,
            "n_clusters": n_clusters,
            "method": how.get("method", "one"),
            **{key: rounded(how[key], 4) if how.get(key) is not None else None for key in ("silhouette", "stability")},
            "clusters": [{"id": f"{k + 1:02d}", **cluster} for k, cluster in enumerate(clusters[:n_clusters])],
            "frames": [{"file": name, "cluster": f"{labels[k] + 1:02d}"} for k, name in enumerate(names)],
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        inputs = snakemake.input
        paths = {key: inputs[key] for key in ("global_metrics", "weights")}
        session_clusters(
            {**paths, "registrations": list(inputs.registrations)},
            snakemake.output[0],
            clustering=snakemake.params.clustering,
        )
