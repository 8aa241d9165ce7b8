"""Prewarped frames of a session as later phases read them: codes by rows of a common box of the lattice."""

import numpy as np

from tilestack import files
from tilestack.kernels import spans
from tilestack.kernels.spans import NO_DATA
from tilestack.records import DamagedFile


class Writer(files.Writer):
    """A file of prewarped frames: of each an extension with the bytes of ``spans.pack``, row by row, from the first
    pixel with data to the last (a turned frame fills as little as half of its box), and for all of them a table SPANS
    with FIRST and END, the columns of the box that a row goes from and to, and START, its first byte in the extension.
    """

    def __enter__(self):
        self._n_rows, self._rows = 0, [(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int64))]
        return super().__enter__()

    def __exit__(self, *error):
        if error[0] is None:
            first, end, start = map(np.concatenate, zip(*self._rows, strict=True))
            self.append_table("SPANS", {"FIRST": first, "END": end, "START": start})
        super().__exit__(*error)

    def frame(self, name, bands, cards):
        """Append a frame: what ``spans.pack`` makes of bands of its rows, in their order."""
        n_bytes = sum(len(stream) for stream, *_ in bands)
        place = self.reserve(name, (n_bytes,), "u1", {**cards, "SPANROW": (self._n_rows, "its first row in SPANS")})
        at = 0
        for stream, starts, first, end in bands:
            self.put(place, stream, at)
            self._rows.append((first, end, at + starts[:-1]))
            self._n_rows += len(first)
            at += len(stream)


class Frames:
    """Codes of prewarped frames, read by rows: no more of them is held than what is asked for.

    Parameters
    ----------
    images : list of (path, list of dict)
        Files of ``Writer``, and of each the entries of the wanted frames of its record.
    """

    def __init__(self, images):
        self.entries, self._frames = [], []
        for path, entries in images:
            with files.opened(path) as hdus:
                table = hdus["SPANS"].data
                first, end, start = (files.native(table[name]) for name in ("FIRST", "END", "START"))
                for entry in entries:
                    hdu = hdus[entry["extension"]]
                    mine = slice(hdu.header["SPANROW"], hdu.header["SPANROW"] + entry["box"][2])
                    starts = np.append(start[mine], np.int64(hdu.header["NAXIS1"]))
                    self._frames.append((path, hdu.fileinfo()["datLoc"], first[mine], end[mine], starts))
                    self.entries.append(entry)

    def sort(self, names, order):
        """Put the frames, which go by `names`, in the order of `order`."""
        places = [names.index(name) for name in order]
        self.entries, self._frames = ([values[k] for k in places] for values in (self.entries, self._frames))

    def rows(self, k, box):
        """Codes of frame `k` in a box (y0, x0, rows, columns) of the lattice: int16, -32768 outside of the frame."""
        codes = np.empty(box[2:], np.int16)
        self._read(k, box, codes)
        return codes

    def stack(self, box):
        """Codes of all frames in a box: (n, rows, columns) int16."""
        codes = np.empty((len(self.entries), *box[2:]), np.int16)
        for k, out in enumerate(codes):
            self._read(k, box, out)
        return codes

    def _read(self, k, box, out):
        y0, x0, h, _ = self.entries[k]["box"]
        top = min(max(y0, box[0]), box[0] + box[2]) - y0
        bottom = max(min(y0 + h, box[0] + box[2]) - y0, top)
        out[: top + y0 - box[0]] = out[bottom + y0 - box[0] :] = NO_DATA
        if top < bottom:
            path, offset, first, end, starts = self._frames[k]
            n = max(int(starts[bottom] - starts[top]), 0)
            stream = files.numbers(path, "u1", n, offset + int(starts[top]))
            part = out[top + y0 - box[0] : bottom + y0 - box[0]]
            try:
                spans.unpack(stream, starts[top : bottom + 1], first[top:bottom], end[top:bottom], box[1] - x0, part)
            except ValueError as error:
                raise DamagedFile(path, error) from error


def bands(box, n_rows):
    """Cut a box into bands of at most so many rows, an even number, top first."""
    y0, x0, h, w = box
    n_rows = max(2, n_rows // 2 * 2)
    return [(y, x0, min(n_rows, y0 + h - y), w) for y in range(y0, y0 + h, n_rows)]
