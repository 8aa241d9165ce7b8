"""Kernel of the sky template: the median of normalised frames."""

import numpy as np

from tilestack.kernels import entry, part

NO_DATA, SATURATED = -32768, 32767
# Columns that are taken at once where all frames have data.
CHUNK = 128


def median(codes, zero, scale, sky, grid, photometric, channel_rows, variance, most):
    """Median over frames of normalised pixels, for a band of rows.

    Parameters
    ----------
    codes : (n, h, w) int16 array
        Prewarped frames in a common box, the best first; -32768 no data, 32767 saturated.
    zero, scale : (n,) float64 arrays
        Value of a frame = zero + scale x code, in ADU.
    sky : (n, c, ny, nx) float64 array, ADU
        Sky difference of each frame and channel at the nodes of a grid that holds the band.
    grid : (float, float, float)
        Row and column of the band's first pixel in units of the grid, counted from its first node, and its pitch in
        pixels. Between nodes the sky is bilinear.
    photometric : (n, c) float64 array
        Photometric scales.
    channel_rows : (2, 2) int64 array
        Channel of each Bayer phase of the band.
    variance : (n, c) float64 array, ADU^2
        Of a normalised pixel.
    most : int
        Frames behind a pixel: the first so many that have data there.

    Returns
    -------
    image, variance : (h, w) float32 arrays, ADU and ADU^2
        NaN where no frame has data. Saturated pixels count only where fewer than 5 others do.
    count : (h, w) int16 array
        Frames behind each pixel.

    Notes
    -----
    The variance of the median of n Gaussian values is pi / 2 of that of their mean.
    """
    n, h, w = codes.shape
    if most < 1:
        raise ValueError(f"need at least one frame behind a pixel, got most = {most}")
    if sky.shape[:2] != photometric.shape or photometric.shape != variance.shape or len(photometric) != n:
        raise ValueError(
            f"need n frames in all arrays, got {codes.shape}, {sky.shape}, {photometric.shape}, {variance.shape}"
        )
    image, spread = np.empty((h, w), np.float32), np.empty((h, w), np.float32)
    count = np.empty((h, w), np.int16)
    frames = (codes, zero, scale, sky, photometric, variance)
    fewest = min(most, n)
    nodes = np.clip((grid[1] + np.arange(w) / grid[2]).astype(np.int64), 0, sky.shape[3] - 2)
    room = np.empty((n, *sky.shape[1::2])), np.empty((fewest, CHUNK + 8), np.float32), np.empty(n), np.empty(n)
    _median(frames, *grid, channel_rows, fewest, int(most), nodes, room, image, spread, count)
    return image, spread, count


@entry(fastmath={"contract"}, error_model="numpy")
def _median(frames, grid_y, grid_x, pitch, channel_rows, fewest, most, nodes, room, image, spread, count):
    codes, zero, scale, sky, photometric, variance = frames
    lines, values, few, variances = room
    n, h, w = codes.shape
    for y in range(h):
        at_y = grid_y + y / pitch
        j = min(max(int(at_y), 0), sky.shape[2] - 2)
        for k in range(n):
            for c in range(sky.shape[1]):
                for i in range(sky.shape[3]):
                    lines[k, c, i] = sky[k, c, j, i] + (at_y - j) * (sky[k, c, j + 1, i] - sky[k, c, j, i])
        channels = (channel_rows[y % 2, 0], channel_rows[y % 2, 1])
        for x0 in range(0, w, CHUNK):
            end = min(x0 + CHUNK, w)
            clean = True
            for k in range(fewest):
                clean = clean and _all_known(codes[k, y, x0:end])
            if clean:
                for k in range(fewest):
                    frame = (zero[k], scale[k], photometric[k, channels[0]], photometric[k, channels[1]])
                    even, odd = lines[k, channels[0]], lines[k, channels[1]]
                    _normalised(
                        codes[k, y, x0:end], frame, even, odd, nodes[x0:end], x0, grid_x, pitch, values[k, : end - x0]
                    )
                _sort_upper_half(values, end - x0)
                low, high = values[(fewest - 1) // 2], values[fewest // 2]
                of_phase = (_spread(variance[:fewest, channels[0]]), _spread(variance[:fewest, channels[1]]))
                for x in range(x0, end):
                    image[y, x] = (low[x - x0] + high[x - x0]) / 2
                    spread[y, x], count[y, x] = of_phase[x & 1], fewest
                continue
            for x in range(x0, end):
                c = channels[x & 1]
                i = nodes[x]
                f = grid_x + x / pitch - i
                for saturated_too in range(2):
                    m = 0
                    for k in range(n):
                        code = codes[k, y, x]
                        if code == NO_DATA or (code == SATURATED and not saturated_too):
                            continue
                        here = (1 - f) * lines[k, c, i] + f * lines[k, c, i + 1]
                        few[m] = (zero[k] + scale[k] * code - here) / photometric[k, c]
                        variances[m] = variance[k, c]
                        m += 1
                        if m == most:
                            break
                    if m >= 5:
                        break
                count[y, x] = m
                if m == 0:
                    image[y, x], spread[y, x] = np.nan, np.nan
                    continue
                image[y, x], spread[y, x] = _middle(few[:m]), _spread(variances[:m])


@part()
def _spread(variances):
    total = 0.0
    for k in range(len(variances)):
        total += variances[k]
    return np.pi / 2 * total / len(variances) ** 2


@part()
def _all_known(codes):
    bad = np.int32(0)
    for x in range(len(codes)):
        bad += np.int32(codes[x] == NO_DATA or codes[x] == SATURATED)
    return bad == 0


@part(fastmath={"contract"}, error_model="numpy")
def _normalised(codes, frame, even, odd, nodes, x0, grid_x, pitch, out):
    """Normalised pixels of a frame from column x0 on, without tests inside so that they are made as vectors."""
    zero, scale, by_even, by_odd = frame
    x = 0
    while x < len(out):
        i, stop = nodes[x], x + 1
        while stop < len(out) and nodes[stop] == i:
            stop += 1
        its_codes, its = codes[x:stop], out[x:stop]
        a, b, c, d = even[i], even[i + 1], odd[i], odd[i + 1]
        for k in range(len(its)):
            of_even = (x0 + x + k) & 1 == 0
            f = grid_x + (x0 + x + k) / pitch - i
            here = (1 - f) * (a if of_even else c) + f * (b if of_even else d)
            its[k] = (zero + scale * its_codes[k] - here) / (by_even if of_even else by_odd)
        x = stop


@part()
def _sort_upper_half(values, n):
    """Sort the columns of values, rising, as far down as their medians: the largest goes last, the next one before."""
    for last in range(len(values) - 1, (len(values) - 1) // 2 - 1, -1):
        for k in range(last):
            _put_in_order(values[k, :n], values[k + 1, :n])


@part()
def _put_in_order(one, other):
    for x in range(len(one)):
        a, b = one[x], other[x]
        one[x], other[x] = (a if a < b else b), (b if a < b else a)


@part(fastmath={"contract"})
def _middle(values):
    """Median, by insertion sort of few values and by Shell's of many; reorders them."""
    n = len(values)
    gap = n if n > 24 else 2
    while gap > 1:
        gap = max(gap * 5 // 11, 1)
        for a in range(gap, n):
            value = values[a]
            b = a - gap
            while b >= 0 and values[b] > value:
                values[b + gap] = values[b]
                b -= gap
            values[b + gap] = value
    return (values[(n - 1) // 2] + values[n // 2]) / 2
