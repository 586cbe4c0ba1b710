"""One self-contained HTML page about one video."""

from __future__ import annotations

import base64
import io
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
from fergcn.report.apexes import Apex, look_at_apexes
from fergcn.report.document import html_page, html_table, png_uri
from fergcn.report.timeline import EXPRESSION_COLOURS, draw_timeline

if TYPE_CHECKING:
    from fergcn.analysis.collect import Analysis
    from fergcn.analysis.network import FaceNetwork

Picture = NDArray[np.uint8]

LIMITS = (
    "A facial expression is not an emotion: this page says what a face looked like to a network, "
    "not what a person felt.",
    "Intensity is how sure the network is that the face is not neutral, or, if it does not know "
    "neutral, of its first choice. It is not a measure of how strong the expression is, and can't "
    "be compared between checkpoints.",
    "A face number is a face that was followed, or known again by its looks within this video. "
    "The same person may have several numbers, and one number may hold two people.",
    "Faces that are small, covered or turned away may be missed; age, skin, glasses, light and "
    "culture may bias what is found. Don't base a decision about a person on it.",
)
"""What a reader has to know before using the numbers."""


HEAT = (
    "“Looked at” shows what the network needs to see at the apex. One place of the face after the "
    "other was blurred; the hotter, the less the face then showed the expression to the network. "
    "Below stands how probable the expression is for this picture alone, as it is → with the "
    "hottest place blurred."
)
NO_PICTURES = (
    "There are no pictures of the faces: they are taken from a file after it was analysed; a live "
    "source can't be seen again."
)


def write_report(
    analysis: Analysis,
    path: Path,
    video: Path | None = None,
    network: FaceNetwork | None = None,
) -> None:
    """Write the page; it appears under its name only when complete.

    Args:
        analysis: what `analyze` returned.
        path: the file to write.
        video: the video that was analysed, for the faces at the apexes; without it, as of a live
            source, the page has no pictures of people.
        network: the network that was asked, to see what it looked at; without it there are the
            faces alone.

    Raises:
        FergcnError: the video can't be read.
    """
    apexes = None if video is None else look_at_apexes(video, analysis, network)
    write_text(path, render_report(analysis, apexes))


def render_report(analysis: Analysis, apexes: Mapping[int, Apex] | None) -> str:
    """Build the page.

    Args:
        analysis: what `analyze` returned.
        apexes: by row of `Analysis.segments`, of those that are to be shown; None where they can't
            be seen any more.

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
    timeline = io.BytesIO()
    draw_timeline(analysis).save(timeline, "png", optimize=True)
    body = f"""<h1>Expressions in {name}</h1>
<p>{facts}</p>
{warnings}
<h2>Timeline</h2>
<img class="timeline" alt="Probability of each expression over time, one panel for each face; the
tables below hold the numbers." src="{png_uri(timeline.getvalue())}">
<h2>Faces</h2>
{_faces_table(analysis)}
<h2>Segments</h2>
{_segments_table(analysis, apexes)}
<h2>Limits</h2>
<ul>{limits}</ul>
<h2>How this was made</h2>
{_provenance(analysis)}"""
    return html_page(f"Expressions in {video['file']}", body)


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


def _segments_table(analysis: Analysis, apexes: Mapping[int, Apex] | None) -> str:
    if analysis.segments.empty:
        return '<p class="muted">No expression was strong and long enough for a segment.</p>'
    columns = ["face", "expression", "onset s", "apex s", "offset s", "peak intensity"]
    has_heat = any(apex.heat is not None for apex in (apexes or {}).values())
    pictures = ["at the apex", "looked at"][: 1 + has_heat] if apexes is not None else []
    rows = []
    for index, segment in enumerate(analysis.segments.to_dict("records")):
        which = f"face {segment['track_id']} at the apex of {segment['expression']}"
        cells = _apex_cells((apexes or {}).get(index), which)[: len(pictures)]
        rows.append(
            f'<tr>{"".join(cells)}<td class="number">{segment["track_id"]}</td>'
            f"<td>{_swatch(segment['expression'])}</td>"
            f'<td class="number">{segment["onset_s"]:.2f}</td>'
            f'<td class="number">{segment["apex_s"]:.2f}</td>'
            f'<td class="number">{segment["offset_s"]:.2f}</td>'
            f'<td class="number">{segment["peak_intensity"]:.2f}</td></tr>'
        )
    notes = []
    if apexes is None:
        notes.append(NO_PICTURES)
    elif len(apexes) < len(analysis.segments):
        notes.append(
            f"Pictures are shown of the {len(apexes)} segments with the highest peak intensity, of "
            f"{len(analysis.segments)}."
        )
    if has_heat:
        notes.append(HEAT)
    return "".join(f"<p>{escape(note)}</p>" for note in notes) + html_table(
        [*pictures, *columns], rows, text_columns=(*pictures, "expression")
    )


def _apex_cells(apex: Apex | None, which: str) -> list[str]:
    """The face at the apex, and what the network looked at."""
    if apex is None:
        return ["<td></td>", "<td></td>"]
    cells = [f'<td><img alt="{escape(which)}" src="{_picture_uri(apex.picture)}"></td>']
    if apex.heat is None:
        return [*cells, '<td class="muted">face not found again</td>']
    change = f"{apex.whole:.2f} → {apex.blurred:.2f}"
    alt = (
        f"what the network looked at, {which}: probability {change} with the hottest place blurred"
    )
    return [*cells, f'<td><img alt="{escape(alt)}" src="{_picture_uri(apex.heat)}">{change}</td>']


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
        f"{summary['frames_per_s']} frames/s on {summary['device']} with {summary['runtime']}",
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
