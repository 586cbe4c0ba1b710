"""Faces in every frame of a video from a detector that looks at few of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from fergcn.faces.assign import assign
from fergcn.faces.cuts import is_cut, thumbnail
from fergcn.faces.detect import Detection
from fergcn.video import VideoFrame

MAX_WAITING = 16
"""Frames that wait for the next search at most; bounds memory."""
MAX_SHIFT = 0.35
"""A face whose centre moved further between two searches, in face sizes, is looked for between."""
MAX_GROWTH = 1.25
"""So is one that became more than this many times as large or as small."""
FULL_SEARCH_S = 1.0
"""Seconds between two searches of the whole picture at its full size, for new small faces."""
MIN_SHRINKING = 0.75
"""Pictures are not made smaller by less than this: it would cost more than it saves."""

Detector = Callable[[NDArray[np.uint8]], list[Detection]]
"""Finds the faces of one RGB picture."""


def find_faces(
    frames: Iterable[VideoFrame], detector: Detector, every_s: float, shrink_to: float = 0
) -> Iterator[tuple[VideoFrame, list[Detection]]]:
    """Find the faces in every frame, searching in as few of them as movement allows.

    A search is made every `every_s` seconds and on either side of a cut. Where two of them found
    the same faces in nearly the same places, boxes and landmarks in between are interpolated in
    time; otherwise the frame in the middle is searched as well, and so on.

    Args:
        frames: in the order of time.
        detector: finds the faces of one picture.
        every_s: seconds between two searches; 0 searches every frame, at its full size.
        shrink_to: where all faces are larger than this many pixels, most searches are made in a
            picture in which the smallest one has this size; 0 for none. Unless it shows the same
            number of faces, and at least every `FULL_SEARCH_S`, the whole picture is searched.

    Yields:
        Each frame with its faces, at most `MAX_WAITING` frames late.
    """
    waiting: list[VideoFrame] = []  # the first one is searched already, except at the start
    first: list[Detection] = []
    shrink_to = shrink_to if every_s > 0 else 0
    full_s = 0.0
    before: NDArray[np.int16] | None = None
    for frame in frames:
        after = thumbnail(frame.image)
        if before is not None and waiting and is_cut(before, after):
            last = _last(waiting, first, _in_smaller(detector, first, shrink_to))
            yield from _between(waiting, first, last, detector)
            waiting = []
        before = after
        waiting.append(frame)
        if len(waiting) == 1:
            first, full_s = detector(frame.image), frame.time_s
        elif frame.time_s - waiting[0].time_s >= every_s or len(waiting) > MAX_WAITING:
            if frame.time_s - full_s >= FULL_SEARCH_S:
                last, full_s = detector(frame.image), frame.time_s
            else:
                last = _in_smaller(detector, first, shrink_to)(frame.image)
            yield from list(_between(waiting, first, last, detector))[:-1]
            waiting, first = [frame], last
    if waiting:
        last = _last(waiting, first, _in_smaller(detector, first, shrink_to))
        yield from _between(waiting, first, last, detector)


def _in_smaller(detector: Detector, faces: Sequence[Detection], shrink_to: float) -> Detector:
    """Make a detector for the faces that were last found, if they are large enough."""
    smallest = min((float((face.xyxy[2:] - face.xyxy[:2]).min()) for face in faces), default=0.0)
    scale = shrink_to / max(smallest, 1e-6)
    if not 0 < scale < MIN_SHRINKING:
        return detector

    def search(image: NDArray[np.uint8]) -> list[Detection]:
        size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        found = detector(small)
        if len(found) != len(faces):
            return detector(image)
        stretch = np.array(image.shape[1::-1]) / size
        return [
            Detection(face.xyxy * np.tile(stretch, 2), face.landmarks * stretch, face.confidence)
            for face in found
        ]

    return search


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
    pairs = assign(shifts)
    if max(shifts[pair] for pair in pairs) > MAX_SHIFT:
        return None
    return [(first[row], last[column]) for row, column in pairs]


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
