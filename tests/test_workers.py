"""Threads and processes beside the caller."""

import threading
import time
from collections.abc import Iterator

import pytest

from fergcn.workers import run_ahead


def test_items_come_in_order_and_at_most_so_many_ahead() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(30):
            made.append(number)
            yield number

    taken = []
    for number in run_ahead(numbers(), 3):
        taken.append(number)
        time.sleep(0.002)
        assert len(made) <= number + 3 + 2  # waiting, the one taken, the one in hand
    assert taken == list(range(30))


def test_error_comes_after_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    taken = []
    with pytest.raises(OSError, match="gone"):
        taken.extend(run_ahead(broken(), 4))
    taken_first = run_ahead(broken(), 4)
    assert next(taken_first) == 1


def test_thread_ends_and_closes_with_the_caller() -> None:
    closed = threading.Event()

    def forever() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = threading.active_count()
    items = run_ahead(forever(), 2)
    assert next(items) == 1
    items.close()
    assert closed.is_set() and threading.active_count() == before


def test_making_and_taking_overlap() -> None:
    def slow() -> Iterator[int]:
        for number in range(10):
            time.sleep(0.03)
            yield number

    started = time.perf_counter()
    for _ in run_ahead(slow(), 2):
        time.sleep(0.03)
    assert time.perf_counter() - started < 0.5  # one after the other: 0.6
