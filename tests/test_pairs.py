"""Clips made of two pictures of one person."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fergcn.clips import Clip
from fergcn.expressions import FergcnError
from fergcn.pairs import neutral_partners, with_onset
from fergcn.training import TrainConfig

NUM_FRAMES = 8

CLIPS = [
    Clip(f"{number}", person, expression, Path("unread"))
    for number, (person, expression) in enumerate(
        [
            ("ann", "neutral"),
            ("ann", "happiness"),
            ("bob", "happiness"),  # never seen neutral
            ("cyd", "neutral"),
            ("cyd", "neutral"),
            ("cyd", "anger"),
            ("ann", "surprise"),  # a video, whose frames differ
            ("ann", "neutral"),  # a video
        ]
    )
]
VIDEOS = [6, 7]


@pytest.fixture
def features() -> NDArray[np.float32]:
    """`(2, len(CLIPS), N, C)`: pictures have the same features in all frames."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, len(CLIPS), 1, 5)).repeat(NUM_FRAMES, axis=2)
    values[:, VIDEOS] += rng.normal(size=(2, len(VIDEOS), NUM_FRAMES, 5))
    return values.astype(np.float32)


def test_partners_are_neutral_pictures_of_the_same_person(features: NDArray[np.float32]) -> None:
    partners = neutral_partners(CLIPS, features)
    assert {row: list(rows) for row, rows in partners.items()} == {1: [0], 5: [3, 4]}


def test_a_pair_moves_from_neutral_to_the_expression(features: NDArray[np.float32]) -> None:
    partners = neutral_partners(CLIPS, features)
    views = np.array([0, 1, 0, 1, 1, 0, 0, 1])
    rng = np.random.default_rng(1)
    batch = np.array([1, 0, 2, 5, 6, 5])
    used = set()
    for _ in range(40):
        frames = with_onset(batch, views, features, partners, 1.0, rng)
        given = features[views[batch], batch]
        for place, row in enumerate(batch):
            if row not in partners:
                np.testing.assert_array_equal(frames[place], given[place])
                continue
            expression, view = features[views[row], row, 0], views[row]
            # Which neutral picture it was, and where between the two each frame is.
            fits = []
            for partner in partners[row]:
                neutral = features[view, partner, 0]
                step = expression - neutral
                place_on_line = (frames[place] - neutral) @ step / (step @ step)
                on_line = neutral + place_on_line[:, None] * step
                if np.allclose(frames[place], on_line, atol=1e-5):
                    fits.append((int(partner), place_on_line))
            ((partner, intensity),) = fits
            used.add(partner)
            assert intensity.max() == pytest.approx(1, abs=1e-5)
            assert intensity.min() > -1e-5
            peak = intensity.argmax()  # up to it, it rises; from there on, it falls
            assert (np.diff(intensity[: peak + 1]) > -1e-5).all()
            assert (np.diff(intensity[peak:]) < 1e-5).all()
    assert used == {0, 3, 4}


def test_share_is_how_often_it_happens(features: NDArray[np.float32]) -> None:
    partners = neutral_partners(CLIPS, features)
    views = np.zeros(len(CLIPS), dtype=np.int64)
    batch = np.full(2000, 5)
    moved = {}
    for share in (0.0, 0.3):
        rng = np.random.default_rng(2)
        frames = with_onset(batch, views, features, partners, share, rng)
        moved[share] = (frames != features[0, 5]).any(axis=(1, 2)).mean()
    assert moved[0.0] == 0
    assert moved[0.3] == pytest.approx(0.3, abs=0.04)  # 4 standard errors


def test_features_stay_as_they_are(features: NDArray[np.float32]) -> None:
    before = features.copy()
    partners = neutral_partners(CLIPS, features)
    views = np.zeros(len(CLIPS), dtype=np.int64)
    with_onset(np.arange(len(CLIPS)), views, features, partners, 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(features, before)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_share_is_checked(share: float) -> None:
    with pytest.raises(FergcnError, match="neutral_pairs"):
        TrainConfig(neutral_pairs=share, freeze_backbone=True)


def test_pairs_need_a_frozen_backbone() -> None:
    with pytest.raises(FergcnError, match="add --freeze-backbone"):
        TrainConfig(neutral_pairs=0.5)
