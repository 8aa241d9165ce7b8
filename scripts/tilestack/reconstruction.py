"""TILE_RECONSTRUCTION: partial sums of a batch, and the image that all of them add up to."""

import numpy as np

from tilestack import bayer, files, geometry, lattice, prewarped, template
from tilestack.kernels import coadd as kernel

# Bytes of codes and marks, and of sums, that a band may hold.
BAND_BYTES = 128e6
SUM_BYTES = 3 * (8 * len(kernel.SUMS) + 4 * len(kernel.COUNTS))


def write_sums(path, image_path, record, fields, tiles, stride, pattern, layers, reference_sky, exposure_s, options):
    """Add up the frames of a batch and write the partial sums.

    Parameters
    ----------
    path : path
        FITS file. Images (planes, h, w), one for each of ``coadd.SUMS`` (float32) and ``coadd.COUNTS`` (int16) with the
        pixels that count, and N_REJECTED, N_SATURATED (int16). Tables REJECTED and SATURATED hold, for each pixel that
        has any, PLANE, Y, X (of the box) and the same sums of what was left out. The box stands in the header.
    image_path : path
        Prewarped frames of the batch.
    record : dict
        Prewarp record of the batch.
    fields : (n, 5, c, ny, nx) float32 array
        ``coadd.FIELDS`` of its frames over `tiles`.
    tiles, stride
        As in ``lattice``.
    pattern : str or None
        Bayer pattern of the lattice.
    layers : list of path
        Template layers up to this session.
    reference_sky : list of dict
        Smooth sky of the reference by channel (``sky.fit``).
    exposure_s : (n,) float64 array
        NaN for frames of unknown exposure; so is EXP where they count.
    options : dict
        ``reject``, ``kappa``, ``range_tolerance``, ``signal_tolerance``, ``grow_px``, ``inverse_gain``.

    Returns
    -------
    (n, 4) int64 array
        Pixels of each frame that are kept, rejected, saturated, missing.
    """
    entries = record["frames"]
    cell = bayer.channel_cell(pattern)
    step = 2 if pattern else 1
    odd = np.array([entry["index"] % 2 == 1 for entry in entries], bool)
    zero, scale = (np.array([entry[key] for entry in entries], float) for key in ("zero", "scale"))
    box = geometry.union_box([entry["box"] for entry in entries])
    per_frame = np.zeros((len(entries), 4), np.int64)
    left_out = {1: [], 2: []}
    cards = {
        "LATTY0": box[0],
        "LATTX0": box[1],
        "NFRAMES": len(entries),
        "PLANES": "MOSAIC" if pattern else "MONO",
        "BUNIT": "adu",
    }
    with prewarped.Frames([(image_path, entries)]) as pixels, files.Writer(path, cards) as writer:
        shape = (1, *box[2:])
        places = {name: writer.reserve(name, shape, "f4") for name in kernel.SUMS}
        places |= {name: writer.reserve(name, shape, "i2") for name in (*kernel.COUNTS, "N_REJECTED", "N_SATURATED")}
        halo = 2 * -(-(options["grow_px"] + step) // 2)
        n_rows = int(BAND_BYTES / (box[3] * max(3 * len(entries), SUM_BYTES)))
        for band in prewarped.bands(box, n_rows):
            sums, counts, marked = _band(
                pixels,
                band,
                halo,
                cell,
                step,
                zero,
                scale,
                fields,
                tiles,
                stride,
                layers,
                reference_sky,
                exposure_s,
                odd,
                options,
            )
            per_frame += marked
            first = (band[0] - box[0]) * box[3]
            for k, name in enumerate(kernel.SUMS):
                writer.put(places[name], sums[0, k].astype(np.float32), first)
            for k, name in enumerate(kernel.COUNTS):
                writer.put(places[name], counts[0, k].astype(np.int16), first)
            for kind, name in ((1, "N_REJECTED"), (2, "N_SATURATED")):
                writer.put(places[name], counts[kind].sum(0).astype(np.int16), first)
                left_out[kind].append(_sparse(sums[kind], counts[kind], band[0] - box[0]))
        for kind, name in ((1, "REJECTED"), (2, "SATURATED")):
            columns = {key: np.concatenate([part[key] for part in left_out[kind]]) for key in left_out[kind][0]}
            writer.append_table(name, columns)
    return per_frame


def _band(
    pixels, band, halo, cell, step, zero, scale, fields, tiles, stride, layers, reference_sky, exposure_s, odd, options
):
    """Sums of a band of rows; outliers are judged with some rows more, so that bands leave no trace."""
    y0, x0, h, w = band
    wide = (y0 - halo, x0, h + 2 * halo, w)
    codes = pixels.stack(wide)
    phase = np.roll(cell, (-(wide[0] % 2), -(x0 % 2)), (0, 1))
    image, variance = (plane[0] for plane in template.read(layers, wide))
    sky = np.array([model["coefficients"][0] for model in reference_sky])[phase]
    squared, signal = kernel.tolerance(
        image, variance, sky, step, options["range_tolerance"], options["signal_tolerance"]
    )
    rows, columns = lattice.tile_centres(tiles, stride)
    grid = ((wide[0] - rows[0]) / stride, (x0 - columns[0]) / stride, float(stride))
    kappa = options["kappa"] if options["reject"] else np.inf
    marks = kernel.mark(codes, zero, scale, fields, grid, phase, image, squared, signal, options["inverse_gain"], kappa)
    kernel.grow(marks, options["grow_px"])
    inner = slice(halo, halo + h)
    grid = (grid[0] + halo / stride, *grid[1:])
    return kernel.accumulate(
        np.ascontiguousarray(codes[:, inner]),
        np.ascontiguousarray(marks[:, inner]),
        zero,
        scale,
        fields,
        grid,
        phase,
        np.ascontiguousarray(signal[inner]),
        options["inverse_gain"],
        odd,
        exposure_s,
    )


def _sparse(sums, counts, first_row):
    """The pixels of a band that have any, as columns."""
    y, x = np.nonzero(counts.sum(0))
    return {
        "PLANE": np.zeros(len(y), np.int16),
        "Y": (y + first_row).astype(np.int32),
        "X": x.astype(np.int32),
        **{name: sums[k, y, x].astype(np.float32) for k, name in enumerate(kernel.SUMS)},
        **{name: counts[k, y, x].astype(np.int16) for k, name in enumerate(kernel.COUNTS)},
    }
