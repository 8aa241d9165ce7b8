"""Raw lights: FITS files as cameras write them, in float32 and native byte order."""

import gzip
import warnings
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


def _first_image(hdus, path):
    for hdu in hdus:
        if not getattr(hdu, "is_image", False) or hdu.header.get("NAXIS", 0) < 2:
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
