"""Weight fields of a session: what its local metrics make of scale, variance, sky and weight over the tiles."""

import numpy as np

from tilestack import files, local, records, sharpness, weights
from tilestack.kernels import coadd

# Frames whose fields are made at a time.
CHUNK = 64


def make(measured, tiles, stride, whole, fits, reference_sky, *, objective, quality_model, profile):
    """Fields of all frames of a session.

    Parameters
    ----------
    measured : Measured
        Or arrays by name like it.
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
    fields : dict of float32 arrays
        ``SCALE``, ``SKY`` (ADU), ``VARIANCE`` (ADU^2, normalised, by lattice area), ``FWHM`` (lattice pixels; the
        same for all channels), ``WEIGHT``: (n, c, ny, nx); ``COVERAGE``: (n, ny, nx).
    spread : dict
        rms of the true local deviations: ``ln_fwhm``, ``ln_t``, ``ln_variance``; and by frame those of its fields:
        ``frame_ln_t``, ``frame_ln_fwhm``; ``mean_weight``: (n, c). ``structure_exponent``: how the slope of structure
        falls with FWHM, NaN where the session does not tell. ``star_tiles``, ``structure_tiles``: tiles of frames whose
        FWHM has stars behind it, and structure alone.
    """
    # Only where a frame has pixels: how far a session's tiles reach on goes with its batches, and must change nothing.
    coverage = np.nan_to_num(measured["COVERAGE"])
    covered = coverage > 0
    shape = (len(whole), len(reference_sky))  # a session may have no usable frame
    scale, typical = (records.array([f[key] for f in whole]).reshape(shape) for key in ("scale", "noise_adu"))
    fwhm = records.array([f["fwhm_px"] for f in whole])
    ln_t, tau2 = weights.shrunk(*_transparency(measured["LN_T"], measured["LN_T_ERROR"], covered))
    ln_fwhm, eps2, with_stars, told = _sharpness(measured, covered, scale, ln_t, fwhm)
    # Raw pixels of a finer scale are more to a lattice pixel: their noise counts by area.
    area, error = (records.array([f[key] for f in whole]) for key in ("area", "error_px"))
    typical = typical * np.sqrt(area)[:, None]
    log_variance = measured["NOISE"] * np.sqrt(area)[:, None, None, None]
    log_variance /= typical[:, :, None, None]
    np.log(log_variance, out=log_variance)
    log_variance *= 2
    log_variance, beta2 = _variances(log_variance, covered)

    if quality_model == "zscore":
        score = _score(measured, scale, ln_t, fwhm, ln_fwhm, area, with_stars, whole)
    smooth = local.sky_to_tiles(reference_sky, tiles, stride)
    fields = {name: np.empty((*shape, *tiles[2:]), np.float32) for name in coadd.FIELDS}
    mean_weight = np.empty(shape)
    width = fwhm[:, None, None] * np.exp(ln_fwhm)
    smeared = weights.smeared(width, error[:, None, None], np.sqrt(area)[:, None, None])
    smeared = weights.typical_where_unknown(smeared)  # of all frames, before they are taken in turn
    for first in range(0, len(whole), CHUNK):
        k = slice(first, first + CHUNK)
        t = scale[k, :, None, None] * np.exp(ln_t[k])[:, None]
        variance = typical[k, :, None, None] ** 2 * np.exp(log_variance[k])
        if quality_model == "zscore":
            weight = records.array([f["weight"] for f in whole[k]]).reshape(-1, shape[1])[:, :, None, None]
            weight = weight * np.exp(score[k])
        else:
            weight = weights.physical(t, variance, smeared[k, None], objective)
        if profile == "practical":
            weight = np.broadcast_to(np.exp(np.log(weight).mean(1, keepdims=True)), t.shape)
        for m, fit in enumerate(fits[k]):
            # With the local scale the sky must come out as it did with the frame's.
            shift = (scale[first + m][:, None, None] - t[m]) * smooth
            fields["SKY"][first + m] = local.sky_to_tiles(fit["sky"], tiles, stride) + shift
        fields["SCALE"][k], fields["VARIANCE"][k], fields["WEIGHT"][k] = t, variance / t**2, weight
        fields["FWHM"][k] = width[k, None]
        mean_weight[k] = weight.mean((2, 3))
    fields["COVERAGE"] = coverage.astype(np.float32)
    spread = {"ln_fwhm": np.sqrt(eps2), "ln_t": np.sqrt(tau2), "ln_variance": np.sqrt(beta2)}
    return fields, spread | {
        "mean_weight": mean_weight,
        "frame_ln_t": ln_t.std((1, 2)),
        "frame_ln_fwhm": ln_fwhm.std((1, 2)),
        **told,
    }


def _transparency(ln_t, error, covered):
    """Mean of the channels by their errors, and its error: clouds are grey."""
    precision = error**-2.0
    total = np.nansum(precision, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(precision * ln_t, axis=1) / total
        return np.where((total > 0) & covered, mean, np.nan), np.where(total > 0, total**-0.5, np.nan)


def _sharpness(measured, covered, scale, ln_t, fwhm):
    """Local deviations of ln FWHM, by stars and structure, and the variance of the true ones; which tiles have stars;
    and what ``spread`` says of it."""
    of_stars = np.where(covered, measured["LN_FWHM"], np.nan), measured["LN_FWHM_ERROR"]
    structure, its_error, exponent = sharpness.from_structure(
        measured["STRUCTURE"],
        measured["STRUCTURE_ERROR"],
        np.log(scale)[:, :, None, None] + ln_t[:, None],
        np.log(fwhm),
    )
    its_error = sharpness.error_by_stars(structure, its_error, *of_stars)
    with_stars = np.isfinite(of_stars[0])
    alone = np.isfinite(structure + its_error) & ~with_stars & covered
    width, width_error = sharpness.combined(*of_stars, structure, its_error)
    ln_fwhm, eps2 = weights.shrunk(np.where(covered, width, np.nan), width_error)
    told = {
        "structure_exponent": exponent,
        "star_tiles": int(with_stars.sum()),
        "structure_tiles": int(alone.sum()),
    }
    return ln_fwhm, eps2, with_stars, told


def _score(measured, scale, ln_t, fwhm, ln_fwhm, area, with_stars, whole):
    """Local score of the ``zscore`` model: over the tiles of all frames at once."""
    t = scale[:, :, None, None] * np.exp(ln_t)[:, None]
    noise = measured["NOISE"] * np.sqrt(area)[:, None, None, None]
    width = fwhm[:, None, None] * np.exp(ln_fwhm)
    roundness = records.array([f["roundness"] for f in whole])[:, None, None, None]
    return weights.zscore_local(
        np.broadcast_to(width[:, None], t.shape),
        np.broadcast_to(roundness, t.shape),
        t / noise,
        measured["ENERGY"] / noise**2,
        measured["SKY"] / t,
        np.broadcast_to(with_stars[:, None], t.shape),
    )


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
    change, steps = np.empty_like(log_variance), []
    pattern = np.empty(log_variance.shape[1:])
    for c in range(len(pattern)):
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(covered, log_variance[:, c], 0.0).sum(0) / covered.sum(0)
        pattern[c] = np.where(covered.any(0), mean, log_variance[:, c].mean(0))
        change[:, c] = np.where(covered, log_variance[:, c] - pattern[c], 0.0)
        # Neighbours measure the noise from other pixels: how they differ tells the error of one.
        step = (change[:, c, :, 1:] - change[:, c, :, :-1])[covered[..., 1:] & covered[..., :-1]]
        steps.append(np.abs(step))
    steps = np.concatenate(steps)
    single = np.median(steps) / 0.6745 / np.sqrt(2) if steps.size else 0.0
    del steps
    n_near = np.maximum(_sum_of_nine(covered.astype(float)), 1)
    for c in range(len(pattern)):
        change[:, c] = np.where(covered, _sum_of_nine(change[:, c]) / n_near, np.nan)
    error = np.where(covered, single / np.sqrt(n_near), np.nan)
    shrunk, beta2 = weights.shrunk(change, np.broadcast_to(error[:, None], change.shape))
    shrunk += pattern
    return shrunk, beta2


def _sum_of_nine(values):
    """Sum over 3x3 neighbours along the last two axes; 0 beyond the rims."""
    padded = np.pad(values, [(0, 0), (1, 1), (1, 1)])
    ny, nx = values.shape[-2:]
    return sum(padded[..., j : j + ny, i : i + nx] for j in range(3) for i in range(3))


class Measured:
    """Metrics of the batches of a session on its tile range, by name: (n, ...) float64 arrays, NaN outside of a batch.

    Each is read when it is asked for, so that memory holds few at a time.

    Parameters
    ----------
    paths : list of path
        Local metrics of the batches.

    Attributes
    ----------
    tiles : (int, int, int, int)
        As in ``lattice``.
    grid : dict
        ``TILEPX``, ``STRIDEPX``.
    """

    def __init__(self, paths):
        self.paths, self.ranges, lengths = paths, [], []
        for path in paths:
            with files.opened(path) as hdus:
                header = hdus[0].header
                self.grid = {key: header[key] for key in ("TILEPX", "STRIDEPX")}
                n, ny, nx = hdus["COVERAGE"].shape
                self.ranges.append((header["TILEY0"], header["TILEX0"], header["TILEY0"] + ny, header["TILEX0"] + nx))
                lengths.append(n)
        # A batch without usable frames has no place of its own.
        some = [r for r, n in zip(self.ranges, lengths, strict=True) if n] or self.ranges[:1]
        (j0, i0), (j1, i1) = np.array(some)[:, :2].min(0), np.array(some)[:, 2:].max(0)
        self.tiles = (int(j0), int(i0), int(j1 - j0), int(i1 - i0))
        self.firsts = np.concatenate([[0], np.cumsum(lengths)]).tolist()

    def __getitem__(self, name):
        j0, i0, ny, nx = self.tiles
        whole = None
        for path, place, first, last in zip(self.paths, self.ranges, self.firsts, self.firsts[1:], strict=False):
            with files.opened(path) as hdus:
                if whole is None:
                    whole = np.full((self.firsts[-1], *hdus[name].shape[1:-2], ny, nx), np.nan)
                if last == first:
                    continue
                wide = whole[first:last]
                wide[..., place[0] - j0 : place[2] - j0, place[1] - i0 : place[3] - i0] = hdus[name].data
            if name in ("NOISE", "SKY"):  # needed everywhere: rims go on outwards
                _push_out(wide, place, (j0, i0))
        return whole


def _push_out(wide, place, first):
    """Repeat the outermost tiles of a batch over the rest of the session's range, in place."""
    ny, nx = wide.shape[-2:]
    rows = np.clip(np.arange(ny), place[0] - first[0], place[2] - first[0] - 1)
    columns = np.clip(np.arange(nx), place[1] - first[1], place[3] - first[1] - 1)
    wide[:] = wide[..., rows[:, None], columns]
