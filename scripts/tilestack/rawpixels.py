"""Raw pixels of lights by rows, read from the files as often as they are wanted: a batch would not fit into memory."""

import tempfile

import numpy as np

from tilestack import lights
from tilestack.kernels.drizzle import CLIPPED, KEPT, MISSING


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
        self._unpacked = []  # temporary files, which go with this object
        self._places = [self._place(path) for path in paths]

    def _place(self, path):
        stored = lights.stored(path)
        if stored is not None:
            return path, stored
        image, _ = lights.scanned(path)
        unpacked = tempfile.NamedTemporaryFile(suffix=".tilestack")  # noqa: SIM115  # as long as this object
        image.tofile(unpacked.name)
        self._unpacked.append(unpacked)
        return unpacked.name, lights.Stored(0, image.dtype, image.shape, 0.0, 1.0, None)

    def part(self, k, top, bottom, left, right):
        """Pixels and marks of light `k` in a range of rows and columns.

        Returns
        -------
        image : (bottom - top, right - left) float32 array, ADU
            NaN without data.
        marks : (bottom - top, right - left) uint8 array
            MISSING for pixels without data and defective ones, CLIPPED for saturated ones, else KEPT.
        """
        path, stored = self._places[k]
        if tuple(stored.shape) != self.shape:
            raise lights.changed(path, f"it has {stored.shape} pixels, expected {self.shape}")
        width = self.shape[1]
        start = stored.offset + top * width * stored.dtype.itemsize
        codes = np.fromfile(path, stored.dtype, (bottom - top) * width, offset=start)
        if codes.size < (bottom - top) * width:
            raise lights.changed(path, "it ends before its pixels do")
        codes = codes.reshape(bottom - top, width)[:, left:right]
        image = codes.astype(np.float32)
        if stored.scale != 1.0:
            image *= np.float32(stored.scale)
        if stored.zero:
            image += np.float32(stored.zero)
        missing = self.bad[top:bottom, left:right] | ~np.isfinite(image)
        if stored.blank is not None:
            missing |= codes == stored.blank
        marks = np.full(image.shape, KEPT, np.uint8)
        if self.saturation is not None:
            marks[image >= self.saturation] = CLIPPED
        marks[missing] = MISSING
        image[missing] = np.nan
        return image, marks
