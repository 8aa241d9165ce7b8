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
# Pixels that a window reaches to each side, and neighbours in it, at the most.
MOST_REACH, MOST_NEAR = 24, 16
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


# Room for the fit of a star. Neighbours in its window (MOST_NEAR,), and which pixels count; by channel the number of
# pixels and the lowest; the integrals of ``_integrate``; parameters, those on trial, and the step between them; normal
# equations, those on trial, a copy with damping, their Cholesky factor, and the covariance.
Room = namedtuple(
    "Room",
    "near use n_used low profile p trial step normal gradient trial_normal trial_gradient damped factor covariance",
)


def _room(n_channels):
    side, size = 2 * MOST_REACH + 1, 3 + 2 * n_channels
    square, line = (size, size), (size,)
    return Room(
        near=np.empty(MOST_NEAR, np.int64),
        use=np.empty((side, side), np.bool_),
        n_used=np.empty(n_channels),
        low=np.empty(n_channels),
        profile=np.empty((2, 3, 2 * side)),
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
    use, n_used, low = room.use[:ny, :nx], room.n_used, room.low
    peak = -np.inf
    n_used[:] = 0.0
    low[:] = np.inf
    for j in range(ny):
        for i in range(nx):
            y, x = bottom + j, left + i
            value = image[y, x]
            d2 = (x - x0) ** 2 + (y - y0) ** 2
            use[j, i] = False
            if np.isnan(value):
                continue
            if value >= saturation:
                if d2 < (1.5 * fwhm0 + 1) ** 2:
                    flags |= SATURATED
                continue
            mine = True
            for m in range(n_near):
                dx, dy = x - start[near[m], 0], y - start[near[m], 1]
                mine &= dx * dx + dy * dy >= d2
            if mine:
                use[j, i] = True
                channel = cell[y % 2, x % 2]
                n_used[channel] += 1
                low[channel] = min(low[channel], value)
                if d2 < (fwhm0 + 1) ** 2:
                    peak = max(peak, value)
    row[6] = flags | FAILED
    for c in range(n_channels):
        if n_used[c] < 6:
            return

    # x, y, ln FWHM, then flux and sky of each channel.
    size, p, profile, normal, gradient = 3 + 2 * n_channels, room.p, room.profile, room.normal, room.gradient
    p[:] = 0.0
    p[0], p[1], p[2] = x0, y0, math.log(fwhm0)
    for c in range(n_channels):
        p[3 + n_channels + c] = low[c]
    # Flux and sky are linear: one step with the shape held gives their start.
    chi2 = _normal(image, cell, noise, use, left, bottom, p, profile, normal, gradient)
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
    chi2 = _normal(image, cell, noise, use, left, bottom, p, profile, normal, gradient)
    damping = 1e-3
    trial, trial_normal, trial_gradient, damped = room.trial, room.trial_normal, room.trial_gradient, room.damped
    converged = False
    for _ in range(MOST_ITERATIONS):
        for a in range(size):
            for b in range(size):
                damped[a, b] = normal[a, b]
            damped[a, a] *= 1 + damping
        if not _solve(damped, gradient, factor, step):
            return
        for a in range(size):
            trial[a] = p[a] + step[a]
        trial[2] = min(max(trial[2], math.log(0.4)), math.log(2.0 * reach))
        if abs(trial[0] - x0) > reach / 2 or abs(trial[1] - y0) > reach / 2:
            damping *= 10
            if damping > 1e6:
                return
            continue
        trial_chi2 = _normal(image, cell, noise, use, left, bottom, trial, profile, trial_normal, trial_gradient)
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
def _normal(image, cell, noise, use, left, bottom, p, profile, normal, gradient):
    """Fill the normal equations at p, return chi^2."""
    ny, nx = use.shape
    n_channels = len(noise)
    _integrate(p, left, bottom, nx, ny, profile)
    normal[:] = 0.0
    gradient[:] = 0.0
    chi2 = 0.0
    for j in range(ny):
        a0, a1 = SHARES[0] * profile[0, 0, nx + j], SHARES[1] * profile[1, 0, nx + j]
        b0, b1 = SHARES[0] * profile[0, 1, nx + j], SHARES[1] * profile[1, 1, nx + j]
        c0, c1 = SHARES[0] * profile[0, 2, nx + j], SHARES[1] * profile[1, 2, nx + j]
        for phase in range(2):  # pixels of one channel, so that their sums stay in registers
            c = cell[(bottom + j) % 2, (left + phase) % 2]
            flux, sky, weight = p[3 + c], p[3 + n_channels + c], 1.0 / (noise[c] * noise[c])
            xx = xy = xf = yy = yf = ff = x_flux = y_flux = f_flux = x_sky = y_sky = f_sky = 0.0
            flux_flux = flux_sky = sky_sky = x_r = y_r = f_r = flux_r = sky_r = r_r = 0.0
            for i in range(phase, nx, 2):
                if not use[j, i]:
                    continue
                e0, e1 = profile[0, 0, i], profile[1, 0, i]
                value = a0 * e0 + a1 * e1
                dx = flux * (a0 * profile[0, 1, i] + a1 * profile[1, 1, i])
                dy = flux * (b0 * e0 + b1 * e1)
                df = flux * (a0 * profile[0, 2, i] + a1 * profile[1, 2, i] + (c0 * e0 + c1 * e1))
                residual = image[bottom + j, left + i] - flux * value - sky
                xx, xy, xf = xx + dx * dx, xy + dx * dy, xf + dx * df
                yy, yf, ff = yy + dy * dy, yf + dy * df, ff + df * df
                x_flux, y_flux, f_flux = x_flux + dx * value, y_flux + dy * value, f_flux + df * value
                x_sky, y_sky, f_sky = x_sky + dx, y_sky + dy, f_sky + df
                flux_flux, flux_sky, sky_sky = flux_flux + value * value, flux_sky + value, sky_sky + 1.0
                x_r, y_r, f_r = x_r + dx * residual, y_r + dy * residual, f_r + df * residual
                flux_r, sky_r, r_r = flux_r + value * residual, sky_r + residual, r_r + residual * residual
            f, s = 3 + c, 3 + n_channels + c
            normal[0, 0] += weight * xx
            normal[0, 1] += weight * xy
            normal[0, 2] += weight * xf
            normal[1, 1] += weight * yy
            normal[1, 2] += weight * yf
            normal[2, 2] += weight * ff
            normal[0, f] += weight * x_flux
            normal[1, f] += weight * y_flux
            normal[2, f] += weight * f_flux
            normal[0, s] += weight * x_sky
            normal[1, s] += weight * y_sky
            normal[2, s] += weight * f_sky
            normal[f, f] += weight * flux_flux
            normal[f, s] += weight * flux_sky
            normal[s, s] += weight * sky_sky
            gradient[0] += weight * x_r
            gradient[1] += weight * y_r
            gradient[2] += weight * f_r
            gradient[f] += weight * flux_r
            gradient[s] += weight * sky_r
            chi2 += weight * r_r
    for a in range(len(p)):
        for b in range(a):
            normal[a, b] = normal[b, a]
    return chi2


@part(fastmath={"contract"})
def _integrate(p, left, bottom, nx, ny, profile):
    """For each column and then each row the integral of both Gaussians over the pixel and its derivatives by position
    and by ln FWHM: (2, 3, nx + ny)."""
    fwhm = math.exp(p[2])
    for i in range(2):
        sigma = SIGMAS[i] * fwhm
        norm = 1.0 / (math.sqrt(2 * math.pi) * sigma)
        for axis in range(2):
            n, first, centre, base = (nx, left, p[0], 0) if axis == 0 else (ny, bottom, p[1], nx)
            u = (first - 0.5 - centre) / sigma
            bell = math.exp(-u * u / 2)
            edge, density = _error_function(u, bell), norm * bell
            for j in range(n):
                v = (first + j + 0.5 - centre) / sigma
                bell = math.exp(-v * v / 2)
                next_edge, next_density = _error_function(v, bell), norm * bell
                profile[i, 0, base + j] = (next_edge - edge) / 2
                profile[i, 1, base + j] = density - next_density
                profile[i, 2, base + j] = sigma * (u * density - v * next_density)
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
