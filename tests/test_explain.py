"""Heatmaps, contributions and claims against finite differences, loops and scipy."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter
from scipy.stats import pearsonr
from torch import Tensor

from conftest import tiny_config
from fergcn.clips import Clip
from fergcn.explain import (
    BLUR,
    BLURRED_AT_ONCE,
    BLURRED_PLACES,
    SPOT,
    frame_contributions,
    heatmap_share,
    heatmaps,
    occlusion_map,
    pool_maps,
    spatial_maps,
    weight_claims,
)
from fergcn.expressions import FergcnError
from fergcn.model import FERGCN


def shaken_network(**changes: object) -> FERGCN:
    """A network whose A is no identity and whose batch normalisation lets signals through."""
    torch.manual_seed(0)
    model = FERGCN(tiny_config(**changes)).double()
    with torch.no_grad():
        model.head.adjacency.add_(0.3 * torch.randn_like(model.head.adjacency))
        model(torch.randn(2, 4, 3, 64, 64).double())  # statistics of something
    return model.eval()


def loop_energies(model: FERGCN, features: Tensor, after_graph: bool) -> list[float]:
    """½‖h_i − mean_k h_k‖² from the equations, one frame at a time."""
    features = features.detach()
    if after_graph:
        adjacency, graph = model.head.adjacency.detach(), model.head.graph_modules[0].graph
        rows = []
        for i in range(len(features)):
            drawn = sum(adjacency[i, k] * features[k] for k in range(len(features)))  # A X
            product = graph.weight.detach().T @ drawn  # (A X) W
            rows.append(torch.where(product > 0, product, 0.2 * product))
        features = torch.stack(rows)
    mean = sum(features) / len(features)
    return [0.5 * float((row - mean) @ (row - mean)) for row in features]


@pytest.mark.parametrize("backbone", ["vgg16_bn", "mobilenetv3_small_050"])
def test_heatmaps_are_slopes_of_the_energies(backbone: str) -> None:
    model = shaken_network(backbone=backbone)
    frames = torch.randn(4, 3, 64, 64).double()
    found = heatmaps(model, frames)
    assert found.after is not None
    with torch.no_grad():
        maps = spatial_maps(model, frames)
        for after_graph, values in ((False, found.before), (True, found.after)):
            assert values.shape == (4, *maps.shape[2:])
            row, column = maps.shape[2] - 1, 0
            slopes = []
            for step in (1e-5, -1e-5):  # all frames get more or less of what is at one position
                changed = maps.clone()
                changed[:, :, row, column] *= 1 + step
                features = pool_maps(model, changed)
                slopes.append(np.array(loop_energies(model, features, after_graph)))
            expected = (slopes[0] - slopes[1]) / 2e-5
            np.testing.assert_allclose(values[:, row, column], expected, rtol=1e-5, atol=1e-10)


def test_heatmaps_of_linear_pooling_add_up_to_the_energy() -> None:
    model = shaken_network(backbone="vgg16_bn")
    with torch.no_grad():
        model.projection.bias.zero_()
        frames = torch.randn(4, 3, 64, 64).double()
        features = model.frame_features(frames)
    found = heatmaps(model, frames)
    assert found.after is not None
    for values, after_graph in ((found.before, False), (found.after, True)):
        twice = 2 * np.array(loop_energies(model, features, after_graph))
        np.testing.assert_allclose(values.sum((1, 2)), twice, rtol=1e-8)


def test_networks_without_a_graph_have_heatmaps_before_it_only() -> None:
    frames = torch.randn(4, 3, 32, 32)
    for changes in ({"num_modules": 0}, {"network": "transformer"}):
        model = FERGCN(tiny_config(**changes)).eval()
        found = heatmaps(model, frames)
        assert found.before.shape[0] == 4
        assert found.after is None


def test_a_vision_transformer_has_no_maps() -> None:
    model = FERGCN(tiny_config(backbone="vit_tiny_patch16_224")).eval()
    with pytest.raises(FergcnError, match="expected a convolutional backbone"):
        heatmaps(model, torch.zeros(4, 3, 224, 224))


@pytest.mark.parametrize("extent", [1.0, 8 / 9])
@pytest.mark.parametrize("place", [(0, 0), (2, 5), (6, 3)])
def test_occlusion_finds_the_place_that_counts(extent: float, place: tuple[int, int]) -> None:
    side = 144
    rng = np.random.default_rng(0)
    face = rng.integers(80, 120, (side, side, 3)).astype(np.uint8)
    row, column = (
        round(side * (0.5 + extent * ((number + 0.5) / BLURRED_PLACES - 0.5))) for number in place
    )
    face[row - 2 : row + 2, column - 2 : column + 2] = 255
    batches = []

    def brightness(faces: np.ndarray) -> np.ndarray:
        batches.append(len(faces))
        return faces[:, row - 2 : row + 2, column - 2 : column + 2].mean((1, 2, 3))

    falls = occlusion_map(brightness, face, extent)
    assert falls.shape == (BLURRED_PLACES, BLURRED_PLACES)
    assert max(batches) <= BLURRED_AT_ONCE
    assert np.unravel_index(falls.argmax(), falls.shape) == place
    # In the middle of the spot all that is there is blurred, elsewhere a Gaussian's part of it.
    blurred = gaussian_filter(face.astype(float), (BLUR * side, BLUR * side, 0), mode="mirror")
    whole = 255 - blurred[row - 2 : row + 2, column - 2 : column + 2].mean()
    apart = (np.arange(BLURRED_PLACES)[:, None] - place) / BLURRED_PLACES
    down, across = np.exp(-0.5 * (apart / SPOT) ** 2).T
    np.testing.assert_allclose(falls, whole * np.outer(down, across), atol=2)


@given(
    values=arrays(np.float64, (2, 7, 7), elements=st.floats(-1, 1).map(lambda v: round(v, 3))),
    moving=arrays(np.bool_, (14, 14)),
)
def test_share_of_heat_counts_areas(values: np.ndarray, moving: np.ndarray) -> None:
    shares = heatmap_share(values, np.where(moving, 0.8, 0.3), extent=7 / 8)
    # On a grid of 224 points a position of the crop takes 28 and a cell of the face 16.
    heat = np.zeros((2, 224, 224))
    heat[:, 14:210, 14:210] = np.kron(np.clip(values, 0, None), np.ones((28, 28)))
    where = np.kron(moving, np.ones((16, 16))) > 0
    for share, picture in zip(shares, heat, strict=True):
        if picture.sum() == 0:
            assert np.isnan(share)
        else:
            assert share == pytest.approx(picture[where].sum() / picture.sum(), abs=1e-9)


@pytest.mark.parametrize("changes", [{}, {"adjacency": "own"}, {"fusion": "last"}])
def test_contributions_add_up_to_the_logits(changes: dict[str, object]) -> None:
    model = shaken_network(**changes)
    features = torch.randn(4, 16).double()
    parts, bias = frame_contributions(model.head, features)
    assert parts.shape == (4, 3)
    logits = model.head(features[None])[0].detach().numpy()
    np.testing.assert_allclose(parts.sum(0) + bias, logits, rtol=1e-10)
    if changes.get("fusion") == "last":
        assert not parts[:-1].any()


def clip(subject: str, intensity: list[float], expression: str = "anger") -> Clip:
    apex = int(np.argmax(intensity))
    return Clip(
        subject, subject, expression, Path("x"), intensity=tuple(intensity), apex_index=apex
    )


def test_claims_compare_weights_with_the_truth() -> None:
    clips = [
        clip("a", [0, 0.1, 0.5, 1, 0.9]),  # sampled: frames 0, 2, 4
        clip("b", [0, 1, 0.2, 0.1, 0]),
        clip("c", [0, 0, 0, 0, 0], "neutral"),
        replace(clip("d", [0, 1, 1]), intensity=None),
    ]
    weights = np.array([[0.1, 0.3, 0.6], [0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    claims = weight_claims(weights, clips)
    assert claims is not None
    assert claims.subject_ids == ["a", "b"]
    truth = np.array([[0, 0.5, 0.9], [0, 0.2, 0]])
    expected = [pearsonr(weights[i], truth[i]).statistic for i in (0, 1)]
    np.testing.assert_allclose(claims.correlations, expected)
    both = pearsonr(weights[:2].mean(0), truth.mean(0)).statistic
    assert claims.curve_correlation == pytest.approx(both)
    # Frame 3 is as far from the sampled 2 as from 4, the earlier counts; so does 0 of 0 and 2.
    assert claims.apex_errors.tolist() == [1, 0]
    assert claims.middle_errors.tolist() == [0, 1]


def test_claims_need_something_to_compare() -> None:
    assert weight_claims(np.array([[0.2, 0.8]]), [clip("a", [0, 0], "neutral")]) is None
    assert weight_claims(np.array([[0.5, 0.5]]), [clip("a", [0, 1])]) is None
