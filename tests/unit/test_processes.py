import errno
import functools
import json
import os
import pickle
import signal

import numpy as np
import pytest

from tilestack import job, processes, records


@pytest.mark.parametrize("n_processes", [1, 2, 3, 20])
def test_in_order__results_are_those_of_map(n_processes):
    def squares(k):
        return {"of": k, "pixels": np.full(40_000, k * k)}  # more than a pipe holds

    found = list(processes.in_order(squares, list(range(9)), n_processes))
    assert [one["of"] for one in found] == list(range(9))
    for k, one in enumerate(found):
        np.testing.assert_array_equal(one["pixels"], np.full(40_000, k * k))
    assert list(processes.in_order(squares, [], n_processes)) == []


def test_in_order__first_is_done_by_the_caller_and_the_rest_by_others():
    first, *rest = processes.in_order(lambda _: os.getpid(), range(7), 2)
    assert first == os.getpid() and len(set(rest)) == 2 and first not in rest
    assert rest[::2] == rest[:1] * 3 and rest[1::2] == rest[1:2] * 3


@pytest.mark.parametrize("n_processes", [1, 2, 3])
def test_in_order__raises_what_the_work_raises(n_processes):
    def work(k):
        if k == 4:
            raise job.Stop("light_gone", f"number {k}", status="error")
        return k

    found = []
    with pytest.raises(job.Stop, match="light_gone: number 4") as caught:
        for value in processes.in_order(work, range(9), n_processes):
            found.append(value)
    assert found == [0, 1, 2, 3]
    assert (caught.value.reason, caught.value.message, caught.value.status) == ("light_gone", "number 4", "error")
    assert n_processes == 1 or "in work" in caught.value.__notes__[0]


def test_in_order__says_that_a_process_was_killed():
    def work(k):
        if k == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return k

    with pytest.raises(ChildProcessError, match=r"process \d+ was killed by signal 9, as where memory is short"):
        list(processes.in_order(work, range(9), 2))


def test_in_order__says_that_a_result_was_cut_short(monkeypatch):
    monkeypatch.setattr(
        processes, "_made", lambda work, k: pickle.dumps((None, None, bytes(99)))[: 50 if k == 3 else None]
    )
    with pytest.raises(ChildProcessError, match=r"process \d+ ended with status 0, before its work was done"):
        list(processes.in_order(lambda k: k, range(5), 2))


class Unsent(Exception):
    def __init__(self):
        super().__init__("holds a function")
        self.function = lambda: None


def raising(error):
    raise error


@pytest.mark.parametrize(
    ("work", "of_type", "words"),
    [
        (lambda: b"\xff".decode(), UnicodeDecodeError, "invalid start byte"),
        (lambda: json.loads("{"), json.JSONDecodeError, "^Expecting property name"),
        (lambda: raising(MemoryError("Unable to allocate 3 GiB")), MemoryError, "3 GiB"),
        (lambda: raising(records.DamagedFile("a.fits", "cut")), records.DamagedFile, r"^a.fits is damaged \(cut\)"),
        (lambda: raising(Unsent()), RuntimeError, "Unsent: holds a function"),
        (lambda: lambda: None, (AttributeError, pickle.PicklingError), "pickle"),
    ],
)
def test_in_order__keeps_type_and_words_of_errors(work, of_type, words):
    with pytest.raises(of_type, match=words):
        list(processes.in_order(lambda k: work() if k else None, range(3), 2))


def test_in_order__leaves_no_process_behind_when_it_is_left():
    results = processes.in_order(lambda _: (os.getpid(), np.zeros(100_000)), range(40), 3)
    children = [next(results)[0] for _ in range(4)][1:]
    results.close()
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def test_in_order__keeps_what_an_error_of_the_system_says(tmp_path):
    def work(k):
        if k == 2:
            open(tmp_path / "none")
        return k

    with pytest.raises(FileNotFoundError) as caught:
        list(processes.in_order(work, range(5), 2))
    assert caught.value.errno == errno.ENOENT and caught.value.filename == str(tmp_path / "none")


def test_all_done__calls_each_once(tmp_path):
    tasks = [functools.partial((tmp_path / name).write_text, name) for name in "abcde"]
    for n_processes in (1, 2):
        processes.all_done(tasks, n_processes)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict(zip("abcde", "abcde", strict=True))
        for path in tmp_path.iterdir():
            path.unlink()
