"""Faces in every frame of a video from a detector that looks at few of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from fergcn.faces.detect import Detection
from fergcn.video import VideoFrame

MAX_WAITING = 16
"""Frames that wait for the next search at most; bounds memory."""
MAX_SHIFT = 0.35
"""A face whose centre moved further between two searches, in face sizes, is looked for between."""
MAX_GROWTH = 1.25
"""So is one that became more than this many times as large or as small."""
CUT_DIFFERENCE = 30
"""Mean difference of two neighbouring pictures, of 255, from which there is a cut between them."""
THUMBNAIL_SIDE = 48
"""Pixels of the longer side that are compared for it."""

Detector = Callable[[NDArray[np.uint8]], list[Detection]]
"""Finds the faces of one RGB picture."""


def find_faces(
    frames: Iterable[VideoFrame], detector: Detector, every_s: float
) -> Iterator[tuple[VideoFrame, list[Detection]]]:
    """Find the faces in every frame, searching in as few of them as movement allows.

    A search is made every `every_s` seconds and on either side of a cut. Where two of them found
    the same faces in nearly the same places, boxes and landmarks in between are interpolated in
    time; otherwise the frame in the middle is searched as well, and so on.

    Args:
        frames: in the order of time.
        detector: finds the faces of one picture.
        every_s: seconds between two searches; 0 searches every frame.

    Yields:
        Each frame with its faces, at most `MAX_WAITING` frames late.
    """
    waiting: list[VideoFrame] = []  # the first one is searched already, except at the start
    first: list[Detection] = []
    before: NDArray[np.int16] | None = None
    for frame in frames:
        thumbnail = _thumbnail(frame.image)
        if before is not None and waiting and _is_cut(before, thumbnail):
            yield from _between(waiting, first, _last(waiting, first, detector), detector)
            waiting = []
        before = thumbnail
        waiting.append(frame)
        if len(waiting) == 1:
            first = detector(frame.image)
        elif frame.time_s - waiting[0].time_s >= every_s or len(waiting) > MAX_WAITING:
            last = detector(frame.image)
            yield from list(_between(waiting, first, last, detector))[:-1]
            waiting, first = [frame], last
    if waiting:
        yield from _between(waiting, first, _last(waiting, first, detector), detector)


def _last(
    frames: Sequence[VideoFrame], first: list[Detection], detector: Detector
) -> list[Detection]:
    return first if len(frames) == 1 else detector(frames[-1].image)


def _between(
    frames: Sequence[VideoFrame], first: list[Detection], last: list[Detection], detector: Detector
) -> Iterator[tuple[VideoFrame, list[Detection]]]:
    """Yield all of the frames, of which the two at the ends have been searched."""
    if len(frames) <= 2:
        yield from zip(frames, [first, last], strict=False)
        return
    pairs = _match(first, last)
    if pairs is None:
        middle = len(frames) // 2
        found = detector(frames[middle].image)
        yield from list(_between(frames[: middle + 1], first, found, detector))[:-1]
        yield from _between(frames[middle:], found, last, detector)
        return
    start_s, duration_s = frames[0].time_s, frames[-1].time_s - frames[0].time_s
    yield frames[0], first
    for index, frame in enumerate(frames[1:-1], 1):
        # Without usable timestamps, frames count as equally far apart.
        share = (
            (frame.time_s - start_s) / duration_s if duration_s > 0 else index / (len(frames) - 1)
        )
        yield frame, [_interpolate(a, b, float(np.clip(share, 0, 1))) for a, b in pairs]
    yield frames[-1], last


def _match(
    first: Sequence[Detection], last: Sequence[Detection]
) -> list[tuple[Detection, Detection]] | None:
    """Pair the faces of two pictures; None where they are not the same ones nearly in place."""
    if len(first) != len(last):
        return None
    if not first:
        return []
    shifts = np.array([[_shift(a, b) for b in last] for a in first])
    rows, columns = linear_sum_assignment(shifts)
    if shifts[rows, columns].max() > MAX_SHIFT:
        return None
    return [(first[i], last[j]) for i, j in zip(rows.tolist(), columns.tolist(), strict=True)]


def _shift(first: Detection, last: Detection) -> float:
    """Distance of two faces' centres in face sizes; a large one where their sizes differ."""
    sizes = np.array([np.sqrt(np.prod(face.xyxy[2:] - face.xyxy[:2])) for face in (first, last)])
    if sizes.max() > MAX_GROWTH * sizes.min():
        return 1e6
    centres = [(face.xyxy[:2] + face.xyxy[2:]) / 2 for face in (first, last)]
    return float(np.hypot(*(centres[0] - centres[1])) / sizes.mean())


def _interpolate(first: Detection, last: Detection, share: float) -> Detection:
    def mix(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        mixed: NDArray[np.float64] = (1 - share) * a + share * b
        return mixed

    return Detection(
        mix(first.xyxy, last.xyxy),
        mix(first.landmarks, last.landmarks),
        (1 - share) * first.confidence + share * last.confidence,
    )


def _thumbnail(image: NDArray[np.uint8]) -> NDArray[np.int16]:
    step = max(1, max(image.shape[:2]) // THUMBNAIL_SIDE)
    return image[::step, ::step].astype(np.int16)


def _is_cut(before: NDArray[np.int16], after: NDArray[np.int16]) -> bool:
    return before.shape != after.shape or float(np.abs(before - after).mean()) > CUT_DIFFERENCE
