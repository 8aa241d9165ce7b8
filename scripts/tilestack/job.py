"""Set-up that every script needs once: its log file, its threads, and the reason it leaves where it stops."""

import contextlib
import errno
import logging
import sys
from pathlib import Path

from tilestack import records


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
        super().__init__(f"{reason}: {message}")
        self.reason, self.message, self.status = reason, message, status


@contextlib.contextmanager
def started(snakemake):
    """Send logging to the rule's log, hold numba to the rule's threads, and leave a reason where the job fails."""
    reason_path = Path(snakemake.log.reason)
    reason_path.unlink(missing_ok=True)
    logging.basicConfig(filename=snakemake.log.text, format="%(asctime)s %(levelname)s %(message)s", force=True)
    logging.getLogger().setLevel(logging.INFO)
    # Snakemake exports OMP_NUM_THREADS and the like, but nothing for numba; a job that did not import it needs none.
    if "numba" in sys.modules:
        import numba

        numba.set_num_threads(min(snakemake.threads, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    except Exception as error:
        stop = _as_stop(error, snakemake.rule)
        logging.error("%s", stop, exc_info=None if isinstance(error, Stop) else error)
        records.write(reason_path, {"status": stop.status, "reason": stop.reason, "message": stop.message})
        if isinstance(error, Stop):
            raise SystemExit(1) from None  # the reason says it all: no traceback on the terminal
        raise


def _as_stop(error, rule):
    if isinstance(error, Stop):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        message = f"the disk is full while {rule} writes {error.filename or 'its output'}: free space and start again"
        return Stop("disk_full", message, status="insufficient_disk_space")
    return Stop("job_failed", f"{rule}: {type(error).__name__}: {error}")
