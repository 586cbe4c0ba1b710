"""Clips made of two pictures of one person."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from conftest import tiny_config
from fergcn.checkpoint import load_checkpoint
from fergcn.clips import Clip
from fergcn.expressions import FergcnError
from fergcn.training import loop
from fergcn.training.config import TrainConfig
from fergcn.training.loop import train_model
from fergcn.training.pairs import neutral_partners, with_movement

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


def test_two_datasets_may_call_two_people_the_same(features: NDArray[np.float32]) -> None:
    partners = neutral_partners(CLIPS, features, sources=[0, 1, 0, 0, 1, 1, 0, 0])
    assert {row: list(rows) for row, rows in partners.items()} == {5: [4]}


def test_a_video_that_ends_as_it_began_is_no_picture(features: NDArray[np.float32]) -> None:
    features[:, 0, 2] += 1
    assert list(neutral_partners(CLIPS, features)) == [5]


def test_a_pair_moves_from_neutral_to_the_expression(features: NDArray[np.float32]) -> None:
    partners = neutral_partners(CLIPS, features)
    views = np.array([0, 1, 0, 1, 1, 0, 0, 1])
    rng = np.random.default_rng(1)
    batch = np.array([1, 0, 2, 5, 6, 5])
    used = set()
    for _ in range(40):
        frames = with_movement(batch, views, features, partners, 1.0, rng)
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
        frames = with_movement(batch, views, features, partners, share, rng)
        moved[share] = (frames != features[0, 5]).any(axis=(1, 2)).mean()
    assert moved[0.0] == 0
    assert moved[0.3] == pytest.approx(0.3, abs=0.04)  # 4 standard errors


def test_features_stay_as_they_are(features: NDArray[np.float32]) -> None:
    before = features.copy()
    partners = neutral_partners(CLIPS, features)
    views = np.zeros(len(CLIPS), dtype=np.int64)
    with_movement(np.arange(len(CLIPS)), views, features, partners, 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(features, before)


@pytest.fixture
def files(tmp_path: Path) -> list[Clip]:
    """The clips, with files that are there, though features are given."""
    for clip in CLIPS:
        (tmp_path / f"{clip.clip_id}.mp4").write_bytes(clip.clip_id.encode())
    return [replace(clip, path=tmp_path / f"{clip.clip_id}.mp4") for clip in CLIPS]


class StoppedError(Exception):
    pass


def test_training_with_pairs_can_be_stopped(
    files: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = np.random.default_rng(3).normal(size=(2, len(files), 1, 1024)).astype(np.float32)
    wide = wide.repeat(4, axis=2)
    config = TrainConfig(
        epochs=4, freeze_backbone=True, neutral_pairs=1.0, accelerator="cpu", learning_rate=0.05
    )

    def trained(name: str, config: TrainConfig, stop: bool = False) -> dict[str, torch.Tensor]:
        def tell(what: str, done: int, _total: int) -> None:
            if stop and what == "epochs" and done == 2:
                raise StoppedError

        model_config = tiny_config(num_classes=4)
        folder = train_model(files, tmp_path / name, model_config, config, wide, on_progress=tell)
        return load_checkpoint(folder).model.state_dict()

    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0)
    whole = trained("whole", config)
    with pytest.raises(StoppedError):
        trained("stopped", config, stop=True)
    resumed = trained("stopped", config)
    without = trained("without", replace(config, neutral_pairs=0.0))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not all(torch.equal(whole[name], without[name]) for name in whole)


def test_pairs_need_people_with_both(files: list[Clip], tmp_path: Path) -> None:
    moving = np.random.default_rng(3).normal(size=(2, len(files), 4, 1024)).astype(np.float32)
    config = TrainConfig(epochs=1, freeze_backbone=True, neutral_pairs=0.5, accelerator="cpu")
    with pytest.raises(FergcnError, match="leave --neutral-pairs out"):
        train_model(files, tmp_path / "run", tiny_config(num_classes=4), config, moving)
    without = replace(config, neutral_pairs=0.0)  # as the error says; the folder is free for it
    train_model(files, tmp_path / "run", tiny_config(num_classes=4), without, moving)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_share_is_checked(share: float) -> None:
    with pytest.raises(FergcnError, match="neutral_pairs"):
        TrainConfig(neutral_pairs=share, freeze_backbone=True)


def test_pairs_need_a_frozen_backbone() -> None:
    with pytest.raises(FergcnError, match="add --freeze-backbone"):
        TrainConfig(neutral_pairs=0.5)
