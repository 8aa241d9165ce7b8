"""Sums of drops by output pixel: what counts side by side, and the little that was left out in a list."""

import numpy as np

from tilestack.kernels import drizzle

# A line of the processor's cache, which the sums of an output pixel fill.
LINE_BYTES = 64
# Of an output pixel; one in the list takes 80 more.
PIXEL_BYTES = 8 * (drizzle.N_SUMS + drizzle.N_COVER) + 2 * 4


class Cells:
    """Sums that ``drizzle.deposit`` adds to.

    Parameters
    ----------
    shape : (int, int, int)
        Channels, rows and columns of the output.

    Attributes
    ----------
    sums : (c, h, w, 8) float64 array
        Of kept pixels: ``drizzle.SUMS`` but the last.
    cover : (c, h, w, 2) float64 array
        Of kept pixels: that last one, the exposure, and their number.
    slots : (2, c, h, w) int32 array
        Where an output pixel stands in the list of those that rejected ones reach (first), or saturated ones, counted
        from 1; 0 where none does.
    lost, lost_cover : (m, 8) and (m, 2) float64 arrays
        The list: sums as above.
    n_lost : (1,) int64 array
        How much of the list is in use.
    """

    def __init__(self, shape):
        self.sums, self.cover = aligned((*shape, drizzle.N_SUMS)), np.zeros((*shape, drizzle.N_COVER))
        self.slots = np.zeros((2, *shape), np.int32)
        self.n_lost = np.zeros(1, np.int64)
        self.lost, self.lost_cover = aligned((0, drizzle.N_SUMS)), np.zeros((0, drizzle.N_COVER))

    def reserve(self, n):
        """Have room in the list for n more, or for all output pixels."""
        used = int(self.n_lost[0])
        needed = min(used + n, self.slots.size)
        if needed <= len(self.lost):
            return
        for name in ("lost", "lost_cover"):
            old = getattr(self, name)
            new = aligned((min(max(needed, 2 * len(old)), self.slots.size), old.shape[1]))
            new[:used] = old[:used]
            setattr(self, name, new)

    def kept(self, channel):
        """Sums by ``drizzle.SUMS`` and counts of kept pixels in a channel: lists of (h, w) float64 arrays."""
        return _named(self.sums[channel], self.cover[channel])

    def left_out(self, channel, mark):
        """Rejected or saturated pixels of a channel: rows, columns, and sums and counts as of ``kept``, (m,) each."""
        slots = self.slots[mark - 1, channel]
        y, x = np.nonzero(slots)
        places = slots[y, x] - 1
        return y, x, *_named(self.lost[places], self.lost_cover[places])


def _named(sums, cover):
    exposure, number = np.moveaxis(cover, -1, 0)
    return [*np.moveaxis(sums, -1, 0), exposure], [number]


def aligned(shape):
    """A float64 array of zeros that begins on a line of the cache."""
    n = int(np.prod(shape))
    room = np.zeros(n + LINE_BYTES // 8)
    first = -(room.ctypes.data // 8) % (LINE_BYTES // 8)
    return room[first : first + n].reshape(shape)
