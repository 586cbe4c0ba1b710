"""Oulu-CASIA: six posed expressions from neutral to the apex, by two cameras in three lights.

`OriginalImg/{VL,NI}/{Strong,Weak,Dark}/P001/Anger/000.jpeg`; the folder's name is the label.
"""

from pathlib import Path

from fergcn.clips import Clip
from fergcn.datasets.layout import (
    MISSING,
    Listing,
    expression_of,
    find_folder,
    folders,
    make_listing,
    pictures,
)
from fergcn.expressions import FergcnError

EXPRESSIONS_SHOWN = frozenset({"anger", "disgust", "fear", "happiness", "sadness", "surprise"})


def read_oulu_casia(root: Path, camera: str = "VL", light: str = "Strong") -> Listing:
    """Read Oulu-CASIA.

    Args:
        root: folder of the dataset.
        camera: VL (visible light) or NI (near infrared).
        light: Strong, Weak or Dark.

    Raises:
        FergcnError: the folder has another layout.
    """
    originals = find_folder(root, "OriginalImg")
    scene = originals / camera / light
    if not scene.is_dir():
        raise FergcnError(
            f"{originals}: found no folder {camera}/{light}, expected the pictures of this camera "
            "and light: unpack them too"
        )
    clips, left_out = [], []
    for subject in folders(scene):
        for path in folders(subject):
            expression = expression_of(path.name)
            clip_id = f"{subject.name}/{path.name}"
            if expression not in EXPRESSIONS_SHOWN:
                left_out.append((path, "not one of the six expressions"))
            elif not pictures(path):
                left_out.append((path, MISSING))
            else:
                attributes: dict[str, float | str] = {"camera": camera, "light": light}
                clips.append(Clip(clip_id, subject.name, expression, path, attributes=attributes))
    return make_listing(clips, left_out)
