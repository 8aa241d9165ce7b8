"""The files of a stack: its image with the planes that belong to it, and by itself each image it is compared with.

So they are laid out as the products are: where nothing is left to be done to a stack, its files get the names of the
products too, and no pixel is written twice. What is known of a stack is not in its files (``products.write_header``).
"""

import contextlib
import os
import shutil

from tilestack import files, masks, records

# Planes of each file, the primary image first. Siril takes a file for a sequence, and fails, where the second image is
# of the type and size of the first. A run keeps no split: measurements add the sums up once more.
OF_FILE = {
    "image": ("SCI", "MASK", "VAR", "WHT", "EXP", "NIM", "REJ"),
    "even": ("EVEN",),
    "odd": ("ODD",),
    "split": ("SPLIT",),
    "plain_mean": ("MEAN",),
    "inverse_variance": ("IVAR",),
}
FILE_OF = {plane: name for name, planes in OF_FILE.items() for plane in planes}
COUNTS = ("NIM", "REJ")


class Writer:
    """A stack, written band by band; a context as ``files.Writer`` is.

    Parameters
    ----------
    out : dict of str to path
        By the keys of OF_FILE. A file none of whose planes is written has no image.
    planes : collection of str
        Those that are written: of a file all or none.
    n_planes : int
        Images of each name.
    canvas : (int, int, int, int)
        y0, x0, rows, columns.
    most : int
        What no count of a pixel is above: COUNTS are of 16 bits where that is enough, of 32 else.
    """

    def __init__(self, out, planes, n_planes, canvas, most):
        self.out, self.planes, self.canvas = out, planes, canvas
        self.shape = canvas[2:] if n_planes == 1 else (n_planes, *canvas[2:])
        of_counts = "i2" if most < 1 << 15 else "i4"
        self.types = {"MASK": "u1", **dict.fromkeys(COUNTS, of_counts)}
        self.places = {}  # writer and handle of each plane

    def __enter__(self):
        place = {"LATTY0": self.canvas[0], "LATTX0": self.canvas[1]}
        with contextlib.ExitStack() as stack:
            for name, path in self.out.items():
                first, *others = OF_FILE[name]
                if first not in self.planes:
                    stack.enter_context(files.Writer(path, {"CONTENT": "nothing: see docs/formats.md"}))
                    continue
                writer = stack.enter_context(files.Writer(path, place, (self.shape, "f4")))
                self.places[first] = writer, writer.primary
                for plane in others:
                    cards = masks.BITS if plane == "MASK" else ()
                    handle = writer.reserve(plane, self.shape, self.types.get(plane, "f4"), cards)
                    self.places[plane] = writer, handle
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error):
        self._open.__exit__(*error)

    def put(self, band, planes):
        """Write a band of the canvas: name -> (planes, rows, columns) array."""
        for name, (writer, handle) in self.places.items():
            for k, plane in enumerate(planes[name]):
                first = (k * self.canvas[2] + band[0] - self.canvas[0]) * self.canvas[3]
                writer.put(handle, plane.astype(self.types.get(name, "f4"), copy=False), first)


def empty(out):
    """Files of a stack that there is none of."""
    with Writer(out, (), 0, (0, 0, 0, 0), 0):
        pass


def of_end(paths, end=""):
    """Files of a stack out of paths by name: those whose names end so, without that end."""
    return {name: paths[name + end] for name in OF_FILE if name + end in paths}


def used(paths, combined):
    """Files of the stack that a product is made of, out of direct_... and synthetic_...: the latter where synthetic
    frames were combined. Means know no clusters, so there is no synthetic form of them."""
    start = "synthetic" if combined else "direct"
    direct = {name: paths[f"direct_{name}"] for name in OF_FILE if f"direct_{name}" in paths}
    return {name: paths.get(f"{start}_{name}", path) for name, path in direct.items()}


@contextlib.contextmanager
def opened(paths, plane):
    """The HDU of a plane."""
    name = FILE_OF[plane]
    with files.opened(paths[name]) as hdus:
        yield hdus[OF_FILE[name].index(plane)]


def rows(paths, plane):
    """A plane as ``files.Rows``."""
    with opened(paths, plane) as hdu:
        return files.Rows(hdu)


def loaded(paths, plane):
    """Pixels of a plane, in native byte order."""
    with opened(paths, plane) as hdu:
        return files.loaded(hdu)


def passed_on(paths, out):
    """Give files second names: those of `paths` by the names of `out`.

    A second name is as old as the file, so older than other input of its rule: the next start would make it again. So
    all are made as old as one another, now by the clock of the file system. A rule may then find its input newer than
    its other output; rules declare such files as ``ancient``, with the record of the same rule beside them.
    """
    for name, to in out.items():
        with records.replacing(to) as draft:
            try:
                os.link(paths[name], draft)
            except OSError:  # a file system without
                shutil.copyfile(paths[name], draft)
    first = next(iter(out.values()))
    os.utime(first)
    now = os.stat(first).st_mtime_ns
    for to in out.values():
        os.utime(to, ns=(now, now))


def channel(paths, k=0):
    """All planes of a stack that are there, of a channel: name -> (h, w) array in native byte order."""
    found = {}
    for name, path in paths.items():
        with files.opened(path) as hdus:
            for plane, hdu in zip(OF_FILE[name], hdus, strict=False):
                if hdu.shape:
                    found[plane] = files.native(hdu.data.reshape(-1, *hdu.shape[-2:])[k])
    return found
