"""Scores of predictions against the truth, how sure they are, and whether two of them differ.

Everywhere, a prediction of `NO_ANSWER` counts as wrong, and clips of one subject stay together when
clips are drawn again: they resemble each other, and an interval that took them for independent
would be too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

NO_ANSWER = -1
"""Predicted class of a clip in which no face was found."""

Statistic = Literal["accuracy", "uar", "macro_f1"]


@dataclass(frozen=True)
class Scores:
    """What a set of predictions is worth."""

    count: int
    """Number of clips."""
    accuracy: float
    """Share of clips that are right (WAR); clips without an answer are in the denominator."""
    uar: float
    """Unweighted average recall over the expressions that occur."""
    macro_f1: float
    """Unweighted average F1 over the expressions that occur."""
    confusion: NDArray[np.int64]
    """`(classes, classes)` counts of the clips with an answer: row = truth, column = prediction."""
    unanswered: int = 0
    """Number of clips without an answer."""


def score(
    targets: NDArray[np.int64], predictions: NDArray[np.int64], expressions: Sequence[str]
) -> Scores:
    """Score predicted class indices.

    Args:
        targets: `(n,)` true class indices.
        predictions: `(n,)` predicted class indices, or `NO_ANSWER`.
        expressions: meaning of the indices.
    """
    everything_in_one = np.zeros(len(targets), dtype=np.int64)
    counts = _confusions(targets, predictions, everything_in_one, len(expressions))[0]
    return Scores(
        count=len(targets),
        accuracy=float(_statistic(counts, "accuracy")),
        uar=float(_statistic(counts, "uar")),
        macro_f1=float(_statistic(counts, "macro_f1")),
        confusion=counts[:, :-1],
        unanswered=int(counts[:, -1].sum()),
    )


def bootstrap_interval(
    targets: NDArray[np.int64],
    predictions: NDArray[np.int64],
    subjects: Sequence[str],
    statistic: Statistic,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of a score, with subjects drawn again with replacement.

    An expression that no drawn subject shows is left out of that draw's average, as in `score`.

    Args:
        targets: `(n,)` true class indices.
        predictions: `(n,)` predicted class indices, or `NO_ANSWER`.
        subjects: the person in each clip.
        statistic: which score.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        Lower and upper bound.
    """
    subject_of_clip = _number_subjects(subjects)
    num_classes = int(max(targets.max(), predictions.max())) + 1
    counts = _confusions(targets, predictions, subject_of_clip, num_classes)  # (S, C, C + 1)
    times_drawn = _draw_subjects(len(counts), resamples, seed)
    drawn = np.tensordot(times_drawn, counts.astype(np.float64), axes=1)  # (R, C, C + 1)
    low, high = np.percentile(_statistic(drawn, statistic), [2.5, 97.5])
    return float(low), float(high)


def mean_interval(
    values: NDArray[np.float64], subjects: Sequence[str], resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a mean over clips, with subjects drawn again with replacement.

    Args:
        values: `(n,)` a number a clip.
        subjects: the person in each clip.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        Lower and upper bound.
    """
    subject_of_clip = _number_subjects(subjects)
    sums = np.bincount(subject_of_clip, weights=values)  # (S,)
    clips = np.bincount(subject_of_clip)
    times_drawn = _draw_subjects(len(clips), resamples, seed)
    drawn = (times_drawn @ sums) / (times_drawn @ clips)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def median_interval(
    values: NDArray[np.float64], subjects: Sequence[str], resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a median over clips; otherwise as `mean_interval`."""
    subject_of_clip = _number_subjects(subjects)
    times_drawn = _draw_subjects(int(subject_of_clip.max()) + 1, resamples, seed)
    order = np.argsort(values, kind="stable")
    # How many drawn clips lie at or below each value: the middle two of n are n // 2 and below.
    below = times_drawn[:, subject_of_clip[order]].cumsum(axis=1)  # (R, n)
    total = below[:, -1:]
    lower = (below >= np.ceil(total / 2)).argmax(axis=1)
    upper = (below >= total // 2 + 1).argmax(axis=1)
    ascending = values[order]
    drawn = (ascending[lower] + ascending[upper]) / 2
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def pooled_correlation(
    values: NDArray[np.float64],
    truths: NDArray[np.float64],
    subjects: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, tuple[float, float]]:
    """Pearson's r over all numbers of all clips, with its 95 % interval as in `mean_interval`.

    Args:
        values: `(n, N)`, N numbers a clip.
        truths: `(n, N)`, what they should follow; in each, at least two differ.
        subjects: the person in each clip.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        r, and its lower and upper bound.
    """
    subject_of_clip = _number_subjects(subjects)
    x, y = values - values.mean(), truths - truths.mean()
    moments = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y]).sum(axis=2)  # (6, n)
    sums = np.stack([np.bincount(subject_of_clip, weights=moment) for moment in moments], axis=1)
    times_drawn = _draw_subjects(len(sums), resamples, seed)  # (R, S)

    def r(totals: NDArray[np.float64]) -> NDArray[np.float64]:  # (…, 6)
        n, sx, sy, sxx, syy, sxy = np.moveaxis(totals, -1, 0)
        correlations: NDArray[np.float64] = n * sxy - sx * sy
        correlations /= np.sqrt((n * sxx - sx**2) * (n * syy - sy**2))
        return correlations

    low, high = np.percentile(r(times_drawn @ sums), [2.5, 97.5])
    return float(r(sums.sum(axis=0))), (float(low), float(high))


def expected_calibration_error(
    probs: NDArray[np.floating[Any]], targets: NDArray[np.int64], bins: int = 15
) -> float:
    """How far the probability of the answer is from the share of right answers (Guo et al. 2017).

    Answers go into bins by their probability, the highest of the row. The error is the mean over
    answers of |accuracy − mean probability| in their bin.

    Args:
        probs: `(n, classes)`, rows add up to 1; n is at least 1.
        targets: `(n,)` true class indices.
        bins: number of bins of equal width in (0, 1], each with its upper edge.

    Returns:
        0 (probabilities are what they say) to 1.
    """
    confidence = probs.max(axis=1).astype(np.float64)
    right = probs.argmax(axis=1) == targets
    bin_of = np.searchsorted(np.arange(1, bins) / bins, confidence)
    gaps = np.bincount(bin_of, weights=right - confidence)  # count · (accuracy − confidence)
    return float(np.abs(gaps).sum() / len(targets))


def risk_coverage(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of wrong answers among the surest k answers, for k = 1 … n.

    Args:
        confidence: `(n,)` how sure each answer is; equally sure ones come in the order given.
        right: `(n,)` whether it is right.

    Returns:
        `(n,)`; the mean is the area under the risk–coverage curve (Geifman and El-Yaniv 2017).
    """
    surest_first = np.argsort(-confidence, kind="stable")
    risks: NDArray[np.float64] = (~right[surest_first]).cumsum() / np.arange(1, len(right) + 1)
    return risks


def paired_difference(
    correct_a: NDArray[np.bool_],
    correct_b: NDArray[np.bool_],
    subjects: Sequence[str],
    seed: int = 0,
    resamples: int = 1000,
) -> tuple[float, float, float]:
    """How much more accurate a is than b on the same clips.

    Args:
        correct_a: `(n,)` whether a is right about each clip.
        correct_b: the same of b.
        subjects: the person in each clip.
        seed: of the draws.
        resamples: number of draws of subjects, with replacement.

    Returns:
        Accuracy of a minus accuracy of b, and its 95 % percentile interval.
    """
    difference = correct_a.astype(np.float64) - correct_b.astype(np.float64)
    low, high = mean_interval(difference, subjects, resamples, seed)
    return float(difference.mean()), low, high


def mcnemar(correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_]) -> float:
    """Exact McNemar test of whether two networks are right equally often on the same clips.

    It takes clips for independent; with several clips a subject, read `paired_difference` too.

    Args:
        correct_a: `(n,)` whether a is right about each clip.
        correct_b: the same of b.

    Returns:
        Two-sided p-value; 1 where they are right about the same clips.
    """
    from scipy.stats import binomtest

    only_a = int((correct_a & ~correct_b).sum())
    only_b = int((correct_b & ~correct_a).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b).pvalue)


def _number_subjects(subjects: Sequence[str]) -> NDArray[np.int64]:
    return np.unique(np.asarray(subjects), return_inverse=True)[1].astype(np.int64)


def _draw_subjects(num_subjects: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each subject is drawn: `(resamples, num_subjects)`, rows add up to their number."""
    even = np.full(num_subjects, 1 / num_subjects)
    draws = np.random.default_rng(seed).multinomial(num_subjects, even, size=resamples)
    return draws.astype(np.float64)  # whole numbers, but products of floats are much faster


def _confusions(
    targets: NDArray[np.int64],
    predictions: NDArray[np.int64],
    groups: NDArray[np.int64],
    num_classes: int,
) -> NDArray[np.int64]:
    """Count clips by group, truth and prediction, `(groups, classes, classes + 1)`.

    The last column holds those without an answer.
    """
    columns = np.where(predictions == NO_ANSWER, num_classes, predictions)
    counts = np.zeros((groups.max() + 1, num_classes, num_classes + 1), dtype=np.int64)
    np.add.at(counts, (groups, targets, columns), 1)
    return counts


def _statistic(counts: NDArray[Any], statistic: Statistic) -> NDArray[np.float64]:
    """A score of each confusion matrix: `(…, classes, classes + 1)` → `(…)`."""
    right = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)  # (…, C)
    true = counts.sum(axis=-1)
    if statistic == "accuracy":
        accuracy: NDArray[np.float64] = right.sum(axis=-1) / true.sum(axis=-1)
        return accuracy
    # Without any clip of a class, 0 / 1 instead of 0 / 0: the average leaves it out anyway.
    if statistic == "uar":
        by_class = right / np.maximum(true, 1)
    else:
        predicted = counts[..., :-1].sum(axis=-2)
        by_class = 2 * right / np.maximum(true + predicted, 1)
    present = true > 0
    average: NDArray[np.float64] = (by_class * present).sum(axis=-1) / present.sum(axis=-1)
    return average
