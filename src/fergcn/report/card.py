"""The measured part of a model card: from the scores of `fergcn evaluate` to Markdown."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fergcn.checkpoint import CARD_FILE, Checkpoint
from fergcn.expressions import FergcnError
from fergcn.files import write_text

BEGIN = "<!-- measured: written by fergcn card, changes are lost -->"
END = "<!-- end of what was measured -->"

STATISTICS = {"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro-F1"}

CLAIMS = {"weights": "fusion weights", "intensity": "intensity of frames"}


def write_card(checkpoint: Checkpoint, readme: Path, scores: Sequence[Path]) -> None:
    """Write scores between the two marker lines of a model card; the rest stays.

    Args:
        checkpoint: the checkpoint that the card is about.
        readme: the card, `README.md` beside the checkpoint; one without prose where there is none.
        scores: files that `fergcn evaluate --json` wrote, in the order of the card.

    Raises:
        FergcnError: a file is damaged or has scores of another checkpoint, or the card has no
            markers.
    """
    measured = [_read_scores(path, checkpoint.sha256) for path in scores]
    parts = [BEGIN, *_calibration(checkpoint.metadata)]
    for content in measured:
        parts += _section(content)
    text = "\n\n".join([*parts, END])
    try:
        card = readme.read_text(encoding="utf-8")
    except FileNotFoundError:
        card = f"# Model card: `{readme.parent.name}`\n\n## Measured\n\n{BEGIN}\n{END}\n"
    before, begin, rest = card.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise FergcnError(
            f"{readme}: found no two lines {BEGIN} and {END}, expected them where the scores go: "
            "add them"
        )
    write_text(readme, before + text + after)


def _read_scores(path: Path, sha256: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["checkpoint_sha256"]
        content["selective"]["sure_from"], content["by"], content["intensity_claims"]
        content["runtime"]
        content["recall_ci"]
    except (OSError, ValueError, KeyError, TypeError):
        raise FergcnError(
            f"{path}: found it missing or damaged, expected what fergcn evaluate --json writes: "
            "evaluate again"
        ) from None
    if found != sha256:
        raise FergcnError(
            f"{path}: found scores of the weights {found[:12]}…, expected those of {sha256[:12]}…, "
            f"which {CARD_FILE} names: evaluate this checkpoint again"
        )
    return dict(content)


def _calibration(metadata: Mapping[str, Any]) -> Iterator[str]:
    if (about := metadata.get("calibration")) is None:
        return
    which = f"`{about['dataset']}`"
    if about["hold_out"] is not None:
        which += f" (first of {about['hold_out']} folds of people)"
    before, after = (about[when]["expected_calibration_error"] for when in ("before", "after"))
    yield (
        f"Temperature {about['temperature']:.3f}, fitted on {about['count']} clips of "
        f"{about['num_subjects']} people of {which} that it was not trained on: expected "
        f"calibration error {before:.3f} before, {after:.3f} after, each clip with the temperature "
        "of other people."
    )


def _section(scores: Mapping[str, Any]) -> Iterator[str]:
    expressions = scores["expressions"]
    command = f"fergcn evaluate {scores['dataset']}"
    if scores["hold_out"] is not None:
        command += f" … --hold-out {scores['hold_out']}"
    command += f" --runtime {scores['runtime']}"
    yield f"### `{scores['dataset']}`, {len(expressions)} expressions"
    yield (
        f"`{command}`, among {', '.join(expressions)}: {scores['count']} clips of "
        f"{scores['num_subjects']} people, {scores['unanswered']} without a face, which count as "
        "errors; 95 % intervals over people. "
        + ", ".join(f"{title} {_interval(scores, key)}" for key, title in STATISTICS.items())
        + f"; expected calibration error {_number(scores['expected_calibration_error'])}."
    )
    yield _table(
        ("expression", "recall", "clips"),
        [(name, _recall(scores, name), str(scores["counts"][name])) for name in expressions],
    )
    yield from _sure_answers(scores["selective"])
    if claims := scores["intensity_claims"]:
        yield "Frames against the true intensity, in clips with an expression:"
        yield _table(
            ("", "clips", "mean r within a clip", "median apex error, frames", "middle frame"),
            [
                (
                    CLAIMS[name],
                    str(claim["clips"]),
                    _interval(claim, "correlation", 2),
                    _interval(claim, "apex_error", 1),
                    _number(claim["apex_error_of_middle"], 1),
                )
                for name, claim in claims.items()
            ],
        )
    pooled = claims.get("intensity", {})
    if "pooled_correlation" in pooled:
        yield (
            f"Over the frames of all {pooled['pooled_clips']} clips together, neutral ones too, "
            f"r of the intensity is {_interval(pooled, 'pooled_correlation', 2)}: so far is it "
            "comparable between clips."
        )
    for name, groups in scores["by"].items():
        yield _table(
            (name.replace("_", " "), "clips", "people", "accuracy", "UAR"),
            [
                (
                    group["group"],
                    str(group["count"]),
                    str(group["num_subjects"]),
                    _interval(group, "accuracy"),
                    _interval(group, "uar"),
                )
                for group in groups
            ],
        )


def _sure_answers(selective: Mapping[str, Any]) -> Iterator[str]:
    if selective["accuracy"] is None:
        return
    answered, right = f"{selective['answered']:.1%}", _interval(selective, "accuracy")
    at_80, at_90 = (_number(selective[f"accuracy_at_{percent}"]) for percent in (80, 90))
    area = _number(selective["area_under_risk_coverage"])
    yield (
        f"With `not sure` for answers below {selective['sure_from']:g}: {answered} answered, of "
        f"these right {right}. Right among the surest 80 %: {at_80}, 90 %: {at_90}; area under the "
        f"risk–coverage curve {area}."
    )


def _recall(scores: Mapping[str, Any], expression: str) -> str:
    recall = _number(scores["recall"][expression], 2)
    if (interval := scores["recall_ci"][expression]) is None:  # nobody, or one person
        return recall
    low, high = (_number(end, 2) for end in interval)
    return f"{recall} ({low} to {high})"


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _interval(scores: Mapping[str, Any], name: str, digits: int = 3) -> str:
    low, high = (_number(end, digits) for end in scores[f"{name}_ci"])
    return f"{_number(scores[name], digits)} ({low} to {high})"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
