"""MAFW: scenes from films and the web, eleven expressions, five official sets.

`data/frames/00001/` (or `faces`, or videos in `clips`) and
`split/single/no_caption/set_1/train.txt`, `test.txt` with lines such as `00001.mp4 anger`.
Nobody knows who the people are.
"""

from pathlib import Path

from fergcn.clips import Clip
from fergcn.datasets.layout import (
    MISSING,
    Listing,
    find_folder,
    folders,
    make_listing,
    official_folds,
    pictures,
    read_pairs,
    videos,
)
from fergcn.expressions import FergcnError

LABELS = (
    "anger",
    "disgust",
    "fear",
    "happiness",
    "neutral",
    "sadness",
    "surprise",
    "contempt",
    "anxiety",
    "helplessness",
    "disappointment",
)
"""The expressions in the order of the dataset, which numbers stand for from 1."""

SETS = 5


def read_mafw(root: Path) -> Listing:
    """Read MAFW's single-labelled clips; a clip's fold is the set in which it is tested.

    A clip that one of the sets does not list is left out of all, so that training and test of
    every set make up the same clips.

    Raises:
        FergcnError: the folder has another layout, or a clip is in two tests or in training and
            test of one set.
    """
    frames = find_folder(root, "frames", "faces", "clips")
    lists = find_folder(find_folder(root, "single"), "no_caption")
    sets = [
        (_labels(lists / f"set_{number}" / "train.txt"), _labels(lists / f"set_{number}/test.txt"))
        for number in range(1, SETS + 1)
    ]
    folds, reasons = official_folds(sets, lists)
    there = {path.stem: path for path in [*folders(frames), *videos(frames)]}
    labels = {name: label for _, test in sets for name, label in test.items()}
    clips = []
    left_out = [(frames / name, reason) for name, reason in reasons.items()]
    for name, fold in folds.items():
        path = there.get(name)
        if path is None or (path.is_dir() and not pictures(path)):
            left_out.append((frames / name, MISSING))
        else:
            clips.append(Clip(name, name, labels[name], path, fold=fold))
    return make_listing(clips, left_out)


def _labels(file: Path) -> dict[str, str]:
    return {
        name.split(".")[0]: _expression(label, file) for name, label in read_pairs(file).items()
    }


def _expression(label: str, file: Path) -> str:
    numbered = {str(number): name for number, name in enumerate(LABELS, start=1)}
    expression = numbered.get(label, label.lower())
    if expression not in LABELS:
        raise FergcnError(
            f"{file}: found the label {label}, expected a number from 1 to {len(LABELS)} or one of "
            f"{', '.join(LABELS)}: unpack the lists again"
        )
    return expression
