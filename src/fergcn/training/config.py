"""How a network is trained: flags, configuration file and a run's record are this one dataclass."""

from dataclasses import dataclass
from typing import Literal

from fergcn.expressions import FergcnError
from fergcn.model import ModelConfig


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained; the defaults are the paper's (Section IV.B)."""

    epochs: int = 120
    """Passes over the training clips. The last epoch is the result: none is chosen by its score."""
    batch_size: int = 4
    """Clips in a step, on each device."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """The paper's SGD, or AdamW."""
    learning_rate: float = 1e-3
    """Step size."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate over the run: the paper's constant one, or one warm-up epoch, then a cosine."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 5e-5
    """L2 penalty."""
    resize: int = 256
    """Side to which face crops are resized, in pixels."""
    crop: int = 224
    """Side of the random crop (centre crop when evaluating), in pixels."""
    illumination: float = 0.2
    """Brightness and contrast of a clip change by at most this share."""
    augmentation: Literal["paper", "wild"] = "paper"
    """The paper's crop, flip and light (IV.B), or what pictures from anywhere need: also turned,
    scaled, grey, tinted, coarse, partly covered and noisy."""
    balance: float = 0.0
    """How far rare expressions, and people with few clips, are drawn more often: 0 draws every
    clip once an epoch, 1 every expression equally often."""
    rare_shift: float = 0.0
    """How far the trained network leans towards rare expressions: each logit is raised by this
    many times minus the logarithm of its share of the training clips (Menon et al. 2021)."""
    anneal_dropout: bool = False
    """The share of features that is left out falls in a straight line, to nothing at the end of
    the run (annealed dropout, Rennie et al. 2014)."""
    label_smoothing: float = 0.0
    """Share of the target that all classes get alike."""
    neutral_pairs: float = 0.0
    """How often a single picture of an expression whose person is known neutral, too, becomes a
    clip in which it comes or goes; between the features of both, so the backbone must be frozen."""
    soft_labels: str | None = None
    """Table of another network's probabilities, `clip_id` and one column for each expression, as
    `fergcn evaluate` writes it; the network is to say the same of the clips that are in it."""
    soft_share: float = 1.0
    """Weight of that loss beside the one of the labels."""
    actions: str | None = None
    """Table of facial actions, as `fergcn render` writes it for the kind `still`; the backbone is
    to tell these, too."""
    points: str | None = None
    """Arrays of points of the face, as `fergcn render` writes them for the kind `still`; the
    backbone is to tell where they are and how far actions have moved them."""
    mix_styles: float = 0.0
    """How often a frame's early features take on contrast and tint of another one's in the batch,
    at each of two depths (MixStyle, Zhou et al. 2021): the network has to look at other things."""
    freeze_backbone: bool = False
    """Train projection and head only, on backbone features that are computed once."""
    init: str | None = None
    """Checkpoint whose backbone is the start, instead of the published weights."""
    seed: int = 0
    """Of the initial weights, the order of the clips and their augmentation."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Full precision, or automatic mixed precision."""
    accelerator: str = "auto"
    """Kind of device, as Lightning names it: auto, cpu, cuda, mps."""
    devices: int = 1
    """Number of devices that share each step."""
    num_workers: int = 0
    """Processes that decode and augment clips."""
    half: bool = False
    """Store the checkpoint's weights as float16, in half the space."""
    tensorboard: bool = False
    """Also log for TensorBoard."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "resize", "crop", "devices"):
            if (value := getattr(self, name)) < 1:
                raise FergcnError(f"found {name}={value}, expected at least 1: raise it")
        for name in ("balance", "label_smoothing", "rare_shift", "neutral_pairs", "mix_styles"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise FergcnError(f"found {name}={share}, expected 0 to 1: choose one between")
        if self.neutral_pairs and not self.freeze_backbone:
            raise FergcnError(
                f"found neutral_pairs={self.neutral_pairs} and a backbone that is trained, "
                "expected one whose features stay: add --freeze-backbone"
            )
        for name in ("actions", "points"):
            if getattr(self, name) is not None and self.freeze_backbone:
                raise FergcnError(
                    f"found {name}={getattr(self, name)} and a backbone that stays, expected one "
                    f"that learns: leave --freeze-backbone or --{name} out"
                )
        if self.mix_styles and self.freeze_backbone:
            raise FergcnError(
                f"found mix_styles={self.mix_styles} and a backbone that stays, expected one that "
                "learns: leave --freeze-backbone or --mix-styles out"
            )
        if self.points is not None and self.augmentation != "wild":
            raise FergcnError(
                f"found points={self.points} and the augmentation {self.augmentation}, expected "
                "one that tells where points go: pass --augmentation wild"
            )
        if self.crop > self.resize:
            raise FergcnError(
                f"found crop={self.crop} above resize={self.resize}: crop at most what is resized"
            )


def require_fit(model_config: ModelConfig, config: TrainConfig) -> None:
    """Refuse settings of training that the network can't follow.

    Raises:
        FergcnError: `config` asks for a backbone or a dropout where the network has none.
    """
    per_frame = {
        "freeze_backbone": config.freeze_backbone,
        "init": config.init is not None,
        "actions": config.actions is not None,
        "points": config.points is not None,
        "mix_styles": config.mix_styles > 0,
        "anneal_dropout": config.anneal_dropout,
    }
    if model_config.network == "r3d-18" and any(per_frame.values()):
        name = next(name for name, asked in per_frame.items() if asked)
        raise FergcnError(
            f"found {name} with r3d-18, expected a network with frame features: "
            f"leave --{name.replace('_', '-')} out"
        )
    if config.anneal_dropout and not model_config.feature_dropout:
        raise FergcnError(
            "found anneal_dropout and feature_dropout=0, expected more: add --feature-dropout 0.5"
        )
