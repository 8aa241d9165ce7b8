"""Kernel of the sky template: the median of normalised frames."""

from collections import namedtuple

import numpy as np

from tilestack.kernels import entry, part

NO_DATA, SATURATED = -32768, 32767
# Columns that are taken at once.
CHUNK = 128
# Pixels that fewer frames know without saturation take saturated ones too.
FEWEST = 5


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
        NaN where no frame has data. Saturated pixels count only where fewer than FEWEST others do.
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
    nodes = np.clip((grid[1] + np.arange(w) / grid[2]).astype(np.int64), 0, sky.shape[3] - 2)
    room = Room(
        lines=np.empty((n, *sky.shape[1::2])),
        values=np.empty((min(most, n) + 1, CHUNK + 8), np.float32),
        row=np.empty(CHUNK, np.float32),
        known=np.empty(CHUNK, np.uint8),
        counts=np.empty(CHUNK, np.int32),
        totals=np.empty(CHUNK),
        few=np.empty(n),
        variances=np.empty(n),
    )
    _median(frames, *grid, channel_rows, min(most, n), nodes, room, image, spread, count)
    return image, spread, count


# Interpolated sky (n, c, nx) of a row; of a chunk: the values of each pixel from the first row on, with one row for
# what is not wanted, the values of a frame and which of them are known, how many each pixel has and their variances;
# the values of a pixel by itself and their variances.
Room = namedtuple("Room", "lines values row known counts totals few variances")


@entry(fastmath={"contract"}, error_model="numpy")
def _median(frames, grid_y, grid_x, pitch, channel_rows, most, nodes, room, image, spread, count):
    codes, sky = frames[0], frames[3]
    n, h, w = codes.shape
    for y in range(h):
        at_y = grid_y + y / pitch
        j = min(max(int(at_y), 0), sky.shape[2] - 2)
        for k in range(n):
            for c in range(sky.shape[1]):
                for i in range(sky.shape[3]):
                    room.lines[k, c, i] = sky[k, c, j, i] + (at_y - j) * (sky[k, c, j + 1, i] - sky[k, c, j, i])
        channels = (channel_rows[y % 2, 0], channel_rows[y % 2, 1])
        for x0 in range(0, w, CHUNK):
            end = min(x0 + CHUNK, w)
            line = (y, x0, end, channels, grid_x, pitch, nodes)
            _sort_lower_half(room.values[: _gather(frames, line, most, room)], end - x0)
            for x in range(x0, end):
                m = room.counts[x - x0]
                if m < FEWEST:
                    m = _by_itself(frames, line, x, most, room)
                    image[y, x] = _middle(room.few[:m]) if m > 0 else np.nan
                    spread[y, x] = _spread(room.variances[:m]) if m > 0 else np.nan
                else:
                    image[y, x] = (room.values[(m - 1) // 2, x - x0] + room.values[m // 2, x - x0]) / 2
                    spread[y, x] = np.pi / 2 * room.totals[x - x0] / m**2
                count[y, x] = m


@part(fastmath={"contract"}, error_model="numpy")
def _gather(frames, line, most, room):
    """Values of the pixels of a chunk, of each the first so many that are known, and infinity behind them: how many the
    one with most has. As long as frames have all pixels of the chunk or none, all are alike.
    """
    codes, zero, scale, _, photometric, variance = frames
    y, x0, end, channels, grid_x, pitch, nodes = line
    size, alike, m, fewest = end - x0, True, 0, 0
    counts, totals, values = room.counts[:size], room.totals[:size], room.values
    known, row = room.known[:size], room.row[:size]
    totals[:] = 0.0
    for k in range(len(codes)):
        n_known = _known(codes[k, y, x0:end], known)
        if n_known == 0:
            continue
        frame = (zero[k], scale[k], photometric[k, channels[0]], photometric[k, channels[1]])
        even, odd = room.lines[k, channels[0]], room.lines[k, channels[1]]
        of_phase = variance[k, channels[0]], variance[k, channels[1]]  # a chunk begins at an even column
        if alike and n_known == size:
            _normalised(codes[k, y, x0:end], frame, even, odd, nodes[x0:end], x0, grid_x, pitch, values[m, :size])
            _add_phases(of_phase, totals)
            m += 1
            if m == most:
                break
            continue
        if alike:
            counts[:] = m
            alike = False
        _normalised(codes[k, y, x0:end], frame, even, odd, nodes[x0:end], x0, grid_x, pitch, row)
        fewest = most
        for x in range(size):
            at = counts[x]
            values[at, x] = row[x]
            more = np.int32(known[x]) & np.int32(at < most)
            totals[x] += more * of_phase[x & 1]
            counts[x] = at + more
            fewest = min(fewest, counts[x])
        if fewest == most:
            break
    if alike:
        counts[:] = m
        return m
    m = _most_of(counts)
    for k in range(fewest, m):
        _end_with_infinity(k, counts, values[k, :size])
    return m


@part()
def _most_of(counts):
    most = np.int32(0)
    for x in range(len(counts)):
        most = max(most, counts[x])
    return most


@part()
def _end_with_infinity(k, counts, values):
    for x in range(len(values)):
        values[x] = values[x] if k < counts[x] else np.float32(np.inf)


@part()
def _add_phases(of_phase, totals):
    for x in range(len(totals)):
        totals[x] += of_phase[0] if x & 1 == 0 else of_phase[1]


@part()
def _by_itself(frames, line, x, most, room):
    """Values of a pixel that few frames know: also saturated ones. How many there are."""
    codes, zero, scale, _, photometric, variance = frames
    y, _, _, channels, grid_x, pitch, nodes = line
    c, i, m = channels[x & 1], nodes[x], 0
    f = grid_x + x / pitch - i
    for k in range(len(codes)):
        if codes[k, y, x] == NO_DATA or m == most:
            continue
        here = (1 - f) * room.lines[k, c, i] + f * room.lines[k, c, i + 1]
        room.few[m] = (zero[k] + scale[k] * codes[k, y, x] - here) / photometric[k, c]
        room.variances[m] = variance[k, c]
        m += 1
    return m


@part()
def _spread(variances):
    total = 0.0
    for k in range(len(variances)):
        total += variances[k]
    return np.pi / 2 * total / len(variances) ** 2


@part()
def _known(codes, known):
    """Which pixels have data that is not saturated: how many."""
    n = np.int32(0)
    for x in range(len(codes)):
        known[x] = np.uint8((codes[x] != NO_DATA) & (codes[x] != SATURATED))
        n += np.int32(known[x])
    return n


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
def _sort_lower_half(values, n):
    """Sort the columns of values, rising, as far up as the medians of all of them: the least goes first."""
    for first in range(len(values) // 2 + 1):
        for k in range(len(values) - 1, first, -1):
            _put_in_order(values[k - 1, :n], values[k, :n])


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
