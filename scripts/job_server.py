"""Runs job scripts in forks of one process that has imported what they need: a start of 0.8 s alone takes 0.1 so.

rules/job_server.smk starts it and holds the other end of its socket. A request is a JSON object with the script and the
folder for temporary files, and beside it a socket for the answer: one line with the process id of the job, and one with
its exit code when it has ended (below zero, the signal that killed it). When the other end closes, the server ends.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import types
from pathlib import Path

# Between them they import what most jobs need; a job imports the rest itself.
IMPORTED = ("scan_frames", "detect_stars", "prewarp", "local_metrics", "reconstruct_batch", "debayer")


def prepare():
    """Import, and load a first kernel, which takes numba 0.15 s."""
    import numpy as np

    for name in IMPORTED:
        importlib.import_module(name)
    from tilestack.kernels import scan

    scan.levels(np.zeros((1, 1), np.float32))
    gc.freeze()  # a look for garbage in a fork would copy all pages that it shares


def serve(control):
    """Fork for each request as long as the other end is open; the request in a fork that is to do it, else None."""
    while True:
        request, sockets, *_ = socket.recv_fds(control, 1 << 16, 1)
        if not request:
            reap(0)
            return None
        if os.fork() == 0:
            control.close()
            return keep(json.loads(request), socket.socket(fileno=sockets[0]))
        os.close(sockets[0])
        reap(os.WNOHANG)


def keep(request, answer):
    """Fork the job, wait for its end and tell. Returns the request, in the job; not at all elsewhere."""
    job = os.fork()
    if job == 0:
        answer.close()
        return request
    answer.sendall(f"{os.getpid()}\n".encode())
    _, status = os.waitpid(job, 0)
    with contextlib.suppress(BrokenPipeError):  # Snakemake was killed
        answer.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def reap(options):
    """Take in the forks that have ended, with 0 all of them: only then their CPU seconds count for those above."""
    with contextlib.suppress(ChildProcessError):  # none is left
        while os.waitpid(-1, options)[0]:
            pass


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
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request:
        run(**request)
