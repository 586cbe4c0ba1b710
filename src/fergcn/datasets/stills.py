"""Single pictures of faces: the folder's name is the label, the file's name the person.

`ROOT/<expression>/<person>_<number>.jpg`; a picture whose name ends without a number shows a person
of its own. Each picture is a clip of one frame.
"""

import re
from pathlib import Path

from fergcn.clips import Clip, is_picture
from fergcn.datasets.layout import NO_LABEL, Listing, expression_of, folders, make_listing
from fergcn.expressions import FergcnError, sort_expressions


def read_stills(root: Path) -> Listing:
    """Read single pictures.

    Other files beside the folders and in them don't matter; pictures beside the folders have no
    label and are left out.

    Raises:
        FergcnError: there are no pictures in the folders, a folder's name is no word, or two
            pictures differ in their ending only.
    """
    if not root.is_dir():
        raise FergcnError(f"{root}: found no such folder, expected a dataset: check the path")
    clips = [
        Clip(f"{folder.name}/{file.stem}", _person(file.stem), expression_of(folder.name), file)
        for folder in folders(root)
        for file in _pictures(folder)
    ]
    if not clips:
        raise FergcnError(
            f"{root}: found no pictures in its folders, expected "
            f"{root.name}/<expression>/<person>_<number>.jpg: name the folder above the expressions"
        )
    sort_expressions({clip.expression for clip in clips})
    return make_listing(clips, [(file, NO_LABEL) for file in _pictures(root)])


def _pictures(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if is_picture(file) and file.is_file())


def _person(stem: str) -> str:
    return re.sub(r"_\d+$", "", stem) or stem
