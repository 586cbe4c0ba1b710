"""Segments as subtitles (SubRip) and for ELAN, in which researchers annotate video."""

import mimetypes
import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree as ET

import pandas as pd

SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
LINGUISTIC_TYPE = "expression"


def render_srt(segments: pd.DataFrame, start_s: float = 0.0) -> str:
    """Write one cue for each segment, by onset, as SubRip has them.

    Args:
        segments: as `Analysis.segments`.
        start_s: as `VideoInfo.start_s`: players count from the file's start.
    """
    cues = []
    ordered = segments.sort_values(["onset_s", "track_id"], kind="stable").to_dict("records")
    for number, segment in enumerate(ordered, 1):
        onset, offset = _span_ms(segment["onset_s"] + start_s, segment["offset_s"] + start_s)
        cues.append(
            f"{number}\n{_srt_time(onset)} --> {_srt_time(offset)}\n"
            f"Face {segment['track_id']}: {segment['expression']}, apex {segment['apex_s']:.2f} s, "
            f"peak intensity {segment['peak_intensity']:.2f}\n"
        )
    return "\n".join(cues)


def _span_ms(onset_s: float, offset_s: float) -> tuple[int, int]:
    """Begin and end in whole milliseconds; neither format knows a moment without length."""
    onset = round(onset_s * 1000)
    return onset, max(round(offset_s * 1000), onset + 1)


def _srt_time(time_ms: int) -> str:
    seconds, milliseconds = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d},{milliseconds:03d}"


def render_eaf(
    segments: pd.DataFrame,
    track_ids: Iterable[int],
    video: Path | None,
    directory: Path,
    start_s: float = 0.0,
) -> str:
    """Write an ELAN file (EAF 3.0): one tier for each face, one annotation for each segment.

    Args:
        segments: as `Analysis.segments`.
        track_ids: the faces; one without a segment has an empty tier.
        video: the file that ELAN is to play; None for a live source, which is no file.
        directory: where the ELAN file will be; it names the video by its way from there, too.
        start_s: as `VideoInfo.start_s`: ELAN counts from the file's start.

    Returns:
        XML.
    """
    document = ET.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "fergcn",
            "DATE": datetime.now().astimezone().isoformat(timespec="seconds"),
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": XSI,
            "xsi:noNamespaceSchemaLocation": SCHEMA,
        },
    )
    header = ET.SubElement(document, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    if video is not None:
        way = quote(os.fsencode(os.path.relpath(video, directory)))
        ET.SubElement(
            header,
            "MEDIA_DESCRIPTOR",
            MEDIA_URL=video.resolve().as_uri(),
            MIME_TYPE=mimetypes.guess_type(video.name)[0] or "unknown",
            RELATIVE_MEDIA_URL=way if way.startswith(".") else f"./{way}",
        )
    last_used = ET.SubElement(header, "PROPERTY", NAME="lastUsedAnnotationId")
    last_used.text = str(len(segments))
    time_order = ET.SubElement(document, "TIME_ORDER")
    slots: list[tuple[int, ET.Element, str]] = []  # time, and whose attribute names it
    number = 0
    for track_id in track_ids:
        tier = ET.SubElement(
            document, "TIER", LINGUISTIC_TYPE_REF=LINGUISTIC_TYPE, TIER_ID=f"face {track_id}"
        )
        of_face = segments[segments["track_id"] == track_id].sort_values("onset_s")
        free_from = 0
        for segment in of_face.to_dict("records"):
            number += 1
            onset, offset = _span_ms(segment["onset_s"] + start_s, segment["offset_s"] + start_s)
            onset = max(onset, free_from)  # annotations of a tier must not overlap
            free_from = offset = max(offset, onset + 1)
            annotation = ET.SubElement(
                ET.SubElement(tier, "ANNOTATION"),
                "ALIGNABLE_ANNOTATION",
                ANNOTATION_ID=f"a{number}",
            )
            ET.SubElement(annotation, "ANNOTATION_VALUE").text = segment["expression"]
            slots += [
                (onset, annotation, "TIME_SLOT_REF1"),
                (offset, annotation, "TIME_SLOT_REF2"),
            ]
    slots.sort(key=lambda slot: slot[0])
    for position, (time_ms, annotation, reference) in enumerate(slots, 1):
        ET.SubElement(
            time_order, "TIME_SLOT", TIME_SLOT_ID=f"ts{position}", TIME_VALUE=str(time_ms)
        )
        annotation.set(reference, f"ts{position}")
    ET.SubElement(
        document,
        "LINGUISTIC_TYPE",
        GRAPHIC_REFERENCES="false",
        LINGUISTIC_TYPE_ID=LINGUISTIC_TYPE,
        TIME_ALIGNABLE="true",
    )
    ET.indent(document)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(document, "unicode") + "\n"
