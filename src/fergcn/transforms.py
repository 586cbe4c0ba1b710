"""From face crops to the tensors that a network takes.

Only augmentation imports torchvision: it takes longer to import than a short video to analyse.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from fergcn.crops import normalized_crops
from fergcn.model import IMAGENET_MEAN, IMAGENET_STD


def normalize(frames: Tensor) -> Tensor:
    """Bring RGB values to what ImageNet backbones expect.

    Args:
        frames: `(..., 3, H, W)`, uint8 0–255 or float 0–1.

    Returns:
        float32 of the same shape.
    """
    scaled = frames.float() if frames.is_floating_point() else frames * (1 / 255)
    mean, std = torch.tensor([IMAGENET_MEAN, IMAGENET_STD], device=frames.device).view(2, 3, 1, 1)
    centred: Tensor = scaled - mean
    return centred.div_(std)


def eval_transform(faces: NDArray[np.uint8], resize: int, crop: int) -> Tensor:
    """Resize, cut the centre, normalise.

    Args:
        faces: `(M, H, W, 3)` RGB.
        resize: side after resizing, in pixels.
        crop: side of the centre crop, in pixels.

    Returns:
        `(M, 3, crop, crop)` float32.
    """
    frames = _resized(faces, resize).permute(0, 2, 3, 1)  # → (M, resize, resize, 3)
    return torch.from_numpy(normalized_crops(frames.numpy(), crop))


@dataclass(frozen=True)
class Augmentation:
    """One random draw, applied to every frame of a clip alike (paper, Section IV.B)."""

    top: float
    """Position of the crop, 0 (uppermost) to 1."""
    left: float
    """Position of the crop, 0 (leftmost) to 1."""
    flip: bool
    brightness: float
    """Factor, 1 changes nothing."""
    contrast: float
    """Factor, 1 changes nothing."""


def draw_augmentation(key: Sequence[int], illumination: float = 0.2) -> Augmentation:
    """Draw the augmentation of one clip in one epoch.

    The draw depends on the key alone, so that a resumed run sees what the uninterrupted one
    would have seen, whatever the number of workers.

    Args:
        key: (seed, epoch, index of the clip).
        illumination: brightness and contrast change by at most this share.
    """
    rng = np.random.default_rng(list(key))
    top, left, flip, brightness, contrast = rng.random(5)
    return Augmentation(
        top=top,
        left=left,
        flip=bool(flip < 0.5),
        brightness=1 + illumination * (2 * brightness - 1),
        contrast=1 + illumination * (2 * contrast - 1),
    )


def augment_clip(
    faces: NDArray[np.uint8], augmentation: Augmentation, resize: int, crop: int
) -> Tensor:
    """Resize, cut, flip and change the light of a clip, alike in all frames, and normalise.

    Args:
        faces: `(N, H, W, 3)` RGB.
        augmentation: the clip's draw.
        resize: side after resizing, in pixels.
        crop: side of the crop, in pixels.

    Returns:
        `(N, 3, crop, crop)` float32.
    """
    from torchvision.transforms.v2 import functional as F  # noqa: N812

    frames = _resized(faces, resize)
    margin = resize - crop
    top, left = round(augmentation.top * margin), round(augmentation.left * margin)
    frames = F.crop(frames, top, left, crop, crop)
    if augmentation.flip:
        frames = F.horizontal_flip(frames)
    frames = F.to_dtype(frames, torch.float32, scale=True) * augmentation.brightness
    # One mean for the clip: a frame's own would undo changes of light between the frames.
    mean = frames.mean()
    return normalize(((frames - mean) * augmentation.contrast + mean).clamp(0, 1))


@dataclass(frozen=True)
class _Placement:
    """How `augment_wild` moves a picture about its centre, in pixels after resizing."""

    shift: tuple[float, float]
    angle: float
    """Clockwise, in degrees."""
    scale: float
    shear: float
    """In degrees."""
    flip: bool


def _draw_placement(rng: np.random.Generator, resize: int) -> _Placement:
    right, down = rng.normal(0, 0.02, 2) * resize
    angle, scale, shear = rng.normal(0, 7), float(np.exp(rng.normal(0, 0.06))), rng.normal(0, 2)
    return _Placement((right, down), angle, scale, shear, flip=rng.random() < 0.5)


def wild_map(key: Sequence[int], resize: int, crop: int) -> NDArray[np.float64]:
    """Tell where `augment_wild` puts what a picture shows.

    Args:
        key: as there.
        resize: as there.
        crop: as there.

    Returns:
        `(2, 3)` matrix from x and y in the picture to x and y in what is cut out, both 0 at the
        left or upper edge and 1 at the other; mirrored where its determinant is below 0.
    """
    placement = _draw_placement(np.random.default_rng(list(key)), resize)
    angle, shear = np.deg2rad([placement.angle, placement.shear])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = placement.scale * turn @ [[1, -np.tan(shear)], [0, 1]] * resize / crop
    margin = (resize - crop) / 2  # of an odd one, half a pixel more is cut off on one side
    shift = (np.array(placement.shift) + margin - round(margin)) / crop
    if placement.flip:
        linear[0], shift[0] = -linear[0], -shift[0]
    middle = np.full(2, 0.5)
    return np.column_stack([linear, middle + shift - linear @ middle])


def augment_wild(faces: NDArray[np.uint8], key: Sequence[int], resize: int, crop: int) -> Tensor:
    """Change a clip as pictures from anywhere differ, alike in all frames, and normalise.

    Turned, scaled and shifted a little, mirrored; half of them grey; other contrast, brightness,
    tint and gamma; a quarter coarse, as from a small picture; three in ten with a covered part;
    some noise.

    Args:
        faces: `(N, H, W, 3)` RGB.
        key: (seed, epoch, index of the clip); the draw depends on it alone.
        resize: side after resizing, in pixels.
        crop: side of what is cut out then, in pixels.

    Returns:
        `(N, 3, crop, crop)` float32.
    """
    from torchvision.transforms.v2 import functional as F  # noqa: N812

    rng = np.random.default_rng(list(key))
    placement = _draw_placement(rng, resize)
    frames = F.to_dtype(_resized(faces, resize), torch.float32, scale=True)
    frames = F.affine(
        frames,
        angle=placement.angle,
        translate=list(placement.shift),
        scale=placement.scale,
        shear=[placement.shear, 0.0],
        interpolation=F.InterpolationMode.BILINEAR,
        # What comes into view from beyond the edge is neither black nor white.
        fill=[float(value) for value in frames.mean(dim=(0, 2, 3))],
    )
    frames = F.center_crop(frames, [crop, crop])
    if placement.flip:
        frames = F.horizontal_flip(frames)
    if rng.random() < 0.5:
        frames = F.rgb_to_grayscale(frames, num_output_channels=3)
    mean = frames.mean()  # one for the clip, as in augment_clip
    contrast, gamma = np.exp(rng.normal(0, [0.25, 0.2]))
    tint = torch.tensor(np.exp(rng.normal(0, 0.06, (3, 1, 1))), dtype=torch.float32)
    frames = ((frames - mean) * contrast + mean + rng.normal(0, 0.1)) * tint
    frames = frames.clamp(1e-3, 1) ** gamma
    if rng.random() < 0.25:
        side = max(int(crop * rng.uniform(0.35, 0.8)), 1)
        frames = F.resize(F.resize(frames, [side, side], antialias=True), [crop, crop])
    if rng.random() < 0.3:
        height, width = rng.integers(crop // 9, crop * 2 // 5 + 1, 2).tolist()
        top, left = rng.integers(0, crop - height + 1), rng.integers(0, crop - width + 1)
        frames[..., top : top + height, left : left + width] = rng.random()
    noise = rng.normal(0, 0.04 * rng.random(), frames.shape)
    return normalize((frames + torch.from_numpy(noise.astype(np.float32))).clamp(0, 1))


def _resized(faces: NDArray[np.uint8], resize: int) -> Tensor:
    frames = torch.from_numpy(faces).permute(0, 3, 1, 2)  # (M, H, W, 3) → (M, 3, H, W)
    if frames.shape[2:] == (resize, resize):
        return frames
    return interpolate(frames, size=[resize, resize], mode="bilinear", antialias=True)
