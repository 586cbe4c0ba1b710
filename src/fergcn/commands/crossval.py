"""Commands for the benchmark: crossval, ablate."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fergcn.ablation import GROUPS, PAPER, ablate_clips
from fergcn.clips import Clip
from fergcn.commands.flags import DEFAULT_NETWORK, DEFAULT_TRAINING, Network, Output, Training
from fergcn.commands.progress import progress_bars, stderr, stdout
from fergcn.commands.scores import print_claims, print_confusion, with_interval
from fergcn.crossval import CrossvalResult, crossvalidate
from fergcn.datasets import DATASETS, Scheme, load_dataset
from fergcn.folds import Protocol
from fergcn.training.config import TrainConfig

Seeds = Annotated[list[int] | None, Parameter(consume_multiple=True)]
Workers = Annotated[int, Parameter(name="--workers")]

RULE_NAMES = {
    "last": "last (default)",
    "validation": "inner validation",
    "best-on-test": "best on test *",
}


def crossval(
    dataset: str,
    root: Path | None = None,
    /,
    *,
    scheme: Scheme | None = None,
    folds: int | None = None,
    validation: bool = True,
    seeds: Seeds = None,
    shuffle_frames: bool = False,
    random_labels: bool = False,
    workers: Workers = 0,
    output: Output = Path("runs/crossval"),
    model: Network = DEFAULT_NETWORK,
    training: Training = DEFAULT_TRAINING,
) -> None:
    """Cross-validate a network with the subjects of training and test kept apart.

    A run that was stopped goes on when the same command is given again.

    Args:
        dataset: name of a dataset, see fergcn datasets.
        root: folder that fergcn prepare made; without one, the edition in the package.
        scheme: how clips go into folds: subjects (sorted, rank % folds), contiguous (blocks of
            subjects), official, or stratified; without one, the dataset's own.
        folds: number of folds; without one, the dataset's own.
        validation: keep a tenth of the training subjects aside and report the epoch that is best
            on them too. Without it, all of them are trained on.
        seeds: the cross-validation runs once for each; without any, --seed alone. What a
            run has of them already counts.
        workers: folds that run at the same time; 0 chooses: a fold a core if the backbone is
            frozen, otherwise a fold a GPU.
        shuffle_frames: a control: the frames of every clip, trained on or tested, in a random
            order; needs --freeze-backbone.
        random_labels: a control: training clips get each other's labels at random.
        output: folder of the run.
    """
    clips = load_dataset(dataset, root)
    protocol = choose_protocol(
        dataset, clips, scheme, folds, validation, tuple(seeds or [training.seed])
    )
    protocol = replace(protocol, shuffle_frames=shuffle_frames, random_labels=random_labels)
    with progress_bars() as report:
        result = crossvalidate(
            clips,
            output,
            model.for_clips(clips),
            training,
            protocol,
            {"dataset": dataset, "root": str(root.resolve()) if root else None},
            workers or choose_workers(training),
            report,
        )
    print_result(dataset, protocol, result)
    print_claims(result.summary["intensity_claims"])
    stdout.print(f"predictions: {output / 'predictions.csv'}", soft_wrap=True)
    stdout.print(f"a page of it: fergcn report {output}", soft_wrap=True, highlight=False)


def ablate(
    dataset: str,
    root: Path | None = None,
    /,
    *,
    groups: Annotated[
        list[Literal["table-v", "ours", "comparators", "evidence"]] | None,
        Parameter(consume_multiple=True),
    ] = None,
    reference: str = PAPER,
    scheme: Scheme | None = None,
    folds: int | None = None,
    validation: bool = True,
    seeds: Seeds = None,
    shuffle_frames: bool = False,
    random_labels: bool = False,
    workers: Workers = 0,
    output: Output = Path("runs/ablation"),
    model: Network = DEFAULT_NETWORK,
    training: Training = DEFAULT_TRAINING,
) -> None:
    """Cross-validate variants of the network and other networks on the same folds.

    Each is compared with the full FER-GCN, or another reference, over the same clips. A run that
    was stopped goes on when the same command is given again.

    Args:
        dataset: name of a dataset, see fergcn datasets.
        root: folder that fergcn prepare made; without one, the edition in the package.
        groups: table-v (the paper's Table V), ours (A, temporal layer, fusion, N), comparators,
            evidence (our network and what it has to win against); without any, all.
        reference: the variant with which the others are compared.
        scheme: how clips go into folds, as in fergcn crossval.
        folds: number of folds; without one, the dataset's own.
        validation: as in fergcn crossval.
        seeds: as in fergcn crossval.
        workers: as in fergcn crossval.
        shuffle_frames: as in fergcn crossval.
        random_labels: as in fergcn crossval.
        output: folder of the runs, one below it for each variant.
    """
    clips = load_dataset(dataset, root)
    protocol = choose_protocol(
        dataset, clips, scheme, folds, validation, tuple(seeds or [training.seed])
    )
    protocol = replace(protocol, shuffle_frames=shuffle_frames, random_labels=random_labels)
    chosen = {name: GROUPS[name] for name in groups or GROUPS}
    with progress_bars() as report:
        comparison, left_out = ablate_clips(
            clips,
            output,
            model.for_clips(clips),
            training,
            protocol,
            chosen,
            {"dataset": dataset, "root": str(root.resolve()) if root else None},
            workers or choose_workers(training),
            report,
            reference,
        )
    stdout.print(f"{dataset}: {len(clips)} clips, last epoch, paired with {reference}")
    print_controls(protocol)
    for group, variants in chosen.items():
        print_comparison(
            group, [row for row in comparison if row["variant"] in (PAPER, reference, *variants)]
        )
    for name, reason in left_out.items():
        stderr.print(f"{name} was left out: {reason}", soft_wrap=True, highlight=False)
    stdout.print(f"comparison: {output / 'ablation.json'}", soft_wrap=True)
    stdout.print(f"a page of it: fergcn report {output}", soft_wrap=True, highlight=False)


def choose_protocol(
    dataset: str,
    clips: Sequence[Clip],
    scheme: Scheme | None,
    folds: int | None,
    validation: bool,
    seeds: tuple[int, ...],
) -> Protocol:
    """Take the dataset's own protocol where the user names none."""
    own = DATASETS[dataset]
    scheme = scheme or own.scheme
    if scheme == "subjects" and all(clip.subject_id == clip.clip_id for clip in clips):
        scheme = "stratified"
    if scheme == "stratified":
        stderr.print(
            "[bold red]warning[/bold red]: nobody told who is in which clip, so the same person "
            "may be in training and test clips and the scores may be far too good: add "
            "subjects.csv (clip,subject_id)",
            soft_wrap=True,
        )
    return Protocol(scheme, folds or own.folds, validation, seeds)


def choose_workers(training: TrainConfig) -> int:
    """Folds at a time: heads on cached features are small, a whole network fills a device."""
    import torch

    if training.freeze_backbone and not torch.cuda.is_available():
        return os.cpu_count() or 1
    return max(1, torch.cuda.device_count())


def print_result(dataset: str, protocol: Protocol, result: CrossvalResult) -> None:
    """Print the three selection rules side by side, and the confusion matrix of the first."""
    summary = result.summary
    folds = len(summary["rules"]["last"]["fold_accuracies"][0])
    seeds = ", ".join(map(str, protocol.seeds))
    stdout.print(
        f"{dataset}: {summary['num_clips']} clips of {summary['num_subjects']} subjects, "
        f"{folds} folds ({protocol.scheme}), seeds {seeds}",
        highlight=False,
    )
    print_controls(protocol)
    if summary["unanswered"]:
        stdout.print(f"{summary['unanswered']} clips show no face and count as errors")
    table = Table("epoch", "folds’ mean", "accuracy", "UAR", "macro-F1")
    for rule, scores in summary["rules"].items():
        if scores is None:
            table.add_row(RULE_NAMES[rule], *["not run"] * 4)
            continue
        table.add_row(
            RULE_NAMES[rule],
            f"{scores['mean_of_folds']:.3f}",
            *(with_interval(scores, name) for name in ("accuracy", "uar", "macro_f1")),
        )
    table.caption = (
        "pooled over all test clips, with 95 % intervals over subjects\n"
        "* optimistic, for comparison with papers that do so"
    )
    stdout.print(table)
    for seed, accuracies in zip(
        protocol.seeds, summary["rules"]["last"]["fold_accuracies"], strict=True
    ):
        stdout.print(
            f"accuracy of the folds, last epoch, seed {seed}: "
            + " ".join(f"{accuracy:.3f}" for accuracy in accuracies),
            highlight=False,
        )
    print_confusion(result.scores["last"], result.expressions)


def print_controls(protocol: Protocol) -> None:
    """Say which controls were on: their scores are no results."""
    if protocol.shuffle_frames:
        stdout.print("control: the frames of every clip were shuffled")
    if protocol.random_labels:
        stdout.print("control: training clips had each other's labels at random")


def print_comparison(group: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print one group of variants, each paired with the reference over the same clips.

    In 80 columns: a terminal has no more, and no more is assumed where there is none.
    """
    caption = "difference in accuracy, 95 % interval over subjects; p by McNemar"
    table = Table("variant", "acc.", "UAR", "difference", "p", title=group, box=SIMPLE_HEAD)
    table.padding, table.collapse_padding, table.pad_edge = (0, 1), True, False
    table.columns[0].no_wrap = True
    known = any(row["intensity_claims"] for row in rows)
    if known:
        table.add_column("r")
        table.add_column("apex")
        caption += (
            "\nr of the true intensity with the weights, with u; apex: median error in frames"
        )
    table.caption = caption
    for row in rows:
        paired = ["", ""]
        if row["variant"] != row["against"]:
            low, high = row["difference_ci"]
            paired = [
                f"{row['difference']:+.3f} ({low:+.3f} to {high:+.3f})",
                "< 0.001" if row["p_mcnemar"] < 0.001 else f"{row['p_mcnemar']:.3f}",
            ]
        if known:
            claims = row["intensity_claims"].values()
            paired.append(", ".join(f"{claim['correlation']:.2f}" for claim in claims))
            paired.append(", ".join(f"{claim['apex_error']:g}" for claim in claims))
        table.add_row(row["variant"], f"{row['accuracy']:.3f}", f"{row['uar']:.3f}", *paired)
    stdout.print(table)
