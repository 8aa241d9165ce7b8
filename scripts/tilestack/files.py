"""FITS files of the workflow: written once, in one step, also plane by plane and row by row; read by memory map."""

import contextlib
import os
import types
import warnings

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from tilestack.records import DamagedFile, replacing

BLOCK = 2880
COLUMN_FORMATS = {"i2": "I", "i4": "J", "i8": "K", "f4": "E", "f8": "D"}
OF_BITS = {8: "u1", 16: ">i2", 32: ">i4", -32: ">f4", -64: ">f8"}
# Bytes that are written at once where the file system cannot reserve them.
ZEROS = 1 << 24


class Writer:
    """A FITS file of image extensions that is written piece by piece, so that memory holds one piece.

    Use as a context; the file appears under its name when the context ends without an error.

    Parameters
    ----------
    path : path
    cards : dict
        Cards of the primary header, values or (value, comment).
    image : (tuple of int, dtype), optional
        Shape and type of an image in the primary HDU, whose handle for ``put`` is ``primary``.
    history : iterable of str
        Lines of the primary header.
    """

    def __init__(self, path, cards, image=None, history=()):
        self.path, self.cards, self.image, self.history = path, cards, image, history
        self._strips = {}  # rows of images that are not whole yet, by place, plane and first row

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self._stream = stack.enter_context(open(stack.enter_context(replacing(self.path)), "wb"))
            if self.image is None:
                empty = {"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, "EXTEND": True}
                self._append_header(empty | self.cards, self.history)
            else:
                cards = {"EXTEND": True} | self.cards
                self.primary = self._reserved({"SIMPLE": True}, *self.image, cards, self.history)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error):
        unfinished = None
        if self._strips and error[0] is None:
            unfinished = RuntimeError(f"{self.path}: {len(self._strips)} strips do not reach across the image")
            error = (RuntimeError, unfinished, None)
        self._open.__exit__(*error)
        if unfinished:
            raise unfinished

    def reserve(self, name, shape, dtype, cards=()):
        """Append the header of an image and room for its pixels; fill it with ``put``.

        Returns
        -------
        int
            Handle for ``put``.
        """
        own = {"PCOUNT": 0, "GCOUNT": 1, "EXTNAME": name}
        return self._reserved({"XTENSION": "IMAGE"}, shape, dtype, own | dict(cards))

    def _reserved(self, kind, shape, dtype, cards, history=()):
        dtype = np.dtype(dtype)
        bits = {"i2": 16, "i4": 32, "u1": 8, "f4": -32, "f8": -64}[dtype.str[1:]]
        axes = {f"NAXIS{axis}": length for axis, length in enumerate(reversed(shape), start=1)}
        self._append_header(kind | {"BITPIX": bits, "NAXIS": len(shape)} | axes | cards, history)
        start = self._stream.tell()
        n_bytes = int(np.prod(shape)) * dtype.itemsize
        if not n_bytes:
            return start
        # Real blocks, not a hole: a full disk shows here as an error, not later as a killed job.
        padded = -(-n_bytes // BLOCK) * BLOCK
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._stream.fileno(), start, padded)
        else:  # macOS
            for at in range(0, padded, ZEROS):
                self._stream.write(bytes(min(ZEROS, padded - at)))
        return start

    def _append_header(self, cards, history=()):
        self._stream.seek(0, os.SEEK_END)
        cards = [(key, *(item if isinstance(item, tuple) else (item,))) for key, item in checked(cards).items()]
        header = fits.Header(cards)
        for line in history:
            header.add_history(printable(line))
        self._stream.write(header.tostring().encode())

    def put(self, start, array, first=0):
        """Write pixels at a reserved place, `first` being the number of pixels before them."""
        big = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder(">"))
        self._stream.seek(start + first * array.dtype.itemsize)
        self._stream.write(big.reshape(-1).view("u1"))

    def put_block(self, start, array, shape, corner):
        """Write a block (h, w) of an image of `shape` (planes, rows, columns) at its `corner`: plane, row, column.

        Blocks side by side come from left to right. They are held until they reach across the image, since a write for
        each of their rows takes nearly as long as adding up what is in them.
        """
        plane, row, column = corner
        strip = self._strips.pop((start, plane, row), None)
        if strip is None:
            strip = np.empty((len(array), shape[2]), array.dtype.newbyteorder(">"))
        end = column + array.shape[1]
        strip[:, column:end] = array
        if end == shape[2]:
            self.put(start, strip, (plane * shape[1] + row) * shape[2])
        else:
            self._strips[start, plane, row] = strip

    def append(self, name, array, cards=()):
        """Append an image with all its pixels."""
        self.put(self.reserve(name, array.shape, array.dtype, cards), array)

    def append_table(self, name, *parts, units=types.MappingProxyType({})):
        """Append a binary table of numbers and byte strings, in parts that follow on one another: equally long columns
        by name; units by the names of columns.

        astropy's own table would import astropy.table, 0.2 s in each job, and copy the columns three times.
        """
        row = np.dtype([(key, values.dtype.newbyteorder(">")) for key, values in parts[0].items()])
        lengths = [len(next(iter(part.values()))) for part in parts]
        cards = {"XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": row.itemsize, "NAXIS2": sum(lengths)}
        cards |= {"PCOUNT": 0, "GCOUNT": 1, "TFIELDS": len(row)}
        for k, (key, values) in enumerate(parts[0].items(), start=1):
            kind = values.dtype
            form = f"{kind.itemsize}A" if kind.kind == "S" else COLUMN_FORMATS[kind.str[1:]]
            cards |= {f"TTYPE{k}": key, f"TFORM{k}": form, f"TUNIT{k}": units.get(key)}
        self._append_header(cards | {"EXTNAME": name})
        for part, length in zip(parts, lengths, strict=True):
            table = np.empty(length, row)
            for key, values in part.items():
                table[key] = values
            self._stream.write(table.view("u1"))
        self._stream.write(b"\0" * (-sum(lengths) * row.itemsize % BLOCK))


def checked(cards):
    """Cards that FITS can hold: null values left out, texts in printable ASCII."""
    plain = {}
    for key, item in cards.items():
        value, *comment = item if isinstance(item, tuple) else (item,)
        if value is not None and not (isinstance(value, float) and not np.isfinite(value)):
            value = printable(value) if isinstance(value, str) else value
            plain[key] = (value, *comment) if comment else value
    return plain


def printable(text):
    """A text with escapes for what FITS headers cannot hold: a newline in the name of a file, a Greek letter."""
    return "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in text)


@contextlib.contextmanager
def opened(path):
    """A FITS file of the workflow: extension name -> HDU, pixels by memory map and as stored."""
    with open(path, "rb") as stream, warnings.catch_warnings():
        warnings.filterwarnings("error", message="File may have been truncated|Error validating header")
        try:
            hdus = fits.open(stream, memmap=True, do_not_scale_image_data=True)
        except (OSError, AstropyUserWarning) as error:  # no FITS at all
            raise DamagedFile(path, error) from error
        with hdus:
            try:
                yield hdus
            except AstropyUserWarning as error:  # extensions are read as they are asked for
                raise DamagedFile(path, error) from error


def pixels(hdu):
    """Pixels of an image of the workflow, as stored; of an empty one an empty array of its shape."""
    return np.zeros(hdu.shape) if hdu.data is None else hdu.data


def native(array):
    """The array in native byte order, which numba asks for."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def loaded(hdu):
    """Pixels of an image of a workflow file as ``stored``, but in native byte order."""
    pixels = stored(hdu)
    return pixels.byteswap(inplace=True).view(pixels.dtype.newbyteorder("="))


def numbers(path, dtype, n, offset):
    """Numbers of a file as stored, from an offset in bytes on: (n,), or fewer where it ends before.

    ``numpy.fromfile`` does the same through buffers, in three to five times the time.
    """
    values = np.empty(n, dtype)
    with open(path, "rb", buffering=0) as stream:
        stream.seek(offset)
        missing = fill(stream, values)
    return values[: n - -(-missing // values.itemsize)]


def fill(stream, array):
    """Read an array from an unbuffered stream, as far as that goes; how many bytes are missing."""
    left = array.reshape(-1).view("u1").data
    while left and (n := stream.readinto(left)):  # a read may be cut short
        left = left[n:]
    return len(left)


def stored(hdu):
    """Pixels of an image of a workflow file as stored, by one read: for what is only to be written again.

    A memory map would fetch them page by page, which takes four times as long.
    """
    place, bits = hdu.fileinfo(), hdu.header["BITPIX"]
    n = int(np.prod(hdu.shape))
    pixels = numbers(place["file"].name, OF_BITS[bits], n, place["datLoc"])
    if len(pixels) < n:
        raise DamagedFile(place["file"].name, f"{hdu.name} ends {n - len(pixels)} pixels too early")
    return pixels.reshape(hdu.shape)


class Rows:
    """An image (planes, h, w) of a workflow file, read by rows; of more axes the first ones count as one.

    A memory map keeps what was read as memory of the process: over the sums of all batches that grows with the number
    of frames, and a cluster counts it.

    Parameters
    ----------
    hdu : astropy.io.fits.ImageHDU
    """

    def __init__(self, hdu):
        place = hdu.fileinfo()
        self.path, self.offset = place["file"].name, place["datLoc"]
        self.shape = (int(np.prod(hdu.shape[:-2])), *hdu.shape[-2:])
        self.dtype = np.dtype(OF_BITS[hdu.header["BITPIX"]]).newbyteorder("=")

    def __len__(self):
        return self.shape[0]

    def read(self, first, last):
        """Rows first ... last - 1 of all planes, in native byte order: (planes, last - first, w)."""
        n_planes, h, w = self.shape
        rows = np.empty((n_planes, last - first, w), self.dtype)
        with open(self.path, "rb", buffering=0) as stream:
            for k, plane in enumerate(rows):
                stream.seek(self.offset + (k * h + first) * w * rows.itemsize)
                if missing := fill(stream, plane):
                    raise DamagedFile(self.path, f"it ends {missing} bytes too early")
        return rows.byteswap(inplace=True)

    def part(self, rows, columns):
        """Part of all planes by slices of rows and columns, in native byte order: (planes, rows, columns)."""
        stored = np.memmap(self.path, self.dtype.newbyteorder(">"), "r", self.offset, self.shape)
        return stored[:, rows, columns].astype(self.dtype)
