"""Analyse a video: every face found, followed, aligned and scored, in one pass."""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from fergcn.analysis.segments import SegmentConfig, find_segments, split_at_gaps
from fergcn.checkpoint import Checkpoint, load_checkpoint
from fergcn.clips import sample_frames
from fergcn.expressions import NOT_SURE, SURE_FROM, FergcnError
from fergcn.faces.align import align_face
from fergcn.faces.detect import MTCNN_INPUT_SIZE, Detection, FaceDetector
from fergcn.faces.follow import find_faces
from fergcn.faces.track import Tracker
from fergcn.model import FERGCN, GraphHead
from fergcn.transforms import eval_transform
from fergcn.video import VideoFrame, VideoInfo, probe_video, read_frames
from fergcn.workers import run_ahead

FACE_COLUMNS = (
    *("frame_index", "time_s", "track_id", "x1", "y1", "x2", "y2", "face_confidence"),
    *("expression", "intensity"),
)
"""Columns of `Analysis.frames` before the probabilities."""
WINDOW_COLUMNS = ("track_id", "start_frame", "end_frame", "start_s", "end_s", "expression")
"""Columns of `Analysis.windows` before the probabilities."""
SEGMENT_COLUMNS = ("track_id", "expression", "onset_s", "apex_s", "offset_s", "peak_intensity")
"""Columns of `Analysis.segments`."""

MAX_AHEAD = 8
"""Frames whose faces are found before they are needed, at most; bounds memory."""
WINDOW_BATCH = 256
"""Windows that the graph head scores at once; bounds memory."""


@dataclass(frozen=True)
class AnalysisConfig:
    """How a video is analysed."""

    stride: int = 4
    """Frames from one window's start to the next one's, at most N. Smaller is smoother."""
    batch_size: int = 32
    """Faces that pass through the backbone at once."""
    min_face_size: int = 40
    """Smaller faces are not looked for, in pixels. A larger value is faster."""
    min_confidence: float = 0.9
    """Faces that the detector is less sure of are left out."""
    detect_every_s: float = 0.25
    """Seconds between two searches for faces; where they moved, came or left, more are made, and
    otherwise their places in between are interpolated. 0 searches every frame."""
    min_track_frames: int = 3
    """Faces found in fewer frames are taken for false alarms, except in a shorter video."""
    keep_lost_s: float = 1.0
    """A face that was away for longer comes back under a new number, in seconds."""
    max_gap_s: float = 0.5
    """No window and no segment goes on over a longer time without the face, in seconds."""
    sure_from: float = SURE_FROM
    """A face whose most probable expression is less probable gets the answer `not sure`; 0 always
    names one."""
    device: str = "auto"
    """Where the network runs: `cpu`, `cuda`, or `auto` for a GPU if there is one."""
    segments: SegmentConfig = field(default_factory=SegmentConfig)
    """When an expression counts as shown."""

    def __post_init__(self) -> None:
        if self.stride < 1 or self.batch_size < 1:
            raise ValueError(
                f"found stride={self.stride} and batch_size={self.batch_size}, "
                "expected whole numbers from 1"
            )
        if min(self.detect_every_s, self.keep_lost_s, self.max_gap_s) < 0:
            raise ValueError(
                f"found detect_every_s={self.detect_every_s}, keep_lost_s={self.keep_lost_s} and "
                f"max_gap_s={self.max_gap_s}, expected seconds from 0"
            )
        if not 0 <= self.sure_from <= 1:
            raise ValueError(f"found sure_from={self.sure_from}, expected 0 to 1")
        if self.min_face_size < MTCNN_INPUT_SIZE or not 0 <= self.min_confidence <= 1:
            raise ValueError(
                f"found min_face_size={self.min_face_size} and "
                f"min_confidence={self.min_confidence}, "
                f"expected at least {MTCNN_INPUT_SIZE} pixels and 0 to 1"
            )


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was found in one video.

    A frame's probabilities are the mean of those of the windows that hold it: the network is
    trained on whole windows, and only their answers mean something. Changes of expression are
    therefore drawn out over up to N frames.

    `intensity` is between 0 and 1; `frame_intensity` says what it is. It is learned from the names
    of expressions alone, so it is not a physical measure of how strong an expression is, and can't
    be compared between checkpoints.
    """

    frames: pd.DataFrame
    """One row for each face in each frame: `FACE_COLUMNS`, then one probability column for each
    expression. A frame without a face has one row with no track and no values."""
    windows: pd.DataFrame
    """One row for each window of N frames: `WINDOW_COLUMNS`, then the probabilities. First and last
    frame and their times are included in the window."""
    segments: pd.DataFrame
    """One row for each expression shown: `SEGMENT_COLUMNS`, times in seconds."""
    expressions: tuple[str, ...]
    """The checkpoint's expressions, in the order of the probability columns."""
    summary: dict[str, Any]
    """Video, settings, versions, checkpoint, counts, the overall answer for each track, warnings
    and the seconds spent in each stage; JSON values only."""

    @property
    def num_faces(self) -> int:
        """Faces found, over all frames; 0 is a good result for a video without faces."""
        return int(self.frames["track_id"].notna().sum())


@dataclass
class _Faces:
    """Everything that is kept of the faces; pictures are not."""

    frame_index: list[int] = field(default_factory=list)
    time_s: list[float] = field(default_factory=list)
    track_id: list[int] = field(default_factory=list)
    xyxy: list[NDArray[np.float64]] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)
    """One `(batch, d)` tensor for each batch."""


class _Stopwatch:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        stages = ("load", "decode", "detect", "track", "align", "backbone", "head")
        self.seconds = dict.fromkeys(stages, 0.0)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - start


def analyze(
    path: str | Path,
    checkpoint: str | Path | Checkpoint = "default",
    config: AnalysisConfig | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> Analysis:
    """Find out who shows which expression when.

    Decoding, tracking, alignment and the backbone run once for each frame, detection where needed;
    windows of N frames then share the features. No picture outlives its batch.

    Args:
        path: the video.
        checkpoint: a folder or a name as in `load_checkpoint`, or one that is loaded already; its
            network is moved to the device of the analysis.
        config: settings; `AnalysisConfig()` if left out.
        on_progress: is called after every frame with the number of frames done and the estimated
            number of all frames, `None` if the video doesn't say.

    Raises:
        FergcnError: the video can't be read, there is no such checkpoint or device, its network
            has no frame features, or the stride exceeds the network's window, which would leave
            frames out.
    """
    started = time.perf_counter()
    path = Path(path)
    config = config or AnalysisConfig()
    info = probe_video(path)
    stopwatch = _Stopwatch()
    with stopwatch("load"):
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = load_checkpoint(checkpoint)
        device = config.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            model = checkpoint.model.to(device).eval()
        except (AssertionError, RuntimeError):
            raise FergcnError(
                f"found device {device}, expected one that this machine has: try auto or cpu"
            ) from None
        if not isinstance(model, FERGCN):
            raise FergcnError(
                f"found a checkpoint of {model.config.network}, which has no frame features for "
                "windows to share, expected one of another network: choose another --checkpoint"
            )
        detector = FaceDetector(config.min_face_size, config.min_confidence)
    num_frames = model.config.num_frames
    if config.stride > num_frames:
        raise FergcnError(
            f"found stride {config.stride}, expected at most the {num_frames} frames of the "
            "checkpoint's window: frames in between would get no answer"
        )

    with torch.inference_mode():
        all_times, size, faces = _collect_faces(
            path, checkpoint, model, detector, config, info, stopwatch, on_progress
        )
        faces = _without_short_tracks(faces, min(config.min_track_frames, len(all_times)))
        features = torch.cat(faces.features) if faces.features else torch.empty(0, 0)
        windows = _plan_all_windows(faces, num_frames, config)
        with stopwatch("head"):
            frame_probs, window_probs = score_windows(model, features, windows)
            intensity = frame_intensity(model, features, frame_probs, checkpoint.expressions)

    expressions = checkpoint.expressions
    frames = _frame_table(all_times, faces, frame_probs, intensity, expressions)
    window_table = _window_table(faces, windows, window_probs, expressions)
    segments = _segment_table(frames, expressions, config)
    counts = {
        "frames": len(all_times),
        "frames_with_face": len(set(faces.frame_index)),
        "faces": len(faces.frame_index),
        "tracks": len(set(faces.track_id)),
        "windows": len(window_table),
        "segments": len(segments),
    }
    total_s = time.perf_counter() - started
    summary = {
        "video": {
            "file": path.name,
            "size_bytes": path.stat().st_size,
            "modified_ns": path.stat().st_mtime_ns,
            "width": size[0],
            "height": size[1],
            "fps": round(info.fps, 3),
            "duration_s": round(all_times[-1], 3),
        },
        "settings": asdict(config),
        "versions": {
            "fergcn": version("fergcn"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "checkpoint": {
            "sha256": checkpoint.sha256,
            "expressions": list(expressions),
            "num_frames": num_frames,
            "network": model.config.network,
            "backbone": model.config.backbone,
            "metadata": checkpoint.metadata,
        },
        "counts": counts,
        "tracks": _track_answers(frames, window_table, expressions, config.sure_from),
        "warnings": _warnings(counts, info.num_frames),
        "device": device,
        "timings_s": {
            **{stage: round(seconds, 3) for stage, seconds in stopwatch.seconds.items()},
            "total": round(total_s, 3),
        },
        "frames_per_s": round(len(all_times) / total_s, 1),
    }
    return Analysis(frames, window_table, segments, expressions, summary)


def plan_windows(
    time_s: NDArray[np.float64], num_frames: int, stride: int, max_gap_s: float
) -> NDArray[np.int64]:
    """Lay windows over the frames of one face.

    Windows start every `stride` frames; the last one ends with the last frame, so that every frame
    is in a window. A run of fewer than N frames makes one window in which frames are used again,
    one of exactly N frames makes one window of just these.

    Args:
        time_s: `(n,)` ascending times of the frames in which the face was found, in seconds.
        num_frames: N.
        stride: frames between the starts of two windows.
        max_gap_s: a window does not go on over a longer time without the face.

    Returns:
        `(windows, N)` positions in `time_s`, never decreasing within a window.
    """
    windows = []
    for run in split_at_gaps(time_s, max_gap_s):
        length = run.stop - run.start
        if length < num_frames:
            windows.append(run.start + sample_frames(length, num_frames))
            continue
        last = run.stop - num_frames
        starts = [*range(run.start, last, stride), last]
        windows.extend(start + np.arange(num_frames) for start in starts)
    return np.array(windows, dtype=np.int64).reshape(-1, num_frames)


def score_windows(
    model: FERGCN, features: Tensor, windows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Run the graph head over windows that share their frames' features.

    Args:
        model: in evaluation mode.
        features: `(n, d)` on the CPU, one row for each face in each frame.
        windows: `(W, N)` rows of `features`; every row is in a window.

    Returns:
        Probabilities of the frames, `(n, classes)`, and of the windows, `(W, classes)`; how the
        frames come to theirs is said at `Analysis`.
    """
    num_classes = model.config.num_classes
    device = next(model.parameters()).device
    probs_sum = torch.zeros(len(features), num_classes, dtype=torch.float64)
    times_used = torch.zeros(len(features), 1, dtype=torch.float64)
    window_probs = [torch.empty(0, num_classes, dtype=torch.float64)]
    for start in range(0, len(windows), WINDOW_BATCH):
        batch = torch.from_numpy(windows[start : start + WINDOW_BATCH])
        probs = model.head(features[batch].to(device)).cpu().double().softmax(1)  # (B, classes)
        window_probs.append(probs)
        rows = batch.flatten()  # (B, N) → (B·N)
        probs_sum.index_add_(0, rows, probs.repeat_interleave(batch.shape[1], dim=0))
        times_used.index_add_(0, rows, times_used.new_ones(len(rows), 1))
    return (probs_sum / times_used).numpy(), torch.cat(window_probs).numpy()


def frame_intensity(
    model: FERGCN, features: Tensor, probs: NDArray[np.float64], expressions: tuple[str, ...]
) -> NDArray[np.float64]:
    """How intense an expression each frame shows, `(n,)`, 0 to 1.

    Args:
        model: in evaluation mode.
        features: `(n, d)` on the CPU.
        probs: `(n, classes)`, the frames' probabilities.
        expressions: the names of the classes.

    Returns:
        What a network with `adjacency="per_clip"` says of the frame alone; of other networks
        1 − p(neutral), or the largest probability where neutral is unknown.
    """
    if len(features) and isinstance(model.head, GraphHead) and model.head.intensity is not None:
        device = next(model.parameters()).device
        scores = model.head.intensity_scores(features.to(device)[None])[0]
        own: NDArray[np.float64] = torch.sigmoid(scores).cpu().double().numpy()
        return own
    if "neutral" in expressions:
        return 1 - probs[:, expressions.index("neutral")]
    largest: NDArray[np.float64] = probs.max(axis=1, initial=0)
    return largest


def _collect_faces(
    path: Path,
    checkpoint: Checkpoint,
    model: FERGCN,
    detector: FaceDetector,
    config: AnalysisConfig,
    info: VideoInfo,
    stopwatch: _Stopwatch,
    on_progress: Callable[[int, int | None], None] | None,
) -> tuple[list[float], tuple[int, int], _Faces]:
    """Decode → detect → track → align → backbone.

    Returns:
        The time of every frame, the picture's width and height, and the faces.
    """
    tracker = Tracker(max_missed=round(config.keep_lost_s * info.fps))
    faces = _Faces()
    waiting: list[NDArray[np.uint8]] = []  # crops, at most a batch and the rest of one frame
    all_times: list[float] = []
    size = (0, 0)

    def flush() -> None:
        with stopwatch("backbone"):
            batch = eval_transform(np.stack(waiting), checkpoint.resize, checkpoint.crop)
            device = next(model.parameters()).device
            faces.features.append(model.frame_features(batch.to(device)).cpu())
        waiting.clear()

    def decode() -> Iterator[VideoFrame]:
        frames = read_frames(path)
        while True:
            with stopwatch("decode"):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def detect(image: NDArray[np.uint8]) -> list[Detection]:
        with stopwatch("detect"):
            return detector(image)

    # One thread decodes and detects while this one aligns and runs the backbone.
    found = run_ahead(find_faces(decode(), detect, config.detect_every_s), MAX_AHEAD)
    for frame, detections in found:
        all_times.append(frame.time_s)
        size = (frame.image.shape[1], frame.image.shape[0])
        with stopwatch("track"):
            track_ids = tracker.update(detections)
        with stopwatch("align"):
            for detection, track_id in zip(detections, track_ids, strict=True):
                waiting.append(align_face(frame.image, detection.landmarks, checkpoint.resize))
                faces.frame_index.append(frame.index)
                faces.time_s.append(frame.time_s)
                faces.track_id.append(track_id)
                faces.xyxy.append(detection.xyxy)
                faces.confidence.append(detection.confidence)
        if len(waiting) >= config.batch_size:
            flush()
        if on_progress is not None:
            on_progress(len(all_times), info.num_frames)
    if waiting:
        flush()
    return all_times, size, faces


def _without_short_tracks(faces: _Faces, min_frames: int) -> _Faces:
    """Leave out tracks of fewer frames and number the others anew, in the order of appearance."""
    track_ids, lengths = np.unique(np.array(faces.track_id, dtype=np.int64), return_counts=True)
    number = {old: new for new, old in enumerate(track_ids[lengths >= min_frames].tolist())}
    rows = [row for row, track_id in enumerate(faces.track_id) if track_id in number]
    return _Faces(
        [faces.frame_index[row] for row in rows],
        [faces.time_s[row] for row in rows],
        [number[faces.track_id[row]] for row in rows],
        [faces.xyxy[row] for row in rows],
        [faces.confidence[row] for row in rows],
        [torch.cat(faces.features)[rows]] if rows else [],
    )


def _plan_all_windows(faces: _Faces, num_frames: int, config: AnalysisConfig) -> NDArray[np.int64]:
    """Windows of all tracks, `(W, N)` rows of the features."""
    track_ids, time_s = np.array(faces.track_id), np.array(faces.time_s)
    planned = [np.empty((0, num_frames), dtype=np.int64)]
    for track_id in np.unique(track_ids):
        rows = np.flatnonzero(track_ids == track_id)
        windows = plan_windows(time_s[rows], num_frames, config.stride, config.max_gap_s)
        planned.append(rows[windows])
    return np.concatenate(planned)


def _frame_table(
    all_times: list[float],
    faces: _Faces,
    probs: NDArray[np.float64],
    intensity: NDArray[np.float64],
    expressions: tuple[str, ...],
) -> pd.DataFrame:
    corners = np.array(faces.xyxy).reshape(-1, 4)
    names = np.array(expressions)[probs.argmax(axis=1)] if len(probs) else []
    found = pd.DataFrame(
        {
            "frame_index": np.array(faces.frame_index, dtype=np.int64),
            "track_id": pd.array(faces.track_id, dtype="Int64"),
            **dict(zip(("x1", "y1", "x2", "y2"), corners.T, strict=True)),
            "face_confidence": np.array(faces.confidence, dtype=np.float64),
            "expression": pd.array(names, dtype="str"),
            "intensity": intensity,
            **dict(zip(expressions, probs.T, strict=True)),
        }
    )
    every_frame = pd.DataFrame({"frame_index": np.arange(len(all_times)), "time_s": all_times})
    table = every_frame.merge(found, on="frame_index", how="left")
    table = table.sort_values(["frame_index", "track_id"], ignore_index=True)
    return table[[*FACE_COLUMNS, *expressions]]


def _window_table(
    faces: _Faces,
    windows: NDArray[np.int64],
    probs: NDArray[np.float64],
    expressions: tuple[str, ...],
) -> pd.DataFrame:
    frame_index, time_s = np.array(faces.frame_index, dtype=np.int64), np.array(faces.time_s)
    first, last = windows[:, 0], windows[:, -1]
    return pd.DataFrame(
        {
            "track_id": np.array(faces.track_id, dtype=np.int64)[first],
            "start_frame": frame_index[first],
            "end_frame": frame_index[last],
            "start_s": time_s[first],
            "end_s": time_s[last],
            "expression": pd.array(
                np.array(expressions)[probs.argmax(axis=1)] if len(probs) else [], dtype="str"
            ),
            **dict(zip(expressions, probs.T, strict=True)),
        }
    )


def _segment_table(
    frames: pd.DataFrame, expressions: tuple[str, ...], config: AnalysisConfig
) -> pd.DataFrame:
    rows = [
        {"track_id": track_id, **asdict(segment)}
        for track_id, track in _tracks(frames)
        for segment in find_segments(
            track["time_s"].to_numpy(),
            track["intensity"].to_numpy(),
            track[list(expressions)].to_numpy(),
            expressions,
            config.segments,
            config.max_gap_s,
        )
    ]
    return pd.DataFrame(rows, columns=list(SEGMENT_COLUMNS))


def _track_answers(
    frames: pd.DataFrame, windows: pd.DataFrame, expressions: tuple[str, ...], sure_from: float
) -> list[dict[str, Any]]:
    """The overall answer for each track: the mean of its windows' probabilities.

    `expression` is the most probable one; `answer` the same, or `not sure`.
    """
    answers = []
    for track_id, track in _tracks(frames):
        probs = windows.loc[windows["track_id"] == track_id, list(expressions)].mean()
        answers.append(
            {
                "track_id": track_id,
                "num_frames": len(track),
                "first_s": round(float(track["time_s"].iloc[0]), 3),
                "last_s": round(float(track["time_s"].iloc[-1]), 3),
                "expression": str(probs.idxmax()),
                "answer": str(probs.idxmax()) if probs.max() >= sure_from else NOT_SURE,
                "mean_probabilities": {name: round(float(probs[name]), 4) for name in expressions},
            }
        )
    return answers


def _tracks(frames: pd.DataFrame) -> Iterator[tuple[int, pd.DataFrame]]:
    for track_id in sorted(frames["track_id"].dropna().unique()):
        yield int(track_id), frames[frames["track_id"] == track_id]


def _warnings(counts: dict[str, int], expected_frames: int | None) -> list[str]:
    warnings = []
    if counts["faces"] == 0:
        warnings.append(
            f"found no face in {counts['frames']} frames: are the faces smaller than "
            "min_face_size, or turned away?"
        )
    # The header's number may be an estimate, so only a clear lack counts.
    if expected_frames is not None and counts["frames"] < 0.9 * expected_frames:
        warnings.append(
            f"found {counts['frames']} frames where the header promises {expected_frames}: "
            "the file may be cut off or damaged"
        )
    return warnings
