"""PREWARP of frames: from the raw light to 16-bit pixels on the lattice, with sky and noise of its mesh cells."""

import numpy as np

from tilestack import bayer, distortion, files, geometry, lights, prewarped, threads
from tilestack.kernels import clipping, spans
from tilestack.kernels import prewarp as kernel
from tilestack.kernels import warp as resampling
from tilestack.lattice import bilinear, filled, mesh_centres
from tilestack.records import rounded

CODES = 65533  # -32767 ... 32766; -32768 is no data, 32767 saturated
# Codes to a standard deviation of the noise, at most: more would say nothing and take twice the room. They add 1.3e-4
# of its variance. Noise is that of the quiet cells: nebulae and clusters count as noise in others.
CODES_PER_SIGMA, QUIET_PERCENT = 25, 10
# Rows whose codes are packed together: they stay in the cache.
PACKED_ROWS = 64


def write_batch(folder, frames, session, lattice, path, *, cfa, cosmetic, n_threads=1):
    """Resample frames into one file, ``prewarped.Writer``.

    Parameters
    ----------
    folder : Path
        Where the lights lie.
    frames : list of dict
        Entries of the registration record with a transform.
    session : dict
        Registration record: ``bayer_pattern``, ``saturation_adu``, ``defects``, ``distortion``.
    lattice : dict
        ``shape``, ``bayer_pattern``, ``mesh_px`` of the lattice.
    path : path
        Output.
    cfa : str
        ``demosaic`` or ``subplane``.
    cosmetic : bool
        Replace the defective pixels of the session.
    n_threads : int

    Returns
    -------
    list of dict
        For each frame ``file``, ``index``, ``extension``, ``box`` (y0, x0, rows, columns on the lattice),
        ``transform``, ``zero`` and ``scale`` of its codes, ``quantisation_loss`` (share of the variance that the
        codes add), ``coverage`` (share of the box with data), ``n_saturated``, ``gradient_energy``, ``mesh_origin``
        and, by channel and mesh cell, ``sky``, ``noise`` (raw pixels) and ``pixel_noise`` (resampled pixels), all in
        ADU of the frame.
    """
    entries = []
    cards = {
        "SESSION": session["session"],
        "BAYERPAT": lattice["bayer_pattern"],
        "MESHPX": (lattice["mesh_px"], "side of a cell of sky and noise, px"),
        "CONTENT": ("prewarped frames", "value = ZERO + SCALE x code, packed"),
    }
    opened = ((lights.opened(folder / frame["file"]), frame) for frame in frames)
    made = threads.in_order(
        lambda light: _prewarp(*light, session, lattice, cfa=cfa, cosmetic=cosmetic), opened, n_threads
    )
    with prewarped.Writer(path, cards) as writer:
        for number, (frame, (entry, packed)) in enumerate(zip(frames, made, strict=True), start=1):
            entry |= {"file": frame["file"], "index": frame["index"], "extension": number}
            y0, x0, *_ = entry["box"]
            header = {
                "FRAME": files.printable(frame["file"])[:60],
                "SCALE": (entry["scale"], "[adu]"),
                "ZERO": (entry["zero"], "[adu]"),
                "LATTY0": (y0, "tile_offset_y, lattice row of row 1"),
                "LATTX0": (x0, "tile_offset_x, lattice column of column 1"),
            }
            writer.frame(f"FRAME{number:05d}", packed, header)
            entries.append(entry)
    return entries


def _prewarp(read, frame, session, lattice, *, cfa, cosmetic):
    """Entry of a frame, whose pixels `read` gives, and its codes by bands as ``spans.pack`` gives them."""
    image, pattern = read(), session["bayer_pattern"]
    transform = np.array(frame["transform"])
    mosaic = pattern is not None
    cell, lattice_cell = bayer.channel_cell(pattern), bayer.channel_cell(lattice["bayer_pattern"])
    box = geometry.footprint_box(transform, image.shape, even=mosaic)
    if cosmetic:
        defects = session["defects"]
        kernel.replace_defects(image, np.column_stack([defects["y"], defects["x"]]), 2 if mosaic else 1)
    stretch = float(1 / np.sqrt(geometry.area_scale(transform)))
    lens = distortion.as_array(session["distortion"])
    raw_noise = clipping.noise_mesh(image, cell, lattice["mesh_px"])
    plane_of, step, offsets = layout(cell, lattice_cell, cfa)
    planes = planes_of(image, cell, step, offsets)
    near = resampling.saturation_map(image, session["saturation_adu"], resampling.kernel_reach(stretch, step))
    to_frame = geometry.inverse(transform)
    warped, saturated = resampling.warp(
        planes, plane_of, step, offsets, near, to_frame, box, lens=lens, stretch=stretch
    )
    del image, planes, near  # memory that the codes take
    origin, sky, pixel_noise = clipping.sky_mesh(warped, lattice_cell, box[0], box[1], lattice["mesh_px"])
    noise = _on_lattice_mesh(raw_noise, to_frame, origin, sky.shape[1:], lattice["mesh_px"])
    n_known, low, high, energy = kernel.looked_through(warped, 2 if mosaic else 1)
    low, high = (low, high) if n_known else (0.0, 1.0)
    scale = max(high - low, 1e-6 * max(abs(high), 1e-30)) / CODES
    known = [of_channel[np.isfinite(of_channel)] for of_channel in pixel_noise]
    quiet = min(np.percentile(values, QUIET_PERCENT) if len(values) else 0.0 for values in known)
    scale = max(scale, quiet / CODES_PER_SIGMA)
    # From the top, as the code of what is saturated stands for no more than a step above the brightest pixel.
    zero = high - 32766 * scale
    bands = (slice(y, y + PACKED_ROWS) for y in range(0, len(warped), PACKED_ROWS))
    packed = [spans.pack(kernel.quantise(warped[rows], saturated[rows], zero, scale)) for rows in bands]
    entry = {
        "box": box,
        "transform": frame["transform"],
        "zero": zero,
        "scale": scale,
        "quantisation_loss": rounded(scale**2 / 12 / np.nanmedian(pixel_noise) ** 2, 3),
        "coverage": n_known / warped.size,
        "n_saturated": np.count_nonzero(saturated),
        "gradient_energy": rounded(energy),
        "mesh_origin": origin,
        "sky": rounded(sky),
        "noise": rounded(np.where(np.isnan(sky), np.nan, noise), 4),
        "pixel_noise": rounded(pixel_noise, 4),
    }
    return entry, packed


def layout(cell, lattice_cell, cfa):
    """How lattice pixels take their values from the planes of a frame.

    Parameters
    ----------
    cell, lattice_cell : (2, 2) int64 arrays
        Channel of each Bayer phase of the frame and of the lattice; all 0 for mono.
    cfa : str
        ``demosaic`` or ``subplane``.

    Returns
    -------
    plane_of : (2, 2) int64 array
        Plane of each lattice phase.
    step : int
        Raw pixels per plane pixel and axis.
    offsets : (p, 2) int64 array
        Raw row and column of the first pixel of each plane.
    """
    if cell.max() == 0:
        return np.zeros((2, 2), np.int64), 1, np.zeros((1, 2), np.int64)
    if cfa == "demosaic":
        return lattice_cell, 1, np.zeros((3, 2), np.int64)
    offsets = np.array([(y, x) for y in (0, 1) for x in (0, 1)], np.int64)
    plane_of = np.zeros((2, 2), np.int64)
    for y, x in offsets:
        # Of the two greens the one on the same row parity, so that each lattice phase keeps to one sub-plane.
        same = np.flatnonzero(cell.ravel() == lattice_cell[y, x])
        plane_of[y, x] = same[y] if len(same) == 2 else same[0]
    return plane_of, 2, offsets


def planes_of(image, cell, step, offsets):
    """Planes of a frame by its layout: (p, h, w) float32."""
    if len(offsets) == 1:
        return image[None]
    if step == 1:
        return kernel.demosaic(image, cell)
    rows, columns = (n // 2 * 2 for n in image.shape)
    return np.stack([image[y:rows:2, x:columns:2] for y, x in offsets])


def _on_lattice_mesh(raw_mesh, to_frame, origin, shape, mesh):
    """A mesh over the raw frame, read at the centres of lattice mesh cells."""
    rows, columns = mesh_centres(origin, shape, mesh)
    x, y = np.meshgrid(columns, rows)
    points = geometry.apply(to_frame, np.column_stack([x.ravel(), y.ravel()]))
    at_y, at_x = ((points[:, k] - (mesh - 1) / 2) / mesh for k in (1, 0))
    return np.stack([bilinear(filled(plane), at_y, at_x).reshape(shape) for plane in raw_mesh])
