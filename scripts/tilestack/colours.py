"""Colour planes from drizzled sums, and what fills in where drops are few."""

import contextlib

import numpy as np

from tilestack import bayer, files, masks, stackfiles, threads
from tilestack.kernels import drizzle, filling
from tilestack.prewarped import bands
from tilestack.records import rounded
from tilestack.splitsums import Kind
from tilestack.sums import Sums, add_sessions

DRIZZLED = Kind(drizzle.SUMS, ("N",), ())
# What the plain mean takes, and the weight that says what is thin.
OF_MEAN = Kind(("W_EVEN", "W_ODD", "Y", "A"), ("N",), ())
PLANES = [name for name in stackfiles.FILE_OF if name != "IVAR"]
# Neighbourhoods that fill in: 3x3, 5x5 and 9x9; and the one whose mean weight says what is thin.
RADII, LOCAL_RADIUS = (1, 2, 4), 8
# A pixel of less weight than this share of those around it is thin.
THIN_SHARE = 0.3
# Rows of the product at a time, and those around them that the fill needs.
BAND_ROWS, HALO = 64, LOCAL_RADIUS


def local_mean(values):
    """Mean of 17x17 pixels along the last two axes, of fewer at the rims."""
    rows, columns = (
        np.minimum(np.arange(n), LOCAL_RADIUS) + np.minimum(np.arange(n)[::-1], LOCAL_RADIUS) + 1
        for n in values.shape[-2:]
    )
    return filling.box_sum(values, LOCAL_RADIUS) / (rows[:, None] * columns)


def overlap(kernel, size):
    """How what is shared by two output pixels falls with their distance 0, 1, ... 8 along an axis; 1 at 0.

    Drops of a `size` in output pixels fall at any place: the mean product of what they leave on two pixels.
    """
    x = np.linspace(-24, 24, 48 * 200 + 1)
    if kernel == "gaussian":
        left = np.exp(-0.5 * (2.3548 * x / size) ** 2)
    else:
        half = size / 2 if kernel != "point" else 1e-9
        left = np.clip(np.minimum(x + half, 0.5) - np.maximum(x - half, -0.5), 0, None)
    found = np.array([(left[k * 200 :] * left[: len(left) - k * 200]).sum() for k in range(2 * RADII[-1] + 1)])
    return found / found[0]


def correlations(kernel, size):
    """By how much drops that two neighbourhoods have in common raise their covariance over that of single pixels.

    Returns
    -------
    (4, 4) float64 array
        Sum of correlations between the pixels of one and of the other, over the number of those in the smaller one.
    """
    shared = overlap(kernel, size)
    result = np.empty((len(RADII) + 1,) * 2)
    for k, one in enumerate((0, *RADII)):
        for m, other in enumerate((0, *RADII)):
            distance = np.abs(np.arange(-one, one + 1)[:, None] - np.arange(-other, other + 1))
            result[k, m] = (shared[distance].sum() / (2 * min(one, other) + 1)) ** 2
    return result


def spread(counts, area_sum, kernel, size, area):
    """How far drops fall on several pixels, by their number: 1 as at any place, 0 each on one pixel (no dither).

    Parameters
    ----------
    counts : (c, h, w) array
        Drops that reach a pixel.
    area_sum : (c, h, w) array
        Sum of their overlaps.
    kernel : str
    size, area : float
        Of a drop, in output pixels; what its overlaps sum to.
    """
    most = (1 + size) ** 2 - 1
    if kernel == "point":
        return np.zeros(counts.shape)
    drops = filling.box_sum(area_sum, LOCAL_RADIUS) / area
    hits = filling.box_sum(counts, LOCAL_RADIUS) / np.maximum(drops, np.finfo(float).tiny)
    return np.clip((hits - 1) / most, 0, 1)


def fill(planes, sums, squares, weight, shared=None):
    """Add to sums those of neighbours where a pixel is thin, in place: a larger drop, in effect.

    Without any dither the 3x3 neighbours of one colour make a bilinear demosaic; where all weights are even nothing
    changes, to the bit.

    Parameters
    ----------
    planes, sums, squares
        As ``filling.fill`` takes them.
    weight : (c, h, w) float64 array
        Sum of w, which says what is thin; none of the planes.
    shared : (4, 4) array and (c, h, w) array, optional
        ``correlations`` and ``spread``; without, neighbours have no drop in common.

    Returns
    -------
    (c, h, w) bool array
        Which pixels are thin.
    """
    limit = np.maximum(THIN_SHARE * local_mean(weight), filling.NOTHING)
    raised, spreading = shared or (np.ones((4, 4)), np.zeros(weight.shape))
    return filling.fill(planes, sums, squares, weight, limit, np.array([0, *RADII]), raised, spreading)


def planes_of(sums, counts, ceiling, rejected, mask, density, drop, names=PLANES):
    """Colour planes from the sums of ``sums.add_sessions``.

    Parameters
    ----------
    sums, counts, ceiling, rejected, mask
        As given there; the sums are filled, in place.
    density : (c,) float64 array
        Share of the raw pixels that have this colour.
    drop : (str, float, float)
        Kernel, size in output pixels and what the overlaps of a drop sum to.
    names : collection of str
        Planes that are wanted; others may be missing.

    Returns
    -------
    dict of str to (c, h, w) array
        By the names of PLANES; NaN where there is no data within reach.
    """
    made, w, mask = _made(DRIZZLED, sums, counts, mask, drop)
    w_even, w_odd, v_even, v_odd = (made[name] for name in ("W_EVEN", "W_ODD", "W2V_EVEN", "W2V_ODD"))
    with np.errstate(invalid="ignore", divide="ignore"):
        even = made["WY_EVEN"] / np.where(w_even > 0, w_even, np.nan)
        odd = made["WY_ODD"] / np.where(w_odd > 0, w_odd, np.nan)
        variance = (v_even + v_odd) / w**2
        planes = {
            "SCI": (made["WY_EVEN"] + made["WY_ODD"]) / w,
            "VAR": variance,
            "WHT": np.nan_to_num(w),
            # Of a colour: as if all raw pixels had it.
            "EXP": made["EXPOSURE"] / density[:, None, None],
            "NIM": counts[0],
            "REJ": rejected,
            "MASK": mask,
            "EVEN": even,
            "ODD": odd,
            "MEAN": _mean(made),
        }
        if "SPLIT" in names:  # difference of the halves with the variance of the whole: noise without the sky
            planes["SPLIT"] = (even - odd) * np.sqrt(variance / (v_even / w_even**2 + v_odd / w_odd**2))
    return planes


def mean_of(sums, counts, mask, drop):
    """MEAN, WHT and MASK of ``planes_of``, from the sums OF_MEAN alone."""
    made, w, mask = _made(OF_MEAN, sums, counts, mask, drop)
    return {"WHT": np.nan_to_num(w), "MASK": mask, "MEAN": _mean(made)}


def _made(kind, sums, counts, mask, drop):
    """Sums of a kind by name, filled where drops are few; the weight, NaN without any; the mask."""
    kernel, size, _ = drop
    made = dict(zip(kind.sums, sums, strict=True))
    shared = correlations(kernel, size), spread(counts[0], made["A"], *drop)
    squares = [k for k, name in enumerate(kind.sums) if name.startswith("W2V")]
    added = [k for k, name in enumerate(kind.sums) if k not in squares and name != "EXPOSURE"]
    thin = fill(sums, added, squares, made["W_EVEN"] + made["W_ODD"], shared)
    w = made["W_EVEN"] + made["W_ODD"]
    w = np.where(w > 0, w, np.nan)
    known = np.isfinite(w)
    mask = np.where(known, mask & ~masks.NO_DATA, mask) | np.where(thin & known, masks.FILLED, 0)
    return made, w, mask


def _mean(made):
    with np.errstate(invalid="ignore", divide="ignore"):
        return made["Y"] / np.where(made["A"] > 0, made["A"], np.nan)


def noise_ratio(pixfrac, scale):
    """Noise of large areas over what VAR says of single pixels, as drops of one raw pixel fall on several.

    Source: Fruchter and Hook, PASP 114 (2002) 144, section 7; `scale` is output pixels to a raw one.
    """
    r = pixfrac * scale
    return r / (1 - 1 / (3 * r)) if r >= 1 else 1 / (1 - r / 3)


def drop_of(headers):
    """Drop as ``planes_of`` takes it, from the headers of the sums of all batches: of the mean size."""
    kernel, pixfrac, scale = (headers[0][key] for key in ("DRZKERN", "DRZFRAC", "DRZSCALE"))
    n_frames, area = (np.array([header[key] for header in headers]) for key in ("NFRAMES", "RAWAREA"))
    finer = scale * np.sqrt(np.average(area, weights=n_frames))
    return kernel, pixfrac * finer, finer**2


def most_drops(headers):
    """Drops that may reach an output pixel at the most, from the headers of the sums of all batches."""
    return sum(header["NFRAMES"] * _most_drops(*drop_of([header])) for header in headers)


def _most_drops(kernel, size, area):
    """The same of one frame: raw pixels whose centres lie so near."""
    pitch = np.sqrt(area)
    reach = {"point": 0.0, "gaussian": drizzle.GAUSSIAN_REACH * pitch}.get(kernel, size / np.sqrt(2))
    # A square of 1 + 2 reach on a side, turned by any angle.
    return int((np.sqrt(2) * (1 + 2 * reach) / pitch + 1) ** 2)


def add_up(paths, out, canvas, pattern, put_back_share, *, means_only=False, n_threads=1):
    """Add up drizzled sums and write the stack of the colours; files without images where nothing was drizzled.

    Parameters
    ----------
    paths : list of list of path
        Files of ``drizzling.write_sums`` by session, in the order of the plan.
    out : dict of str to path
        Its files, by the keys of ``stackfiles.OF_FILE``.
    canvas : (int, int, int, int)
        y0, x0, rows, columns of the lattice.
    pattern : str or None
        Bayer pattern of the lattice.
    put_back_share : float
        As in ``sums.add_sessions``.
    means_only : bool
        Of PLANES only MEAN.
    n_threads : int

    Returns
    -------
    dict or None
        ``kernel``, ``pixfrac``, ``scale``, ``r_factor``; and by colour ``empty_share`` of the canvas and
        ``filled_share`` of the rest, by the weight around: a rim that few frames reach counts little.
    """
    with contextlib.ExitStack() as stack:
        opened = [[stack.enter_context(files.opened(path)) for path in batches] for batches in paths]
        kind = OF_MEAN if means_only else DRIZZLED
        sessions = [[Sums(hdus, kind) for hdus in batches if hdus[0].header["NFRAMES"]] for batches in opened]
        sessions = [batches for batches in sessions if batches]
        if not sessions:
            return stackfiles.empty(out)
        headers = [batch.header for batches in sessions for batch in batches]
        pixfrac, scale = (headers[0][key] for key in ("DRZFRAC", "DRZSCALE"))
        drop = kernel, _, finer2 = drop_of(headers)
        ratio = noise_ratio(pixfrac, np.sqrt(finer2))
        fine = tuple(n * scale for n in canvas)
        shares_of = _write(out, sessions, fine, pattern, put_back_share, drop, n_threads)
    return {"kernel": kernel, "pixfrac": pixfrac, "scale": scale, "r_factor": rounded(ratio, 5), **shares_of}


def weight_filled(mask, level):
    """Weight around the pixels that neighbours fill in, and around all that have data: (2, c).

    Parameters
    ----------
    mask : (c, h, w) int array
        Bits of ``masks``.
    level : (c, h, w) float64 array
        ``local_mean`` of the weight.
    """
    return [(level * chosen).sum((1, 2)) for chosen in (mask & masks.FILLED > 0, mask & masks.NO_DATA == 0)]


def _write(out, sessions, canvas, pattern, put_back_share, drop, n_threads):
    density = np.bincount(bayer.channel_cell(pattern).ravel()) / 4
    means_only = sessions[0][0].kind is OF_MEAN
    most = most_drops([batch.header for batches in sessions for batch in batches])
    written = ("MEAN",) if means_only else [name for name in PLANES if stackfiles.FILE_OF[name] in out]
    n_empty, filled_weight, weight = np.zeros((3, len(density)))

    def added(band):
        wide = (band[0] - HALO, band[1], band[2] + 2 * HALO, band[3])
        sums, counts, ceiling, rejected, mask = add_sessions(sessions, wide, put_back_share)
        if means_only:
            planes = mean_of(sums, counts, mask, drop)
        else:
            planes = planes_of(sums, counts, ceiling, rejected, mask, density, drop, written)
        level = local_mean(planes["WHT"])[:, HALO:-HALO]
        planes = {name: values[:, HALO:-HALO] for name, values in planes.items()}
        return band, planes, weight_filled(planes["MASK"], level)

    with stackfiles.Writer(out, written, len(density), canvas, most) as image:
        for band, planes, weights in threads.in_order(added, bands(canvas, BAND_ROWS), n_threads):
            image.put(band, planes)
            n_empty += (planes["MASK"] & masks.NO_DATA > 0).sum((1, 2))
            filled_weight, weight = np.add((filled_weight, weight), weights)
    tiny = np.finfo(float).tiny
    share = filled_weight / np.maximum(weight, tiny)
    return {"filled_share": share.tolist(), "empty_share": (n_empty / (canvas[2] * canvas[3])).tolist()}
