"""The prepare command: a dataset's raw clips in, a store of aligned faces out."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from fergcn.commands.progress import progress_bars, stdout
from fergcn.prepare import PrepareConfig, PrepareReport, prepare_clips

Settings = Annotated[PrepareConfig, Parameter(name="*")]
_SETTINGS = PrepareConfig()

NAMED = 10
"""Clips without a face that are named; of more, only the number is told."""


def prepare(
    dataset: str,
    root: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    workers: int = 0,
    settings: Settings = _SETTINGS,
) -> int:
    """Cut aligned faces out of a dataset, once for all.

    Finds the main face of each clip, aligns it and stores it. Name the store as ROOT in the other
    commands, which are then much faster. A run that was stopped goes on when the same command is
    given again.

    Args:
        dataset: name of a dataset, see fergcn datasets.
        root: its folder.
        output: folder of the store.
        workers: processes; 0 takes one for each core.
    """
    from fergcn.datasets import list_dataset

    clips = list_dataset(dataset, root).clips
    with progress_bars() as progress:
        report = prepare_clips(
            clips,
            output,
            settings,
            dataset,
            workers or None,
            lambda done, total: progress("clips", done, total),
        )
    _print_report(report)
    stdout.print(f"store: {output}", soft_wrap=True, highlight=False)
    return int(bool(report.failed or report.unreadable_pictures))


def _print_report(report: PrepareReport) -> None:
    table = Table("clips", "faces", "frames without face", "clips without face", "unreadable")
    unreadable = len(report.failed) + len(report.unreadable_pictures)
    counts = (report.num_clips, report.num_faces, report.frames_without_face)
    table.add_row(*map(str, (*counts, len(report.without_face), unreadable)))
    stdout.print(table)
    if report.without_face:
        names = ", ".join(_first(report.without_face))
        stdout.print(f"no face found in {names}", soft_wrap=True, highlight=False)
    for reason in report.failed:
        print(f"fergcn: {reason}", file=sys.stderr)
    for picture in report.unreadable_pictures:
        print(
            f"fergcn: {picture}: found a file that can't be decoded, expected a picture: "
            "its frame was left out",
            file=sys.stderr,
        )


def _first(names: Sequence[str]) -> list[str]:
    rest = len(names) - NAMED
    return [*names[:NAMED], *([f"and {rest} more"] if rest > 0 else [])]
