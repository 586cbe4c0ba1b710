"""FER-GCN (Liu, Zhang and Zhou 2020): backbone, graph head, fused classification."""

from collections.abc import Callable
from dataclasses import replace

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
from fergcn.model.graph import (
    FrameIntensity,
    GraphModule,
    intensity_weights,
    resample_adjacency,
)

GAIN = 30.0
"""How much sharpness is worth: it is a single number, and steps as small as those of a weight among
many would leave it near 0. Strength is not: large, it drowns each frame's own features in A."""


class GraphHead(nn.Module):
    """From frame features to logits: graph modules, fusion, linear classifier.

    With `adjacency="per_clip"`, which is ours, u_j says from frame j alone how intense an
    expression it shows, and `A + strength · 1 uᵀ` takes the place of A: every frame listens more to
    the intense ones of its own clip. In the fusion `softmax(mean_i A_ij + sharpness · u_j)` takes
    the place of Eq. 7. Strength and sharpness start at 0, where it is the paper's network.

    Args:
        config: the network's configuration.

    Attributes:
        adjacency: A, `(N, N)`, the identity at first. One parameter that all modules share
            unless the configuration says otherwise; with `own`, `(num_modules, N, N)`; with
            `identity` or without modules, a buffer that is never trained.
        intensity: with `per_clip`, what gives u; None otherwise.
    """

    adjacency: Tensor

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
        self.intensity: FrameIntensity | None = None
        if config.adjacency == "per_clip" and config.num_modules > 0:
            self.intensity = FrameIntensity(config.feature_dim)
            self.strength = nn.Parameter(torch.zeros(()))
            if config.fusion == "intensity":
                self.sharpness = nn.Parameter(torch.zeros(()))

    def clip_adjacency(self, features: Tensor) -> list[Tensor]:
        """What each module takes for A.

        Args:
            features: `(B, N, d)`.

        Returns:
            One for each module: `(N, N)`, or `(B, N, N)` with `per_clip`.
        """
        if self.adjacency.dim() == 3:
            return list(self.adjacency[: len(self.graph_modules)])
        adjacency = self.adjacency
        if self.intensity is not None:
            u = torch.sigmoid(self.intensity(features))  # (B, N)
            shared = resample_adjacency(adjacency, features.shape[1])
            adjacency = shared + self.strength * u[:, None, :]  # every row of the term is u
        return [adjacency] * len(self.graph_modules)

    def intensity_scores(self, features: Tensor) -> Tensor:
        """Scores `(B, N)` of frame features `(B, N, d)`; their sigmoid is u.

        Raises:
            ValueError: the network has no per-clip adjacency.
        """
        if self.intensity is None:
            raise ValueError(
                f"found adjacency={self.config.adjacency}, expected per_clip with graph modules: "
                "no other network tells a frame's intensity"
            )
        scores: Tensor = self.intensity(features)
        return scores

    def frame_outputs(self, features: Tensor) -> Tensor:
        """Run the graph modules.

        Args:
            features: `(B, N, d)`.

        Returns:
            `(B, N, d)`, H after the last module.
        """
        adjacencies = self.clip_adjacency(features)
        for module, adjacency in zip(self.graph_modules, adjacencies, strict=True):
            features = module(features, adjacency)
        return features

    def fusion_weights(self, features: Tensor) -> Tensor:
        """Weight of each frame in the fused representation.

        Without graph modules there is no A to read, and the frames are averaged. Where each module
        has its own A, the last one counts: its frames are the ones that are fused.

        Args:
            features: `(B, N, d)`, what went into the head.

        Returns:
            `(N,)` weights that add up to 1, or `(B, N)` with `per_clip`.
        """
        num_frames = features.shape[1]
        if self.config.fusion == "last":
            return torch.eye(num_frames).to(self.adjacency)[-1]
        if self.config.fusion == "mean" or self.config.num_modules == 0:
            return torch.full((num_frames,), 1 / num_frames).to(self.adjacency)
        if self.intensity is None:
            return intensity_weights(
                self.adjacency[-1] if self.adjacency.dim() == 3 else self.adjacency
            )
        shared = resample_adjacency(self.adjacency, num_frames).detach().mean(0)  # as in Eq. 7
        u = torch.sigmoid(self.intensity(features))
        return torch.softmax(shared + GAIN * self.sharpness * u, dim=-1)

    def frame_contributions(self, features: Tensor) -> Tensor:
        """Part of each frame in each logit, exactly: `w_i · (W h_i)`, Eq. 8 being linear.

        h_i has seen the whole clip through the graph and the BiLSTM: this is what frame i's place
        in the sum is worth, not what the logit would lose without the frame.

        Args:
            features: `(B, N, d)`.

        Returns:
            `(B, N, num_classes)`; summed over the frames and with the classifier's bias added, the
            logits.
        """
        if self.intensity is None:
            self.config.require_num_frames(features.shape[1])
        hidden = self.frame_outputs(features)  # (B, N, d)
        weights = self.fusion_weights(features)[..., None]  # (N, 1) or (B, N, 1)
        parts: Tensor = weights * (hidden @ self.classifier.weight.T)
        return parts

    def forward(self, features: Tensor) -> Tensor:
        """Classify clips from their frame features.

        Args:
            features: `(B, N, d)`; with `per_clip`, N may differ from the configuration's.

        Returns:
            `(B, num_classes)` logits.

        Raises:
            ValueError: the clips have another number of frames than A.
        """
        if self.intensity is None:
            self.config.require_num_frames(features.shape[1])
        hidden = self.frame_outputs(features)  # (B, N, d)
        # Eq. 8: (N) or (B, N) · (B, N, d) → (B, d)
        fused = (self.fusion_weights(features)[..., None] * hidden).sum(dim=1)
        logits: Tensor = self.classifier(fused)
        return logits


HEADS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "fer-gcn": GraphHead,
    # The first row of Table V; the other settings of the graph head have nothing to act on.
    "frame-average": lambda config: GraphHead(replace(config, num_modules=0, fusion="mean")),
    "cnn-bilstm": BiLSTMHead,
    "frame-attention": FrameAttentionHead,
    "transformer": TransformerHead,
}
"""From frame features `(B, N, d)` to logits `(B, num_classes)`, by `ModelConfig.network`."""


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
        self.projection = nn.Linear(self.backbone_dim, config.feature_dim)
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
            `(M, d)`.
        """
        features: Tensor = self.projection(self.backbone_features(frames))
        return features

    def intensity_scores(self, frames: Tensor) -> Tensor:
        """Map frames `(B, N, 3, H, W)` to `(B, N)`, as `GraphHead.intensity_scores`."""
        assert isinstance(self.head, GraphHead)  # others are never asked
        features = self.frame_features(frames.flatten(0, 1))  # (B·N, d)
        return self.head.intensity_scores(features.view(*frames.shape[:2], -1))

    def forward(self, frames: Tensor) -> Tensor:
        """Classify clips.

        Args:
            frames: `(B, N, 3, H, W)`, RGB, normalised as `fergcn.transforms.normalize` does.

        Returns:
            `(B, num_classes)` logits.
        """
        features = self.frame_features(frames.flatten(0, 1))  # (B·N, d)
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
