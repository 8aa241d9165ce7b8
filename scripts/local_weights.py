"""Turn the local metrics of a session into fields of scale, variance, sky and weight over the tiles."""

import numpy as np
from tilestack import files, job, local, records, weights
from tilestack.records import rounded


def local_weights(paths, fields_path, record_path, *, objective, quality_model):
    """paths: local and records (one for each batch), normalization, global_metrics."""
    normalized = records.read(paths["normalization"])
    whole = {frame["file"]: frame for frame in records.read(paths["global_metrics"])["frames"]}
    fit_of = {frame["file"]: frame for frame in normalized["frames"]}
    names = [entry["file"] for path in paths["records"] for entry in records.read(path)["frames"]]
    measured, tiles, grid = joined(paths["local"])
    stride = grid["STRIDEPX"]
    shape = (len(names), len(normalized["channels"]))
    scale = records.array([whole[name]["scale"] for name in names]).reshape(shape)
    fwhm = records.array([whole[name]["fwhm_px"] for name in names])

    # Clouds are grey: one field for all channels, from all of them.
    precision = measured["LN_T_ERROR"] ** -2.0
    total = np.nansum(precision, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ln_t = np.nansum(precision * measured["LN_T"], axis=1) / total
        ln_t_error = np.where(total > 0, total**-0.5, np.nan)
    ln_t, tau2 = weights.shrunk(np.where(total > 0, ln_t, np.nan), ln_t_error)
    ln_fwhm, eps2 = weights.shrunk(measured["LN_FWHM"], measured["LN_FWHM_ERROR"])
    noise = measured["NOISE"]
    typical = records.array([whole[name]["noise_adu"] for name in names]).reshape(shape)[:, :, None, None]
    # What a place has in all frames (a nebula, a corner) gains nothing: only what changes there from frame to frame.
    log_variance = 2 * np.log(noise / typical)
    beta2 = float(np.nanvar(log_variance - log_variance.mean(0))) if len(names) > 1 else 0.0

    t = scale[:, :, None, None] * np.exp(ln_t)[:, None]
    width = (fwhm[:, None, None] * np.exp(ln_fwhm))[:, None]
    sky = np.zeros_like(t)
    smooth = local.sky_to_tiles(normalized["reference_sky"], tiles, stride)
    for k, name in enumerate(names):
        # With the local scale the sky must come out as it did with the frame's.
        shift = (scale[k][:, None, None] - t[k]) * smooth
        sky[k] = local.sky_to_tiles(fit_of[name]["sky"], tiles, stride) + shift
    if quality_model == "zscore":
        weight = records.array([whole[name]["weight"] for name in names]).reshape(shape)[:, :, None, None]
        weight = np.broadcast_to(weight, t.shape)
    else:
        weight = weights.physical(t, noise**2, np.broadcast_to(width, t.shape), objective)
    fields = {
        "SCALE": t,
        "SKY": sky,
        "VARIANCE": noise**2 / t**2,
        "PIXEL_VARIANCE": measured["PIXEL_NOISE"] ** 2 / t**2,
        "WEIGHT": weight,
        "FWHM": np.broadcast_to(width, t.shape)[:, 0],
        "COVERAGE": np.nan_to_num(measured["COVERAGE"]),
    }
    cards = {**grid, "TILEY0": tiles[0], "TILEX0": tiles[1], "NFRAMES": len(names)}
    with files.Writer(fields_path, cards) as writer:
        for name, values in fields.items():
            writer.append(name, np.asarray(values, np.float32))
    records.write(
        record_path,
        {
            "session": normalized["session"],
            "channels": normalized["channels"],
            "tiles": {"first": tiles[:2], "shape": tiles[2:]},
            "rms_ln_fwhm": rounded(np.sqrt(eps2), 4),
            "rms_ln_t": rounded(np.sqrt(tau2), 4),
            "rms_ln_variance": rounded(np.sqrt(beta2), 4),
            # Gain in squared S/N of local weights over one weight a frame (docs/method.md).
            "predicted_gain": rounded(eps2 + tau2 + beta2, 4),
            "frames": [
                {
                    **{key: whole[name][key] for key in ("file", "session", "batch", "index", "exposure_s")},
                    "mean_weight": rounded(weight[k].mean((1, 2))),
                    "rms_ln_t": rounded(ln_t[k].std(), 4),
                    "rms_ln_fwhm": rounded(ln_fwhm[k].std(), 4),
                }
                for k, name in enumerate(names)
            ],
        },
    )


def joined(paths):
    """Metrics of the batches on the tile range of the session: (n, ...) arrays, NaN outside of a batch."""
    parts, ranges, grid = [], [], {}
    for path in paths:
        with files.opened(path) as hdus:
            header = hdus[0].header
            parts.append({hdu.name: np.asarray(files.pixels(hdu), float) for hdu in hdus[1:]})
            grid = {key: header[key] for key in ("TILEPX", "STRIDEPX")}
            ny, nx = hdus["COVERAGE"].shape[-2:]
            ranges.append((header["TILEY0"], header["TILEX0"], header["TILEY0"] + ny, header["TILEX0"] + nx))
    # A batch without usable frames has no place of its own.
    with_frames = [r for r, part in zip(ranges, parts, strict=True) if len(part["COVERAGE"])] or ranges[:1]
    (j0, i0), (j1, i1) = np.array(with_frames)[:, :2].min(0), np.array(with_frames)[:, 2:].max(0)
    whole = {name: [] for name in parts[0]}
    for part, place in zip(parts, ranges, strict=True):
        if not len(part["COVERAGE"]):
            place = with_frames[0]
            part = {
                name: np.zeros((*v.shape[:-2], place[2] - place[0], place[3] - place[1])) for name, v in part.items()
            }
        for name, values in part.items():
            wide = np.full((*values.shape[:-2], j1 - j0, i1 - i0), np.nan)
            wide[..., place[0] - j0 : place[2] - j0, place[1] - i0 : place[3] - i0] = values
            if name in ("NOISE", "PIXEL_NOISE", "SKY"):  # needed everywhere: rims go on outwards
                wide = pushed_out(wide, place, (j0, i0))
            whole[name].append(wide)
    tiles = (int(j0), int(i0), int(j1 - j0), int(i1 - i0))
    return {name: np.concatenate(values) for name, values in whole.items()}, tiles, grid


def pushed_out(wide, place, first):
    """Repeat the outermost tiles of a batch over the rest of the session's range."""
    ny, nx = wide.shape[-2:]
    rows = np.clip(np.arange(ny), place[0] - first[0], place[2] - first[0] - 1)
    columns = np.clip(np.arange(nx), place[1] - first[1], place[3] - first[1] - 1)
    return wide[..., rows[:, None], columns]


if __name__ == "__main__":
    with job.started(snakemake):
        inputs = snakemake.input
        paths = {key: inputs[key] for key in ("normalization", "global_metrics")}
        paths |= {key: list(inputs[key]) for key in ("local", "records")}
        local_weights(
            paths,
            snakemake.output.fields,
            snakemake.output.record,
            objective=snakemake.params.objective,
            quality_model=snakemake.params.quality_model,
        )
