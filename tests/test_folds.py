"""Folds: who is trained on and who is tested."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fergcn import subject_folds
from fergcn.clips import Clip
from fergcn.expressions import FergcnError
from fergcn.folds import Protocol, assign_folds, contiguous_folds, split_clips, split_people


@given(
    numbers=st.lists(st.integers(0, 40), min_size=20, max_size=120).filter(
        lambda ids: len(set(ids)) >= 10
    ),
    k=st.integers(2, 10),
)
def test_folds_are_disjoint_and_cover(numbers: list[int], k: int) -> None:
    subjects = [f"S{number:03d}" for number in numbers]
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
    with pytest.raises(FergcnError, match="found the clips of ann alone, expected 2 subjects"):
        subject_folds(["ann", "ann"])
    with pytest.raises(FergcnError, match="found the clips of nobody alone, expected 2 subjects"):
        subject_folds([])


def test_one_training_subject_can_not_be_kept_aside() -> None:
    clips, folds = clips_of(["a", "b"]), np.array([0, 1])
    with pytest.raises(FergcnError, match="expected 2 or more to keep some of them aside"):
        split_clips(clips, folds, 0, validation=True)
    assert split_clips(clips, folds, 0, validation=False).train.tolist() == [1]


def test_contiguous_folds_are_blocks_of_like_size() -> None:
    subjects = [f"S{number:02d}" for number in (7, 3, 1, 4, 6, 2, 5, 3)]
    assert contiguous_folds(subjects, k=3).tolist() == [2, 0, 0, 1, 2, 0, 1, 0]


def clips_of(subjects: list[str], folds: list[int | None] | None = None) -> list[Clip]:
    names = ("anger", "happiness")
    return [
        Clip(f"c{i}", subject, names[i % 2], Path("none.mp4"), fold=folds[i] if folds else None)
        for i, subject in enumerate(subjects)
    ]


def test_official_folds_are_the_datasets_own() -> None:
    clips = clips_of(["a", "b", "c"], [-1, 0, -1])
    official = Protocol("official")
    assert assign_folds(clips, official).tolist() == [-1, 0, -1]
    with pytest.raises(FergcnError, match="without an official fold"):
        assign_folds(clips_of(["a", "b"], [0, None]), official)
    with pytest.raises(FergcnError, match="without an official fold"):
        assign_folds(clips_of(["a", "b"], [-1, -1]), official)


def test_stratified_folds_hold_every_expression() -> None:
    clips = clips_of([f"c{i}" for i in range(20)])
    folds = assign_folds(clips, Protocol("stratified", folds=5))
    for fold in range(5):
        tested = [clip.expression for clip, f in zip(clips, folds, strict=True) if f == fold]
        assert sorted(tested) == ["anger", "anger", "happiness", "happiness"]
    with pytest.raises(FergcnError, match="found 3 clips for 5 folds"):
        assign_folds(clips[:3], Protocol("stratified", folds=5))


@given(
    numbers=st.lists(st.integers(0, 30), min_size=12, max_size=80).filter(
        lambda ids: len(set(ids)) >= 6
    ),
    k=st.integers(2, 5),
    validation=st.booleans(),
)
def test_the_parts_of_a_fold_share_no_subject(numbers: list[int], k: int, validation: bool) -> None:
    clips = clips_of([f"S{number:02d}" for number in numbers])
    folds = assign_folds(clips, Protocol(folds=k))
    for fold in range(k):
        split = split_clips(clips, folds, fold, validation)
        parts = [set(rows.tolist()) for rows in (split.train, split.validation, split.test)]
        assert set.union(*parts) == set(range(len(clips)))
        people = [{clips[row].subject_id for row in rows} for rows in parts]
        assert not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])
        assert bool(parts[1]) == validation


def test_a_subject_on_both_sides_is_refused() -> None:
    clips = clips_of(["a", "b", "a", "c"])
    with pytest.raises(FergcnError, match="found the subject a in training and test clips"):
        split_clips(clips, np.array([0, 0, 1, 1]), 0, validation=False)


def test_clips_without_a_face_are_tested_and_not_trained_on(tmp_path: Path) -> None:
    empty = tmp_path / "empty.npy"
    np.save(empty, np.empty((0, 8, 8, 3), np.uint8))
    whole = clips_of([f"S{number:02d}" for number in (3, 1, 2, 0, 4, 1)])
    faceless = [replace(clip, path=empty) for clip in clips_of(["S00", "S01"])]
    trained, tested = split_people(whole + faceless, 2)
    assert [clip.subject_id for clip in trained] == ["S03", "S01", "S01"]
    assert tested == [whole[2], whole[3], whole[4], faceless[0]]
    for folds in (1, 6):
        with pytest.raises(FergcnError, match=f"found --hold-out {folds}, expected 2 to 5"):
            split_people(whole, folds)
