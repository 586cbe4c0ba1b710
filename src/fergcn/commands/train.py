"""The train command: one network, on a whole dataset."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fergcn.commands.flags import DEFAULT_NETWORK, DEFAULT_TRAINING, Network, Output, Training
from fergcn.commands.progress import progress_bars, stdout


def train(
    dataset: str,
    root: Path | None = None,
    /,
    *,
    output: Output = Path("runs/train"),
    also: Annotated[list[str] | None, Parameter(negative="")] = None,
    hold_out: int | None = None,
    model: Network = DEFAULT_NETWORK,
    training: Training = DEFAULT_TRAINING,
) -> None:
    """Train a network on a whole dataset.

    A run that was stopped goes on when the same command is given again.

    Args:
        dataset: name of a dataset, see fergcn datasets.
        root: its folder; without one, the edition in the package.
        output: folder of the run.
        also: train on another dataset, too, NAME=FOLDER, or NAME for one in the package; may be
            given several times.
        hold_out: leave out the first of this many folds of the dataset's people, for fergcn
            evaluate with the same number.
    """
    from fergcn.datasets import load_dataset
    from fergcn.folds import split_people
    from fergcn.training.loop import train_model

    datasets = [load_dataset(dataset, root)]
    if hold_out is not None:
        datasets[0] = split_people(datasets[0], hold_out)[0]
    for other in also or []:
        name, _, folder = other.partition("=")
        more = load_dataset(name, Path(folder) if folder else None)
        datasets.append([clip for clip in more if clip.has_frames()])
    clips = [clip for part in datasets for clip in part]
    with progress_bars() as report:
        checkpoint = train_model(
            clips,
            output,
            model.for_clips(clips),
            training,
            metadata={"dataset": dataset, "also": also or [], "hold_out": hold_out},
            on_progress=report,
            sources=[index for index, part in enumerate(datasets) for _ in part],
        )
    stdout.print(f"checkpoint: {checkpoint}\nlog: {output / 'log.csv'}", soft_wrap=True)
