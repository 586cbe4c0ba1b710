"""What the engine gives out as rows of tables, and what is counted of it."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fergcn.analysis.engine import Event, FoundSegment, Prediction, WindowAnswer
from fergcn.expressions import NOT_SURE

FACE_COLUMNS = (
    *("frame_index", "time_s", "track_id", "x1", "y1", "x2", "y2", "face_confidence"),
    *("expression", "intensity"),
)
"""Columns of `Analysis.frames` before the probabilities."""
WINDOW_COLUMNS = (
    *("window", "track_id", "start_frame", "end_frame", "start_s", "end_s", "expression", "logit"),
)
"""Columns of `Analysis.windows` before the probabilities."""
SEGMENT_COLUMNS = ("track_id", "expression", "onset_s", "apex_s", "offset_s", "peak_intensity")
"""Columns of `Analysis.segments`."""
CONTRIBUTION_COLUMNS = ("window", "frame_index", "contribution")
"""Columns of `Analysis.contributions`."""

Row = tuple[Any, ...]
"""Numbers and text; None is an empty cell."""


def table_columns(expressions: tuple[str, ...], contributions: bool) -> dict[str, tuple[str, ...]]:
    """Columns of each table, by its name."""
    columns = {
        "frames": (*FACE_COLUMNS, *expressions),
        "windows": (*WINDOW_COLUMNS, *expressions),
        "segments": SEGMENT_COLUMNS,
    }
    return columns | ({"contributions": CONTRIBUTION_COLUMNS} if contributions else {})


@dataclass
class _TrackTally:
    num_frames: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    probs_sum: NDArray[np.float64] | float = 0.0
    num_windows: int = 0
    num_segments: int = 0


@dataclass
class Tally:
    """Turn what the engine gives out into rows, and count it."""

    expressions: tuple[str, ...]
    contributions: bool = False
    num_frames: int = 0
    num_with_face: int = 0
    num_faces: int = 0
    num_windows: int = 0
    num_segments: int = 0
    duration_s: float = 0.0
    tracks: dict[int, _TrackTally] = field(default_factory=dict)
    _last_frame: int = -1

    def rows(self, event: Event) -> list[tuple[str, Row]]:
        """Count an event.

        Returns:
            The names of tables and the rows that belong there, as `table_columns` has them; None
            is an empty cell.
        """
        if isinstance(event, Prediction):
            return [("frames", self._frame_row(event))]
        track = self.tracks.setdefault(event.track_id, _TrackTally())
        if isinstance(event, FoundSegment):
            self.num_segments += 1
            track.num_segments += 1
            return [("segments", (event.track_id, *astuple(event.segment)))]
        return self._window_rows(event, track)

    def _frame_row(self, row: Prediction) -> Row:
        is_new = row.frame_index != self._last_frame
        self._last_frame = row.frame_index
        self.num_frames += is_new
        self.duration_s = row.time_s
        if row.track_id is None or row.xyxy is None:
            empty = len(FACE_COLUMNS) - 2 + len(self.expressions)
            return (row.frame_index, row.time_s, *[None] * empty)
        self.num_with_face += is_new
        self.num_faces += 1
        track = self.tracks.setdefault(row.track_id, _TrackTally())
        if track.num_frames == 0:
            track.first_s = row.time_s
        track.num_frames += 1
        track.last_s = row.time_s
        return (
            *(row.frame_index, row.time_s, row.track_id, *row.xyxy, row.confidence),
            *(row.expression, row.intensity, *row.probs.values()),
        )

    def _window_rows(self, window: WindowAnswer, track: _TrackTally) -> list[tuple[str, Row]]:
        number = self.num_windows
        self.num_windows += 1
        probs = list(window.probs.values())
        track.probs_sum = track.probs_sum + np.array(probs)
        track.num_windows += 1
        row: Row = (
            *(number, window.track_id, window.start_frame, window.end_frame),
            *(window.start_s, window.end_s, window.expression, window.logit, *probs),
        )
        parts = window.contributions.items() if self.contributions else ()
        return [
            ("windows", row),
            *(("contributions", (number, frame_index, part)) for frame_index, part in parts),
        ]

    def counts(self) -> dict[str, int]:
        """The counts of the summary."""
        return {
            "frames": self.num_frames,
            "frames_with_face": self.num_with_face,
            "faces": self.num_faces,
            "tracks": len(self.tracks),
            "windows": self.num_windows,
            "segments": self.num_segments,
        }

    def track_answers(self, sure_from: float) -> list[dict[str, Any]]:
        """The overall answer for each track: the mean of its windows' probabilities.

        `expression` is the most probable one; `answer` the same, or `not sure` where its
        probability is below `sure_from`.
        """
        answers = []
        for track_id, track in sorted(self.tracks.items()):
            probs = np.asarray(track.probs_sum) / track.num_windows
            expression = self.expressions[int(probs.argmax())]
            named = zip(self.expressions, probs.tolist(), strict=True)
            answers.append(
                {
                    "track_id": track_id,
                    "num_frames": track.num_frames,
                    "first_s": round(track.first_s, 3),
                    "last_s": round(track.last_s, 3),
                    "expression": expression,
                    "answer": expression if probs.max() >= sure_from else NOT_SURE,
                    "mean_probabilities": {name: round(value, 4) for name, value in named},
                    "segments": track.num_segments,
                }
            )
        return answers


def answer_text(track: Mapping[str, Any]) -> str:
    """Say what a track shows on the whole.

    Args:
        track: of the summary, as `Tally.track_answers` makes it.

    Returns:
        Its expression, or `not sure` with the two that come first.
    """
    if track["answer"] != NOT_SURE:
        return str(track["answer"])
    ranked = sorted(track["mean_probabilities"].items(), key=lambda item: -item[1])
    return f"{NOT_SURE}: " + ", ".join(f"{name} {value:.2f}" for name, value in ranked[:2])
