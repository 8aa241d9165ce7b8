"""NORMALIZATION: the photometric scale of each frame from star fluxes, its sky difference, and the gain of the camera."""

import numpy as np

from tilestack import geometry, photometry, sky
from tilestack.lattice import mesh_centres

# Stars that say something about the scale: no saturated, blended or cut ones, and this S/N in the channel.
BAD_FLAGS = 0b1111
LEAST_SNR = 8.0
FEWEST_STARS = 3


def star_table(registration, stars):
    """Measurements of the stars of a session's list, on the lattice.

    Parameters
    ----------
    registration : dict
        Record of the session.
    stars : list of dict
        Star records of its batches.

    Returns
    -------
    frames : list of dict
        Entries of the registration record that have a transform, in order.
    table : dict
        ``frame`` (place in `frames`), ``star`` (place in the session's or the first session's list), ``flux`` and
        ``flux_error`` ((m, c), ADU of the lattice), ``fwhm``, ``fwhm_error`` (lattice pixels), ``x``, ``y``
        (lattice), ``flags``.
    """
    entry_of = {frame["name"]: frame for record in stars for frame in record["frames"]}
    frames = [frame for frame in registration["frames"] if frame["transform"] is not None]
    n_channels = len(registration["channels"])
    parts = {key: [] for key in ("frame", "star", "flux", "flux_error", "fwhm", "fwhm_error", "x", "y", "flags")}
    for k, frame in enumerate(frames):
        measured = entry_of[frame["file"]]["stars"]
        mine, theirs = (np.array(column, int) for column in frame["pairs"])
        transform = np.array(frame["transform"])
        area = geometry.area_scale(transform)
        xy = geometry.apply(transform, np.column_stack([measured["x"], measured["y"]]).astype(float)[mine])
        parts["frame"].append(np.full(len(mine), k))
        parts["star"].append(theirs)
        for key, factor in (("flux", area), ("flux_error", area), ("fwhm", area**0.5), ("fwhm_error", area**0.5)):
            values = np.array(measured[key], float).reshape(len(measured["x"]), -1)[mine] * factor
            parts[key].append(values if key.startswith("flux") else values[:, 0])
        parts["x"].append(xy[:, 0])
        parts["y"].append(xy[:, 1])
        parts["flags"].append(np.array(measured["flags"], int)[mine])
    shape = {"flux": (0, n_channels), "flux_error": (0, n_channels)}
    return frames, {key: np.concatenate([np.empty(shape.get(key, 0)), *values]) for key, values in parts.items()}


def frame_fwhm(table, k):
    """FWHM of a frame in lattice pixels: median over its clean stars that are known to 10 %, with its error."""
    mine = (table["frame"] == k) & ((table["flags"].astype(int) & BAD_FLAGS) == 0)
    width, error = table["fwhm"][mine], table["fwhm_error"][mine]
    good = width[error < 0.1 * width]
    width = good if len(good) >= 5 else width
    if not len(width):
        return {"fwhm_px": None, "fwhm_error_px": None, "n_fwhm_stars": 0}
    spread = 1.4826 * np.median(np.abs(width - np.median(width)))
    return {
        "fwhm_px": float(np.median(width)),
        "fwhm_error_px": float(1.2533 * spread / np.sqrt(len(width))),
        "n_fwhm_stars": len(width),
    }


def scales(frames, table, n_stars, known, anchor):
    """Photometric scale of each frame and channel.

    Parameters
    ----------
    frames, table
        From ``star_table``.
    n_stars : int
        Length of the star list.
    known : (c, n_stars) float64 array or None
        Natural logarithm of the fluxes at scale 1, from the first session; None while that is being normalised.
    anchor : int or None
        Place of the photometric reference in `frames`.

    Returns
    -------
    scale, error : (n, c) float64 arrays
        Scale t and its relative error. Of a frame with too few stars the median of the session over exposures, with
        an error of NaN.
    brightness : (c, n_stars) float64 array
        Natural logarithm of the fluxes at scale 1.
    used : (n, c) int array
        Stars behind each scale.
    """
    n_channels = table["flux"].shape[1]
    columns = []
    clean = (table["flags"].astype(int) & BAD_FLAGS) == 0
    for c in range(n_channels):
        flux, error = table["flux"][:, c], table["flux_error"][:, c]
        good = clean & (flux > LEAST_SNR * error)
        columns.append(
            photometry.relative(
                table["frame"][good].astype(int),
                table["star"][good].astype(int),
                np.log(flux[good]),
                (error[good] / flux[good]) ** 2,
                len(frames),
                n_stars,
                fixed=None if known is None else known[c],
                anchor=anchor,
            )
        )
    log_scale, error, brightness, used = (np.stack([column[k] for column in columns]) for k in range(4))
    log_scale = _filled(log_scale, np.array([frame["exposure_s"] or np.nan for frame in frames], float))
    return np.exp(log_scale.T), error.T, brightness, used.T


def _filled(log_scale, exposure_s):
    """Scales of frames without stars: from their other channels, else from the session's frames by exposure."""
    with np.errstate(invalid="ignore"):
        colour = log_scale - np.nanmean(log_scale, axis=0, where=np.isfinite(log_scale))
    offset = np.array([np.nanmedian(row) if np.isfinite(row).any() else 0.0 for row in colour])
    missing = np.isnan(log_scale)
    common = np.array([np.nanmean(column) if np.isfinite(column).any() else np.nan for column in (log_scale - offset[:, None]).T])
    rate = common - np.log(exposure_s) if np.isfinite(exposure_s).all() else common
    typical = np.nanmedian(rate) if np.isfinite(rate).any() else 0.0
    by_exposure = typical + (np.log(exposure_s) if np.isfinite(exposure_s).all() else 0.0)
    common = np.where(np.isfinite(common), common, by_exposure)
    return np.where(missing, offset[:, None] + common[None], log_scale)


def sky_models(entries, scale, reference, shape, mesh_px, model, coarse_px):
    """Sky difference of each frame and channel to the reference.

    Parameters
    ----------
    entries : list of dict
        Prewarp records of the frames.
    scale : (n, c) float64 array
        Photometric scales.
    reference : dict
        ``mesh_origin`` and ``sky`` ((c, ny, nx), ADU at scale 1) of the reference frame or the template.
    shape : (int, int)
        Rows and columns of the reference frame.
    mesh_px : int
        Side of a mesh cell.
    model : str
        ``sky_model`` of the configuration.
    coarse_px : int
        ``sky_mesh_px`` of the configuration.

    Returns
    -------
    list of list of dict
        ``sky.fit`` by frame and channel.
    """
    wanted = np.array(reference["sky"], float)
    models = []
    for entry, t in zip(entries, scale, strict=True):
        mesh = np.array(entry["sky"], float)
        rows, columns = mesh_centres(entry["mesh_origin"], mesh.shape[1:], mesh_px)
        difference = [
            sky.mesh_difference(mesh[c], entry["mesh_origin"], wanted[c], reference["mesh_origin"], t[c])
            for c in range(len(mesh))
        ]
        models.append([sky.fit(d, rows, columns, shape, model, coarse_px) for d in difference])
    return models


def smooth_sky(reference, shape, mesh_px):
    """Plane through the sky of the reference, by channel: what a local scale must leave as it is."""
    mesh = np.array(reference["sky"], float)
    rows, columns = mesh_centres(reference["mesh_origin"], mesh.shape[1:], mesh_px)
    return [sky.fit(plane, rows, columns, shape, "plane", 0) for plane in mesh]


def measure_gain(entries, known):
    """Electrons per ADU of a session.

    Parameters
    ----------
    entries : list of dict
        Prewarp records of the frames: sky level and raw noise of their mesh cells.
    known : list of float or None
        Gains that configuration or headers give for the frames.

    Returns
    -------
    dict
        ``e_per_adu``, ``error`` and ``source``: ``given``, ``measured`` or ``unknown`` (null).

    Notes
    -----
    Photon transfer (Janesick 2001): the variance of a raw pixel grows with its level by 1 / gain. Cells of all
    channels and frames go into one line of variance over level, by Theil and Sen's median of slopes between cells in
    bins of level; it counts where the slope is known to 20 %.
    """
    given = [gain for gain in known if gain]
    if given:
        return {"e_per_adu": float(np.median(given)), "error": None, "source": "given"}
    level = np.concatenate([np.ravel(entry["sky"]).astype(float) for entry in entries] or [np.zeros(0)])
    variance = np.concatenate([np.ravel(entry["noise"]).astype(float) for entry in entries] or [np.zeros(0)]) ** 2
    good = np.isfinite(level) & np.isfinite(variance)
    level, variance = level[good], variance[good]
    unknown = {"e_per_adu": None, "error": None, "source": "unknown"}
    if len(level) < 100:
        return unknown
    order = np.argsort(level, kind="stable")
    bins = np.array_split(order, 24)
    x, y = (np.array([np.median(values[part]) for part in bins]) for values in (level, variance))
    i, j = np.triu_indices(len(x), 8)
    run = x[j] - x[i]
    if not (run > 0).all():
        return unknown
    slopes = (y[j] - y[i]) / run
    slope = np.median(slopes)
    error = 1.4826 * np.median(np.abs(slopes - slope)) / np.sqrt(len(x) / 3)
    if not slope > 5 * error:
        return unknown
    return {"e_per_adu": float(1 / slope), "error": float(error / slope**2), "source": "measured"}
