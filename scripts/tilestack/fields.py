"""Weight fields of a session: what its local metrics make of scale, variance, sky and weight over the tiles."""

import numpy as np

from tilestack import files, local, records, sharpness, weights


def make(measured, tiles, stride, whole, fits, reference_sky, *, objective, quality_model, profile):
    """Fields of all frames of a session.

    Parameters
    ----------
    measured : dict
        From ``joined``.
    tiles, stride
        As in ``lattice``.
    whole, fits : lists of dict
        Entries of the global metrics and of the normalisation of the frames.
    reference_sky : list of dict
        Smooth sky of the reference by channel (``sky.fit``).
    objective, quality_model, profile : str
        As in the configuration.

    Returns
    -------
    fields : dict
        ``SCALE``, ``SKY`` (ADU), ``VARIANCE`` (ADU^2, normalised, by lattice area), ``FWHM`` (lattice pixels; the
        same for all channels), ``WEIGHT``: (n, c, ny, nx); ``COVERAGE``: (n, ny, nx).
    spread : dict
        rms of the true local deviations: ``ln_fwhm``, ``ln_t``, ``ln_variance``; and by frame those of its fields:
        ``frame_ln_t``, ``frame_ln_fwhm``. ``structure_exponent``: how the slope of structure falls with FWHM, NaN where
        the session does not tell. ``star_tiles``, ``structure_tiles``: tiles of frames whose FWHM has stars behind it,
        and structure alone.
    """
    # Only where a frame has pixels: how far a session's tiles reach on goes with its batches, and must change nothing.
    covered = np.nan_to_num(measured["COVERAGE"]) > 0
    shape = (len(whole), len(reference_sky))  # a session may have no usable frame
    scale, typical = (records.array([f[key] for f in whole]).reshape(shape) for key in ("scale", "noise_adu"))
    fwhm = records.array([f["fwhm_px"] for f in whole])
    # Clouds are grey: one field for all channels, from all of them.
    precision = measured["LN_T_ERROR"] ** -2.0
    total = np.nansum(precision, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ln_t = np.nansum(precision * measured["LN_T"], axis=1) / total
        ln_t_error = np.where(total > 0, total**-0.5, np.nan)
    ln_t, tau2 = weights.shrunk(np.where((total > 0) & covered, ln_t, np.nan), ln_t_error)
    of_stars = np.where(covered, measured["LN_FWHM"], np.nan), measured["LN_FWHM_ERROR"]
    structure, its_error, exponent = sharpness.from_structure(
        measured["STRUCTURE"],
        measured["STRUCTURE_ERROR"],
        np.log(scale)[:, :, None, None] + ln_t[:, None],
        np.log(fwhm),
    )
    its_error = sharpness.error_by_stars(structure, its_error, *of_stars)
    width, width_error = sharpness.combined(*of_stars, structure, its_error)
    with_stars = np.isfinite(of_stars[0])
    ln_fwhm, eps2 = weights.shrunk(np.where(covered, width, np.nan), width_error)
    # Raw pixels of a finer scale are more to a lattice pixel: their noise counts by area.
    area, error = (records.array([f[key] for f in whole]) for key in ("area", "error_px"))
    noise = measured["NOISE"] * np.sqrt(area)[:, None, None, None]
    typical = typical * np.sqrt(area)[:, None]
    log_variance, beta2 = _variances(2 * np.log(noise / typical[:, :, None, None]), covered)
    variance = typical[:, :, None, None] ** 2 * np.exp(log_variance)

    t = scale[:, :, None, None] * np.exp(ln_t)[:, None]
    width = (fwhm[:, None, None] * np.exp(ln_fwhm))[:, None]
    sky = np.zeros_like(t)
    smooth = local.sky_to_tiles(reference_sky, tiles, stride)
    for k, fit in enumerate(fits):
        # With the local scale the sky must come out as it did with the frame's.
        shift = (scale[k][:, None, None] - t[k]) * smooth
        sky[k] = local.sky_to_tiles(fit["sky"], tiles, stride) + shift
    if quality_model == "zscore":
        weight = records.array([f["weight"] for f in whole]).reshape(shape)[:, :, None, None]
        roundness = np.broadcast_to(records.array([f["roundness"] for f in whole])[:, None, None, None], t.shape)
        score = weights.zscore_local(
            np.broadcast_to(width, t.shape),
            roundness,
            t / noise,
            measured["ENERGY"] / noise**2,
            measured["SKY"] / t,
            np.broadcast_to(with_stars[:, None], t.shape),
        )
        weight = weight * np.exp(score)
    else:
        smeared = weights.smeared(width, *(v[:, None, None, None] for v in (error, np.sqrt(area))))
        weight = weights.physical(t, variance, np.broadcast_to(smeared, t.shape), objective)
    if profile == "practical":
        weight = np.broadcast_to(np.exp(np.log(weight).mean(1, keepdims=True)), t.shape)
    fields = {
        "SCALE": t,
        "SKY": sky,
        "VARIANCE": variance / t**2,
        "FWHM": np.broadcast_to(width, t.shape),
        "WEIGHT": weight,
        "COVERAGE": np.nan_to_num(measured["COVERAGE"]),
    }
    spread = {"ln_fwhm": np.sqrt(eps2), "ln_t": np.sqrt(tau2), "ln_variance": np.sqrt(beta2)}
    structure_alone = np.isfinite(structure + its_error) & ~with_stars & covered
    return fields, spread | {
        "frame_ln_t": ln_t.std((1, 2)),
        "frame_ln_fwhm": ln_fwhm.std((1, 2)),
        "structure_exponent": exponent,
        "star_tiles": int(with_stars.sum()),
        "structure_tiles": int(structure_alone.sum()),
    }


def _variances(log_variance, covered):
    """Local logarithms of the variance, of which what is error is drawn in; and the variance of the true ones.

    What a place has in all frames (a nebula, a corner) stays: it weighs on all alike. What changes there from frame to
    frame is the mean over 3x3 tiles, shrunk: an error of 5 % in the variance of a tile would cost 0.25 % of S/N^2.

    Parameters
    ----------
    log_variance : (n, c, ny, nx) float64 array
        Relative to the frame.
    covered : (n, ny, nx) bool array
    """
    if len(log_variance) < 2:
        return log_variance, 0.0
    known = np.broadcast_to(covered[:, None], log_variance.shape)
    values = np.where(known, log_variance, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        pattern = values.sum(0) / known.sum(0)
    pattern = np.where(known.any(0), pattern, log_variance.mean(0))
    change = np.where(known, log_variance - pattern, 0.0)
    # Neighbours measure the noise from other pixels: how they differ tells the error of one.
    step = (change[..., 1:] - change[..., :-1])[known[..., 1:] & known[..., :-1]]
    single = np.median(np.abs(step)) / 0.6745 / np.sqrt(2) if step.size else 0.0
    n_near, total = _sum_of_nine(known.astype(float)), _sum_of_nine(change)
    mean = np.where(known, total / np.maximum(n_near, 1), np.nan)
    shrunk, beta2 = weights.shrunk(mean, np.where(known, single / np.sqrt(np.maximum(n_near, 1)), np.nan))
    return pattern + shrunk, beta2


def _sum_of_nine(values):
    """Sum over 3x3 neighbours along the last two axes; 0 beyond the rims."""
    padded = np.pad(values, [(0, 0), (0, 0), (1, 1), (1, 1)])
    ny, nx = values.shape[-2:]
    return sum(padded[..., j : j + ny, i : i + nx] for j in range(3) for i in range(3))


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
            if name in ("NOISE", "SKY"):  # needed everywhere: rims go on outwards
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
