"""Kernels of prewarped frames in files: of each row the pixels from the first with data to the last, most by a byte."""

import numpy as np

from tilestack.kernels import entry, part

NO_DATA = -32768
# Pixels of a row that are packed together.
BLOCK = 64
# Bytes before those of its pixels: the least codes of its even and its odd pixels; or of a wide block NO_DATA.
HEAD, WIDE_HEAD = 4, 2


def pack(codes):
    """A frame as bytes, row by row, without what lies outside of it.

    Parameters
    ----------
    codes : (h, w) int16 array
        NO_DATA marks a pixel without data.

    Returns
    -------
    stream : (n,) uint8 array
        Of each row its pixels from the first with data to the last in blocks of BLOCK, the last one shorter. Where the
        even pixels of a block are at most 255 apart, the odd ones too, and all have data: the least of the even ones
        and of the odd ones, then a byte a pixel, what it is above that. Else: NO_DATA, then the pixels. Codes are
        big-endian int16. Neighbours of one colour differ by noise and little more, so most blocks take half the room.
    starts : (h + 1,) int64 array
        Where in the stream each row begins, and where the last one ends.
    first, end : (h,) int32 arrays
        First column with data and the one behind the last; both 0 where a row has none.
    """
    if codes.ndim != 2 or codes.dtype != np.int16:
        raise ValueError(f"need int16 codes (h, w), got {codes.dtype} {codes.shape}")
    codes = np.ascontiguousarray(codes)
    first, end = np.zeros(len(codes), np.int32), np.zeros(len(codes), np.int32)
    _find(codes, first, end)
    lengths = (end - first).astype(np.int64)
    stream = np.empty((2 * lengths + HEAD * -(-lengths // BLOCK)).sum(), np.uint8)
    starts = np.zeros(len(codes) + 1, np.int64)
    _pack(codes, first, end, starts, stream)
    return stream[: starts[-1]].copy(), starts, first, end


@entry()
def _find(codes, first, end):
    w = codes.shape[1]
    for y in range(len(codes)):
        low, high = 0, w
        while low < w and codes[y, low] == NO_DATA:
            low += 1
        while high > low and codes[y, high - 1] == NO_DATA:
            high -= 1
        if high > low:
            first[y], end[y] = low, high


@entry()
def _pack(codes, first, end, starts, stream):
    at = 0
    for y in range(len(codes)):
        for x in range(first[y], end[y], BLOCK):
            block = codes[y, x : min(x + BLOCK, end[y])]
            even, odd, narrow = _least(block)
            if narrow:
                _put(even, stream[at : at + 2])
                _put(odd, stream[at + 2 : at + 4])
                _shorten(block, even, odd, stream[at + HEAD : at + HEAD + len(block)])
                at += HEAD + len(block)
            else:
                _put(np.int16(NO_DATA), stream[at : at + WIDE_HEAD])
                _write(block, stream[at + WIDE_HEAD : at + WIDE_HEAD + 2 * len(block)])
                at += WIDE_HEAD + 2 * len(block)
        starts[y + 1] = at


@part()
def _least(block):
    """The least of the even and of the odd pixels, and whether a byte holds what the others are above them."""
    low_even, high_even, low_odd, high_odd = np.int16(32767), np.int16(-32768), np.int16(32767), np.int16(-32768)
    for k in range(len(block)):
        code, of_even = block[k], np.int32(k) & np.int32(1) == 0
        low_even = min(low_even, code if of_even else np.int16(32767))
        high_even = max(high_even, code if of_even else np.int16(-32768))
        low_odd = min(low_odd, np.int16(32767) if of_even else code)
        high_odd = max(high_odd, np.int16(-32768) if of_even else code)
    near = (np.int32(high_even) - np.int32(low_even) < 256) & (np.int32(high_odd) - np.int32(low_odd) < 256)
    return low_even, low_odd, near & (low_even != NO_DATA) & (low_odd != NO_DATA)


@part()
def _put(code, out):
    out[0], out[1] = np.uint8(np.uint16(code) >> np.uint16(8)), np.uint8(np.uint16(code) & np.uint16(255))


@part()
def _code(stream):
    return np.int16(np.uint16(stream[0]) << np.uint16(8) | np.uint16(stream[1]))


@part()
def _shorten(block, even, odd, out):
    for k in range(len(block)):
        out[k] = np.uint8(block[k] - (even if np.int32(k) & np.int32(1) == 0 else odd))


@part()
def _write(block, out):
    for k in range(len(block)):
        _put(block[k], out[2 * k : 2 * k + 2])


def unpack(stream, starts, first, end, left, out):
    """Put rows of a frame, as ``pack`` leaves them, where they belong in a box, in place.

    Parameters
    ----------
    stream : (n,) uint8 array
        Of these rows alone.
    starts : (rows + 1,) int64 array
    first, end : (rows,) int32 arrays
    left : int
        Column of the frame at which the box begins; may be negative.
    out : (rows, columns) int16 array
        NO_DATA where the frame has none.

    Raises
    ------
    ValueError
        If the bytes of a row are not those of its columns.
    """
    if len(first) != len(out) or len(starts) != len(out) + 1 or len(stream) != starts[-1] - starts[0]:
        raise ValueError(f"need the bytes of {len(out)} rows, {starts[-1] - starts[0]}, got {len(stream)}")
    wrong = _unpack(stream, starts, first, end, left, out)
    if wrong >= 0:
        raise ValueError(f"the bytes of row {wrong} are not those of its columns {first[wrong]} to {end[wrong]}")


@entry()
def _unpack(stream, starts, first, end, left, out):
    width = out.shape[1]
    for y in range(len(first)):
        at, stop = starts[y] - starts[0], starts[y + 1] - starts[0]
        low = min(max(first[y] - left, 0), width)
        out[y, :low] = NO_DATA
        high = low
        for x in range(first[y], end[y], BLOCK):
            n = min(BLOCK, end[y] - x)
            # What of the block lies in the box.
            begin, over = max(left - x, 0), min(left + width - x, n)
            if at + WIDE_HEAD > stop:
                return y
            even = _code(stream[at : at + 2])
            wide = even == NO_DATA
            pixels = at + (WIDE_HEAD if wide else HEAD)
            behind = pixels + (2 * n if wide else n)
            if behind > stop:
                return y
            if begin < over:
                to = out[y, x + begin - left : x + over - left]
                if wide:
                    _read(stream[pixels + 2 * begin : pixels + 2 * over], to)
                else:
                    odd = _code(stream[at + 2 : at + 4])
                    if begin & 1:
                        even, odd = odd, even
                    _lengthen(stream[pixels + begin : pixels + over], even, odd, to)
                high = x + over - left
            at = behind
        if at != stop:
            return y
        out[y, high:] = NO_DATA
    return -1


@part()
def _read(stream, out):
    for k in range(len(out)):
        out[k] = _code(stream[2 * k : 2 * k + 2])


@part()
def _lengthen(stream, even, odd, out):
    for k in range(len(out)):
        out[k] = np.int16(stream[k]) + (even if np.int32(k) & np.int32(1) == 0 else odd)
