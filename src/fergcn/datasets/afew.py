"""AFEW 8.0: scenes from films, official training and validation parts.

`Train_AFEW/{Angry,Disgust,Fear,Happy,Neutral,Sad,Surprise}/000223480.avi` and `Val_AFEW/…`.
A folder `AlignedFaces_LBPTOP_Points*/Faces/000223480/` of each part holds faces that the
organisers cut out. Nobody knows who the people are.
"""

from pathlib import Path

from fergcn.clips import Clip
from fergcn.datasets.layout import (
    MISSING,
    VIDEOS,
    Listing,
    expression_of,
    find_folder,
    folders,
    make_listing,
    pictures,
)
from fergcn.expressions import FergcnError

EXPRESSIONS_SHOWN = frozenset(
    {"anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"}
)


def read_afew(root: Path) -> Listing:
    """Read AFEW: tested on the validation part, trained on the training part.

    A clip's label is the folder that its name stands in. Where the video itself is not there but
    something else of its name is (the organisers' XML, say), the organisers' aligned faces of that
    name are taken instead.

    Raises:
        FergcnError: the folder has another layout.
    """
    clips, left_out = [], []
    for name, fold in (("Train_AFEW", -1), ("Val_AFEW", 0)):
        part = find_folder(root, name)
        faces = _aligned_faces(part)
        labelled = [path for path in folders(part) if expression_of(path.name) in EXPRESSIONS_SHOWN]
        if not labelled:
            raise FergcnError(
                f"{part}: found no folder such as Angry or Happy, expected one for each expression "
                "as their names are the labels: unpack the videos too"
            )
        for folder in labelled:
            for stem, path in _named_in(folder, faces).items():
                clip_id = f"{name.split('_')[0].lower()}/{stem}"
                if path is None:
                    left_out.append((folder / stem, MISSING))
                else:
                    expression = expression_of(folder.name)
                    clips.append(Clip(clip_id, clip_id, expression, path, fold=fold))
    return make_listing(clips, left_out)


def _aligned_faces(part: Path) -> dict[str, Path]:
    return {
        path.name: path
        for aligned in sorted(part.glob("AlignedFaces_LBPTOP_Points*/Faces"))
        for path in folders(aligned)
        if pictures(path)
    }


def _named_in(folder: Path, faces: dict[str, Path]) -> dict[str, Path | None]:
    """Every clip that a folder names, and its video, else its aligned faces, else nothing."""
    named: dict[str, Path | None] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in VIDEOS and not path.name.startswith("."):
            named[path.stem] = path
        elif path.stem.isdigit():  # as all clips are called; leaves out Thumbs.db and its like
            named.setdefault(path.stem, faces.get(path.stem))
    return named
