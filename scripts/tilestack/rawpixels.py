"""Raw pixels of lights by rows, read from the files as often as they are wanted: a batch would not fit into memory."""

import tempfile

import numpy as np

from tilestack import files, lights
from tilestack.kernels.rawpixels import unpack


class Raw:
    """Raw lights of a session.

    Parameters
    ----------
    paths : list of path
        Lights.
    session : dict
        Registration record: ``shape``, ``saturation_adu``, ``defects``.
    cosmetic : bool
        Defective pixels of the session count as missing.
    """

    def __init__(self, paths, session, *, cosmetic):
        self.shape, self.saturation = tuple(session["shape"]), session["saturation_adu"]
        self.bad = np.zeros(self.shape, bool)
        if cosmetic:
            self.bad[session["defects"]["y"], session["defects"]["x"]] = True
        self._copies = []  # temporary files, which go with this object
        self._places = [self._place(path) for path in paths]

    def _place(self, path):
        stored = lights.stored(path)
        if stored is not None:
            return path, stored
        image, _ = lights.scanned(path)
        copy = tempfile.NamedTemporaryFile(suffix=".tilestack")  # noqa: SIM115  # as long as this object
        image.tofile(copy.name)
        self._copies.append(copy)
        return copy.name, lights.Stored(0, image.dtype, image.shape, 0.0, 1.0, None)

    def read(self, k, rows, columns, image, marks):
        """Read a range of rows and columns of light `k` into the first rows and columns of larger arrays.

        Parameters
        ----------
        k : int
        rows, columns : (int, int)
            From the first to before the second.
        image : (h, w) float32 array, ADU
            NaN without data; what is beyond the range is left as it is.
        marks : (h, w) uint8 array
            MISSING for pixels without data, defective ones and those beyond the range, CLIPPED for saturated ones, else
            KEPT.
        """
        path, stored = self._places[k]
        if tuple(stored.shape) != self.shape:
            raise lights.changed(path, f"it has {stored.shape} pixels, expected {self.shape}")
        (top, bottom), width = rows, self.shape[1]
        start = stored.offset + top * width * stored.dtype.itemsize
        codes = files.numbers(path, stored.dtype, (bottom - top) * width, start)
        if codes.size < (bottom - top) * width:
            raise lights.changed(path, "it ends before its pixels do")
        saturation = np.inf if self.saturation is None else self.saturation
        how = (stored.zero, stored.scale, stored.blank, saturation)
        unpack(codes.reshape(bottom - top, width), self.bad[top:bottom], columns, *how, image, marks)
