"""The video with what was found drawn in."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fergcn.analysis.collect import Analysis
from fergcn.expressions import NOT_SURE
from fergcn.progress import Count, silent
from fergcn.report.outputs import read_table
from fergcn.report.timeline import EXPRESSION_COLOURS, frame_step, longest_tracks
from fergcn.sound import add_sound
from fergcn.video import VideoFrame, probe_video, read_frames, write_frames

STRIP_HEIGHT = 48
"""Height of the timeline under the overlay, in pixels, for each face."""
MAX_STRIPS = 4
"""Faces with a timeline under the overlay; the longest ones."""

COLOURS = {**EXPRESSION_COLOURS, NOT_SURE: "#9A9A9A"}
"""A face whose expression is not named is darker than a neutral one."""

Picture = NDArray[np.uint8]


def write_overlay(
    path_in: Path,
    analysis: Analysis,
    path_out: Path,
    table: Path | None = None,
    on_progress: Count = silent,
) -> None:
    """Write the video with boxes, numbers, expressions, a timeline strip for each face, and sound.

    Each frame is shown at its time in the tables, so the first one at 0; the sound keeps its place
    beside them.

    Args:
        path_in: the video that was analysed.
        analysis: what `analyze` returned for it.
        path_out: the MP4 file to write; it appears under its name only when complete.
        table: `frames.csv` of the analysis, where the analysis itself does not have all frames.
        on_progress: is called after every frame with the number of frames drawn and of all.

    Raises:
        FergcnError: the video can't be read.
    """
    chunks = [analysis.frames] if table is None else read_table(table)
    silent = path_out.with_name(path_out.name + ".silent")
    total = int(analysis.summary["counts"]["frames"])

    def drawn() -> Iterator[VideoFrame]:
        for done, frame in enumerate(_draw_frames(path_in, analysis, chunks), 1):
            yield frame
            on_progress(done, total)

    try:
        write_frames(silent, drawn(), probe_video(path_in).fps)
        add_sound(silent, path_in, path_out)
    finally:
        silent.unlink(missing_ok=True)


def _draw_frames(
    path: Path, analysis: Analysis, chunks: Iterable[pd.DataFrame]
) -> Iterator[VideoFrame]:
    rows = chain.from_iterable(
        chunk.dropna(subset=["track_id"]).to_dict("records") for chunk in chunks
    )
    groups = groupby(rows, key=lambda row: int(row["frame_index"]))
    upcoming = next(groups, None)
    strips: Picture | None = None
    size = (0, 0)
    sure_from = float(analysis.summary["settings"]["sure_from"])
    duration_s = max(float(analysis.frames["time_s"].max()), 1e-6)
    for frame in read_frames(path):
        image = frame.image
        if strips is None:
            size = (image.shape[1], image.shape[0])
            strips = _draw_strips(analysis, image.shape[1], duration_s)
        elif size != (image.shape[1], image.shape[0]):  # the stream changed its picture size
            image = cv2.resize(image, size).astype(np.uint8)
        if upcoming is not None and upcoming[0] == frame.index:
            image = _draw_faces(image.copy(), upcoming[1], sure_from)
            upcoming = next(groups, None)
        strip = strips.copy()
        x = min(round(frame.time_s / duration_s * (size[0] - 1)), size[0] - 1)
        strip[:, max(0, x - 1) : x + 1] = (0, 0, 0)
        yield VideoFrame(frame.index, frame.time_s, np.concatenate([image, strip]))


def _draw_faces(
    image: Picture, faces: Iterable[Mapping[Hashable, Any]], sure_from: float
) -> Picture:
    """Draw into `image` and return it; expressions less probable than `sure_from` are not named."""
    unit = max(0.5, min(image.shape[:2]) / 720)
    thickness = max(1, round(2 * unit))
    for face in faces:
        probability = face[face["expression"]]
        is_sure = probability >= sure_from
        colour = _rgb(face["expression"] if is_sure else NOT_SURE)
        left, top, right, bottom = (round(face[name]) for name in ("x1", "y1", "x2", "y2"))
        cv2.rectangle(image, (left, top), (right, bottom), colour, thickness + 1)
        answer = f"{face['expression']} {probability:.0%}" if is_sure else NOT_SURE
        text = f"{int(face['track_id'])} {answer}"
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
    step = frame_step(analysis.frames)
    strips = np.full((STRIP_HEIGHT * max(1, len(track_ids)), width, 3), 255, dtype=np.uint8)
    for position, track_id in enumerate(track_ids):
        top = position * STRIP_HEIGHT
        bottom = top + STRIP_HEIGHT - 1
        track = analysis.frames[analysis.frames["track_id"] == track_id]
        columns = np.round(track["time_s"].to_numpy() / duration_s * (width - 1)).astype(int)
        ends = np.append(columns[1:], columns[-1] + 1)
        gaps = np.diff(track["frame_index"].to_numpy(), append=track["frame_index"].iloc[-1] + step)
        strips[top : bottom - 1] = 205  # grey is time without the face
        for row, left, right, gap in zip(
            track.to_dict("records"), columns, ends, gaps, strict=True
        ):
            stop = max(right, left + 1) if gap <= step else left + 1
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


def _rgb(answer: str) -> tuple[int, int, int]:
    code = COLOURS[answer].lstrip("#")
    return int(code[:2], 16), int(code[2:4], 16), int(code[4:], 16)
