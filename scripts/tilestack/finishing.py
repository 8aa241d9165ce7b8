"""STACKING: what is done to the planes of the stack by choice: hot and cold pixels replaced, rims cut off."""

import numpy as np

from tilestack import bayer, files, job, masks
from tilestack.kernels import detection, prewarp

# Hot and cold pixels stand out of their neighbours by so many standard deviations, which are means over so many pixels.
KAPPA, SMOOTH = 6.0, 15
# What a replaced pixel is taken from the neighbours of, in the stack and in its halves.
REPLACED = ("SCI", "EVEN", "ODD")
# What that takes. All other planes are only written again; SCI is read in any case, for its preview.
LOOKED_AT = (*REPLACED, "VAR", "MASK")
# Borders of the box are multiples of this: even, and the search is quick.
BLOCK = 8


def looked_at(hdus, cosmetic, *others):
    """Planes of a stack that are more than written again, by name: (c, h, w) arrays."""
    names = (*(LOOKED_AT if cosmetic else ("SCI",)), *others)
    return {name: files.loaded(hdus[name]) for name in names}


def reader(path, held, finish):
    """Gives a finished plane by its name: one that is held, or read only now, so that few are held at a time.

    Parameters
    ----------
    path : path
        File of the stack.
    held : dict of str to array
        Those of ``looked_at``, finished.
    finish : callable
        Takes the others by name, and gives them back as they are to be written.
    """

    def plane(name):
        if name in held:
            return held[name]
        with files.opened(path) as hdus:
            return finish({name: files.stored(hdus[name])})[name]

    return plane


def replace_defects(planes, cell):
    """Replace the pixels of a stack that stand alone, in place, and mark them; how many there were.

    Parameters
    ----------
    planes : dict of str to (h, w) array
        ``SCI``, ``VAR``, ``MASK``, ``EVEN``, ``ODD``.
    cell : (2, 2) int64 array
        Channel of each phase of the mosaic; all 0 for a single colour.
    """
    from scipy import ndimage  # 0.14 s that products as they are need not wait

    heights = planes["SCI"].astype(np.float32)
    for y, x in np.ndindex(2, 2):
        heights[y::2, x::2] -= np.nanmedian(heights[y::2, x::2])
    # Smooth: a step of the noise between neighbours must not make a step of what is left of the sky.
    deviation = np.sqrt(planes["VAR"])
    deviation = np.where(np.isfinite(deviation), deviation, np.nanmedian(deviation))
    heights /= ndimage.uniform_filter(deviation, SMOOTH)
    found = detection.defects(heights, cell, np.ones(int(cell.max()) + 1), KAPPA)
    # A pixel whose neighbours are missing stands alone by that only.
    found = found[np.isfinite(heights[tuple(found.T)])]
    for name in REPLACED:
        prewarp.replace_defects(planes[name], found, 2 if cell.max() > 0 else 1)
    planes["MASK"][tuple(found.T)] |= masks.REPLACED
    return len(found)


def covered_box(frames, least, canvas):
    """Largest box of the canvas that at least so many frames reach everywhere: (y0, x0, rows, columns) on the lattice.

    Parameters
    ----------
    frames : (h, w) int array
        Frames that reach a pixel, rejected ones too.
    least : float
    canvas : (int, int, int, int)
    """
    from scipy import ndimage  # as above

    rows, columns = (n // BLOCK for n in frames.shape)
    # Frames that are saturated in a star's core are in neither count: such a hole is no rim.
    reached = ndimage.binary_fill_holes(frames >= least)
    blocks = reached[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK).all((1, 3))
    top, left, h, w = _largest(blocks)
    if not h:
        raise job.Stop(
            "nothing_covered",
            f"no box of {BLOCK} x {BLOCK} pixels has {least:.1f} frames everywhere (most at a pixel: {frames.max()}): "
            "lower stacking.crop_coverage",
        )
    return canvas[0] + top * BLOCK, canvas[1] + left * BLOCK, h * BLOCK, w * BLOCK


def _largest(good):
    """Largest rectangle of True: (y, x, h, w); rows give heights of columns, and a stack the best box below them."""
    best, height = (0, 0, 0, 0), np.zeros(good.shape[1], int)
    for y, row in enumerate(good):
        height = np.where(row, height + 1, 0)
        rising = []  # (first column, height), heights rising
        for x, now in enumerate([*height.tolist(), 0]):
            start = x
            while rising and rising[-1][1] >= now:
                start, h = rising.pop()
                if h * (x - start) > best[2] * best[3]:
                    best = (y - h + 1, start, h, x - start)
            rising.append((start, now))
    return best


def cut(planes, canvas, box, scale=1):
    """Planes cut to a box of the lattice, from a canvas with so many pixels to one of the lattice."""
    y, x = ((box[k] - canvas[k]) * scale for k in (0, 1))
    return {name: plane[..., y : y + box[2] * scale, x : x + box[3] * scale] for name, plane in planes.items()}


def of_mosaic(planes, canvas, pattern, cosmetic, crop_coverage):
    """The planes of a stack finished by choice; the box that they fill, and how many pixels were replaced."""
    n = replace_defects(planes, bayer.channel_cell(pattern)) if cosmetic else None
    if not crop_coverage:
        return planes, canvas, n
    frames = planes["NIM"] + planes["REJ"]
    box = covered_box(frames, crop_coverage * frames.max(), canvas)
    return cut(planes, canvas, box), box, n


def of_mosaic_in(path, canvas, pattern, cosmetic, crop_coverage):
    """``of_mosaic`` of a file: in place of the planes a ``reader`` of them, (h, w)."""
    with files.opened(path) as hdus:
        others = ("NIM", "REJ") if crop_coverage else ()
        planes = {name: plane[0] for name, plane in looked_at(hdus, cosmetic, *others).items()}
    planes, box, n = of_mosaic(planes, canvas, pattern, cosmetic, crop_coverage)
    return reader(path, planes, lambda made: cut({k: v[0] for k, v in made.items()}, canvas, box)), box, n


def of_colours_in(path, canvas, box, scale, cosmetic):
    """The same of a file of drizzled planes: a ``reader`` of them, (c, h, w)."""
    with files.opened(path) as hdus:
        planes = looked_at(hdus, cosmetic)
    for c in range(len(planes["SCI"]) if cosmetic else 0):
        replace_defects({name: plane[c] for name, plane in planes.items()}, np.zeros((2, 2), np.int64))
    return reader(path, cut(planes, canvas, box, scale), lambda made: cut(made, canvas, box, scale))
