"""CREMA-D: 91 actors say twelve sentences in six ways.

`VideoFlash/1001_DFA_ANG_XX.flv`: actor, sentence, expression and level (low, medium, high or, for
most sentences, none asked for).
"""

import re
from pathlib import Path

from fergcn.clips import Clip
from fergcn.datasets.layout import Listing, find_folder, make_listing, videos
from fergcn.expressions import FergcnError

LABELS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}

LEVELS = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified", "X": "unspecified"}
"""One file of the distribution is called `_X`."""

NAME = re.compile(rf"(\d{{4}})_([A-Z]{{3}})_({'|'.join(LABELS)})_({'|'.join(LEVELS)})")


def read_cremad(root: Path) -> Listing:
    """Read CREMA-D; the label is the expression that the actor was asked for.

    Raises:
        FergcnError: the folder has another layout.
    """
    folder = find_folder(root, "VideoFlash")
    clips: dict[str, Clip] = {}
    left_out = []
    for path in videos(folder):
        name = NAME.fullmatch(path.stem)
        if not name:
            left_out.append((path, "not named as actor_sentence_expression_level"))
        elif path.stem in clips:
            left_out.append((path, "the same clip in another format"))
        else:
            clips[path.stem] = Clip(
                path.stem,
                name[1],
                LABELS[name[3]],
                path,
                attributes={"sentence": name[2], "level": LEVELS[name[4]]},
            )
    if not clips:
        raise FergcnError(
            f"{folder}: found no video such as 1001_DFA_ANG_XX.flv, expected {len(LABELS)} "
            "expressions of 91 actors: fetch the videos too (git lfs pull)"
        )
    return make_listing(clips.values(), left_out)
