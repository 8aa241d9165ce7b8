"""Kernels of SCAN_INPUT: what the pixels of a light say without any model of the camera."""

import numpy as np

from tilestack.kernels import entry, part

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
    bits = np.ascontiguousarray(image, dtype=np.float32).view(np.int32)
    n_nan, n_zero, lowest, highest, n_highest = _levels(bits)
    if n_nan == image.size:
        return n_nan, n_zero, np.nan, np.nan, 0
    lowest, highest = np.array([lowest, highest], np.int32).view(np.float32).tolist()
    return n_nan, n_zero, lowest, highest, n_highest


# Of the bits of a float32: all but the sign, and those from which on they are infinity or NaN.
NUMBER, ENDLESS = np.int32(0x7FFFFFFF), np.int32(0x7F800000)
LEAST, MOST = np.int32(-0x80000000), np.int32(0x7FFFFFFF)


@part
def _order(bits):
    """A whole number by which floats are in order: compilers look for the least of those several at a time."""
    return bits ^ ((bits >> np.int32(31)) & NUMBER)


@entry()
def _levels(bits):
    n_nan, n_zero, n_highest = 0, 0, 0
    lowest, highest = MOST, LEAST
    for y in range(bits.shape[0]):
        row = bits[y]
        nan, zero, low, high = np.int32(0), np.int32(0), MOST, LEAST
        for x in range(np.uintp(len(row))):
            size, order = row[x] & NUMBER, _order(row[x])
            endless = size >= ENDLESS
            nan += np.int32(endless)
            zero += np.int32(size == 0)
            low = min(low, MOST if endless else order)
            high = max(high, LEAST if endless else order)
        n_nan += nan
        n_zero += zero
        lowest = min(lowest, low)
        if nan < len(row) and high >= highest:
            n_equal = np.int32(0)
            for x in range(np.uintp(len(row))):
                n_equal += np.int32(_order(row[x]) == high)
            n_highest = n_equal + (n_highest if high == highest else 0)
            highest = high
    return n_nan, n_zero, _order(lowest), _order(highest), n_highest


def decode(codes, zero, values):
    """Values of 16-bit numbers as FITS stores them.

    Parameters
    ----------
    codes : (n,) uint16 array
        Numbers with sign, the high byte first, looked at as if the low byte were.
    zero : float, ADU
        BZERO.
    values : (n,) float32 array, ADU
        Written.
    """
    if codes.ndim != 1 or codes.dtype != "<u2" or values.shape != codes.shape:
        raise ValueError(f"codes must be (n,) of 16 bits without sign, got {codes.shape} of {codes.dtype}")
    _decode(codes, np.float32(zero), values)


@entry()
def _decode(codes, zero, values):
    for i in range(np.uintp(len(values))):
        turned = np.uint16((codes[i] << np.uint16(8)) | (codes[i] >> np.uint16(8)))
        values[i] = np.float32(np.int16(turned)) + zero


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


def sky_of_blocks(binned, block):
    """Medians of a binned light in blocks, by a quarter of the pixels: they say the sky to a tenth of the noise.

    Parameters
    ----------
    binned : (h, w) float32 array, ADU
        NaN marks no data.
    block : int
        Side of a block, even; what is left over at the far sides is in none.

    Returns
    -------
    (h // block, w // block) float64 array
        The lower median, or a value less than 1e-6 of the range from it. NaN where a block has no data.
    """
    if binned.ndim != 2 or block < 2 or block % 2:
        raise ValueError(f"need an image and an even block, got shape {binned.shape} and {block}")
    sky = np.empty((binned.shape[0] // block, binned.shape[1] // block))
    _sky_of_blocks(np.ascontiguousarray(binned, dtype=np.float32), block, np.empty(block * block // 4, np.float32), sky)
    return sky


@entry()
def _sky_of_blocks(binned, block, room, sky):
    for j in range(sky.shape[0]):
        for i in range(sky.shape[1]):
            n = 0
            for y in range(j * block, (j + 1) * block, 2):
                for x in range(i * block, (i + 1) * block, 2):
                    if not np.isnan(binned[y, x]):
                        room[n] = binned[y, x]
                        n += 1
            sky[j, i] = _middle(room[:n]) if n else np.nan


@part
def _middle(values):
    """As in ``prewarp``: the range is halved, as counting is quicker than sorting."""
    low = high = values[0]
    for k in range(1, len(values)):
        low, high = min(low, values[k]), max(high, values[k])
    for _ in range(20):
        x, count = np.float32(0.5) * (low + high), np.int32(0)
        for k in range(len(values)):
            count += np.int32(values[k] <= x)
        low, high = (low, x) if 2 * count >= len(values) else (x, high)
    middle = np.float32(-np.inf)
    for k in range(len(values)):
        middle = max(middle, values[k]) if values[k] <= high else middle
    return middle


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
    count, highest = 0, 0.0
    for y in range(1, min(background.shape[0] * block, binned.shape[0] - 1)):
        for i in range(background.shape[1]):
            sky = background[y // block, i]
            for x in range(max(i * block, 1), min((i + 1) * block, binned.shape[1] - 1)):
                value = binned[y, x] - sky
                if not value > limit * noise:
                    continue
                highest = max(highest, value)
                count += _is_star(binned, y, x, sky, value, noise)
    return count, highest


@part
def _is_star(binned, y, x, sky, value, noise):
    """Whether a pixel is the highest of its neighbours, and enough of them stand out."""
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
    return largest and standing >= STAR_NEIGHBOURS
