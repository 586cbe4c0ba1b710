import time
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from fergcn.metrics import (
    NO_ANSWER,
    bootstrap_interval,
    mcnemar,
    median_interval,
    paired_difference,
    pooled_correlation,
    score,
)

EXPRESSIONS = ("anger", "fear", "happiness", "neutral")


def average(function: Callable[..., float], truth: np.ndarray, answer: np.ndarray) -> float:
    labels = np.unique(truth)
    return float(function(truth, answer, labels=labels, average="macro", zero_division=0))


REFERENCE: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy_score,
    "uar": lambda truth, answer: average(recall_score, truth, answer),
    "macro_f1": lambda truth, answer: average(f1_score, truth, answer),
}

answers = st.lists(
    st.tuples(st.integers(0, 3), st.integers(NO_ANSWER, 3)), min_size=1, max_size=40
).map(lambda pairs: np.array(pairs, dtype=np.int64).T)


def example(seed: int, num_clips: int = 60, num_subjects: int = 9):
    """Truth, answers that are often right, and subjects with different numbers of clips."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, num_clips)
    answer = np.where(rng.random(num_clips) < 0.6, truth, rng.integers(NO_ANSWER, 4, num_clips))
    subjects = [f"S{n}" for n in (num_subjects * rng.random(num_clips) ** 2).astype(int)]
    return truth, answer, subjects


@given(answers)
def test_scores_are_scikit_learns(pairs: np.ndarray) -> None:
    truth, answer = pairs
    scores = score(truth, answer, EXPRESSIONS)
    for name, reference in REFERENCE.items():
        assert getattr(scores, name) == pytest.approx(reference(truth, answer), abs=1e-12), name
    np.testing.assert_array_equal(
        scores.confusion, confusion_matrix(truth, answer, labels=range(4))
    )
    assert scores.unanswered == (answer == NO_ANSWER).sum()
    assert scores.confusion.sum() + scores.unanswered == scores.count == len(truth)


def test_no_answer_counts_as_wrong() -> None:
    scores = score(np.array([0, 0, 2, 2]), np.array([0, -1, 2, -1]), EXPRESSIONS)
    assert (scores.accuracy, scores.uar, scores.unanswered) == (0.5, 0.5, 2)
    assert scores.macro_f1 == pytest.approx(2 / 3)  # precision 1, recall 1/2, twice
    nothing = score(np.array([1, 3]), np.array([-1, -1]), EXPRESSIONS)
    assert (nothing.accuracy, nothing.uar, nothing.macro_f1) == (0, 0, 0)


def subject_draws(subjects: list[str], resamples: int, seed: int) -> list[list[int]]:
    """The clips of each draw, one clip as often as its subject was drawn."""
    names = sorted(set(subjects))
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        times = rng.multinomial(len(names), [1 / len(names)] * len(names))
        draws.append(
            [
                clip
                for name, how_often in zip(names, times, strict=True)
                for _ in range(how_often)
                for clip, subject in enumerate(subjects)
                if subject == name
            ]
        )
    return draws


@pytest.mark.parametrize("statistic", list(REFERENCE))
@pytest.mark.parametrize("seed", [0, 1])
def test_the_interval_is_that_of_a_loop_over_draws(statistic: str, seed: int) -> None:
    truth, answer, subjects = example(seed)
    values = [
        REFERENCE[statistic](truth[clips], answer[clips])
        for clips in subject_draws(subjects, 150, seed)
    ]
    expected = np.percentile(values, [2.5, 97.5])
    interval = bootstrap_interval(truth, answer, subjects, statistic, resamples=150, seed=seed)
    np.testing.assert_allclose(interval, expected, atol=1e-12)


def test_the_difference_is_that_of_a_loop_over_draws() -> None:
    truth, answer_a, subjects = example(2)
    a, b = answer_a == truth, example(3)[1] == truth
    values = [a[clips].mean() - b[clips].mean() for clips in subject_draws(subjects, 150, 5)]
    difference, low, high = paired_difference(a, b, subjects, seed=5, resamples=150)
    assert difference == pytest.approx(a.mean() - b.mean())
    np.testing.assert_allclose((low, high), np.percentile(values, [2.5, 97.5]), atol=1e-12)


@settings(max_examples=50)
@given(seed=st.integers(0, 2**31), num_subjects=st.integers(1, 12))
def test_intervals_hold_what_they_are_about(seed: int, num_subjects: int) -> None:
    truth, answer, subjects = example(seed, num_subjects=num_subjects)
    for statistic in REFERENCE:
        low, high = bootstrap_interval(truth, answer, subjects, statistic, 200, seed)
        assert 0 <= low <= high <= 1
        assert bootstrap_interval(  # the order of the clips means nothing
            truth[::-1], answer[::-1], subjects[::-1], statistic, 200, seed
        ) == pytest.approx((low, high))
        assert bootstrap_interval(truth, truth, subjects, statistic, 200, seed) == (1, 1)
    a, b = answer == truth, example(seed + 1)[1] == truth
    difference, low, high = paired_difference(a, b, subjects, seed, 200)
    assert paired_difference(b, a, subjects, seed, 200) == pytest.approx((-difference, -high, -low))
    assert paired_difference(a, a, subjects, seed, 200) == (0, 0, 0)


def test_one_subject_tells_nothing_of_the_spread() -> None:
    truth, answer, _ = example(4)
    accuracy = score(truth, answer, EXPRESSIONS).accuracy
    assert bootstrap_interval(truth, answer, ["S1"] * len(truth), "accuracy") == pytest.approx(
        (accuracy, accuracy)
    )


def test_subjects_are_drawn_and_not_clips() -> None:
    """Ten clips a person that are right or wrong together: the interval is that of the persons."""
    rng = np.random.default_rng(6)
    right = rng.random(40) < 0.5
    truth = np.zeros(400, dtype=np.int64)
    answer = np.repeat(np.where(right, 0, 1), 10)
    people = [f"S{n // 10}" for n in range(400)]
    clips = [f"C{n}" for n in range(400)]
    low, high = bootstrap_interval(truth, answer, people, "accuracy")
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(right.var() / 40), rel=0.15)
    narrow_low, narrow_high = bootstrap_interval(truth, answer, clips, "accuracy")
    assert narrow_high - narrow_low < 0.5 * (high - low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for seed in range(300):
        by_person = rng.beta(3, 2, 40)  # 0.6 on average
        correct = rng.random((40, 5)) < by_person[:, None]
        answer = np.where(correct.flatten(), 0, NO_ANSWER)
        subjects = np.repeat(np.arange(40), 5).astype(str).tolist()
        low, high = bootstrap_interval(
            np.zeros(200, dtype=np.int64), answer, subjects, "accuracy", 300, seed
        )
        covered += low <= 0.6 <= high
    assert 0.90 <= covered / 300 <= 0.98


def right_about(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    kinds = [(True, True)] * both + [(True, False)] * only_a
    kinds += [(False, True)] * only_b + [(False, False)] * neither
    a, b = np.array(kinds).T
    return a, b


def test_mcnemar_by_hand() -> None:
    # 1 and 9 discordant clips: 2 · (1 + 10) / 2^10. As many either way: 1.
    assert mcnemar(*right_about(50, 1, 9, 20)) == pytest.approx(22 / 1024)
    assert mcnemar(*right_about(3, 4, 4, 2)) == 1
    assert mcnemar(*right_about(5, 0, 0, 5)) == 1
    assert mcnemar(*right_about(0, 6, 0, 0)) == pytest.approx(2 / 64)


def test_mcnemar_is_the_binomial_test_of_the_discordant_clips() -> None:
    for only_a, only_b in product(range(8), repeat=2):
        if only_a + only_b:
            p = mcnemar(*right_about(3, only_a, only_b, 2))
            assert p == pytest.approx(binomtest(only_a, only_a + only_b, 0.5).pvalue)
            assert p == pytest.approx(mcnemar(*right_about(0, only_b, only_a, 9)))


def test_large_datasets_take_no_time() -> None:
    truth, answer, subjects = example(8, num_clips=12_000, num_subjects=2_000)
    started = time.perf_counter()
    bootstrap_interval(truth, answer, subjects, "macro_f1")
    assert time.perf_counter() - started < 5  # a loop over draws would take minutes


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), min_size=1, max_size=25),
    st.integers(0, 50),
)
def test_median_interval_agrees_with_a_loop(clips: list[tuple[int, int]], seed: int) -> None:
    values = np.array([value for value, _ in clips], dtype=np.float64)
    people = np.array([f"p{person}" for _, person in clips])
    names = np.unique(people)
    even = np.full(len(names), 1 / len(names))
    drawn = np.random.default_rng(seed).multinomial(len(names), even, size=40)
    medians = [
        np.median(
            np.concatenate(
                [np.repeat(values[people == n], k) for n, k in zip(names, times, strict=True)]
            )
        )
        for times in drawn
    ]
    expected = np.percentile(medians, [2.5, 97.5])
    found = median_interval(values, people.tolist(), resamples=40, seed=seed)
    assert found == pytest.approx(tuple(expected))


def test_pooled_correlation_agrees_with_a_loop() -> None:
    rng = np.random.default_rng(0)
    people = [f"p{person}" for person in rng.integers(5, size=12)]
    truths = rng.random((12, 4))
    values = truths + rng.normal(size=(12, 4))
    names = sorted(set(people))
    drawn = np.random.default_rng(3).multinomial(len(names), np.full(len(names), 1 / 5), size=30)
    expected = []
    for times in drawn:
        rows = [
            row
            for name, number in zip(names, times, strict=True)
            for row in [k for k, person in enumerate(people) if person == name] * number
        ]
        expected.append(np.corrcoef(values[rows].ravel(), truths[rows].ravel())[0, 1])
    r, interval = pooled_correlation(values, truths, people, resamples=30, seed=3)
    assert r == pytest.approx(np.corrcoef(values.ravel(), truths.ravel())[0, 1])
    assert interval == pytest.approx(tuple(np.percentile(expected, [2.5, 97.5])))
