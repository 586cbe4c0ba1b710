"""Clips made of two pictures of one person: an expression that comes, goes, or both.

A picture of an expression, seen as a clip, shows it in every frame. Somebody who is known neutral
as well can be shown on the way there or back: between the features of the two pictures.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fergcn.clips import Clip
from fergcn.rendering.timing import sample_curves


def neutral_partners(
    clips: Sequence[Clip],
    features: NDArray[np.float32],
    sources: Sequence[int] | None = None,
) -> dict[int, NDArray[np.int64]]:
    """Find the neutral pictures of everybody whose expressions are single pictures, too.

    Args:
        clips: the training clips.
        features: `(VIEWS, len(clips), N, C)`; of a single picture, all N frames are the same.
        sources: which dataset each clip is from; one without. Two may call two people the same.

    Returns:
        For each picture of an expression whose person has neutral ones: the places of those.
    """
    people = [
        (source, clip.subject_id)
        for source, clip in zip(sources or [0] * len(clips), clips, strict=True)
    ]
    pictures = [row for row, frames in enumerate(features[0]) if (frames == frames[0]).all()]
    neutral = defaultdict(list)
    for row in pictures:
        if clips[row].expression == "neutral":
            neutral[people[row]].append(row)
    return {
        row: np.array(neutral[people[row]])
        for row in pictures
        if clips[row].expression != "neutral" and people[row] in neutral
    }


def with_movement(
    batch: NDArray[np.int64],
    views: NDArray[np.int64],
    features: NDArray[np.float32],
    partners: Mapping[int, NDArray[np.int64]],
    share: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Features of a batch, in which some pictures have become clips.

    Frame t is `neutral + m(t) · (expression − neutral)`, with the intensity m of a rendered clip
    of the kind `anywhere`, which reaches 1 in one frame at least.

    Args:
        batch: `(B,)` places of the clips.
        views: `(len(clips),)` the view of each clip to take; of the neutral picture the same.
        features: `(VIEWS, len(clips), N, C)`.
        partners: see `neutral_partners`.
        share: how often a picture that has a partner becomes such a clip, 0 to 1.
        rng: source of chance.

    Returns:
        `(B, N, C)`.
    """
    frames = features[views[batch], batch]  # (B, N, C), a copy
    num_frames = frames.shape[1]
    for place, row in enumerate(batch):
        if row in partners and rng.random() < share:
            neutral = features[views[row], rng.choice(partners[row])]  # (N, C)
            intensity = sample_curves("anywhere", num_frames, rng).main.astype(np.float32)
            frames[place] = neutral + intensity[:, None] * (frames[place] - neutral)
    return frames
