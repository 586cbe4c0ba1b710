"""From face crops to the tensors that a network takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F  # noqa: N812

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(frames: Tensor) -> Tensor:
    """Bring RGB values to what ImageNet backbones expect.

    Args:
        frames: `(..., 3, H, W)`, uint8 0–255 or float 0–1.

    Returns:
        float32 of the same shape.
    """
    scaled = F.to_dtype(frames, torch.float32, scale=True)
    normalized: Tensor = F.normalize(scaled, list(IMAGENET_MEAN), list(IMAGENET_STD))
    return normalized


def eval_transform(faces: NDArray[np.uint8], resize: int, crop: int) -> Tensor:
    """Resize, cut the centre, normalise.

    Args:
        faces: `(M, H, W, 3)` RGB.
        resize: side after resizing, in pixels.
        crop: side of the centre crop, in pixels.

    Returns:
        `(M, 3, crop, crop)` float32.
    """
    return normalize(F.center_crop(_resized(faces, resize), [crop, crop]))


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


def _resized(faces: NDArray[np.uint8], resize: int) -> Tensor:
    frames = torch.from_numpy(faces).permute(0, 3, 1, 2)  # (M, H, W, 3) → (M, 3, H, W)
    resized: Tensor = F.resize(frames, [resize, resize], antialias=True)
    return resized
