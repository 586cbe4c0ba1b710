"""Your own clips: the folder's name is the label.

`ROOT/<expression>/<anything>.mp4`, or a folder of pictures for each clip, at any depth below the
expression. `ROOT/subjects.csv` with the columns `clip` (path below ROOT, with or without its
ending) and `subject_id` says who is in them.
"""

from pathlib import Path

from fergcn.clips import Clip
from fergcn.datasets.layout import (
    VIDEOS,
    Listing,
    expression_of,
    folders,
    make_listing,
    pictures,
    read_rows,
)
from fergcn.expressions import FergcnError, sort_expressions


def read_folder(root: Path) -> Listing:
    """Read your own clips.

    Without `subjects.csv` every clip counts as a person of its own, so that one person may be in
    training and test.

    Raises:
        FergcnError: there are no clips, a folder's name is no word, or `subjects.csv` lacks a clip.
    """
    if not root.is_dir():
        raise FergcnError(f"{root}: found no such folder, expected a dataset: check the path")
    paths: dict[str, Path] = {}
    labels: dict[str, str] = {}
    for folder in folders(root):
        if pictures(folder):
            raise FergcnError(
                f"{folder}: found pictures, expected videos or one folder of pictures for each "
                "clip: put the pictures of each clip into a folder of its own"
            )
        for path in sorted(folder.rglob("*")):
            if not _is_clip(path):
                continue
            clip_id = _clip_id(path.relative_to(root).as_posix())
            if clip_id in paths:
                raise FergcnError(
                    f"{path}: found another clip of that name, {paths[clip_id].name}, expected "
                    "names that differ before the ending: rename one of them"
                )
            paths[clip_id] = path
            labels[clip_id] = expression_of(folder.name)
    if not paths:
        raise FergcnError(
            f"{root}: found no videos and no folders of pictures in its folders, expected "
            f"{root.name}/<expression>/<clip>.mp4: name the folder above the expressions"
        )
    sort_expressions(set(labels.values()))
    subjects = _subjects(root / "subjects.csv", list(paths))
    return make_listing(
        Clip(clip_id, subjects[clip_id], labels[clip_id], path) for clip_id, path in paths.items()
    )


def _is_clip(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    return bool(pictures(path)) if path.is_dir() else path.suffix.lower() in VIDEOS


def _clip_id(path: str) -> str:
    path = path.strip().replace("\\", "/").removeprefix("./").rstrip("/")
    ending = Path(path).suffix
    return path.removesuffix(ending) if ending.lower() in VIDEOS else path


def _subjects(file: Path, clip_ids: list[str]) -> dict[str, str]:
    if not file.exists():
        return {clip_id: clip_id for clip_id in clip_ids}
    try:
        subjects = {_clip_id(row["clip"]): row["subject_id"].strip() for row in read_rows(file)}
    except (KeyError, AttributeError):
        raise FergcnError(
            f"{file}: found other columns, expected clip,subject_id: write these names in its "
            "first line and both values in every other"
        ) from None
    for clip_id in clip_ids:
        if not subjects.get(clip_id):
            raise FergcnError(
                f"{file}: found no subject for {clip_id}, expected one for every clip: add a line"
            )
    return subjects
