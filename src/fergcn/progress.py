"""How long work tells what it is at; the command line draws it, and nobody needs to listen."""

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Told what is being done, how much of it is done, and how much there is, where that is known."""

Count = Callable[[int, int], None]
"""Told how much of the one thing that is done is ready, and how much there is."""


def silent(*_: object) -> None:
    """Tell nobody."""
