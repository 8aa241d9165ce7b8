"""Combine the synthetic frames of the run, where the stack is to be made of them."""

import numpy as np

from tilestack import combination, job, records, splitsums, stackfiles


def synthetic_stack(paths, out, *, stacking, rejection, by_cluster, n_threads=1):
    """paths: image and record of TILE_RECONSTRUCTION, frames (synthetic_frames), channels; by session clusters, and by
    session and batch flat, sums, flat_drizzled, drizzled_sums; out: record, the files of the stack, and those of the
    drizzled colours as ..._rgb. Without by_cluster the stack of all synthetic frames is the reconstruction."""
    frames, record = records.read(paths["frames"]), records.read(paths["record"])
    read = [records.read(path) for path in paths["clusters"]]
    source = splitsums.stack_source(stacking["source"], read)
    combined = by_cluster and source == "synthetic"
    method = stacking["method"] if source == "synthetic" else None
    result = {"source": source, "method": method, "combined": combined, "variance_ratio": None, "factors": []}
    if not combined:
        for end in ("", "_rgb"):
            stackfiles.empty(stackfiles.of_end(out, end))
    else:
        weight, size = (np.array([frame[key] for frame in frames["frames"]], float) for key in ("weight", "frames"))
        kappa, cap = (stacking[f"cluster_quality_{key}"] for key in ("kappa", "cap"))
        factor = combination.factors(weight / np.maximum(size, 1), size, kappa, cap)
        pattern, canvas = records.read(paths["channels"])["bayer_pattern"], record["canvas"]
        settings = {**rejection, "method": stacking["method"]}
        mosaics, colours = [], []
        for k, session in enumerate(read):
            names = [cluster["id"] for cluster in session["clusters"]]
            for to, flat, whole in ((mosaics, "flat", "sums"), (colours, "flat_drizzled", "drizzled_sums")):
                to.append({"clusters": names, "sums": list(zip(paths[flat][k], paths[whole][k], strict=True))})
        step = 2 if pattern else 1
        result["variance_ratio"] = combination.mosaic(
            stackfiles.of_end(out), mosaics, paths, canvas, factor, settings, step, n_threads
        )
        scale = record["drizzled"]["scale"] if record["drizzled"] else 1
        fine = tuple(n * scale for n in canvas)
        of_colours = stackfiles.of_end(out, "_rgb")
        combination.drizzled(of_colours, colours, fine, factor, settings, pattern, n_threads)
        result["factors"] = factor
    records.write(out["record"], result)


def by_session(paths, n_batches):
    """Lists of paths by session, in the order of the plan."""
    paths = iter(paths)
    return [[next(paths) for _ in range(n)] for n in n_batches.values()]


if __name__ == "__main__":
    with job.started(snakemake):
        inputs, params = snakemake.input, snakemake.params
        paths = {key: inputs[key] for key in ("image", "record", "frames", "channels")}
        paths["clusters"] = list(inputs["clusters"])
        by_batch = ("flat", "sums", "flat_drizzled", "drizzled_sums")
        paths |= {key: by_session(inputs[key], params.n_batches) for key in by_batch}
        synthetic_stack(
            paths,
            dict(snakemake.output.items()),
            stacking=params.stacking,
            rejection=params.rejection,
            by_cluster=params.by_cluster,
            n_threads=snakemake.threads,
        )
