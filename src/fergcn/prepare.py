"""From raw clips to a store of aligned faces: on all cores, resumable, the same bytes always.

Layout of a finished store::

    prepared.json     dataset, settings, versions and counts; written last, so it marks a
                      complete store
    index.csv         one row for each clip, in the dataset's order; its columns are in `_row`
    faces/<key>.npy   (num_faces, size, size, 3) uint8 RGB; the faces of one clip
    faces/<key>.json  which of the clip's frames they come from

The key of a clip is a hash of what it is read from, its view, the settings and the version of the
face code. So faces that are there already can be used again, and none that something else made.
While the work goes on, `preparing.json` marks the folder.
"""

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fergcn.clips import Clip, clip_digest, read_clip, resize_picture, sample_frames
from fergcn.expressions import FergcnError
from fergcn.faces.align import align_face
from fergcn.faces.detect import MTCNN_INPUT_SIZE, FaceDetector
from fergcn.faces.track import Tracker
from fergcn.files import csv_text, open_atomically, write_json, write_text
from fergcn.progress import Count, silent
from fergcn.workers import num_cores, run_tasks

FORMAT = 1
"""Version of the layout on disk."""
FACE_VERSION = 3
"""Version of detection, tracking and alignment: raise it when they give other faces."""
FPS = 25.0
"""Clips are followed as if filmed at this rate: pictures have no times."""

MANIFEST = "prepared.json"
IN_PROGRESS = "preparing.json"
INDEX = "index.csv"

Landmarks = NDArray[np.float64] | None
"""`(5, 2)`, or None where the whole picture is the face."""


@dataclass(frozen=True)
class PrepareConfig:
    """How faces are found and stored."""

    size: int = 256
    """Side of the stored faces in pixels."""
    num_frames: int | None = None
    """Store at most this many faces of a clip, evenly spread; all of them if left out."""
    detect: bool = True
    """Find and align faces; if not, the pictures are faces already and are only resized."""
    min_face_size: int = 40
    """Smaller faces are not looked for, in pixels, unless one fills much of the picture. A larger
    value is faster."""
    min_confidence: float = 0.9
    """Faces that the detector is less sure of are left out."""

    def __post_init__(self) -> None:
        if self.size < 16 or (self.num_frames is not None and self.num_frames < 1):
            raise FergcnError(
                f"found size={self.size} and num_frames={self.num_frames}, expected at least 16 "
                "pixels and 1 frame: raise them"
            )
        if self.min_face_size < MTCNN_INPUT_SIZE or not 0 <= self.min_confidence <= 1:
            raise FergcnError(
                f"found min_face_size={self.min_face_size} and "
                f"min_confidence={self.min_confidence}, expected at least {MTCNN_INPUT_SIZE} "
                "pixels and 0 to 1: change them"
            )


@dataclass(frozen=True)
class PrepareReport:
    """What became of a dataset's clips."""

    num_clips: int
    num_frames: int
    """Frames that could be decoded or should have been, in all clips."""
    num_faces: int
    """Faces in the store."""
    frames_without_face: int
    """Frames that could be decoded but don't show the clip's main face."""
    without_face: tuple[str, ...]
    """Ids of clips that could be read and show no face in any frame."""
    failed: tuple[str, ...]
    """Clips that can't be read: id and reason."""
    unreadable_pictures: tuple[str, ...]
    """Pictures that can't be decoded in clips that can be read otherwise."""


@dataclass(frozen=True)
class _Faces:
    """What is known about the stored faces of one clip."""

    key: str
    num_frames: int = 0
    """Frames of the clip, those included that can't be decoded."""
    num_found: int = 0
    """Frames that show the main face."""
    frames: tuple[int, ...] = ()
    """Those of them that are stored."""
    unreadable: tuple[str, ...] = ()
    """Names of the pictures that can't be decoded."""
    failure: str = ""
    """Why the clip can't be read; empty if it can."""


def prepare_clips(
    clips: Sequence[Clip],
    store: Path,
    config: PrepareConfig | None = None,
    dataset: str = "",
    workers: int | None = None,
    on_progress: Count = silent,
) -> PrepareReport:
    """Find, align and store the main face of each clip.

    The main face is the track whose boxes cover most, summed over the frames: it is seen for long
    and it is large. Frames that don't show it are left out. Clips without a face and clips that
    can't be read stay in the store, with no faces.

    Called again after an interruption, it goes on where it was; with other settings or clips, it
    makes the faces that are missing and removes those that are no longer needed. The bytes depend
    on clips and settings only. With more than one worker, a script that calls this needs the usual
    `if __name__ == "__main__":`.

    Args:
        clips: the dataset, from its raw files.
        store: folder of the store; it is created.
        config: settings; `PrepareConfig()` if left out.
        dataset: name that the store keeps.
        workers: number of processes; None for one per core.
        on_progress: is told the number of finished clips and of all clips.

    Raises:
        FergcnError: the folder holds something else or can't be written, there are no clips, or a
            process was killed. What was finished stays.
    """
    config = config or PrepareConfig()
    if not clips:
        raise FergcnError(f"{dataset}: found no clips, expected at least one: check its folder")
    _check_store(store, dataset, clips)
    prepare = partial(_prepare_clip, store, config)
    results: dict[int, _Faces] = {}
    try:
        _begin(store, dataset)
        try:
            with closing(run_tasks(prepare, clips, workers or num_cores())) as prepared:
                for position, faces in prepared:
                    if isinstance(faces, FergcnError):
                        raise FergcnError(f"{clips[position].clip_id}: {faces}")
                    results[position] = faces
                    on_progress(len(results), len(clips))
        finally:
            _remove_partial_files(store)
        report = _report(clips, [results[position] for position in range(len(clips))])
        _finish(store, dataset, config, clips, results, report)
    except OSError as error:
        raise FergcnError(
            f"{store}: found it can't be written ({error.strerror}), expected a folder with room: "
            "make room and run the same command again to go on"
        ) from None
    return report


def prepared_dataset(store: Path) -> str | None:
    """Name of the dataset that a store was prepared from, also while it is not complete.

    Returns:
        None if the folder is no store of faces.

    Raises:
        FergcnError: the store is damaged or of another version.
    """
    for name in (MANIFEST, IN_PROGRESS):
        if (store / name).exists():
            return str(_read_manifest(store / name)["dataset"])
    return None


def read_prepared(store: Path) -> list[Clip]:
    """Read the clips of a store.

    Returns:
        The clips in the dataset's order; `path` is an array of faces, in which a clip without a
        face has none. `intensity` and `apex_index` are those of the stored frames.

    Raises:
        FergcnError: the folder is no store, not complete, damaged or of another version.
    """
    if not (store / MANIFEST).exists():
        if (store / IN_PROGRESS).exists():
            raise FergcnError(
                f"{store}: found a preparation that was interrupted, expected a complete one: "
                "run fergcn prepare again to go on"
            )
        raise FergcnError(
            f"{store}: found no {MANIFEST}, expected a store of faces: "
            "check the path or make one with fergcn prepare"
        )
    manifest = _read_manifest(store / MANIFEST)
    try:
        size = int(manifest["settings"]["size"])
        num_clips = int(manifest["counts"]["clips"])
        with (store / INDEX).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        clips = [_clip(store, row) for row in rows]
        sizes = [int(row["num_faces"]) * size * size * 3 for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        raise _damaged(store / INDEX, "one row for each clip") from None
    if len(clips) != num_clips:
        raise _damaged(store / INDEX, f"{num_clips} clips")
    for clip, num_bytes in zip(clips, sizes, strict=True):
        if not clip.path.exists() or clip.path.stat().st_size < num_bytes:
            raise _damaged(clip.path, f"the faces of {clip.clip_id}")
    return clips


def read_failures(store: Path) -> tuple[str, ...]:
    """Which clips of a complete store could not be read: id and reason, as `PrepareReport` has it.

    Raises:
        FergcnError: the store is damaged.
    """
    try:
        with (store / INDEX).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return tuple(f"{row['clip_id']}: {row['failure']}" for row in rows if row["failure"])
    except (OSError, ValueError, KeyError):
        raise _damaged(store / INDEX, "one row for each clip") from None


# --- folder --------------------------------------------------------------------------------------


def _check_store(store: Path, dataset: str, clips: Sequence[Clip]) -> None:
    """Refuse a folder that is not ours, before anything is written or removed."""
    if any(store.resolve() in clip.path.resolve().parents for clip in clips):
        raise FergcnError(
            f"{store}: found that clips lie in this folder, expected one of its own for the "
            "faces: choose another folder"
        )
    found = prepared_dataset(store)
    if found is None and (store.is_file() or (store.is_dir() and any(store.iterdir()))):
        raise FergcnError(
            f"{store}: found files that are not a store of faces, expected an empty folder: "
            "choose another folder"
        )
    if found is not None and found != dataset:
        raise FergcnError(
            f"{store}: found faces of the dataset {found}, expected {dataset} or an empty folder: "
            "choose another folder"
        )


def _begin(store: Path, dataset: str) -> None:
    """Mark the store as not complete, and as ours."""
    marker = {"format": FORMAT, "dataset": dataset}
    write_json(store / IN_PROGRESS, marker)
    (store / MANIFEST).unlink(missing_ok=True)


def _finish(
    store: Path,
    dataset: str,
    config: PrepareConfig,
    clips: Sequence[Clip],
    results: dict[int, _Faces],
    report: PrepareReport,
) -> None:
    """Write the index, mark the store as complete and remove what no clip uses."""
    rows = [_row(clip, results[position]) for position, clip in enumerate(clips)]
    write_text(store / INDEX, csv_text(rows))
    manifest = {
        "format": FORMAT,
        "dataset": dataset,
        "settings": asdict(config),
        "face_version": FACE_VERSION,
        "fergcn_version": _fergcn_version(),
        "counts": {
            "clips": report.num_clips,
            "frames": report.num_frames,
            "faces": report.num_faces,
            "clips_without_face": len(report.without_face),
            "clips_failed": len(report.failed),
        },
    }
    write_json(store / MANIFEST, manifest)
    used = {faces.key for faces in results.values()}
    for file in (store / "faces").iterdir():
        if file.suffix in (".npy", ".json") and file.stem not in used:
            file.unlink()
    (store / IN_PROGRESS).unlink()


def _fergcn_version() -> str:
    try:
        return version("fergcn")
    except PackageNotFoundError:  # run from a folder
        return "unknown"


def _remove_partial_files(store: Path) -> None:
    """Remove what processes left that were stopped in the middle of a file."""
    for folder in (store, store / "faces"):
        for file in folder.glob("*.partial"):
            file.unlink(missing_ok=True)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["format"]
        manifest["dataset"]
    except (OSError, ValueError, KeyError, TypeError):
        raise FergcnError(
            f"{path}: found it damaged, expected the description of a store of faces: "
            "delete the store and prepare it again"
        ) from None
    if found != FORMAT:
        raise FergcnError(
            f"{path.parent}: found layout {found}, expected layout {FORMAT}: prepare it again in "
            "another folder, or use the version of fergcn that made it"
        )
    return dict(manifest)


def _damaged(path: Path, expected: str) -> FergcnError:
    return FergcnError(
        f"{path}: found it missing or damaged, expected {expected}: run fergcn prepare again"
    )


def _row(clip: Clip, faces: _Faces) -> dict[str, Any]:
    """One row of the index; intensity and apex are those of the stored frames."""
    frames = faces.frames
    intensity = clip.intensity and [float(clip.intensity[frame]) for frame in frames]
    apex = clip.apex_index
    return {
        "clip_id": clip.clip_id,
        "subject_id": clip.subject_id,
        "expression": clip.expression,
        "fold": "" if clip.fold is None else clip.fold,
        "file": _faces_path(Path(), faces.key).as_posix(),
        "num_frames": faces.num_frames,
        "num_faces": len(frames),
        "frames": " ".join(map(str, frames)),
        "intensity": " ".join(map(repr, intensity or ())),
        "apex_index": "" if apex is None or not frames else _nearest(frames, apex),
        "attributes": json.dumps(clip.attributes, ensure_ascii=False),
        "failure": faces.failure,
    }


def _nearest(frames: Sequence[int], wanted: int) -> int:
    """Position of the stored frame that is nearest to the wanted one, which may be left out."""
    return min(range(len(frames)), key=lambda position: abs(frames[position] - wanted))


def _clip(store: Path, row: dict[str, str]) -> Clip:
    return Clip(
        clip_id=row["clip_id"],
        subject_id=row["subject_id"],
        expression=row["expression"],
        path=store / row["file"],
        fold=int(row["fold"]) if row["fold"] else None,
        intensity=tuple(map(float, row["intensity"].split())) or None,
        apex_index=int(row["apex_index"]) if row["apex_index"] else None,
        attributes=json.loads(row["attributes"]),
    )


def _report(clips: Sequence[Clip], results: Sequence[_Faces]) -> PrepareReport:
    pairs = list(zip(clips, results, strict=True))
    return PrepareReport(
        num_clips=len(clips),
        num_frames=sum(faces.num_frames for faces in results),
        num_faces=sum(len(faces.frames) for faces in results),
        frames_without_face=sum(
            faces.num_frames - len(faces.unreadable) - faces.num_found for faces in results
        ),
        without_face=tuple(
            clip.clip_id for clip, faces in pairs if not faces.frames and not faces.failure
        ),
        failed=tuple(f"{clip.clip_id}: {faces.failure}" for clip, faces in pairs if faces.failure),
        unreadable_pictures=tuple(
            str(clip.path / name) for clip, faces in pairs for name in faces.unreadable
        ),
    )


# --- one clip ------------------------------------------------------------------------------------


def _faces_path(store: Path, key: str) -> Path:
    return store / "faces" / f"{key}.npy"


def _prepare_clip(store: Path, config: PrepareConfig, clip: Clip) -> _Faces:
    """Store the faces of one clip, or find them in the store already."""
    key = _hash("unreadable", clip.clip_id)
    try:
        key = _hash(clip_digest(clip), len(clip.intensity or ()), asdict(config), FACE_VERSION)
        if (known := _known_faces(store, key, config.size)) is not None:
            return known
        faces, landmarks = _find_faces(clip, key, config)
        _write_faces(store, config.size, faces, _cut_faces(clip, landmarks, config))
    except FergcnError as error:  # OSError is left to the caller: the store can't be written
        failed = _Faces(key, failure=str(error))
        _write_faces(store, config.size, failed, iter(()))
        return failed
    text = json.dumps(asdict(faces))
    write_text(_faces_path(store, key).with_suffix(".json"), text + "\n")
    return faces


def _hash(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


def _known_faces(store: Path, key: str, size: int) -> _Faces | None:
    """What an earlier run found, if it was finished with this clip."""
    path = _faces_path(store, key)
    try:
        known = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        lists = {"frames": tuple(known["frames"]), "unreadable": tuple(known["unreadable"])}
        faces = _Faces(**{**known, **lists})
        shape = np.load(path, mmap_mode="r").shape
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return faces if shape == (len(faces.frames), size, size, 3) else None


def _find_faces(clip: Clip, key: str, config: PrepareConfig) -> tuple[_Faces, dict[int, Landmarks]]:
    """Choose the frames of a clip to store.

    Returns:
        What is known about the faces, and the landmarks in each frame to store.
    """
    decoded: list[int] = []
    unreadable: list[Path] = []

    def images() -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for index, image in read_clip(clip, unreadable.append):
            decoded.append(index)
            yield index, image

    found: dict[int, Landmarks]
    if config.detect:
        detector = _detector(config.min_face_size, config.min_confidence)
        found = _main_face(images(), detector)
    else:
        found = dict.fromkeys(index for index, _ in images())
    num_frames = len(decoded) + len(unreadable)
    if not decoded:
        raise FergcnError(
            f"{clip.path}: found {num_frames} pictures that can't be decoded and no other, "
            "expected at least one that can: copy the folder again"
        )
    if clip.intensity is not None and num_frames > len(clip.intensity):
        raise FergcnError(
            f"{clip.path}: found {num_frames} frames, expected the {len(clip.intensity)} whose "
            "intensity is known: copy the dataset again"
        )
    frames = list(found)
    if frames and config.num_frames is not None:
        # each frame once: who loads a short clip uses its frames again then
        chosen = np.unique(sample_frames(len(frames), config.num_frames))
        frames = [frames[position] for position in chosen]
    names = tuple(file.name for file in unreadable)
    faces = _Faces(key, num_frames, len(found), tuple(frames), names)
    return faces, {index: found[index] for index in frames}


@lru_cache(maxsize=1)
def _detector(min_face_size: int, min_confidence: float) -> FaceDetector:
    return FaceDetector(min_face_size, min_confidence)


def _main_face(
    images: Iterator[tuple[int, NDArray[np.uint8]]], detector: FaceDetector
) -> dict[int, Landmarks]:
    """Follow all faces of a clip and choose the one that covers most.

    Returns:
        Its landmarks in each frame that shows it.
    """
    tracker = Tracker()
    tracks: dict[int, dict[int, Landmarks]] = {}
    covered: dict[int, float] = {}
    for index, image in images:
        detections = detector(image)
        numbers = tracker.update(detections, index / FPS)
        for track_id, face in zip(numbers, detections, strict=True):
            width, height = face.xyxy[2:] - face.xyxy[:2]
            tracks.setdefault(track_id, {})[index] = face.landmarks
            covered[track_id] = covered.get(track_id, 0.0) + float(width * height)
    if not tracks:
        return {}
    return tracks[max(covered, key=covered.__getitem__)]


def _cut_faces(
    clip: Clip, landmarks: dict[int, Landmarks], config: PrepareConfig
) -> Iterator[NDArray[np.uint8]]:
    """Read the clip a second time and cut out its faces.

    Which face is the main one is known at the end of a clip only; to keep the faces of all people
    in memory until then would take gigabytes for long videos.
    """
    last = max(landmarks, default=-1)
    for index, image in read_clip(clip, lambda _file: None):
        if index > last:
            break
        if index in landmarks:
            points = landmarks[index]
            if points is None:
                yield resize_picture(image, config.size, config.size)
            else:
                yield align_face(image, points, config.size)


def _write_faces(
    store: Path, size: int, faces: _Faces, images: Iterator[NDArray[np.uint8]]
) -> None:
    # not `open_memmap`: where the disk is full, writing to mapped memory kills the process
    with open_atomically(_faces_path(store, faces.key)) as file:
        shape = (len(faces.frames), size, size, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        written = 0
        for image in images:
            file.write(image.tobytes())
            written += 1
        if written != len(faces.frames):
            raise FergcnError(
                f"found {written} frames, expected {len(faces.frames)} as before: the clip changed "
                "while it was read: run the same command again"
            )
