"""What defines a network."""

from dataclasses import dataclass
from typing import Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of red, green and blue, 0 to 1: every network takes pixels less these means, in these units."""


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
    """`vgg16_bn`, `face_resnet`, `face_mobilenet` or any timm model name."""
    fusion: Literal["intensity", "mean", "last"] = "intensity"
    """How frames become one vector: Eq. 7 and 8, their average, or the last one."""
    adjacency: Literal["shared", "own", "identity", "per_clip"] = "shared"
    """One learned A for all modules, a learned A for each, the fixed identity, or a graph of each
    clip's own, as `GraphHead` explains it."""
    temporal: Literal["eq6", "concat", "none"] = "eq6"
    """What follows each graph convolution: Eq. 6, a concatenating BiLSTM, or nothing."""
    negative_slope: float = 0.2
    """Of the LeakyReLU in Eq. 4."""
    feature_dropout: float = 0.0
    """Share of the backbone's features that training leaves out."""
    neutral: int | None = None
    """Which of the classes is neutral; with `per_clip`, a frame's intensity is read from it."""
    sharpness: float | None = None
    """How sharply the fusion weights follow the intensity, with `per_clip` and the fusion by
    intensity: learned if None; otherwise this much, but not in training. A frame of intensity 1
    counts `exp(GAIN · sharpness)` times as much as one of 0."""
    pretrained: bool = True
    """Start the backbone from ImageNet weights (`r3d-18`: from Kinetics)."""
    network: Literal[
        "fer-gcn", "frame-average", "cnn-bilstm", "frame-attention", "transformer", "r3d-18"
    ] = "fer-gcn"
    """FER-GCN or what it is compared with. `num_modules`, `fusion`, `adjacency`, `temporal` and
    `negative_slope` count for FER-GCN alone, `backbone`, `feature_dim` and `feature_dropout` for
    all but `r3d-18`."""

    @property
    def per_clip(self) -> bool:
        """Whether each clip has a graph of its own."""
        return self.network == "fer-gcn" and self.adjacency == "per_clip" and self.num_modules > 0

    @property
    def frame_dim(self) -> int:
        """Numbers that describe a frame: d, or twice as many with a graph of each clip's own."""
        return 2 * self.feature_dim if self.per_clip else self.feature_dim

    def __post_init__(self) -> None:
        choices = {
            "fusion": ("intensity", "mean", "last"),
            "adjacency": ("shared", "own", "identity", "per_clip"),
            "temporal": ("eq6", "concat", "none"),
            "network": (
                *("fer-gcn", "frame-average", "cnn-bilstm"),
                *("frame-attention", "transformer", "r3d-18"),
            ),
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
        if not 0 <= self.feature_dropout < 1:
            raise ValueError(
                f"found feature_dropout={self.feature_dropout}, expected 0 to 1, without 1"
            )
        if self.sharpness is not None and not 0 <= self.sharpness < float("inf"):
            raise ValueError(
                f"found sharpness={self.sharpness}, expected at least 0, or none to learn it"
            )
        if self.neutral is not None and not 0 <= self.neutral < self.num_classes:
            raise ValueError(
                f"found neutral={self.neutral}, expected one of {self.num_classes} classes"
            )
        if self.feature_dim < 2 or self.feature_dim % 2:
            raise ValueError(
                f"found feature_dim={self.feature_dim}, expected an even number: U halves it"
            )
        if self.network == "transformer" and self.feature_dim % 4:
            raise ValueError(
                f"found feature_dim={self.feature_dim}, expected a multiple of 4 with the "
                "transformer: its four attention heads share it"
            )

    def require_num_frames(self, num_frames: int) -> None:
        """Refuse a clip that the network can't take.

        Args:
            num_frames: frames that the clip has.

        Raises:
            ValueError: they are not N.
        """
        if num_frames != self.num_frames:
            raise ValueError(
                f"clip has {num_frames} frames but the model takes {self.num_frames}: "
                "choose frames with fergcn.sample_frames"
            )
