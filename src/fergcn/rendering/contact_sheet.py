"""One picture of a rendered dataset: a row per expression, a column per subject."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fergcn.clips import Clip
from fergcn.expressions import FergcnError, sort_expressions
from fergcn.video import read_frames


def contact_sheet(clips: Sequence[Clip], max_subjects: int = 12) -> NDArray[np.uint8]:
    """Show the clips' apex frames; of a neutral clip the middle one.

    Args:
        clips: of some subjects; of each subject and expression the strongest clip is shown.
        max_subjects: number of columns at most, evenly chosen among the subjects.

    Returns:
        `(expressions * S, subjects * S, 3)` RGB.

    Raises:
        FergcnError: there are no clips, or a clip's video can't be read.
    """
    if not clips:
        raise FergcnError("found no clips to show, expected at least one: choose others")
    subjects = sorted({clip.subject_id for clip in clips})
    chosen = np.linspace(0, len(subjects) - 1, min(max_subjects, len(subjects))).round()
    columns = [subjects[int(index)] for index in chosen]
    strongest: dict[tuple[str, str], Clip] = {}
    for clip in sorted(clips, key=lambda clip: max(clip.intensity or (0.0,))):
        strongest[clip.expression, clip.subject_id] = clip
    rows = sort_expressions({clip.expression for clip in clips})
    side = next(read_frames(clips[0].path)).image.shape[0]
    sheet = np.zeros((len(rows) * side, len(columns) * side, 3), np.uint8)
    for row, expression in enumerate(rows):
        for column, subject in enumerate(columns):
            if shown := strongest.get((expression, subject)):
                area = np.s_[row * side : (row + 1) * side, column * side : (column + 1) * side]
                sheet[area] = _apex_frame(shown)
    return sheet


def write_contact_sheet(path: Path, clips: Sequence[Clip], max_subjects: int = 12) -> None:
    """Write `contact_sheet` as PNG or JPEG, by the ending of the name.

    Raises:
        FergcnError: as `contact_sheet`.
    """
    sheet = contact_sheet(clips, max_subjects)
    options = [] if path.suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 88]
    _, encoded = cv2.imencode(path.suffix, sheet[..., ::-1], options)
    path.write_bytes(encoded.tobytes())


def _apex_frame(clip: Clip) -> NDArray[np.uint8]:
    frames = [frame.image for frame in read_frames(clip.path)]
    return frames[len(frames) // 2 if clip.apex_index is None else clip.apex_index]
