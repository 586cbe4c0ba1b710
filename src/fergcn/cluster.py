"""Tasks spread over the machines of a Ray cluster."""

import logging
import os
import socket
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2

from fergcn.expressions import FergcnError

Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_RETRIES = 3
"""Times that a task begins anew where the process or the machine that ran it died."""


def run_on_cluster(
    function: Callable[[Task], Result], tasks: Sequence[Task], address: str
) -> Generator[tuple[int, Result | FergcnError], None, None]:
    """Run a function over tasks on a Ray cluster, one task a core, each with one OpenCV thread.

    Every machine needs the same version of this program, and the same files under the same paths. A
    task may run twice, after the process that ran it died: it must leave nothing half done under
    its final name. Close the iterator (`contextlib.closing`) where it may not be used up.

    Args:
        function: a function of a module.
        tasks: its arguments; relative paths in them mean what they mean here.
        address: `HOST:PORT` of a cluster that runs, or `auto` for the one on this machine.

    Yields:
        Position in `tasks` and result, in the order in which the tasks are finished; an error in
        the place of the result where the task's process died again and again.

    Raises:
        FergcnError: Ray is not installed, there is no cluster, or its machines can't run the tasks.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # is read when Ray is imported
    try:
        import ray
        import ray._private.worker
        from ray.exceptions import RayError, RayTaskError
    except ImportError:
        raise FergcnError(
            "found no package ray, expected the extra ray: run pip install 'fergcn[ray]'"
        ) from None
    if ":" in address:
        _check_reachable(address)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        raise FergcnError(
            f"found no Ray cluster at {address} ({str(error).splitlines()[0]}), expected one of "
            "the same versions of Ray and Python: start it with ray start --head"
        ) from None
    try:
        # Ray would print of dead processes on stdout, where results belong; it has no setting.
        ray._private.worker._worker_logs_enabled = False
        run: Any = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(_run_in)
        waiting = {run.remote(Path.cwd(), function, task): at for at, task in enumerate(tasks)}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            position = waiting.pop(done)
            try:
                yield position, ray.get(done)
            except RayTaskError as error:
                raise FergcnError(
                    f"found a machine where the task fails ({error.cause}), expected the same "
                    "version of fergcn and the same files on all of them"
                ) from None
            except RayError as error:
                yield (
                    position,
                    FergcnError(
                        f"found that its process died {MAX_RETRIES + 1} times "
                        f"({type(error).__name__}), perhaps for lack of memory"
                    ),
                )
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray itself would wait for more than a minute and print its own lines."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise FergcnError(
            f"found no Ray cluster at {address} ({error}), expected HOST:PORT of one that runs: "
            "start it with ray start --head"
        ) from None


def _run_in(folder: Path, function: Callable[[Task], Result], task: Task) -> Result:
    os.chdir(folder)
    cv2.setNumThreads(1)
    return function(task)
