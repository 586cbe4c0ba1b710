"""Backbones: one picture in, one feature vector out.

The paper's VGG16-BN comes from torchvision, any other by its name from timm.
"""

import torch
from torch import Tensor, nn


class VGG16BN(nn.Module):
    """Convolutional part of torchvision's VGG16 with batch normalisation, averaged over space.

    Args:
        pretrained: start from torchvision's ImageNet weights.
    """

    num_features = 512

    def __init__(self, pretrained: bool) -> None:
        super().__init__()
        from torchvision.models import VGG16_BN_Weights, vgg16_bn

        weights = VGG16_BN_Weights.IMAGENET1K_V1 if pretrained else None
        self.features = vgg16_bn(weights=weights).features

    def forward(self, frames: Tensor) -> Tensor:
        """Map `(M, 3, H, W)` to `(M, 512)`."""
        return self.features(frames).mean(dim=(2, 3))  # type: ignore[no-any-return]


def create_backbone(name: str, pretrained: bool) -> tuple[nn.Module, int]:
    """Build a backbone.

    Args:
        name: `vgg16_bn` or a timm model name.
        pretrained: load ImageNet weights, which are downloaded on first use.

    Returns:
        The module, `(M, 3, H, W)` → `(M, C)`, and C.

    Raises:
        ValueError: timm has no model of that name.
        OSError: the ImageNet weights are neither cached nor can be downloaded.
    """
    try:
        if name == "vgg16_bn":
            backbone: nn.Module = VGG16BN(pretrained)
            return backbone, VGG16BN.num_features
        import timm

        if name not in timm.list_models():
            raise ValueError(
                f"found the backbone {name}, expected vgg16_bn or a timm model: "
                "see timm.list_models()"
            )
        backbone = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise OSError(
            f"the ImageNet weights of {name} are not on this machine and could not be downloaded "
            f"({type(error).__name__}): connect once, or start without them (pretrained=False, "
            "--no-pretrained)"
        ) from error
    # What a model reports as its width is not always what it returns after its last layers.
    backbone.eval()
    with torch.inference_mode():
        width = backbone(torch.zeros(1, 3, 64, 64)).shape[1]
    return backbone.train(), width
