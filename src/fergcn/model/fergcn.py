"""FER-GCN (Liu, Zhang and Zhou 2020): backbone, graph head, fused classification."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fergcn.model.backbones import create_backbone
from fergcn.model.comparators import (
    BiLSTMHead,
    FrameAttentionHead,
    TransformerHead,
    VideoCNN,
)
from fergcn.model.config import ModelConfig
from fergcn.model.graph import GraphModule, intensity_weights, resample_adjacency

GAIN = 30.0
"""How much sharpness is worth: it is a single number, and steps as small as those of a weight among
many would leave it near 0."""


class Reading(NamedTuple):
    """What a graph head says of clips."""

    logits: Tensor
    """`(B, num_classes)`."""
    weights: Tensor
    """`(B, N)` weight of each frame in the fused representation; a clip's add up to 1."""
    contributions: Tensor
    """`(B, N, num_classes)` part of each frame in each logit, exactly: `w_i · (W h_i)`, Eq. 8 being
    linear. Summed over the frames and with the classifier's bias added, the logits. h_i has seen
    the whole clip through the graph modules: this is what frame i's place in the sum is
    worth, not what the logit would lose without the frame."""
    intensity: Tensor | None
    """`(B, N)` how intense an expression each frame shows, 0 to 1; None without `per_clip`."""


class GraphHead(nn.Module):
    """From frame features to logits: graph modules, fusion, linear classifier.

    With `adjacency="per_clip"`, which is ours, every clip has a graph of its own:

    - A frame enters as `p_i + q_i - mean(q)`, by itself and by how it differs from its clip: the
      features have two halves, p and q. (On the complete graph this is one more convolution.)
    - All modules share `A + strength · softmax(Q Kᵀ / √(d/2))`, scaled dot products of the frames.
    - How much a frame shows of the clip's expression, the classifier says, too. What Eq. 7 and 8
      answer gives the probabilities p_c that it is c, neutral left out; of logits z_c of a frame,
      `s(z) = Σ_c p_c σ(z_c - z_neutral)`, or, where no class is neutral, `Σ_c p_c softmax(z)_c`.
      z is what the network answers to the frame as a clip of its own, in which no place in time
      counts: entering as above, it tells small changes; as p_i alone, an expression that does not
      change. All these logits are those that were learned, before calibration and `rare_shift`.
      The frame's intensity is `u_i = 1 - (1 - s(changes)) (1 - s(alone))`. In the fusion
      `softmax(mean_i A_ij + GAIN · sharpness · u_j)` takes the place of Eq. 7; as there, no
      gradient reaches u from it.

    q, strength and sharpness start at 0, where it is the paper's network. With `config.sharpness`,
    sharpness is that number once training is over, and 0 before: a classifier that learns from a
    clip's intense frames most does not learn what its neutral ones look like, and u suffers.

    Args:
        config: the network's configuration.

    Attributes:
        adjacency: A, `(N, N)`, the identity at first. One parameter that all modules share
            unless the configuration says otherwise; with `own`, `(num_modules, N, N)`; with
            `identity` or without modules, a buffer that is never trained.
        per_clip: whether each clip has a graph of its own.
    """

    adjacency: Tensor
    temperature: Tensor
    shift: Tensor
    sharpness: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        identity = torch.eye(config.num_frames)
        if config.adjacency == "own":
            identity = identity.repeat(max(config.num_modules, 1), 1, 1)
        if config.adjacency == "identity" or config.num_modules == 0:  # nothing to learn
            self.register_buffer("adjacency", identity)
        else:
            self.adjacency = nn.Parameter(identity)
        self.graph_modules = nn.ModuleList(
            GraphModule(config.feature_dim, config.temporal, config.negative_slope)
            for _ in range(config.num_modules)
        )
        self.classifier = nn.Linear(config.feature_dim, config.num_classes)
        self.per_clip = config.per_clip
        if self.per_clip:
            self.query_key = nn.Linear(config.feature_dim, config.feature_dim, bias=False)
            self.strength = nn.Parameter(torch.zeros(()))
            # What was done to the logits after training: u is read from them as they were learned.
            self.register_buffer("temperature", torch.ones(()))  # what calibration divided by
            self.register_buffer("shift", torch.zeros(config.num_classes))  # added by rare_shift
            if config.fusion == "intensity":
                if config.sharpness is None:
                    self.sharpness = nn.Parameter(torch.zeros(()))
                else:
                    self.register_buffer("sharpness", torch.tensor(config.sharpness))

    def nodes(self, features: Tensor) -> Tensor:
        """What the frames enter the graph with: `(B, N, frame_dim)` → `(B, N, d)`."""
        if not self.per_clip:
            return features
        own, contrast = features.chunk(2, dim=-1)
        return own + contrast - contrast.mean(dim=1, keepdim=True)

    def clip_adjacency(self, nodes: Tensor) -> list[Tensor]:
        """What each module takes for A.

        Args:
            nodes: `(B, N, d)`.

        Returns:
            One for each module: `(N, N)`, or `(B, N, N)` with `per_clip`.
        """
        if self.adjacency.dim() == 3:
            return list(self.adjacency[: len(self.graph_modules)])
        adjacency = self.adjacency
        if self.per_clip:
            query, key = self.query_key(nodes).chunk(2, dim=-1)  # (B, N, d/2)
            alike = torch.softmax(query @ key.transpose(1, 2) / query.shape[-1] ** 0.5, dim=-1)
            shared = resample_adjacency(adjacency, nodes.shape[1])
            adjacency = shared + self.strength * alike
        return [adjacency] * len(self.graph_modules)

    def frame_outputs(self, features: Tensor) -> Tensor:
        """Run the graph modules.

        Args:
            features: `(B, N, frame_dim)`.

        Returns:
            `(B, N, d)`, H after the last module.
        """
        return self._propagate(self.nodes(features))

    def _propagate(self, nodes: Tensor) -> Tensor:
        adjacencies = self.clip_adjacency(nodes)
        for module, adjacency in zip(self.graph_modules, adjacencies, strict=True):
            nodes = module(nodes, adjacency)
        return nodes

    def read(self, features: Tensor) -> Reading:
        """Say everything about clips.

        Args:
            features: `(B, N, frame_dim)`; with `per_clip`, N may differ from the configuration's.

        Raises:
            ValueError: the clips have another number of frames than A, or these are the features
                of another network.
        """
        if features.shape[-1] != self.config.frame_dim:
            raise ValueError(
                f"found {features.shape[-1]} features a frame, expected {self.config.frame_dim}: "
                "take what frame_features gives"
            )
        if not self.per_clip:
            self.config.require_num_frames(features.shape[1])
        hidden = self.frame_outputs(features)  # (B, N, d)
        weights = self._fusion_weights(features.shape[1]).expand(features.shape[:2])
        intensity = None
        if self.per_clip:
            intensity = self._intensity(features, hidden, weights)
            follows = self.config.sharpness is None or not self.training
            if self.config.fusion == "intensity" and follows:
                # log: of the softmax, what went into it
                sharp = GAIN * self.sharpness * intensity.detach()
                weights = torch.softmax(weights.log() + sharp, dim=-1)
        fused = (weights[..., None] * hidden).sum(dim=1)  # Eq. 8: (B, N, 1) · (B, N, d) → (B, d)
        parts = weights[..., None] * (hidden @ self.classifier.weight.T)
        return Reading(self.classifier(fused), weights, parts, intensity)

    def _intensity(self, features: Tensor, hidden: Tensor, weights: Tensor) -> Tensor:
        """How much of the clip's expression each frame shows, `(B, N)`."""
        fused = (weights[..., None] * hidden).sum(dim=1, keepdim=True)  # (B, 1, d)
        clips = self._learned_logits(fused)  # (B, 1, num_classes)
        changes = self._share(clips, self.nodes(features))
        alone = self._share(clips, features.chunk(2, dim=-1)[0])
        return (1 - (1 - changes) * (1 - alone)).clamp(0, 1)

    def _share(self, clips: Tensor, nodes: Tensor) -> Tensor:
        """`s(z)` above: clips' logits `(B, 1, num_classes)`, nodes `(B, N, d)` → `(B, N)`."""
        hidden = self._propagate(nodes.flatten(0, 1)[:, None])  # (B·N, 1, d)
        frames = self._learned_logits(hidden).view(*nodes.shape[:2], -1)
        neutral = self.config.neutral
        if neutral is None:
            return (torch.softmax(clips, dim=-1) * torch.softmax(frames, dim=-1)).sum(dim=-1)
        shown = [c for c in range(frames.shape[-1]) if c != neutral]
        probs = torch.softmax(clips[..., shown], dim=-1)
        return (probs * torch.sigmoid(frames[..., shown] - frames[..., [neutral]])).sum(dim=-1)

    def _learned_logits(self, hidden: Tensor) -> Tensor:
        """Logits before calibration and `rare_shift`: `(…, d)` → `(…, num_classes)`."""
        logits: Tensor = self.classifier(hidden) * self.temperature - self.shift
        return logits

    def _fusion_weights(self, num_frames: int) -> Tensor:
        """Weights `(N,)` that are the same for all clips.

        Without graph modules there is no A to read, and the frames are averaged. Where each module
        has its own A, the last one counts: its frames are the ones that are fused.
        """
        if self.config.fusion == "last":
            return torch.eye(num_frames).to(self.adjacency)[-1]
        if self.config.fusion == "mean" or self.config.num_modules == 0:
            return torch.full((num_frames,), 1 / num_frames).to(self.adjacency)
        adjacency = self.adjacency[-1] if self.adjacency.dim() == 3 else self.adjacency
        if self.per_clip:
            adjacency = resample_adjacency(adjacency, num_frames)
        return intensity_weights(adjacency)

    def forward(self, features: Tensor) -> Tensor:
        """Classify clips: `(B, N, frame_dim)` features → `(B, num_classes)` logits, as `read`."""
        return self.read(features).logits


HEADS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "fer-gcn": GraphHead,
    # The first row of Table V; the other settings of the graph head have nothing to act on.
    "frame-average": lambda config: GraphHead(replace(config, num_modules=0, fusion="mean")),
    "cnn-bilstm": BiLSTMHead,
    "frame-attention": FrameAttentionHead,
    "transformer": TransformerHead,
}
"""From `(B, N, frame_dim)` features to `(B, num_classes)` logits, by `ModelConfig.network`."""


class FERGCN(nn.Module):
    """The whole network: frames in, logits out.

    With another `ModelConfig.network` than `fer-gcn`, the same backbone and projection under the
    head of a comparator: what is compared is the head alone.

    Args:
        config: the network's configuration.

    Raises:
        ValueError: the backbone's name is unknown, or the network has no frame features.
        OSError: its ImageNet weights can't be had.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.network not in HEADS:
            raise ValueError(
                f"found network={config.network}, expected one of {', '.join(HEADS)}: "
                "build it with fergcn.model.create_network"
            )
        self.config = config
        self.backbone, self.backbone_dim = create_backbone(config.backbone, config.pretrained)
        self.dropout = nn.Dropout(config.feature_dropout)
        self.projection = nn.Linear(self.backbone_dim, config.frame_dim)
        if config.per_clip:  # the second half says how a frame differs from its clip
            nn.init.zeros_(self.projection.weight[config.feature_dim :])
            nn.init.zeros_(self.projection.bias[config.feature_dim :])
        self.head = HEADS[config.network](config)

    def backbone_features(self, frames: Tensor) -> Tensor:
        """What the backbone alone says about single frames: `(M, 3, H, W)` → `(M, C)`."""
        # Channels last is the faster layout on CPUs, about twice for mobile networks.
        features: Tensor = self.backbone(frames.contiguous(memory_format=torch.channels_last))
        return features

    def frame_features(self, frames: Tensor) -> Tensor:
        """Describe single frames; nothing here depends on the other frames of a clip.

        Args:
            frames: `(M, 3, H, W)`, RGB, normalised as `fergcn.transforms.normalize` does.

        Returns:
            `(M, frame_dim)`.
        """
        features: Tensor = self.projection(self.dropout(self.backbone_features(frames)))
        return features

    def forward(self, frames: Tensor) -> Tensor:
        """Classify clips.

        Args:
            frames: `(B, N, 3, H, W)`, RGB, normalised as `fergcn.transforms.normalize` does.

        Returns:
            `(B, num_classes)` logits.
        """
        features = self.frame_features(frames.flatten(0, 1))  # (B·N, frame_dim)
        logits: Tensor = self.head(features.view(*frames.shape[:2], -1))
        return logits


Network = FERGCN | VideoCNN
"""Frames `(B, N, 3, H, W)` in, logits `(B, num_classes)` out."""


def last_layer(model: Network) -> nn.Linear:
    """The linear layer that makes the logits."""
    layer = model.cnn.fc if isinstance(model, VideoCNN) else model.head.classifier
    assert isinstance(layer, nn.Linear)
    return layer


def create_network(config: ModelConfig) -> Network:
    """Build the network that a configuration names.

    Raises:
        ValueError: the backbone's name is unknown.
        OSError: pretrained weights can't be had.
    """
    return VideoCNN(config) if config.network == "r3d-18" else FERGCN(config)
