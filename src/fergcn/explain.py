"""What the network looks at and which frames count, as arrays; nothing here draws."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fergcn.clips import Clip, sample_frames
from fergcn.expressions import FergcnError
from fergcn.metrics import mean_interval, median_interval, pooled_correlation
from fergcn.model import FERGCN, GraphHead, GraphModule
from fergcn.model.backbones import VGG16BN
from fergcn.model.comparators import FrameAttentionHead

MOVES = 0.5
"""A cell of a motion grid counts as moving from here; the cell that moves most has 1."""

BLURRED_PLACES = 8
"""Along each side of a picture, for `occlusion_map`."""
SPOT = 0.13
"""Standard deviation of the soft spot that is blurred, as a share of the picture's side: about the
size of a mouth's corner or a brow."""
BLUR = 0.125
"""Standard deviation of the blur, as a share of the face's side: no feature of a face is left."""
BLURRED_AT_ONCE = 16
"""Faces that are scored at once; bounds memory."""

Floats = NDArray[np.float64]


def spatial_maps(model: FERGCN, frames: Tensor) -> Tensor:
    """The backbone's last maps, before they are pooled over space.

    Args:
        model: the network, in evaluation mode.
        frames: `(M, 3, H, W)`, normalised.

    Returns:
        `(M, C, h, w)`.

    Raises:
        FergcnError: the backbone has no maps, as a vision transformer.
    """
    backbone: Any = model.backbone  # timm's methods are unknown to type checkers
    if isinstance(backbone, VGG16BN):
        maps: Tensor = backbone.features(frames)
        return maps
    maps = backbone.forward_features(frames)
    if maps.dim() != 4:
        raise FergcnError(
            f"{model.config.backbone}: found features without a map of positions, expected a "
            "convolutional backbone: heatmaps need one"
        )
    return maps.permute(0, 3, 1, 2) if _channels_last(model) else maps


def pool_maps(model: FERGCN, maps: Tensor) -> Tensor:
    """Finish what `spatial_maps` began: `(M, C, h, w)` to frame features `(M, d)`."""
    backbone: Any = model.backbone
    if isinstance(backbone, VGG16BN):
        pooled: Tensor = maps.mean(dim=(2, 3))
    else:
        pooled = backbone.forward_head(maps.permute(0, 2, 3, 1) if _channels_last(model) else maps)
    features: Tensor = model.projection(pooled)
    return features


def _channels_last(model: FERGCN) -> bool:
    return str(getattr(model.backbone, "output_fmt", "NCHW")) == "NHWC"


@dataclass(frozen=True)
class Heatmaps:
    """Where in the picture a clip's frame features come from."""

    before: Floats
    """`(N, h, w)` for the features x that enter the first graph layer. Signed; the part above
    zero is what a picture shows."""
    after: Floats | None
    """`(N, h, w)` for the layer's outputs o; None for a network without graph modules."""


def heatmaps(model: FERGCN, frames: Tensor) -> Heatmaps:
    """Heatmaps of a clip's features before and after the first graph layer (Fig. 1 and 3).

    The paper shows such heatmaps but not how they are made. Here frame i has the energy
    `½‖h_i − mean_k h_k‖²`, where h is x (before: pooled maps, projected) or
    `o = LeakyReLU(A X W)` (after), and the mean is over the clip's frames: what is the same in all
    frames, such as the person, is no expression. The energy's gradient with respect to the
    backbone's last maps, times these maps, is summed over channels and over all frames of the
    clip, as frame i of o draws from all of them.

    Where pooling is linear (global average), the values of a frame add up to
    `‖h_i − mean_k h_k‖²`, twice the energy: exactly for x, and for o up to what the projection's
    bias adds, which has no place in the picture (and what a graph of the clip's own bends).

    Args:
        model: the network, in evaluation mode.
        frames: `(N, 3, H, W)` of one clip, normalised.

    Raises:
        FergcnError: the backbone has no maps, as a vision transformer.
    """
    with torch.no_grad():
        maps = spatial_maps(model, frames)
    maps.requires_grad_()
    features = pool_maps(model, maps)  # (N, frame_dim)
    if not isinstance(model.head, GraphHead) or not len(model.head.graph_modules):
        return Heatmaps(_energy_maps(features, maps), None)
    module = model.head.graph_modules[0]
    assert isinstance(module, GraphModule)
    nodes = model.head.nodes(features[None])  # (1, N, d)
    before = _energy_maps(nodes[0], maps)
    outputs = module.graph(nodes, model.head.clip_adjacency(nodes)[0])[0]
    return Heatmaps(before, _energy_maps(outputs, maps))


def _energy_maps(features: Tensor, maps: Tensor) -> Floats:
    """Gradient × activation of each frame's energy: `(N, d)` and `(N, C, h, w)` to `(N, h, w)`."""
    energies = 0.5 * (features - features.mean(0)).square().sum(1)  # (N)
    rows = []
    for energy in energies:
        (gradient,) = torch.autograd.grad(energy, maps, retain_graph=True)
        rows.append((gradient * maps.detach()).sum((0, 1)))
    values: Floats = torch.stack(rows).double().cpu().numpy()
    return values


def occlusion_map(
    score: Callable[[NDArray[np.uint8]], Floats], face: NDArray[np.uint8], extent: float = 1.0
) -> Floats:
    """How much less a face scores when one place of it is blurred (after Zeiler and Fergus 2014).

    Needs no gradients and no maps of positions, so any network can be asked, whatever runs it; and
    what it says has been tried out. A blur takes a wrinkle or a smile's corner away and, unlike a
    grey square, adds no edges.

    Args:
        score: `(M, S, S, 3)` RGB faces to `(M,)`.
        face: `(S, S, 3)` RGB.
        extent: side of the centre crop that the network sees, as a share of the face's side.

    Returns:
        `(BLURRED_PLACES, BLURRED_PLACES)` for places evenly spread over the crop; below zero where
        the face scores more without what is there.
    """
    side = len(face)
    blurred = cv2.GaussianBlur(face, (0, 0), BLUR * side).astype(np.float64)
    pixels = (np.arange(side) + 0.5) / side
    centres = 0.5 + extent * ((np.arange(BLURRED_PLACES) + 0.5) / BLURRED_PLACES - 0.5)
    spots = np.exp(-0.5 * ((pixels - centres[:, None]) / (SPOT * extent)) ** 2)  # (places, S)
    masks = (spots[:, None, :, None] * spots[:, None, :]).reshape(-1, side, side, 1)
    scores = [score(face[None])]
    for start in range(0, len(masks), BLURRED_AT_ONCE):
        faces = face + masks[start : start + BLURRED_AT_ONCE] * (blurred - face)
        scores.append(score(faces.round().astype(np.uint8)))
    whole, *others = np.concatenate(scores)
    falls: Floats = whole - np.array(others)
    return falls.reshape(BLURRED_PLACES, BLURRED_PLACES)


def heatmap_share(values: Floats, motion: Floats, extent: float = 1.0) -> Floats:
    """Share of heatmaps that lies where the face really moves: in cells of at least `MOVES`.

    The heatmap's part above zero is spread over the motion grid by area, so that none is lost.
    A heatmap that is the same everywhere gives the share to beat.

    Args:
        values: `(..., h, w)` heatmaps of the centre crop.
        motion: `(s, s)` grid over the whole face, as `load_motion` gives it.
        extent: side of the crop as a share of the face's side.

    Returns:
        `(...)` shares, 0 to 1; NaN for a heatmap without anything above zero.
    """
    positive = np.clip(values, 0, None)
    rows = _overlap(len(motion), positive.shape[-2], extent)
    columns = _overlap(len(motion), positive.shape[-1], extent)
    cells = rows @ positive @ columns.T  # (..., s, s)
    total = cells.sum((-2, -1))
    moving = cells[..., motion >= MOVES].sum(-1)
    shares: Floats = np.divide(moving, total, out=np.full_like(total, np.nan), where=total > 0)
    return shares


def _overlap(cells: int, positions: int, extent: float) -> Floats:
    """Part of each position that lies in each cell, `(cells, positions)`; columns add up to 1."""
    left = np.arange(cells)[:, None] / cells
    step = extent / positions
    start = (1 - extent) / 2 + np.arange(positions) * step
    shared = np.minimum(left + 1 / cells, start + step) - np.maximum(left, start)
    overlap: Floats = np.clip(shared, 0, None) / step
    return overlap


def frame_contributions(head: GraphHead, features: Tensor) -> tuple[Floats, Floats]:
    """What each frame contributes to each logit, as `Reading.contributions` has it.

    Args:
        head: the network's head, in evaluation mode.
        features: `(N, frame_dim)` frame features of one clip.

    Returns:
        `(N, classes)` contributions and the classifier's `(classes,)` bias; together they add up
        to the logits.
    """
    with torch.no_grad():
        parts = head.read(features[None]).contributions[0]
    return parts.double().cpu().numpy(), head.classifier.bias.detach().double().cpu().numpy()


def frame_scores(head: nn.Module, features: Tensor) -> dict[str, Floats]:
    """What a head says of how much each frame counts.

    Args:
        head: the network's head, in evaluation mode.
        features: `(B, N, frame_dim)`, what goes into it.

    Returns:
        `(B, N)` each: `weights`, the fusion weights, of heads that learn them; `intensity`, u of
        0 to 1, of graph heads with `per_clip`. Nothing of other heads.
    """
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        if isinstance(head, FrameAttentionHead):
            found["weights"] = head.fusion_weights(features)
        elif isinstance(head, GraphHead):
            reading = head.read(features)
            if head.config.fusion == "intensity" and len(head.graph_modules) > 0:
                found["weights"] = reading.weights
            if reading.intensity is not None:
                found["intensity"] = reading.intensity
    return {name: values.double().cpu().numpy() for name, values in found.items()}


def sampled_intensity(clip: Clip, num_frames: int) -> Floats | None:
    """True intensity of the frames that the network sees, `(N,)`; None where nobody knows it."""
    if clip.intensity is None:
        return None
    return np.array(clip.intensity)[sample_frames(len(clip.intensity), num_frames)]


@dataclass(frozen=True)
class WeightClaims:
    """How well intensity weights tell true intensities (Section IV.D)."""

    subject_ids: list[str]
    """The person of each clip that counts: those that show an expression of known intensity."""
    correlations: Floats
    """`(clips,)` Pearson's r between a clip's weights and its true intensities."""
    curve_correlation: float
    """Pearson's r between the average weights and the average true intensities."""
    apex_errors: Floats
    """`(clips,)` distance of the highest weight from the true apex, in sampled frames."""
    middle_errors: Floats
    """`(clips,)` what naming the middle frame for every clip would give: the number to beat."""


def weight_claims(weights: Floats, clips: Sequence[Clip]) -> WeightClaims | None:
    """Compare intensity weights with the truth.

    Args:
        weights: `(len(clips), N)`, the weights of the network that each clip was a test clip of.
        clips: the clips; those without expression or without known intensity don't count.

    Returns:
        None where nothing can be said: no clip counts, or the weights of a clip are all the same.
    """
    num_frames = weights.shape[1]
    counted, truths, apexes = [], [], []
    for row, clip in enumerate(clips):
        truth = sampled_intensity(clip, num_frames)
        if truth is None or clip.apex_index is None or clip.expression == "neutral":
            continue
        if np.ptp(truth) == 0 or np.ptp(weights[row]) == 0:
            continue  # a correlation with a constant is no number
        indices = sample_frames(len(clip.intensity or ()), num_frames)
        apexes.append(int(np.abs(indices - clip.apex_index).argmin()))
        truths.append(truth)
        counted.append(row)
    if not counted:
        return None
    chosen = weights[counted]
    pairs = zip(chosen, truths, strict=True)
    return WeightClaims(
        subject_ids=[clips[row].subject_id for row in counted],
        correlations=np.array([np.corrcoef(pair)[0, 1] for pair in pairs]),
        curve_correlation=float(np.corrcoef(chosen.mean(0), np.mean(truths, 0))[0, 1]),
        apex_errors=np.abs(chosen.argmax(1) - np.array(apexes)).astype(np.float64),
        middle_errors=np.abs(num_frames // 2 - np.array(apexes)).astype(np.float64),
    )


def summarize_claims(claims: WeightClaims) -> dict[str, Any]:
    """Bring claims into JSON values: the correlation's mean and the apex error's median.

    Returns:
        `clips`, `correlation`, `apex_error`, both with their 95 % interval over subjects in
        `…_ci`, and `apex_error_of_middle`, the median error of naming the middle frame.
    """
    people = claims.subject_ids
    return {
        "clips": len(people),
        "correlation": float(claims.correlations.mean()),
        "correlation_ci": list(mean_interval(claims.correlations, people)),
        "apex_error": float(np.median(claims.apex_errors)),
        "apex_error_ci": list(median_interval(claims.apex_errors, people)),
        "apex_error_of_middle": float(np.median(claims.middle_errors)),
    }


def compare_between_clips(intensity: Floats, clips: Sequence[Clip]) -> dict[str, Any]:
    """Tell whether a frame's intensity means the same in one clip as in another.

    Args:
        intensity: `(len(clips), N)`.
        clips: the clips; those without known intensity don't count, neutral ones do.

    Returns:
        `pooled_clips`, `pooled_correlation` over the frames of all clips together, its interval
        over subjects in `pooled_correlation_ci`; nothing where no correlation is defined.
    """
    truths = [sampled_intensity(clip, intensity.shape[1]) for clip in clips]
    rows = [row for row, truth in enumerate(truths) if truth is not None]
    known = np.array([truths[row] for row in rows])
    if not rows or np.ptp(known) == 0 or np.ptp(intensity[rows]) == 0:
        return {}
    people = [clips[row].subject_id for row in rows]
    correlation, interval = pooled_correlation(intensity[rows], known, people)
    return {
        "pooled_clips": len(rows),
        "pooled_correlation": correlation,
        "pooled_correlation_ci": list(interval),
    }
