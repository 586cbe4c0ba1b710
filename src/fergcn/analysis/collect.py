"""A whole video: everything that its stream gives out, with a summary."""

import itertools
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fergcn.analysis.config import AnalysisConfig
from fergcn.analysis.engine import (
    Event,
    NumberedFrame,
    Prediction,
    Stopwatch,
    WindowAnswer,
    run_engine,
)
from fergcn.analysis.network import FaceNetwork
from fergcn.analysis.tables import Row, Tally, table_columns
from fergcn.checkpoint import Checkpoint
from fergcn.expressions import FergcnError
from fergcn.live import LiveSource, as_file
from fergcn.video import VideoFrame, VideoInfo, probe_video, read_frames


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was found in one video.

    A frame's probabilities are the mean of those of the windows that span it: the network is
    trained on whole windows, and only their answers mean something. So changes of expression are
    drawn out over up to the length of a window, except with `adjacency="per_clip"`: such a network
    also tells the intensity of each frame in a window, and a frame has the mean of what its windows
    say of it. Then p(neutral) is 1 − intensity, and the other expressions share the intensity in
    the proportions of that mean: the windows say which expression it is, the frame how much of it
    there is.

    `intensity` is 1 − p(neutral) in either case, between 0 and 1, or the largest probability where
    neutral is unknown. It is learned from the names of expressions alone, so it is not a physical
    measure of how strong an expression is, and can't be compared between checkpoints.
    """

    frames: pd.DataFrame
    """One row for each face in each frame: `FACE_COLUMNS`, then one probability column for each
    expression. A frame without a face has one row with no track and no values."""
    windows: pd.DataFrame
    """One row for each window, by its end: `WINDOW_COLUMNS`, then the probabilities. First and last
    frame and their times are included in the window; `logit` is that of the expression named."""
    segments: pd.DataFrame
    """One row for each expression shown: `SEGMENT_COLUMNS`, times in seconds."""
    expressions: tuple[str, ...]
    """The checkpoint's expressions, in the order of the probability columns."""
    summary: dict[str, Any]
    """Video, settings, versions, checkpoint, counts, the overall answer for each track, warnings
    and the seconds spent in each stage; JSON values only."""
    contributions: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=["window", "frame_index", "contribution"])
    )
    """If asked for: what each frame that the network saw added to the `logit` of each window. With
    the classifier's bias for the expression, in the summary, they add up to it."""

    @property
    def num_faces(self) -> int:
        """Faces found, over all frames; 0 is a good result for a video without faces."""
        return int(self.frames["track_id"].notna().sum())


def analyze(
    path: str | Path,
    checkpoint: str | Path | Checkpoint = "default",
    config: AnalysisConfig | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> Analysis:
    """Find out who shows which expression when.

    The collected stream: the tables hold what `fergcn.stream` gives out for the video's frames. For
    videos of hours, `fergcn predict` writes the same tables as it goes instead.

    Args:
        path: the video.
        checkpoint: a folder or a name as in `load_checkpoint`, or one that is loaded already; its
            network is moved to the device of the analysis.
        config: settings; `AnalysisConfig()` if left out.
        on_progress: is called after every frame with the number of frames done and the estimated
            number of all frames, `None` if the video doesn't say.

    Raises:
        FergcnError: the video can't be read, there is no such checkpoint or device, or its network
            has no frame features.
    """
    file = as_file(path) if isinstance(path, str) else path
    if file is None:
        raise FergcnError(
            f"{path}: found a live source, expected a file: fergcn predict records it"
        )
    config = config or AnalysisConfig()
    network = FaceNetwork(checkpoint, config.device, config.runtime)
    expressions = network.checkpoint.expressions
    tables: dict[str, list[Row]] = {
        name: [] for name in table_columns(expressions, config.contributions)
    }
    summary = analyze_video(
        file, network, config, lambda name, row: tables[name].append(row), on_progress
    )
    return Analysis(
        expressions=expressions,
        summary=summary,
        **{name: make_table(name, rows, expressions) for name, rows in tables.items()},
    )


def make_table(name: str, rows: Iterable[Row], expressions: tuple[str, ...]) -> pd.DataFrame:
    """Make a table of `Analysis`.

    Args:
        name: `frames`, `windows`, `segments` or `contributions`.
        rows: as `Tally` gives them.
        expressions: names of the probabilities.
    """
    columns = table_columns(expressions, contributions=True)[name]
    return pd.DataFrame(list(rows), columns=list(columns)).astype(column_types(columns))


def column_types(columns: Iterable[str]) -> dict[str, str]:
    """The type of each column; only a frame's track may be missing."""
    types = {"track_id": "Int64", "expression": "str"}
    whole = ("frame_index", "window", "start_frame", "end_frame")
    return {name: types.get(name, "int64" if name in whole else "float64") for name in columns}


def analyze_video(
    path: Path,
    network: FaceNetwork,
    config: AnalysisConfig,
    on_row: Callable[[str, Row], None],
    on_progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, Any]:
    """Analyse a video file, keeping nothing.

    Args:
        path: the video.
        network: what describes faces and answers windows.
        config: settings.
        on_row: is called with a table's name and a row of it as soon as the row is final.
        on_progress: as `analyze` takes it.

    Returns:
        The summary.

    Raises:
        FergcnError: the video can't be read.
    """
    info = probe_video(path)
    size = [info.width, info.height]
    done = 0

    def on_frame(frame: NumberedFrame) -> None:
        nonlocal done
        done += 1
        size[:] = frame.width, frame.height
        if on_progress is not None:
            on_progress(done, info.num_frames)

    stopwatch = Stopwatch()
    started = time.perf_counter()
    damaged = 0

    def frames() -> Iterator[VideoFrame]:
        nonlocal damaged
        for frame in read_frames(path):
            damaged += frame.is_damaged
            yield frame

    events = run_engine(frames(), network, config, stopwatch, on_frame)
    tally = tally_events(events, network, config, on_row)
    video = {
        "file": path.name,
        "path": str(path.absolute()),
        "size_bytes": info.size_bytes,  # as it was before it was read: what came later was not
        "modified_ns": info.modified_ns,
        "width": size[0],
        "height": size[1],
        "fps": round(info.fps, 3),
        "duration_s": round(tally.duration_s, 3),
        "start_s": round(info.start_s, 3),
    }
    warnings = []
    # The header may be inexact, so only a clear lack counts.
    cut = "expected all of them: the file may be cut off or damaged"
    if info.promised_frames is not None:
        if tally.num_frames < 0.9 * info.promised_frames:
            promise = f"{tally.num_frames} frames where the header promises {info.promised_frames}"
            warnings.append(f"found {promise}, {cut}")
    elif info.promised_s is not None and tally.duration_s < 0.9 * info.promised_s - 1:
        promise = f"{tally.duration_s:.1f} s where the header promises {info.promised_s:.1f}"
        warnings.append(f"found {promise}, {cut}")
    if damaged:
        warnings.append(
            f"found {damaged} of {tally.num_frames} frames damaged, expected none, as their "
            "pictures are guesses: copy or export the file again"
        )
    if not info.has_times:
        warnings.append(
            f"found a bare stream, expected one with times, so {info.fps:g} frames/s are assumed: "
            "put it into MP4 or MKV to be sure"
        )
    if not _is_unchanged(path, info):
        warnings.append(
            "found that the file changed while it was read, expected one that stays: run the same "
            "command again when it is whole"
        )
    total_s = time.perf_counter() - started
    return summarize(video, network, config, tally, stopwatch, total_s, warnings)


def _is_unchanged(path: Path, info: VideoInfo) -> bool:
    try:
        there = path.stat()
    except OSError:
        return False
    return (there.st_size, there.st_mtime_ns) == (info.size_bytes, info.modified_ns)


def analyze_live(
    source: LiveSource,
    network: FaceNetwork,
    config: AnalysisConfig,
    on_row: Callable[[str, Row], None],
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Analyse a live source until it ends or is stopped, keeping nothing.

    But for the first frame, no face waits for others to make a batch, nor for a better view of
    somebody who comes back, and few frames wait at all.

    Args:
        source: gives the frames.
        network: what describes faces and answers windows.
        config: settings; `batch_size` does not count.
        on_row: is called with a table's name and a row of it as soon as the row is final.
        on_progress: is called after every frame with the number of frames so far.

    Returns:
        The summary, with `latency_s`: how long after its last frame came in a window was answered,
        and how long after it came in a frame's row was final, in seconds.

    Raises:
        FergcnError: the source gave no frame.
    """
    latencies: dict[str, Counter[int]] = {"windows": Counter(), "frames": Counter()}

    def timed(events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, WindowAnswer):
                latencies["windows"][round(100 * source.age(event.end_frame))] += 1
            elif isinstance(event, Prediction):
                latencies["frames"][round(100 * source.age(event.frame_index))] += 1
                source.forget(event.frame_index)
            yield event

    stopwatch = Stopwatch()
    started = time.perf_counter()
    alone = replace(config, batch_size=1)
    frames_done = itertools.count(1)

    def on_frame(_: NumberedFrame) -> None:
        if on_progress is not None:
            on_progress(next(frames_done))

    events = run_engine(
        source.frames(), network, alone, stopwatch, on_frame, max_ahead=1, max_wait_s=0
    )
    tally = tally_events(timed(events), network, config, on_row)
    video = {
        "file": source.name,
        "width": source.width,
        "height": source.height,
        "fps": round(source.fps, 3),
        "duration_s": round(tally.duration_s, 3),
        "dropped_frames": source.num_dropped,
    }
    total_s = time.perf_counter() - started
    warnings = []
    if source.trouble is not None:
        warnings.append(
            f"found that it broke off ({source.trouble}), expected it to go on until it ends or "
            "Ctrl-C is pressed: what came before is here"
        )
    summary = summarize(video, network, config, tally, stopwatch, total_s, warnings)
    return summary | {"latency_s": {name: _spread(times) for name, times in latencies.items()}}


def _spread(hundredths: Counter[int]) -> dict[str, float]:
    """Median and 95 % of counted hundredths of a second; 0 where there are none."""
    times = sorted(hundredths.items())
    reached = np.cumsum([number for _, number in times])
    quantiles = {"median": 0.5, "p95": 0.95}
    if not times:
        return dict.fromkeys(quantiles, 0.0)
    return {
        name: times[int(np.searchsorted(reached, share * reached[-1]))][0] / 100
        for name, share in quantiles.items()
    }


def tally_events(
    events: Iterable[Event],
    network: FaceNetwork,
    config: AnalysisConfig,
    on_row: Callable[[str, Row], None],
) -> Tally:
    """Hand on what the engine gives out as rows of tables, and count it."""
    tally = Tally(network.checkpoint.expressions, config.contributions)
    for event in events:
        for name, row in tally.rows(event):
            on_row(name, row)
    return tally


def summarize(
    video: dict[str, Any],
    network: FaceNetwork,
    config: AnalysisConfig,
    tally: Tally,
    stopwatch: Stopwatch,
    total_s: float,
    warnings: list[str],
) -> dict[str, Any]:
    """Make the summary; JSON values only."""
    checkpoint = network.checkpoint
    model = checkpoint.config
    counts = tally.counts()
    if counts["faces"] == 0:
        warnings = [
            f"found no face in {counts['frames']} frames: are the faces smaller than "
            "min_face_size, or turned away?",
            *warnings,
        ]
    bias = network.classifier_bias
    return {
        "video": video,
        "settings": asdict(config),
        "versions": {
            "fergcn": version("fergcn"),
            "torch": version("torch"),
            "python": platform.python_version(),
        },
        "checkpoint": {
            "sha256": checkpoint.sha256,
            "expressions": list(checkpoint.expressions),
            "num_frames": network.num_frames,
            "network": model.network,
            "backbone": model.backbone,
            "classifier_bias": bias and dict(zip(checkpoint.expressions, bias, strict=True)),
            # but for everybody it was trained on: a list that is longer than all the rest
            "metadata": {
                key: value for key, value in checkpoint.metadata.items() if key != "people"
            },
        },
        "counts": counts,
        "tracks": tally.track_answers(config.sure_from),
        "warnings": warnings,
        "device": network.device,
        "runtime": network.runtime,
        "timings_s": {
            **{stage: round(seconds, 3) for stage, seconds in stopwatch.seconds.items()},
            "total": round(total_s, 3),
        },
        "frames_per_s": round(counts["frames"] / total_s, 1),
    }
