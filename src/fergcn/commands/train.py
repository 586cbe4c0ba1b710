"""Commands for one network: train, evaluate."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from fergcn.clips import Clip
from fergcn.commands.progress import progress_bars, stdout
from fergcn.expressions import FergcnError
from fergcn.files import write_json, write_text
from fergcn.metrics import Scores
from fergcn.model import ModelConfig
from fergcn.training import TrainConfig

if TYPE_CHECKING:
    from fergcn.evaluation import Evaluation


@dataclass(frozen=True)
class NetworkOptions(ModelConfig):
    """The network's flags: everything but the classes, which the dataset decides."""

    num_classes: Annotated[int, Parameter(parse=False)] = 8
    neutral: Annotated[int | None, Parameter(parse=False)] = None

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
    from fergcn.training import train_model

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


def evaluate(
    dataset: str,
    root: Path | None = None,
    /,
    *,
    checkpoint: str = "default",
    expressions: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    hold_out: int | None = None,
    by: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    peers: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
) -> int:
    """Score a checkpoint on a dataset.

    Of a dataset as it is distributed, faces are found first and kept in the cache.

    Args:
        dataset: name of a dataset, see fergcn datasets.
        root: its folder, or the store that fergcn prepare made; without one, the edition in the
            package.
        checkpoint: folder of a checkpoint, or the name of one in the package.
        expressions: choose among these only, as a,b,c; clips of others are left out. Without
            any, among all that the checkpoint knows.
        hold_out: score the people only whom fergcn train left out with the same number.
        by: also score groups of clips by what the dataset knows of them, such as skin_tone age
            gender; numbers are cut into thirds of like many people.
        json_file: also write the scores there, and beside it every answer as a table (.csv).
        peers: score other tools beside it, on the same faces: fer, face-api. What they need is
            installed into an environment of their own in the cache, once.
    """
    from fergcn.checkpoint import load_checkpoint
    from fergcn.commands.peers import find_peers, print_peers, score_peers
    from fergcn.evaluation import choose_expressions, evaluate_clips, load_faces

    table_file = _check_outputs(json_file)
    peer_names = find_peers(peers or [])
    loaded = load_checkpoint(checkpoint)
    chosen = None
    if expressions is not None:
        names = [name.strip() for value in expressions for name in value.split(",")]
        chosen = choose_expressions([name for name in names if name], loaded.expressions)
    with progress_bars() as report:
        clips, failures = load_faces(dataset, root, loaded.model.config.num_frames, report)
        if hold_out is not None:
            clips = split_people(clips, hold_out)[1]
        evaluation = evaluate_clips(loaded, clips, chosen, report, by or [])
        num_frames = loaded.model.config.num_frames
        beside, failed = score_peers(peer_names, clips, evaluation.expressions, num_frames, report)
    for reason in (*failures, *failed.values()):
        print(f"fergcn: {reason}", file=sys.stderr)
    stdout.print(f"{checkpoint} on {dataset}", soft_wrap=True, highlight=False)
    print_evaluation(evaluation)
    if beside:
        print_peers({checkpoint: evaluation} | beside)
    if json_file is not None and table_file is not None:
        about: dict[str, Any] = {
            "dataset": dataset,
            "checkpoint": checkpoint,
            "hold_out": hold_out,
            "unreadable": list(failures),
        }
        if peers:
            scores = {name: peer.summary for name, peer in beside.items()}
            about["peers"] = scores | {name: {"failed": reason} for name, reason in failed.items()}
        tables = {table_file: evaluation} | {
            table_file.with_suffix(f".{name}.csv"): peer for name, peer in beside.items()
        }
        try:
            write_json(json_file, about | evaluation.summary)
            for file, answers in tables.items():
                write_text(file, answers.predictions.to_csv(index=False))
        except OSError as error:
            raise FergcnError(
                f"{json_file}: found it can't be written ({error.strerror}), expected a folder "
                "with room: choose another with --json"
            ) from None
        where = ", ".join(map(str, tables))
        stdout.print(f"scores: {json_file}\nanswers: {where}", soft_wrap=True)
    return int(bool(failures or failed))


def calibrate(
    checkpoint: str,
    dataset: str,
    root: Path | None = None,
    /,
    *,
    output: Output,
    hold_out: int | None = None,
    other_people: bool = False,
) -> int:
    """Make a checkpoint's probabilities say what they mean.

    One temperature is fitted on people that the checkpoint was not trained on, and folded into its
    classifier: answers stay the same, and nothing is slower.

    Args:
        checkpoint: folder of a checkpoint, or the name of one in the package.
        dataset: name of a dataset, see fergcn datasets.
        root: its folder, as in fergcn evaluate.
        output: folder of the new checkpoint.
        hold_out: take the people only whom fergcn train left out with the same number.
        other_people: the checkpoint was trained on nobody of the dataset, though it can't be seen.
    """
    from fergcn.calibration import calibrate_checkpoint
    from fergcn.checkpoint import load_checkpoint
    from fergcn.evaluation import load_faces

    loaded = load_checkpoint(checkpoint)
    with progress_bars() as report:
        clips, failures = load_faces(dataset, root, loaded.model.config.num_frames, report)
        if hold_out is not None:
            clips = split_people(clips, hold_out)[1]
        about = calibrate_checkpoint(loaded, clips, output, dataset, hold_out, other_people, report)
    for reason in failures:
        print(f"fergcn: {reason}", file=sys.stderr)
    before, after = (about[when]["expected_calibration_error"] for when in ("before", "after"))
    stdout.print(
        f"temperature {about['temperature']:.3f}, fitted on {about['count']} clips of "
        f"{about['num_subjects']} people\nexpected calibration error: {before:.3f} before, "
        f"{after:.3f} after (each clip with a temperature of other people)\n"
        f"checkpoint: {output}",
        soft_wrap=True,
        highlight=False,
    )
    return int(bool(failures))


def split_people(clips: list[Clip], folds: int) -> tuple[list[Clip], list[Clip]]:
    """Part clips by person: those to train on, and the first of so many folds.

    Clips without a face stay in the second part, where they count as errors.

    Raises:
        FergcnError: there are fewer people than folds, or fewer than two folds.
    """
    from fergcn.crossval import subject_folds

    people = len({clip.subject_id for clip in clips})
    if not 2 <= folds <= people:
        raise FergcnError(
            f"found --hold-out {folds}, expected 2 to {people}, which is the number of people: "
            "choose another number"
        )
    held_out = subject_folds([clip.subject_id for clip in clips], folds) == 0
    kept = [
        clip for clip, out in zip(clips, held_out, strict=True) if not out and clip.has_frames()
    ]
    return kept, [clip for clip, out in zip(clips, held_out, strict=True) if out]


def _check_outputs(json_file: Path | None) -> Path | None:
    """Where the table beside the scores goes; known to fit before the work begins."""
    if json_file is None:
        return None
    if json_file.is_dir() or json_file.suffix == ".csv":
        raise FergcnError(
            f"{json_file}: found a folder or the ending of the table beside the scores, expected "
            "a file such as scores.json: choose another with --json"
        )
    return json_file.with_suffix(".csv")


def print_evaluation(evaluation: "Evaluation") -> None:
    """Print scores with their intervals, recall of each expression and the confusion matrix."""
    summary = evaluation.summary
    stdout.print(
        f"{summary['count']} clips of {summary['num_subjects']} people, "
        f"{summary['unanswered']} without a face, which count as errors",
        highlight=False,
    )
    if left_out := summary["left_out"]:
        which = ", ".join(f"{name} {count}" for name, count in left_out.items())
        stdout.print(
            f"{sum(left_out.values())} clips of other expressions left out: {which}",
            soft_wrap=True,
            highlight=False,
        )
    table = Table("accuracy", "UAR", "macro-F1", caption="with 95 % intervals over subjects")
    table.add_row(*(with_interval(summary, name) for name in ("accuracy", "uar", "macro_f1")))
    stdout.print(table)
    if (error := summary["expected_calibration_error"]) is not None:
        stdout.print(f"expected calibration error of the answers: {error:.3f}", highlight=False)
    print_sure_answers(summary["selective"])
    by_expression = Table("expression", "clips", "recall")
    for name in evaluation.expressions:
        recall, interval = summary["recall"][name], summary["recall_ci"][name]
        shown = "·" if recall is None else f"{recall:.3f}"
        if interval is not None:
            shown += " ({:.3f}–{:.3f})".format(*interval)
        by_expression.add_row(name, str(summary["counts"][name]), shown)
    stdout.print(by_expression)
    print_confusion(evaluation.scores, evaluation.expressions)
    print_claims(summary["intensity_claims"])
    for name, groups in summary["by"].items():
        by_group = Table(name, "clips", "people", "accuracy", "UAR")
        for group in groups:
            by_group.add_row(
                group["group"],
                str(group["count"]),
                str(group["num_subjects"]),
                with_interval(group, "accuracy"),
                with_interval(group, "uar"),
            )
        stdout.print(by_group)


def print_sure_answers(selective: Mapping[str, Any]) -> None:
    """Print what is gained where the network may say that it is not sure."""
    if selective["accuracy"] is None:
        return
    line = (
        f"sure (probability from {selective['sure_from']:g}): {selective['answered']:.1%} of the "
        f"clips, of these right {with_interval(selective, 'accuracy')}"
    )
    for percent in (80, 90):
        if (accuracy := selective[f"accuracy_at_{percent}"]) is not None:
            line += f"; of the surest {percent} % {accuracy:.3f}"
    stdout.print(line, soft_wrap=True, highlight=False)


CLAIM_NAMES = {"weights": "fusion weights", "intensity": "intensity u of frames"}


def print_claims(claims: Mapping[str, Any]) -> None:
    """Print how well a network follows the true intensity within a clip, where that is known."""
    if not claims:
        return
    table = Table("against the true intensity", "clips", "r within a clip", "apex error")
    for name, claim in claims.items():
        table.add_row(
            CLAIM_NAMES[name],
            str(claim["clips"]),
            with_interval(claim, "correlation"),
            with_interval(claim, "apex_error", ".1f"),
        )
    middle = next(iter(claims.values()))["apex_error_of_middle"]
    table.caption = (
        "mean r and median error in sampled frames, with 95 % intervals over subjects;\n"
        f"naming the middle frame always: {middle:.1f}"
    )
    stdout.print(table)
    pooled = claims.get("intensity", {})
    if "pooled_correlation" in pooled:
        stdout.print(
            f"r of the intensity over all frames of {pooled['pooled_clips']} clips, neutral ones "
            f"too: {with_interval(pooled, 'pooled_correlation')}",
            highlight=False,
        )


def with_interval(scores: Mapping[str, Any], name: str, form: str = ".3f") -> str:
    """Format a score and its interval."""
    low, high = scores[f"{name}_ci"]
    to = " to " if low < 0 else "–"
    return f"{scores[name]:{form}} ({low:{form}}{to}{high:{form}})"


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
