"""Clips: what every dataset yields and every model takes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fergcn.video import read_frames

View = Literal["whole", "left half", "right half", "rotated 90"]
"""How a picture is cut or turned (by 90 degrees clockwise) before faces are looked for."""


@dataclass(frozen=True)
class Clip:
    """One labelled sequence of a face: aligned already, or as its dataset distributes it."""

    clip_id: str
    """Unique within its dataset."""
    subject_id: str
    """The person; no person may be on both sides of a split. The clip's own id where nobody
    knows: then it counts as a person of its own."""
    expression: str
    """The label, as in `fergcn.EXPRESSIONS` or another lower-case word."""
    path: Path
    """A video file, a folder of pictures in the order of their names, or an array of faces."""
    view: View = "whole"
    """Part of each picture that holds the face from the front."""
    fold: int | None = None
    """Official test fold, from 0; -1 for clips that are only ever trained on; None where the
    dataset has no official folds."""
    intensity: tuple[float, ...] | None = None
    """True intensity of every frame, 0 to 1, where it is known."""
    apex_index: int | None = None
    """Frame of the highest intensity, where it is known."""
    attributes: dict[str, float | str] = field(default_factory=dict)
    """What else the dataset knows about the subject or the clip."""

    def has_frames(self) -> bool:
        """Whether there is a face to look at: an array may be empty, where none was found."""
        return self.path.suffix != ".npy" or len(np.load(self.path, mmap_mode="r")) > 0


def sample_frames(num_available: int, num_frames: int) -> NDArray[np.int64]:
    """Choose frames chronologically, evenly spread, first and last included.

    Where a clip has fewer frames than wanted, frames are used again (paper, Section IV.B).

    Args:
        num_available: frames that the clip has.
        num_frames: N, frames that the model takes.

    Returns:
        `(num_frames,)` indices, never decreasing.

    Raises:
        ValueError: either number is below 1.
    """
    if num_available < 1 or num_frames < 1:
        raise ValueError(f"can't choose {num_frames} of {num_available} frames: both must be ≥ 1")
    if num_frames == 1:
        return np.array([(num_available - 1) // 2])
    # Integer arithmetic rounds the same way everywhere: no frame depends on the platform.
    steps = np.arange(num_frames)
    return (2 * steps * (num_available - 1) + num_frames - 1) // (2 * (num_frames - 1))


def load_clip(clip: Clip, num_frames: int) -> NDArray[np.uint8]:
    """Decode the N frames of a clip.

    Returns:
        `(num_frames, H, W, 3)` RGB.

    Raises:
        FergcnError: the clip's file is missing or not a video.
    """
    frames = [frame.image for frame in read_frames(clip.path)]
    return np.stack([frames[index] for index in sample_frames(len(frames), num_frames)])
