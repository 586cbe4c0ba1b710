"""Write an analysis: tables, summary, pictures and the video with what was found drawn in."""

import json
import shutil
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fergcn.analysis.stream import Analysis, AnalysisConfig
from fergcn.checkpoint import Checkpoint
from fergcn.expressions import FergcnError
from fergcn.report.timeline import EXPRESSION_COLOURS, longest_tracks, plot_timeline
from fergcn.video import VideoFrame, probe_video, read_frames, write_video

RESULT_FILES = (
    *("frames.csv", "frames.parquet", "windows.csv", "segments.csv", "summary.json"),
    *("timeline.png", "overlay.mp4", "report.html"),
)
"""What belongs to one analysis and goes when the next one takes its place."""

STRIP_HEIGHT = 48
"""Height of the timeline under the overlay, in pixels, for each face."""
MAX_STRIPS = 4
"""Faces with a timeline under the overlay; the longest ones."""

Picture = NDArray[np.uint8]


def write_analysis(analysis: Analysis, directory: Path) -> None:
    """Write the tables, the summary and the timeline of one video.

    Everything is written into `<directory>.partial`, which then takes the directory's place. A
    result that was there is replaced, and with it what was made from it (`RESULT_FILES`); any other
    file in the directory stays.

    Args:
        analysis: what `analyze` returned.
        directory: the folder to write.

    Raises:
        FergcnError: there is a file of that name.
    """
    if directory.exists() and not directory.is_dir():
        raise FergcnError(f"{directory}: found a file, expected a folder: choose another output")
    partial = directory.with_name(directory.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    analysis.frames.to_csv(partial / "frames.csv", index=False)
    analysis.frames.to_parquet(partial / "frames.parquet", index=False)
    analysis.windows.to_csv(partial / "windows.csv", index=False)
    analysis.segments.to_csv(partial / "segments.csv", index=False)
    text = json.dumps(analysis.summary, indent=2, ensure_ascii=False) + "\n"
    # Bytes in a file's name that are no text become JSON's own escapes.
    (partial / "summary.json").write_text(text, encoding="utf-8", errors="backslashreplace")
    plot_timeline(analysis).savefig(partial / "timeline.png", dpi=140)
    _swap_in(partial, directory)


def is_current(
    directory: Path,
    video: Path,
    settings: AnalysisConfig,
    checkpoint: Checkpoint,
    overlay: bool = False,
    report: bool = False,
) -> bool:
    """Whether a folder holds the complete results of this very analysis.

    Args:
        directory: the folder.
        video: the video; by its name, size and time of change it is known again.
        settings: how it is to be analysed.
        checkpoint: with which network.
        overlay: whether the overlay must be there.
        report: whether the page must be there.
    """
    wanted = {
        "overlay.mp4": overlay,
        "report.html": report,
        **dict.fromkeys(RESULT_FILES[:6], True),
    }
    if not all((directory / name).is_file() for name, needed in wanted.items() if needed):
        return False
    try:
        summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
        there = video.stat()
        same_video = (video.name, there.st_size, there.st_mtime_ns) == tuple(
            summary["video"][key] for key in ("file", "size_bytes", "modified_ns")
        )
        # Through JSON and back, as what was written: it knows no tuples.
        same_settings = json.loads(json.dumps(asdict(settings))) == summary["settings"]
        same_network = summary["checkpoint"]["sha256"] == checkpoint.sha256 and summary["versions"][
            "fergcn"
        ] == version("fergcn")
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return same_video and same_settings and same_network


def _swap_in(partial: Path, directory: Path) -> None:
    """Put a finished folder in the place of an old one without losing files of others."""
    old = directory.with_name(directory.name + ".old")
    if directory.exists():
        if old.exists():  # left by a run that was stopped after its swap
            _keep_foreign_files(old, directory)
        directory.replace(old)
    partial.replace(directory)
    if old.exists():
        _keep_foreign_files(old, directory)


def _keep_foreign_files(old: Path, directory: Path) -> None:
    for entry in old.iterdir():
        if entry.name not in RESULT_FILES and not (directory / entry.name).exists():
            entry.replace(directory / entry.name)
    shutil.rmtree(old)


def write_overlay(path_in: Path, analysis: Analysis, path_out: Path) -> None:
    """Write the video with boxes, numbers, expressions and a timeline strip for each face.

    The result has a constant frame rate; frames of a source with a varying rate are shown longer,
    or left out where they follow each other too fast, so that its timing stays right. It has no
    sound.

    Args:
        path_in: the video that was analysed.
        analysis: what `analyze` returned for it.
        path_out: the MP4 file to write; it appears under its name only when complete.

    Raises:
        FergcnError: the video can't be read.
    """
    fps = probe_video(path_in).fps
    steps_s = np.diff(analysis.frames["time_s"].unique())
    if len(steps_s) and np.median(steps_s) * fps < 0.7:
        fps = 1 / float(np.median(steps_s))  # long pauses lower the average; frames would be lost
    fps = min(max(fps, 1.0), 120.0)
    write_video(path_out, _at_constant_rate(_draw_frames(path_in, analysis), fps), fps)


def _draw_frames(path: Path, analysis: Analysis) -> Iterator[VideoFrame]:
    faces = dict(iter(analysis.frames.dropna(subset=["track_id"]).groupby("frame_index")))
    strips: Picture | None = None
    size = (0, 0)
    times = analysis.frames["time_s"]
    duration_s = max(float(times.max()), 1e-6)
    for frame in read_frames(path):
        image = frame.image
        if strips is None:
            size = (image.shape[1], image.shape[0])
            strips = _draw_strips(analysis, image.shape[1], duration_s)
        elif size != (image.shape[1], image.shape[0]):  # the stream changed its picture size
            image = cv2.resize(image, size).astype(np.uint8)
        if frame.index in faces:
            image = _draw_faces(image.copy(), faces[frame.index])
        strip = strips.copy()
        x = round(frame.time_s / duration_s * (size[0] - 1))
        strip[:, max(0, x - 1) : x + 1] = (0, 0, 0)
        yield VideoFrame(frame.index, frame.time_s, np.concatenate([image, strip]))


def _draw_faces(image: Picture, faces: pd.DataFrame) -> Picture:
    """Draw into `image` and return it."""
    unit = max(0.5, min(image.shape[:2]) / 720)
    thickness = max(1, round(2 * unit))
    for face in faces.to_dict("records"):
        colour = _rgb(face["expression"])
        left, top, right, bottom = (round(face[name]) for name in ("x1", "y1", "x2", "y2"))
        cv2.rectangle(image, (left, top), (right, bottom), colour, thickness + 1)
        probability = face[face["expression"]]
        text = f"{int(face['track_id'])} {face['expression']} {probability:.0%}"
        font = (cv2.FONT_HERSHEY_SIMPLEX, 0.8 * unit, max(1, round(1.6 * unit)))
        (width, height), baseline = cv2.getTextSize(text, *font)
        margin = round(5 * unit)
        label_height = height + baseline + margin
        # Above the box, or inside it where there is no room; never over an edge of the picture.
        label_top = top - label_height if top >= label_height else top
        label_left = max(0, min(left, image.shape[1] - width - 2 * margin))
        cv2.rectangle(
            image,
            (label_left, label_top),
            (label_left + width + 2 * margin, label_top + label_height),
            colour,
            cv2.FILLED,
        )
        ink = (0, 0, 0) if np.dot(colour, (0.299, 0.587, 0.114)) > 110 else (255, 255, 255)
        position = (label_left + margin, label_top + height + margin // 2 + 1)
        cv2.putText(image, text, position, font[0], font[1], ink, font[2], cv2.LINE_AA)
    return image


def _draw_strips(analysis: Analysis, width: int, duration_s: float) -> Picture:
    """Intensity over the whole video, coloured by expression, one strip for each face."""
    track_ids = longest_tracks(analysis.frames, MAX_STRIPS)
    strips = np.full((STRIP_HEIGHT * max(1, len(track_ids)), width, 3), 255, dtype=np.uint8)
    for position, track_id in enumerate(track_ids):
        top = position * STRIP_HEIGHT
        bottom = top + STRIP_HEIGHT - 1
        track = analysis.frames[analysis.frames["track_id"] == track_id]
        columns = np.round(track["time_s"].to_numpy() / duration_s * (width - 1)).astype(int)
        ends = np.append(columns[1:], columns[-1] + 1)
        gaps = np.diff(track["frame_index"].to_numpy(), append=track["frame_index"].iloc[-1] + 1)
        strips[top : bottom - 1] = 205  # grey is time without the face
        for row, left, right, gap in zip(
            track.to_dict("records"), columns, ends, gaps, strict=True
        ):
            stop = max(right, left + 1) if gap == 1 else left + 1
            height = round(row["intensity"] * (STRIP_HEIGHT - 8))
            strips[top : bottom - 1, left:stop] = 255
            strips[bottom - 1 - height : bottom - 1, left:stop] = _rgb(_shown(row, analysis))
        cv2.putText(
            strips, str(track_id), (4, top + 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1,
            cv2.LINE_AA,
        )  # fmt: skip
        strips[bottom - 1 : bottom + 1] = 90
    return strips


def _shown(row: Mapping[Hashable, float], analysis: Analysis) -> str:
    """The strongest expression that is not neutral."""
    return max((name for name in analysis.expressions if name != "neutral"), key=row.__getitem__)


def _rgb(expression: str) -> tuple[int, int, int]:
    code = EXPRESSION_COLOURS[expression].lstrip("#")
    return int(code[:2], 16), int(code[2:4], 16), int(code[4:], 16)


def _at_constant_rate(frames: Iterable[VideoFrame], fps: float) -> Iterator[Picture]:
    """Show each frame from its time on until the next one's."""
    shown = 0
    previous: VideoFrame | None = None
    for frame in frames:
        if previous is not None:
            until = max(round(frame.time_s * fps), shown)
            for _ in range(until - shown):
                yield previous.image
            shown = until
        previous = frame
    if previous is not None:
        yield previous.image
