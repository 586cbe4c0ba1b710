"""What a checkpoint is worth on a dataset: scores, how sure they are, and every single answer."""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fergcn.cache import cache_dir
from fergcn.checkpoint import Checkpoint
from fergcn.clips import Clip, encode_targets
from fergcn.datasets import find_dataset, list_dataset, load_dataset
from fergcn.explain import (
    compare_between_clips,
    frame_scores,
    summarize_claims,
    weight_claims,
)
from fergcn.exported import ExportedNetwork
from fergcn.expressions import SURE_FROM, FergcnError
from fergcn.features import clip_fingerprint
from fergcn.metrics import (
    NO_ANSWER,
    Scores,
    bootstrap_interval,
    expected_calibration_error,
    mean_interval,
    risk_coverage,
    score,
)
from fergcn.model import FERGCN
from fergcn.prediction import predict_probs
from fergcn.prepare import (
    FACE_VERSION,
    PrepareConfig,
    prepare_clips,
    prepared_dataset,
    read_failures,
    read_prepared,
)
from fergcn.progress import Progress, silent

STATISTICS: tuple[Literal["accuracy", "uar", "macro_f1"], ...] = ("accuracy", "uar", "macro_f1")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of answers to clips."""

    expressions: tuple[str, ...]
    """Those that it could choose from."""
    scores: Scores
    predictions: pd.DataFrame
    """One row for each clip: `clip_id, subject_id, target, prediction`, then one probability column
    for each expression; prediction and probabilities are missing where no face was found."""
    summary: dict[str, Any]
    """All scores with 95 % intervals over subjects, counts, the calibration, what answers are worth
    by how sure they are (`selective`), how frames follow the true intensity where it is known
    (`intensity_claims`), and scores by group (`by`); JSON values."""


def load_faces(
    dataset: str,
    root: Path | None,
    num_frames: int,
    on_progress: Progress = silent,
) -> tuple[list[Clip], tuple[str, ...]]:
    """Read the aligned faces of a dataset; find them first where that was not done yet.

    Faces that are found here are kept in the user's cache for the next call.

    Args:
        dataset: a key of `fergcn.datasets.DATASETS`.
        root: the dataset's folder as it is distributed, the store that was prepared from it, or
            the folder of a rendered dataset; None for the edition in the package.
        num_frames: faces of a clip that are needed, evenly spread.
        on_progress: told about clips in which faces are looked for.

    Returns:
        The clips, and one line for each that can't be read: id and reason. Those have no faces.

    Raises:
        FergcnError: there is no such dataset, it has another layout, or the store or the cache
            can't be used.
    """
    if root is not None and prepared_dataset(root) is not None:
        return load_dataset(dataset, root), read_failures(root)
    if find_dataset(dataset).aligned:
        return load_dataset(dataset, root), ()
    clips = list_dataset(dataset, root).clips
    key = f"{dataset}-{clip_fingerprint(clips)}-{num_frames}-{FACE_VERSION}"
    store = cache_dir() / "prepared" / key
    try:
        return read_prepared(store), read_failures(store)
    except FergcnError:
        pass  # not there, not complete or damaged: all of which preparing it mends
    prepare_clips(
        clips,
        store,
        PrepareConfig(num_frames=num_frames),
        dataset,
        on_progress=lambda done, total: on_progress("faces", done, total),
    )
    return read_prepared(store), read_failures(store)


def choose_expressions(wanted: Sequence[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """Bring the expressions that a checkpoint may choose from into its order.

    Raises:
        FergcnError: it does not know one of them, or there are fewer than two.
    """
    if unknown := [name for name in wanted if name not in known]:
        raise FergcnError(
            f"found the expressions {', '.join(unknown)}, expected some of the checkpoint's "
            f"{', '.join(known)}: choose among these"
        )
    chosen = tuple(name for name in known if name in wanted)
    if len(chosen) < 2:
        raise FergcnError(
            f"found {', '.join(chosen) or 'no expression'} to choose from, expected at least two "
            f"of {', '.join(known)}: name more"
        )
    return chosen


def evaluate_clips(
    checkpoint: Checkpoint,
    clips: Sequence[Clip],
    expressions: tuple[str, ...] | None = None,
    on_progress: Progress = silent,
    by: Sequence[str] = (),
    sure_from: float = SURE_FROM,
    exported: ExportedNetwork | None = None,
) -> Evaluation:
    """Score a checkpoint.

    A clip without a face counts as an error, and not for the calibration. One that is a single
    picture is described together with its mirror image.

    Args:
        checkpoint: the network and what its outputs mean.
        clips: aligned faces.
        expressions: those of the checkpoint that it may choose from, as `choose_expressions`
            orders them: probabilities add up to 1 over these, and clips of others are left out.
            All that it knows if left out, and then clips of others are an error.
        on_progress: told about clips.
        by: attributes of the clips by whose values they are scored, too; see `attribute_groups`.
        sure_from: an answer of a lower probability counts as none for `selective`.
        exported: an export of the checkpoint; its backbone then describes the frames.

    Raises:
        FergcnError: a clip can't be read, has an expression that the checkpoint does not know, none
            is left, or no clip has one of the attributes.
    """
    left_out: Counter[str] = Counter()
    if expressions is None:
        expressions = checkpoint.expressions
    else:
        left_out.update(clip.expression for clip in clips if clip.expression not in expressions)
        clips = [clip for clip in clips if clip.expression in expressions]
    if not clips:
        raise FergcnError(
            f"found no clips of {', '.join(expressions)}, expected at least one: "
            "choose other expressions or another dataset"
        )
    groups = {name: attribute_groups(clips, name) for name in by}
    with_face = np.array([clip.has_frames() for clip in clips])
    probs = np.full((len(clips), len(expressions)), np.nan, dtype=np.float32)
    model = checkpoint.model
    if exported is not None:
        assert isinstance(model, FERGCN)  # others are not exported
        model = copy.deepcopy(model)
        model.add_module("backbone", _ExportedBackbone(exported))
        model.add_module("projection", nn.Identity())
    of_frames: list[dict[str, NDArray[np.float64]]] = []  # one a clip with a face

    def look(features: Tensor) -> None:
        assert isinstance(model, FERGCN)  # others have no features
        of_frames.append(frame_scores(model.head, features[None]))

    probs[with_face] = predict_probs(
        model,
        [clip for clip in clips if clip.has_frames()],
        checkpoint.resize,
        checkpoint.crop,
        on_progress,
        [checkpoint.expressions.index(name) for name in expressions],
        look,
        mirrored=True,  # as `Engine` does it
    )
    evaluation = evaluate_probs(clips, expressions, probs, groups, sure_from)
    about: dict[str, Any] = {
        "checkpoint_sha256": checkpoint.sha256,
        "left_out": dict(sorted(left_out.items())),
        "intensity_claims": {},
    }
    seen = [clip for clip in clips if clip.has_frames()]
    for name in of_frames[0] if of_frames else ():
        values = np.concatenate([scores_of_clip[name] for scores_of_clip in of_frames])
        claims = weight_claims(values, seen)
        if claims is not None:
            about["intensity_claims"][name] = summarize_claims(claims)
            if name == "intensity":  # weights add up to 1 in every clip
                about["intensity_claims"][name] |= compare_between_clips(values, seen)
    return replace(evaluation, summary=about | evaluation.summary)


class _ExportedBackbone(nn.Module):
    """Backbone and projection of an export in the place of torch's."""

    def __init__(self, exported: ExportedNetwork) -> None:
        super().__init__()
        self.exported = exported

    def forward(self, frames: Tensor) -> Tensor:
        return torch.from_numpy(self.exported.run_backbone(frames.numpy())["features"])


def evaluate_probs(
    clips: Sequence[Clip],
    expressions: tuple[str, ...],
    probs: NDArray[np.float32],
    groups: Mapping[str, Mapping[str, NDArray[np.int64]]] | None = None,
    sure_from: float = SURE_FROM,
) -> Evaluation:
    """Score answers, whoever gave them.

    Args:
        clips: all of these expressions.
        expressions: those that could be chosen from.
        probs: `(len(clips), len(expressions))`; a row is missing where there is no answer, which
            counts as an error, and not for the calibration.
        groups: rows of the clips that are scored by themselves, too, by attribute and group.
        sure_from: an answer of a lower probability counts as none for `selective`.

    Raises:
        FergcnError: a clip has another expression.
    """
    targets = encode_targets(clips, expressions)
    subjects = [clip.subject_id for clip in clips]
    answered = ~np.isnan(probs).any(axis=1)
    answers = np.full(len(clips), NO_ANSWER)
    answers[answered] = probs[answered].argmax(axis=1)
    scores = score(targets, answers, expressions)
    counts = np.bincount(targets, minlength=len(expressions)).tolist()
    right = np.diagonal(scores.confusion).tolist()
    names = np.array([*expressions, ""])  # the last one is for NO_ANSWER
    predictions = pd.DataFrame(
        {
            "clip_id": [clip.clip_id for clip in clips],
            "subject_id": subjects,
            "target": names[targets],
            "prediction": names[answers],
            **{name: probs[:, index] for index, name in enumerate(expressions)},
        }
    )
    summary: dict[str, Any] = {
        "expressions": list(expressions),
        "count": scores.count,
        "num_subjects": len(set(subjects)),
        "unanswered": scores.unanswered,
    }
    summary |= _with_intervals(scores, targets, answers, subjects)
    summary["expected_calibration_error"] = (
        expected_calibration_error(probs[answered], targets[answered]) if answered.any() else None
    )
    summary["counts"] = dict(zip(expressions, counts, strict=True))
    summary["recall"] = {
        name: hits / total if total else None
        for name, hits, total in zip(expressions, right, counts, strict=True)
    }
    summary["recall_ci"] = {
        name: _recall_interval(answers == targets, targets == index, subjects)
        for index, name in enumerate(expressions)
    }
    summary["confusion"] = scores.confusion.tolist()
    summary["selective"] = _score_sure_answers(probs, targets, subjects, sure_from)
    summary["by"] = {
        name: [
            {"group": group, **_score_rows(rows, targets, answers, subjects, expressions)}
            for group, rows in of_attribute.items()
        ]
        for name, of_attribute in (groups or {}).items()
    }
    return Evaluation(expressions, scores, predictions, summary)


def _recall_interval(
    is_right: NDArray[np.bool_], of_class: NDArray[np.bool_], subjects: Sequence[str]
) -> list[float] | None:
    """95 % interval over the people who show an expression; None for fewer than two."""
    people = [subjects[row] for row in np.flatnonzero(of_class).tolist()]
    if len(set(people)) < 2:
        return None
    return list(mean_interval(is_right[of_class].astype(np.float64), people))


def attribute_groups(clips: Sequence[Clip], name: str) -> dict[str, NDArray[np.int64]]:
    """Part clips by something that their dataset knows about them.

    Words, and numbers of at most three different values, are taken as they are. Other numbers are
    cut into thirds of like many people.

    Args:
        clips: the clips.
        name: a key of `Clip.attributes`.

    Returns:
        Rows of the clips in each group, by the group's name: the word, the number, or the lowest
        and the highest number in the third. Clips without the attribute are in no group.

    Raises:
        FergcnError: no clip has the attribute.
    """
    rows = np.array([row for row, clip in enumerate(clips) if name in clip.attributes])
    if not len(rows):
        known = sorted({key for clip in clips for key in clip.attributes})
        raise FergcnError(
            f"found --by {name}, expected "
            + (f"one of {', '.join(known)}" if known else "a dataset that knows such things")
            + ": choose another"
        )
    values = [clips[row].attributes[name] for row in rows]
    words = [value for value in values if isinstance(value, str)]
    different = sorted(set(map(str, values)) if words else {float(value) for value in values})
    if words or len(different) <= 3:
        spelled = np.array([v if isinstance(v, str) else f"{v:g}" for v in values])
        return {
            str(word): rows[spelled == word]
            for word in (different if words else [f"{value:g}" for value in different])
        }
    numbers = np.array(values, dtype=np.float64)
    # One number a person, so that one with many clips does not fill a third.
    people = pd.Series(numbers).groupby([clips[row].subject_id for row in rows]).mean()
    third = np.searchsorted(np.quantile(people, [1 / 3, 2 / 3]), numbers, side="left")
    return {
        f"{numbers[third == part].min():.2f}–{numbers[third == part].max():.2f}": rows[
            third == part
        ]
        for part in sorted(set(third.tolist()))
    }


def _score_rows(
    rows: NDArray[np.int64],
    targets: NDArray[np.int64],
    answers: NDArray[np.int64],
    subjects: Sequence[str],
    expressions: tuple[str, ...],
) -> dict[str, Any]:
    people = [subjects[row] for row in rows]
    scores = score(targets[rows], answers[rows], expressions)
    return {
        "count": scores.count,
        "num_subjects": len(set(people)),
        **_with_intervals(scores, targets[rows], answers[rows], people),
    }


def _with_intervals(
    scores: Scores,
    targets: NDArray[np.int64],
    answers: NDArray[np.int64],
    subjects: Sequence[str],
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in STATISTICS:
        values[name] = getattr(scores, name)
        values[f"{name}_ci"] = list(bootstrap_interval(targets, answers, subjects, name))
    return values


def _score_sure_answers(
    probs: NDArray[np.float32],
    targets: NDArray[np.int64],
    subjects: Sequence[str],
    sure_from: float,
) -> dict[str, Any]:
    """What answers are worth when only the surest are given.

    Shares are of all clips; one without a face is never answered.
    """
    with_face = np.flatnonzero(~np.isnan(probs[:, 0]))
    confidence = probs[with_face].max(axis=1).astype(np.float64)
    right = probs[with_face].argmax(axis=1) == targets[with_face]
    risks = risk_coverage(confidence, right)
    sure = confidence >= sure_from
    people = [subjects[row] for row in with_face[sure]]

    def accuracy_at(percent: int) -> float | None:
        count = max(1, round(len(targets) * percent / 100))
        return float(1 - risks[count - 1]) if count <= len(risks) else None

    return {
        "sure_from": sure_from,
        "answered": float(sure.sum() / len(targets)),
        "accuracy": float(right[sure].mean()) if sure.any() else None,
        "accuracy_ci": list(mean_interval(right[sure].astype(np.float64), people))
        if sure.any()
        else None,
        "accuracy_at_80": accuracy_at(80),
        "accuracy_at_90": accuracy_at(90),
        "area_under_risk_coverage": float(risks.mean()) if len(risks) else None,
    }
