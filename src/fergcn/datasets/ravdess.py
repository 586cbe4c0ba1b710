"""RAVDESS: 24 actors say two sentences in eight ways.

`Actor_12/02-01-06-01-02-01-12.mp4`: modality, channel, expression, intensity, statement, repetition
and actor. Modality 01 has sound and picture, 02 the picture of the same performance, 03 sound only;
channel 01 is speech, 02 song.
"""

import re
from pathlib import Path

from fergcn.clips import Clip
from fergcn.datasets.layout import VIDEOS, Listing, make_listing
from fergcn.expressions import FergcnError

LABELS = {
    "01": "neutral",
    "02": "calm",
    "03": "happiness",
    "04": "sadness",
    "05": "anger",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
"""Calm is an expression of its own."""

INTENSITIES = {"01": "normal", "02": "strong"}

ACTORS_PER_FOLD = 4

NAME = re.compile(r"(0[12])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(\d\d)")


def read_ravdess(root: Path) -> Listing:
    """Read RAVDESS's speech clips; each fold tests four consecutive actors.

    Each performance counts once: as picture only where that is there, else with sound.

    Raises:
        FergcnError: there are no such videos, or one is there twice.
    """
    if not root.is_dir():
        raise FergcnError(f"{root}: found no such folder, expected a dataset: check the path")
    performances: dict[str, dict[str, Path]] = {}
    left_out = []
    for path in sorted(root.rglob("*-*.*")):
        name = NAME.fullmatch(path.stem)
        if not name or path.suffix.lower() not in VIDEOS:
            continue
        if name[2] != "01":
            left_out.append((path, "song"))
            continue
        versions = performances.setdefault(path.stem.split("-", 1)[1], {})
        if name[1] in versions:
            raise FergcnError(
                f"{path}: found this video a second time at {versions[name[1]]}, expected every "
                "video once: move one of them away"
            )
        versions[name[1]] = path
    if not performances:
        raise FergcnError(
            f"{root}: found no video such as Actor_01/02-01-06-01-02-01-01.mp4, expected the "
            "videos of speech: unpack the archives Video_Speech_Actor_*.zip"
        )
    clips = []
    for performance, versions in performances.items():
        modality = max(versions)
        clips.append(_clip(performance, versions[modality]))
        left_out += [
            (path, "the same performance with sound")
            for other, path in versions.items()
            if other != modality
        ]
    return make_listing(clips, left_out)


def _clip(performance: str, path: Path) -> Clip:
    _, expression, intensity, statement, repetition, actor = performance.split("-")
    return Clip(
        f"Actor_{actor}/{performance}",
        f"Actor_{actor}",
        LABELS[expression],
        path,
        fold=(int(actor) - 1) // ACTORS_PER_FOLD,
        attributes={
            "intensity": INTENSITIES[intensity],
            "statement": statement,
            "repetition": repetition,
        },
    )
