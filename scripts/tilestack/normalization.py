"""NORMALIZATION: the photometric scale of each frame from star fluxes, its sky, and the gain of the camera."""

import numpy as np

from tilestack import distortion, geometry, photometry, robust, sky, weights
from tilestack.lattice import mesh_centres
from tilestack.records import rounded

# Stars that say something about the scale: no saturated, blended or cut ones, and this S/N in the channel.
BAD_FLAGS = 0b1111
LEAST_SNR = 8.0
# A frame with fewer stars is measured by its structure, where that is surer.
FEWEST_STARS = 5
# Stars that say how the flux of a fit goes with the seeing.
LEAST_APERTURE_SNR = 25.0
FLUXES = ("flux", "flux_error", "aperture_flux")
COLUMNS = (*FLUXES, "frame", "star", "fwhm", "fwhm_error", "x", "y", "flags")


def star_table(registration, stars):
    """Measurements of the stars of a session's list, on the lattice.

    Parameters
    ----------
    registration : dict
        Record of the session.
    stars : list of dict
        Star records of its batches, or of those whose measurements are wanted.

    Returns
    -------
    frames : list of dict
        Entries of the registration record that have a transform, in order.
    table : dict
        ``frame`` (place in `frames`), ``star`` (place in the session's or the first session's list), ``flux`` and
        ``flux_error``, ``aperture_flux`` ((m, c), ADU of the lattice), ``fwhm``, ``fwhm_error`` (lattice pixels),
        ``x``, ``y`` (lattice), ``flags``.
    """
    entry_of = {frame["name"]: frame for record in stars for frame in record["frames"]}
    frames = [frame for frame in registration["frames"] if frame["transform"] is not None]
    n_channels = len(registration["channels"])
    parts = {key: [] for key in COLUMNS}
    for k, frame in enumerate(frames):
        if frame["file"] not in entry_of:  # of another batch
            continue
        measured = entry_of[frame["file"]]["stars"]
        mine, theirs = (np.array(column, int) for column in frame["pairs"])
        transform = np.array(frame["transform"])
        area = geometry.area_scale(transform)
        raw = np.column_stack([measured["x"], measured["y"]]).astype(float)[mine]
        xy = geometry.apply(transform, distortion.straightened(raw, registration["distortion"]))
        parts["frame"].append(np.full(len(mine), k))
        parts["star"].append(theirs)
        for key in (*FLUXES, "fwhm", "fwhm_error"):
            n_columns = n_channels if key in FLUXES else 1  # said outright: a frame may have no star
            values = np.array(measured[key], float).reshape(len(measured["x"]), n_columns)[mine]
            parts[key].append(values * area if key in FLUXES else values[:, 0] * area**0.5)
        parts["x"].append(xy[:, 0])
        parts["y"].append(xy[:, 1])
        parts["flags"].append(np.array(measured["flags"], int)[mine])
    empty = {key: np.empty((0, n_channels) if key in FLUXES else 0) for key in COLUMNS}
    return frames, {key: np.concatenate([empty[key], *values]) for key, values in parts.items()}


def widths(table, n_frames, n_stars):
    """FWHM of each frame, and by how much that of each star differs from it.

    The same stars in all frames: so a frame that shows only the sharp middle of the field is not taken for a sharp one,
    and undersampled stars, whose fitted width goes with their place in the pixel, do not pass for changes of the
    seeing.

    Parameters
    ----------
    table : dict
        From ``star_table``.
    n_frames, n_stars : int

    Returns
    -------
    fwhm, error : (n_frames,) float64 arrays, lattice pixels
        NaN of a frame with fewer than 3 good stars.
    offset : (n_stars,) float64 array
        Logarithm of the FWHM of a star over that of its frame; NaN of a star that is nowhere measured.
    used : (n_frames,) int array
        Stars behind each.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        relative_error = table["fwhm_error"] / table["fwhm"]
        good = ((table["flags"].astype(int) & BAD_FLAGS) == 0) & (relative_error < 0.15)
    frame, star = (table[key][good].astype(int) for key in ("frame", "star"))
    if not len(frame):
        empty = np.full(n_frames, np.nan)
        return empty, empty, np.full(n_stars, np.nan), np.zeros(n_frames, int)
    anchor = np.bincount(frame, minlength=n_frames).argmax()
    log_width, variance = np.log(table["fwhm"][good]), relative_error[good] ** 2
    change, error, star_width, used = photometry.relative(
        frame, star, log_width, variance, n_frames, n_stars, anchor=anchor
    )
    if not np.isfinite(change).any():
        return change, error, star_width, used
    typical = np.nanmedian(star_width)
    fwhm = np.exp(typical + change)
    return fwhm, fwhm * error, star_width - typical, used


def flux_corrections(table, fwhm):
    """What brings the fluxes of fits to those of apertures.

    A fitted profile is never quite that of the sky, and its flux is off by a share that goes with the seeing
    (measured on Seestar frames: 4 % between FWHM 2.2 and 2.7 px) and with the shape of the wings. An aperture holds
    the flux whatever the profile, with more noise. So the ratio of both, of all bright stars of a session, is fitted
    as a line over ln FWHM of the frame, by channel; and what a frame differs from that is kept as far as it stands
    out of its error.

    Parameters
    ----------
    table : dict
        From ``star_table``.
    fwhm : (n,) float64 array
        FWHM of the frames.

    Returns
    -------
    dict
        ``channels``: by channel ``ratio`` (aperture over fit at the median FWHM), ``slope`` (by ln FWHM) and ``n``;
        ``frames``: logarithm of the further factor of each frame; ``rms``: of its true values.
    """
    width = _log_width(table, fwhm)
    clean = ((table["flags"].astype(int) & BAD_FLAGS) == 0) & np.isfinite(width)
    channels, frame, left, relative_error = [], [], [], []
    for c in range(table["flux"].shape[1]):
        flux, error, aperture = (table[key][:, c] for key in FLUXES)
        good = clean & (flux > LEAST_APERTURE_SNR * error) & (aperture > 0)
        ratio = np.log(aperture[good] / flux[good])
        value, slope = _line(width[good], ratio)
        channels.append({"ratio": float(np.exp(value)), "slope": float(slope), "n": int(good.sum())})
        frame.append(table["frame"][good].astype(int))
        left.append(ratio - value - slope * width[good])
        relative_error.append(error[good] / flux[good])
    frame, left, relative_error = map(np.concatenate, (frame, left, relative_error))
    # The noise of an aperture is that of the fit times about the same factor for all stars.
    factor = 1.4826 * np.median(np.abs(left / relative_error)) if len(left) else 1.0
    variance = (factor * relative_error) ** 2
    offset, error, _, _ = photometry.relative(
        frame, np.zeros_like(frame), left, variance, len(fwhm), 1, [0.0], fewest=1
    )
    offset, variance = weights.shrunk(offset, error)
    return {"channels": channels, "frames": offset.tolist(), "rms": float(np.sqrt(variance))}


def apply_corrections(table, corrections, fwhm):
    """Correct ``flux`` and ``flux_error`` of a star table, in place, by what ``flux_corrections`` gave."""
    width = np.nan_to_num(_log_width(table, fwhm))
    further = np.array(corrections["frames"], float)[table["frame"].astype(int)]
    for c, correction in enumerate(corrections["channels"]):
        factor = correction["ratio"] * np.exp(correction["slope"] * width + further)
        table["flux"][:, c] *= factor
        table["flux_error"][:, c] *= factor


def _log_width(table, fwhm):
    """Logarithm of the FWHM of the frame of each measurement over the median; NaN where unknown."""
    known = fwhm[np.isfinite(fwhm)]
    return np.log(fwhm / (np.median(known) if known.size else 1.0))[table["frame"].astype(int)]


def _line(x, y):
    """Value at 0 and slope of a line, clipped at 3 sigma; a slope below 3 of its own standard errors counts as 0."""
    if len(x) < 5:
        return 0.0, 0.0
    kept = np.ones(len(x), bool)
    value, slope = float(np.median(y)), 0.0
    for _ in range(5):
        residual = y - value - slope * x
        spread = max(1.4826 * np.median(np.abs(residual[kept])), 1e-9)
        kept = np.abs(residual) <= 3 * spread
        run = np.sqrt(((x[kept] - x[kept].mean()) ** 2).sum())
        slope, value = np.polyfit(x[kept], y[kept], 1) if run > 0 else (0.0, np.median(y[kept]))
        if abs(slope) * run < 3 * spread:
            slope, value = 0.0, np.median(y[kept])
    return float(value), float(slope)


def scales(frames, table, n_stars, known, anchor):
    """Photometric scale of each frame and channel.

    Clouds and dust are grey from one frame to the next, and extinction changes its colour slowly: so all channels
    together give one scale a frame, and each channel a line over the session on top.

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
    log_scale : (n, c) float64 array
        Logarithm of the scale t; NaN of a frame with fewer than 3 stars.
    error : (n,) float64 array
        Relative error of the common part; NaN of a frame with too few stars.
    brightness : (c, n_stars) float64 array
        Natural logarithm of the fluxes at scale 1.
    used : (n,) int array
        Stars behind each scale.
    """
    n_channels = table["flux"].shape[1]
    clean = (table["flags"].astype(int) & BAD_FLAGS) == 0
    frame, star, channel, log_flux, variance = [], [], [], [], []
    for c in range(n_channels):
        flux, error = table["flux"][:, c], table["flux_error"][:, c]
        good = clean & (flux > LEAST_SNR * error)
        frame.append(table["frame"][good].astype(int))
        star.append(table["star"][good].astype(int) + c * n_stars)
        channel.append(np.full(good.sum(), c))
        log_flux.append(np.log(flux[good]))
        variance.append((error[good] / flux[good]) ** 2)
    frame, star, channel, log_flux, variance = map(np.concatenate, (frame, star, channel, log_flux, variance))
    fixed = None if known is None else known.ravel()
    size = (len(frames), n_channels * n_stars)
    common, error, brightness, used = photometry.relative(
        frame, star, log_flux, variance, *size, fixed=fixed, anchor=anchor, n_channels=n_channels
    )
    if anchor is not None:
        common[anchor] = 0.0  # by definition, with however few stars
    brightness = brightness.reshape(n_channels, n_stars)
    order = np.array([entry["index"] for entry in frames], float)
    order -= order[anchor] if anchor is not None else (order.mean() if len(order) else 0.0)
    log_scale = np.empty((len(frames), n_channels))
    for c in range(n_channels):
        mine = (channel == c) & np.isfinite(common[frame])
        left = log_flux[mine] - common[frame[mine]] - brightness.ravel()[star[mine]]
        known_left = np.isfinite(left)
        value, slope = _line(order[frame[mine]][known_left], left[known_left])
        # At the reference all scales are 1: there the channels differ by nothing.
        log_scale[:, c] = common + slope * order + (value if anchor is None else 0.0)
    return log_scale, error, brightness, used


def typical_scale(log_scale, exposure_s, first):
    """What stands for the scale of frames that nothing tells of: medians of the session, or of the first one.

    Parameters
    ----------
    log_scale : (n, c) float64 array
        NaN where unknown.
    exposure_s : (n,) float64 array
        NaN where unknown.
    first : dict or None
        What this function gave for the first session.

    Returns
    -------
    dict
        ``ln_scale`` by channel and ``ln_exposure`` (null where some exposure is unknown).
    """
    known = np.isfinite(log_scale).all(1)
    if not known.any():
        return first or {"ln_scale": [0.0] * log_scale.shape[1], "ln_exposure": None}
    return {
        "ln_scale": np.median(log_scale[known], axis=0).tolist(),
        "ln_exposure": float(np.median(np.log(exposure_s[known]))) if np.isfinite(exposure_s).all() else None,
    }


def filled_scale(log_scale, exposure_s, typical):
    """Logarithm of the scales with the typical one, by exposure, where there is none."""
    more = np.zeros(len(log_scale))
    if typical["ln_exposure"] is not None and np.isfinite(exposure_s).all():
        more = np.log(exposure_s) - typical["ln_exposure"]
    return np.where(np.isfinite(log_scale), log_scale, np.array(typical["ln_scale"]) + more[:, None])


def sky_models(entries, scale, reference, shape, mesh_px, model, coarse_px, later):
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
    later : bool
        Whether the frames are of a later session than the reference. Then what they all differ from their models by, as
        another telescope or another place of the moon leaves it, is part of the models: beyond the reference it goes on
        as it is at its rim, so that there is no step where the frames of one session end.

    Returns
    -------
    list of list of dict
        ``sky.fit`` by frame and channel.
    """
    wanted = np.array(reference["sky"], float)
    models, differences, places = [], [], []
    for entry, t in zip(entries, scale, strict=True):
        mesh = np.array(entry["sky"], float)
        rows, columns = mesh_centres(entry["mesh_origin"], mesh.shape[1:], mesh_px)
        difference = [
            sky.mesh_difference(mesh[c], entry["mesh_origin"], wanted[c], reference["mesh_origin"], t[c])
            for c in range(len(mesh))
        ]
        models.append([sky.fit(d, rows, columns, shape, model, coarse_px) for d in difference])
        differences.append(difference)
        places.append((rows, columns))
    if later and len(entries) >= sky.FEWEST_IN_COMMON and model != "mesh":
        for c in range(len(wanted)):
            of_channel = [(m[c], d[c]) for m, d in zip(models, differences, strict=True)]
            sky.add_common(of_channel, places, np.asarray(scale)[:, c], mesh_px)
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
    error = robust.spread(slopes) / np.sqrt(len(x) / 3)
    if not slope > 5 * error:
        return unknown
    return {"e_per_adu": float(1 / slope), "error": float(error / slope**2), "source": "measured"}


def anchor_of(frames, wanted):
    """Place of the photometric reference; on another run's lattice it may be unmatched: then that with most stars."""
    files = [frame["file"] for frame in frames]
    return files.index(wanted) if wanted in files else max(range(len(files)), key=lambda k: frames[k]["inliers"])


def frame_record(frame, entry, models):
    """What the record of a session says of a frame that its registration and prewarp records know.

    Parameters
    ----------
    frame, entry : dict
        Of the registration and the prewarp record.
    models : list of dict
        ``sky.fit`` by channel.
    """
    levels = {
        name: rounded([np.nanmedian(mesh) for mesh in np.array(entry[key], float)])
        for name, key in (("sky_level_adu", "sky"), ("noise_adu", "noise"), ("pixel_noise_adu", "pixel_noise"))
    }
    gradients = [sky.gradient(model) for model in models]
    return {
        **{key: frame[key] for key in ("file", "batch", "index", "exposure_s", "error_px")},
        "area": frame["scale"] ** 2,
        "sky": models,
        **levels,
        "gradient_adu": [rounded(size, 4) for size, _ in gradients],
        "gradient_deg": [rounded(direction, 4) for _, direction in gradients],
    }
