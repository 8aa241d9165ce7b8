"""Work by processes: that which holds the GIL most of its time, so that threads would wait for one another, or which
touches the state of the process, as ``warnings.catch_warnings`` does."""

import contextlib
import os
import pickle
import traceback


def in_order(work, items, n_processes):
    """Results of a function on items, in their order, by so many processes.

    The caller does the first item itself before it forks: what that loads, kernels above all, is there for all.

    Parameters
    ----------
    work : callable
        Its results are sent through pipes.
    items : sequence
    n_processes : int
        With one the work is done by the caller's.

    Yields
    ------
    object
        What `work` returns; what it raises is raised here, with a note of where.

    Raises
    ------
    ChildProcessError
        If a process is killed, as where memory is short.
    """
    yield from map(work, items[:1])
    items = items[1:]
    n = min(n_processes, len(items))
    if n <= 1:
        yield from map(work, items)
        return
    children = []
    try:
        for k in range(n):
            children.append(_forked(work, items[k::n], children))
        for k in range(len(items)):
            child, results = children[k % n]
            try:
                error, result = pickle.load(results)
            except EOFError:
                raise ChildProcessError(f"process {child} ended before its work did: was it killed?") from None
            if error:
                raise _again(*error)
            yield result
    finally:
        # What is still at work cannot send its next result, and ends.
        for _, results in children:
            results.close()
        for child, _ in children:
            os.waitpid(child, 0)


def _forked(work, items, others):
    """A process that works on items: its number, and what its results are read from."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, os.fdopen(reader, "rb")
    try:
        for _, results in others:
            results.close()
        os.close(reader)
        _send(work, items, writer)
    finally:
        os._exit(0)  # whatever comes, an interrupt too: nothing of the caller's may go on in this process


def _send(work, items, writer):
    # A pipe that nobody reads any more is the caller's end.
    with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "wb") as results:
        for item in items:
            try:
                made = None, work(item)
            except Exception as error:
                made = (*error.__reduce__(), traceback.format_exc()), None
            pickle.dump(made, results, pickle.HIGHEST_PROTOCOL)
            results.flush()


def _again(of_type, args, *attributes_and_trace):
    """An exception of another process, by what pickle takes of it: not by pickle, which calls its own ``__init__``."""
    error = of_type.__new__(of_type, *args)
    *attributes, trace = attributes_and_trace
    vars(error).update(*attributes)
    error.add_note(trace)
    return error


def all_done(tasks, n_processes):
    """Call functions that need no arguments and write files, the first by the caller, the others by processes."""
    for _ in in_order(lambda task: task(), tasks, n_processes):
        pass
