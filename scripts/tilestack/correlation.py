"""Registration by the image itself: log-polar for the angle, cross-correlation for the shift, then the best fit."""

import numpy as np
from scipy import fft, ndimage

from tilestack import geometry
from tilestack.starmatch import NoMatch

LONGEST_PX = 384
# A peak of the correlation over its scatter; noise of 384 x 384 places reaches 5.
LEAST_PEAK = 8.0
# Correlation of both images under the final transform; of noise it is below 0.05.
LEAST_AGREEMENT = 0.15
SCALE_RANGE = (0.9, 1.1)


def prepared(image):
    """Band-passed picture of a frame: no gradients, no single pixels, unit scatter.

    Parameters
    ----------
    image : (h, w) float32 array
        NaN marks no data.

    Returns
    -------
    picture : (h', w') float64 array
        Longer side at most LONGEST_PX.
    factor : int
        Pixels of the image per pixel of the picture.
    """
    factor = -(-max(image.shape) // LONGEST_PX)
    h, w = (n // factor * factor for n in image.shape)
    blocks = image[:h, :w].reshape(h // factor, factor, w // factor, factor)
    small = np.median(blocks.transpose(0, 2, 1, 3).reshape(h // factor, w // factor, -1), axis=2)
    small = np.where(np.isfinite(small), small, np.nanmedian(small)).astype(float)
    band = ndimage.gaussian_filter(small, 1.0) - ndimage.gaussian_filter(small, 10.0)
    scatter = 1.4826 * np.median(np.abs(band - np.median(band)))
    # A track of a particle, clipped, weighs too little to be taken for the field.
    return np.clip(band / max(scatter, 1e-12), -6, 6), factor


def _phase_correlation(one, other):
    """Shift (y, x) that takes `other` onto `one`, and the height of the peak over the scatter."""
    spectrum = fft.rfft2(one) * np.conj(fft.rfft2(other))
    surface = fft.irfft2(spectrum / np.maximum(np.abs(spectrum), 1e-12), s=one.shape)
    surface = ndimage.gaussian_filter(surface, 1.0, mode="wrap")
    at = np.unravel_index(surface.argmax(), surface.shape)
    shift = [place - n if place > n / 2 else place for place, n in zip(at, surface.shape, strict=True)]
    return np.array(shift, float), float((surface[at] - surface.mean()) / surface.std())


def _log_polar(picture, n_angles, n_radii):
    """Spectrum of a picture over angle (0 to pi) and logarithm of the frequency."""
    window = np.outer(np.hanning(picture.shape[0]), np.hanning(picture.shape[1]))
    size = max(picture.shape)
    spectrum = np.abs(fft.fftshift(fft.fft2(picture * window, s=(size, size))))
    radii = np.exp(np.linspace(np.log(4), np.log(size / 2.5), n_radii))
    angles = np.arange(n_angles) * np.pi / n_angles
    y = size // 2 + radii[None] * np.sin(angles[:, None])
    x = size // 2 + radii[None] * np.cos(angles[:, None])
    polar = ndimage.map_coordinates(np.log1p(spectrum), [y, x], order=1)
    return polar - polar.mean(0), radii


def _same_size(picture, shape):
    out = np.zeros(shape)
    h, w = (min(a, b) for a, b in zip(picture.shape, shape, strict=True))
    out[:h, :w] = picture[:h, :w]
    return out


def _moved(picture, transform, shape):
    """Picture resampled under a transform, NaN outside."""
    back = geometry.inverse(transform)
    matrix = back[:, :2][::-1, ::-1]  # affine_transform takes (y, x)
    return ndimage.affine_transform(picture, matrix, back[::-1, 2], output_shape=shape, order=1, cval=np.nan)


def align(moving, fixed):
    """The similarity that takes one frame onto another, by their structure.

    Parameters
    ----------
    moving, fixed : (h, w) float32 arrays
        Luminance on one pixel scale; NaN marks no data.

    Returns
    -------
    transform : (2, 3) float64 array
    agreement : float
        Correlation of both pictures under it.

    Raises
    ------
    NoMatch
        Where no peak stands out, or the pictures do not agree under the best transform.

    Notes
    -----
    Reddy and Chatterji 1996 (doi:10.1109/83.506761) for the start; then Gauss-Newton on the pictures (Lucas and
    Kanade 1981).
    """
    (one, factor), (other, other_factor) = prepared(fixed), prepared(moving)
    if factor != other_factor:
        raise NoMatch(f"pictures of different size, {fixed.shape} and {moving.shape}")
    n_angles = 720
    polar, radii = _log_polar(one, n_angles, 256)
    other_polar, _ = _log_polar(_same_size(other, one.shape), n_angles, 256)
    (turn, stretch), _ = _phase_correlation(polar, other_polar)
    angle = turn * np.pi / n_angles
    scale = float(np.clip((radii[1] / radii[0]) ** -stretch, *SCALE_RANGE))
    centre = (np.array(other.shape[::-1]) - 1) / 2
    best, highest = None, 0.0
    for theta in (angle, angle + np.pi):
        matrix = scale * np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])
        start = np.column_stack([matrix, centre - matrix @ centre])
        turned = np.nan_to_num(_moved(other, start, one.shape))
        shift, peak = _phase_correlation(one, turned)
        if peak > highest:
            best, highest = start + np.array([[0, 0, shift[1]], [0, 0, shift[0]]]), peak
    if highest < LEAST_PEAK:
        raise NoMatch(f"no peak in the correlation: {highest:.1f} times its scatter, needs {LEAST_PEAK:g}")
    transform, agreement = _climb(one, other, best)
    if agreement < LEAST_AGREEMENT:
        raise NoMatch(f"the pictures agree by {agreement:.2f}, needs {LEAST_AGREEMENT:g}")
    middle = (factor - 1) / 2  # centre of the first picture pixel, in pixels of the image
    up = np.array([[factor, 0, middle], [0, factor, middle]], float)
    return geometry.compose(up, geometry.compose(transform, geometry.inverse(up))), agreement


def _climb(one, other, transform, rounds=30):
    """Gauss-Newton for a similarity that makes both pictures agree; and their correlation under it."""
    y, x = np.indices(one.shape, float)
    for _ in range(rounds):
        moved = _moved(other, transform, one.shape)
        known = np.isfinite(moved)
        if known.sum() < 0.1 * one.size:
            return transform, 0.0
        gy, gx = np.gradient(np.where(known, moved, 0))
        # Of d(moved) by shift x, shift y, turn and growth about the middle.
        u, v = x - one.shape[1] / 2, y - one.shape[0] / 2
        steps = np.stack(
            [gx[known], gy[known], (v * -gx + u * gy)[known] / 100, (u * gx + v * gy)[known] / 100], axis=1
        )
        factor = (moved[known] * one[known]).sum() / (one[known] ** 2).sum()
        solution = np.linalg.lstsq(steps, moved[known] - factor * one[known], rcond=None)[0]
        dx, dy, turn, growth = solution * [1, 1, 0.01, 0.01]
        matrix = np.array([[1 + growth, -turn], [turn, 1 + growth]])
        middle = np.array([one.shape[1], one.shape[0]]) / 2
        step = np.column_stack([matrix, middle - matrix @ middle + [dx, dy]])
        transform = geometry.compose(step, transform)
        if np.abs(solution).max() < 1e-3:
            break
    moved = _moved(other, transform, one.shape)
    known = np.isfinite(moved)
    return transform, float(np.corrcoef(moved[known], one[known])[0, 1]) if known.sum() > 100 else 0.0
