"""Scores of networks, as the commands print them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from fergcn.commands.progress import stdout
from fergcn.metrics import Scores

if TYPE_CHECKING:
    from fergcn.evaluation import Evaluation


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
