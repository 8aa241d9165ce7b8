"""Add up the partial sums, in the order of the plan, and say what each tile got."""

import contextlib

import numpy as np
from tilestack import files, job, lattice, records, reconstruction
from tilestack.prewarped import bands
from tilestack.records import rounded

BAND_ROWS = 128


def tile_reconstruction(paths, image_path, record_path, *, put_back_share):
    """paths: sums (lists by session), records (one a batch), weights, fields (one a session), overlap, grid."""
    overlap, grid = records.read(paths["overlap"]), records.read(paths["grid"])
    canvas = tuple(overlap["canvas"])
    tiles = Tiles((*overlap["tiles"]["first"], *overlap["tiles"]["shape"]), grid["stride_px"])
    with (
        contextlib.ExitStack() as stack,
        files.Writer(image_path, {"LATTY0": canvas[0], "LATTX0": canvas[1]}) as writer,
    ):
        sessions = [
            [reconstruction.Sums(stack.enter_context(files.opened(path))) for path in batches]
            for batches in paths["sums"].values()
        ]
        n_planes = len(sessions[0][0].planes["W2V"])
        shape = (n_planes, *canvas[2:])
        places = {
            name: writer.reserve(name, shape, reconstruction.INTEGER_PLANES.get(name, "f4"))
            for name in reconstruction.PLANES
        }
        for band in bands(canvas, BAND_ROWS):
            planes = reconstruction.planes_of(*reconstruction.add_sessions(sessions, band, put_back_share))
            for name, place in places.items():
                dtype = reconstruction.INTEGER_PLANES.get(name, "f4")
                for k in range(n_planes):
                    first = (k * canvas[2] + band[0] - canvas[0]) * canvas[3]
                    writer.put(place, planes[name][k].astype(dtype), first)
            tiles.add(band, planes)
    per_tile = tiles.means()
    n_eff, predicted = effective_frames(paths, tiles.range)
    frames = [
        f | {"session": r["session"], "batch": r["batch"]}
        for r in map(records.read, paths["records"])
        for f in r["frames"]
    ]
    gains = [records.read(path) for path in paths["weights"]]
    whole = tiles.whole()
    records.write(
        record_path,
        {
            "phase": 9,
            "phase_name": "TILE_RECONSTRUCTION",
            "status": "ok",
            "summary": {key: rounded(whole[key], 4) for key in ("rejected_share", "eta_sb", "mean_frames")},
            "canvas": canvas,
            "rejected_share": rounded(whole["rejected_share"]),
            "eta_sb": rounded(whole["eta_sb"]),
            "differs_px": whole["differs_px"],
            "saturated_px": whole["saturated_px"],
            "sessions": [
                {key: gain[key] for key in ("session", "rms_ln_fwhm", "rms_ln_t", "rms_ln_variance", "predicted_gain")}
                for gain in gains
            ],
            "tiles": {
                "first": tiles.range[:2],
                "shape": tiles.range[2:],
                **{key: rounded(values, 4) for key, values in per_tile.items()},
                "effective_frames": rounded(n_eff, 4),
                "fwhm_px": rounded(predicted, 4),
            },
            "frames": frames,
        },
    )


class Tiles:
    """Means of planes over tiles: each pixel counts for the tile whose centre is nearest."""

    def __init__(self, tile_range, stride):
        self.range, self.stride = tile_range, stride
        self.sums = {key: np.zeros(tile_range[2:]) for key in ("n", "frames", "rejected", "eta")}
        self.differs = self.saturated = 0

    def add(self, band, planes):
        j, i = (
            np.clip((start + np.arange(n)) // self.stride - first, 0, size - 1)
            for start, n, first, size in zip(band[:2], band[2:], self.range[:2], self.range[2:], strict=True)
        )
        index = (j[:, None] * self.range[3] + i[None]).ravel()
        known = planes["NIM"] > 0
        parts = {
            "n": known,
            "frames": planes["NIM"],
            "rejected": planes["REJ"],
            "eta": np.where(known, np.nan_to_num(planes["ETA"]), 0),
        }
        for key, part in parts.items():
            flat = part.sum(0).ravel().astype(float)
            self.sums[key] += np.bincount(index, flat, self.sums[key].size).reshape(self.sums[key].shape)
        self.differs += int((planes["MASK"] & reconstruction.MASK_BITS["DIFFERS"] > 0).sum())
        self.saturated += int((planes["MASK"] & reconstruction.MASK_BITS["SATURATED"] > 0).sum())

    def means(self):
        with np.errstate(invalid="ignore", divide="ignore"):
            seen = self.sums["frames"] + self.sums["rejected"]
            return {
                "mean_frames": self.sums["frames"] / self.sums["n"],
                "rejected_share": self.sums["rejected"] / seen,
                "eta_sb": self.sums["eta"] / self.sums["n"],
            }

    def whole(self):
        total = {key: values.sum() for key, values in self.sums.items()}
        return {
            "mean_frames": total["frames"] / max(total["n"], 1),
            "rejected_share": total["rejected"] / max(total["frames"] + total["rejected"], 1),
            "eta_sb": total["eta"] / max(total["n"], 1),
            "differs_px": self.differs,
            "saturated_px": self.saturated,
        }


def effective_frames(paths, tile_range):
    """Effective number of frames, (sum w)^2 / sum w^2, and the weighted FWHM of each tile."""
    w, w2, wf = (np.zeros(tile_range[2:]) for _ in range(3))
    for path in paths["fields"]:
        with files.opened(path) as hdus:
            header = hdus[0].header
            j, i = header["TILEY0"] - tile_range[0], header["TILEX0"] - tile_range[1]
            weight = np.asarray(files.pixels(hdus["WEIGHT"]), float).mean(1) * np.asarray(
                files.pixels(hdus["COVERAGE"]), float
            )
            fwhm = np.nan_to_num(np.asarray(files.pixels(hdus["FWHM"]), float))
        ny, nx = weight.shape[1:]
        # Both ranges hold all tiles near a frame of the session; the session's may stand out by a rim.
        ys, xs = slice(max(j, 0), min(j + ny, w.shape[0])), slice(max(i, 0), min(i + nx, w.shape[1]))
        part = (slice(None), slice(ys.start - j, ys.stop - j), slice(xs.start - i, xs.stop - i))
        w[ys, xs] += weight[part].sum(0)
        w2[ys, xs] += (weight[part] ** 2).sum(0)
        wf[ys, xs] += (weight[part] * fwhm[part]).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return w**2 / w2, wf / w


if __name__ == "__main__":
    with job.started(snakemake):
        inputs = snakemake.input
        sums = iter(inputs["sums"])
        paths = {key: inputs[key] for key in ("overlap", "grid")}
        paths |= {key: list(inputs[key]) for key in ("records", "weights", "fields")}
        paths["sums"] = {s: [next(sums) for _ in range(n)] for s, n in snakemake.params.n_batches.items()}
        tile_reconstruction(
            paths,
            snakemake.output.image,
            snakemake.output.record,
            put_back_share=snakemake.params.put_back_share,
        )
