"""A known miscalibration is found, answers stay, and nobody who was trained on is fitted on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from conftest import tiny_config
from fergcn.calibration import calibrate_checkpoint, divide_logits, fit_temperature, rescale
from fergcn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from fergcn.clips import Clip, people_digests
from fergcn.expressions import FergcnError
from fergcn.model import FERGCN, create_network
from fergcn.prediction import predict_probs

NAMES = ("anger", "happiness", "neutral")


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).softmax(1).numpy()


@settings(max_examples=10)
@given(st.floats(0.3, 3), st.integers(0, 1000))
def test_temperature_of_scaled_logits_is_the_scale(scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (6000, 5))
    targets = (logits + rng.gumbel(size=logits.shape)).argmax(1)  # drawn from softmax(logits)
    found = fit_temperature(softmax(scale * logits), targets)
    assert found == pytest.approx(scale, rel=0.08)
    np.testing.assert_allclose(rescale(softmax(scale * logits), scale), softmax(logits), atol=1e-9)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """A hundred and fifty pictures of coloured noise, each of a person of its own."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    clips = []
    for number in range(150):
        face = rng.integers(0, 60, (1, 40, 40, 3)) + rng.integers(0, 190, (1, 1, 1, 3))
        np.save(folder / f"{number}.npy", face.astype(np.uint8))
        clips.append(Clip(f"c{number}", f"p{number}", "anger", folder / f"{number}.npy"))
    return clips


def spread_network(clips: list[Clip]) -> FERGCN:
    """An untrained network whose logits differ between clips."""
    torch.manual_seed(0)
    model = FERGCN(tiny_config()).eval()
    layer = model.head.classifier
    logits = np.log(predict_probs(model, clips[:60], 40, 32))
    with torch.no_grad():
        layer.bias -= torch.from_numpy(logits.mean(0))
        scale = float(2 / (logits - logits.mean(0)).std())
        layer.weight *= scale
        layer.bias *= scale
    return model


def test_a_network_that_is_too_sure_gets_its_factor_back(
    pictures: list[Clip], tmp_path: Path
) -> None:
    model = spread_network(pictures)
    probs = predict_probs(model, pictures, 40, 32)
    rng = np.random.default_rng(0)
    truth = (np.log(probs) + rng.gumbel(size=probs.shape)).argmax(1)
    clips = [replace(c, expression=NAMES[t]) for c, t in zip(pictures, truth, strict=True)]
    divide_logits(model, 1 / 3)
    save_checkpoint(tmp_path / "sure", model, NAMES, 40, 32)
    loaded = load_checkpoint(tmp_path / "sure")
    about = calibrate_checkpoint(loaded, clips, tmp_path / "new", "noise", other_people=True)
    assert about["temperature"] == pytest.approx(3, rel=0.3)  # 150 clips say no more
    for name in ("cross_entropy", "expected_calibration_error"):
        assert about["after"][name] < about["before"][name]
    calibrated = load_checkpoint(tmp_path / "new")
    assert calibrated.metadata["calibration"] == about
    features = 3 * torch.randn(500, 4, 16)
    with torch.no_grad():
        before, after = loaded.model.head(features), calibrated.model.head(features)
    torch.testing.assert_close(after, before / about["temperature"])
    assert torch.equal(before.argmax(1), after.argmax(1))
    with pytest.raises(FergcnError, match="calibrated already"):
        calibrate_checkpoint(calibrated, clips, tmp_path / "again", "noise", other_people=True)
    with pytest.raises(FergcnError, match="found it there already"):
        calibrate_checkpoint(loaded, clips, tmp_path / "new", "noise", other_people=True)


@pytest.mark.parametrize(
    "network", ["fer-gcn", "frame-average", "cnn-bilstm", "frame-attention", "transformer"]
)
@pytest.mark.parametrize("adjacency", ["shared", "per_clip"])
@pytest.mark.parametrize("temperature", [0.7, 2.5])
def test_no_network_changes_its_mind(network: str, adjacency: str, temperature: float) -> None:
    torch.manual_seed(0)
    model = FERGCN(tiny_config(network=network, adjacency=adjacency, neutral=1)).eval()
    if model.config.per_clip:
        nn.init.constant_(model.head.sharpness, 0.3)
    features = torch.randn(500, 4, model.config.frame_dim)
    with torch.no_grad():
        before = model.head(features)
        divide_logits(model, temperature)
        after = model.head(features)
    torch.testing.assert_close(after, before / temperature)
    assert torch.equal(before.argmax(1), after.argmax(1))


def test_a_video_network_is_calibrated_too() -> None:
    model = create_network(tiny_config(network="r3d-18")).eval()
    frames = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        before = model(frames)
        divide_logits(model, 2)
        torch.testing.assert_close(model(frames), before / 2)


@pytest.fixture(scope="module")
def untrained(pictures: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    directory = tmp_path_factory.mktemp("untrained") / "c"
    save_checkpoint(directory, spread_network(pictures), NAMES, 40, 32, half=True)
    return load_checkpoint(directory)


def test_people_that_were_trained_on_are_refused(
    pictures: list[Clip], untrained: Checkpoint, tmp_path: Path
) -> None:
    clips = pictures[:20]
    knows = replace(untrained, metadata={"people": sorted(people_digests(pictures[19:40]))})
    with pytest.raises(FergcnError, match="found 1 people that the checkpoint was trained on"):
        calibrate_checkpoint(knows, clips, tmp_path / "a", "noise")
    assert not (tmp_path / "a").exists()
    calibrate_checkpoint(knows, clips[:19], tmp_path / "a", "noise")
    calibrate_checkpoint(knows, clips, tmp_path / "b", "noise", other_people=True)
    new = load_checkpoint(tmp_path / "b")
    assert new.metadata["calibration"]["other_people"] is True
    assert new.half and untrained.half


@pytest.mark.parametrize(
    ("metadata", "dataset", "hold_out", "good"),
    [
        ({"dataset": "noise", "hold_out": 5}, "noise", 5, True),
        ({"dataset": "noise", "hold_out": 5}, "noise", 4, False),
        ({"dataset": "noise", "hold_out": 5}, "noise", None, False),
        ({"dataset": "noise", "hold_out": None}, "noise", None, False),
        ({"dataset": "noise", "hold_out": 5}, "other", 5, False),
        ({}, "noise", None, False),
    ],
)
def test_without_a_list_of_people_the_numbers_must_agree(
    pictures: list[Clip],
    untrained: Checkpoint,
    tmp_path: Path,
    metadata: dict[str, object],
    dataset: str,
    hold_out: int | None,
    good: bool,
) -> None:
    silent = replace(untrained, metadata=metadata)
    arguments = (silent, pictures[:20], tmp_path / "new", dataset, hold_out)
    if good:
        assert calibrate_checkpoint(*arguments)["hold_out"] == hold_out
        return
    with pytest.raises(FergcnError, match="it may have seen these people"):
        calibrate_checkpoint(*arguments)


def test_training_writes_down_whom_it_saw(coloured_clips: list[Clip], tmp_path: Path) -> None:
    from fergcn.training.loop import train_model
    from test_training import FAST

    run = train_model(coloured_clips, tmp_path, tiny_config(), replace(FAST, epochs=1))
    card = load_checkpoint(run)
    assert len(card.metadata["people"]) == 6
    with pytest.raises(FergcnError, match="found 6 people"):
        calibrate_checkpoint(card, coloured_clips, tmp_path / "new", "coloured")
