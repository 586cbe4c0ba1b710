"""One self-contained HTML page about one video."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from fergcn.analysis.tables import answer_text
from fergcn.expressions import NOT_SURE
from fergcn.files import write_text
from fergcn.report.document import figure_png, html_page, html_table, png_uri
from fergcn.report.timeline import EXPRESSION_COLOURS, plot_timeline
from fergcn.video import read_frames

if TYPE_CHECKING:
    from fergcn.analysis.collect import Analysis

Picture = NDArray[np.uint8]

LIMITS = (
    "A facial expression is not an emotion: this page says what a face looked like to a network, "
    "not what a person felt.",
    "Intensity is how sure the network is that the face is not neutral, or, if it does not know "
    "neutral, of its first choice. It is not a measure of how strong the expression is, and can't "
    "be compared between checkpoints.",
    "A face number is a face that was followed without a long break. The same person may have "
    "several numbers, and after a cut one number may hold two people.",
    "Faces that are small, covered or turned away may be missed; age, skin, glasses, light and "
    "culture may bias what is found. Don't base a decision about a person on it.",
)
"""What a reader has to know before using the numbers."""


def write_report(analysis: Analysis, path: Path, video: Path | None = None) -> None:
    """Write the page; it appears under its name only when complete.

    Args:
        analysis: what `analyze` returned.
        path: the file to write.
        video: the video that was analysed, for the faces at the apexes; without it the page has no
            pictures of people.

    Raises:
        FergcnError: the video can't be read.
    """
    thumbnails = {} if video is None else apex_thumbnails(video, analysis)
    write_text(path, render_report(analysis, thumbnails))


def render_report(analysis: Analysis, thumbnails: Mapping[int, Picture]) -> str:
    """Build the page.

    Args:
        analysis: what `analyze` returned.
        thumbnails: `(H, W, 3)` RGB picture of the apex, by row of `Analysis.segments`.

    Returns:
        HTML that refers to no other file.
    """
    summary = analysis.summary
    counts, video = summary["counts"], summary["video"]
    name = escape(video["file"])
    share = counts["frames_with_face"] / max(1, counts["frames"])
    facts = (
        f"{video['duration_s']:.1f} s, {counts['frames']} frames of "
        f"{video['width']} × {video['height']}. A face in {share:.0%} of the frames, "
        f"{_count(counts['tracks'], 'track')}, {_count(counts['segments'], 'segment')}."
    )
    warnings = "".join(
        f'<p class="note"><strong>Note:</strong> {escape(text)}</p>' for text in summary["warnings"]
    )
    limits = "".join(f"<li>{escape(text)}</li>" for text in LIMITS)
    body = f"""<h1>Expressions in {name}</h1>
<p>{facts}</p>
{warnings}
<h2>Timeline</h2>
<img class="timeline" alt="Probability of each expression over time, one panel for each face; the
tables below hold the numbers." src="{png_uri(figure_png(plot_timeline(analysis)))}">
<h2>Faces</h2>
{_faces_table(analysis)}
<h2>Segments</h2>
{_segments_table(analysis, thumbnails)}
<h2>Limits</h2>
<ul>{limits}</ul>
<h2>How this was made</h2>
{_provenance(analysis)}"""
    return html_page(f"Expressions in {video['file']}", body)


def apex_thumbnails(path: Path, analysis: Analysis, size: int = 160) -> dict[int, Picture]:
    """Cut out the face at the apex of each segment, in one more pass over the video.

    Args:
        path: the video that was analysed.
        analysis: what `analyze` returned for it.
        size: side of a thumbnail in pixels.

    Returns:
        `(size, size, 3)` RGB by row of `Analysis.segments`.

    Raises:
        FergcnError: the video can't be read.
    """
    faces = analysis.frames.dropna(subset=["track_id"])
    wanted: dict[int, list[tuple[int, NDArray[np.float64]]]] = {}
    for row, segment in enumerate(analysis.segments.to_dict("records")):
        at_apex = (faces["track_id"] == segment["track_id"]) & (
            faces["time_s"] == segment["apex_s"]
        )
        face = faces[at_apex].iloc[0]
        corners = face[["x1", "y1", "x2", "y2"]].to_numpy(dtype=np.float64)
        wanted.setdefault(int(face["frame_index"]), []).append((row, corners))
    thumbnails: dict[int, Picture] = {}
    if not wanted:
        return thumbnails
    for frame in read_frames(path):
        for row, corners in wanted.pop(frame.index, []):
            thumbnails[row] = _square_cut(frame.image, corners, size)
        if not wanted:
            break
    return thumbnails


def _square_cut(image: Picture, xyxy: NDArray[np.float64], size: int) -> Picture:
    """Cut a square around a box, a quarter larger than its longer side."""
    side = max(1, round(float(np.max(xyxy[2:] - xyxy[:2])) * 1.25))
    left, top = np.round((xyxy[:2] + xyxy[2:] - side) / 2).astype(int)
    matrix = np.array([[size / side, 0, -left * size / side], [0, size / side, -top * size / side]])
    if side > 2 * size:  # bilinear sampling alone would alias
        image = cv2.GaussianBlur(image, (0, 0), 0.35 * side / size).astype(np.uint8)
    return cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.uint8)


def _faces_table(analysis: Analysis) -> str:
    tracks = analysis.summary["tracks"]
    if not tracks:
        return '<p class="muted">No face was found.</p>'
    rows = []
    for track in tracks:
        probability = track["mean_probabilities"][track["expression"]]
        is_sure = track["answer"] != NOT_SURE
        answer = _swatch(track["answer"]) if is_sure else escape(answer_text(track))
        rows.append(
            f'<tr><td class="number">{track["track_id"]}</td>'
            f'<td class="number">{track["first_s"]:.2f}</td>'
            f'<td class="number">{track["last_s"]:.2f}</td>'
            f'<td class="number">{track["num_frames"]}</td>'
            f"<td>{answer}</td>"
            f'<td class="number">{probability:.0%}</td></tr>'
        )
    return html_table(
        ("face", "from s", "to s", "frames", "overall", "mean probability"),
        rows,
        text_columns=("overall",),
    )


def _segments_table(analysis: Analysis, thumbnails: Mapping[int, Picture]) -> str:
    if analysis.segments.empty:
        return '<p class="muted">No expression was strong and long enough for a segment.</p>'
    rows = []
    for index, segment in enumerate(analysis.segments.to_dict("records")):
        picture = ""
        if index in thumbnails:
            picture = f'<img alt="apex" src="{_picture_uri(thumbnails[index])}">'
        rows.append(
            f'<tr><td>{picture}</td><td class="number">{segment["track_id"]}</td>'
            f"<td>{_swatch(segment['expression'])}</td>"
            f'<td class="number">{segment["onset_s"]:.2f}</td>'
            f'<td class="number">{segment["apex_s"]:.2f}</td>'
            f'<td class="number">{segment["offset_s"]:.2f}</td>'
            f'<td class="number">{segment["peak_intensity"]:.2f}</td></tr>'
        )
    return html_table(
        ("at the apex", "face", "expression", "onset s", "apex s", "offset s", "peak intensity"),
        rows,
        text_columns=("at the apex", "expression"),
    )


def _provenance(analysis: Analysis) -> str:
    summary = analysis.summary
    checkpoint, versions = summary["checkpoint"], summary["versions"]
    settings = {k: v for k, v in summary["settings"].items() if k != "segments"}
    facts = {
        "checkpoint": f"sha256 {checkpoint['sha256'][:16]}…, {checkpoint['backbone']}, "
        f"windows of {checkpoint['num_frames']} frames",
        "settings": ", ".join(f"{key} {value}" for key, value in settings.items()),
        "segments": ", ".join(
            f"{key} {value}" for key, value in summary["settings"].get("segments", {}).items()
        ),
        "versions": ", ".join(f"{key} {value}" for key, value in versions.items()),
        "time taken": f"{summary['timings_s']['total']:.1f} s, "
        f"{summary['frames_per_s']} frames/s on {summary['device']}",
    }
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f"<dl>{items}</dl>"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _swatch(expression: str) -> str:
    colour = EXPRESSION_COLOURS[expression]
    return f'<span class="swatch" style="background:{colour}"></span>{escape(expression)}'


def _picture_uri(image: Picture) -> str:
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"
