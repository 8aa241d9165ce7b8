"""Frames, bands and blocks by threads: kernels that share one of them would leave half of the cores idle."""

import collections
from concurrent.futures import ThreadPoolExecutor


def in_order(work, items, n_threads):
    """Results of a function on items, in their order, by so many threads.

    Parameters
    ----------
    work : callable
        Runs in threads: its kernels release the GIL and have no threads of their own, and it touches no state of the
        process, as ``warnings.catch_warnings`` does.
    items : iterable
        Drawn by the thread of the caller, a few ahead of what is done.
    n_threads : int
        With one the work is done by the caller's.

    Yields
    ------
    object
        What `work` returns; what it raises is raised here.
    """
    if n_threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        begun = collections.deque()
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > n_threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
