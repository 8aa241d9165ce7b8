"""Combine the synthetic frames of the run, where the stack is to be made of them."""

import numpy as np

from tilestack import combination, job, records, splitsums, stackfiles


def synthetic_stack(paths, out, *, stacking, rejection, n_threads=1):
    """paths: image and record of TILE_RECONSTRUCTION, frames (synthetic_frames), channels; by session clusters,
    synthetic, and by session and batch sums, flat_drizzled, drizzled_sums; out: record, the files of the stack, and
    those of the drizzled colours as ..._rgb."""
    frames, record = records.read(paths["frames"]), records.read(paths["record"])
    read = [records.read(path) for path in paths["clusters"]]
    source = splitsums.stack_source(stacking["source"], read)
    result = {"source": source, "method": None, "variance_ratio": None, "factors": []}
    if source == "reconstruction":
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
            # A session that is not split has no synthetic frames but its sums; of colours there are only sums.
            written = paths["synthetic"][k] if session["split"] else None
            sums = [(path, path) for path in paths["sums"][k]]
            mosaics.append({"clusters": names, "written": written, "sums": sums})
            sums = list(zip(paths["flat_drizzled"][k], paths["drizzled_sums"][k], strict=True))
            colours.append({"clusters": names, "written": None, "sums": sums})
        step = 2 if pattern else 1
        result["variance_ratio"] = combination.mosaic(
            stackfiles.of_end(out), mosaics, paths, canvas, factor, settings, step, n_threads
        )
        scale = record["drizzled"]["scale"] if record["drizzled"] else 1
        fine = tuple(n * scale for n in canvas)
        of_colours = stackfiles.of_end(out, "_rgb")
        combination.drizzled(of_colours, colours, fine, factor, settings, pattern, n_threads)
        result |= {"method": stacking["method"], "factors": factor}
    records.write(out["record"], result)


def by_session(paths, n_batches):
    """Lists of paths by session, in the order of the plan."""
    paths = iter(paths)
    return [[next(paths) for _ in range(n)] for n in n_batches.values()]


if __name__ == "__main__":
    with job.started(snakemake):
        inputs, params = snakemake.input, snakemake.params
        paths = {key: inputs[key] for key in ("image", "record", "frames", "channels")}
        paths |= {key: list(inputs[key]) for key in ("clusters", "synthetic")}
        by_batch = ("sums", "flat_drizzled", "drizzled_sums")
        paths |= {key: by_session(inputs[key], params.n_batches) for key in by_batch}
        synthetic_stack(
            paths,
            dict(snakemake.output.items()),
            stacking=params.stacking,
            rejection=params.rejection,
            n_threads=snakemake.threads,
        )
