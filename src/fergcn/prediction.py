"""Probabilities of whole clips, from their frames or from features of them."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fergcn.clips import Clip, load_clip
from fergcn.features import distinct_frames
from fergcn.model import FERGCN, Network
from fergcn.progress import Progress, silent
from fergcn.transforms import eval_transform


def predict_probs(
    model: Network,
    clips: Sequence[Clip],
    resize: int,
    crop: int,
    on_progress: Progress = silent,
    classes: Sequence[int] | None = None,
    on_features: Callable[[Tensor], None] = lambda _features: None,
    mirrored: bool = False,
) -> NDArray[np.float32]:
    """Probabilities of whole clips.

    Args:
        model: a trained network, in evaluation mode.
        clips: what to classify.
        resize: side to which faces are resized, in pixels.
        crop: side of the centre crop, in pixels.
        on_progress: told about clips.
        classes: indices of the classes to choose from; all if left out.
        on_features: given the frame features `(N, d)` of each clip, where the network has some.
        mirrored: those of a single picture, or of frames that are all the same, are the mean of
            its own and its mirror image's.

    Returns:
        `(len(clips), num_classes)` or one column for each of `classes`; each row adds up to 1.

    Raises:
        FergcnError: a clip can't be read.
    """
    columns = list(range(model.config.num_classes) if classes is None else classes)
    probs = np.empty((len(clips), len(columns)), dtype=np.float32)
    with torch.inference_mode():
        for index, clip in enumerate(clips):
            faces = load_clip(clip, model.config.num_frames)
            # Softmax over some of the logits: the same as probabilities made to add up to 1 again.
            logits = _clip_logits(model, faces, resize, crop, on_features, mirrored)
            probs[index] = logits[columns].softmax(0).cpu().numpy()
            on_progress("clips", index + 1, len(clips))
    return probs


def predict_feature_probs(
    model: FERGCN,
    features: NDArray[np.float32],
    batch_size: int = 256,
    on_features: Callable[[Tensor], None] = lambda _features: None,
) -> NDArray[np.float32]:
    """Probabilities from backbone features `(clips, N, C)`, as `predict_probs` gives them.

    `on_features` is given the frame features `(B, N, d)` of each batch of clips.
    """
    device = next(model.parameters()).device
    probs = np.empty((len(features), model.config.num_classes), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(features), batch_size):
            rows = slice(start, start + batch_size)
            projected = model.projection(torch.from_numpy(features[rows].copy()).to(device))
            on_features(projected)
            probs[rows] = model.head(projected).float().softmax(1).cpu().numpy()
    return probs


def _clip_logits(
    model: Network,
    faces: NDArray[np.uint8],
    resize: int,
    crop: int,
    on_features: Callable[[Tensor], None],
    mirrored: bool,
) -> Tensor:
    """Logits `(num_classes,)` of one clip's faces `(N, H, W, 3)`."""
    device = next(model.parameters()).device
    if not isinstance(model, FERGCN):
        logits: Tensor = model(eval_transform(faces, resize, crop).to(device)[None])[0]
        return logits
    distinct, position = distinct_frames(faces)
    frames = eval_transform(distinct, resize, crop).to(device)
    features = model.frame_features(frames)
    if mirrored and len(distinct) == 1:
        features = (features + model.frame_features(frames.flip(-1))) / 2
    features = features[torch.from_numpy(position)]  # (N, d)
    on_features(features)
    logits = model.head(features[None])[0]
    return logits
