"""The report command: runs in, one page and Markdown out."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fergcn.commands.progress import progress_bars, stdout


def report(
    *runs: Path,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("report"),
    heatmaps: bool = True,
) -> int:
    """Put the results of crossval and ablate on one page, beside the paper's where they compare.

    Writes index.html, which needs no other file, and report.md with its pictures.

    Args:
        runs: folders of runs or ablations, or folders that hold them at any depth.
        output: folder of the report.
        heatmaps: also look at what the networks look at; it takes the longest.
    """
    if not runs:
        print("fergcn: found no run, expected at least one: fergcn report RUN…", file=sys.stderr)
        return 2
    from fergcn.report.benchmark import write_benchmark

    with progress_bars() as progress:
        page = write_benchmark(runs, output, heatmaps, progress)
    stdout.print(f"page: {page}\nMarkdown: {output / 'report.md'}", soft_wrap=True, highlight=False)
    return 0


def card(
    checkpoint: str,
    /,
    *,
    scores: Annotated[list[Path], Parameter(consume_multiple=True, negative="")],
) -> int:
    """Write a checkpoint's scores into its model card, README.md beside its weights.

    They go between two marker lines; the rest of the card stays.

    Args:
        checkpoint: folder of a checkpoint, or the name of one in the package.
        scores: files that fergcn evaluate --json wrote, in the order of the card.
    """
    from fergcn.checkpoint import SHIPPED, load_checkpoint
    from fergcn.report.card import write_card

    readme = SHIPPED.get(checkpoint, Path(checkpoint)) / "README.md"
    write_card(load_checkpoint(checkpoint), readme, scores)
    stdout.print(f"card: {readme}", soft_wrap=True, highlight=False)
    return 0
