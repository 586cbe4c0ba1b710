"""What clips teach besides the name of their expression."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from conftest import tiny_config
from fergcn.checkpoint import load_checkpoint
from fergcn.clips import Clip
from fergcn.expressions import FergcnError
from fergcn.model import FERGCN
from fergcn.training import loop
from fergcn.training.config import TrainConfig
from fergcn.training.lessons import (
    LessonLearner,
    Lessons,
    lesson_loss,
    read_actions,
    read_points,
    read_soft_labels,
    seen_points,
)
from fergcn.training.loop import train_model
from fergcn.transforms import augment_wild, wild_map

CLIPS = [Clip(name, name, "anger", Path("unread")) for name in "abcd"]
FAST = TrainConfig(epochs=3, batch_size=4, resize=40, crop=32, accelerator="cpu")


def write_actions(path: Path, **columns: list[float | str]) -> Path:
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_actions_that_occur_are_standardised_and_unknown_clips_stay_unknown(tmp_path: Path) -> None:
    table = write_actions(
        tmp_path / "actions.csv",
        clip_id=["c", "a", "other", "b"],
        jawOpen=[0.9, 0.0, 7.0, 0.3],
        tongueOut=[0.01, 0.0, 5.0, 0.0],  # hardly moves in these clips
        browInnerUp=[0.2, 0.8, -3.0, 0.2],
    )
    actions = read_actions(table, CLIPS)
    jaw, brows = np.array([0.0, 0.3, 0.9]), np.array([0.8, 0.2, 0.2])
    expected = [(jaw - 0.4) / jaw.std(), (brows - 0.4) / brows.std()]
    np.testing.assert_allclose(actions[:3], np.stack(expected, axis=1), rtol=1e-5)
    assert np.isnan(actions[3]).all()


def test_a_table_that_tells_nothing_of_the_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FergcnError, match="found no facial actions of these clips"):
        read_actions(tmp_path / "none.csv", CLIPS)
    other = write_actions(tmp_path / "other.csv", clip_id=["x"], jawOpen=[0.4])
    with pytest.raises(FergcnError, match="fergcn render --kinds still"):
        read_actions(other, CLIPS)
    constant = write_actions(tmp_path / "constant.csv", clip_id=["a", "b"], jawOpen=[0.4, 0.4])
    with pytest.raises(FergcnError, match="found no facial actions of these clips"):
        read_actions(constant, CLIPS)
    words = write_actions(tmp_path / "words.csv", clip_id=["a"], jawOpen=["wide"])
    with pytest.raises(FergcnError, match="found no facial actions of these clips"):
        read_actions(words, CLIPS)


def test_a_mirrored_face_has_the_same_target(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ("mouthSmile", "browDown")
    sides = {f"{name}{side}": list(rng.random(4)) for name in names for side in ("Left", "Right")}
    mirrored = {
        name.replace("Left", "?").replace("Right", "Left").replace("?", "Right"): values
        for name, values in sides.items()
    }
    ids: list[float | str] = ["a", "b", "c", "d"]
    tables = [
        write_actions(tmp_path / f"{number}.csv", clip_id=ids, jawOpen=[0, 1, 1, 0], **columns)
        for number, columns in enumerate((sides, dict(sorted(mirrored.items()))))
    ]
    ours, theirs = (np.sort(read_actions(table, CLIPS), axis=1) for table in tables)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert ours.shape == (4, 1 + 2 * len(names))  # the jaw, and both sides' mean and difference


def write_points(path: Path, clip_ids: list[str], points: np.ndarray) -> Path:
    np.savez(path, clip_id=np.array(clip_ids), points=points)
    return path


def some_points(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, 2, 6, 2)).astype(np.float32)


def test_points_are_those_of_the_clip(tmp_path: Path) -> None:
    points = some_points(3)
    path = write_points(tmp_path / "points.npz", ["c", "other", "a"], points)
    read = read_points(path, CLIPS)
    np.testing.assert_array_equal(read[[2, 0]], points[[0, 2]])
    assert np.isnan(read[[1, 3]]).all()


@pytest.mark.parametrize(
    "arrays",
    [
        {"clip_id": np.array(["x"]), "points": some_points(1)},
        {"clip_id": np.array(["a"]), "points": some_points(1)[:, :, :5]},  # one has no mirror image
        {"clip_id": np.array(["a"]), "points": some_points(1)[0]},
        {"clip_id": np.array(["a", "b"]), "points": some_points(1)},
        {"clip_id": np.array(["a"]), "points": some_points(1) * np.nan},
        {"clip_id": np.array(["a"]), "points": some_points(1).astype(float) * 1e300},
        {"clip_id": np.array(["a"]), "points": np.array("left")},
        {"clip_id": np.array(["a"], dtype=object), "points": some_points(1)},
        {"points": some_points(1)},
    ],
)
def test_a_file_without_their_points_is_refused(
    arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "points.npz"
    np.savez(path, **arrays)
    with pytest.raises(FergcnError, match="found no points of these clips' faces"):
        read_points(path, CLIPS)


def test_a_file_that_holds_no_arrays_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "points.npz"
    np.savez_compressed(path, clip_id=np.array(["a"]), points=some_points(1))
    whole = path.read_bytes()
    read_points(path, CLIPS)
    middle = whole.index(b"points.npy") + 60  # within the compressed array
    damaged = whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 40])
    damaged += whole[middle + 40 :]
    path.unlink()
    for content in (None, b"", b"clip_id,points\n", b"PK\x03\x04 cut off", whole[:99], damaged):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(FergcnError, match="make them with fergcn render --kinds still"):
            read_points(path, CLIPS)
    np.save(path, some_points(1))
    (tmp_path / "points.npz.npy").replace(path)
    with pytest.raises(FergcnError, match="expected arrays clip_id and points"):
        read_points(path, CLIPS)


@pytest.mark.parametrize("resize", [76, 75])
def test_points_go_where_augmentation_takes_the_picture(resize: int) -> None:
    """A bright spot is found where the map says it is, unless it is covered."""
    crop, side = 56, 80
    down, right = np.mgrid[:side, :side] + 0.5
    off, mirrored = [], []
    for index in range(100):
        key = (3, 1, index)
        x, y = place = np.random.default_rng(index).uniform(0.35, 0.65, 2)
        spot = np.exp(-np.square(np.hypot(right / side - x, down / side - y) / 0.04) / 2)
        picture = np.repeat((255 * spot).astype(np.uint8)[None, ..., None], 3, axis=3)
        frame = augment_wild(picture, key, resize, crop)[0].numpy().mean(axis=0)
        frame -= np.median(frame)
        frame[frame < 0.5 * frame.max()] = 0
        rows, columns = np.mgrid[:crop, :crop] + 0.5
        found = np.array([(frame * columns).sum(), (frame * rows).sum()]) / frame.sum() / crop
        placed = wild_map(key, resize, crop)
        points = np.array([[[place], [place - 0.5]]], np.float32)  # it came from the middle
        seen = seen_points(np.repeat(points, 2, axis=2), placed[None])[0, :, 0]
        middle = placed @ (0.5, 0.5, 1)
        np.testing.assert_allclose(seen[0] - middle, seen[1], atol=1e-6)
        off.append(np.abs(found - seen[0]).max() * crop)
        mirrored.append(np.linalg.det(placed[:, :2]) < 0)
    assert np.median(off) < 0.2  # pixels
    assert np.mean(np.array(off) < 1) > 0.8
    assert 0.35 < np.mean(mirrored) < 0.65


def test_a_mirrored_face_has_its_left_points_on_the_right() -> None:
    """A face that is the same on both sides looks the same in a mirror."""
    rng = np.random.default_rng(0)
    left = np.stack([rng.uniform(0.5, 1, (3, 2)), rng.normal(0, 0.1, (3, 2))])
    right = left * (-1, 1) + np.array([[[1, 0]], [[0, 0]]])
    points = np.concatenate([left, right], axis=1)[None].astype(np.float32)
    upright = np.array([[[1.0, 0, 0], [0, 1, 0]]])
    mirror = np.array([[[-1.0, 0, 1], [0, 1, 0]]])
    np.testing.assert_allclose(seen_points(points, upright), points)
    np.testing.assert_allclose(seen_points(points, mirror), points, atol=1e-7)


def test_lessons_are_of_the_clips_and_the_epoch() -> None:
    points, actions = some_points(40), np.random.default_rng(1).normal(size=(40, 3))
    points[7] = np.nan

    def maps(rows: Sequence[int], epoch: int) -> np.ndarray:
        return np.stack([wild_map((0, epoch, row), 40, 32) for row in rows])

    lessons = Lessons(actions.astype(np.float32), points, maps)
    assert lessons.widths == (3, 12, 12)
    everyone = np.arange(40)
    first, again, later = (lessons.shown(everyone, epoch) for epoch in (0, 0, 1))
    assert [part.shape[1] for part in first] == list(lessons.widths)
    for part, same in zip(first, again, strict=True):
        torch.testing.assert_close(part, same, equal_nan=True)
    torch.testing.assert_close(first[0], later[0])  # what a face does is the same in every epoch
    assert not torch.allclose(first[1][0], later[1][0])
    assert [bool(part[7].isnan().all()) for part in first] == [False, True, True]
    known = [part[[row for row in range(40) if row != 7]] for part in first[1:]]
    for part in known:  # standardised as they are seen in the first epoch
        torch.testing.assert_close(part.mean(0), torch.zeros(12), rtol=0, atol=1e-4)
        torch.testing.assert_close(part.std(0, correction=0), torch.ones(12), rtol=0, atol=1e-3)
    some = lessons.shown(np.array([5, 2]), 1)
    for part, whole in zip(some, later, strict=True):
        torch.testing.assert_close(part, whole[[5, 2]])


def test_a_row_for_two_clips_is_refused(tmp_path: Path) -> None:
    clips = [*CLIPS, Clip("b", "other", "anger", Path("elsewhere"))]
    table = write_actions(tmp_path / "actions.csv", clip_id=["a", "b"], jawOpen=[0.1, 0.7])
    with pytest.raises(FergcnError, match="found a row for b, the name of 2 training clips"):
        read_actions(table, clips)
    soft = write_actions(tmp_path / "soft.csv", clip_id=["a", "b"], anger=[0.1, 0.7])
    with pytest.raises(FergcnError, match="found a row for b, the name of 2 training clips"):
        read_soft_labels(soft, clips, ("anger",))
    points = write_points(tmp_path / "points.npz", ["a", "b"], some_points(2))
    with pytest.raises(FergcnError, match="found a row for b, the name of 2 training clips"):
        read_points(points, clips)
    read_actions(write_actions(table, clip_id=["a", "c"], jawOpen=[0.1, 0.7]), clips)


def test_the_loss_is_a_mean_of_squares_and_leaves_out_what_is_unknown() -> None:
    rng = np.random.default_rng(0)
    told = rng.normal(size=(5, 7))
    shown = [rng.normal(size=(5, 3)), rng.normal(size=(5, 4))]
    shown[0][[1, 4]] = np.nan
    shown[1][2] = np.nan
    expected = 0.0
    for lesson, columns in zip(shown, (range(3), range(3, 7)), strict=True):
        squares = [
            0.0 if np.isnan(lesson[row, at]) else (told[row, column] - lesson[row, at]) ** 2
            for row in range(5)
            for at, column in enumerate(columns)
        ]
        expected += float(np.mean(squares))
    mine = torch.tensor(told, dtype=torch.float32, requires_grad=True)
    loss = lesson_loss(mine, [torch.tensor(lesson, dtype=torch.float32) for lesson in shown])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert mine.grad is not None
    assert torch.isfinite(mine.grad).all()
    assert not mine.grad[[1, 4], :3].any()
    assert not mine.grad[2, 3:].any()
    assert mine.grad[2, :3].all()


def test_the_logits_are_those_of_the_network() -> None:
    torch.manual_seed(0)
    model = FERGCN(tiny_config()).eval()
    learner = LessonLearner(model, 5).eval()
    frames = torch.randn(2, 4, 3, 32, 32)
    logits, told = learner(frames)
    torch.testing.assert_close(logits, model(frames))
    each = [learner.layer(model.backbone_features(clip)).mean(0) for clip in frames]
    torch.testing.assert_close(told, torch.stack(each))


def test_it_is_the_backbone_that_learns_them() -> None:
    torch.manual_seed(0)
    model = FERGCN(tiny_config())
    learner = LessonLearner(model, 2)
    optimizer = torch.optim.AdamW(learner.parameters(), 1e-2)
    frames = torch.randn(16, 1, 3, 32, 32).repeat(1, 4, 1, 1, 1)
    shown = torch.randn(16, 2)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    losses = []
    for _ in range(40):
        loss = lesson_loss(learner(frames)[1], [shown])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])
    moved = {name for name, tensor in model.named_parameters() if not tensor.equal(before[name])}
    assert moved == {name for name in before if name.startswith("backbone.")}


def test_the_checkpoint_is_an_ordinary_one(coloured_clips: list[Clip], tmp_path: Path) -> None:
    table = write_actions(
        tmp_path / "actions.csv",
        clip_id=[clip.clip_id for clip in coloured_clips],
        jawOpen=range(12),
    )
    clip_ids = [clip.clip_id for clip in coloured_clips]
    points = write_points(tmp_path / "points.npz", clip_ids, some_points(12))
    lessons = replace(FAST, augmentation="wild", actions=str(table), points=str(points))
    runs = {"without": replace(FAST, augmentation="wild"), "with": lessons}
    made = {
        name: load_file(
            train_model(coloured_clips, tmp_path / name, tiny_config(), config)
            / "model.safetensors"
        )
        for name, config in runs.items()
    }
    assert made["with"].keys() == made["without"].keys()
    backbone = [name for name in made["with"] if name.startswith("backbone.")]
    assert not all(torch.equal(made["with"][name], made["without"][name]) for name in backbone)
    assert isinstance(load_checkpoint(tmp_path / "with" / "checkpoint").model, FERGCN)


def test_a_stopped_run_ends_as_one_that_was_not(
    coloured_clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    table = write_actions(
        tmp_path / "actions.csv",
        clip_id=[clip.clip_id for clip in coloured_clips],
        jawOpen=list(rng.normal(size=len(coloured_clips))),
    )
    clip_ids = [clip.clip_id for clip in coloured_clips]
    points = write_points(tmp_path / "points.npz", clip_ids, some_points(len(clip_ids)))
    lessons = replace(FAST, actions=str(table), points=str(points), augmentation="wild")
    config = replace(lessons, optimizer="adamw", mix_styles=0.5)
    network = tiny_config(feature_dropout=0.5)  # what is left out must be the same, too
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    whole = train_model(coloured_clips, tmp_path / "whole", network, config)

    def stop(epoch: int, _model: object) -> None:
        if epoch == 3:  # the second epoch has been saved
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(coloured_clips, tmp_path / "stopped", network, config, on_epoch=stop)
    again = train_model(coloured_clips, tmp_path / "stopped", network, config)
    ours, theirs = load_file(whole / "model.safetensors"), load_file(again / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # Another table is another run.
    shutil.copytree(tmp_path / "whole", tmp_path / "other")
    write_actions(table, clip_id=[clip.clip_id for clip in coloured_clips[:6]], jawOpen=range(6))
    with pytest.raises(FergcnError, match="found a run with other settings"):
        train_model(coloured_clips, tmp_path / "other", network, config)


def test_lessons_need_frame_features_that_learn(coloured_clips: list[Clip], tmp_path: Path) -> None:
    with pytest.raises(FergcnError, match="leave --freeze-backbone or --actions out"):
        TrainConfig(actions="actions.csv", freeze_backbone=True)
    with pytest.raises(FergcnError, match="leave --freeze-backbone or --points out"):
        TrainConfig(points="points.npz", freeze_backbone=True, augmentation="wild")
    with pytest.raises(FergcnError, match=r"found points=points.npz and .* pass --augmentation"):
        TrainConfig(points="points.npz")
    table = write_actions(
        tmp_path / "actions.csv",
        clip_id=[clip.clip_id for clip in coloured_clips],
        jawOpen=range(12),
    )
    clip_ids = [clip.clip_id for clip in coloured_clips]
    points = write_points(tmp_path / "points.npz", clip_ids, some_points(12))
    video, wild = tiny_config(network="r3d-18"), replace(FAST, augmentation="wild")
    for setting, config in {
        "actions": replace(FAST, actions=str(table)),
        "points": replace(wild, points=str(points)),
        "mix_styles": replace(FAST, mix_styles=0.5),
    }.items():
        message = f"found {setting} with r3d-18, expected a network with"
        with pytest.raises(FergcnError, match=message):
            train_model(coloured_clips, tmp_path / "r3d", video, config)
    assert not (tmp_path / "r3d").exists()
