"""Commands about datasets: what there is, and whether one on disk is complete."""

from pathlib import Path

from cyclopts import App
from rich.table import Table

from fergcn.commands.progress import progress_bars, stdout
from fergcn.datasets.check import DatasetReport

app = App(
    name="datasets",
    help="List the datasets, or check one on disk.",
    help_format="plaintext",
)

FIRST = 10
"""Problems of one dataset that are printed; more of them seldom say more."""


@app.default
def list_datasets() -> None:
    """List the datasets, or check one on disk."""
    from fergcn.datasets import DATASETS

    table = Table("name", "clips", "subjects", "expressions", "protocol")
    for name, dataset in DATASETS.items():
        numbers = (dataset.clips, dataset.subjects, len(dataset.expressions) or None)
        protocol = f"{dataset.folds} folds, {dataset.scheme}"
        if dataset.scheme == "official" and dataset.folds == 1:
            protocol = "official split"
        table.add_row(name, *(str(n) if n else "·" for n in numbers), protocol)
    stdout.print(table)
    stdout.print("What they are, and how to get them")
    for name, dataset in DATASETS.items():
        line = f"  {name}: {dataset.title}; {dataset.obtain}"
        stdout.print(line, soft_wrap=True, highlight=False)
    stdout.print("Is yours complete? fergcn datasets check NAME ROOT")


@app.command
def check(name: str, root: Path | None = None, /, *, open_files: bool = True) -> int:
    """Check whether a dataset on disk is what its protocol counts.

    Args:
        name: name of a dataset, see fergcn datasets.
        root: its folder; without one, the edition in the package.
        open_files: decode every picture and the first frame of every video, and look for clips
            with the same content.

    Returns:
        0 if the protocol can be reproduced, else 1.
    """
    from fergcn.datasets.check import check_dataset

    with progress_bars() as on_progress:
        report = check_dataset(name, root, open_files, on_progress)
    fold_sizes = _check_folds(name, report)
    _print_report(name, report, fold_sizes)
    return 1 if report.problems else 0


def _check_folds(name: str, report: DatasetReport) -> list[int]:
    """Sizes of the folds made from subjects; a problem where they differ from the published."""
    import numpy as np

    from fergcn.datasets import find_dataset
    from fergcn.expressions import FergcnError
    from fergcn.folds import subject_folds

    dataset = find_dataset(name)
    subjects = [clip.subject_id for clip in report.clips]
    if dataset.scheme != "subjects" or not subjects:
        return []
    try:
        folds = subject_folds(subjects, dataset.folds)
    except FergcnError as error:
        report.problems.append(str(error))
        return []
    sizes: list[int] = np.bincount(folds, minlength=dataset.folds).tolist()
    if dataset.fold_sizes and sizes != list(dataset.fold_sizes):
        expected = " ".join(map(str, dataset.fold_sizes))
        report.problems.append(f"folds: found {' '.join(map(str, sizes))}, expected {expected}")
    return sizes


def _print_report(name: str, report: DatasetReport, fold_sizes: list[int]) -> None:
    table = Table(name, "found", "expected")
    for count in report.counts:
        expected = "·" if count.expected is None else str(count.expected)
        table.add_row(count.what, str(count.found), expected)
    stdout.print(table)
    if fold_sizes:
        stdout.print("folds by subjects: " + " ".join(map(str, fold_sizes)), soft_wrap=True)
    for reason, paths in report.left_out.items():
        stdout.print(f"left out, {reason}: {len(paths)}, first {paths[0]}", soft_wrap=True)
    for note in report.notes:
        stdout.print(note, soft_wrap=True)
    for problem in report.problems[:FIRST]:
        stdout.print(f"problem: {problem}", soft_wrap=True, markup=False)
    if (more := len(report.problems) - FIRST) > 0:
        stdout.print(f"… and {more} problems more")
    if not report.problems:
        stdout.print(f"{name}: everything is as its protocol counts")
