"""What all readers of datasets share."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from fergcn.clips import Clip
from fergcn.expressions import FergcnError

VIDEOS = frozenset(
    {".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"}
)
PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

NO_LABEL = "no label"
MISSING = "labelled, but its video or pictures are missing"
"""Reasons for leaving a sequence out that more than one dataset knows."""

DEPTH = 4
"""Levels below the root that are searched for a folder: archives bring up to two of their own."""

_OTHER_WORDS = {
    "angry": "anger",
    "contemptuous": "contempt",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
    "happy": "happiness",
    "sad": "sadness",
    "surprised": "surprise",
}


@dataclass
class Listing:
    """What a reader found in a dataset's folder."""

    clips: list[Clip]
    """Every labelled clip of the protocol, in a fixed order."""
    left_out: list[tuple[Path, str]] = field(default_factory=list)
    """Sequences that are no part of the protocol, and why: no label, another view …"""


def make_listing(clips: Iterable[Clip], left_out: Iterable[tuple[Path, str]] = ()) -> Listing:
    """Bring what a reader found into a fixed order.

    Raises:
        FergcnError: two clips share an id.
    """
    ordered = sorted(clips, key=lambda clip: clip.clip_id)
    for first, second in pairwise(ordered):
        if first.clip_id == second.clip_id:
            raise FergcnError(
                f"{first.path}: found the clip {first.clip_id} a second time at {second.path}, "
                "expected every clip once: move one of them away"
            )
    return Listing(ordered, sorted(left_out))


def expression_of(word: str) -> str:
    """Translate a dataset's word to ours: Happy → happiness; unknown ones in lower case."""
    word = word.strip().lower()
    return _OTHER_WORDS.get(word, word)


def folders(parent: Path) -> list[Path]:
    """Visible folders in a folder, by name."""
    return sorted(path for path in _visible(parent) if path.is_dir())


def videos(parent: Path) -> list[Path]:
    """Visible video files in a folder, by name."""
    return sorted(path for path in _visible(parent) if path.suffix.lower() in VIDEOS)


def pictures(folder: Path) -> list[Path]:
    """Visible pictures in a folder, by name, which is their order in time."""
    return sorted(path for path in _visible(folder) if path.suffix.lower() in PICTURES)


def find_folder(root: Path, *names: str) -> Path:
    """Find a folder of the official layout at the root or as deep as archives unzip.

    Upper and lower case don't matter. Of several levels the highest counts, and of a folder in a
    folder of the same name, the inner one.

    Args:
        root: the dataset's folder as the user names it.
        names: the names it may have, the best first.

    Raises:
        FergcnError: there is no such folder, or there are several on one level.
    """
    if not root.is_dir():
        raise FergcnError(f"{root}: found no such folder, expected a dataset: check the path")
    for name in names:
        if found := _search(root, name.lower()):
            return found
    there = ", ".join(path.name for path in _visible(root)[:5]) or "nothing"
    raise FergcnError(
        f"{root}: found {there}, expected a folder {' or '.join(names)} in it or in a folder of "
        "it: name the dataset's top folder, with all of its archives unpacked below"
    )


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """Read a table with a header.

    Raises:
        FergcnError: the table is missing.
    """
    _require_file(path)
    # The signature that some spreadsheets put in front is no part of the first column's name.
    with path.open(newline="", encoding="utf-8-sig") as file:
        yield from csv.DictReader(file)


def read_pairs(path: Path) -> dict[str, str]:
    """Read lines of a clip and its label with spaces or a comma between them.

    Raises:
        FergcnError: the list is missing, a line has no label, or a clip has two.
    """
    _require_file(path)
    pairs: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        if not line.strip():
            continue
        clip, *label = line.replace(",", " ").rsplit(maxsplit=1)
        if not label or pairs.setdefault(clip, label[0]) != label[0]:
            raise FergcnError(
                f"{path}: found the line {line!r}, expected each clip with its one label: unpack "
                "the list again"
            )
    return pairs


def official_folds(
    sets: Sequence[tuple[Mapping[str, str], Mapping[str, str]]], where: Path
) -> tuple[dict[str, int], dict[str, str]]:
    """Turn training and test lists into the one set in which each clip is tested.

    Args:
        sets: label of each clip in the training list and in the test list of each set.
        where: folder of the lists, for errors.

    Returns:
        Test fold, from 0, of each clip that is in exactly one list of every set; and for every
        other clip the reason that keeps it out.

    Raises:
        FergcnError: a clip is in both lists of a set, in two test lists, or has two labels.
    """
    labels: dict[str, str] = {}
    tested: dict[str, int] = {}
    for fold, (train, test) in enumerate(sets):
        for clip in sorted(train.keys() & test.keys()):
            raise FergcnError(
                f"{where}: found the clip {clip} in training and test of set {fold + 1}, expected "
                "it in one of them: unpack the lists again"
            )
        for clip, label in [*train.items(), *test.items()]:
            if labels.setdefault(clip, label) != label:
                raise FergcnError(
                    f"{where}: found the labels {labels[clip]} and {label} for the clip {clip}, "
                    "expected one: unpack the lists again"
                )
        for clip in test:
            if tested.setdefault(clip, fold) != fold:
                raise FergcnError(
                    f"{where}: found the clip {clip} in the tests of sets {tested[clip] + 1} and "
                    f"{fold + 1}, expected it in one: unpack the lists again"
                )
    listed = Counter(clip for train, test in sets for clip in (*train, *test))
    reasons = {
        clip: "in no test list" if clip not in tested else "in neither list of one of the sets"
        for clip in labels
        if clip not in tested or listed[clip] < len(sets)
    }
    return {clip: fold for clip, fold in tested.items() if clip not in reasons}, reasons


def _visible(parent: Path) -> list[Path]:
    """What is in a folder, without the hidden files that systems leave behind."""
    return sorted(path for path in parent.iterdir() if not path.name.startswith("."))


def _search(root: Path, name: str) -> Path | None:
    level = [root]
    for _ in range(DEPTH):
        level = [child for parent in level for child in folders(parent)]
        found = [path for path in level if path.name.lower() == name]
        if len(found) > 1:
            raise FergcnError(
                f"{root}: found {found[0].relative_to(root)} and {found[1].relative_to(root)}, "
                f"expected one folder {found[0].name}: name the folder that holds the one you mean"
            )
        if found:
            return _innermost(found[0])
    return root if root.name.lower() == name else None


def _innermost(folder: Path) -> Path:
    inner = folder / folder.name
    return _innermost(inner) if inner.is_dir() else folder


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise FergcnError(
            f"{path}: found no such file, expected one of the dataset's lists: unpack it again"
        )
