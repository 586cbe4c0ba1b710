"""Follow faces over time: the same face keeps the same number."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fergcn.faces.assign import assign
from fergcn.faces.cuts import is_cut, thumbnail
from fergcn.faces.detect import Detection
from fergcn.faces.look import Look, look_difference, look_of, person_difference

MAX_DISTANCE = 1.0
"""Faces whose centres are further apart than this many face sizes are not the same."""
MAX_SCALE_CHANGE = 2.0
"""Nor are faces of which one is more than this many times as large as the other."""

UNMATCHED = 3.0
"""A pair that costs more is left alone; so two good pairs are not torn apart for one more pair."""

OTHER_LOOK = 1.25
"""A face that was away and looks more different than this is another one, wherever it is."""
SAME_LOOK = 0.95
"""A face that looks at most this different is the same one, wherever it was."""
SURE_LOOK = 0.45
"""This is so certain that there is no need to wait for a better view."""
SHORT_GAP_S = 0.4
"""A face that was away for longer near its place may have hidden behind another one; in seconds."""
CLEARLY = 0.1
"""And nobody else may look like it by less than this more."""
STEADY = 0.7
"""Where all faces moved less than this costs, their looks need not be compared."""
LOOK_EVERY_S = 0.2
"""And are kept at such intervals, in seconds."""
NEW_LOOK = 0.4
"""A look that differs by more than this from those kept is kept as well."""
MAX_LOOKS = 12
"""Looks that are kept of a face: from several sides, with several expressions."""
MIN_FRAMES = 3
"""A face seen in fewer frames may be a false alarm, and is not looked for again elsewhere. Frames,
not seconds: each one is evidence."""
MAX_REMEMBERED = 100
"""Faces that are remembered; bounds memory and time."""
MAX_WAIT_S = 0.64
"""For so long one waits until a face is seen well enough to know it again, in seconds."""
VELOCITY_HALF_S = 0.04
"""After this time, half of what is known of a movement is new, in seconds."""
RESEMBLANCE_HALF_S = 0.08
"""And of whom a new face looks like: one that was hidden comes out."""
ROUNDING_S = 1e-6
"""Times that differ by less are the same, in seconds."""


@dataclass(eq=False)
class _Track:
    xyxy: NDArray[np.float64]
    """Where the face was last seen."""
    looks: list[Look]
    first_s: float
    """When it was first seen."""
    last_s: float
    """When it was last seen."""
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))
    """Change of its box in a second, `(4,)`, smoothed."""
    missed: int = 0
    """Frames since it was last seen; 1 if that was the frame before."""
    cut: bool = False
    """There was a cut since then, so that its place means nothing."""
    num_frames: int = 1
    """Frames in which it was seen."""
    decided: bool = False
    """It is known whether this is somebody who was seen before."""
    resembles: dict["_Track", float] = field(default_factory=dict)
    """Until then: the difference of looks from each who may be the same, smoothed."""
    near: list["_Track"] = field(default_factory=list)
    """Who was expected where it appeared."""
    same_as: "_Track | None" = None
    """Who it turned out to be."""
    track_id: int | None = None
    """Given when it is first asked for."""


class Tracker:
    """Give every face a number that it keeps, by place, movement and look.

    Pairs are chosen so that all faces of a frame together fit best. A pair costs `1 − IoU`, plus
    the distance of the centres in face sizes, measured from where the face was or from where it
    would be had it moved on, whichever is nearer, plus the difference of their looks. A face that
    is left over gets the number of one that was seen before, anywhere and however long ago, if it
    clearly looks like that one and like no other: a new number is the smaller mistake.

    Args:
        keep_lost_s: a lost face is expected near the place where it left for so long, in seconds.
        max_wait_s: `add` may hold a frame's numbers back for so long, in seconds; with 0, it
            decides at once, as `update`.
    """

    def __init__(self, keep_lost_s: float = 1.0, max_wait_s: float = MAX_WAIT_S) -> None:
        self.keep_lost_s = keep_lost_s
        self.max_wait_s = max_wait_s
        self._waiting: deque[tuple[float, Sequence[Detection], list[_Track]]] = deque()
        self._tracks: list[_Track] = []
        self._next_id = 0
        self._thumbnail: NDArray[np.int16] | None = None
        self._now_s = 0.0

    def update(
        self,
        detections: Sequence[Detection],
        time_s: float,
        image: NDArray[np.uint8] | None = None,
    ) -> list[int]:
        """Take in the next frame; call it for frames without a face, too.

        Args:
            detections: the frame's faces. Their order has no influence on who gets which number.
            time_s: of the frame, in seconds, not before the previous one's.
            image: `(H, W, 3)` RGB, the frame. Without it, faces are told apart by place and size
                alone, and one that was away for longer than `keep_lost_s` is a new one.

        Returns:
            The `track_id` of each face: 0, 1, 2… in the order of appearance, within one frame from
            the left to the right. No two faces of a frame have the same one.
        """
        return self._numbers(detections, self._follow(detections, time_s, image, 0))

    def add(
        self, detections: Sequence[Detection], time_s: float, image: NDArray[np.uint8] | None = None
    ) -> list[list[int]]:
        """Take in the next frame, as `update` does, but answer later and better.

        A face that comes back is often half hidden at first. Where somebody is missing of whom it
        may be, frames wait until the face is known again, for `max_wait_s` at most.

        Args:
            detections: the frame's faces.
            time_s: of the frame.
            image: the frame; it is not kept.

        Returns:
            The numbers of the faces of each frame that need not wait any longer, in the order of
            the frames.
        """
        tracks = self._follow(detections, time_s, image, self.max_wait_s)
        self._waiting.append((time_s, detections, tracks))
        ready = []
        while self._waiting and (
            _is_past(time_s - self._waiting[0][0], self.max_wait_s)
            or all(_who(track).decided for track in self._waiting[0][2])
        ):
            ready.append(self._take())
        return ready

    def finish(self) -> list[list[int]]:
        """Return the numbers of the frames that still wait, when there is no further one."""
        return [self._take() for _ in range(len(self._waiting))]

    def _take(self) -> list[int]:
        _, detections, tracks = self._waiting.popleft()
        return self._numbers(detections, tracks)

    def _follow(
        self,
        detections: Sequence[Detection],
        time_s: float,
        image: NDArray[np.uint8] | None,
        max_wait_s: float,
    ) -> list[_Track]:
        """Find the track of each face; who it is may be decided up to `max_wait_s` later."""
        old_share = _share_left(time_s - self._now_s, RESEMBLANCE_HALF_S)
        self._now_s = time_s
        for track in self._tracks:
            track.missed += 1
        if image is not None:
            self._notice_cut(image)
        self._forget()

        order = sorted(range(len(detections)), key=lambda i: _sort_key(detections[i]))
        faces = [detections[i] for i in order]
        known = list(self._tracks)
        if (steady := self._match_steady(faces)) is not None:
            matched, differences = steady, np.zeros((len(known), len(faces)))
            looks: list[Look | None] = [None] * len(faces)
            for column, row in matched.items():
                is_due = time_s // LOOK_EVERY_S > known[row].last_s // LOOK_EVERY_S
                if image is not None and is_due:
                    looks[column] = look_of(image, faces[column].landmarks)
                    look = looks[column]
                    if look is not None:
                        differences[row, column] = look_difference(look, known[row].looks)
        else:
            looks = [None if image is None else look_of(image, face.landmarks) for face in faces]
            differences = self._differences(known, faces, looks)
            matched = self._match_places(faces, differences)
        followed: dict[int, _Track] = {}
        for column, (position, face, look) in enumerate(zip(order, faces, looks, strict=True)):
            if (row := matched.get(column, -1)) >= 0:
                track, gone_s = known[row], known[row].last_s
                _see_again(track, face, time_s, look, float(differences[row, column]))
                self._take_over(track, gone_s, time_s)
            else:
                track = self._begin(face, look, known)
            if not track.decided and look is not None:
                for other, difference in zip(known, differences[:, column].tolist(), strict=True):
                    # Later looks count more: a face that was hidden comes out.
                    before = track.resembles.get(other, difference)
                    track.resembles[other] = old_share * before + (1 - old_share) * difference
            followed[position] = track
        self._recognise(max_wait_s)
        return [followed[position] for position in range(len(detections))]

    def _differences(
        self, known: Sequence[_Track], faces: Sequence[Detection], looks: Sequence[Look | None]
    ) -> NDArray[np.float64]:
        """How different each face looks from each track, `(tracks, faces)`.

        Vectors take long, so they are compared where somebody is missing who a face may be: not for
        one that is surely the one of the frame before.
        """
        differences = np.zeros((len(known), len(faces)))
        stay = [row for row, track in enumerate(known) if track.missed == 1 and not track.cut]
        gone = [row for row in range(len(known)) if row not in stay]
        for column, (face, look) in enumerate(zip(faces, looks, strict=True)):
            if look is None:
                continue
            box = np.asarray(face.xyxy, dtype=np.float64)
            is_sure = False
            for row in stay:
                track = known[row]
                differences[row, column] = look_difference(look, track.looks)
                is_alike = track.decided and differences[row, column] <= SURE_LOOK
                is_sure |= is_alike and self._cost(track, box) < UNMATCHED
            compare = look_difference if is_sure else person_difference
            for row in gone:
                differences[row, column] = compare(look, known[row].looks)
        return differences

    def _begin(self, face: Detection, look: Look | None, known: Sequence[_Track]) -> _Track:
        box = np.asarray(face.xyxy, dtype=np.float64)
        track = _Track(box, [look] if look else [], self._now_s, self._now_s)
        track.near = [
            other
            for other in known
            if self._is_expected(other) and self._cost(other, track.xyxy) < UNMATCHED
        ]
        self._tracks.append(track)
        return track

    def _numbers(self, detections: Sequence[Detection], tracks: Sequence[_Track]) -> list[int]:
        """Tell the tracks' numbers; those who have none get the next ones from left to right."""
        tracks = [_who(track) for track in tracks]
        for position in sorted(range(len(tracks)), key=lambda i: _sort_key(detections[i])):
            if tracks[position].track_id is None:
                tracks[position].track_id = self._next_id
                self._next_id += 1
        return [track.track_id for track in tracks if track.track_id is not None]

    def _notice_cut(self, image: NDArray[np.uint8]) -> None:
        before, self._thumbnail = self._thumbnail, thumbnail(image)
        if before is not None and is_cut(before, self._thumbnail):
            for track in self._tracks:
                track.cut = True

    def _forget(self) -> None:
        """Keep the tracks that a face may still belong to."""
        self._tracks = [
            track
            for track in self._tracks
            if track.missed == 1 or self._is_expected(track) or _can_be_recognised(track)
        ]
        if len(self._tracks) > MAX_REMEMBERED:
            self._tracks = sorted(self._tracks, key=lambda track: track.missed)[:MAX_REMEMBERED]

    def _is_expected(self, track: _Track) -> bool:
        """Tell whether a face may be back near the place where it was."""
        is_recent = not _is_past(self._now_s - track.last_s, self.keep_lost_s)
        return (track.missed == 1 or is_recent) and not track.cut

    def _cost(self, track: _Track, box: NDArray[np.float64]) -> float:
        """Cost of seeing a face in `box`, 0 for the very same place."""
        expected = track.xyxy + track.velocity * (self._now_s - track.last_s)
        return min(_box_cost(track.xyxy, box), _box_cost(expected, box))

    def _take_over(self, old: _Track, gone_s: float, back_s: float) -> None:
        """An undecided face that is gone when an old one is found in its place was the old one.

        That one was not seen after `gone_s` until `back_s`.
        """
        for new in [one for one in self._tracks if not one.decided and one is not old]:
            was_between = gone_s < new.first_s and new.last_s < back_s
            is_recent = not _is_past(self._now_s - new.last_s, SHORT_GAP_S)
            in_place = is_recent and self._cost(new, old.xyxy) < UNMATCHED
            if was_between and in_place and _are_alike(new, old):
                new.same_as = old
                self._tracks.remove(new)
                return  # two that were seen together can't both be the old one

    def _match_steady(self, faces: Sequence[Detection]) -> dict[int, int] | None:
        """Match faces that stay nearly where they were and far from each other, columns to rows.

        Returns:
            `None` if any face is new or unclear; then looks must be compared.
        """
        rows = [row for row, track in enumerate(self._tracks) if track.missed == 1]
        boxes = [np.asarray(face.xyxy, dtype=np.float64) for face in faces]
        if any(track.cut or not track.decided for track in (self._tracks[row] for row in rows)):
            return None
        costs = np.array(
            [[self._cost(self._tracks[row], box) for box in boxes] for row in rows]
        ).reshape(len(rows), len(boxes))
        near = costs < UNMATCHED
        if (near.sum(axis=0) != 1).any() or (near.sum(axis=1) > 1).any():
            return None
        matched = {int(column): rows[row] for row, column in np.argwhere(near).tolist()}
        return matched if (costs[near] <= STEADY).all() else None

    def _match_places(
        self, detections: Sequence[Detection], differences: NDArray[np.float64]
    ) -> dict[int, int]:
        """Find the track of each face that is where one is expected; rows by columns."""
        cost = np.full(differences.shape, UNMATCHED)
        lost = [row for row, track in enumerate(self._tracks) if track.missed > 1 and track.looks]
        most_alike = differences[lost].min(axis=0, initial=np.inf)
        for row, track in enumerate(self._tracks):
            for column, face in enumerate(detections):
                difference = differences[row, column]
                # What looked like a cut may have been somebody who came or went beside this one.
                stayed = track.missed == 1 and difference <= SURE_LOOK
                if not (stayed or self._is_expected(track)):
                    continue
                too_different = difference > self._largest_difference(track)
                another = (
                    track.missed > 1 and track.decided and difference > most_alike[column] + CLEARLY
                )
                if not (too_different or another):
                    place = self._cost(track, np.asarray(face.xyxy, dtype=np.float64))
                    cost[row, column] = min(place + min(difference, OTHER_LOOK), UNMATCHED)
        return {column: row for row, column in assign(cost) if cost[row, column] < UNMATCHED}

    def _largest_difference(self, track: _Track) -> float:
        """How different a face may look that is where the track is expected."""
        if track.missed == 1:  # from one frame to the next, place alone is better evidence
            return float("inf")
        is_long_gone = _is_past(self._now_s - track.last_s, SHORT_GAP_S)
        return SURE_LOOK if is_long_gone else OTHER_LOOK

    def _recognise(self, max_wait_s: float) -> None:
        """Find out which of the new faces were seen before, somewhere else."""
        new = [track for track in self._tracks if not track.decided]
        old = [track for track in self._tracks if track.decided and _can_be_recognised(track)]
        has_waited = [self._now_s - one.first_s >= max_wait_s - ROUNDING_S for one in new]
        if new and old:
            differences = np.array([[_resemblance(one, other) for other in old] for one in new])
            enough = np.array(
                [
                    [_enough(one, other, waited) for other in old]
                    for one, waited in zip(new, has_waited, strict=True)
                ]
            )
            fits = (
                (differences <= enough)
                & _is_clearly_smallest(differences, axis=0)
                & _is_clearly_smallest(differences, axis=1)
            )
            for row, column in np.argwhere(fits).tolist():
                if new[row].same_as is None:
                    gone_s = old[column].last_s
                    _join(new[row], old[column])
                    self._tracks.remove(new[row])
                    self._take_over(old[column], gone_s, new[row].first_s)
        for track, waited in zip(new, has_waited, strict=True):
            if waited or not any(_resemblance(track, one) < 1e6 for one in old):
                track.decided = True
                track.resembles, track.near = {}, []


def _is_past(passed_s: float, limit_s: float) -> bool:
    return passed_s > limit_s + ROUNDING_S


def _share_left(passed_s: float, half_s: float) -> float:
    """What is left of the old when something is smoothed over time; none gets more than all."""
    return float(0.5 ** (max(0.0, passed_s) / half_s))


def _sort_key(detection: Detection) -> tuple[float, ...]:
    return (*detection.xyxy, detection.confidence, *np.ravel(detection.landmarks))


def _are_alike(new: _Track, old: _Track) -> bool:
    """Whether two may be one person, or nothing is known against it."""
    return not new.looks or person_difference(new.looks[-1], old.looks) <= OTHER_LOOK


def _is_clearly_smallest(values: NDArray[np.float64], axis: int) -> NDArray[np.bool_]:
    if values.shape[axis] == 1:
        return np.ones(values.shape, dtype=bool)
    second: NDArray[np.float64] = np.partition(values, 1, axis=axis).take([1], axis=axis)
    clear: NDArray[np.bool_] = values + CLEARLY <= second
    return clear


def _can_be_recognised(track: _Track) -> bool:
    return bool(track.looks) and track.num_frames >= MIN_FRAMES


def _enough(new: _Track, old: _Track, waited: bool) -> float:
    """How different the two may look to be the same."""
    if not waited:
        return SURE_LOOK
    return OTHER_LOOK if old in new.near else SAME_LOOK


def _resemblance(new: _Track, old: _Track) -> float:
    """Smallest difference of their looks so far; a large one if both were seen in one frame."""
    if old.last_s >= new.first_s:
        return 1e6
    return new.resembles.get(old, 1e6)


def _who(track: _Track) -> _Track:
    return track if track.same_as is None else _who(track.same_as)


def _join(new: _Track, old: _Track) -> None:
    """The new track goes on as the old one."""
    old.xyxy, old.velocity, old.last_s = new.xyxy, new.velocity, new.last_s
    old.missed, old.cut = new.missed, new.cut
    old.num_frames += new.num_frames
    old.looks = [*old.looks, *new.looks][-MAX_LOOKS:]
    new.same_as, new.resembles, new.near = old, {}, []


def _see_again(
    track: _Track, face: Detection, time_s: float, look: Look | None, difference: float
) -> None:
    box = np.asarray(face.xyxy, dtype=np.float64)
    passed_s = max(time_s - track.last_s, 1e-3)  # several frames may have one time
    old_share = _share_left(passed_s, VELOCITY_HALF_S)
    track.velocity = old_share * track.velocity + (1 - old_share) * (box - track.xyxy) / passed_s
    track.xyxy, track.last_s, track.missed = box, time_s, 0
    track.num_frames += 1
    # A look that is too different may be that of a hand or another head before the face.
    if look is not None and (not track.looks or NEW_LOOK < difference <= OTHER_LOOK):
        track.looks = [*track.looks[-MAX_LOOKS + 1 :], look]


def _box_cost(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    sides = np.maximum([first[2:] - first[:2], second[2:] - second[:2]], 1e-6)  # (2 boxes, 2 sides)
    areas = sides.prod(axis=1)
    size = np.sqrt(areas)
    shift = (first[:2] + first[2:] - second[:2] - second[2:]) / 2
    distance = float(np.hypot(*shift) / size.mean())
    if distance > MAX_DISTANCE or size.max() > MAX_SCALE_CHANGE * size.min():
        return UNMATCHED
    overlap = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    intersection = overlap.clip(min=0).prod()
    iou = float(intersection / (areas.sum() - intersection))
    return 1 - iou + distance
