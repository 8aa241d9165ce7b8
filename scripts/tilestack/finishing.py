"""STACKING: what is done to the planes of the stack by choice: hot and cold pixels replaced, rims cut off."""

import functools

import numpy as np

from tilestack import bayer, files, job, masks, preview, products, stackfiles
from tilestack.kernels import detection, prewarp

# Hot and cold pixels stand out of their neighbours by so many standard deviations, which are means over so many pixels.
KAPPA, SMOOTH = 6.0, 15
# What a replaced pixel is taken from the neighbours of, in the stack and in its halves.
REPLACED = ("SCI", "EVEN", "ODD")
# What that takes. All other planes are only written again; SCI is read in any case, for its preview.
LOOKED_AT = (*REPLACED, "VAR", "MASK")
# Borders of the box are multiples of this: even, and the search is quick.
BLOCK = 8


def looked_at(paths, cosmetic, *others):
    """Planes of a stack that are more than written again, by name: (h, w) arrays, of colours (c, h, w)."""
    names = (*(LOOKED_AT if cosmetic else ("SCI",)), *others)
    return {name: stackfiles.loaded(paths, name) for name in names}


def reader(paths, held, finish):
    """Gives a finished plane by its name: one that is held, or read only now, so that few are held at a time.

    Parameters
    ----------
    paths : dict of str to path
        Files of the stack.
    held : dict of str to array
        Those of ``looked_at``, finished.
    finish : callable
        Takes the others by name, and gives them back as they are to be written.
    """

    def plane(name):
        if name in held:
            return held[name]
        with stackfiles.opened(paths, name) as hdu:
            return finish({name: files.stored(hdu)})[name]

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


def of_mosaic_in(paths, canvas, pattern, cosmetic, crop_coverage):
    """``of_mosaic`` of the files of a stack: in place of the planes a ``reader`` of them, None where all stay."""
    if not cosmetic and not crop_coverage:
        return None, canvas, None
    planes = looked_at(paths, cosmetic, *(("NIM", "REJ") if crop_coverage else ()))
    planes, box, n = of_mosaic(planes, canvas, pattern, cosmetic, crop_coverage)
    return reader(paths, planes, lambda made: cut(made, canvas, box)), box, n


def of_colours_in(paths, canvas, box, scale, cosmetic):
    """The same of drizzled planes: a ``reader`` of them, or None."""
    if not cosmetic and box == canvas:
        return None
    planes = looked_at(paths, cosmetic)
    if cosmetic:
        h, w = planes["SCI"].shape[-2:]
        colours = {name: plane.reshape(-1, h, w) for name, plane in planes.items()}  # views
        for c in range(len(colours["SCI"])):
            replace_defects({name: plane[c] for name, plane in colours.items()}, np.zeros((2, 2), np.int64))
    return reader(paths, cut(planes, canvas, box, scale), lambda made: cut(made, canvas, box, scale))


def write(paths, plane, out, cards, n_processes):
    """Write the pixels of a product from the files of a stack, and its previews; its image.

    Parameters
    ----------
    paths : dict of str to path
        By the keys of ``stackfiles.OF_FILE`` that the product has, ``image`` first.
    plane : callable or None
        Of ``of_mosaic_in`` or ``of_colours_in``; None passes the files on.
    out, cards, n_processes
        As in ``products.write_all``.
    """
    if plane is None:
        for path in paths.values():
            with files.opened(path) as hdus:
                len(hdus)  # looks at all headers: a damaged file is found where it can be made again
        stackfiles.passed_on(paths, {name: out[name] for name in paths})
        image = stackfiles.loaded(paths, "SCI")
        preview.write(out["preview"], image, flip=products.bottom_up(cards), full=out["preview_full"])
        return image
    image, *comparisons = paths
    extensions = [(name, functools.partial(plane, name)) for name in stackfiles.OF_FILE[image][1:]]
    comparisons = {name: functools.partial(plane, *stackfiles.OF_FILE[name]) for name in comparisons}
    products.write_all(out, plane("SCI"), extensions, comparisons, cards, n_processes)
    return plane("SCI")
