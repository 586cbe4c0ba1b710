"""Follow faces over time: the same face keeps the same number."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from fergcn.faces.detect import Detection

MAX_DISTANCE = 1.0
"""Faces whose centres are further apart than this many face sizes are not the same."""
MAX_SCALE_CHANGE = 2.0
"""Nor are faces of which one is more than this many times as large as the other."""
IMPOSSIBLE = 1e6
"""Cost of such a pair; far above the sum of all possible costs."""


@dataclass
class _Track:
    track_id: int
    xyxy: NDArray[np.float64]
    """Where the face was last seen."""
    velocity: NDArray[np.float64]
    """Change of its box in a frame, `(4,)`, smoothed."""
    missed: int = 0
    """Frames since then."""


class Tracker:
    """Give every face a number that it keeps, by position and size alone.

    Pairs are chosen so that all faces of a frame together fit best. A pair costs `1 − IoU` plus the
    distance of the centres in face sizes, measured from where the face was or from where it would
    be had it moved on, whichever is nearer. What a face looks like is not considered: where a cut
    puts one person in the place of another, the number goes over to the other.

    Args:
        max_missed: frames for which a lost face's number is kept; back in time and near the place
            where it left, the face gets its number again.
    """

    def __init__(self, max_missed: int = 30) -> None:
        self.max_missed = max_missed
        self._tracks: list[_Track] = []
        self._next_id = 0

    def update(self, detections: Sequence[Detection]) -> list[int]:
        """Take in the next frame; call it for frames without a face, too.

        Args:
            detections: the frame's faces. Their order has no influence on who gets which number.

        Returns:
            The `track_id` of each face: 0, 1, 2… in the order of appearance, within one frame from
            the left to the right.
        """
        for track in self._tracks:
            track.missed += 1
        self._tracks = [track for track in self._tracks if track.missed <= self.max_missed + 1]

        order = sorted(range(len(detections)), key=lambda i: _sort_key(detections[i]))
        boxes = [np.asarray(detections[i].xyxy, dtype=np.float64) for i in order]
        cost = np.array([[_cost(track, box) for box in boxes] for track in self._tracks])
        matched: dict[int, _Track] = {}
        if cost.size:
            rows, columns = linear_sum_assignment(cost)
            matched = {
                int(column): self._tracks[row]
                for row, column in zip(rows, columns, strict=True)
                if cost[row, column] < IMPOSSIBLE
            }

        track_ids = [0] * len(detections)
        for column, (position, box) in enumerate(zip(order, boxes, strict=True)):
            if (seen := matched.get(column)) is not None:
                seen.velocity = (seen.velocity + (box - seen.xyxy) / seen.missed) / 2
                seen.xyxy, seen.missed = box, 0
                track_ids[position] = seen.track_id
            else:
                self._tracks.append(_Track(self._next_id, box, np.zeros(4)))
                track_ids[position] = self._next_id
                self._next_id += 1
        return track_ids


def _sort_key(detection: Detection) -> tuple[float, ...]:
    return (*detection.xyxy, detection.confidence, *np.ravel(detection.landmarks))


def _cost(track: _Track, box: NDArray[np.float64]) -> float:
    """Cost of seeing `track` in `box`, 0 for the very same place."""
    expected = track.xyxy + track.velocity * track.missed
    return min(_box_cost(track.xyxy, box), _box_cost(expected, box))


def _box_cost(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    sides = np.maximum([first[2:] - first[:2], second[2:] - second[:2]], 1e-6)  # (2 boxes, 2 sides)
    areas = sides.prod(axis=1)
    size = np.sqrt(areas)
    shift = (first[:2] + first[2:] - second[:2] - second[2:]) / 2
    distance = float(np.hypot(*shift) / size.mean())
    if distance > MAX_DISTANCE or size.max() > MAX_SCALE_CHANGE * size.min():
        return IMPOSSIBLE
    overlap = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    intersection = overlap.clip(min=0).prod()
    iou = float(intersection / (areas.sum() - intersection))
    return 1 - iou + distance
