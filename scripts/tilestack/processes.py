"""Work by processes: that which holds the GIL most of its time, so that threads would wait for one another, or which
touches the state of the process, as ``warnings.catch_warnings`` does."""

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
        If a process ends before its work does: killed, as where memory is short.
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
                error, trace, result = pickle.load(results)
            except (EOFError, pickle.UnpicklingError):
                raise _ended(children.pop(k % n)) from None
            if error:
                error.add_note(trace)
                raise error
            yield result
    finally:
        # What is still at work cannot send its next result, and ends.
        for _, results in children:
            results.close()
        for child, _ in children:
            os.waitpid(child, 0)


def all_done(tasks, n_processes):
    """Call functions that need no arguments and write files, the first by the caller, the others by processes."""
    for _ in in_order(lambda task: task(), tasks, n_processes):
        pass


def _forked(work, items, others):
    """A process that works on items: its number, and what its results are read from."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, os.fdopen(reader, "rb")
    code = 1
    try:
        for _, results in others:
            results.close()
        os.close(reader)
        with os.fdopen(writer, "wb") as results:
            for item in items:
                results.write(_made(work, item))
                results.flush()
        code = 0
    except (BrokenPipeError, KeyboardInterrupt):  # the caller has ended, or ends
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # nothing of the caller's may go on in this process


def _made(work, item):
    """The result of an item, or the error and where it was raised, as it is sent."""
    try:
        return pickle.dumps((None, None, work(item)), pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # the caller raises it
        return _as_sent(error, traceback.format_exc())


def _as_sent(error, trace):
    try:
        sent = pickle.dumps((error, trace, None))
        pickle.loads(sent)
    except (pickle.PicklingError, AttributeError, TypeError):  # it holds what cannot be sent: then its words alone
        sent = pickle.dumps((RuntimeError(f"{type(error).__name__}: {error}"), trace, None))
    return sent


def _ended(one):
    """The error that a process has ended too early."""
    child, results = one
    results.close()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    how = f"was killed by signal {-code}, as where memory is short" if code < 0 else f"ended with status {code}"
    return ChildProcessError(f"process {child} {how}, before its work was done")
