"""Raw lights: FITS files as cameras write them, in float32 and native byte order."""

import contextlib
import gzip
import itertools
import math
import re
import warnings
from collections import namedtuple
from io import BytesIO
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from tilestack import files
from tilestack.job import Stop
from tilestack.kernels import scan

# Above what cameras make: 2 GiB of file, 2^29 pixels. A header may claim anything.
MOST_BYTES = 1 << 31
MOST_PIXELS = 1 << 29
# A light may unpack to so many times its size (real ones: 1.3 to 4), or to this size whatever its own.
MOST_UNPACKED, ALWAYS_UNPACKED = 100, 1 << 28
# Where the image must be found.
MOST_HDUS = 100
# Pixels that are read at once, and decoded while they are in the cache.
PIECE = 1 << 19

# The last card of a header, and one that claims a thousand columns or axes.
END = re.compile(rb"END {77}")
CLAIM = re.compile(rb"(?:TFIELDS |NAXIS   |ZNAXIS  )= *[+-]?[0-9]{4}")


class BadLight(Exception):
    """A file that is no usable light.

    Parameters
    ----------
    reason : str
        Code for ``scan_input.json``: ``unreadable``, ``not_fits``, ``truncated``, ``no_image``, ``rgb_product``.
    message : str
        What is wrong with which file.
    """

    def __init__(self, reason, message):
        super().__init__(f"{reason}: {message}")
        self.reason, self.message = reason, message


def as_stored(path):
    """The bytes of a file.

    Raises
    ------
    BadLight
        If it has more than a light can have.
    FileNotFoundError
    """
    size = Path(path).stat().st_size
    if size > MOST_BYTES:
        raise BadLight("unreadable", f"{path} has {size} bytes, no light has more than {MOST_BYTES}")
    return Path(path).read_bytes()


def read(path, content=None):
    """Read a light.

    Parameters
    ----------
    path : path
        FITS file, also compressed as .gz or .fz. The first image in it counts.
    content : bytes or None
        What ``as_stored`` gave of it, where that is at hand.

    Returns
    -------
    image : (h, w) float32 array, ADU
        As stored, first row of the file first. NaN marks a pixel without data.
    header : astropy.io.fits.Header
        Header of that image.

    Raises
    ------
    BadLight
        If the file is not FITS, is cut off, or holds no two-dimensional image.
    FileNotFoundError
        If there is no such file: that is an error of the run, not of the light.
    """
    with _damage_told(path):
        content = _unpacked(as_stored(path) if content is None else content, path)
        if content[:6] != b"SIMPLE":
            raise BadLight("not_fits", f"{path} does not begin as a FITS file, got {content[:10]!r}")
        _check_claims(content, path, next(_cards(END, content), None))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyUserWarning)  # odd cards do no harm
            warnings.simplefilter("ignore", RuntimeWarning)  # nor do pixels that overflow: they hold no data
            warnings.filterwarnings("error", message="File may have been truncated")
            with fits.open(BytesIO(content)) as hdus:
                return _first_image(hdus, content, path)


@contextlib.contextmanager
def _damage_told(path):
    """What a damaged file leads to, as BadLight."""
    try:
        yield
    except (EOFError, AstropyUserWarning) as error:
        raise BadLight("truncated", f"{path}: {error}") from error
    except (BadLight, FileNotFoundError):
        raise
    except Exception as error:  # whatever a damaged file makes the decoders say; CFITSIO's own exception is not public
        raise BadLight("unreadable", f"{path}: {type(error).__name__}: {error}") from error


def scanned(path):
    """Read a light that was good when SCAN_INPUT looked at it; what it has come to since stops the run."""
    with _was_good(path):
        return read(path)


def opened(path):
    """What gives the pixels of a light that was good when SCAN_INPUT looked at it: () -> (h, w) array as of ``read``.

    Of a light with 16-bit numbers as cameras write them it reads them, in any thread. Others are read here and now:
    astropy says what it finds odd by ``warnings``, which are not for threads.
    """
    place = stored(path)
    usual = ((0, 1, None), (32768, 1, None))
    if place is None or place.dtype != ">i2" or len(place.shape) != 2 or place[3:] not in usual:
        image, _ = scanned(path)
        return lambda: image

    def pixels():
        image = np.empty(place.shape, np.float32)
        flat = image.reshape(-1)
        for first in range(0, flat.size, PIECE):
            piece = flat[first : first + PIECE]
            codes = files.numbers(path, "<u2", piece.size, place.offset + 2 * first)
            if len(codes) < piece.size:
                raise changed(path, "it ends before its pixels do")
            scan.decode(codes, place.zero, piece)
        return image

    return pixels


@contextlib.contextmanager
def _was_good(path):
    try:
        yield
    except BadLight as bad:
        raise changed(path, bad) from bad
    except FileNotFoundError as error:
        raise Stop(
            "light_gone",
            f"{path} is needed and is not there: put it back and start again. What is made already needs no lights",
        ) from error


def changed(path, found):
    """The error that a light is not the one that was scanned."""
    return Stop(
        "light_changed",
        f"{path} was a good light when it was scanned, now: {found}. Put the old file back and start again, or have "
        "all lights looked at again with --forcerun scan_frames",
    )


def _unpacked(content, path):
    """The bytes of a FITS file of those of a file that may be packed; not more than a light can have."""
    if content[:2] != b"\x1f\x8b":
        return content
    size, most = len(content), min(max(MOST_UNPACKED * len(content), ALWAYS_UNPACKED), MOST_BYTES)
    with gzip.open(BytesIO(content)) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise BadLight("unreadable", f"{path} has {size} bytes and unpacks to more than {most}: no light does")
    return content


# Where the pixels of an uncompressed light lie in its file: offset in bytes, type, rows and columns, and the value
# zero + scale x code; blank is the code of a pixel without data, or None.
Stored = namedtuple("Stored", "offset dtype shape zero scale blank")


def stored(path):
    """Where the pixels of a scanned light lie that ``read`` takes: Stored, or None of a compressed file."""
    with _was_good(path), _damage_told(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)
        with open(path, "rb") as stream:
            if stream.read(2) == b"\x1f\x8b":
                return None
        with fits.open(path, memmap=True, do_not_scale_image_data=True) as hdus:
            hdu = next((hdu for hdu in itertools.islice(hdus, MOST_HDUS) if _has_image(hdu)), None)
            if hdu is None:
                raise BadLight("no_image", f"{path} holds no image")
            if isinstance(hdu, fits.CompImageHDU):
                return None
            header, shape = hdu.header, tuple(n for n in hdu.shape if n != 1)
            dtype = np.dtype({8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}[header["BITPIX"]])
            offset = hdu.fileinfo()["datLoc"]
    return Stored(offset, dtype, shape, header.get("BZERO", 0.0), header.get("BSCALE", 1.0), header.get("BLANK"))


def _has_image(hdu):
    return getattr(hdu, "is_image", False) and hdu.header.get("NAXIS", 0) >= 2


def _check_claims(content, path, end=None):
    """astropy counts up to what a header claims; the standard has no more than 999 columns or axes."""
    if next(_cards(CLAIM, content, end), None) is not None:
        raise BadLight("unreadable", f"{path} claims more than 999 columns or axes")


def _cards(pattern, content, end=None):
    """Where a pattern begins a card, of 80 bytes."""
    found = pattern.finditer(content, 0, len(content) if end is None else end)
    return (match.start() for match in found if match.start() % 80 == 0)


def _first_image(hdus, content, path):
    for number, hdu in enumerate(itertools.islice(hdus, MOST_HDUS)):
        if not _has_image(hdu):
            if number == 0:
                _check_claims(content, path)
            continue
        shape = [n for n in hdu.shape if n != 1]
        if len(shape) == 3:
            raise BadLight("rgb_product", f"{path} is a cube of {hdu.shape} pixels: a light has one plane")
        if len(shape) != 2 or 0 in shape:
            raise BadLight("no_image", f"{path} holds an image of {hdu.shape} pixels: expected rows and columns")
        if math.prod(shape) > MOST_PIXELS or not _can_hold(hdu):
            raise BadLight("unreadable", f"{path} claims an image of {shape} pixels, which it cannot hold")
        if _is_plain(hdu):
            codes = np.frombuffer(content, "<u2", math.prod(shape), hdu.fileinfo()["datLoc"])
            image = np.empty(shape, np.float32)
            scan.decode(codes, hdu.header.get("BZERO", 0), image.reshape(-1))
        else:
            image = np.ascontiguousarray(hdu.data.reshape(shape), dtype=np.float32)
            if hdu.data.dtype.kind == "f":
                image[~np.isfinite(image)] = np.nan
        return image, hdu.header.copy()
    raise BadLight("no_image", f"{path} holds no image")


def _is_plain(hdu):
    """Whether an image has 16-bit numbers as cameras write them, which take astropy four copies to read."""
    header = hdu.header
    usual = header["BITPIX"] == 16 and header.get("BSCALE", 1) == 1 and header.get("BZERO", 0) in (0, 32768)
    return usual and "BLANK" not in header and not isinstance(hdu, fits.CompImageHDU)


def _can_hold(hdu):
    """Whether a compressed image has the tiles that its header claims; of others astropy has looked already."""
    if not isinstance(hdu, fits.CompImageHDU):
        return True
    # The table behind, which astropy shows in no other way.
    table = hdu._bintable
    tiles = math.prod(-(-n // t) for n, t in zip(hdu.shape, hdu.tile_shape, strict=True))
    packed = table.header["NAXIS1"] * table.header["NAXIS2"] + table.header["PCOUNT"]
    return tiles == table.header["NAXIS2"] and math.prod(hdu.shape) <= max(1000 * packed, ALWAYS_UNPACKED / 4)
