"""Pictures of the report: previews, the two stacks to compare, and maps of the planes. Pixels are read once."""

import base64
import io

import numpy as np
from astropy.io import fits
from matplotlib import image as images

from tilestack import preview, products
from tilestack.robust import spread

# Longer sides. With the qualities below they bound the size of the report, however large the stack is.
PICTURE_PX, COMPARED_PX, DETAIL_PX, MAP_PX = 1400, 1000, 420, 320
QUALITY = 88
SIGMAS = 5.0
# Pixels a side over which light is averaged to find what there is to see.
BINNED = 4


def gather(run):
    """All pictures and maps of a run.

    Parameters
    ----------
    run : dict
        Of ``contents.read``.

    Returns
    -------
    dict
        ``stack`` (data URI), ``stack_name``, ``compared`` (views, each ``name``, ``stack``, ``mean``, ``sigma`` as data
        URIs, ``width``, ``height``), ``largest_sigma``, ``share_beyond`` (of the pixels, by over 3 sigma), ``maps``
        (name -> (h, w) array), ``extent`` (x0, x1, y1, y0 of the maps, lattice px), ``bottom_up``, ``config_hash``.
    """
    outputs = run["folder"] / "outputs"
    mean = planes_of(fits.getdata(outputs / "planes/plain_mean_rgb.fits"))
    with fits.open(outputs / "stacked_rgb.fits", memmap=True) as hdus:
        header = hdus[0].header
        flip = products.bottom_up(header)
        stack = planes_of(hdus[0].data)
        variance = np.atleast_3d(hdus["VAR"].data.T).T
        sigma = largest_difference(stack, mean, variance)
        middle = len(stack) // 2
        detail = busiest(stack[middle], native(variance[middle]))
    known = np.isfinite(sigma)
    views = [compared("whole picture", stack, mean, sigma, flip, -(-max(stack.shape[-2:]) // COMPARED_PX))]
    views.append(compared("detail, every pixel", stack[:, *detail], mean[:, *detail], sigma[detail], flip, 1))
    name = next(n for n in ("stacked_rgb_pcc", "stacked_rgb") if (outputs / f"previews/{n}.png").exists())
    with fits.open(outputs / "stacked.fits", memmap=True) as hdus:
        x0, y0 = (hdus[0].header.get(key, 0) for key in ("LATTX0", "LATTY0"))
        planes = {key: native(hdus[key].data) for key in ("NIM", "EXP", "REJ")}
    shape = planes["NIM"].shape
    return {
        "stack": main_picture(outputs / f"previews/{name}.png"),
        "stack_name": name,
        "compared": views,
        "largest_sigma": float(np.abs(sigma[known]).max()) if known.any() else None,
        "share_beyond": float((np.abs(sigma[known]) > 3).mean()) if known.any() else None,
        "maps": maps(planes),
        "extent": (x0, x0 + shape[1], y0 + shape[0], y0),
        "bottom_up": flip,
        "config_hash": header.get("CONFHASH"),
    }


def native(plane):
    return np.asarray(plane, plane.dtype.newbyteorder("="))


def planes_of(image):
    """(c, h, w), one plane for mono."""
    return np.atleast_3d(native(image).T).T


def largest_difference(stack, mean, variance):
    """Difference of two stacks (c, h, w) in sigma, of each pixel the colour where it is largest; NaN without data."""
    largest = np.full(stack.shape[1:], np.nan, np.float32)
    for one, other, v in zip(stack, mean, variance, strict=True):
        with np.errstate(invalid="ignore", divide="ignore"):
            sigma = (one - other) / np.sqrt(native(v))
        larger = np.isfinite(sigma) & ~(np.abs(sigma) <= np.abs(largest))
        largest[larger] = sigma[larger]
    return largest


def blocks(image, factor):
    """Image (..., h, w) cut into blocks (..., h / factor, factor, w / factor, factor), without the rest at the rims."""
    h, w = (n // factor * factor for n in image.shape[-2:])
    return image[..., :h, :w].reshape(*image.shape[:-2], h // factor, factor, w // factor, factor)


def smaller(image, factor):
    """Means over blocks; NaN where a pixel is NaN."""
    return image if factor == 1 else blocks(image, factor).mean((-3, -1))


def extreme(planes, factor):
    """The value of largest magnitude over planes and blocks (c, h, w), NaN where nothing is known."""
    filled = np.nan_to_num(planes)
    cut = blocks(filled, factor)
    high, low = cut.max((0, 2, 4)), cut.min((0, 2, 4))
    value = np.where(high > -low, high, low)
    return np.where(blocks(np.isfinite(planes), factor).any((0, 2, 4)), value, np.nan)


def busiest(image, variance):
    """Slices of the box of DETAIL_PX with most to see: light that stands out of the noise, bright stars held down.

    Parameters
    ----------
    image, variance : (h, w) arrays
    """
    shape = image.shape
    light = above_gradient(smaller(image, BINNED))
    noise = np.sqrt(smaller(variance, BINNED)) / BINNED
    with np.errstate(invalid="ignore", divide="ignore"):
        worth = np.clip(np.nan_to_num(light / noise, posinf=0, neginf=0) - SIGMAS, 0, 6 * SIGMAS)
    sums = np.zeros([n + 1 for n in worth.shape])
    sums[1:, 1:] = worth.cumsum(0).cumsum(1)
    size = [min(DETAIL_PX // BINNED, n) for n in worth.shape]
    inner = [n - m + 1 for n, m in zip(worth.shape, size, strict=True)]
    high, low = (sums[start:, :] for start in (size[0], 0))
    rows = high[: inner[0]] - low[: inner[0]]
    inside = rows[:, size[1] :][:, : inner[1]] - rows[:, : inner[1]]
    # Of many boxes with the same light the middle one.
    y, x = (int(np.median(places)) * BINNED for places in np.nonzero(inside >= inside.max() * (1 - 1e-9)))
    return tuple(slice(start, start + min(DETAIL_PX, n)) for start, n in zip((y, x), shape, strict=True))


def above_gradient(image):
    """The image less a quadratic surface through its sky; for choosing a place, never for measuring."""
    y, x = (axis / max(n, 1) for axis, n in zip(np.indices(image.shape), image.shape, strict=True))
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1)
    step = max(1, image.shape[0] // 150)
    values, points = image[::step, ::step].ravel(), terms[::step, ::step].reshape(-1, 6)
    kept = np.isfinite(values)
    for _ in range(4):
        if kept.sum() < 60:
            return image - np.nanmedian(image)
        surface = np.linalg.lstsq(points[kept], values[kept], rcond=None)[0]
        rest = values - points @ surface
        kept = np.abs(rest - np.median(rest[kept])) < 2.5 * spread(rest[kept])
    return image - terms @ surface


def compared(name, stack, mean, sigma, flip, factor):
    """One view: both stacks under one stretch, and their difference."""
    both = np.concatenate([smaller(stack, factor), smaller(mean, factor)], axis=-1)
    shown = preview.stretched(both)
    w = shown.shape[1] // 2
    difference = sigma_picture(extreme(sigma[None], factor))
    turn = slice(None, None, -1 if flip else 1)
    return {
        "name": name,
        "stack": data_uri(shown[turn, :w], "jpeg"),
        "mean": data_uri(shown[turn, w:], "jpeg"),
        "sigma": data_uri(difference[turn], "jpeg"),
        "width": w,
        "height": shown.shape[0],
    }


def sigma_picture(sigma):
    """Difference in sigma as a picture: orange where the tile stack is brighter, purple where it is fainter."""
    from matplotlib import colormaps

    scaled = np.clip(np.nan_to_num(sigma) / (2 * SIGMAS) + 0.5, 0, 1)
    return (255 * colormaps["PuOr_r"](scaled)[..., :3] + 0.5).astype(np.uint8)


def main_picture(path):
    """A preview, small enough for the page, as a data URI."""
    return data_uri(shrunk(path, PICTURE_PX), "jpeg")


def shrunk(path, longest):
    """A preview whose longer side is at most so many pixels: (h, w) or (h, w, 3) uint8."""
    picture = images.imread(path)
    picture = picture[..., :3] if picture.ndim == 3 else picture
    factor = -(-max(picture.shape[:2]) // longest)
    planes = smaller(np.moveaxis(np.atleast_3d(picture), -1, 0), factor)
    shown = np.moveaxis((255 * planes + 0.5).astype(np.uint8), 0, -1)
    return shown[..., 0] if shown.shape[-1] == 1 else shown


def maps(planes):
    """Coverage (frames), open time (s) and share rejected, each as means over blocks; NaN without data."""
    factor = -(-max(planes["NIM"].shape) // MAP_PX)
    frames, exposure, rejected = (smaller(planes[key].astype(np.float32), factor) for key in ("NIM", "EXP", "REJ"))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = rejected / (frames + rejected)
    nothing = frames == 0
    return {
        "frames": np.where(nothing, np.nan, frames),
        "exposure_s": np.where(nothing, np.nan, exposure),
        "rejected_share": share,
    }


def data_uri(picture, kind):
    """A picture (h, w) or (h, w, 3) uint8 as a data URI, jpeg or png."""
    return f"data:image/{kind};base64," + base64.b64encode(encoded(picture, kind)).decode()


def encoded(picture, kind):
    """The bytes of a picture file."""
    stream = io.BytesIO()
    options = {"quality": QUALITY, "subsampling": 0} if kind == "jpeg" else {}
    images.imsave(stream, np.ascontiguousarray(picture), format=kind, cmap="gray", vmin=0, vmax=255, pil_kwargs=options)
    return stream.getvalue()
