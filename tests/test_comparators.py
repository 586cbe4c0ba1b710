"""Each comparator against a loop over clips and frames, written from its equation."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import tiny_config
from fergcn.ablation import GROUPS, TABLE_V
from fergcn.analysis import analyze
from fergcn.checkpoint import load_checkpoint, save_checkpoint
from fergcn.clips import Clip
from fergcn.crossval import crossvalidate
from fergcn.expressions import FergcnError
from fergcn.features import FeatureClassifier
from fergcn.folds import Protocol
from fergcn.model import FERGCN, GraphHead, ModelConfig, VideoCNN, create_network
from fergcn.model.comparators import BiLSTMHead, FrameAttentionHead, TransformerHead
from fergcn.training.config import TrainConfig
from fergcn.training.loop import build_model, train_model
from fergcn.video import write_video
from test_model import lstm_states, sigmoid
from test_training import FAST

FRAME_NETWORKS = ("frame-average", "cnn-bilstm", "frame-attention", "transformer")


def numbers(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def some_features(head: nn.Module, num_frames: int = 6) -> Tensor:
    """Features `(3, N, 8)`, and a head in double precision without any weight that is zero."""
    head.double()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)
    return torch.randn(3, num_frames, 8, dtype=torch.float64)


def head_config(**changes: object) -> ModelConfig:
    return tiny_config(num_classes=5, num_frames=6, feature_dim=8, **changes)


@pytest.mark.parametrize("num_frames", [1, 6, 9])
def test_bilstm_is_the_loop_over_steps(num_frames: int) -> None:
    torch.manual_seed(0)
    head = BiLSTMHead(head_config())
    features = some_features(head, num_frames)
    p = numbers(head)

    def states(clip: np.ndarray, direction: str) -> np.ndarray:
        w_ih, w_hh = (p[f"temporal.lstm.weight_{k}_l0{direction}"] for k in ("ih", "hh"))
        assert w_hh.shape == (4 * 4, 4)  # d/2 states in either direction
        bias = sum(p[f"temporal.lstm.bias_{k}_l0{direction}"] for k in ("ih", "hh"))
        return lstm_states(clip, w_ih, w_hh, bias)

    for clip, logits in zip(features.numpy(), head(features).detach().numpy(), strict=True):
        forward, backward = states(clip, ""), states(clip[::-1], "_reverse")[::-1]
        by_frame = [np.concatenate(both) for both in zip(forward, backward, strict=True)]
        mean = sum(by_frame) / num_frames
        expected = p["classifier.weight"] @ mean + p["classifier.bias"]
        np.testing.assert_allclose(logits, expected, rtol=1e-10)


@pytest.mark.parametrize("num_frames", [1, 6, 9])
def test_frame_attention_is_its_equations(num_frames: int) -> None:
    torch.manual_seed(1)
    head = FrameAttentionHead(head_config())
    features = some_features(head, num_frames)
    p = numbers(head)
    q0, q1 = p["q0.weight"][0], p["q1.weight"][0]
    for clip, logits in zip(features.numpy(), head(features).detach().numpy(), strict=True):
        alpha = [sigmoid(f @ q0) for f in clip]
        first = sum(a * f for a, f in zip(alpha, clip, strict=True)) / sum(alpha)
        related = [np.concatenate([f, first]) for f in clip]
        beta = [sigmoid(r @ q1) for r in related]
        total = sum(a * b for a, b in zip(alpha, beta, strict=True))
        fused = sum(a * b * r for a, b, r in zip(alpha, beta, related, strict=True)) / total
        expected = p["classifier.weight"] @ fused + p["classifier.bias"]
        np.testing.assert_allclose(logits, expected, rtol=1e-10)


def test_frame_attention_survives_weights_that_vanish() -> None:
    head = FrameAttentionHead(head_config())
    nn.init.constant_(head.q0.weight, -1)
    logits = head(100 * torch.ones(1, 6, 8))  # σ(-800) is 0 in single precision
    assert torch.isfinite(logits).all()


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * weight + bias


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


def transformer_layer(tokens: list[np.ndarray], p: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Norm → attention of four heads → sum, norm → two linear layers → sum; token by token."""
    normed = [layer_norm(t, p["norm1.weight"], p["norm1.bias"]) for t in tokens]
    w_in, b_in = p["self_attn.in_proj_weight"], p["self_attn.in_proj_bias"]
    queries, keys, values = (
        [w @ t + b for t in normed]
        for w, b in zip(np.split(w_in, 3), np.split(b_in, 3), strict=True)
    )
    width = len(tokens[0]) // 4
    outputs = []
    for token, query in zip(tokens, queries, strict=True):
        heads = []
        for start in range(0, len(token), width):
            part = slice(start, start + width)
            weights = softmax(np.array([query[part] @ k[part] / math.sqrt(width) for k in keys]))
            heads.append(sum(w * v[part] for w, v in zip(weights, values, strict=True)))
        attended = p["self_attn.out_proj.weight"] @ np.concatenate(heads)
        token = token + attended + p["self_attn.out_proj.bias"]
        hidden = p["linear1.weight"] @ layer_norm(token, p["norm2.weight"], p["norm2.bias"])
        hidden = hidden + p["linear1.bias"]
        hidden = hidden * np.array([0.5 * (1 + math.erf(h / math.sqrt(2))) for h in hidden])  # GELU
        outputs.append(token + p["linear2.weight"] @ hidden + p["linear2.bias"])
    return outputs


def test_transformer_is_the_loop_over_tokens() -> None:
    torch.manual_seed(2)
    head = TransformerHead(head_config(network="transformer")).eval()
    features = some_features(head)
    p = numbers(head)
    layers = [
        {k.removeprefix(f"encoder.layers.{i}."): v for k, v in p.items() if f"layers.{i}." in k}
        for i in range(2)
    ]
    logits = head(features).detach().numpy()
    for clip, result in zip(features.numpy(), logits, strict=True):
        tokens = [p["token"], *(f + q for f, q in zip(clip, p["positions"], strict=True))]
        for layer in layers:
            tokens = transformer_layer(tokens, layer)
        summary = layer_norm(tokens[0], p["encoder.norm.weight"], p["encoder.norm.bias"])
        expected = p["classifier.weight"] @ summary + p["classifier.bias"]
        np.testing.assert_allclose(result, expected, rtol=1e-9)
    with torch.inference_mode():  # where PyTorch takes a shorter way
        np.testing.assert_allclose(head(features).numpy(), logits, rtol=1e-9)


def test_transformer_knows_the_order_of_frames_and_their_number() -> None:
    torch.manual_seed(3)
    head = TransformerHead(head_config(network="transformer"))
    features = some_features(head)
    assert (head(features) - head(features.flip(1))).abs().max() > 1e-6
    with pytest.raises(ValueError, match="clip has 9 frames but the model takes 6: choose"):
        head(features.new_zeros(1, 9, 8))
    with pytest.raises(ValueError, match="found feature_dim=6, expected a multiple of 4"):
        tiny_config(feature_dim=6, network="transformer")


def test_frame_average_is_fergcn_without_modules() -> None:
    def made(config: ModelConfig) -> FERGCN:
        torch.manual_seed(4)
        return FERGCN(config).eval()

    average = made(tiny_config(network="frame-average", fusion="last"))
    without = made(tiny_config(num_modules=0))
    assert average.state_dict().keys() == without.state_dict().keys()
    frames = torch.randn(2, 4, 3, 32, 32)
    assert torch.equal(average(frames), without(frames))
    by_frame = average.frame_features(frames.flatten(0, 1)).unflatten(0, (2, 4))
    torch.testing.assert_close(average(frames), average.head.classifier(by_frame.mean(1)))


@pytest.mark.parametrize("network", FRAME_NETWORKS)
def test_only_the_head_differs(network: str) -> None:
    torch.manual_seed(5)
    model = create_network(tiny_config(network=network)).eval()
    assert isinstance(model, FERGCN)
    plain = FERGCN(tiny_config())
    for part in ("backbone", "projection"):
        ours, theirs = getattr(model, part).state_dict(), getattr(plain, part).state_dict()
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    frames = torch.randn(2, 4, 3, 32, 32)
    pooled = model.backbone_features(frames.flatten(0, 1)).unflatten(0, (2, 4))
    assert model(frames).shape == (2, 3)
    torch.testing.assert_close(FeatureClassifier(model)(pooled), model(frames))


@pytest.mark.parametrize("network", [*FRAME_NETWORKS, "r3d-18"])
def test_a_gradient_reaches_every_parameter(network: str) -> None:
    torch.manual_seed(6)
    model = create_network(tiny_config(network=network))
    model(torch.randn(2, 4, 3, 32, 32)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    if network != "r3d-18":
        without = [n for n, p in model.head.named_parameters() if not p.grad.abs().max() > 0]
        assert without == []


@pytest.mark.parametrize("network", [*FRAME_NETWORKS, "r3d-18"])
def test_a_checkpoint_of_each_gives_the_same_answers(network: str, tmp_path: Path) -> None:
    torch.manual_seed(7)
    model = create_network(tiny_config(network=network)).eval()
    save_checkpoint(tmp_path / "c", model, ("anger", "fear", "neutral"), 40, 32)
    loaded = load_checkpoint(tmp_path / "c").model
    assert loaded.config == model.config
    frames = torch.randn(2, 4, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(loaded(frames), model(frames))


def test_r3d_is_torchvisions_with_a_new_last_layer() -> None:
    from torchvision.models.video import r3d_18

    model = create_network(tiny_config(network="r3d-18")).eval()
    assert isinstance(model, VideoCNN)
    reference = r3d_18(weights=None, num_classes=3).eval()
    reference.load_state_dict(model.cnn.state_dict())
    frames = torch.randn(2, 5, 3, 32, 32)  # any number of frames will do
    with torch.inference_mode():
        clips = torch.stack([torch.stack(list(clip), dim=1) for clip in frames])  # time after RGB
        torch.testing.assert_close(model(frames), reference(clips))
    with pytest.raises(ValueError, match=r"found network=r3d-18, expected .*create_network"):
        FERGCN(tiny_config(network="r3d-18"))


def test_missing_kinetics_weights_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hub").write_text("a file where the folder of the weights should be")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    config = tiny_config(network="r3d-18", pretrained=True)
    with pytest.raises(FergcnError, match=r"^the Kinetics weights of r3d-18 .*--no-pretrained\)$"):
        build_model(config, FAST)


def test_r3d_has_no_backbone_to_freeze_or_to_start_from(
    coloured_clips: list[Clip], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    config = tiny_config(network="r3d-18")
    frozen = replace(FAST, freeze_backbone=True)
    message = (
        "found freeze_backbone with r3d-18, expected a network with frame features: "
        "leave --freeze-backbone out"
    )
    with pytest.raises(FergcnError, match=message):
        crossvalidate(coloured_clips, tmp_path / "crossval", config, frozen, Protocol(folds=3))
    with pytest.raises(FergcnError, match=message):
        train_model(coloured_clips, tmp_path / "run", config, frozen)
    assert not (tmp_path / "run").exists()  # free for a run without the flag
    with pytest.raises(FergcnError, match=r"found init with r3d-18, .* leave --init out"):
        build_model(config, replace(FAST, init=str(tiny_checkpoint)))
    save_checkpoint(tmp_path / "r3d", create_network(config), ("anger", "fear", "neutral"), 40, 32)
    with pytest.raises(FergcnError, match="found r3d-18, which has no backbone"):
        build_model(tiny_config(), replace(FAST, init=str(tmp_path / "r3d")))


def test_analysis_takes_networks_with_frame_features(tmp_path: Path) -> None:
    from skimage.data import astronaut

    face = astronaut()[:240, 120:360]
    video = tmp_path / "face.mp4"
    write_video(video, [face] * 5, fps=25, crf=18)
    for network in ("frame-attention", "r3d-18"):
        model = create_network(tiny_config(network=network))
        save_checkpoint(tmp_path / network, model, ("anger", "fear", "neutral"), 40, 32)
    analysis = analyze(video, tmp_path / "frame-attention")
    assert analysis.num_faces == 5
    assert len(analysis.windows) == 1 and analysis.contributions.empty
    assert analysis.summary["checkpoint"]["network"] == "frame-attention"
    with pytest.raises(FergcnError, match="found a checkpoint of r3d-18, which has no frame feat"):
        analyze(video, tmp_path / "r3d-18")


@pytest.mark.parametrize("network", ["transformer", "r3d-18"])
def test_comparators_train_under_the_same_folds(
    network: str, coloured_clips: list[Clip], tmp_path: Path
) -> None:
    config = TrainConfig(
        epochs=1,
        batch_size=12,
        resize=20,
        crop=16,
        accelerator="cpu",
        freeze_backbone=network != "r3d-18",
    )
    result = crossvalidate(
        coloured_clips,
        tmp_path,
        tiny_config(network=network, num_frames=2),
        config,
        Protocol(folds=2),
    )
    assert result.scores["last"].count == len(coloured_clips)
    loaded = load_checkpoint(tmp_path / "seed_0" / "fold_00" / "checkpoint").model
    assert loaded.config.network == network


def test_unknown_networks_are_named() -> None:
    with pytest.raises(ValueError, match=r"found network=c3d, expected one of fer-gcn, .*r3d-18"):
        tiny_config(network="c3d")


def test_the_shipped_checkpoint_is_fergcn() -> None:
    model = load_checkpoint("default").model
    assert model.config.network == "fer-gcn"
    assert isinstance(model, FERGCN) and isinstance(model.head, GraphHead)


def test_every_variant_is_another_network() -> None:
    plain = ModelConfig(7)
    for variants in GROUPS.values():
        configs = {replace(plain, **changes) for changes in variants.values()}
        assert len(configs) == len(variants)
        assert plain not in configs
    assert [changes["num_modules"] for changes in TABLE_V.values()] == [0, 1, 2, 3]
