"""Commands for one network: train, evaluate."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from fergcn.clips import Clip
from fergcn.commands.progress import progress_bars, stdout
from fergcn.files import write_json
from fergcn.metrics import Scores
from fergcn.model import ModelConfig
from fergcn.training import TrainConfig


@dataclass(frozen=True)
class NetworkOptions(ModelConfig):
    """The network's flags: everything but the classes, which the dataset decides."""

    num_classes: Annotated[int, Parameter(parse=False)] = 8

    def for_clips(self, clips: list[Clip]) -> ModelConfig:
        """Complete the configuration with the number of classes that occur."""
        from fergcn.training import dataset_expressions

        return replace(self, num_classes=len(dataset_expressions(clips)))


Network = Annotated[NetworkOptions, Parameter(name="*")]
Training = Annotated[TrainConfig, Parameter(name="*")]
Output = Annotated[Path, Parameter(name=["--output", "-o"])]
DEFAULT_NETWORK, DEFAULT_TRAINING = NetworkOptions(), TrainConfig()


def train(
    dataset: str,
    root: Path | None = None,
    /,
    *,
    output: Output = Path("runs/train"),
    model: Network = DEFAULT_NETWORK,
    training: Training = DEFAULT_TRAINING,
) -> None:
    """Train a network on a whole dataset.

    A run that was stopped goes on when the same command is given again.

    Args:
        dataset: name of a dataset, see fergcn datasets.
        root: its folder; without one, the edition in the package.
        output: folder of the run.
    """
    from fergcn.datasets import load_dataset
    from fergcn.training import train_model

    clips = load_dataset(dataset, root)
    with progress_bars() as report:
        checkpoint = train_model(
            clips,
            output,
            model.for_clips(clips),
            training,
            metadata={"dataset": dataset},
            on_progress=report,
        )
    stdout.print(f"checkpoint: {checkpoint}\nlog: {output / 'log.csv'}", soft_wrap=True)


def evaluate(
    dataset: str,
    root: Path | None = None,
    /,
    *,
    checkpoint: str = "default",
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Score a checkpoint on a dataset.

    Args:
        dataset: name of a dataset, see fergcn datasets.
        root: its folder; without one, the edition in the package.
        checkpoint: folder of a checkpoint, or the name of one in the package.
        json_file: also write the scores there.
    """
    from fergcn.checkpoint import load_checkpoint
    from fergcn.datasets import load_dataset
    from fergcn.metrics import score
    from fergcn.training import encode_targets, predict_probs

    loaded = load_checkpoint(checkpoint)
    clips = load_dataset(dataset, root)
    targets = encode_targets(clips, loaded.expressions)
    with progress_bars() as report:
        probs = predict_probs(loaded.model, clips, loaded.resize, loaded.crop, report)
    scores = score(targets, probs.argmax(axis=1), loaded.expressions)
    stdout.print(f"{checkpoint} on {dataset}: {scores.count} clips")
    print_scores(scores, loaded.expressions)
    if json_file is not None:
        content = {
            "checkpoint_sha256": loaded.sha256,
            "expressions": list(loaded.expressions),
            "count": scores.count,
            "accuracy": scores.accuracy,
            "uar": scores.uar,
            "macro_f1": scores.macro_f1,
            "confusion": scores.confusion.tolist(),
        }
        write_json(json_file, content)
        stdout.print(f"scores: {json_file}", soft_wrap=True)


def print_scores(scores: Scores, expressions: tuple[str, ...]) -> None:
    """Print pooled scores and the confusion matrix."""
    summary = Table("clips", "accuracy", "UAR", "macro-F1", title="Pooled over all test clips")
    summary.add_row(
        str(scores.count), *(f"{v:.3f}" for v in (scores.accuracy, scores.uar, scores.macro_f1))
    )
    stdout.print(summary)
    print_confusion(scores, expressions)


def print_confusion(scores: Scores, expressions: tuple[str, ...]) -> None:
    """Print the confusion matrix in per cent of each row."""
    table = Table("truth \\ predicted, %", title="Confusion matrix")
    for name in expressions:
        table.add_column(name[:2].capitalize(), justify="right")
    for name, row in zip(expressions, scores.confusion, strict=True):
        total = max(int(row.sum()), 1)
        table.add_row(
            f"{name} ({row.sum()})", *(f"{100 * n / total:.0f}" if n else "·" for n in row)
        )
    stdout.print(table)
