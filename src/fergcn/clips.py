"""Clips: what every dataset yields and every model takes."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fergcn.expressions import FergcnError, sort_expressions
from fergcn.video import read_frames

PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png"})
"""Endings of pictures, in lower or upper case; those in a folder of pictures are its frames."""

View = Literal["whole", "left half", "right half", "rotated 90"]
"""How a picture is cut or turned (by 90 degrees clockwise) before faces are looked for."""


@dataclass(frozen=True)
class Clip:
    """One labelled sequence of a face: aligned already, or as its dataset distributes it."""

    clip_id: str
    """Unique within its dataset."""
    subject_id: str
    """The person; no person may be on both sides of a split. The clip's own id where nobody
    knows: then it counts as a person of its own."""
    expression: str
    """The label, as in `fergcn.EXPRESSIONS` or another lower-case word."""
    path: Path
    """A video file, a folder of pictures in the order of their names, a single picture, or an array
    of faces."""
    view: View = "whole"
    """Part of each picture that holds the face from the front."""
    fold: int | None = None
    """Official test fold, from 0; -1 for clips that are only ever trained on; None where the
    dataset has no official folds."""
    intensity: tuple[float, ...] | None = None
    """True intensity of every frame, 0 to 1, where it is known."""
    apex_index: int | None = None
    """Frame of the highest intensity, where it is known."""
    attributes: dict[str, float | str] = field(default_factory=dict)
    """What else the dataset knows about the subject or the clip."""

    def has_frames(self) -> bool:
        """Whether there is a face to look at: an array may be empty, where none was found."""
        return self.path.suffix != ".npy" or len(np.load(self.path, mmap_mode="r")) > 0


def sample_frames(num_available: int, num_frames: int) -> NDArray[np.int64]:
    """Choose frames chronologically, evenly spread, first and last included.

    Where a clip has fewer frames than wanted, frames are used again (paper, Section IV.B).

    Args:
        num_available: frames that the clip has.
        num_frames: N, frames that the model takes.

    Returns:
        `(num_frames,)` indices, never decreasing.

    Raises:
        ValueError: either number is below 1.
    """
    if num_available < 1 or num_frames < 1:
        raise ValueError(f"can't choose {num_frames} of {num_available} frames: both must be ≥ 1")
    if num_frames == 1:
        return np.array([(num_available - 1) // 2])
    # Integer arithmetic rounds the same way everywhere: no frame depends on the platform.
    steps = np.arange(num_frames)
    return (2 * steps * (num_available - 1) + num_frames - 1) // (2 * (num_frames - 1))


def read_clip(
    clip: Clip, on_unreadable: Callable[[Path], None] | None = None
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Decode a clip frame by frame.

    Args:
        clip: what to read.
        on_unreadable: is told each picture of a folder that can't be decoded, which is then left
            out; without it, such a picture is an error, as is a clip's only one.

    Yields:
        Index of the frame in the clip, from 0, and its `(H, W, 3)` RGB picture in the clip's view.

    Raises:
        FergcnError: the clip's file or folder is missing, not what it should be, or empty.
    """
    if clip.path.is_dir() or is_picture(clip.path):
        for index, file in enumerate(picture_files(clip.path)):
            try:
                image = read_picture(file)
            except FergcnError:
                if on_unreadable is None or file == clip.path:
                    raise
                on_unreadable(file)
            else:
                yield index, _in_view(image, clip.view)
    elif clip.path.suffix == ".npy":
        for index, image in enumerate(_open_faces(clip.path)):
            yield index, _in_view(np.array(image), clip.view)
    else:
        for frame in read_frames(clip.path):
            yield frame.index, _in_view(frame.image, clip.view)


def load_clip(clip: Clip, num_frames: int) -> NDArray[np.uint8]:
    """Decode the N frames of a clip, by `sample_frames`; one alone is the apex, where it is known.

    Of a folder or an array of faces, only the chosen frames are read. Pictures of another size
    than the first one chosen are brought to its size.

    Returns:
        `(num_frames, H, W, 3)` RGB.

    Raises:
        FergcnError: the clip's file or folder is missing, not what it should be, or empty; one of
            the chosen pictures can't be decoded.
    """
    if clip.path.is_dir() or is_picture(clip.path):
        files = picture_files(clip.path)
        chosen = _frame_indices(clip, len(files), num_frames)
        pictures = {index: _in_view(read_picture(files[index]), clip.view) for index in set(chosen)}
        height, width = pictures[chosen[0]].shape[:2]
        return np.stack([resize_picture(pictures[index], height, width) for index in chosen])
    if clip.path.suffix == ".npy":
        faces = _open_faces(clip.path)
        chosen = _frame_indices(clip, len(faces), num_frames)
        return np.stack([_in_view(np.array(faces[index]), clip.view) for index in chosen])
    frames = [_in_view(frame.image, clip.view) for frame in read_frames(clip.path)]
    return np.stack([frames[index] for index in _frame_indices(clip, len(frames), num_frames)])


def is_picture(path: Path) -> bool:
    """Whether a path names a single picture, by its ending; hidden files are none."""
    return path.suffix.lower() in PICTURES and not path.name.startswith(".")


def picture_files(path: Path) -> list[Path]:
    """List the pictures of a folder in natural order: `img_2.png` before `img_10.png`.

    Hidden files are left out, as are files of other kinds. A path that is a picture itself is the
    only one.

    Raises:
        FergcnError: the folder holds no pictures or can't be read.
    """
    try:
        if is_picture(path) and not path.is_dir():
            return [path]
        files = [file for file in path.iterdir() if is_picture(file)]
    except OSError as error:
        raise FergcnError(
            f"{path}: found it can't be read ({error.strerror}), expected a folder of pictures: "
            "check the path and its permissions"
        ) from None
    if not files:
        raise FergcnError(
            f"{path}: found no pictures, expected JPEG, PNG or BMP files: copy the folder again"
        )
    return sorted(files, key=_natural_order)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Decode one picture.

    Returns:
        `(H, W, 3)` RGB, upright; greyscale has three equal channels, 16 bits become 8.

    Raises:
        FergcnError: the file is missing, cut off or not a picture.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
                grey = (np.asarray(image) // 257).astype(np.uint8)
                return np.stack([grey] * 3, axis=2)
            return np.array(image.convert("RGB"))
    except Exception:  # decoders raise whatever damaged bytes lead them to
        raise FergcnError(
            f"{path}: found a file that can't be decoded, expected a picture: copy it again"
        ) from None


def resize_picture(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Stretch or shrink a picture to `(height, width, 3)`."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height * width < image.shape[0] * image.shape[1]
    # averaging areas keeps a shrunk picture free of aliasing
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=how).astype(np.uint8, copy=False)


def people_digests(clips: Sequence[Clip]) -> set[str]:
    """Short hashes of the people in clips: who was trained on can be checked, but not read."""
    return {hashlib.sha256(clip.subject_id.encode()).hexdigest()[:8] for clip in clips}


def dataset_expressions(clips: Sequence[Clip]) -> tuple[str, ...]:
    """The expressions that occur, in the order of `fergcn.EXPRESSIONS`."""
    return sort_expressions({clip.expression for clip in clips})


def encode_targets(clips: Sequence[Clip], expressions: tuple[str, ...]) -> NDArray[np.int64]:
    """Class index of each clip, `(len(clips),)`.

    Raises:
        FergcnError: a clip has an expression that is not among them.
    """
    if unknown := {clip.expression for clip in clips} - set(expressions):
        raise FergcnError(
            f"found clips of {', '.join(sorted(unknown))}, expected {', '.join(expressions)}: "
            "use a checkpoint that knows them, or name those to score with --expressions"
        )
    return np.array([expressions.index(clip.expression) for clip in clips], dtype=np.int64)


def clip_digest(clip: Clip) -> str:
    """Hash of what a clip is read from: bytes of its file, or names and bytes of its pictures.

    Raises:
        FergcnError: there is nothing to read.
    """
    digest = hashlib.sha256(clip.view.encode())
    try:
        in_folder = clip.path.is_dir()
        for file in picture_files(clip.path) if in_folder else [clip.path]:
            if in_folder:
                digest.update(f"\0{file.name}\0".encode(errors="surrogateescape"))
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    except OSError as error:
        raise FergcnError(
            f"{error.filename}: found it can't be read ({error.strerror}), expected a video, a "
            "picture or an array of faces: check the path"
        ) from None
    return digest.hexdigest()


def _frame_indices(clip: Clip, num_available: int, num_frames: int) -> list[int]:
    if num_frames == 1 and clip.apex_index is not None:
        return [clip.apex_index]
    return [int(index) for index in sample_frames(num_available, num_frames)]


def _natural_order(path: Path) -> tuple[list[str | int], str]:
    # Splitting at numbers yields text and number in turn, so like is compared with like.
    parts = re.split(r"(\d+)", path.name.casefold())
    return [int(part) if part.isdecimal() else part for part in parts], path.name


def _in_view(image: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    middle = image.shape[1] // 2
    if view == "left half":
        image = image[:, :middle]
    elif view == "right half":
        image = image[:, middle:]
    elif view == "rotated 90":
        image = np.rot90(image, k=-1)  # clockwise
    return np.ascontiguousarray(image)


def _open_faces(path: Path) -> NDArray[np.uint8]:
    """Map an array of faces into memory."""
    try:
        faces: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        raise FergcnError(
            f"{path}: found it missing or damaged, expected an array of faces: "
            "prepare the dataset again"
        ) from None
    if faces.ndim != 4 or faces.shape[3] != 3 or faces.dtype != np.uint8:
        raise FergcnError(
            f"{path}: found an array of {faces.dtype} {faces.shape}, expected faces as uint8 "
            "(frames, height, width, 3): prepare the dataset again"
        )
    if len(faces) == 0:
        raise FergcnError(
            f"{path}: found no frame, as no face was found in this clip, expected at least one: "
            "leave the clip out"
        )
    return faces
