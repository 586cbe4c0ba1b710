from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import tiny_config
from fergcn import subject_folds
from fergcn.clips import Clip
from fergcn.crossval import crossvalidate
from fergcn.expressions import FergcnError
from fergcn.metrics import score
from test_training import FAST


@given(
    subjects=st.lists(st.integers(0, 40), min_size=20, max_size=120).filter(
        lambda ids: len(set(ids)) >= 10
    ),
    k=st.integers(2, 10),
)
def test_folds_are_disjoint_and_cover(subjects: list[int], k: int) -> None:
    folds = subject_folds(subjects, k)
    assert set(folds) == set(range(k))
    for subject in set(subjects):
        assert len({int(f) for f, s in zip(folds, subjects, strict=True) if s == subject}) == 1
    sizes = [
        len({s for f, s in zip(folds, subjects, strict=True) if f == fold}) for fold in range(k)
    ]
    assert max(sizes) - min(sizes) <= 1


def test_folds_go_by_rank() -> None:
    assert subject_folds(["S10", "S05", "S10", "S99", "S11"], k=3).tolist() == [1, 0, 1, 0, 2]


def test_too_few_subjects() -> None:
    with pytest.raises(FergcnError, match="found 3 subjects for 10 folds"):
        subject_folds(["a", "b", "c"])


def test_crossvalidation_pools_every_clip_once(coloured_clips: list[Clip], tmp_path: Path) -> None:
    config = replace(FAST, freeze_backbone=True)
    result = crossvalidate(coloured_clips, tmp_path, tiny_config(), config, folds=3)
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert table["clip_id"].tolist() == [clip.clip_id for clip in coloured_clips]
    assert table.groupby("subject_id")["fold"].nunique().max() == 1
    probs = table[list(result.expressions)].to_numpy()
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
    right = table["target"] == table["prediction"]
    assert result.pooled.accuracy == pytest.approx(right.mean())
    assert result.fold_accuracies == pytest.approx(right.groupby(table["fold"]).mean().tolist())
    assert result.pooled.confusion.sum() == len(coloured_clips)
    again = crossvalidate(coloured_clips, tmp_path, tiny_config(), config, folds=3)
    pd.testing.assert_frame_equal(again.predictions, result.predictions)


def test_frozen_and_whole_network_agree_on_the_test_folds(
    coloured_clips: list[Clip], tmp_path: Path
) -> None:
    """The features that a fold trains on are the rows of its own clips."""
    from fergcn.checkpoint import load_checkpoint
    from fergcn.training import predict_probs

    config = replace(FAST, freeze_backbone=True)
    result = crossvalidate(coloured_clips, tmp_path, tiny_config(), config, folds=3)
    for fold in range(3):
        rows = result.predictions["fold"] == fold
        clips = [clip for clip, chosen in zip(coloured_clips, rows, strict=True) if chosen]
        model = load_checkpoint(tmp_path / f"fold_{fold:02d}" / "checkpoint").model
        np.testing.assert_allclose(
            result.predictions.loc[rows, list(result.expressions)],
            predict_probs(model, clips, 40, 32),
            atol=1e-4,
        )


def test_scores_by_hand_with_a_class_that_never_occurs() -> None:
    targets, predictions = np.array([0, 0, 0, 2]), np.array([0, 0, 1, 2])
    scores = score(targets, predictions, ("anger", "fear", "neutral"))
    assert scores.accuracy == 0.75
    assert scores.uar == pytest.approx((2 / 3 + 1) / 2)
    assert scores.macro_f1 == pytest.approx((0.8 + 1) / 2)
    assert scores.confusion.tolist() == [[2, 1, 0], [0, 0, 0], [0, 0, 1]]
