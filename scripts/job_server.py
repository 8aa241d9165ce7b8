"""Runs job scripts in forks of one process that has imported what they need: a start of 0.8 s alone takes 0.1 so.

rules/job_server.smk starts it and holds the other end of its socket; ``forks`` says what goes over it.
"""

import atexit
import contextlib
import gc
import importlib
import os
import signal
import socket
import sys
import types
from pathlib import Path

from tilestack import forks

# Between them they import what most jobs need; a job imports the rest itself.
IMPORTED = ("scan_frames", "detect_stars", "prewarp", "local_metrics", "reconstruct_batch", "debayer")
# What unpickles the object `snakemake` of a script.
OF_SNAKEMAKE = ("snakemake.iocontainers", "snakemake.io", "snakemake.logging")


def prepare():
    """Import, and load a first kernel, which takes numba 0.15 s."""
    gc.disable()
    import numpy as np

    for name in (*IMPORTED, *OF_SNAKEMAKE):
        importlib.import_module(name)
    from tilestack.kernels import scan

    scan.levels(np.zeros((1, 1), np.float32))
    gc.freeze()  # a look for garbage in a fork would copy all pages that it shares
    gc.enable()


def run(script, folder):
    """Run a script as a Python would that was started with it, and end."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    os.environ["TMPDIR"] = folder
    with contextlib.suppress(FileNotFoundError):  # of systems other than Linux: the name that top shows
        Path("/proc/self/comm").write_text(Path(script).stem.rpartition(".")[2][:15])
    sys.argv, sys.path[0] = [script], str(Path(script).parent)
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__file__ = script
    exec(compile(Path(script).read_bytes(), script, "exec"), main.__dict__)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(0)  # taking all modules down would first copy the pages shared: 0.06 s


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the jobs; Snakemake then closes the socket
    prepare()
    request = forks.serve(socket.socket(fileno=int(sys.argv[1])))
    if request:
        run(**request)
