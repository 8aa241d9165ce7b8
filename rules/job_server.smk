"""Scripts that this process runs itself go to forks of scripts/job_server.py, which saves most of each start.

Snakemake has no setting for that: its one method that calls Python for a script is replaced. Environments of conda or
containers keep their own Python.
"""

import atexit
import contextlib
import socket
import subprocess
import sys
import threading

from snakemake.benchmark import benchmarked
from snakemake.script import PythonScript


def next_number(answer):
    """What the server says next."""
    line = answer.readline()
    if not line:
        raise WorkflowError(
            "the server of the jobs (scripts/job_server.py) was killed, or could not begin, or got no process for a job "
            "(ulimit -u): start again"
        )
    return int(line)


class JobServer:
    """The process that forks the jobs, started with the first of them."""

    def __init__(self):
        self.lock, self.process, self.control = threading.Lock(), None, None

    def start(self):
        self.control, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, SCRIPTS / "job_server.py", str(theirs.fileno())]
            # One thread for libraries with their own: what they add up depends on how many there are.
            alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env={**os.environ, **alone})
        atexit.register(self.stop)

    def stop(self):
        """Let it end, and take its CPU seconds and those of the jobs into this process's account."""
        self.control.close()
        self.process.wait()

    def run(self, script, folder, bench_record):
        """Exit code of a script."""
        ours, theirs = socket.socketpair()
        with ours, ours.makefile() as answer:
            with theirs, self.lock:
                if self.process is None:
                    self.start()
                request = json.dumps({"script": os.path.abspath(script), "folder": folder})
                socket.send_fds(self.control, [request.encode()], [theirs.fileno()])
                theirs.close()
                job = next_number(answer)  # before the next request, lest they come as one
            with benchmarked(job, bench_record) if bench_record else contextlib.nullcontext():
                ours.sendall(b"\n")  # only now it begins: one that had ended could not be looked at
                return next_number(answer)


JOB_SERVER = JobServer()
execute_script = PythonScript.execute_script


def fork_script(self, fname, edit=False):
    """In place of PythonScript.execute_script."""
    if self.conda_env or self.container_img or self.env_modules:
        return execute_script(self, fname, edit)
    status = JOB_SERVER.run(fname, self.resources["tmpdir"], self.bench_record)
    if status:
        raise subprocess.CalledProcessError(status, [sys.executable, fname])


PythonScript.execute_script = fork_script
