"""From intensity over time to segments: onset, apex and offset of each expression shown."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

ROUNDING_S = 1e-6
"""Frame times carry rounding errors: 0.6 − 0.4 is to count as 0.2, in seconds."""


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
    min_turn_s: float = 0.5
    """Shorter leads of another expression are taken for noise, not for a turn, in seconds."""

    def __post_init__(self) -> None:
        if not 0 <= self.offset_threshold <= self.onset_threshold <= 1:
            raise ValueError(
                f"found offset_threshold={self.offset_threshold} and "
                f"onset_threshold={self.onset_threshold}, expected 0 ≤ offset ≤ onset ≤ 1"
            )
        if min(self.min_length_s, self.merge_gap_s, self.min_turn_s, self.apex_span_s) < 0:
            raise ValueError(
                f"found min_length_s={self.min_length_s}, merge_gap_s={self.merge_gap_s}, "
                f"min_turn_s={self.min_turn_s} and apex_span_s={self.apex_span_s}, "
                "expected seconds, 0 or more"
            )


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


def split_at_gaps(time_s: NDArray[np.float64], max_gap_s: float) -> list[slice]:
    """Cut a face's frames where it was away.

    Args:
        time_s: `(n,)` ascending, in seconds.
        max_gap_s: neighbours that are further apart belong to different runs.

    Returns:
        The runs, as slices that together cover all n frames.
    """
    if len(time_s) == 0:
        return []
    cuts = [
        0,
        *(np.flatnonzero(np.diff(time_s) > max_gap_s + ROUNDING_S) + 1).tolist(),
        len(time_s),
    ]
    return [slice(start, stop) for start, stop in pairwise(cuts)]


def find_segments(
    time_s: NDArray[np.float64],
    intensity: NDArray[np.float64],
    probs: NDArray[np.float64],
    expressions: tuple[str, ...],
    config: SegmentConfig | None = None,
    max_gap_s: float = 0.5,
) -> list[Segment]:
    """Find the segments of one face.

    A segment is a stretch of intensity above the offset threshold that reaches the onset threshold
    somewhere. It takes the name of the non-neutral expression with the largest summed probability;
    where another one leads for `min_turn_s` or longer, the segment is divided there, because one
    expression may turn into another without a neutral face in between.

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
    config = config or SegmentConfig()
    shown = [index for index, name in enumerate(expressions) if name != "neutral"]
    shown_probs = probs[:, shown]
    segments = []
    for run in split_at_gaps(time_s, max_gap_s):
        for stretch in _active_stretches(time_s[run], intensity[run], config):
            start, stop = run.start + stretch.start, run.start + stretch.stop
            leaders = shown_probs[start:stop].argmax(axis=1)
            for part in _divide(time_s[start:stop], leaders, config.min_turn_s):
                first, last = start + part.start, start + part.stop - 1
                own = slice(first, last + 1)
                apex = first + _apex(time_s[own], intensity[own], config.apex_span_s)
                peak = float(intensity[own].max())
                # A part between two turns may stay low; it was not shown by itself.
                if (
                    peak < config.onset_threshold
                    or time_s[last] - time_s[first] < config.min_length_s - ROUNDING_S
                ):
                    continue
                leader = int(shown_probs[first : last + 1].sum(axis=0).argmax())
                segments.append(
                    Segment(
                        expressions[shown[leader]],
                        float(time_s[first]),
                        float(time_s[apex]),
                        float(time_s[last]),
                        peak,
                    )
                )
    return segments


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


def _active_stretches(
    time_s: NDArray[np.float64], intensity: NDArray[np.float64], config: SegmentConfig
) -> list[slice]:
    """Stretches above the offset threshold that reach the onset threshold, short gaps closed."""
    edges = np.diff(np.concatenate([[0], intensity >= config.offset_threshold, [0]]).astype(int))
    stretches: list[slice] = []
    for start, stop in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        if intensity[start:stop].max() < config.onset_threshold:
            continue
        if stretches:
            gap_s = time_s[start] - time_s[stretches[-1].stop - 1]
            if gap_s <= config.merge_gap_s + ROUNDING_S:
                start = stretches.pop().start
        stretches.append(slice(int(start), int(stop)))
    return stretches


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
