"""scripts/job_server.py: a job that was forked ends like one that Python was started for."""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from support import ROOT


class Server:
    """The other end of the socket, as rules/job_server.smk holds it."""

    def __init__(self, errors):
        self.control, theirs = socket.socketpair()
        with theirs, open(errors, "w") as stream:
            command = [sys.executable, ROOT / "scripts/job_server.py", str(theirs.fileno())]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=stream)
        self.errors = errors

    @contextlib.contextmanager
    def asked(self, script, folder):
        """A job that waits for its beginning: its process id, the socket and where its exit code is to be read."""
        ours, theirs = socket.socketpair()
        with ours, ours.makefile() as answer:
            request = json.dumps({"script": str(script), "folder": str(folder)})
            socket.send_fds(self.control, [request.encode()], [theirs.fileno()])
            theirs.close()
            yield int(answer.readline()), ours, answer

    @contextlib.contextmanager
    def begun(self, script, folder):
        """A job that has begun: its process id and where its exit code is to be read."""
        with self.asked(script, folder) as (job, ours, answer):
            ours.sendall(b"\n")
            yield job, answer

    def run(self, folder, source):
        """Exit code of a script."""
        script = folder / "tmp1.some_phase.py"
        script.write_text(source)
        with self.begun(script, folder) as (_, answer):
            return int(answer.readline())

    def close(self):
        self.control.close()
        return self.process.wait(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server") / "errors")
    yield server
    assert server.close() == 0


@pytest.mark.parametrize(
    "source, code",
    [
        ("pass", 0),
        ("import sys; sys.exit(3)", 3),
        ("raise SystemExit", 0),
        ("raise SystemExit('a word')", 1),
        ("1 / 0", 1),
        ("def broken(:", 1),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import os; os.kill(os.getpid(), 2)", -signal.SIGINT),  # Ctrl-C, without a traceback
    ],
)
def test_exit_code(server, tmp_path, source, code):
    assert server.run(tmp_path, source) == code


def test_traceback_names_the_script(server, tmp_path):
    assert server.run(tmp_path, "what = 1\nwhat.missing\n") == 1
    told = server.errors.read_text()
    assert f'File "{tmp_path}/tmp1.some_phase.py", line 2' in told
    assert "AttributeError: 'int' object has no attribute 'missing'" in told


def test_what_a_script_finds(server, tmp_path):
    """Its name and folder, the modules beside it, its own functions; and what it wants at its end is done."""
    (tmp_path / "beside.py").write_text("value = 5")
    source = """
import atexit, json, os, sys, beside
def facts():
    return [sys.argv, __name__, __file__, os.environ["TMPDIR"], beside.value, "numba" in sys.modules]
atexit.register(lambda: open("OUT", "w").write(json.dumps(facts())))
"""
    assert server.run(tmp_path, source.replace("OUT", str(tmp_path / "out"))) == 0
    script = str(tmp_path / "tmp1.some_phase.py")
    assert json.loads((tmp_path / "out").read_text()) == [[script], "__main__", script, str(tmp_path), 5, True]


def test_jobs_at_the_same_time_know_nothing_of_each_other(server, tmp_path):
    scripts, gates = [[tmp_path / f"{name}{k}.phase.py" for k in range(3)] for name in ("tmp", "gate")]
    with contextlib.ExitStack() as stack:
        jobs = []
        for k, script in enumerate(scripts):
            os.mkfifo(gates[k])
            script.write_text(
                "import numba, sys\nassert not hasattr(numba, 'mark')\nnumba.mark = 1\n"
                f"open({str(gates[k])!r}).read()\nsys.exit({k})"
            )
            jobs.append(stack.enter_context(server.begun(script, tmp_path)))
        assert len({pid for pid, _ in jobs}) == 3
        for gate in gates:  # all are at theirs now, or come to it
            gate.write_text("go on")
        assert [int(answer.readline()) for _, answer in jobs] == [0, 1, 2]


def test_job_is_there_until_it_is_told_to_begin(server, tmp_path):
    """So Snakemake can measure even one that ends at once."""
    script = tmp_path / "tmp1.phase.py"
    script.write_text("pass")
    with server.asked(script, tmp_path) as (job, ours, answer):
        time.sleep(0.1)
        assert psutil.Process(job).status() != psutil.STATUS_ZOMBIE
        ours.sendall(b"\n")
        assert int(answer.readline()) == 0


def test_job_that_nobody_tells_to_begin_ends(tmp_path):
    own = Server(tmp_path / "errors")
    script, done = tmp_path / "tmp1.phase.py", tmp_path / "done"
    script.write_text(f"open({str(done)!r}, 'w')")
    with own.asked(script, tmp_path):
        pass
    assert own.close() == 0 and not done.exists()


def test_jobs_go_on_with_what_others_leave_behind(server, tmp_path):
    """A process that a job started and left, and an answer that nobody reads."""
    left = "import subprocess; subprocess.Popen(['sleep', '5'])"
    assert server.run(tmp_path, left) == 0
    script = tmp_path / "tmp2.phase.py"
    script.write_text("pass")
    with server.begun(script, tmp_path):
        pass
    assert server.run(tmp_path, "pass") == 0


def test_kernels_run_in_a_fork(server, tmp_path):
    """Serial kernels and such with threads, after the server itself has used the first kind."""
    source = """
import numba, numpy as np
from tilestack.kernels import scan
numba.set_num_threads(2 if numba.config.NUMBA_NUM_THREADS > 1 else 1)
@numba.njit(parallel=True)
def total(n):
    s = 0
    for k in numba.prange(n):
        s += k
    return s
assert total(1000) == 499500
assert scan.levels(np.full((2, 3), 7, np.float32))[3] == 7
"""
    assert server.run(tmp_path, source) == 0, server.errors.read_text()


def test_jobs_outlive_the_socket_and_count_as_the_server(tmp_path):
    """CPU seconds of all jobs reach the process that waits for the server; after a kill of Snakemake its jobs go on."""
    own = Server(tmp_path / "errors")
    script, done = tmp_path / "tmp1.phase.py", tmp_path / "done"
    script.write_text(
        "import time, pathlib\nwhile time.process_time() < 0.5: pass\n"
        f"pathlib.Path({str(done)!r}).write_text(str(time.process_time()))\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with own.begun(script, tmp_path):
        server_alone = sum(psutil.Process(own.process.pid).cpu_times()[:2])
        own.control.close()
    assert own.process.wait(60) == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used >= server_alone + float(done.read_text()) - 0.02  # the system counts in steps of 0.01 s
    assert own.errors.read_text() == ""


WITH_A_LIMIT = """
import os, socket, sys
from tilestack import forks

fork, calls = os.fork, []

def limited():
    calls.append(1)
    if len(calls) == 1:
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()

os.fork = limited
if forks.serve(socket.socket(fileno=int(sys.argv[1]))):
    os._exit(7)
"""


def test_limit_of_processes_fails_one_job_and_the_server_goes_on(tmp_path):
    control, theirs = socket.socketpair()
    with theirs, open(tmp_path / "errors", "w") as errors:
        command = [sys.executable, "-c", WITH_A_LIMIT, str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=errors, cwd=ROOT / "scripts")
    with control:
        answers = []
        for _ in range(2):
            ours, its_end = socket.socketpair()
            with ours, ours.makefile() as answer:
                socket.send_fds(control, [b'{"script": ""}'], [its_end.fileno()])
                its_end.close()
                job = answer.readline()
                if job:
                    ours.sendall(b"\\n")
                answers.append((bool(job), answer.readline()))
    assert answers == [(False, ""), (True, "7\n")]
    assert process.wait(60) == 0
    assert "no process for a job: [Errno 11] Resource temporarily unavailable" in (tmp_path / "errors").read_text()
