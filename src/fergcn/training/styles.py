"""MixStyle (Zhou, Yang, Qiao and Xiang 2021): features that take on each other's style in training.

The mean and spread of a feature map are the picture's style: light, tint, grain, how a renderer
draws skin. A network whose early maps exchange them has to tell expressions by what is left.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fergcn.expressions import FergcnError

REDUCTIONS = (4, 8)
"""Behind the stages that have shrunk the picture by these factors, styles are mixed."""

CONCENTRATION = 0.3
"""Of the Beta distribution of how much of the own style stays: mostly nearly all or nothing."""


def mix_styles(backbone: nn.Module, chance: float) -> None:
    """Let the early features of a backbone take on other pictures' style while it is trained.

    Args:
        backbone: of timm, with stages of feature maps.
        chance: how often a frame takes on some of the style of one in the batch, at each of two
            depths; 0 to 1.

    Raises:
        FergcnError: the backbone has no such stages.
    """
    stages = [
        stage["module"]
        for stage in getattr(backbone, "feature_info", [])
        if stage["reduction"] in REDUCTIONS
    ]
    if len(stages) != len(REDUCTIONS) or getattr(backbone, "output_fmt", "NCHW") != "NCHW":
        raise FergcnError(
            "found mix_styles with a backbone without stages of feature maps, expected one of "
            "timm's convolutional networks: leave --mix-styles out"
        )

    def mixed(module: nn.Module, _inputs: Any, maps: Tensor) -> Tensor:
        return mixed_styles(maps, chance) if module.training else maps

    for name in stages:
        backbone.get_submodule(name).register_forward_hook(mixed)


def mixed_styles(maps: Tensor, chance: float) -> Tensor:
    """Give some feature maps the mean and spread of others in the batch, in part.

    Args:
        maps: `(B, C, H, W)`.
        chance: how often each gets some.
    """
    with torch.no_grad():  # the style is no way for gradients, as in the paper
        values = maps.float()
        mean = values.mean(dim=(2, 3), keepdim=True)
        spread = (values.var(dim=(2, 3), keepdim=True, correction=0) + 1e-6).sqrt()
        own = torch.distributions.Beta(CONCENTRATION, CONCENTRATION).sample((len(maps), 1, 1, 1))
        own[torch.rand(len(maps)) >= chance] = 1.0
        own = own.to(maps.device)
        other = torch.randperm(len(maps), device=maps.device)
        scale = own + (1 - own) * spread[other] / spread
        shift = (1 - own) * (mean[other] - mean * spread[other] / spread)
    # (x - mean) / spread · mixed spread + mixed mean, gathered into one product and one sum; these
    # nearly cancel where a mean is large, so not in half precision
    return (maps.float() * scale + shift).to(maps.dtype)
