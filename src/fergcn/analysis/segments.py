"""From intensity over time to segments: onset, apex and offset of each expression shown."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

ROUNDING_S = 1e-6
"""Frame times carry rounding errors: 0.6 − 0.4 is to count as 0.2, in seconds."""
MAX_SEGMENT_FRAMES = 10_000
"""A longer segment is cut there; bounds memory. About five and a half minutes at 30 frames/s."""


@dataclass(frozen=True)
class SegmentConfig:
    """When an expression counts as shown."""

    onset_threshold: float = 0.5
    """Intensity that a segment has to reach at least once."""
    offset_threshold: float = 0.35
    """Intensity below which it ends, and above which it begins; hysteresis against flicker."""
    min_length_s: float = 0.2
    """Shorter segments are dropped, in seconds."""
    merge_gap_s: float = 0.2
    """Segments with at most this much time between them become one, in seconds."""
    apex_span_s: float = 0.4
    """The apex is the middle of the time of this length in which the face is most intense: a single
    frame's intensity is noisy. In seconds; 0 takes the most intense frame."""
    min_turn_s: float = 1.0
    """Shorter leads of another expression are taken for noise, not for a turn, in seconds: names
    come from windows of twice that length."""
    min_share: float = 0.4
    """Where no expression has this share of the probability of all that are not neutral, something
    is shown, but nobody knows what: no segment. 0 always names one."""

    def __post_init__(self) -> None:
        if not 0 <= self.offset_threshold <= self.onset_threshold <= 1:
            raise ValueError(
                f"found offset_threshold={self.offset_threshold} and "
                f"onset_threshold={self.onset_threshold}, expected 0 ≤ offset ≤ onset ≤ 1"
            )
        times = (self.min_length_s, self.merge_gap_s, self.min_turn_s, self.apex_span_s)
        if not all(seconds >= 0 for seconds in times):
            raise ValueError(
                f"found min_length_s={self.min_length_s}, merge_gap_s={self.merge_gap_s}, "
                f"min_turn_s={self.min_turn_s} and apex_span_s={self.apex_span_s}, "
                "expected seconds, 0 or more"
            )
        if not 0 <= self.min_share <= 1:
            raise ValueError(f"found min_share={self.min_share}, expected 0 to 1")


@dataclass(frozen=True)
class Segment:
    """One expression shown by one face."""

    expression: str
    """Which one; never neutral."""
    onset_s: float
    """Time of its first frame."""
    apex_s: float
    """Time of the frame around which intensity is highest."""
    offset_s: float
    """Time of its last frame."""
    peak_intensity: float
    """Highest intensity of its frames, 0 to 1."""


class SegmentFinder:
    """Find the segments of one face while its frames come.

    A segment is a stretch of intensity above the offset threshold that reaches the onset threshold
    somewhere. It takes the name of the non-neutral expression with the largest summed probability;
    where another one leads for `min_turn_s` or longer, the segment is divided there, because one
    expression may turn into another without a neutral face in between. A part in which no
    expression has `min_share` is left out.

    Args:
        expressions: the names of the classes.
        config: thresholds and lengths.
        max_gap_s: a segment does not go on over a longer time without the face.
    """

    def __init__(
        self,
        expressions: tuple[str, ...],
        config: SegmentConfig | None = None,
        max_gap_s: float = 0.5,
    ) -> None:
        self.config = config or SegmentConfig()
        self.max_gap_s = max_gap_s
        self._names = [name for name in expressions if name != "neutral"]
        self._shown = [expressions.index(name) for name in self._names]
        # Frames from the first one on that may belong to a segment.
        self._times: list[float] = []
        self._intensities: list[float] = []
        self._probs: list[NDArray[np.float64]] = []
        self._sure = 0  # so many of them make a segment already
        self._active = False  # the last one is above the offset threshold
        self._reached = False  # and since it is, the onset threshold was reached
        self._last_s: float | None = None

    def add(self, time_s: float, intensity: float, probs: NDArray[np.float64]) -> list[Segment]:
        """Take in the next frame.

        Args:
            time_s: not before the previous one's.
            intensity: 0 to 1.
            probs: `(classes,)`.

        Returns:
            The segments that are whole now, by onset.
        """
        found = []
        since = self._last_s if self._last_s is not None else time_s
        if not 0 <= time_s - since <= self.max_gap_s + ROUNDING_S:
            found += self.finish()
        self._last_s = time_s
        active = intensity >= self.config.offset_threshold
        if not (active and self._active):  # a stretch begins, or there is none
            if self._sure == 0:
                self._forget()
            elif time_s - self._times[self._sure - 1] > self.config.merge_gap_s + ROUNDING_S:
                found += self.finish()
            self._reached = False
        self._active = active
        if active or self._sure:
            self._times.append(time_s)
            self._intensities.append(intensity)
            self._probs.append(probs[self._shown])
        self._reached |= active and intensity >= self.config.onset_threshold
        if self._reached:
            self._sure = len(self._times)
        if len(self._times) >= MAX_SEGMENT_FRAMES:
            found += self.finish()
        return found

    def finish(self) -> list[Segment]:
        """Give out what is whole when no frame follows, and begin anew."""
        found = []
        if self._sure:
            time_s = np.array(self._times[: self._sure])
            intensity = np.array(self._intensities[: self._sure])
            found = self._divided(time_s, intensity, np.array(self._probs[: self._sure]))
        self._forget()
        return found

    def _forget(self) -> None:
        self._times, self._intensities, self._probs = [], [], []
        self._sure, self._active, self._reached = 0, False, False

    def _divided(
        self,
        time_s: NDArray[np.float64],
        intensity: NDArray[np.float64],
        probs: NDArray[np.float64],
    ) -> list[Segment]:
        """Segments of one stretch."""
        segments = []
        for part in _divide(time_s, probs.argmax(axis=1), self.config.min_turn_s):
            times, peak = time_s[part], float(intensity[part].max())
            # A part between two turns may stay low; it was not shown by itself.
            if (
                peak < self.config.onset_threshold
                or times[-1] - times[0] < self.config.min_length_s - ROUNDING_S
            ):
                continue
            total = probs[part].sum(axis=0)
            leader = int(total.argmax())
            if total[leader] < self.config.min_share * total.sum():
                continue
            apex = _apex(times, intensity[part], self.config.apex_span_s)
            onset_s, apex_s, offset_s = (float(times[index]) for index in (0, apex, -1))
            segments.append(Segment(self._names[leader], onset_s, apex_s, offset_s, peak))
        return segments


def find_segments(
    time_s: Iterable[float],
    intensity: Iterable[float],
    probs: NDArray[np.float64],
    expressions: tuple[str, ...],
    config: SegmentConfig | None = None,
    max_gap_s: float = 0.5,
) -> list[Segment]:
    """Find the segments of one face whose frames are all there.

    Args:
        time_s: `(n,)` ascending, in seconds.
        intensity: `(n,)`, 0 to 1.
        probs: `(n, classes)`.
        expressions: the names of the classes.
        config: thresholds and lengths.
        max_gap_s: a segment does not go on over a longer time without the face.

    Returns:
        The segments by onset; they don't overlap.
    """
    finder = SegmentFinder(expressions, config, max_gap_s)
    segments = []
    for row in zip(time_s, intensity, probs, strict=True):
        segments += finder.add(*row)
    return segments + finder.finish()


def _apex(time_s: NDArray[np.float64], intensity: NDArray[np.float64], span_s: float) -> int:
    """Frame in the middle of the most intense time of length `span_s`; outside, intensity is 0."""
    if span_s == 0:
        return int(intensity.argmax())
    first = np.searchsorted(time_s, time_s - span_s / 2 - ROUNDING_S)
    stop = np.searchsorted(time_s, time_s + span_s / 2 + ROUNDING_S, side="right")
    total = np.concatenate([[0], np.cumsum(intensity)])
    means = (total[stop] - total[first]) / (stop - first)
    # Near an end, part of the time lies outside.
    half = span_s / 2
    inside = np.minimum(time_s - time_s[0], half) + np.minimum(time_s[-1] - time_s, half)
    # Rounded, so that the first of equals counts; a segment of one frame has no inside.
    return int((means * (inside + ROUNDING_S)).round(6).argmax())


def _divide(
    time_s: NDArray[np.float64], leaders: NDArray[np.int64], min_turn_s: float
) -> list[slice]:
    """Divide where the leader changes; a part that is too short joins its longer neighbour."""
    cuts = [0, *(np.flatnonzero(np.diff(leaders)) + 1).tolist(), len(leaders)]
    parts = [(start, stop, int(leaders[start])) for start, stop in pairwise(cuts)]

    def length(part: tuple[int, int, int]) -> float:
        return float(time_s[part[1] - 1] - time_s[part[0]])

    while len(parts) > 1:
        shortest = min(range(len(parts)), key=lambda index: length(parts[index]))
        if length(parts[shortest]) >= min_turn_s - ROUNDING_S:
            break
        neighbours = [i for i in (shortest - 1, shortest + 1) if 0 <= i < len(parts)]
        host = max(neighbours, key=lambda index: length(parts[index]))
        low, high = sorted((shortest, host))
        parts[low : high + 1] = [(parts[low][0], parts[high][1], parts[host][2])]
        # The two sides of a swallowed part may have the same leader: they are one again.
        for index in (low, low - 1):
            if 0 <= index < len(parts) - 1 and parts[index][2] == parts[index + 1][2]:
                joined = (parts[index][0], parts[index + 1][1], parts[index][2])
                parts[index : index + 2] = [joined]
    return [slice(start, stop) for start, stop, _ in parts]
