"""Subtitles and ELAN files, read back by other means."""

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fergcn.analysis.tables import SEGMENT_COLUMNS
from fergcn.report.annotations import render_eaf, render_srt

CUE = re.compile(
    r"(\d+)\n(\d\d+):([0-5]\d):([0-5]\d),(\d{3}) --> (\d\d+):([0-5]\d):([0-5]\d),(\d{3})\n(.+)\n"
)
Row = tuple[int, str, float, float, float, float]


def table(rows: Sequence[Row]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(SEGMENT_COLUMNS))


def read_srt(text: str) -> list[tuple[int, int, int, str]]:
    """Number, begin and end in milliseconds, and text of each cue; nothing else may be there."""
    cues = []
    for block in text.split("\n\n") if text else []:
        found = CUE.fullmatch(block if block.endswith("\n") else block + "\n")
        assert found is not None, block
        number, *times, said = found.groups()
        h1, m1, s1, f1, h2, m2, s2, f2 = map(int, times)
        begin, end = ((h1 * 60 + m1) * 60 + s1) * 1000 + f1, ((h2 * 60 + m2) * 60 + s2) * 1000 + f2
        cues.append((int(number), begin, end, said))
    return cues


def read_eaf(text: str) -> dict[str, list[tuple[int, int, str]]]:
    """Annotations of each tier; what the schema of EAF 3.0 asks for is checked on the way."""
    root = ET.fromstring(text)
    assert root.tag == "ANNOTATION_DOCUMENT"
    assert {"AUTHOR", "DATE", "VERSION"} <= set(root.keys()) and root.get("FORMAT") == "3.0"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", root.get("DATE", ""))
    order = ["HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE"]
    positions = [order.index(child.tag) for child in root]
    assert positions == sorted(positions)
    assert positions.count(0) == positions.count(1) == 1
    header = root.find("HEADER")
    assert header is not None and header.get("TIME_UNITS") == "milliseconds"
    assert [child.tag for child in header][-1] == "PROPERTY"
    slots = {s.get("TIME_SLOT_ID"): int(s.get("TIME_VALUE", "")) for s in root.iter("TIME_SLOT")}
    assert list(slots.values()) == sorted(slots.values())
    assert all(0 <= value < 2**32 for value in slots.values())
    ids = [*slots, *(a.get("ANNOTATION_ID") for a in root.iter("ALIGNABLE_ANNOTATION"))]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[A-Za-z_][\w.-]*", i) for i in ids)
    types = {t.get("LINGUISTIC_TYPE_ID") for t in root.iter("LINGUISTIC_TYPE")}
    used = []
    tiers = {}
    for tier in root.iter("TIER"):
        assert tier.get("LINGUISTIC_TYPE_REF") in types
        rows = []
        for annotation in tier:
            (aligned,) = annotation
            (value,) = aligned
            names = [aligned.get("TIME_SLOT_REF1"), aligned.get("TIME_SLOT_REF2")]
            used += names
            begin, end = (slots[name] for name in names)
            assert begin < end
            rows.append((begin, end, value.text))
        assert all(before[1] <= after[0] for before, after in pairwise(rows))
        tiers[tier.get("TIER_ID")] = rows
    assert sorted(used) == sorted(slots)
    return tiers


times = st.floats(0, 4e5)  # four and a half days


@st.composite
def segments(draw: st.DrawFn) -> list[Row]:
    """Segments of three faces that do not overlap, in no order."""
    rows = []
    for track_id in range(3):
        edges = sorted(draw(st.lists(times, max_size=8, unique=True)))
        for onset, offset in zip(edges[::2], edges[1::2], strict=False):
            apex, peak = draw(st.floats(onset, offset)), draw(st.floats(0, 1))
            rows.append((track_id, "happiness", onset, apex, offset, peak))
    return draw(st.permutations(rows))


@given(segments())
@settings(max_examples=25)
def test_subtitles_read_back(rows: list[Row]) -> None:
    cues = read_srt(render_srt(table(rows)))
    ordered = sorted(rows, key=lambda row: (row[2], row[0]))
    assert [cue[0] for cue in cues] == list(range(1, len(rows) + 1))
    for (_, begin, end, said), (track_id, name, onset, apex, offset, peak) in zip(
        cues, ordered, strict=True
    ):
        assert begin == pytest.approx(onset * 1000, abs=0.5001)
        assert begin < end == pytest.approx(offset * 1000, abs=1.5)
        assert said == f"Face {track_id}: {name}, apex {apex:.2f} s, peak intensity {peak:.2f}"


@given(segments())
@settings(max_examples=25)
def test_elan_file_reads_back(rows: list[Row]) -> None:
    tiers = read_eaf(render_eaf(table(rows), range(4), None, Path("results/a")))
    assert list(tiers) == ["face 0", "face 1", "face 2", "face 3"]
    for track_id in range(4):
        found = tiers[f"face {track_id}"]
        expected = sorted(row for row in rows if row[0] == track_id)
        for (begin, end, value), (_, name, onset, _, offset, _) in zip(
            found, sorted(expected, key=lambda row: row[2]), strict=True
        ):
            # Of segments less than a millisecond long, each pushes those behind it.
            assert begin == pytest.approx(onset * 1000, abs=0.5001 + len(found))
            assert end == pytest.approx(offset * 1000, abs=1.5 + len(found))
            assert value == name


def test_elan_file_names_its_video(tmp_path: Path) -> None:
    name = os.fsdecode(b"day 1 <&\"'> \xff#?%.mp4")
    video = tmp_path / "videos" / name
    directory = tmp_path / "results" / "day"
    text = render_eaf(table([(0, "fear", 1, 2, 3, 0.5)]), [0], video, directory)
    assert read_eaf(text) == {"face 0": [(1000, 3000, "fear")]}
    media = ET.fromstring(text).find("HEADER/MEDIA_DESCRIPTOR")
    assert media is not None and media.get("MIME_TYPE") == "video/mp4"
    absolute = urlsplit(media.get("MEDIA_URL"))
    assert absolute.scheme == "file" and not absolute.query and not absolute.fragment
    assert unquote(absolute.path, errors="surrogateescape") == str(video)
    way = unquote(media.get("RELATIVE_MEDIA_URL", ""), errors="surrogateescape")
    assert os.path.normpath(directory / way) == str(video)
    beside = ET.fromstring(render_eaf(table([]), [], tmp_path / "a.avi", tmp_path))
    assert beside.find("HEADER/MEDIA_DESCRIPTOR").get("RELATIVE_MEDIA_URL") == "./a.avi"


def test_no_segment_is_an_empty_file_and_a_document_without_annotations() -> None:
    assert render_srt(table([])) == ""
    late = table([(0, "fear", 1, 2, 3, 0.5)])  # pictures that begin after the sound
    assert read_srt(render_srt(late, 2.5))[0][1:3] == (3500, 5500)
    assert read_eaf(render_eaf(late, [0], None, Path(), 2.5)) == {"face 0": [(3500, 5500, "fear")]}
    text = render_eaf(table([]), [0], None, Path())
    assert read_eaf(text) == {"face 0": []} and "MEDIA_DESCRIPTOR" not in text
