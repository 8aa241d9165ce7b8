"""Set-up that every script needs once: its log file, and the reason it leaves where it stops."""

import contextlib
import ctypes
import errno
import fcntl
import gc
import json
import logging
import os
import re
from pathlib import Path

from tilestack import records

REASON_BYTES = 4000


class Stop(Exception):
    """A phase refuses to go on.

    Parameters
    ----------
    reason : str
        Code such as ``mixed_filters``.
    message : str
        What was found, what was expected, what to do.
    status : str
        Status of the run: ``error``, ``insufficient_frames``, ``insufficient_disk_space`` or ``validation_failed``.
    """

    def __init__(self, reason, message, status="error"):
        super().__init__(reason, message, status)  # all of them, or it could not be sent from process to process
        self.reason, self.message, self.status = reason, message, status

    def __str__(self):
        return f"{self.reason}: {self.message}"


@contextlib.contextmanager
def started(snakemake):
    """Send logging to the rule's log, and leave a reason where the job fails."""
    reason_path = Path(snakemake.log.reason)
    with _enrolled(next(folder.parent for folder in reason_path.parents if folder.name == "logs")):
        logging.basicConfig(filename=snakemake.log.text, format="%(asctime)s %(levelname)s %(message)s", force=True)
        logging.getLogger().setLevel(logging.INFO)
        try:
            reason_path.write_text(" " * REASON_BYTES)  # where the disk is full later, there is room to say so
            yield
            reason_path.unlink()
            gc.freeze()  # all ends here: a last look for garbage in the modules takes 0.1-0.4 s
        except Exception as error:
            stop = _as_stop(error, snakemake.rule)
            logging.error("%s", stop, exc_info=None if isinstance(error, Stop) else error)
            with open(reason_path, "r+") as stream:
                json.dump({"status": stop.status, "reason": stop.reason, "message": stop.message}, stream)
            if stop.reason != "job_failed":
                raise SystemExit(1) from None  # the reason says it all: no traceback on the terminal
            raise


def give_memory_back():
    """Give the system what has been freed, which jobs keep (``MALLOC_TRIM_THRESHOLD_``): between two parts of a job
    whose arrays do not fit into each other's places. Only glibc has that call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


@contextlib.contextmanager
def _enrolled(run):
    """Hold a shared lock on the run, if the start that wanted the job is the last one.

    A start after a kill waits for jobs that are alive; what still waits in the queue of a cluster must not begin.
    """
    with open(run / ".jobs", "a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        mine, last = os.environ.get("TILESTACK_START"), (run / ".lock").read_text()
        if mine != last:
            raise SystemExit(f"a job of the start {mine}, which was killed: {run} belongs to the start {last} now")
        yield


def _as_stop(error, rule):
    if isinstance(error, Stop):
        return error
    if _disk_is_full(error):
        what = getattr(error, "filename", None) or "its output"
        message = f"the disk is full while {rule} writes {what}: free space and start again"
        return Stop("disk_full", message, status="insufficient_disk_space")
    if isinstance(error, records.DamagedFile):
        return Stop("damaged_file", f"{rule}: {error}")
    if isinstance(error, MemoryError):
        return Stop("out_of_memory", f"{rule} got no memory ({error}): run fewer jobs at once, or with more memory")
    return Stop("job_failed", f"{rule}: {type(error).__name__}: {error}")


def _disk_is_full(error):
    """Whether an error comes of a full disk; numpy and astropy raise their own, without the number of the system's."""
    while error is not None:
        if isinstance(error, OSError):
            if error.errno in (errno.ENOSPC, errno.EDQUOT) or re.search("requested and [0-9]+ written", str(error)):
                return True
        error = error.__cause__ or error.__context__
    return False
