"""The engine: frames in, predictions out, in bounded memory whatever the length."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from numpy.typing import NDArray

from fergcn.analysis.config import AnalysisConfig
from fergcn.analysis.network import FaceNetwork
from fergcn.analysis.segments import ROUNDING_S, Segment, SegmentFinder
from fergcn.analysis.windows import Window, WindowPlanner
from fergcn.checkpoint import Checkpoint
from fergcn.expressions import FergcnError
from fergcn.faces.align import align_face
from fergcn.faces.detect import Detection, FaceDetector
from fergcn.faces.follow import find_faces
from fergcn.faces.track import MAX_WAIT_S, Tracker
from fergcn.video import VideoFrame
from fergcn.workers import run_ahead

MAX_AHEAD = 8
"""Frames whose faces are numbered before they are needed, at most; bounds memory."""
SEARCHED_SIZE = 2
"""Where all faces are larger, pictures are made smaller until the smallest one is this many times
`min_face_size`, so that a face that shrinks is still found."""
WINDOW_BATCH = 256
"""Windows that the network answers at once; bounds memory."""


@dataclass(frozen=True)
class Prediction:
    """What is known of one face in one frame; of a frame without a face, only the first two."""

    frame_index: int
    """Position of the frame, from 0."""
    time_s: float
    """When it is shown, in seconds."""
    track_id: int | None = None
    """The face's number, which it keeps."""
    xyxy: tuple[float, float, float, float] | None = None
    """Left, top, right and bottom edge of the face in pixels."""
    confidence: float | None = None
    """Probability that this is a face, 0 to 1."""
    expression: str | None = None
    """The most probable one."""
    intensity: float | None = None
    """How intense an expression the face shows, 0 to 1."""
    probs: dict[str, float] = field(default_factory=dict)
    """Probability of each expression, as `Analysis` explains it."""


@dataclass(frozen=True)
class WindowAnswer:
    """What the network says of one window."""

    track_id: int
    start_frame: int
    """The first frame that the window spans."""
    end_frame: int
    """The last one."""
    start_s: float
    end_s: float
    expression: str
    """The most probable one."""
    logit: float
    """Its logit."""
    probs: dict[str, float]
    """Probability of each expression."""
    contributions: dict[int, float]
    """By frame index, for the frames that the network saw: what each contributed to the logit of
    the most probable expression. They and the classifier's bias add up to it. Empty where the
    network's head is none for which such contributions exist."""


@dataclass(frozen=True)
class FoundSegment:
    """A segment of one face."""

    track_id: int
    segment: Segment


Event = Prediction | WindowAnswer | FoundSegment
"""What the engine gives out."""


class Stopwatch:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        stages = ("load", "decode", "detect", "track", "align", "backbone", "head")
        self.seconds = dict.fromkeys(stages, 0.0)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start


class Face:
    """One face in one frame, until its row is given out."""

    track: "_Track"  # when its frame has passed the backbone

    number: int  # the tracker's, when it has decided

    def __init__(
        self, frame_index: int, time_s: float, detection: Detection, crop: NDArray[np.uint8]
    ) -> None:
        self.frame_index = frame_index
        self.time_s = time_s
        self.detection = detection
        self.crop: NDArray[np.uint8] | None = crop
        self.features: NDArray[np.float32] | None = None
        self.probs_sum: NDArray[np.float64] | float = 0.0
        self.intensity_sum: float | None = None  # of networks that tell it
        self.num_windows = 0
        self.done = False

    @property
    def settled(self) -> bool:
        """Whether its row can be given out, or will never be."""
        return self.track.dropped or (self.done and self.track.track_id is not None)


@dataclass(frozen=True, eq=False)
class NumberedFrame:
    """A frame's faces, cut out and numbered, without its picture."""

    index: int
    time_s: float
    width: int
    """Of the picture, in pixels."""
    height: int
    faces: list[Face]


class _Track:
    """What is known of one face over time."""

    def __init__(self, track_id: int | None, finder: SegmentFinder) -> None:
        self.track_id = track_id  # None until it has been seen in enough frames
        self.dropped = False
        self.num_frames = 0
        self.last_s = 0.0
        self.planner: WindowPlanner | None = None  # None while the face is away
        self.kept: list[Face] = []  # those that a later window may reach, from planner.first on
        self.num_due = 0  # rows that are still to be given out
        self.finder = finder
        self.last_given_s: float | None = None  # None if no segment can be open


@dataclass(eq=False)
class _Planned:
    """A window that waits for its answer, or for its face to be one."""

    track: _Track
    spanned: list[Face]
    chosen: list[Face]
    features: NDArray[np.float32] | None
    """`(N, d)`, until it is answered."""
    logits: NDArray[np.float64] | None = None
    parts: NDArray[np.float32] | None = None


class Engine:
    """From frames whose faces are numbered to predictions, windows and segments.

    Each face passes through the backbone once; windows share the features, and only those that a
    later window can still need are kept. In a single picture, which has the time, a face's features
    are the mean of its own and its mirror image's: they tell a little more. What is given out does
    not depend on how faces were put together into batches, but for rounding.

    Args:
        network: what describes faces and answers windows.
        config: settings.
        stopwatch: is told how long each stage took.
    """

    def __init__(
        self, network: FaceNetwork, config: AnalysisConfig, stopwatch: Stopwatch | None = None
    ) -> None:
        self.network = network
        self.config = config
        self.expressions = network.checkpoint.expressions
        self._stopwatch = stopwatch or Stopwatch()
        # By the tracker's number: tracks of which something is open, and the numbers given out.
        self._tracks: dict[int, _Track] = {}
        self._track_ids: dict[int, int] = {}
        self._num_frames = 0
        self._waiting: list[NumberedFrame] = []  # for the backbone
        self._frames: deque[NumberedFrame] = deque()  # for their windows
        self._windows: deque[_Planned] = deque()

    @property
    def num_kept(self) -> int:
        """Faces whose features are kept for later windows."""
        return sum(len(track.kept) for track in self._tracks.values())

    def add(self, frame: NumberedFrame) -> Iterator[Event]:
        """Take in the next frame.

        Args:
            frame: not before the previous one, in time.

        Yields:
            What has become final: rows of frames in their order, windows by their end, segments
            after the row with which they end at the latest by `merge_gap_s` and `max_gap_s`.
        """
        self._num_frames += 1
        self._waiting.append(frame)
        num_faces = sum(len(waiting.faces) for waiting in self._waiting)
        # The first one waits for another: it may be the only one, and is then a picture.
        if self._num_frames > 1 and max(num_faces, len(self._waiting)) >= self.config.batch_size:
            yield from self._process()

    def finish(self) -> Iterator[Event]:
        """Give out the rest, no frame following."""
        yield from self._process(is_last=True)
        for track in self._tracks.values():
            yield from self._segments(track, track.finder.finish())

    def _process(self, is_last: bool = False) -> Iterator[Event]:
        """Let the waiting frames pass."""
        faces = [face for frame in self._waiting for face in frame.faces]
        self._describe(faces, mirrored=is_last and self._num_frames == 1)
        planned: list[_Planned] = []
        for frame in self._waiting:
            planned += self._take(frame)
        self._waiting.clear()
        if is_last:
            planned += self._end_tracks()
        self._answer(planned)
        self._windows.extend(planned)
        yield from self._final_windows()
        yield from self._final_rows()

    def _describe(self, faces: list[Face], mirrored: bool) -> None:
        """Run the backbone over faces."""
        size = self.config.batch_size
        for start in range(0, len(faces), size):
            batch = faces[start : start + size]
            with self._stopwatch("backbone"):
                crops = np.stack([face.crop for face in batch if face.crop is not None])
                features = self.network.features(crops, mirrored)
            for row, face in enumerate(batch):
                face.crop = None
                face.features = features[row].copy()  # a row of the batch would keep all of it

    def _take(self, frame: NumberedFrame) -> list[_Planned]:
        """Put a frame's faces into their tracks → the windows that end by that."""
        planned = []
        for track in self._tracks.values():
            # Also where time jumped back: windows and segments need it to go on.
            if not 0 <= frame.time_s - track.last_s <= self.config.max_gap_s + ROUNDING_S:
                planned += self._end_run(track)
        for face in frame.faces:
            if face.number not in self._tracks:
                config = self.config
                finder = SegmentFinder(self.expressions, config.segments, config.max_gap_s)
                self._tracks[face.number] = _Track(self._track_ids.get(face.number), finder)
            face.track = self._tracks[face.number]
            planned += self._follow(face.track, face)
        self._drop_false_alarms(frame)
        self._frames.append(frame)
        return planned

    def _follow(self, track: _Track, face: Face) -> list[_Planned]:
        """Put a face at the end of its track → the windows that end by that."""
        config = self.config
        if track.planner is None:
            track.planner = WindowPlanner(
                self.network.num_frames, config.window_s, config.stride_s, config.stride
            )
        first = track.planner.first
        windows = track.planner.add(face.time_s)
        track.kept.append(face)
        planned = [_plan(track, window, first) for window in windows]
        self._forget(track, track.planner.first - first)
        track.num_frames += 1
        track.num_due += 1
        track.last_s = face.time_s
        if track.track_id is None and track.num_frames >= config.min_track_frames:
            self._number(face.number, track)
        return planned

    def _end_run(self, track: _Track) -> list[_Planned]:
        """End a track's windows: its face is away."""
        if track.planner is None:
            return []
        first = track.planner.first
        planned = [_plan(track, window, first) for window in track.planner.finish()]
        self._forget(track, len(track.kept))
        track.planner = None
        return planned

    def _forget(self, track: _Track, number: int) -> None:
        """Let go of the first ones of a track's faces: no later window reaches them."""
        for face in track.kept[:number]:
            face.features = None
            face.done = True
        del track.kept[:number]

    def _drop_false_alarms(self, frame: NumberedFrame) -> None:
        """Drop tracks that were seen in few frames and have been away for long."""
        present = {face.number for face in frame.faces}
        for number, track in list(self._tracks.items()):
            is_away = abs(frame.time_s - track.last_s) > self.config.keep_lost_s + ROUNDING_S
            if track.track_id is None and is_away and number not in present:
                self._drop(number, track)

    def _end_tracks(self) -> list[_Planned]:
        """End all tracks after the last frame; in a video of few frames, few make a track."""
        planned = []
        for number, track in list(self._tracks.items()):
            planned += self._end_run(track)
            if track.track_id is None:
                if track.num_frames >= min(self.config.min_track_frames, self._num_frames):
                    self._number(number, track)
                else:
                    self._drop(number, track)
        return planned

    def _drop(self, number: int, track: _Track) -> None:
        self._end_run(track)
        track.dropped = True
        del self._tracks[number]

    def _number(self, number: int, track: _Track) -> None:
        """Give a track its number for users: 0, 1, 2… as they turn out to be faces."""
        track.track_id = self._track_ids[number] = len(self._track_ids)

    def _answer(self, planned: list[_Planned]) -> None:
        """Run the head over windows and spread its answers over the frames."""
        for start in range(0, len(planned), WINDOW_BATCH):
            batch = planned[start : start + WINDOW_BATCH]
            with self._stopwatch("head"):
                features = [window.features for window in batch if window.features is not None]
                answers = self.network.answers(np.stack(features))
            for row, window in enumerate(batch):
                window.features = None
                window.logits = answers.logits[row].astype(np.float64)
                if answers.contributions is not None:
                    window.parts = answers.contributions[row].copy()
                if answers.intensity is not None:
                    _add_intensity(window, answers.intensity[row])
                probs = _softmax(window.logits)
                for face in window.spanned:
                    face.probs_sum = face.probs_sum + probs
                    face.num_windows += 1

    def _final_windows(self) -> Iterator[WindowAnswer]:
        while self._windows:
            window = self._windows[0]
            if window.track.track_id is None and not window.track.dropped:
                return
            self._windows.popleft()
            if window.track.track_id is not None and window.logits is not None:
                yield self._window_answer(window, window.track.track_id, window.logits)

    def _window_answer(
        self, window: _Planned, track_id: int, logits: NDArray[np.float64]
    ) -> WindowAnswer:
        best = int(logits.argmax())
        contributions: dict[int, float] = {}
        if window.parts is not None:
            for face, part in zip(window.chosen, window.parts[:, best].tolist(), strict=True):
                # A frame that was used again counts as often.
                contributions[face.frame_index] = contributions.get(face.frame_index, 0.0) + part
        first, last = window.spanned[0], window.spanned[-1]
        return WindowAnswer(
            track_id,
            first.frame_index,
            last.frame_index,
            first.time_s,
            last.time_s,
            self.expressions[best],
            float(logits[best]),
            dict(zip(self.expressions, _softmax(logits).tolist(), strict=True)),
            contributions,
        )

    def _final_rows(self) -> Iterator[Prediction | FoundSegment]:
        while self._frames and all(face.settled for face in self._frames[0].faces):
            frame = self._frames.popleft()
            rows = [
                (face.track.track_id, face)
                for face in frame.faces
                if face.track.track_id is not None
            ]
            if not rows:
                yield Prediction(frame.index, frame.time_s)
            for track_id, face in sorted(rows, key=lambda row: row[0]):
                yield from self._row(track_id, face)
            yield from self._close_segments(frame.time_s)

    def _close_segments(self, time_s: float) -> Iterator[FoundSegment]:
        """Close the segments of faces that have been away for long, all rows being given out."""
        for number, track in list(self._tracks.items()):
            since = track.last_given_s
            if since is not None and not 0 <= time_s - since <= self.config.max_gap_s + ROUNDING_S:
                yield from self._segments(track, track.finder.finish())
                track.last_given_s = since = None
            if track.track_id is not None and since is None and track.num_due == 0:
                del self._tracks[number]  # nothing is open; its number is known

    def _row(self, track_id: int, face: Face) -> Iterator[Prediction | FoundSegment]:
        probs = np.asarray(face.probs_sum) / face.num_windows
        if face.intensity_sum is None:
            intensity = _intensity(probs, self.expressions)
        else:
            intensity = face.intensity_sum / face.num_windows
            probs = _with_intensity(probs, intensity, self.expressions)
        x1, y1, x2, y2 = face.detection.xyxy.tolist()
        yield Prediction(
            face.frame_index,
            face.time_s,
            track_id,
            (x1, y1, x2, y2),
            face.detection.confidence,
            self.expressions[int(probs.argmax())],
            intensity,
            dict(zip(self.expressions, probs.tolist(), strict=True)),
        )
        face.track.last_given_s = face.time_s
        face.track.num_due -= 1
        yield from self._segments(face.track, face.track.finder.add(face.time_s, intensity, probs))

    def _segments(self, track: _Track, segments: list[Segment]) -> Iterator[FoundSegment]:
        for segment in segments:
            assert track.track_id is not None  # rows of other tracks are not given out
            yield FoundSegment(track.track_id, segment)


def _plan(track: _Track, window: Window, first: int) -> _Planned:
    """Look a window's faces up; the track's first one is number `first`."""
    chosen = [track.kept[position - first] for position in window.chosen.tolist()]
    return _Planned(
        track,
        track.kept[window.start - first : window.stop - first],
        chosen,
        np.stack([face.features for face in chosen if face.features is not None]),
    )


def _add_intensity(window: _Planned, intensity: NDArray[np.float32]) -> None:
    """Give the frames that a window spans what it says of theirs; between those seen, in line."""
    # Of a frame that was used again, the network says the same again.
    seen = dict(zip((face.time_s for face in window.chosen), intensity.tolist(), strict=True))
    spanned_s = [face.time_s for face in window.spanned]
    values = np.interp(spanned_s, list(seen), list(seen.values()))
    for face, value in zip(window.spanned, values, strict=True):
        face.intensity_sum = (face.intensity_sum or 0.0) + float(value)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max())
    probs: NDArray[np.float64] = powers / powers.sum()
    return probs


def _intensity(probs: NDArray[np.float64], expressions: tuple[str, ...]) -> float:
    """1 − p(neutral), or the largest probability where neutral is unknown."""
    if "neutral" in expressions:
        return float(1 - probs[expressions.index("neutral")])
    return float(probs.max())


def _with_intensity(
    probs: NDArray[np.float64], intensity: float, expressions: tuple[str, ...]
) -> NDArray[np.float64]:
    """Let a frame say by itself how much of an expression there is, and its windows which one."""
    if "neutral" not in expressions:
        return probs
    shown = np.array([name != "neutral" for name in expressions])
    return np.where(shown, intensity * probs / probs[shown].sum(), 1 - intensity)


def number_faces(
    found: Iterable[tuple[VideoFrame, list[Detection]]],
    tracker: Tracker,
    resize: int,
    stopwatch: Stopwatch,
) -> Iterator[NumberedFrame]:
    """Cut faces out of their frames and give them the numbers of their tracks.

    Args:
        found: frames in the order of time, each with its faces.
        tracker: a new one.
        resize: side of the aligned faces, in pixels.
        stopwatch: is told how long each stage took.

    Yields:
        The frames in their order, as late as the tracker decides.
    """
    waiting: deque[NumberedFrame] = deque()

    def numbered(ready: list[list[int]]) -> Iterator[NumberedFrame]:
        for numbers in ready:
            frame = waiting.popleft()
            for face, number in zip(frame.faces, numbers, strict=True):
                face.number = number
            yield frame

    for frame, detections in found:
        image = frame.image
        with stopwatch("align"):
            crops = [align_face(image, face.landmarks, resize) for face in detections]
        faces = [
            Face(frame.index, frame.time_s, detection, crop)
            for detection, crop in zip(detections, crops, strict=True)
        ]
        height, width = image.shape[:2]
        waiting.append(NumberedFrame(frame.index, frame.time_s, width, height, faces))
        with stopwatch("track"):
            ready = tracker.add(detections, frame.time_s, image)
        yield from numbered(ready)
    yield from numbered(tracker.finish())


def run_engine(
    frames: Iterable[VideoFrame],
    network: FaceNetwork,
    config: AnalysisConfig,
    stopwatch: Stopwatch | None = None,
    on_frame: Callable[[NumberedFrame], None] | None = None,
    max_ahead: int = MAX_AHEAD,
    max_wait_s: float = MAX_WAIT_S,
) -> Iterator[Event]:
    """Find faces in frames and analyse them.

    Another thread decodes, detects, aligns and tracks while this one runs the network.

    Args:
        frames: in the order of time.
        network: what describes faces and answers windows.
        config: settings.
        stopwatch: is told how long each stage took.
        on_frame: is called with each frame when its faces were taken in.
        max_ahead: frames whose faces are numbered before they are needed, at most.
        max_wait_s: frames may wait for so long until a face that comes back is known again.

    Yields:
        What the engine gives out.
    """
    stopwatch = stopwatch or Stopwatch()
    with stopwatch("load"):
        detector = FaceDetector(config.min_face_size, config.min_confidence)
    engine = Engine(network, config, stopwatch)
    tracker = Tracker(config.keep_lost_s, max_wait_s)

    def decode() -> Iterator[VideoFrame]:
        source = iter(frames)
        while True:
            with stopwatch("decode"):
                frame = next(source, None)
            if frame is None:
                return
            yield frame

    def detect(image: NDArray[np.uint8]) -> list[Detection]:
        with stopwatch("detect"):
            return detector(image)

    shrink_to = SEARCHED_SIZE * config.min_face_size
    found = find_faces(decode(), detect, config.detect_every_s, shrink_to)
    numbered = number_faces(found, tracker, network.checkpoint.resize, stopwatch)
    coming = run_ahead(numbered, max_ahead)
    try:
        for frame in coming:
            yield from engine.add(frame)
            if on_frame is not None:
                on_frame(frame)
    finally:
        coming.close()
    yield from engine.finish()


def stream(
    frames: Iterable[NDArray[np.uint8]],
    fps: float = 25.0,
    times: Iterable[float] | None = None,
    checkpoint: str | Checkpoint = "default",
    config: AnalysisConfig | None = None,
) -> Iterator[Prediction]:
    """Analyse pictures from anywhere while they come.

    A frame's predictions come as soon as no later window can change them: `window_s` after it, or
    `max_gap_s` after its faces went away, plus the frames that wait for the next search for faces
    (`detect_every_s`) and for a whole batch (`batch_size`; with 1, only the first one waits, for
    the second). Where a face may still turn out to be a false alarm, the frames after it wait up to
    `keep_lost_s` longer for each frame that it lacks; where it may be somebody who is missing, up
    to `MAX_WAIT_S`. The frames are taken in another thread, a few before they are needed.

    Args:
        frames: `(H, W, 3)` RGB; each may be used again as soon as the next one is asked for.
        fps: frames a second, where there are no `times`.
        times: the time of each frame in seconds, ascending.
        checkpoint: as `analyze` takes it.
        config: settings; `AnalysisConfig()` if left out.

    Yields:
        One prediction for each face in each frame, and one without a face for a frame that has
        none; in the order of frames, in a frame in that of the faces' numbers.

    Raises:
        FergcnError: `fps` or `times` are not as expected, or a frame is none;
            what `analyze` raises for its checkpoint and device.
    """
    if times is None and not 0 < fps < float("inf"):
        raise FergcnError(
            f"found fps={fps}, expected frames a second above 0: pass others, or times=…"
        )
    config = config or AnalysisConfig()
    network = FaceNetwork(checkpoint, config.device, config.runtime)
    return _stream(frames, fps, times, network, config)


def _stream(
    frames: Iterable[NDArray[np.uint8]],
    fps: float,
    times: Iterable[float] | None,
    network: FaceNetwork,
    config: AnalysisConfig,
) -> Iterator[Prediction]:
    if times is None:
        times = (index / fps for index in count())
    for event in run_engine(_checked(frames, times), network, config):
        if isinstance(event, Prediction):
            yield event


def _checked(frames: Iterable[NDArray[np.uint8]], times: Iterable[float]) -> Iterator[VideoFrame]:
    """Number frames and pair them with their times."""
    times = iter(times)
    before = -float("inf")
    for index, image in enumerate(frames):
        time_s = next(times, None)
        if time_s is None:
            raise FergcnError(f"found {index} times for more frames, expected one for each frame")
        if not before <= time_s < float("inf"):
            raise FergcnError(
                f"frame {index}: found time {time_s} after {before}, expected ascending seconds"
            )
        if not (
            isinstance(image, np.ndarray)
            and image.dtype == np.uint8
            and image.ndim == 3
            and image.shape[2] == 3
            and image.size
        ):
            is_array = isinstance(image, np.ndarray)
            what = f"{image.dtype} {image.shape}" if is_array else type(image).__name__
            raise FergcnError(f"frame {index}: found {what}, expected a uint8 array (H, W, 3), RGB")
        before = time_s
        yield VideoFrame(index, float(time_s), image.copy())
