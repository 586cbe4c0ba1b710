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
