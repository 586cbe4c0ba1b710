"""FER-GCN (Liu, Zhang and Zhou 2020): backbone, graph head, fused classification."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fergcn.model.backbones import create_backbone
from fergcn.model.graph import GraphModule, intensity_weights


@dataclass(frozen=True)
class ModelConfig:
    """Everything that defines a network; the defaults are the paper's."""

    num_classes: int
    """Number of expressions."""
    num_frames: int = 16
    """N, frames of a clip and nodes of the graph."""
    feature_dim: int = 256
    """d, size of a frame's feature vector."""
    num_modules: int = 2
    """Graph modules, 0 to 4; with 0 the network is the frame-average CNN of Table V's first row."""
    backbone: str = "vgg16_bn"
    """`vgg16_bn` or any timm model name."""
    fusion: Literal["intensity", "mean", "last"] = "intensity"
    """How frames become one vector: Eq. 7 and 8, their average, or the last one."""
    adjacency: Literal["shared", "own", "identity"] = "shared"
    """One learned A for all modules, a learned A for each, or the fixed identity."""
    temporal: Literal["eq6", "concat", "none"] = "eq6"
    """What follows each graph convolution: Eq. 6, a concatenating BiLSTM, or nothing."""
    negative_slope: float = 0.2
    """Of the LeakyReLU in Eq. 4."""
    pretrained: bool = True
    """Start the backbone from ImageNet weights."""

    def __post_init__(self) -> None:
        choices = {
            "fusion": ("intensity", "mean", "last"),
            "adjacency": ("shared", "own", "identity"),
            "temporal": ("eq6", "concat", "none"),
        }
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"found {name}={value}, expected one of {', '.join(allowed)}")
        if not 0 <= self.num_modules <= 4:
            raise ValueError(f"found num_modules={self.num_modules}, expected 0 to 4")
        if self.num_classes < 2 or self.num_frames < 1:
            raise ValueError(
                f"found num_classes={self.num_classes} and num_frames={self.num_frames}, "
                "expected at least 2 and 1"
            )
        if self.feature_dim < 2 or self.feature_dim % 2:
            raise ValueError(
                f"found feature_dim={self.feature_dim}, expected an even number: U halves it"
            )


class GraphHead(nn.Module):
    """From frame features to logits: graph modules, fusion, linear classifier.

    Args:
        config: the network's configuration.

    Attributes:
        adjacency: A, `(N, N)`, the identity at first. One parameter that all modules share
            unless the configuration says otherwise; with `own`, `(num_modules, N, N)`; with
            `identity` or without modules, a buffer that is never trained.
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

    def frame_outputs(self, features: Tensor) -> Tensor:
        """Run the graph modules.

        Args:
            features: `(B, N, d)`.

        Returns:
            `(B, N, d)`, H after the last module.
        """
        for index, module in enumerate(self.graph_modules):
            adjacency = self.adjacency[index] if self.adjacency.dim() == 3 else self.adjacency
            features = module(features, adjacency)
        return features

    def fusion_weights(self) -> Tensor:
        """Weight of each frame in the fused representation.

        Without graph modules there is no A to read, and the frames are averaged. Where each module
        has its own A, the last one counts: its frames are the ones that are fused.

        Returns:
            `(N,)` weights that add up to 1.
        """
        num_frames = self.config.num_frames
        if self.config.fusion == "last":
            return torch.eye(num_frames, device=self.adjacency.device)[-1]
        if self.config.fusion == "mean" or self.config.num_modules == 0:
            return torch.full((num_frames,), 1 / num_frames, device=self.adjacency.device)
        adjacency = self.adjacency[-1] if self.adjacency.dim() == 3 else self.adjacency
        return intensity_weights(adjacency)

    def forward(self, features: Tensor) -> Tensor:
        """Classify clips from their frame features.

        Args:
            features: `(B, N, d)`.

        Returns:
            `(B, num_classes)` logits.

        Raises:
            ValueError: the clips have another number of frames than A.
        """
        if features.shape[1] != self.config.num_frames:
            raise ValueError(
                f"clip has {features.shape[1]} frames but the model takes "
                f"{self.config.num_frames}: choose frames with fergcn.sample_frames"
            )
        hidden = self.frame_outputs(features)  # (B, N, d)
        fused = self.fusion_weights() @ hidden  # Eq. 8: (N) · (B, N, d) → (B, d)
        logits: Tensor = self.classifier(fused)
        return logits


class FERGCN(nn.Module):
    """The whole network: frames in, logits out.

    Args:
        config: the network's configuration.

    Raises:
        ValueError: the backbone's name is unknown.
        OSError: its ImageNet weights can't be had.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone, self.backbone_dim = create_backbone(config.backbone, config.pretrained)
        self.projection = nn.Linear(self.backbone_dim, config.feature_dim)
        self.head = GraphHead(config)

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
