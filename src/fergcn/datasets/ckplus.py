"""CK+: posed expressions from neutral to the apex, one folder of pictures a sequence.

`cohn-kanade-images/S005/001/S005_001_00000011.png` and, for the peak frame only,
`Emotion/S005/001/S005_001_00000011_emotion.txt`, which holds a number such as `3.0000000e+00`. The
folder of a sequence without a label is empty or missing. 327 of 593 sequences have one.
"""

import re
from pathlib import Path

from fergcn.clips import Clip
from fergcn.datasets.layout import (
    MISSING,
    NO_LABEL,
    Listing,
    find_folder,
    folders,
    make_listing,
    pictures,
)
from fergcn.expressions import FergcnError

LABELS = ("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
"""Expression of each number, from 0."""

_EXPRESSION_OF: dict[float, str] = {float(number): name for number, name in enumerate(LABELS)}


def read_ckplus(root: Path) -> Listing:
    """Read CK+.

    Raises:
        FergcnError: the folder has another layout or a label is none of the eight.
    """
    images = find_folder(root, "cohn-kanade-images")
    labels = find_folder(root, "Emotion", "Emotion_labels")
    clips, left_out = [], []
    for name in sorted(_sequences(images) | _sequences(labels)):
        path = images / name
        expression = _label(labels / name)
        if expression is None:
            left_out.append((path, NO_LABEL))
        elif not path.is_dir() or not pictures(path):
            left_out.append((path, MISSING))
        else:
            clips.append(Clip(name, name.split("/")[0], expression, path))
    return make_listing(clips, left_out)


def _sequences(parent: Path) -> set[str]:
    return {
        f"{subject.name}/{sequence.name}"
        for subject in folders(parent)
        if re.fullmatch(r"S\d+", subject.name)
        for sequence in folders(subject)
    }


def _label(folder: Path) -> str | None:
    files = sorted(folder.glob("[!.]*_emotion.txt"))
    if not files:
        return None
    texts = {file.read_text(errors="replace").strip() for file in files}
    try:
        (expression,) = {_EXPRESSION_OF[float(text)] for text in texts}
        return expression
    except (KeyError, ValueError):
        raise FergcnError(
            f"{files[0]}: found {', '.join(sorted(texts))!r}, expected one number from 0 to "
            f"{len(LABELS) - 1}: unpack the labels again"
        ) from None
