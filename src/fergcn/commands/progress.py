"""Progress bars on stderr; none where stderr is not a terminal."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress as bars
from rich.console import Console

from fergcn.progress import Progress

stderr = Console(stderr=True)
stdout = Console(quiet=os.environ.get("LOCAL_RANK", "0") != "0")
"""Of several processes that train together, the first one speaks."""


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Show a bar for everything that is reported.

    Yields:
        `report(what, done, total)`; a bar goes when its work is done.
    """
    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(
        *columns, console=stderr, transient=True, disable=not stderr.is_terminal
    ) as progress:
        tasks: dict[str, bars.TaskID] = {}

        def report(what: str, done: int, total: int | None) -> None:
            if done == total:
                if what in tasks:
                    progress.remove_task(tasks.pop(what))
                return
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield report
