import threading
import time

import pytest

from tilestack import threads


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_in_order__results_are_those_of_map(n_threads):
    def slower_first(k):
        time.sleep(0.02 if k % 2 == 0 else 0)
        return k * k

    assert list(threads.in_order(slower_first, range(9), n_threads)) == [k * k for k in range(9)]
    assert list(threads.in_order(slower_first, [], n_threads)) == []


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_in_order__draws_items_itself_and_few_ahead(n_threads):
    here, drawn, worked = threading.get_ident(), [], set()

    def items():
        for k in range(10):
            assert threading.get_ident() == here
            drawn.append(k)
            yield k

    def work(k):
        worked.add(threading.get_ident())
        return k

    for k in threads.in_order(work, items(), n_threads):
        assert len(drawn) - k <= n_threads + 1
    assert (here in worked) == (n_threads == 1)


def test_in_order__works_at_the_same_time():
    both = threading.Barrier(2, timeout=20)
    assert sorted(threads.in_order(lambda _: both.wait(), range(2), 2)) == [0, 1]


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_in_order__raises_what_the_work_raises(n_threads):
    def work(k):
        if k == 3:
            raise ValueError("the third")
        return k

    found = []
    with pytest.raises(ValueError, match="the third"):
        for value in threads.in_order(work, range(8), n_threads):
            found.append(value)
    assert found == [0, 1, 2]
