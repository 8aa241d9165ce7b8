"""LOCAL_METRICS: what each tile of each frame is worth, from stars near it, its noise, and its small structure."""

import numpy as np

from tilestack import files, lattice, robust, sky
from tilestack.kernels import metrics as kernel
from tilestack.normalization import BAD_FLAGS, LEAST_SNR

# What is measured by channel and tile, and by tile alone.
COLUMNS = ("LN_T", "LN_T_ERROR", "NOISE", "SKY", "STRUCTURE", "STRUCTURE_ERROR", "ENERGY")
FRAME_COLUMNS = ("LN_FWHM", "LN_FWHM_ERROR", "N_STARS", "COVERAGE")
# White noise of variance 1 has this variance after the band-pass (kernels.metrics).
BAND_PASS_VARIANCE = 1 / 9 + 1 / 8
# Stars count for a tile by a Gaussian of distance whose sigma is this many strides, at least this many pixels.
SUPPORT_STRIDES, SUPPORT_PX = 1.2, 96.0


def star_fields(table, mine, log_flux, log_scale, width_offset, fwhm_px, tiles, stride):
    """Local transparency and FWHM of a frame in the tiles, from its stars.

    Parameters
    ----------
    table : dict
        From ``normalization.star_table``.
    mine : (m,) bool array
        Measurements of the frame.
    log_flux : (c, n_stars) float64 array
        Logarithm of the fluxes at scale 1.
    log_scale : (c,) float64 array
        Logarithm of the frame's scale.
    width_offset : (n_stars,) float64 array
        Logarithm of the FWHM of a star over that of its frame, in the mean over frames.
    fwhm_px : float
        FWHM of the frame in lattice pixels.
    tiles, stride
        As in ``lattice``.

    Returns
    -------
    dict
        ``ln_t``, ``ln_t_error`` ((c, ny, nx)), ``ln_fwhm``, ``ln_fwhm_error`` ((ny, nx)): deviation of the tile from
        the frame and its standard error, NaN without stars; ``n_stars`` ((ny, nx)): stars inside a stride.
    """
    rows, columns = lattice.tile_centres(tiles, stride)
    clean = mine & ((table["flags"].astype(int) & BAD_FLAGS) == 0)
    flux, error = table["flux"][clean], table["flux_error"][clean]
    star = table["star"][clean].astype(int)
    x, y = table["x"][clean], table["y"][clean]
    sigma = max(SUPPORT_STRIDES * stride, SUPPORT_PX)
    # A Gaussian of distance is one of y times one of x: sums over stars are products of matrices.
    near = [np.exp(-((centres[:, None] - at) ** 2) / (2 * sigma**2)) for centres, at in ((rows, y), (columns, x))]
    fields = {"ln_t": [], "ln_t_error": []}
    for c in range(flux.shape[1]):
        with np.errstate(invalid="ignore", divide="ignore"):
            deviation = np.log(flux[:, c]) - log_flux[c, star] - log_scale[c]
            variance = (error[:, c] / flux[:, c]) ** 2 + 0.01**2
            good = (flux[:, c] > LEAST_SNR * error[:, c]) & np.isfinite(deviation)
        value, spread = _weighted(near, x, y, sigma, deviation, variance, good)
        fields["ln_t"].append(value)
        fields["ln_t_error"].append(spread)
    width, width_error = table["fwhm"][clean], table["fwhm_error"][clean]
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.log(width / fwhm_px) - width_offset[star]
        variance = (width_error / width) ** 2 + 0.03**2
    value, spread = _weighted(
        near, x, y, sigma, deviation, variance, (width_error < 0.2 * width) & np.isfinite(deviation)
    )
    inside = [np.abs(centres[:, None] - at) <= stride / 2 for centres, at in ((rows, y), (columns, x))]
    return {
        **{key: np.stack(values) for key, values in fields.items()},
        "ln_fwhm": value,
        "ln_fwhm_error": spread,
        "n_stars": _over_stars(inside, 1),
    }


def _over_stars(near, values):
    """Sums of values of stars in the tiles, weighted by nearness along y (ny, m) and x (nx, m): (ny, nx)."""
    return (near[0] * values) @ near[1].T.astype(float)


def _weighted(near, x, y, sigma, deviation, variance, good):
    """Mean of deviations weighted by nearness (as in ``_over_stars``) and variance, and its error.

    A star that differs from those around it by 4 sigma is left out: from those around it, not from the frame, or a
    cloud over a part of the field would be taken for many variable stars.
    """
    deviation, variance = deviation[good], variance[good]
    if not len(deviation):
        empty = np.full((len(near[0]), len(near[1])), np.nan)
        return empty, empty
    residual = deviation - _of_neighbours(x[good], y[good], sigma, deviation)
    kept = np.abs(residual) <= 4 * np.maximum(np.sqrt(variance), robust.spread(residual))
    near, deviation, variance = [along[:, good][:, kept] for along in near], deviation[kept], variance[kept]
    total = _over_stars(near, 1 / variance)
    enough = _over_stars(near, 1) > 0.3
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = _over_stars(near, deviation / variance) / total
        error = np.sqrt(_over_stars([along**2 for along in near], 1 / variance)) / total
    return np.where(enough, mean, np.nan), np.where(enough, error, np.nan)


def _of_neighbours(x, y, sigma, deviation):
    """Median of the deviations around each star, itself left out, weighted by a Gaussian of distance."""
    if len(deviation) < 3:
        return np.full(len(deviation), np.median(deviation))
    weight = np.exp(-((x[:, None] - x) ** 2 + (y[:, None] - y) ** 2) / (2 * sigma**2))
    np.fill_diagonal(weight, 0.0)
    order = np.argsort(deviation)
    share = np.cumsum(weight[:, order], axis=1)
    # A lone star has only far neighbours, and those count by what little is left of their weights.
    middle = (share >= 0.5 * share[:, -1:]).argmax(1)
    return deviation[order][middle]


def mesh_to_tiles(mesh, origin, mesh_px, tiles, stride):
    """Mesh cells (c, ny, nx) of a frame, read at tile centres; rims go on outwards."""
    rows, columns = lattice.tile_centres(tiles, stride)
    at_y, at_x = ((at + 0.5) / mesh_px - 0.5 - first for at, first in zip((rows, columns), origin, strict=True))
    grid = np.meshgrid(at_y, at_x, indexing="ij")
    return np.stack([lattice.bilinear(lattice.filled(plane), *grid) for plane in np.asarray(mesh, float)])


def structure(
    codes, entry, template, corner, template_variance, in_template, n_template, cell, box, tiles, tile, stride
):
    """Slope of a frame's small structure on the template's, in each tile and channel.

    A frame as sharp as the template has slope t, one with broader stars less. Noise has no part in it: the frame's own
    share in the template and the noise of the template are taken out.

    Parameters
    ----------
    codes : (h, w) int16 array
        Prewarped frame in `box`.
    entry : dict
        Its prewarp record.
    template, corner
        As in ``kernels.metrics.structure_sums``.
    template_variance : float, ADU^2
        Of a template pixel.
    in_template : bool
        Whether the frame is one of the `n_template` behind the template.
    cell, box, tiles, tile, stride
        As in ``kernels.metrics.structure_sums``.

    Returns
    -------
    slope, error, energy : (c, ny, nx) float64 arrays
        Slope and error are NaN where the template has no structure above its noise. Energy is the mean square of the
        frame's small structure in ADU^2, noise included; NaN without pixels.
    """
    step = 2 if cell.max() > 0 else 1
    place = (template, corner, cell, box, tiles, tile, stride, step)
    n, cross, power, own = kernel.structure_sums(codes, entry["scale"], *place)
    pixel = np.array([np.nanmedian(plane) for plane in np.asarray(entry["pixel_noise"], float)])[:, None, None] ** 2
    noise = pixel * BAND_PASS_VARIANCE
    template_noise = template_variance * BAND_PASS_VARIANCE
    shared = noise / n_template if in_template else 0.0
    signal = power - n * template_noise
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (cross - n * shared) / signal
        # Noise of neighbours of the sums is correlated: what the template passes of it is that of the pixel itself.
        error = np.sqrt(pixel * power) / signal
        energy = np.where(n > 0, own / n, np.nan)
        significant = signal > 5 * template_noise * np.sqrt(2 * n)
    return np.where(significant, slope, np.nan), np.where(significant, error, np.nan), energy


def sky_to_tiles(models, tiles, stride):
    """Sky difference of a frame at tile centres: (c, ny, nx) float64, ADU."""
    return np.stack([sky.evaluate(model, *lattice.tile_centres(tiles, stride)) for model in models])


def write(path, measured, cards, tiles, n_channels):
    """Write the metrics of a batch: an image for each of COLUMNS (n, c, ny, nx) and FRAME_COLUMNS (n, ny, nx).

    Parameters
    ----------
    path : path
    measured : dict of str to list of array
        By frame.
    cards : dict
    tiles
        As in ``lattice``.
    n_channels : int
    """
    cards = {**cards, "TILEY0": tiles[0], "TILEX0": tiles[1], "NFRAMES": len(measured["COVERAGE"])}
    with files.Writer(path, cards) as writer:
        for name, values in measured.items():
            shape = (0, n_channels, *tiles[2:]) if name in COLUMNS else (0, *tiles[2:])
            writer.append(name, np.stack(values) if values else np.zeros(shape, np.float32))
