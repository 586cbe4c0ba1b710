"""Backbone features of whole datasets, computed once and kept on disk.

A frozen backbone sees every frame once; each epoch of training then costs the head alone.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fergcn.cache import cache_dir
from fergcn.clips import Clip, clip_digest, load_clip
from fergcn.model import FERGCN
from fergcn.progress import Count, silent
from fergcn.transforms import eval_transform

VIEWS = 2
"""Each clip is stored as it is and mirrored; training draws one of them."""


class FeatureClassifier(nn.Module):
    """The trainable rest of a network whose backbone is frozen.

    Args:
        model: the network; its projection and head are shared, not copied.
    """

    def __init__(self, model: FERGCN) -> None:
        super().__init__()
        self.dropout = model.dropout
        self.projection = model.projection
        self.head = model.head

    def forward(self, features: Tensor) -> Tensor:
        """Map `(B, N, C)` backbone features to `(B, num_classes)` logits."""
        logits: Tensor = self.head(self.projection(self.dropout(features)))
        return logits


def clip_fingerprint(clips: Sequence[Clip]) -> str:
    """Hash of the clips' identities, labels, views and file contents, 16 hexadecimal digits.

    Raises:
        FergcnError: a clip can't be read.
    """
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(f"{clip.clip_id}\0{clip.subject_id}\0{clip.expression}\0".encode())
        digest.update(clip_digest(clip).encode())
    return digest.hexdigest()[:16]


def backbone_fingerprint(model: FERGCN) -> str:
    """Hash of the backbone's weights, 16 hexadecimal digits."""
    digest = hashlib.sha256(model.config.backbone.encode())
    for name, tensor in sorted(model.backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def dataset_features(
    model: FERGCN,
    clips: Sequence[Clip],
    resize: int,
    crop: int,
    on_progress: Count = silent,
) -> NDArray[np.float32]:
    """Backbone features of all clips, from the cache where they are there already.

    Args:
        model: the network whose backbone is taken, in evaluation mode.
        clips: the dataset.
        resize: side to which faces are resized, in pixels.
        crop: side of the centre crop, in pixels.
        on_progress: told (clips done, clips in all).

    Returns:
        `(VIEWS, len(clips), N, C)`, memory-mapped; view 1 is mirrored.

    Raises:
        FergcnError: a clip can't be read.
    """
    num_frames = model.config.num_frames
    key = f"{backbone_fingerprint(model)}-{clip_fingerprint(clips)}-{num_frames}-{resize}-{crop}"
    path = cache_dir() / "features" / f"{key}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            _compute_features(model, clips, resize, crop, partial, on_progress)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    features: NDArray[np.float32] = np.load(path, mmap_mode="r")
    return features


def distinct_frames(
    faces: NDArray[np.uint8],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Leave out frames that are the same as the one before.

    A short clip uses frames again; a single picture would pass through the backbone N times.

    Args:
        faces: `(N, H, W, 3)`.

    Returns:
        `(M, H, W, 3)`, and for each of the N frames its place among these.
    """
    is_new = np.ones(len(faces), dtype=bool)
    is_new[1:] = (faces[1:] != faces[:-1]).any(axis=(1, 2, 3))
    return faces[is_new], is_new.cumsum() - 1


def _compute_features(
    model: FERGCN,
    clips: Sequence[Clip],
    resize: int,
    crop: int,
    path: Path,
    on_progress: Count,
) -> None:
    num_frames = model.config.num_frames
    model.backbone.eval()
    device = next(model.parameters()).device
    features = np.lib.format.open_memmap(
        path, "w+", np.float32, (VIEWS, len(clips), num_frames, model.backbone_dim)
    )
    with torch.inference_mode():
        for index, clip in enumerate(clips):
            faces, position = distinct_frames(load_clip(clip, num_frames))
            frames = eval_transform(faces, resize, crop).to(device)  # (M, 3, crop, crop)
            both = torch.cat([frames, frames.flip(-1)])  # (2·M, 3, crop, crop)
            pooled = model.backbone_features(both).float().cpu().numpy()
            features[:, index] = pooled.reshape(VIEWS, len(faces), -1)[:, position]
            on_progress(index + 1, len(clips))
    features.flush()
