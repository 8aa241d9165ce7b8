"""STACKING from synthetic frames: their combination by accumulated weight, with rejection among them by choice."""

import contextlib

import numpy as np
from astropy.io import fits

from tilestack import bayer, colours, masks, splitsums, stackfiles, sums, synthetic, threads
from tilestack.kernels import coadd, drizzle
from tilestack.kernels import combination as kernel
from tilestack.prewarped import bands

# Plain and inverse-variance mean know no clusters: those of the reconstruction are those of the combination.
PLANES = [name for name in stackfiles.FILE_OF if name not in ("MEAN", "IVAR")]
# Rows around a band that rejection looks at: neighbours of one colour.
HALO = 2
# Rows of the colours at a time.
BAND_ROWS = 32
# With fewer frames at a pixel there is no majority.
FEWEST_TO_REJECT = 3


def factors(weights, sizes, kappa, cap):
    """Extra factor exp(kappa Q) of each synthetic frame, at most 1.

    Parameters
    ----------
    weights, sizes : (n,) float64 arrays
        Mean weight of the frames of each cluster, and their number. Q is its logarithm: that of a cluster of twice the
        weight, deeper or sharper, is larger by ln 2.
    kappa, cap : float
        ``stacking.cluster_quality_kappa``, and the largest ratio of two factors.
    """
    known = (weights > 0) & (sizes > 0)
    quality = np.log(np.where(known, weights, weights[known].min(initial=np.inf) if known.any() else 1.0))
    result = np.exp(kappa * (quality - quality.max(initial=-np.inf)))
    return np.maximum(result, 1 / cap)


def combined(parts, factor, method, options, step):
    """Sums over synthetic frames.

    Parameters
    ----------
    parts : list of synthetic.Frames
        By session, in a band of the canvas; rejection looks at HALO rows above and below.
    factor : (n,) float64 array
        Of each synthetic frame.
    method : str
        ``weighted``; ``rej``, the same without frames that differ; ``average``, by number of frames.
    options : dict
        ``kappa`` and ``range_tolerance`` of the rejection.
    step : int
        Pixels between neighbours of one colour.

    Returns
    -------
    values : dict of str to (channels, h, w) float64 array
        By the names of the sums; as if the weights of all pixels had the factor.
    n, rejected : (channels, h, w) int64 arrays
        Frames that count, and those that do not.
    mask : (channels, h, w) int16 array
    """
    n, rejected, bare = (_joined([getattr(part, key) for part in parts]) for key in ("n", "rejected", "bare"))
    mask = np.bitwise_or.reduce([part.mask for part in parts]) & masks.DIFFERS
    # Saturated samples count only where there is nothing else.
    clean = (n > 0) & ~bare
    used = np.where(clean.any(0), clean, n > 0)
    values = {name: _joined([part.values[name] for part in parts]) for name in parts[0].values}
    factor = factor[:, None, None, None]
    if method == "rej":
        out = outliers(values, (values["W_EVEN"] + values["W_ODD"]) * factor, used, options, step)
        rejected = rejected + np.where(out, n, 0)
        used &= ~out
    elif method == "average":
        weight = values["W_EVEN"] + values["W_ODD"]
        factor = factor * n / np.where(weight > 0, weight, 1.0)
    factor = np.where(used, factor, 0.0)
    powers = {"EXPOSURE": used, "A": used, **dict.fromkeys(("W2V", "W2V_EVEN", "W2V_ODD"), factor**2)}
    totals = {name: kernel.weighted_sum(value, powers.get(name, factor)) for name, value in values.items()}
    counted = np.where(used, n, 0).sum(0)
    mask = mask | np.where((used & bare).any(0), masks.SATURATED, 0) | np.where(counted == 0, masks.NO_DATA, 0)
    return totals, counted, rejected.sum(0), mask.astype(np.int16)


def _joined(parts):
    """Arrays one after the other; a single one as it is."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def outliers(values, weight, used, options, step):
    """Which synthetic frames differ from the weighted median by more than their known variances allow.

    The limit is ``kappa`` times the root of the variance of the frame, that of the median (pi / 2 of that of the mean),
    and the square of a share of the range in 3x3 neighbours of one colour, as clusters differ in seeing. Where those
    beyond it would hold half of the weight all are kept.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        own = np.where(used, values["W_EVEN"] + values["W_ODD"], np.nan)
        image = (values["WY_EVEN"] + values["WY_ODD"]) / own
        squares = values["W2V"] if "W2V" in values else values["W2V_EVEN"] + values["W2V_ODD"]
        variance = squares / own**2
        weight = np.where(used, weight, 0.0)
        middle = weighted_median(image, weight)
        of_middle = np.pi / 2 * (weight**2 * np.nan_to_num(variance)).sum(0) / weight.sum(0) ** 2
        spread = neighbour_range(middle, step)
        allowed = options["kappa"] ** 2 * (variance + of_middle + (options["range_tolerance"] * spread) ** 2)
        out = used & ((image - middle) ** 2 > allowed)
    too_many = (weight * out).sum(0) >= 0.5 * weight.sum(0)
    return out & ~too_many & (used.sum(0) >= FEWEST_TO_REJECT)


def weighted_median(image, weight):
    """Along the first axis: the value at which half of the weight is reached; NaN counts as no value."""
    filled = np.where(np.isfinite(image), image, np.inf)
    order = np.argsort(filled, axis=0, kind="stable")
    share = np.cumsum(np.take_along_axis(np.where(np.isfinite(image), weight, 0.0), order, 0), axis=0)
    at = (share >= 0.5 * share[-1]).argmax(0)
    found = np.take_along_axis(np.take_along_axis(filled, order, 0), at[None], 0)[0]
    return np.where(share[-1] > 0, found, np.nan)


def neighbour_range(image, step):
    """Largest less smallest of 3x3 neighbours at a distance along the last two axes; NaN is passed over."""
    padded = np.pad(image, [(0, 0)] * (image.ndim - 2) + [(step, step)] * 2, constant_values=np.nan)
    h, w = image.shape[-2:]
    shifted = [padded[..., y : y + h, x : x + w] for y in (0, step, 2 * step) for x in (0, step, 2 * step)]
    low, high = (np.full(image.shape, sign * np.inf) for sign in (1, -1))
    for values in shifted:
        low, high = np.fmin(low, values), np.fmax(high, values)
    return np.where(high >= low, high - low, 0.0)


class Source:
    """Synthetic frames of a run.

    Parameters
    ----------
    stack : contextlib.ExitStack
    sessions : list of dict
        ``clusters`` (names), and of its batches ``sums``, the paths as ``synthetic.Session`` takes them.
    kind : splitsums.Kind
    put_back_share : float
    """

    def __init__(self, stack, sessions, kind, put_back_share):
        read = [
            synthetic.Session(stack, session["sums"], session["clusters"], kind, put_back_share) for session in sessions
        ]
        self.sessions = [(k, session) for k, session in enumerate(read) if session.n_channels]
        self.sizes = [len(session["clusters"]) for session in sessions]
        self.kind = kind

    @property
    def n_channels(self):
        return self.sessions[0][1].n_channels if self.sessions else 0

    def rows(self, width):
        return synthetic.n_rows(self.kind, sum(len(s.clusters) for _, s in self.sessions), self.n_channels, width)

    def add(self, band, names, factor, settings, step):
        """``combined`` in a band: the sums in the order of `names` (s, channels, h, w), 0 where they are not kept."""
        halo = HALO if settings["method"] == "rej" else 0
        wide = (band[0] - halo, band[1], band[2] + 2 * halo, band[3])
        edges = np.concatenate([[0], np.cumsum(self.sizes)])
        mine = np.concatenate([factor[edges[k] : edges[k + 1]] for k, _ in self.sessions])
        parts = [session.frames(wide) for _, session in self.sessions]
        values, *others = combined(parts, mine, settings["method"], settings, step)
        inner = (..., slice(halo, halo + band[2]), slice(None))
        sums_of = np.zeros((len(names), self.n_channels, *band[2:]))
        for k, name in enumerate(names):
            if name in values:
                sums_of[k] = values[name][inner]
        return sums_of, *(other[inner] for other in others)


def mosaic(out, sessions, direct, canvas, factor, settings, step, n_threads=1):
    """Write the stack that is the combination of the mosaics.

    Parameters
    ----------
    out : dict of str to path
        Its files, by the keys of ``stackfiles.OF_FILE`` that have PLANES.
    direct : dict of str to path
        The same of the reconstruction.
    sessions : list of dict
        As in ``Source``.
    canvas : (int, int, int, int)
    factor : (n,) float64 array
    settings : dict
        ``method``, ``kappa``, ``range_tolerance``, ``put_back_share``.
    step : int
    n_threads : int

    Returns
    -------
    float
        Mean ratio of the variance of the reconstruction to that of the combination.
    """
    total, n = 0.0, 0
    with contextlib.ExitStack() as stack:
        source = Source(stack, sessions, splitsums.MOSAIC, settings["put_back_share"])
        own = stackfiles.rows(direct, "VAR")
        n_frames = sum(header["NFRAMES"] for header in _headers(sessions))
        image = stack.enter_context(stackfiles.Writer(out, PLANES, 1, canvas, n_frames))

        def made(band):
            values, counts, rejected, mask = source.add(band, coadd.SUMS, factor, settings, step)
            planes = sums.planes_of(values, counts[None], 0.0, rejected, mask)
            here = (band[0] - canvas[0], band[0] - canvas[0] + band[2])
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio = own.read(*here) / planes["VAR"].astype(float)
            return band, planes, ratio[np.isfinite(ratio)]

        for band, planes, ratios in threads.in_order(made, bands(canvas, source.rows(canvas[3])), n_threads):
            image.put(band, planes)
            total, n = total + ratios.sum(), n + len(ratios)
    return float(total / max(n, 1))


def drizzled(out, sessions, canvas, factor, settings, pattern, n_threads=1):
    """Write the stack that is the combination of the drizzled colours; without any, files without images.

    Parameters
    ----------
    canvas : (int, int, int, int)
        In output pixels.
    pattern : str or None
        Bayer pattern of the lattice.
    out, sessions, factor, settings, n_threads
        As in ``mosaic``.
    """
    with contextlib.ExitStack() as stack:
        source = Source(stack, sessions, splitsums.DRIZZLED, settings["put_back_share"])
        if not source.n_channels:
            stackfiles.empty(out)
            return
        density = np.bincount(bayer.channel_cell(pattern).ravel()) / 4
        headers = [header for header in _headers(sessions) if header["NFRAMES"]]
        drop = colours.drop_of(headers)
        written = [name for name in PLANES if stackfiles.FILE_OF[name] in out]
        writer = stackfiles.Writer(out, written, source.n_channels, canvas, colours.most_drops(headers))
        image = stack.enter_context(writer)
        how, rows = (drizzle.SUMS, factor, settings, 1), source.rows(canvas[3])

        def finished(part):
            band, (values, counts, *others) = part
            made = colours.planes_of(values, counts[None], 0.0, *others, density, drop, written)
            return band, {name: plane[:, colours.HALO : -colours.HALO] for name, plane in made.items()}

        added = _with_halo(canvas, lambda band: source.add(band, *how), rows, n_threads)
        for band, planes in threads.in_order(finished, added, n_threads):
            image.put(band, planes)


def _headers(sessions):
    """Headers of the sums of all batches, of sessions as in ``Source``."""
    return [fits.getheader(path) for session in sessions for _, path in session["sums"]]


def _with_halo(canvas, add, most_rows, n_threads):
    """Sums in bands of BAND_ROWS of a canvas with colours.HALO rows around each, none of them added up twice.

    Parameters
    ----------
    canvas : (int, int, int, int)
        y0, x0, rows, columns.
    add : callable
        Takes a band of at most `most_rows` and gives arrays (..., rows, columns).
    most_rows, n_threads : int

    Yields
    ------
    band : (int, int, int, int)
    list of arrays
    """
    plan, end = [], canvas[0] - colours.HALO
    for band in bands(canvas, BAND_ROWS):
        first, end = end, band[0] + band[2] + colours.HALO
        plan.append((band, bands((first, canvas[1], end - first, canvas[3]), most_rows)))
    added, before = threads.in_order(add, [part for _, parts in plan for part in parts], n_threads), []
    for band, parts in plan:
        parts = [next(added) for _ in parts]
        held = [np.concatenate(values, axis=-2) for values in zip(*before, *parts, strict=True)]
        before = [[values[..., -2 * colours.HALO :, :].copy() for values in held]]  # those of the band may change
        yield band, held
