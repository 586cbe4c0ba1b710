"""Clips made of two pictures of one person: from neutral to an expression, and often back.

A picture of an expression, seen as a clip, shows it in every frame. Somebody who is known neutral
as well can be shown beginning and ending it: between the features of the two pictures.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fergcn.clips import Clip
from fergcn.rendering.timing import sample_curves


def neutral_partners(
    clips: Sequence[Clip], features: NDArray[np.float32]
) -> dict[int, NDArray[np.int64]]:
    """Find the neutral pictures of everybody whose expressions are single pictures, too.

    Args:
        clips: the training clips.
        features: `(VIEWS, len(clips), N, C)`; of a single picture, all N frames are the same.

    Returns:
        For each picture of an expression whose person has neutral ones: the places of those.
    """
    single = [bool((frames[0] == frames[-1]).all()) for frames in features[0]]
    pictures = [(row, clip) for row, clip in enumerate(clips) if single[row]]
    neutral = defaultdict(list)
    for row, clip in pictures:
        if clip.expression == "neutral":
            neutral[clip.subject_id].append(row)
    return {
        row: np.array(neutral[clip.subject_id])
        for row, clip in pictures
        if clip.expression != "neutral" and clip.subject_id in neutral
    }


def with_onset(
    batch: NDArray[np.int64],
    views: NDArray[np.int64],
    features: NDArray[np.float32],
    partners: Mapping[int, NDArray[np.int64]],
    share: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Features of a batch, in which some pictures have become clips that begin or end neutral.

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
