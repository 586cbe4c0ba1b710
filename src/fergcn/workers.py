"""Processes and threads beside the caller, which stop when nobody waits for them any more."""

import os
import queue
import signal
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

import cv2

from fergcn.expressions import FergcnError
from fergcn.progress import Progress

Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_TRIES = 2
"""Times that a task is begun whose process is killed: it need not be the task's fault."""

REPORT_S = 0.2
"""How often what workers report is passed on, in seconds."""


_link: Connection | None = None
"""In a worker: the way to the process that waits for it."""


def num_cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
    on_progress: Progress | None = None,
) -> Generator[tuple[int, Result | FergcnError], None, None]:
    """Run a function over tasks in several processes, which share the cores for OpenCV.

    When the caller stops early, because of Ctrl-C, an error or a kill, the processes end at once in
    the middle of their tasks. A task whose process is killed runs again, and the others go on. So a
    task must leave nothing half done under its final name. Close the iterator
    (`contextlib.closing`) where it may not be used up.

    Args:
        function: a function of a module, or a `functools.partial` of one.
        tasks: its arguments.
        workers: number of processes; with 1, the tasks run in this one, with one OpenCV thread.
        on_progress: gets what the tasks tell by `report_progress`. With it, even a single task has
            a process of its own, so that what kills it costs that task only.

    Yields:
        Position in `tasks` and result, in the order in which the tasks are finished; an error in
        the place of the result where the task's process was killed again and again.
    """
    if on_progress is None and (workers == 1 or len(tasks) <= 1):
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            for position, task in enumerate(tasks):
                yield position, function(task)
        finally:
            cv2.setNumThreads(threads)
        return
    # spawned, not forked: a fork of a process with threads can hang
    context = get_context("spawn")
    threads = max(1, num_cores() // workers)
    # Ends of this process alone: they close when it ends, however it ends.
    links: dict[int, Connection] = {}
    pools: dict[int, ProcessPoolExecutor] = {}

    def start(worker: int) -> None:
        """A pool of one: when its process is killed, no other task is lost with it."""
        if worker in links:
            links[worker].close()
        links[worker], there = context.Pipe()
        wanted = on_progress is not None
        pools[worker] = ProcessPoolExecutor(
            1, mp_context=context, initializer=_start_worker, initargs=(there, threads, wanted)
        )

    running: dict[Future[Result], tuple[int, int]] = {}
    begun = Counter[int]()

    def begin(position: int, worker: int) -> None:
        begun[position] += 1
        with _interrupts_held_back():  # the process that is started here inherits it
            try:
                future = pools[worker].submit(function, tasks[position])
            except BrokenProcessPool:  # killed since its last task
                start(worker)
                future = pools[worker].submit(function, tasks[position])
        running[future] = position, worker

    coming = iter(range(len(tasks)))
    try:
        for worker in range(min(workers, len(tasks))):
            start(worker)
            begin(next(coming), worker)
        while running:
            patience = None if on_progress is None else REPORT_S
            done, _ = wait(running, patience, return_when=FIRST_COMPLETED)
            if on_progress is not None:
                for link in links.values():
                    _pass_on(link, on_progress)
            for future in done:
                position, worker = running.pop(future)
                outcome: Result | FergcnError
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    if begun[position] < MAX_TRIES:
                        begin(position, worker)
                        continue
                    outcome = FergcnError(
                        f"found that its process was killed {MAX_TRIES} times, expected it to end "
                        "by itself: run it again with fewer workers if memory was short, without "
                        "it if not"
                    )
                if (following := next(coming, None)) is not None:
                    begin(following, worker)
                yield position, outcome
    finally:
        for link in links.values():
            link.close()
        for pool in pools.values():
            pool.shutdown(cancel_futures=True)


def run_ahead(items: Iterable[Result], size: int) -> Generator[Result, None, None]:
    """Iterate in a thread of its own, so that what makes the items overlaps with what takes them.

    Order and items are those of `items`, and so is an error, after the items before it. When the
    caller stops early, the thread ends after the item that it is at.

    Args:
        items: is iterated in the other thread, and closed there if it can be.
        size: items that are ready before they are taken, at most.
    """
    ready: queue.Queue[tuple[Result] | BaseException | None] = queue.Queue(size)
    stopped = threading.Event()

    def put(entry: tuple[Result] | BaseException | None) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                ready.put(entry, timeout=0.1)
                return

    def work() -> None:
        try:
            for item in items:
                put((item,))
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:  # raised again in the caller's thread
            put(error)
        finally:
            if isinstance(items, Generator):
                items.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (entry := ready.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        stopped.set()
        thread.join()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let Ctrl-C wait: workers would otherwise print a traceback each while they start."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(link: Connection, threads: int, reports: bool) -> None:
    global _link
    _link = link if reports else None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    cv2.setNumThreads(threads)
    end_with(link)


def report_progress(what: str, done: int, total: int | None) -> None:
    """Tell the process that waits for the task which runs here how far it is, if one does."""
    if _link is not None:
        _link.send((what, done, total))


def _pass_on(link: Connection, on_progress: Progress) -> None:
    """Pass on what a worker has reported, if it is alive."""
    with suppress(EOFError, OSError):
        while link.poll():
            on_progress(*link.recv())


def end_with(lifeline: Connection) -> None:
    """End this process when the other end of a pipe is closed, by its parent or its death."""

    def wait_for_end() -> None:
        with suppress(EOFError, OSError):
            lifeline.recv_bytes()  # nothing is ever sent here: returns when the other end is closed
        os._exit(1)

    threading.Thread(target=wait_for_end, daemon=True).start()
