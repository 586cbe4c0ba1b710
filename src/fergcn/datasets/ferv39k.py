"""FERV39k: clips of 22 scenes, one official split, seven expressions.

`2_ClipsforFaceCrop/<scene>/<expression>/<clip>/` holds a clip's pictures,
`4_setups/All_scenes/train_All.csv` and `test_All.csv` its path below that folder and its label,
with a space between. Nobody knows who the people are.
"""

from pathlib import Path

from fergcn.clips import Clip
from fergcn.datasets.layout import (
    MISSING,
    Listing,
    expression_of,
    find_folder,
    make_listing,
    official_folds,
    pictures,
    read_pairs,
)
from fergcn.expressions import sort_expressions


def read_ferv39k(root: Path) -> Listing:
    """Read FERV39k with the split over all scenes.

    Raises:
        FergcnError: the folder has another layout, or a clip is in both lists.
    """
    frames = find_folder(root, "2_ClipsforFaceCrop")
    lists = find_folder(root, "All_scenes")
    train, test = (read_pairs(lists / f"{part}_All.csv") for part in ("train", "test"))
    official_folds([(train, test)], lists)  # refuses a clip that is in both
    sort_expressions({expression_of(label) for label in (train | test).values()})
    clips, left_out = [], []
    for fold, labels in ((-1, train), (0, test)):
        for name, label in labels.items():
            path = frames / name
            if not path.is_dir() or not pictures(path):
                left_out.append((path, MISSING))
            else:
                scene: dict[str, float | str] = {"scene": name.split("/")[0]}
                clips.append(
                    Clip(name, name, expression_of(label), path, fold=fold, attributes=scene)
                )
    return make_listing(clips, left_out)
