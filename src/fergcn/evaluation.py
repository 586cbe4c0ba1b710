"""What a checkpoint is worth on a dataset: scores, how sure they are, and every single answer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fergcn.cache import cache_dir
from fergcn.checkpoint import Checkpoint
from fergcn.clips import Clip
from fergcn.datasets import find_dataset, list_dataset, load_dataset
from fergcn.expressions import FergcnError
from fergcn.features import clip_fingerprint
from fergcn.metrics import (
    NO_ANSWER,
    Scores,
    bootstrap_interval,
    expected_calibration_error,
    score,
)
from fergcn.prepare import (
    FACE_VERSION,
    PrepareConfig,
    prepare_clips,
    prepared_dataset,
    read_failures,
    read_prepared,
)
from fergcn.training import Progress, encode_targets, predict_probs

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
    """All scores with 95 % intervals over subjects, counts and the calibration; JSON values."""


def load_faces(
    dataset: str,
    root: Path | None,
    num_frames: int,
    on_progress: Progress = lambda _what, _done, _total: None,
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
    on_progress: Progress = lambda _what, _done, _total: None,
) -> Evaluation:
    """Score a checkpoint.

    A clip without a face counts as an error, and not for the calibration.

    Args:
        checkpoint: the network and what its outputs mean.
        clips: aligned faces.
        expressions: those of the checkpoint that it may choose from, as `choose_expressions`
            orders them: probabilities add up to 1 over these, and clips of others are left out.
            All that it knows if left out, and then clips of others are an error.
        on_progress: told about clips.

    Raises:
        FergcnError: a clip can't be read, has an expression that the checkpoint does not know, or
            none is left.
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
    with_face = np.array([clip.has_frames() for clip in clips])
    probs = np.full((len(clips), len(expressions)), np.nan, dtype=np.float32)
    probs[with_face] = predict_probs(
        checkpoint.model,
        [clip for clip in clips if clip.has_frames()],
        checkpoint.resize,
        checkpoint.crop,
        on_progress,
        [checkpoint.expressions.index(name) for name in expressions],
    )
    evaluation = evaluate_probs(clips, expressions, probs)
    about = {"checkpoint_sha256": checkpoint.sha256, "left_out": dict(sorted(left_out.items()))}
    return replace(evaluation, summary=about | evaluation.summary)


def evaluate_probs(
    clips: Sequence[Clip], expressions: tuple[str, ...], probs: NDArray[np.float32]
) -> Evaluation:
    """Score answers, whoever gave them.

    Args:
        clips: all of these expressions.
        expressions: those that could be chosen from.
        probs: `(len(clips), len(expressions))`; a row is missing where there is no answer, which
            counts as an error, and not for the calibration.

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
    for name in STATISTICS:
        summary[name] = getattr(scores, name)
        summary[f"{name}_ci"] = list(bootstrap_interval(targets, answers, subjects, name))
    summary["expected_calibration_error"] = (
        expected_calibration_error(probs[answered], targets[answered]) if answered.any() else None
    )
    summary["counts"] = dict(zip(expressions, counts, strict=True))
    summary["recall"] = {
        name: hits / total if total else None
        for name, hits, total in zip(expressions, right, counts, strict=True)
    }
    summary["confusion"] = scores.confusion.tolist()
    return Evaluation(expressions, scores, predictions, summary)
