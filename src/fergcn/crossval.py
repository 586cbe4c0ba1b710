"""Subject-independent cross-validation: folds, one run for each, pooled predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fergcn.checkpoint import load_checkpoint
from fergcn.clips import Clip
from fergcn.expressions import FergcnError
from fergcn.features import dataset_features
from fergcn.metrics import Scores, score
from fergcn.model import FERGCN, ModelConfig
from fergcn.training import (
    Progress,
    TrainConfig,
    build_model,
    dataset_expressions,
    encode_targets,
    predict_feature_probs,
    predict_probs,
    train_model,
)


def subject_folds(subject_ids: Sequence[str], k: int = 10) -> NDArray[np.int64]:
    """Put every subject into one fold: subjects sorted ascending, `rank % k`.

    Args:
        subject_ids: the subject of each clip.
        k: number of folds.

    Returns:
        `(len(subject_ids),)` fold of each clip, 0 to k-1; a subject's clips share one.

    Raises:
        FergcnError: there are fewer subjects than folds.
    """
    subjects = sorted(set(subject_ids))
    if not 2 <= k <= len(subjects):
        raise FergcnError(
            f"found {len(subjects)} subjects for {k} folds, expected 2 to {len(subjects)} folds: "
            "pass another --folds"
        )
    rank = {subject: index for index, subject in enumerate(subjects)}
    return np.array([rank[subject] % k for subject in subject_ids], dtype=np.int64)


@dataclass(frozen=True)
class CrossvalResult:
    """What a cross-validation gave."""

    expressions: tuple[str, ...]
    """Classes in order."""
    predictions: pd.DataFrame
    """One row a clip: clip_id, subject_id, fold, target, prediction, a probability each class."""
    fold_accuracies: list[float]
    """Accuracy on each test fold; folds differ in size, so their mean is not the pooled one."""
    pooled: Scores
    """Scores over the predictions of all folds together."""


def crossvalidate(
    clips: Sequence[Clip],
    run_dir: Path,
    model_config: ModelConfig,
    config: TrainConfig,
    folds: int = 10,
    metadata: Mapping[str, Any] | None = None,
    on_progress: Progress = lambda _what, _done, _total: None,
) -> CrossvalResult:
    """Train and test a network once for each fold; the last epoch is what is tested.

    A fold that is complete is not run again, and one that was stopped goes on where it was.

    Args:
        clips: the dataset.
        run_dir: gets `fold_00/ …` and `predictions.csv`.
        model_config: the network.
        config: how to train.
        folds: number of folds.
        metadata: what the checkpoints should tell, as JSON values.
        on_progress: told about folds and what goes on inside them.

    Raises:
        FergcnError: there are fewer subjects than folds, a training set lacks a class, the folder
            holds another run, several devices are asked for, or a clip can't be read.
    """
    if config.devices > 1:
        raise FergcnError(
            f"found devices={config.devices}, expected 1 in a cross-validation: leave --devices out"
        )
    fold_of_clip = subject_folds([clip.subject_id for clip in clips], folds)
    expressions = dataset_expressions(clips)
    targets = encode_targets(clips, expressions)
    features = None
    if config.freeze_backbone:
        model = build_model(model_config, config).eval()
        assert isinstance(model, FERGCN)  # build_model has refused others
        features = dataset_features(
            model,
            clips,
            config.resize,
            config.crop,
            lambda done, total: on_progress("features", done, total),
        )
    probs = np.empty((len(clips), len(expressions)), dtype=np.float32)
    for fold in range(folds):
        on_progress("folds", fold, folds)
        train_rows = np.flatnonzero(fold_of_clip != fold)
        test_rows = np.flatnonzero(fold_of_clip == fold)
        train_clips = [clips[row] for row in train_rows.tolist()]
        test_clips = [clips[row] for row in test_rows.tolist()]
        _refuse_leak(train_clips, test_clips)
        checkpoint_dir = train_model(
            train_clips,
            run_dir / f"fold_{fold:02d}",
            model_config,
            config,
            None if features is None else features[:, train_rows],
            {**(metadata or {}), "fold": fold, "folds": folds},
            on_progress,
        )
        checkpoint = load_checkpoint(checkpoint_dir)
        if features is not None:
            assert isinstance(checkpoint.model, FERGCN)
            probs[test_rows] = predict_feature_probs(checkpoint.model, features[0, test_rows])
        else:
            probs[test_rows] = predict_probs(
                checkpoint.model, test_clips, checkpoint.resize, checkpoint.crop, on_progress
            )
    on_progress("folds", folds, folds)
    predicted = probs.argmax(axis=1)
    predictions = pd.DataFrame(
        {
            "clip_id": [clip.clip_id for clip in clips],
            "subject_id": [clip.subject_id for clip in clips],
            "fold": fold_of_clip,
            "target": [clip.expression for clip in clips],
            "prediction": [expressions[index] for index in predicted],
            **{name: probs[:, index] for index, name in enumerate(expressions)},
        }
    )
    predictions.to_csv(run_dir / "predictions.csv", index=False)
    correct = predicted == targets
    fold_accuracies = [float(correct[fold_of_clip == fold].mean()) for fold in range(folds)]
    return CrossvalResult(
        expressions, predictions, fold_accuracies, score(targets, predicted, expressions)
    )


def _refuse_leak(train: Sequence[Clip], test: Sequence[Clip]) -> None:
    if both := {clip.subject_id for clip in train} & {clip.subject_id for clip in test}:
        raise FergcnError(
            f"found the subjects {', '.join(sorted(both)[:3])} in training and test clips, "
            "expected each on one side: the folds must be made from subjects"
        )
