"""Add up the partial sums, in the order of the plan, and say what each tile got."""

from tilestack import colours, job, records, splitsums, stackfiles, sums
from tilestack import tiles as tile_means
from tilestack.records import rounded


def tile_reconstruction(paths, out, *, put_back_share, source, by_cluster, n_threads=1):
    """paths: sums and drizzled (lists by session), records (one a batch), weights, fields, clusters (one a session),
    overlap, grid, channels; out: record, the files of the stack, and those of the drizzled colours as ..._rgb.
    Where the stack is made of synthetic frames (``stacking.source``), and not as they are added up (by_cluster), the
    drizzled planes but the plain mean are theirs."""
    overlap, grid = records.read(paths["overlap"]), records.read(paths["grid"])
    canvas = tuple(overlap["canvas"])
    tiles = tile_means.Means((*overlap["tiles"]["first"], *overlap["tiles"]["shape"]), grid["stride_px"], canvas)
    of_mosaics, of_drops = (list(paths[key].values()) for key in ("sums", "drizzled"))
    for band, planes in sums.add_up(of_mosaics, stackfiles.of_end(out), canvas, put_back_share, n_threads):
        tiles.add(band, planes)
    pattern = records.read(paths["channels"])["bayer_pattern"]
    source = splitsums.stack_source(source, [records.read(path) for path in paths["clusters"]])
    how = {"means_only": by_cluster and source == "synthetic", "n_threads": n_threads}
    drizzled = colours.add_up(of_drops, stackfiles.of_end(out, "_rgb"), canvas, pattern, put_back_share, **how)
    per_tile = tiles.means()
    by_weights = tile_means.of_weights(paths["fields"], tiles.range)
    # The noise that is there against the noise of one weight a frame by formula.
    by_weights["achieved_gain"] = (1 + by_weights["predicted_gain"]) / per_tile["split_chi2"] - 1
    frames = [
        f | {"session": r["session"], "batch": r["batch"]}
        for r in map(records.read, paths["records"])
        for f in r["frames"]
    ]
    gains = [records.read(path) for path in paths["weights"]]
    whole = tiles.whole()
    records.write(
        out["record"],
        {
            "phase": 9,
            "phase_name": "TILE_RECONSTRUCTION",
            "status": "ok",
            "summary": {key: rounded(whole[key], 4) for key in ("rejected_share", "eta_sb", "mean_frames")},
            "canvas": canvas,
            "drizzled": drizzled,
            "rejected_share": rounded(whole["rejected_share"]),
            "eta_sb": rounded(whole["eta_sb"]),
            "differs_px": whole["differs_px"],
            "saturated_px": whole["saturated_px"],
            "boundary_step": rounded(tiles.boundary_step(), 4),
            "sessions": [
                {key: gain[key] for key in ("session", "rms_ln_fwhm", "rms_ln_t", "rms_ln_variance", "predicted_gain")}
                for gain in gains
            ],
            "tiles": {
                "first": tiles.range[:2],
                "shape": tiles.range[2:],
                **{key: rounded(values, 4) for key, values in (per_tile | by_weights).items()},
            },
            "frames": frames,
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        inputs = snakemake.input
        paths = {key: inputs[key] for key in ("overlap", "grid", "channels")}
        paths |= {key: list(inputs[key]) for key in ("records", "weights", "fields", "clusters")}
        for key in ("sums", "drizzled"):
            batches = iter(inputs[key])
            paths[key] = {s: [next(batches) for _ in range(n)] for s, n in snakemake.params.n_batches.items()}
        tile_reconstruction(
            paths,
            dict(snakemake.output.items()),
            put_back_share=snakemake.params.put_back_share,
            source=snakemake.params.source,
            by_cluster=snakemake.params.by_cluster,
            n_threads=snakemake.threads,
        )
