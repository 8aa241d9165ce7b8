"""Prewarped frames of a session as later phases read them: codes by rows of a common box of the lattice."""

import contextlib

import numpy as np
from astropy.io import fits

NO_DATA = -32768


class Frames:
    """Codes of prewarped frames, by memory map.

    Parameters
    ----------
    images : list of (path, list of dict)
        Batch files, and of each the entries of the wanted frames from its record.
    """

    def __init__(self, images):
        self._stack = contextlib.ExitStack()
        self.entries, self._codes = [], []
        for path, entries in images:
            hdus = self._stack.enter_context(fits.open(path, memmap=True, do_not_scale_image_data=True))
            for entry in entries:
                self.entries.append(entry)
                self._codes.append(hdus[entry["extension"]].data)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._codes = []
        self._stack.close()

    def sort(self, names, order):
        """Put the frames, which go by `names`, in the order of `order`."""
        places = [names.index(name) for name in order]
        self.entries, self._codes = ([values[k] for k in places] for values in (self.entries, self._codes))

    def rows(self, k, box):
        """Codes of frame `k` in a box (y0, x0, rows, columns) of the lattice: int16, -32768 outside of the frame."""
        y0, x0, h, w = self.entries[k]["box"]
        out = np.full(box[2:], NO_DATA, np.int16)
        top, bottom = max(y0, box[0]), min(y0 + h, box[0] + box[2])
        left, right = max(x0, box[1]), min(x0 + w, box[1] + box[3])
        if top < bottom and left < right:
            part = self._codes[k][top - y0 : bottom - y0, left - x0 : right - x0]
            out[top - box[0] : bottom - box[0], left - box[1] : right - box[1]] = part
        return out

    def stack(self, box):
        """Codes of all frames in a box: (n, rows, columns) int16."""
        codes = np.empty((len(self.entries), *box[2:]), np.int16)
        for k in range(len(codes)):
            codes[k] = self.rows(k, box)
        return codes


def bands(box, n_rows):
    """Cut a box into bands of at most so many rows, an even number, top first."""
    y0, x0, h, w = box
    n_rows = max(2, n_rows // 2 * 2)
    return [(y, x0, min(n_rows, y0 + h - y), w) for y in range(y0, y0 + h, n_rows)]
