"""Kernels that decode raw pixels."""

import numpy as np

from tilestack.kernels import entry

# Marks of a raw pixel, as in ``coadd``.
KEPT, CLIPPED, MISSING = 0, 2, 3
# Indices without sign: of others numba looks whether they count from the end.
Index = np.uintp


def unpack(codes, bad, columns, zero, scale, blank, saturation, image, marks):
    """Pixels of a raw light from its codes, and their marks before rejection.

    Parameters
    ----------
    codes : (h, w) array
        Integers or floats as FITS stores them, the high byte first, or in native byte order.
    bad : (h, w) bool array
        Defective pixels.
    columns : (int, int)
        Those that are wanted, from the first to before the second: m of them.
    zero, scale : float
        The value in ADU is zero + scale x code.
    blank : int or None
        Code of a pixel without data.
    saturation : float, ADU
        Infinite where it is unknown.
    image : (H, W) float32 array, ADU
        Its first h rows and m columns are written, with NaN where there is no data.
    marks : (H, W) uint8 array
        Written: MISSING for pixels without data, defective ones and those beyond the light, CLIPPED for saturated ones,
        else KEPT.
    """
    ready = (np.float32(zero), np.float32(scale), blank is not None, int(blank or 0), np.float32(saturation))
    turned = codes.dtype == ">i2"
    codes = codes.view("<u2") if turned else codes.astype(codes.dtype.newbyteorder("="), copy=False)
    (_unpack_turned if turned else _unpack)(codes, bad, columns[0], columns[1] - columns[0], *ready, image, marks)


@entry(error_model="numpy")
def _unpack(codes, bad, left, n, zero, scale, has_blank, blank, saturation, image, marks):
    for y in range(codes.shape[0]):
        line, defective = codes[y, left : left + n], bad[y, left : left + n]
        values, marks_of = image[y, :n], marks[y, :n]
        for x in range(Index(n)):
            value = np.float32(line[x]) * scale + zero
            missing = defective[x] or not np.isfinite(value) or (has_blank and line[x] == blank)
            values[x] = np.float32(np.nan) if missing else value
            marks_of[x] = MISSING if missing else CLIPPED if value >= saturation else KEPT
        marks[y, n:] = MISSING
    marks[codes.shape[0] :] = MISSING


@entry(error_model="numpy")
def _unpack_turned(codes, bad, left, n, zero, scale, has_blank, blank, saturation, image, marks):
    for y in range(codes.shape[0]):
        line, defective = codes[y, left : left + n], bad[y, left : left + n]
        values, marks_of = image[y, :n], marks[y, :n]
        for x in range(Index(n)):
            code = np.int16(np.uint16((line[x] << np.uint16(8)) | (line[x] >> np.uint16(8))))
            value = np.float32(code) * scale + zero
            missing = defective[x] or (has_blank and code == blank)
            values[x] = np.float32(np.nan) if missing else value
            marks_of[x] = MISSING if missing else CLIPPED if value >= saturation else KEPT
        marks[y, n:] = MISSING
    marks[codes.shape[0] :] = MISSING
