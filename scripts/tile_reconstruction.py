"""Add up the partial sums, in the order of the plan, and say what each tile got."""

import contextlib

import numpy as np

from tilestack import colours, files, job, records, sums
from tilestack import tiles as tile_means
from tilestack.prewarped import bands
from tilestack.records import rounded

BAND_ROWS = 128


def tile_reconstruction(paths, out, *, put_back_share):
    """paths: sums and drizzled (lists by session), records (one a batch), weights, fields (one a session), overlap,
    grid, channels; out: image, drizzled, record."""
    overlap, grid = records.read(paths["overlap"]), records.read(paths["grid"])
    canvas = tuple(overlap["canvas"])
    tiles = tile_means.Means((*overlap["tiles"]["first"], *overlap["tiles"]["shape"]), grid["stride_px"], canvas)
    with (
        contextlib.ExitStack() as stack,
        files.Writer(out["image"], {"LATTY0": canvas[0], "LATTX0": canvas[1]}) as writer,
    ):
        sessions = [
            [sums.Sums(stack.enter_context(files.opened(path))) for path in batches]
            for batches in paths["sums"].values()
        ]
        n_planes = len(sessions[0][0].planes["W2V"])
        shape = (n_planes, *canvas[2:])
        places = {name: writer.reserve(name, shape, sums.INTEGER_PLANES.get(name, "f4")) for name in sums.PLANES}
        for band in bands(canvas, BAND_ROWS):
            planes = sums.planes_of(*sums.add_sessions(sessions, band, put_back_share))
            for name, place in places.items():
                dtype = sums.INTEGER_PLANES.get(name, "f4")
                for k in range(n_planes):
                    first = (k * canvas[2] + band[0] - canvas[0]) * canvas[3]
                    writer.put(place, planes[name][k].astype(dtype), first)
            tiles.add(band, planes)
    drizzled = colour_planes(paths, out["drizzled"], canvas, put_back_share)
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


def colour_planes(paths, path, canvas, put_back_share):
    """Write the colour planes of drizzled sums, where there are any."""
    with contextlib.ExitStack() as stack:
        opened = [[stack.enter_context(files.opened(name)) for name in names] for names in paths["drizzled"].values()]
        sessions = [
            [sums.Sums(hdus, colours.DRIZZLED) for hdus in batches if hdus[0].header["NFRAMES"]] for batches in opened
        ]
        sessions = [batches for batches in sessions if batches]
        if not sessions:
            with files.Writer(path, {"CONTENT": "nothing was to be drizzled", "NFRAMES": 0}):
                return None
        headers = [batch.header for batches in sessions for batch in batches]
        kernel, pixfrac, scale = (headers[0][key] for key in ("DRZKERN", "DRZFRAC", "DRZSCALE"))
        n_frames, area = (np.array([header[key] for header in headers]) for key in ("NFRAMES", "RAWAREA"))
        ratio = colours.noise_ratio(pixfrac, scale * np.sqrt(np.average(area, weights=n_frames)))
        cards = {"DRZKERN": kernel, "DRZFRAC": pixfrac, "DRZSCALE": scale, "NOISERAT": float(ratio)}
        cards["NFRAMES"] = int(n_frames.sum())
        fine = tuple(n * scale for n in canvas)
        pattern = records.read(paths["channels"])["bayer_pattern"]
        with files.Writer(path, {**cards, "LATTY0": fine[0], "LATTX0": fine[1]}) as writer:
            found = colours.write(writer, sessions, fine, pattern, put_back_share)
    return {"kernel": kernel, "pixfrac": pixfrac, "scale": scale, "r_factor": rounded(ratio, 5), **found}


if __name__ == "__main__":
    with job.started(snakemake):
        inputs = snakemake.input
        paths = {key: inputs[key] for key in ("overlap", "grid", "channels")}
        paths |= {key: list(inputs[key]) for key in ("records", "weights", "fields")}
        for key in ("sums", "drizzled"):
            batches = iter(inputs[key])
            paths[key] = {s: [next(batches) for _ in range(n)] for s, n in snakemake.params.n_batches.items()}
        tile_reconstruction(paths, dict(snakemake.output.items()), put_back_share=snakemake.params.put_back_share)
