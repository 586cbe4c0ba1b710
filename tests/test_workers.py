"""Threads and processes beside the caller."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest

from fergcn.expressions import FergcnError
from fergcn.workers import MAX_TRIES, report_progress, run_ahead, run_tasks


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


# Processes


def answer(task: tuple[str, Path]) -> int:
    """Kill the process that it runs in, or not; a line in the file says that it was begun."""
    how, begun = task
    with begun.open("a") as file:
        file.write("begun\n")
    times = len(begun.read_text().splitlines())
    if how == "always killed" or (how == "killed once" and times == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return times


def test_a_killed_process_takes_nothing_else_with_it(tmp_path: Path) -> None:
    kinds = ["whole", "always killed", "whole", "killed once", "whole", "always killed", "whole"]
    tasks = [(how, tmp_path / str(position)) for position, how in enumerate(kinds)]
    with closing(run_tasks(answer, tasks, 2)) as outcomes:
        found = dict(outcomes)
    assert sorted(found) == list(range(len(tasks)))
    for position, how in enumerate(kinds):
        outcome = found[position]
        if how == "always killed":
            assert isinstance(outcome, FergcnError) and f"killed {MAX_TRIES} times" in str(outcome)
        else:
            assert outcome == {"whole": 1, "killed once": 2}[how]


def test_processes_end_with_the_caller(tmp_path: Path) -> None:
    tasks = [("whole", tmp_path / str(position)) for position in range(4)]
    outcomes = run_tasks(answer, tasks, 2)
    next(outcomes)
    assert len(active_children()) == 2
    outcomes.close()
    assert active_children() == []


def count(task: tuple[str, Path]) -> int:
    """Report three steps, then be killed or not, as `answer`; → the process's number."""
    for done in (1, 2, 3):
        report_progress(task[0], done, 3)
    answer(task)
    return os.getpid()


def many_reports(count: int) -> int:
    for done in range(count):
        report_progress("a step", done, count)
    return os.getpid()


def test_reports_that_nobody_wants_block_nothing() -> None:
    with closing(run_tasks(many_reports, [20_000, 20_000], 2)) as outcomes:
        assert os.getpid() not in dict(outcomes).values()


def test_a_single_task_with_reports_is_a_process_of_its_own() -> None:
    steps: list[int] = []
    with closing(
        run_tasks(many_reports, [3000], 1, lambda _w, done, _t: steps.append(done))
    ) as run:
        ((_, process),) = run
    assert process != os.getpid() and steps == list(range(3000))


def test_one_worker_with_reports_is_a_process_of_its_own(tmp_path: Path) -> None:
    names = ["first", "always killed", "killed once", "last"]
    steps: list[tuple[str, int, int | None]] = []

    def on_progress(*step: Any) -> None:
        steps.append(step)

    tasks = [(name, tmp_path / name) for name in names]
    with closing(run_tasks(count, tasks, 1, on_progress)) as outcomes:
        found = [outcome for _, outcome in outcomes]
    begun = ["first", *["always killed"] * MAX_TRIES, *["killed once"] * 2, "last"]
    assert steps == [(name, done, 3) for name in begun for done in (1, 2, 3)]
    assert isinstance(found[1], FergcnError)
    assert os.getpid() not in found
    report_progress("here nobody waits", 1, 1)
