"""MMI: posed expressions from neutral over the apex back to neutral.

`Sessions/<id>/S001-001.avi` with `S001-001.xml` beside it. A `Metatag` right below that file's root
with the name Emotion holds the label; sessions without one show single action units. `session.xml`
says how the person was filmed; all other XML files are of no use here.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from xml.parsers import expat

from fergcn.clips import Clip, View
from fergcn.datasets.layout import (
    MISSING,
    NO_LABEL,
    Listing,
    find_folder,
    folders,
    make_listing,
    pictures,
    videos,
)
from fergcn.expressions import FergcnError

LABELS = {
    "1": "anger",
    "2": "disgust",
    "3": "fear",
    "4": "happiness",
    "5": "sadness",
    "6": "surprise",
}
"""Expression of each number; higher ones stand for other states."""

VIEWS: Mapping[str, View] = {
    **dict.fromkeys(("S001", "S002", "S017"), "right half"),
    **dict.fromkeys(("S003", "S005", "S006", "S015", "S016"), "left half"),
    **dict.fromkeys(("S053", "S054"), "whole"),
}
"""Where each subject's face is seen from the front; everybody else's videos lie on their side."""

SIDE_ONLY = "1"
"""What `session.xml` calls a track filmed from the side alone; 0 is the front, 2 both at once."""


def read_mmi(root: Path) -> Listing:
    """Read MMI.

    Raises:
        FergcnError: the folder has another layout or a label file can't be read.
    """
    clips, left_out = [], []
    for session in folders(find_folder(root, "Sessions")):
        labels = [file for file in session.glob("*.xml") if re.fullmatch(r"S\d+-\d+", file.stem)]
        if not labels:
            left_out.append((session, NO_LABEL))
        for file in sorted(labels):
            found = {video.stem: video for video in videos(session)}
            emotion = _emotion(file)
            if emotion is None:
                left_out.append((session, NO_LABEL))
            elif emotion not in LABELS:
                left_out.append((session, f"not one of the six expressions (Emotion {emotion})"))
            elif file.stem not in found:
                stills = "pictures only, no video"
                left_out.append((session, stills if pictures(session) else MISSING))
            elif _view_of(session) == SIDE_ONLY:
                left_out.append((session, "seen from the side only"))
            else:
                subject = file.stem.split("-")[0]
                clips.append(
                    Clip(
                        f"{session.name}/{file.stem}",
                        subject,
                        LABELS[emotion],
                        found[file.stem],
                        VIEWS.get(subject, "rotated 90"),
                    )
                )
    return make_listing(clips, left_out)


def _emotion(file: Path) -> str | None:
    for depth, name, attributes in _elements(file):
        if depth == 1 and name == "Metatag" and attributes.get("Name") == "Emotion":
            return attributes.get("Value", "").strip()
    return None


def _view_of(session: Path) -> str | None:
    file = session / "session.xml"
    if not file.is_file():
        return None
    try:
        elements = _elements(file)
    except FergcnError:
        return None  # the label is elsewhere: a session is none the worse without this file
    return next((found.get("view") for _, name, found in elements if name == "track"), None)


def _elements(file: Path) -> list[tuple[int, str, dict[str, str]]]:
    """Depth below the root, name and attributes of every element.

    A document type is refused: it could name other files or blow the text up without end.
    """
    elements: list[tuple[int, str, dict[str, str]]] = []
    open_elements: list[str] = []
    refused: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        elements.append((len(open_elements), name, attributes))
        open_elements.append(name)

    def end(_name: str) -> None:
        open_elements.pop()

    def refuse(*_declaration: object) -> None:
        refused.append("a document type")
        raise ValueError

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(file.read_bytes(), True)
    except (expat.ExpatError, ValueError) as error:
        raise FergcnError(
            f"{file}: found {refused[0] if refused else error}, expected plain XML as the database "
            "gives it: download the session again"
        ) from None
    return elements
