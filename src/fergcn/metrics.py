"""Scores of predictions against the truth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score, recall_score


@dataclass(frozen=True)
class Scores:
    """What a set of predictions is worth."""

    count: int
    """Number of clips."""
    accuracy: float
    """Share of clips that are right (WAR)."""
    uar: float
    """Unweighted average recall over the expressions that occur."""
    macro_f1: float
    """Unweighted average F1 over the expressions that occur."""
    confusion: NDArray[np.int64]
    """`(classes, classes)` counts: row = truth, column = prediction."""


def score(
    targets: NDArray[np.int64], predictions: NDArray[np.int64], expressions: Sequence[str]
) -> Scores:
    """Score predicted class indices.

    Args:
        targets: `(n,)` true class indices.
        predictions: `(n,)` predicted class indices.
        expressions: meaning of the indices.
    """
    present = np.unique(targets)
    average = {"labels": present, "average": "macro", "zero_division": 0}
    return Scores(
        count=len(targets),
        accuracy=float((targets == predictions).mean()),
        uar=float(recall_score(targets, predictions, **average)),
        macro_f1=float(f1_score(targets, predictions, **average)),
        confusion=confusion_matrix(targets, predictions, labels=range(len(expressions))),
    )
