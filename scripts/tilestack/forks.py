"""Jobs as forks of one process, which scripts/job_server.py is: one for each request that comes by a socket.

A request is a JSON object with the script and the folder for temporary files, and beside it a socket for the answer:
one line with the process id of the job, which begins when a byte comes back, and one with its exit code when it has
ended (below zero, the signal that killed it). When the other end closes, the server waits for the jobs and ends. If
it is killed itself, Snakemake takes its jobs for failed; a new start waits for those that are alive.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys


def serve(control):
    """Fork for each request as long as the other end is open; the request in the fork that is to do it, else None."""
    answers = {}  # sockets by process id
    ended, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler nothing is written to `wake`
    while True:
        ready, *_ = select.select([control, ended], [], [])
        if ended in ready:
            ended.recv(1 << 12)
            take_in(answers, os.WNOHANG)
        if control in ready:
            request, sockets, *_ = socket.recv_fds(control, 1 << 16, 1)
            if not request:
                take_in(answers, 0)
                return None
            answer = socket.socket(fileno=sockets[0])
            try:
                job = os.fork()
            except OSError as error:  # a limit of processes
                print(f"no process for a job: {error}", file=sys.stderr)
                answer.close()
                continue
            if job == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for one in (control, ended, wake, *answers.values()):
                    one.close()
                with answer:
                    if not answer.recv(1):  # nobody is there any more
                        os._exit(0)
                return json.loads(request)
            answers[job] = answer
            tell(answer, job)


def take_in(answers, options):
    """Tell how jobs ended that have, with 0 all of them: only then their CPU seconds count for those above."""
    with contextlib.suppress(ChildProcessError):  # none is left
        while (ended := os.waitpid(-1, options))[0]:
            with answers.pop(ended[0]) as answer:
                tell(answer, os.waitstatus_to_exitcode(ended[1]))


def tell(answer, number):
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # Snakemake was killed
        answer.sendall(f"{number}\n".encode())
