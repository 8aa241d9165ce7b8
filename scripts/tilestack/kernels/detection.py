"""Kernels of star detection: fits of stars to raw pixels, and pixels that are no part of the sky."""

import math
from collections import namedtuple

import numpy as np
from numba import njit

from tilestack.kernels import entry, part

# A Moffat profile of beta = 3 as two circular Gaussians: share of the flux, and sigma over FWHM. Fitted over radii of
# 0-5 FWHM, largest error 1.1 % of the peak. Gaussians integrate over a pixel in closed form, a Moffat does not.
SHARES = np.array([0.4462, 0.5538])
SIGMAS = np.array([0.3769, 0.7146]) / 1.01444
MOST_ITERATIONS = 25
# Least FWHM, in pixels. What stays below the second so many steps in a row is a pixel and no star: its flux and its
# width say the same, and steps end nowhere.
NARROWEST, NARROW, MOST_NARROW_STEPS = 0.4, 0.75, 5
# Pixels that a channel must have.
LEAST_PIXELS = 6
# Pixels that a window reaches to each side, and neighbours in it, at the most.
MOST_REACH, MOST_NEAR = 24, 16
# Room for a line of a window, which is worked on eight pixels at a time, and sums of the normal equations: of products
# of the derivatives by x, y and ln FWHM, of each with flux, with sky and with the residual, and of those three.
LINE, N_SUMS = 56, 21
# Bits of a star's flags.
SATURATED, BLENDED, EDGE, FAILED = 1, 2, 4, 8
# The four pixels at distance 1.
NEXT_Y, NEXT_X = np.array([-1, 0, 0, 1]), np.array([0, -1, 1, 0])
# Columns of the table of fitted stars, behind which come flux and flux error of each channel.
COLUMNS = ("x", "y", "position_error", "fwhm", "fwhm_error", "peak", "flags")


def fit_stars(image, cell, noise, start, saturation):
    """Fit a circular star profile to raw pixels, each channel with its own flux and sky.

    The profile is integrated over the pixels and the pixels of a mosaic are taken as they are, so the position has no
    bias with the phase of the star in its pixel, and undersampled stars keep their FWHM and colour.

    Parameters
    ----------
    image : (h, w) float32 array, ADU
        Raw light. NaN marks a pixel without data.
    cell : (2, 2) int64 array
        Channel of each phase of the mosaic; all 0 for mono.
    noise : (c,) float64 array, ADU
        Standard deviation of a sky pixel by channel.
    start : (n, 3) float64 array, pixels
        x, y (0 is the centre of the first pixel) and FWHM of the detections, brightest first.
    saturation : float, ADU
        Pixels from here on are left out of the fit; infinity for none.

    Returns
    -------
    table : (n, 7 + 2 c) float64 array
        ``COLUMNS`` in pixels and ADU (peak: brightest raw pixel above the sky, within 1 FWHM), then flux of each
        channel, then its error, in ADU over all pixels. ``flags`` adds SATURATED, BLENDED (the next star is closer
        than 2.5 FWHM), EDGE (the window leaves the frame) and FAILED. NaN where the fit failed.

    Raises
    ------
    ValueError
        If a shape is wrong or a noise is not positive.

    Notes
    -----
    Levenberg-Marquardt on position, ln FWHM, flux and sky, all pixels of a channel with equal weight: so the flux is
    linear in the data. Pixels nearer to another star than to this one are left out.
    """
    if image.ndim != 2 or cell.shape != (2, 2) or start.ndim != 2 or start.shape[1] != 3:
        raise ValueError(f"need (h, w), (2, 2) and (n, 3), got {image.shape}, {cell.shape} and {start.shape}")
    noise = np.asarray(noise, dtype=float)
    if not (noise > 0).all() or len(noise) != cell.max() + 1:
        raise ValueError(f"need a positive noise for each of {cell.max() + 1} channels, got {noise}")
    image = np.ascontiguousarray(image, dtype=np.float32)
    table = np.full((len(start), 7 + 2 * len(noise)), np.nan)
    start, room = np.ascontiguousarray(start, dtype=float), _room(len(noise))
    _fit_stars(image, cell, noise, start, float(saturation), room, table)
    return table


# Room for the fit of a star. Neighbours in its window (MOST_NEAR,); its pixels and which of them count (1 or 0) in
# lines of LINE; the integrals of ``_integrate`` in lines; flux and sky by column for even and odd rows, sums by column
# for both, and in all; parameters, those on trial, and the step between them; normal equations, those on trial, a copy
# with damping, their Cholesky factor, and the covariance.
Room = namedtuple(
    "Room",
    "near pixels used profile flux sky sums totals p trial step normal gradient trial_normal trial_gradient damped "
    "factor covariance",
)


def _room(n_channels):
    side, size = 2 * MOST_REACH + 1, 3 + 2 * n_channels
    square, line = (size, size), (size,)
    return Room(
        near=np.empty(MOST_NEAR, np.int64),
        pixels=np.zeros(side * LINE),
        used=np.zeros(side * LINE),
        profile=np.zeros(12 * LINE),
        flux=np.empty(2 * LINE),
        sky=np.empty(2 * LINE),
        sums=np.empty(2 * N_SUMS * LINE),
        totals=np.empty(N_SUMS),
        **{name: np.empty(line) for name in ("p", "trial", "step", "gradient", "trial_gradient")},
        **{name: np.empty(square) for name in ("normal", "trial_normal", "damped", "factor", "covariance")},
    )


@entry(fastmath={"contract"})
def _fit_stars(image, cell, noise, start, saturation, room, table):
    for k in range(len(start)):
        _fit_star(image, cell, noise, start, k, saturation, room, table[k])


@part(fastmath={"contract"})
def _fit_star(image, cell, noise, start, k, saturation, room, row):
    h, w = image.shape
    n_channels = len(noise)
    x0, y0, fwhm0 = start[k, 0], start[k, 1], max(start[k, 2], 1.2)
    reach = min(max(int(math.ceil(2.2 * fwhm0 + 1)), 4), MOST_REACH)
    cx, cy = int(round(x0)), int(round(y0))
    left, right = max(cx - reach, 0), min(cx + reach, w - 1)
    bottom, top = max(cy - reach, 0), min(cy + reach, h - 1)
    flags = 0
    if cx - reach < 0 or cy - reach < 0 or cx + reach > w - 1 or cy + reach > h - 1:
        flags |= EDGE
    nx, ny = right - left + 1, top - bottom + 1
    row[6] = flags | FAILED
    if nx < 5 or ny < 5:
        return

    # Neighbours that reach into the window.
    near, n_near = room.near, 0
    for j in range(len(start)):
        dx, dy = start[j, 0] - x0, start[j, 1] - y0
        if j != k and abs(dx) <= 2 * reach and abs(dy) <= 2 * reach and n_near < MOST_NEAR:
            near[n_near] = j
            n_near += 1
            if dx * dx + dy * dy < (2.5 * fwhm0) ** 2:
                flags |= BLENDED
    window = (left, bottom, nx, ny)
    _fill(image, saturation, window, start, k, near[:n_near], room)
    peak = -np.inf
    for y in range(max(bottom, int(y0 - 1.5 * fwhm0 - 1)), min(top, int(y0 + 1.5 * fwhm0 + 2)) + 1):
        for x in range(max(left, int(x0 - 1.5 * fwhm0 - 1)), min(right, int(x0 + 1.5 * fwhm0 + 2)) + 1):
            value, d2 = image[y, x], (x - x0) ** 2 + (y - y0) ** 2
            if value >= saturation and d2 < (1.5 * fwhm0 + 1) ** 2:
                flags |= SATURATED
            elif room.used[(y - bottom) * LINE + x - left] > 0 and d2 < (fwhm0 + 1) ** 2 and value > peak:
                peak = value
    row[6] = flags | FAILED

    # x, y, ln FWHM, then flux and sky of each channel.
    size, p, normal, gradient = 3 + 2 * n_channels, room.p, room.normal, room.gradient
    p[:] = 0.0
    p[0], p[1], p[2] = x0, y0, math.log(fwhm0)
    # Flux and sky are linear: one step with the shape held gives their start.
    chi2 = _normal(room, window, cell, noise, p, normal, gradient)
    for c in range(n_channels):
        n_used = normal[3 + n_channels + c, 3 + n_channels + c] * noise[c] ** 2
        if n_used < LEAST_PIXELS - 0.5:
            return
    for a in range(3):
        normal[a, :] = 0.0
        normal[:, a] = 0.0
        normal[a, a] = 1.0
        gradient[a] = 0.0
    step, factor = room.step, room.factor
    if not _solve(normal, gradient, factor, step):
        return
    for a in range(size):
        p[a] += step[a]
    chi2 = _normal(room, window, cell, noise, p, normal, gradient)
    damping = 1e-3
    trial, trial_normal, trial_gradient, damped = room.trial, room.trial_normal, room.trial_gradient, room.damped
    converged, n_narrow = False, 0
    for _ in range(MOST_ITERATIONS):
        for a in range(size):
            for b in range(size):
                damped[a, b] = normal[a, b]
            damped[a, a] *= 1 + damping
        if not _solve(damped, gradient, factor, step):
            return
        for a in range(size):
            trial[a] = p[a] + step[a]
        n_narrow = n_narrow + 1 if trial[2] < math.log(NARROW) else 0
        if n_narrow > MOST_NARROW_STEPS:
            return
        trial[2] = min(max(trial[2], math.log(NARROWEST)), math.log(2.0 * reach))
        if abs(trial[0] - x0) > reach / 2 or abs(trial[1] - y0) > reach / 2:
            damping *= 10
            if damping > 1e6:
                return
            continue
        trial_chi2 = _normal(room, window, cell, noise, trial, trial_normal, trial_gradient)
        if trial_chi2 <= chi2:
            moved = abs(step[0]) + abs(step[1]) + abs(step[2])
            chi2 = trial_chi2
            for a in range(size):
                p[a], gradient[a] = trial[a], trial_gradient[a]
                for b in range(size):
                    normal[a, b] = trial_normal[a, b]
            damping = max(damping / 10, 1e-9)
            if moved < 1e-4:
                converged = True
                break
        else:
            damping *= 10
            if damping > 1e6:
                converged = True
                break
    covariance = room.covariance
    if not converged or not _invert(normal, factor, step, covariance):
        return
    row[0], row[1] = p[0], p[1]
    row[2] = math.sqrt((covariance[0, 0] + covariance[1, 1]) / 2)
    row[3] = math.exp(p[2])
    row[4] = row[3] * math.sqrt(covariance[2, 2])
    sky = 0.0
    for c in range(n_channels):
        row[7 + c] = p[3 + c]
        row[7 + n_channels + c] = math.sqrt(covariance[3 + c, 3 + c])
        sky += p[3 + n_channels + c] / n_channels
    row[5] = peak - sky
    row[6] = flags


@part(fastmath={"contract"})
def _fill(image, saturation, window, start, k, near, room):
    """Fill the lines of a window with its pixels and with 1 where they count: where they are known, not saturated and
    nearer to star k than to its neighbours; 0 for all others."""
    left, bottom, nx, ny = window
    wide = (nx + 7) // 8 * 8
    for j in range(ny):
        y, line = bottom + j, image[bottom + j, left : left + nx]
        pixels, used = room.pixels[j * LINE : j * LINE + wide], room.used[j * LINE : j * LINE + wide]
        used[nx:] = 0.0
        pixels[nx:] = 0.0
        for i in range(np.uintp(nx)):
            counts = line[i] < saturation
            used[i] = 1.0 if counts else 0.0
            pixels[i] = line[i] if counts else 0.0
        for m in near:
            # Nearer to k where this, linear in x, is not negative.
            slope, level = 2 * (start[k, 0] - start[m, 0]), start[m, 0] ** 2 - start[k, 0] ** 2
            level += (y - start[m, 1]) ** 2 - (y - start[k, 1]) ** 2
            for i in range(np.uintp(nx)):
                used[i] *= 1.0 if level + slope * (left + np.float64(i)) >= 0 else 0.0


@part(fastmath={"contract"})
def _normal(room, window, cell, noise, p, normal, gradient):
    """Fill the normal equations at p, return chi^2."""
    left, bottom, nx, ny = window
    n_channels, profile, sums = len(noise), room.profile, room.sums
    wide = (nx + 7) // 8 * 8
    _integrate(p, window, profile)
    sums[:] = 0.0
    for odd in range(2):
        for i in range(wide):
            c = cell[(bottom + odd) % 2, (left + i) % 2]
            room.flux[odd * LINE + i], room.sky[odd * LINE + i] = p[3 + c], p[3 + n_channels + c]
    for j in range(ny):
        own, odd = slice(j * LINE, j * LINE + wide), slice(j % 2 * LINE, j % 2 * LINE + wide)
        of_row = sums[j % 2 * N_SUMS * LINE :]
        _add_row(room.pixels[own], room.used[own], room.flux[odd], room.sky[odd], profile, j, of_row)
    normal[:] = 0.0
    gradient[:] = 0.0
    chi2 = 0.0
    for phase in range(4):  # pixels of one channel
        c, first = cell[(bottom + phase // 2) % 2, (left + phase) % 2], phase // 2 * N_SUMS * LINE + phase % 2
        for k in range(N_SUMS):
            total = 0.0
            for i in range(first + k * LINE, first + k * LINE + nx - phase % 2, 2):
                total += sums[i]
            room.totals[k] = total / (noise[c] * noise[c])
        t, f, s = room.totals, 3 + c, 3 + n_channels + c
        normal[0, 0] += t[0]
        normal[0, 1] += t[1]
        normal[0, 2] += t[2]
        normal[1, 1] += t[3]
        normal[1, 2] += t[4]
        normal[2, 2] += t[5]
        normal[f, f] += t[12]
        normal[f, s] += t[13]
        normal[s, s] += t[14]
        for a in range(3):
            normal[a, f] += t[6 + a]
            normal[a, s] += t[9 + a]
            gradient[a] += t[15 + a]
        gradient[f] += t[18]
        gradient[s] += t[19]
        chi2 += t[20]
    for a in range(len(p)):
        for b in range(a):
            normal[a, b] = normal[b, a]
    return chi2


@part(fastmath={"contract"})
def _add_row(pixels, used, flux, sky, profile, j, sums):
    """Add to the N_SUMS sums by column what row j of a window has of them."""
    first = 6 * LINE + j
    a0, a1 = SHARES[0] * profile[first], SHARES[1] * profile[first + 3 * LINE]
    b0, b1 = SHARES[0] * profile[first + LINE], SHARES[1] * profile[first + 4 * LINE]
    c0, c1 = SHARES[0] * profile[first + 2 * LINE], SHARES[1] * profile[first + 5 * LINE]
    for i in range(np.uintp(len(pixels))):
        e0, e1 = profile[i], profile[i + 3 * LINE]
        value = used[i] * (a0 * e0 + a1 * e1)
        scale = used[i] * flux[i]
        dx = scale * (a0 * profile[i + LINE] + a1 * profile[i + 4 * LINE])
        dy = scale * (b0 * e0 + b1 * e1)
        df = scale * (a0 * profile[i + 2 * LINE] + a1 * profile[i + 5 * LINE] + (c0 * e0 + c1 * e1))
        residual = used[i] * (pixels[i] - sky[i]) - flux[i] * value
        sums[i] += dx * dx
        sums[i + LINE] += dx * dy
        sums[i + 2 * LINE] += dx * df
        sums[i + 3 * LINE] += dy * dy
        sums[i + 4 * LINE] += dy * df
        sums[i + 5 * LINE] += df * df
        sums[i + 6 * LINE] += dx * value
        sums[i + 7 * LINE] += dy * value
        sums[i + 8 * LINE] += df * value
        sums[i + 9 * LINE] += dx * used[i]
        sums[i + 10 * LINE] += dy * used[i]
        sums[i + 11 * LINE] += df * used[i]
        sums[i + 12 * LINE] += value * value
        sums[i + 13 * LINE] += value * used[i]
        sums[i + 14 * LINE] += used[i]
        sums[i + 15 * LINE] += dx * residual
        sums[i + 16 * LINE] += dy * residual
        sums[i + 17 * LINE] += df * residual
        sums[i + 18 * LINE] += value * residual
        sums[i + 19 * LINE] += residual * used[i]
        sums[i + 20 * LINE] += residual * residual


@part(fastmath={"contract"})
def _integrate(p, window, profile):
    """For each column and then each row the integral of both Gaussians over the pixel and its derivatives by position
    and by ln FWHM, in 12 lines: of columns 3 of one Gaussian, 3 of the other, then those of rows."""
    left, bottom, nx, ny = window
    fwhm = math.exp(p[2])
    for i in range(2):
        sigma = SIGMAS[i] * fwhm
        norm = 1.0 / (math.sqrt(2 * math.pi) * sigma)
        for axis in range(2):
            n, first, centre = (nx, left, p[0]) if axis == 0 else (ny, bottom, p[1])
            base = (6 * axis + 3 * i) * LINE
            u = (first - 0.5 - centre) / sigma
            bell = math.exp(-u * u / 2)
            edge, density = _error_function(u, bell), norm * bell
            for j in range(n):
                v = (first + j + 0.5 - centre) / sigma
                bell = math.exp(-v * v / 2)
                next_edge, next_density = _error_function(v, bell), norm * bell
                profile[base + j] = (next_edge - edge) / 2
                profile[base + LINE + j] = density - next_density
                profile[base + 2 * LINE + j] = sigma * (u * density - v * next_density)
                u, edge, density = v, next_edge, next_density


@part(fastmath={"contract"})
def _error_function(u, bell):
    """erf(u / sqrt 2) where exp(-u^2 / 2) is known already: to 1.5e-7, at a quarter of the cost.

    Abramowitz & Stegun, Handbook of Mathematical Functions (1964), 7.1.26.
    """
    t = 1.0 / (1.0 + 0.3275911 * math.sqrt(0.5) * abs(u))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return math.copysign(1.0 - series * bell, u)


@part(fastmath={"contract"})
def _factorise(matrix, factor):
    """Fill the lower Cholesky factor of a matrix; whether the matrix is positive definite."""
    n = len(matrix)
    for a in range(n):
        for b in range(a + 1):
            total = matrix[a, b]
            for m in range(b):
                total -= factor[a, m] * factor[b, m]
            if a == b:
                if not total > 1e-14 * abs(matrix[a, a]):
                    return False
                factor[a, a] = math.sqrt(total)
            else:
                factor[a, b] = total / factor[b, b]
    return True


@part(fastmath={"contract"})
def _solve(matrix, right, factor, x):
    """Solve matrix x = right for x; whether the matrix is positive definite."""
    if not _factorise(matrix, factor):
        return False
    for a in range(len(right)):
        x[a] = right[a]
    _substitute(factor, x)
    return True


@part(fastmath={"contract"})
def _substitute(factor, x):
    """Solve for what stands in x, by the Cholesky factor of the matrix."""
    n = len(x)
    for a in range(n):
        for m in range(a):
            x[a] -= factor[a, m] * x[m]
        x[a] /= factor[a, a]
    for a in range(n - 1, -1, -1):
        for m in range(a + 1, n):
            x[a] -= factor[m, a] * x[m]
        x[a] /= factor[a, a]


@part(fastmath={"contract"})
def _invert(matrix, factor, line, inverse):
    """Fill the inverse of a matrix; whether that is positive definite."""
    if not _factorise(matrix, factor):
        return False
    for a in range(len(matrix)):
        line[:] = 0.0
        line[a] = 1.0
        _substitute(factor, line)
        for b in range(len(matrix)):
            inverse[a, b] = line[b]
    return True


def aperture_fluxes(image, cell, xy, radius):
    """Flux of stars in a round aperture over the sky in a ring around it, by channel.

    Parameters
    ----------
    image : (h, w) float32 array, ADU
        Raw light. NaN marks a pixel without data.
    cell : (2, 2) int64 array
        Channel of each phase of the mosaic; all 0 for mono.
    xy : (n, 2) float64 array, pixels
    radius : float, pixels
        The sky ring reaches from 1.4 to 2.2 radii; its level is the median.

    Returns
    -------
    (n, c) float64 array, ADU
        Over all pixels: what the pixels of a channel hold, over the share of theirs among all pixels. The edge is soft
        over one pixel. NaN where the ring leaves the frame or a pixel in the aperture has no data.
    """
    if image.ndim != 2 or xy.ndim != 2 or not radius > 0:
        raise ValueError(f"need (h, w), (n, 2) and radius > 0, got {image.shape}, {xy.shape} and {radius}")
    image = np.ascontiguousarray(image, dtype=np.float32)
    return _aperture_fluxes(image, cell, np.ascontiguousarray(xy, dtype=float), float(radius), cell.max() + 1)


@njit(cache=True, nogil=True, fastmath={"contract"})
def _aperture_fluxes(image, cell, xy, radius, n_channels):
    h, w = image.shape
    fluxes = np.full((len(xy), n_channels), np.nan)
    share_of = np.zeros(n_channels)
    for y in range(2):
        for x in range(2):
            share_of[cell[y, x]] += 1
    reach = int(math.ceil(2.2 * radius))
    for k in range(len(xy)):
        x0, y0 = xy[k, 0], xy[k, 1]
        if np.isnan(x0):
            continue
        cx, cy = int(round(x0)), int(round(y0))
        if cx - reach < 0 or cy - reach < 0 or cx + reach >= w or cy + reach >= h:
            continue
        ring = np.empty((n_channels, (2 * reach + 1) ** 2))
        n_ring = np.zeros(n_channels, np.int64)
        total, weight = np.zeros(n_channels), np.zeros(n_channels)
        for y in range(cy - reach, cy + reach + 1):
            for x in range(cx - reach, cx + reach + 1):
                distance = math.sqrt((x - x0) ** 2 + (y - y0) ** 2)
                c = cell[y % 2, x % 2]
                share = min(max(radius + 0.5 - distance, 0.0), 1.0)
                if share > 0:
                    total[c] += share * image[y, x]
                    weight[c] += share
                elif 1.4 * radius <= distance <= 2.2 * radius and not np.isnan(image[y, x]):
                    ring[c, n_ring[c]] = image[y, x]
                    n_ring[c] += 1
        for c in range(n_channels):
            if n_ring[c] >= 8:
                sky = np.median(ring[c, : n_ring[c]])
                fluxes[k, c] = (total[c] - weight[c] * sky) * 4 / share_of[c]
    return fluxes


def defects(image, cell, noise, kappa, isolation=0.12):
    """Pixels that stand alone: far from their neighbours of the same colour while those next to them are calm.

    Parameters
    ----------
    image : (h, w) float32 array, ADU
        Raw light. NaN marks a pixel without data.
    cell : (2, 2) int64 array
        Channel of each phase of the mosaic; all 0 for mono.
    noise : (c,) float64 array, ADU
        Standard deviation of a sky pixel by channel.
    kappa : float
        Least height over the neighbours, in units of the noise.
    isolation : float
        Most that the pixels at distance 1 may share of the height, beyond 3 sigma. Of a star of FWHM 1.8 px they have
        0.4, of a hot pixel nothing; one of them may have more, for it may be hot too.

    Returns
    -------
    (n, 2) int64 array
        Row and column of each, in row order. Hot and cold ones alike.
    """
    if image.ndim != 2 or min(image.shape) < 5 or cell.shape != (2, 2) or not kappa > 0:
        raise ValueError(f"need (h, w) of 5 or more, (2, 2) and kappa > 0, got {image.shape}, {cell.shape} and {kappa}")
    image = np.ascontiguousarray(image, dtype=np.float32)
    return _defects(image, cell, np.asarray(noise, dtype=float), float(kappa), float(isolation))


@njit(cache=True, nogil=True, fastmath={"contract"})
def _defects(image, cell, noise, kappa, isolation):
    h, w = image.shape
    step = 2 if cell.max() > 0 else 1
    found, places, n_found = np.zeros((h, w), np.bool_), np.empty(1024, np.int64), 0
    ring, far = np.empty(8), np.zeros(-(-w // 8) * 8, np.bool_)
    eights = far.view(np.uint64)
    limits = np.empty((2, w), np.float32)
    for x in range(w):
        limits[0, x], limits[1, x] = kappa * noise[cell[0, x % 2]] / 2, kappa * noise[cell[1, x % 2]] / 2
    for y in range(h):
        # Most pixels leave here, in a loop without branches: compare with four neighbours before sorting eight.
        line, limit = image[y], limits[y % 2]
        above, below = image[y - step if y >= step else y + step], image[y + step if y + step < h else y - step]
        n = w - 2 * step
        beside = line[:n], line[2 * step :], above[step : step + n], below[step : step + n]
        _far_from_neighbours(line[step : step + n], beside, limit[step:], far[step : step + n])
        for k in range(step):
            far[k] = abs(line[k] - line[k + step]) > limit[k]
            far[w - 1 - k] = abs(line[w - 1 - k] - line[w - 1 - k - step]) > limit[w - 1 - k]
        for m in range(len(eights)):
            if eights[m] == 0:
                continue
            for x in range(8 * m, min(8 * m + 8, w)):
                if far[x] and _stands_alone(image, cell, noise, kappa, isolation, step, found, y, x, ring):
                    found[y, x] = True
                    places, n_found = _with(places, n_found, y * w + x)
    # Once more beside those, which no longer count: of two neighbours the first may have hidden the second.
    k = 0
    while k < n_found:
        y, x = divmod(places[k], w)
        k += 1
        for j in range(max(y - step, 0), min(y + step + 1, h)):
            for i in range(max(x - step, 0), min(x + step + 1, w)):
                if not found[j, i] and _stands_alone(image, cell, noise, kappa, isolation, step, found, j, i, ring):
                    found[j, i] = True
                    places, n_found = _with(places, n_found, j * w + i)
    points = np.empty((n_found, 2), np.int64)
    for k, place in enumerate(np.sort(places[:n_found])):
        points[k, 0], points[k, 1] = divmod(place, w)
    return points


@njit
def _with(places, n, place):
    """Places and their number with one more, in twice the room when that is full."""
    if n == len(places):
        places = np.concatenate((places, np.empty_like(places)))
    places[n] = place
    return places, n + 1


@part(fastmath={"contract"})
def _far_from_neighbours(own, beside, limit, far):
    """Whether pixels are higher, or lower, than all four of those on both sides, above and below."""
    left, right, above, below = beside
    for x in range(len(own)):  # min() and max() look for NaN, in branches
        most, least = left[x], left[x]
        most, least = (right[x] if right[x] > most else most), (right[x] if right[x] < least else least)
        most, least = (above[x] if above[x] > most else most), (above[x] if above[x] < least else least)
        most, least = (below[x] if below[x] > most else most), (below[x] if below[x] < least else least)
        far[x] = (own[x] - most > limit[x]) | (least - own[x] > limit[x])


@part(fastmath={"contract"})
def _stands_alone(image, cell, noise, kappa, isolation, step, found, y, x, ring):
    h, w = image.shape
    value, limit = image[y, x], kappa * noise[cell[y % 2, x % 2]]
    n, low, high = 0, np.inf, -np.inf
    for j in range(y - step, y + step + 1, step):
        for i in range(x - step, x + step + 1, step):
            beside = (j != y or i != x) and 0 <= j < h and 0 <= i < w
            if beside and not found[j, i] and not np.isnan(image[j, i]):
                ring[n] = image[j, i]
                low, high = min(low, ring[n]), max(high, ring[n])
                n += 1
    sign = 1.0 if value > high else -1.0
    height = value - high if sign > 0 else low - value
    if n < 3 or not height > limit / 2:
        return False
    for a in range(1, n):  # in order, by insertion, which NaN would upset
        moving, b = ring[a], a
        while b > 0 and ring[b - 1] > moving:
            ring[b] = ring[b - 1]
            b -= 1
        ring[b] = moving
    middle = (ring[(n - 1) // 2] + ring[n // 2]) / 2
    if not abs(value - middle) > limit:
        return False
    allowed, restless, hot = isolation * abs(value - middle), 0, 0
    for m in range(4):
        j, i = y + NEXT_Y[m], x + NEXT_X[m]
        if not (0 <= j < h and 0 <= i < w) or found[j, i]:
            continue
        # Over the pixels of its own colour on both sides, or over the ring.
        quiet = allowed + 3 * noise[cell[j % 2, i % 2]]
        left, right = (i - 2 if i >= 2 else i + 2), (i + 2 if i + 2 < w else i - 2)
        own = (image[j, left] + image[j, right]) / 2 if step == 2 else middle
        restless += not sign * (image[j, i] - own) < quiet
        # Over the calmest of its own colour around it: a star shows in two of the four at least.
        up, down = (j - 2 if j >= 2 else j + 2), (j + 2 if j + 2 < h else j - 2)
        around = (sign * image[j, left], sign * image[j, right], sign * image[up, i], sign * image[down, i])
        calmest = min(min(around[0], around[1]), min(around[2], around[3]))
        known = not np.isnan(around[0] + around[1] + around[2] + around[3])
        hot += not (known and sign * image[j, i] - calmest < quiet)
    return restless == 0 or hot <= 1
