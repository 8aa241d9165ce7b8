"""JSON records: what a phase did, in numbers. Lean: a gather job imports this and numpy, nothing else."""

import contextlib
import json
import math
import os

import numpy as np


class DamagedFile(Exception):
    """A file of the run that cannot be read.

    Parameters
    ----------
    path : path
    what : object
        What reading it said.
    """

    def __init__(self, path, what):
        super().__init__(str(path), str(what).partition("\n")[0])

    def __str__(self):
        path, what = self.args
        return f"{path} is damaged ({what}): delete it and start again, then it is made again"


def read(path):
    """The record in a JSON file."""
    with open(path) as stream:
        try:
            return json.load(stream)
        except ValueError as error:  # no JSON, or no UTF-8
            raise DamagedFile(path, error) from error


def write(path, record):
    """Write a record in one step: numpy scalars and arrays as numbers and lists, what is not finite as null."""
    how = {"allow_nan": False, "separators": (",", ":")}
    try:
        text = json.dumps(record, default=_of_numpy, **how)
    except (
        ValueError,
        TypeError,
    ):  # numbers that are not finite, keys of numpy: looked at one by one, which takes long
        text = json.dumps(_plain(record), **how)
    with replacing(path) as draft, open(draft, "w") as stream:
        stream.write(text + "\n")


@contextlib.contextmanager
def replacing(path):
    """A temporary path in the same folder, moved to `path` when all went well, removed when not."""
    draft = f"{path}.{os.getpid()}.tmp"
    try:
        yield draft
        os.replace(draft, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)


def rounded(values, digits=6):
    """Array as nested lists of floats with so many significant digits; null where not finite."""
    values = np.asarray(values, float)
    known = np.isfinite(values)
    size = np.abs(np.where(known & (values != 0), values, 1.0))
    # Powers of ten above 1 are exact, and so are products with them and the best of all quotients by them.
    power = digits - 1 - np.floor(np.log10(size)).clip(-290, 290)
    up, down = 10.0 ** np.maximum(power, 0), 10.0 ** np.maximum(-power, 0)
    short = np.rint(np.where(known, values, 0.0) * up / down) * down / up
    return np.where(known, short, None).tolist() if not known.all() else short.tolist()


def array(values):
    """Nested lists of a record as a float64 array; null is NaN."""
    return np.array(values, dtype=float)


def _of_numpy(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError


def _plain(value):
    if type(value) is float:  # nearly all there is, so it is asked first
        return value if math.isfinite(value) else None
    if isinstance(value, (str, int)) or value is None:
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    return value
