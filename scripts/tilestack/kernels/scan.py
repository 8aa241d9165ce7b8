"""Kernels of SCAN_INPUT: what the pixels of a light say without any model of the camera."""

import numpy as np

from tilestack.kernels import entry

# A star in a 2x2-binned light is wider than a pixel: this many of its eight neighbours stand out too.
STAR_NEIGHBOURS = 3


def levels(image):
    """Count and bound the pixels of a light.

    Parameters
    ----------
    image : (h, w) float32 array, ADU
        NaN marks a pixel without data.

    Returns
    -------
    n_nan, n_zero : int
    lowest, highest : float, ADU
        NaN where no pixel has data.
    n_highest : int
        Number of pixels at exactly the highest value.
    """
    if image.ndim != 2:
        raise ValueError(f"image must be (h, w), got shape {image.shape}")
    return _levels(np.ascontiguousarray(image, dtype=np.float32))


@entry(fastmath={"contract"})
def _levels(image):
    n_nan, n_zero, n_highest = 0, 0, 0
    lowest, highest = np.inf, -np.inf
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            value = image[y, x]
            if not np.isfinite(value):
                n_nan += 1
                continue
            if value == 0:
                n_zero += 1
            if value < lowest:
                lowest = value
            if value > highest:
                highest, n_highest = value, 1
            elif value == highest:
                n_highest += 1
    if n_highest == 0:
        return n_nan, n_zero, np.nan, np.nan, 0
    return n_nan, n_zero, lowest, highest, n_highest


def binned(image):
    """Means of 2x2 pixels: the luminance of a mosaic, and where a mono light has stars enough a fourth of the work.

    Parameters
    ----------
    image : (h, w) float32 array
        NaN marks a pixel without data, and so do means with one.

    Returns
    -------
    (h // 2, w // 2) float32 array
    """
    if image.ndim != 2:
        raise ValueError(f"image must be (h, w), got shape {image.shape}")
    out = np.empty((image.shape[0] // 2, image.shape[1] // 2), np.float32)
    _binned(np.ascontiguousarray(image, dtype=np.float32), out)
    return out


@entry()
def _binned(image, out):
    for y in range(out.shape[0]):
        upper, lower, means = image[2 * y], image[2 * y + 1], out[y]
        for x in range(np.uintp(len(means))):
            left, right = np.uintp(2) * x, np.uintp(2) * x + np.uintp(1)
            means[x] = ((upper[left] + lower[left]) + (upper[right] + lower[right])) * np.float32(0.25)


def count_peaks(binned, background, noise, block, limit):
    """Count the star-like maxima of a binned light, and find how far the highest pixel stands out.

    Parameters
    ----------
    binned : (h, w) float32 array, ADU
        Light in 2x2 sums or means, so that a mosaic has one colour; NaN marks no data.
    background : (h // block, w // block) float64 array, ADU
        Sky in blocks of the binned light.
    noise : float, ADU
        Standard deviation of a binned pixel.
    block : int
        Side of a block in binned pixels.
    limit : float
        Least height of a peak above the sky, in units of ``noise``.

    Returns
    -------
    count : int
        Peaks that are wider than a pixel.
    reach : float
        Height of the highest pixel, star or not, in units of ``noise``.
    """
    if binned.ndim != 2 or background.ndim != 2:
        raise ValueError(f"need two images, got shapes {binned.shape} and {background.shape}")
    if not noise > 0 or block < 1:
        raise ValueError(f"need noise > 0 and block >= 1, got {noise} and {block}")
    binned = np.ascontiguousarray(binned, dtype=np.float32)
    count, highest = _count_peaks(binned, background, float(noise), int(block), float(limit))
    return count, highest / noise


@entry(fastmath={"contract"})
def _count_peaks(binned, background, noise, block, limit):
    rows, columns = background.shape
    count, highest = 0, 0.0
    for y in range(1, min(rows * block, binned.shape[0] - 1)):
        for x in range(1, min(columns * block, binned.shape[1] - 1)):
            sky = background[y // block, x // block]
            value = binned[y, x] - sky
            if not value > limit * noise:
                continue
            highest = max(highest, value)
            largest, standing = True, 0
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    if dy == 0 and dx == 0:
                        continue
                    neighbour = binned[y + dy, x + dx] - sky
                    # ">=" on one side only, so that of two equal pixels one is the peak.
                    if neighbour > value or (neighbour == value and (dy < 0 or (dy == 0 and dx < 0))):
                        largest = False
                    if neighbour > max(2.5 * noise, 0.1 * value):
                        standing += 1
            count += largest and standing >= STAR_NEIGHBOURS
    return count, highest
