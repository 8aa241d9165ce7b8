import threading
import time

import numba
import pytest

from tilestack import threads


@pytest.fixture(params=[1, 2])
def n_threads(request):
    if request.param > numba.config.NUMBA_NUM_THREADS:
        pytest.skip("one core")
    before = numba.get_num_threads()
    numba.set_num_threads(request.param)
    yield request.param
    numba.set_num_threads(before)


def test_in_order__results_are_those_of_map(n_threads):
    def slower_first(k):
        time.sleep(0.02 if k % 2 == 0 else 0)
        return k * k

    assert list(threads.in_order(slower_first, range(9))) == [k * k for k in range(9)]
    assert list(threads.in_order(slower_first, [])) == []


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

    for k in threads.in_order(work, items()):
        assert len(drawn) - k <= n_threads + 1
    assert (here in worked) == (n_threads == 1)


def test_in_order__works_at_the_same_time():
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core")
    before = numba.get_num_threads()
    numba.set_num_threads(2)
    both = threading.Barrier(2, timeout=20)
    assert sorted(threads.in_order(lambda _: both.wait(), range(2))) == [0, 1]
    numba.set_num_threads(before)


def test_in_order__raises_what_the_work_raises(n_threads):
    def work(k):
        if k == 3:
            raise ValueError("the third")
        return k

    found = []
    with pytest.raises(ValueError, match="the third"):
        for value in threads.in_order(work, range(8)):
            found.append(value)
    assert found == [0, 1, 2]
