"""DFEW: scenes from films, five official sets, seven expressions.

`Clip/clip_224x224/00001/` holds a clip's pictures, `EmoLabel_DataSplit/train(single-labeled)/` and
`test(single-labeled)/` hold `set_1.csv` to `set_5.csv` with the columns `video_name` and `label`.
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
    read_rows,
    videos,
)
from fergcn.expressions import FergcnError

LABELS = {
    "1": "happiness",
    "2": "sadness",
    "3": "neutral",
    "4": "anger",
    "5": "surprise",
    "6": "disgust",
    "7": "fear",
}

SETS = 5


def read_dfew(root: Path) -> Listing:
    """Read DFEW's single-labelled clips; a clip's fold is the set in which it is tested.

    Raises:
        FergcnError: the folder has another layout, or the lists don't test every clip in exactly
            one set.
    """
    frames = find_folder(root, "clip_224x224", "jpg_256", "clip_224x224_16f")
    lists = find_folder(root, "EmoLabel_DataSplit")
    sets = [
        (
            _labels(lists / "train(single-labeled)" / f"set_{number}.csv"),
            _labels(lists / "test(single-labeled)" / f"set_{number}.csv"),
        )
        for number in range(1, SETS + 1)
    ]
    folds, reasons = official_folds(sets, lists)
    for name, reason in sorted(reasons.items()):
        raise FergcnError(
            f"{lists}: found the clip {name} {reason}, expected each clip once in every set and "
            "in one test list: unpack the lists again"
        )
    there = {_number(path.stem): path for path in [*folders(frames), *videos(frames)]}
    labels = {name: label for _, test in sets for name, label in test.items()}
    clips, left_out = [], []
    for name, fold in folds.items():
        path = there.get(name)
        if path is None or (path.is_dir() and not pictures(path)):
            left_out.append((frames / name, MISSING))
        else:
            clips.append(Clip(name, name, labels[name], path, fold=fold))
    return make_listing(clips, left_out)


def _labels(file: Path) -> dict[str, str]:
    try:
        return {_number(row["video_name"]): LABELS[row["label"].strip()] for row in read_rows(file)}
    except (KeyError, AttributeError):
        raise FergcnError(
            f"{file}: found another table, expected the columns video_name and label with labels "
            f"from 1 to {len(LABELS)}: unpack the lists again"
        ) from None


def _number(name: str) -> str:
    """The one spelling of a clip: lists have 1 or 00001, folders 00001."""
    return name.strip().zfill(5)
