"""Photometric scale of frames that show too few stars: by how much of the known picture is in them."""

import numpy as np

from tilestack import bayer, geometry, lattice, prewarped, template
from tilestack.kernels import metrics as kernel
from tilestack.local import BAND_PASS_VARIANCE

# Frames that the picture is made of where there is no template yet.
N_BEHIND = 8
# Pitch of the sums, for threads to share.
BLOCK_PX = 256
# Seeing changes the slope as well: between a FWHM of 2.7 and 3.2 px by some 10 %. So stars go first where they do.
SEEING_ERROR = 0.1
# Structure of the picture must stand this far out of its noise.
LEAST_SIGNAL = 5.0


def in_place_of_few_stars(log_scale, error, few, images, files, layers, pattern):
    """Scales and errors with those that structure tells better than few stars; and the method of each frame.

    Parameters
    ----------
    log_scale : (n, c) float64 array
    error : (n,) float64 array
        Relative error of a scale; NaN of the unknown.
    few : list of int
        Places of the frames with few stars.
    images, files, layers, pattern
        As in ``scales``.

    Returns
    -------
    log_scale, error : arrays
    methods : (n,) object array
        ``stars``, ``regression`` or ``exposure``.
    """
    log_scale, error = log_scale.copy(), error.copy()
    methods = np.where(np.isfinite(log_scale[:, 0]), "stars", "exposure").astype(object)
    if not few:
        return log_scale, error, methods
    slope, slope_error = scales(images, files, log_scale, few, layers, pattern)
    for k, one, one_error in zip(few, slope, slope_error, strict=True):
        if np.isfinite(one) and not (error[k] < one_error / one):
            log_scale[k], error[k], methods[k] = np.log(one), one_error / one, "regression"
    return log_scale, error, methods


def scales(images, files, log_scale, wanted, layers, pattern):
    """Scale of each wanted frame, one for all channels: slope of its band-passed pixels on those of the picture.

    Parameters
    ----------
    images : list of (path, list of dict)
        Prewarped batch files of the session and the entries of their frames.
    files : list of str
        Names of the frames, in the order of `log_scale`.
    log_scale : (n, c) float64 array
        Logarithm of the scales that are known; NaN of the others.
    wanted : list of int
        Places of the frames to measure.
    layers : list of path
        Template layers of earlier sessions. Without any, the picture is the mean of the known frames that count most.
    pattern : str or None
        Bayer pattern of the lattice.

    Returns
    -------
    scale, error : (len(wanted),) float64 arrays
        NaN where the picture shows no structure. A slope below the error of its noise, as of a frame behind thick
        clouds, counts as that.
    """
    cell = bayer.channel_cell(pattern)
    step = 2 if cell.max() > 0 else 1
    found, errors = np.full(len(wanted), np.nan), np.full(len(wanted), np.nan)
    frames = prewarped.Frames(images)
    frames.sort([entry["file"] for entry in frames.entries], files)
    box = geometry.union_box([entry["box"] for entry in frames.entries])
    if layers:
        image, variance = (plane[0] for plane in template.Layers(layers).read(box, 2))
        if not np.isfinite(variance).any():
            return found, errors
        picture, noise = kernel.band_pass(image, step), np.full(cell.max() + 1, np.nanmedian(variance))
    else:
        picture, noise = mean_of_known(frames, log_scale, box, cell, step)
    tiles = lattice.tile_range(box, BLOCK_PX)
    for at, k in enumerate(wanted):
        entry = frames.entries[k]
        sums = kernel.structure_sums(
            frames.rows(k, box), entry["scale"], picture, (0, 0), cell, box, tiles, BLOCK_PX, BLOCK_PX, step
        )
        found[at], errors[at] = _slope(sums.sum((2, 3)), _noise(entry), noise * BAND_PASS_VARIANCE)
    found = np.where(found < errors, errors, found)
    return found, np.hypot(errors, SEEING_ERROR * found)


def _noise(entry):
    """Variance of a pixel of a frame, by channel, in ADU^2."""
    return np.array([np.nanmedian(mesh) for mesh in np.asarray(entry["pixel_noise"], float)]) ** 2


def _slope(sums, noise, picture_noise):
    """One slope and its error from the sums of all channels, each by what it says.

    Neighbours in band-passed noise go together: at the frequencies of stars nearly all of the noise of a pixel passes.
    """
    n, cross, power, _ = sums
    signal = power - n * picture_noise
    if not (signal.sum() > LEAST_SIGNAL * np.sqrt(2 * (n * picture_noise**2).sum())):
        return np.nan, np.nan
    weight = 1 / noise
    total = (weight * signal).sum()
    return (weight * cross).sum() / total, np.sqrt((weight * power).sum()) / total


def mean_of_known(frames, log_scale, box, cell, step):
    """Band-passed mean of the known frames of a session, where all of them have data; and its variance by channel."""
    known = np.flatnonzero(np.isfinite(log_scale[:, 0]))
    noise = np.array([_noise(frames.entries[k]) for k in known]) / np.exp(2 * log_scale[known])
    best = np.argsort(noise.mean(1), kind="stable")[:N_BEHIND]
    rows, columns = (np.arange(box[axis], box[axis] + box[axis + 2]) % 2 for axis in (0, 1))
    total = np.zeros(box[2:], np.float32)
    for k in known[best]:
        codes, entry = frames.rows(k, box), frames.entries[k]
        valid = (codes != prewarped.NO_DATA) & (codes != kernel.SATURATED)
        step_of = (entry["scale"] / np.exp(log_scale[k])).astype(np.float32)[cell[rows[:, None], columns]]
        # The level of a frame drops out of the band-pass, its smooth sky does nearly.
        total += np.where(valid, codes * step_of, np.nan)
    return kernel.band_pass(total / len(best), step), noise[best].sum(0) / len(best) ** 2
