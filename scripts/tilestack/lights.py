"""Raw lights: FITS files as cameras write them, in float32 and native byte order."""

import gzip
import warnings
from collections import namedtuple
from io import BytesIO
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning


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


def read(path):
    """Read a light.

    Parameters
    ----------
    path : path
        FITS file, also compressed as .gz or .fz. The first image in it counts.

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
    try:
        content = Path(path).read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        if content[:6] != b"SIMPLE":
            raise BadLight("not_fits", f"{path} does not begin as a FITS file, got {content[:10]!r}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fits.verify.VerifyWarning)  # odd cards do no harm
            warnings.filterwarnings("error", message="File may have been truncated")
            with fits.open(BytesIO(content)) as hdus:
                return _first_image(hdus, path)
    except (EOFError, AstropyUserWarning) as error:
        raise BadLight("truncated", f"{path}: {error}") from error
    except (BadLight, FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged file makes the decoders say; CFITSIO's own exception is not public
        raise BadLight("unreadable", f"{path}: {type(error).__name__}: {error}") from error


# Where the pixels of an uncompressed light lie in its file: offset in bytes, type, rows and columns, and the value
# zero + scale x code; blank is the code of a pixel without data, or None.
Stored = namedtuple("Stored", "offset dtype shape zero scale blank")


def stored(path):
    """Where the pixels of a light are that ``read`` takes: Stored, or None of a compressed file."""
    with open(path, "rb") as stream:
        if stream.read(2) == b"\x1f\x8b":
            return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)
        with fits.open(path, memmap=True, do_not_scale_image_data=True) as hdus:
            hdu = next(hdu for hdu in hdus if _has_image(hdu))
            if isinstance(hdu, fits.CompImageHDU):
                return None
            header, shape = hdu.header, tuple(n for n in hdu.shape if n != 1)
            dtype = np.dtype({8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}[header["BITPIX"]])
            offset = hdu.fileinfo()["datLoc"]
    return Stored(offset, dtype, shape, header.get("BZERO", 0.0), header.get("BSCALE", 1.0), header.get("BLANK"))


def _has_image(hdu):
    return getattr(hdu, "is_image", False) and hdu.header.get("NAXIS", 0) >= 2


def _first_image(hdus, path):
    for hdu in hdus:
        if not _has_image(hdu):
            continue
        shape = [n for n in hdu.shape if n != 1]
        if len(shape) == 3:
            raise BadLight("rgb_product", f"{path} is a cube of {hdu.shape} pixels: a light has one plane")
        if len(shape) != 2:
            raise BadLight("no_image", f"{path} holds an image of {hdu.shape} pixels: expected rows and columns")
        image = np.ascontiguousarray(hdu.data.reshape(shape), dtype=np.float32)
        if hdu.data.dtype.kind == "f":
            image[~np.isfinite(image)] = np.nan
        return image, hdu.header.copy()
    raise BadLight("no_image", f"{path} holds no image")
