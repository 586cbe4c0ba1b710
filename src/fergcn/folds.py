"""The protocol: who is trained on and who is tested, subjects never on both sides."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fergcn.clips import Clip
from fergcn.datasets import Scheme
from fergcn.expressions import FergcnError

INNER_FOLDS = 10
"""One in so many of the training subjects is kept aside for choosing an epoch."""


@dataclass(frozen=True)
class Protocol:
    """How clips are divided and what is repeated."""

    scheme: Scheme = "subjects"
    """`subjects`: sorted ascending, `rank % folds`; `contiguous`: blocks of them; `official`: as
    the dataset says; `stratified`: clips by expression, where nobody knows the subjects."""
    folds: int = 10
    """Number of folds; official ones bring their own."""
    validation: bool = True
    """Keep one in ten training subjects aside, so that the second selection rule has a ground."""
    seeds: tuple[int, ...] = (0,)
    """The whole cross-validation runs once for each."""
    shuffle_frames: bool = False
    """A control: the frames of every clip, trained on or tested, in a random order."""
    random_labels: bool = False
    """A control: training clips get each other's labels at random."""


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
    rank = _subject_ranks(subject_ids, k)
    return np.array([rank[subject] % k for subject in subject_ids], dtype=np.int64)


def contiguous_folds(subject_ids: Sequence[str], k: int = 10) -> NDArray[np.int64]:
    """Put every subject into one fold: subjects sorted ascending, k blocks of like size.

    Args:
        subject_ids: the subject of each clip.
        k: number of folds.

    Returns:
        `(len(subject_ids),)` fold of each clip, 0 to k-1.

    Raises:
        FergcnError: there are fewer subjects than folds.
    """
    rank = _subject_ranks(subject_ids, k)
    block = [
        int(fold) for fold, ranks in enumerate(np.array_split(range(len(rank)), k)) for _ in ranks
    ]
    return np.array([block[rank[subject]] for subject in subject_ids], dtype=np.int64)


def _subject_ranks(subject_ids: Sequence[str], k: int) -> dict[str, int]:
    subjects = sorted(set(subject_ids))
    if len(subjects) < 2:
        raise FergcnError(
            f"found the clips of {' '.join(subjects) or 'nobody'} alone, expected 2 subjects or "
            "more, to train on some and test on others: add clips of other people"
        )
    if not 2 <= k <= len(subjects):
        raise FergcnError(
            f"found {len(subjects)} subjects for {k} folds, expected 2 to {len(subjects)} folds: "
            "pass another --folds"
        )
    return {subject: index for index, subject in enumerate(subjects)}


def assign_folds(clips: Sequence[Clip], protocol: Protocol) -> NDArray[np.int64]:
    """Say in which fold each clip is tested.

    Returns:
        `(len(clips),)` from 0; -1 for clips that are only ever trained on.

    Raises:
        FergcnError: the clips don't allow the scheme.
    """
    subjects = [clip.subject_id for clip in clips]
    if protocol.scheme == "subjects":
        return subject_folds(subjects, protocol.folds)
    if protocol.scheme == "contiguous":
        return contiguous_folds(subjects, protocol.folds)
    if protocol.scheme == "official":
        official = [clip.fold for clip in clips if clip.fold is not None]
        if len(official) < len(clips) or max(official, default=-1) < 0:
            raise FergcnError(
                "found clips without an official fold, expected one for each: "
                "choose --scheme subjects"
            )
        return np.array(official, dtype=np.int64)
    from sklearn.model_selection import StratifiedKFold

    folds = np.empty(len(clips), dtype=np.int64)
    labels = [clip.expression for clip in clips]
    splitter = StratifiedKFold(protocol.folds, shuffle=True, random_state=0)
    try:
        for fold, (_, rows) in enumerate(splitter.split(np.zeros(len(clips)), labels)):
            folds[rows] = fold
    except ValueError:
        raise FergcnError(
            f"found {len(clips)} clips for {protocol.folds} folds, expected at least "
            f"{protocol.folds} of one expression: pass a smaller --folds"
        ) from None
    return folds


@dataclass(frozen=True)
class Split:
    """Rows of the clips in one fold's three parts."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    """Subjects of the training side on which nothing is trained; may be empty."""
    test: NDArray[np.int64]


def split_clips(
    clips: Sequence[Clip], fold_of_clip: NDArray[np.int64], fold: int, validation: bool
) -> Split:
    """Divide the clips for one fold.

    Raises:
        FergcnError: a subject is on two sides, or a part that is needed is empty.
    """
    test = np.flatnonzero(fold_of_clip == fold)
    train = np.flatnonzero(fold_of_clip != fold)
    inner = np.zeros(len(train), dtype=bool)
    if validation:
        subjects = [clips[row].subject_id for row in train.tolist()]
        if len(set(subjects)) < 2:
            raise FergcnError(
                f"found {len(set(subjects))} training subjects in fold {fold}, expected 2 or more "
                "to keep some of them aside: pass --no-validation"
            )
        inner = subject_folds(subjects, min(INNER_FOLDS, len(set(subjects)))) == 0
    split = Split(train[~inner], train[inner], test)
    parts = {"training": split.train, "validation": split.validation, "test": split.test}
    owner: dict[str, str] = {}
    for name, rows in parts.items():
        for row in rows.tolist():
            subject = clips[row].subject_id
            if owner.setdefault(subject, name) != name:
                raise FergcnError(
                    f"found the subject {subject} in {owner[subject]} and {name} clips of fold "
                    f"{fold}, expected each on one side: the folds must be made from subjects"
                )
    if not len(split.train) or not len(split.test):
        raise FergcnError(
            f"found {len(split.train)} training and {len(split.test)} test clips in fold {fold}, "
            "expected some of each: pass another --folds"
        )
    return split


def split_people(clips: list[Clip], folds: int) -> tuple[list[Clip], list[Clip]]:
    """Part clips by person: those to train on, and the first of so many folds.

    Clips without a face stay in the second part, where they count as errors.

    Raises:
        FergcnError: there are fewer people than folds, or fewer than two folds.
    """
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
