"""The doctor: does a dataset on disk hold what its protocol counts, and can all of it be read?"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from fergcn.clips import Clip, is_picture
from fergcn.datasets import find_dataset, list_dataset
from fergcn.datasets.layout import MISSING, pictures
from fergcn.expressions import FergcnError, sort_expressions
from fergcn.progress import Progress, silent
from fergcn.video import read_frames


@dataclass(frozen=True)
class Count:
    """Something counted."""

    what: str
    found: int
    expected: int | None
    """As published; None where nothing is known."""


@dataclass
class DatasetReport:
    """What the doctor found."""

    clips: list[Clip]
    counts: list[Count]
    left_out: dict[str, list[Path]]
    """Sequences that are no part of the protocol, by reason."""
    problems: list[str] = field(default_factory=list)
    """One line each for everything that keeps the protocol from being reproduced."""
    notes: list[str] = field(default_factory=list)
    """What else to know."""


def check_dataset(
    name: str,
    root: Path | None = None,
    open_files: bool = True,
    on_progress: Progress = silent,
) -> DatasetReport:
    """Compare a dataset on disk with what is published about it.

    Args:
        name: a key of `DATASETS`.
        root: the dataset's folder; None for the edition in the package.
        open_files: also decode every picture and the first frame of every video, and look for
            clips with the same content.
        on_progress: told what is being done, how much of it is and how much there is.

    Raises:
        FergcnError: the name is unknown or the folder has another layout.
    """
    dataset = find_dataset(name)
    listing = list_dataset(name, root)
    clips = listing.clips
    # Another rendering than the one in the package has other counts.
    published = root is None or not dataset.aligned
    left_out: defaultdict[str, list[Path]] = defaultdict(list)
    for path, reason in listing.left_out:
        left_out[reason].append(path)
    report = DatasetReport(clips, [], dict(left_out))
    report.counts += _counts(name, clips, published)
    report.problems += [
        f"{count.what}: found {count.found}, expected {count.expected}"
        for count in report.counts
        if count.expected not in (None, count.found)
    ]
    if not clips:
        report.problems.append("found no clips, expected some")
    if report.problems and dataset.remark:
        report.notes.append(dataset.remark)
    if clips and not _subjects_known(clips):
        report.notes.append(
            "Nobody knows who is in which clip: one person may be in training and test."
        )
    if missing := left_out.get(MISSING):
        report.problems.append(
            f"found no video or pictures for {len(missing)} labelled clips, first {missing[0]}"
        )
    if open_files:
        report.problems += _unreadable(clips, on_progress)
        report.problems += [
            f"{', '.join(ids)}: found the same content, expected clips that differ"
            for ids in _duplicates(clips, on_progress)
        ]
    return report


def part_counts(clips: Sequence[Clip], folds: int) -> dict[str, int]:
    """Count the clips of official parts.

    Args:
        clips: clips with official folds.
        folds: number of official test folds.

    Returns:
        For `training` and `test` (with several folds `set 1, training` and so on) and for each of
        them with an expression, `test, anger`, the number of clips.
    """
    counts: Counter[str] = Counter()
    for fold in range(folds):
        prefix = f"set {fold + 1}, " if folds > 1 else ""
        counts.update(dict.fromkeys((f"{prefix}training", f"{prefix}test"), 0))
        for clip in clips:
            part = prefix + ("test" if clip.fold == fold else "training")
            counts.update((part, f"{part}, {clip.expression}"))
    return dict(counts)


def _counts(name: str, clips: Sequence[Clip], published: bool) -> list[Count]:
    dataset = find_dataset(name)

    def count(what: str, found: int, expected: int | None) -> Count:
        return Count(what, found, expected if published else None)

    counts = [count("clips", len(clips), dataset.clips)]
    if _subjects_known(clips):
        subjects = len({clip.subject_id for clip in clips})
        counts.append(count("subjects", subjects, dataset.subjects))
    found = Counter(clip.expression for clip in clips)
    counts += [
        count(expression, found[expression], dataset.expected.get(expression))
        for expression in sort_expressions(set(found) | set(dataset.expressions))
    ]
    if dataset.scheme == "official":
        parts = part_counts(clips, dataset.folds)
        whole = [part for part in parts if part.endswith(("training", "test"))]
        # A dictionary's keys keep their order and come once.
        counts += [
            count(what, parts.get(what, 0), dataset.parts.get(what))
            for what in dict.fromkeys([*dataset.parts, *whole])
        ]
    return counts


def _subjects_known(clips: Sequence[Clip]) -> bool:
    return any(clip.subject_id != clip.clip_id for clip in clips)


def _files(clip: Clip) -> list[Path]:
    return pictures(clip.path) if clip.path.is_dir() else [clip.path]


def _unreadable(clips: Sequence[Clip], on_progress: Progress) -> list[str]:
    """One line for each clip that is empty and each file that can't be decoded."""
    level = cv2.utils.logging.getLogLevel()
    # What OpenCV would print about a broken picture is said in our own line.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    lines: list[str] = []
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done, found in enumerate(pool.map(_unreadable_files, clips), start=1):
                lines += found
                on_progress("opening", done, len(clips))
    finally:
        cv2.utils.logging.setLogLevel(level)
    return lines


def _unreadable_files(clip: Clip) -> list[str]:
    if not clip.path.is_dir() and not is_picture(clip.path):
        try:
            next(read_frames(clip.path))
        except FergcnError as error:
            return [str(error)]
        return []
    files = _files(clip)
    if not files:
        return [f"{clip.path}: found no pictures, expected those of a clip: unpack it again"]
    return [
        f"{file}: found a file that is no picture or is cut off, expected a picture: copy it again"
        for file in files
        if not _can_be_decoded(file)
    ]


def _can_be_decoded(file: Path) -> bool:
    try:
        return cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR) is not None
    except (cv2.error, OSError):
        return False


def _duplicates(clips: Sequence[Clip], on_progress: Progress) -> list[list[str]]:
    """Ids of clips that have the same content, in groups."""
    by_size: defaultdict[tuple[int, ...], list[Clip]] = defaultdict(list)
    for clip in clips:
        by_size[tuple(file.stat().st_size for file in _files(clip))].append(clip)
    # Only what has the same size can be the same: little has to be read a second time.
    alike = [clip for group in by_size.values() if len(group) > 1 for clip in group]
    by_content: defaultdict[str, list[str]] = defaultdict(list)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, digest in enumerate(pool.map(_digest, alike), start=1):
            clip = alike[done - 1]
            by_content[digest].append(clip.clip_id)
            on_progress("comparing", done, len(alike))
    return sorted(ids for ids in by_content.values() if len(ids) > 1)


def _digest(clip: Clip) -> str:
    digest = hashlib.sha256()
    for file in _files(clip):
        digest.update(file.read_bytes())
    return digest.hexdigest()
