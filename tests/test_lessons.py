"""What clips teach besides the name of their expression."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from conftest import tiny_config
from fergcn import training
from fergcn.checkpoint import load_checkpoint
from fergcn.clips import Clip
from fergcn.expressions import FergcnError
from fergcn.lessons import ActionLearner, action_loss, read_actions, read_soft_labels
from fergcn.model import FERGCN
from fergcn.training import TrainConfig, train_model

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


def test_a_row_for_two_clips_is_refused(tmp_path: Path) -> None:
    clips = [*CLIPS, Clip("b", "other", "anger", Path("elsewhere"))]
    table = write_actions(tmp_path / "actions.csv", clip_id=["a", "b"], jawOpen=[0.1, 0.7])
    with pytest.raises(FergcnError, match="found a row for b, the name of 2 training clips"):
        read_actions(table, clips)
    soft = write_actions(tmp_path / "soft.csv", clip_id=["a", "b"], anger=[0.1, 0.7])
    with pytest.raises(FergcnError, match="found a row for b, the name of 2 training clips"):
        read_soft_labels(soft, clips, ("anger",))
    read_actions(write_actions(table, clip_id=["a", "c"], jawOpen=[0.1, 0.7]), clips)


def test_the_loss_is_a_mean_of_squares_and_leaves_out_what_is_unknown() -> None:
    rng = np.random.default_rng(0)
    told, shown = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    shown[[1, 4]] = np.nan
    squares = [
        (told[row, column] - shown[row, column]) ** 2 if row not in (1, 4) else 0.0
        for row in range(5)
        for column in range(3)
    ]
    mine = torch.tensor(told, dtype=torch.float32, requires_grad=True)
    loss = action_loss(mine, torch.tensor(shown, dtype=torch.float32))
    assert loss.item() == pytest.approx(np.mean(squares), rel=1e-5)
    loss.backward()
    assert mine.grad is not None
    assert torch.isfinite(mine.grad).all()
    assert not mine.grad[[1, 4]].any()


def test_the_logits_are_those_of_the_network() -> None:
    torch.manual_seed(0)
    model = FERGCN(tiny_config()).eval()
    learner = ActionLearner(model, 5).eval()
    frames = torch.randn(2, 4, 3, 32, 32)
    logits, actions = learner(frames)
    torch.testing.assert_close(logits, model(frames))
    each = [learner.layer(model.backbone_features(clip)).mean(0) for clip in frames]
    torch.testing.assert_close(actions, torch.stack(each))


def test_it_is_the_backbone_that_learns_them() -> None:
    torch.manual_seed(0)
    model = FERGCN(tiny_config())
    learner = ActionLearner(model, 2)
    optimizer = torch.optim.AdamW(learner.parameters(), 1e-2)
    frames = torch.randn(16, 1, 3, 32, 32).repeat(1, 4, 1, 1, 1)
    shown = torch.randn(16, 2)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    losses = []
    for _ in range(40):
        loss = action_loss(learner(frames)[1], shown)
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
    runs = {"without": FAST, "with": replace(FAST, actions=str(table))}
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
    config = replace(FAST, actions=str(table), optimizer="adamw")
    network = tiny_config(feature_dropout=0.5)  # what is left out must be the same, too
    monkeypatch.setattr(training, "SAVE_EVERY_S", 0.0)
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


def test_actions_need_frame_features_that_learn(coloured_clips: list[Clip], tmp_path: Path) -> None:
    with pytest.raises(FergcnError, match="leave --freeze-backbone or --actions out"):
        TrainConfig(actions="actions.csv", freeze_backbone=True)
    table = write_actions(
        tmp_path / "actions.csv",
        clip_id=[clip.clip_id for clip in coloured_clips],
        jawOpen=range(12),
    )
    video = tiny_config(network="r3d-18")
    with pytest.raises(FergcnError, match="found actions with r3d-18, expected a network with"):
        train_model(coloured_clips, tmp_path / "r3d", video, replace(FAST, actions=str(table)))
    assert not (tmp_path / "r3d").exists()
