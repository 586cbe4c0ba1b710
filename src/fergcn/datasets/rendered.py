"""Rendered clips of parametric heads: the edition in the package, or one you rendered yourself.

Columns of `clips.csv`, all kept in `Clip.attributes`: `kind` (`onset_apex`: neutral to apex;
`onset_apex_offset`: and back; `anywhere`: apex in any frame; `still`: in the only one),
`num_frames`, `fps`, `apex_strength` (0–1, 0 for neutral), `skin_tone` (0 darkest to 1 lightest),
`age` (0 child, 0.5 young adult, 1 old), `gender` (shape of the head, 0 female to 1 male),
`ancestry_african`, `ancestry_asian`, `ancestry_european` (shares that add up to 1), `weight` and
`muscle` (0–1, 0.5 average), `hair` (bald, short, medium, long), `beard` (none, stubble, full,
moustache, goatee) and `glasses` (0 or 1); where `anywhere` is among the kinds, also
`second_expression`, one before or after the labelled one that peaks at 0.25 to 0.6 of its strength,
and `second_strength`, that peak (empty and 0 in clips without one). The two never show in the same
frame; the stronger one is the label.
"""

import csv
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fergcn.clips import Clip
from fergcn.datasets.layout import Listing
from fergcn.expressions import EXPRESSIONS, FergcnError

BUNDLED = Path(__file__).parent / "rendered_small"
"""The edition in the package."""

FORMAT = 1
"""Version of the layout that this reader knows."""

KINDS = ("onset_apex", "onset_apex_offset", "anywhere", "still")

WORDS = frozenset({"kind", "second_expression", "hair", "beard"})
"""Columns that hold words; the other attributes are numbers."""

IDENTIFIERS = frozenset({"clip_id", "subject_id", "expression", "apex_index"})
"""Columns that have a field of their own in `Clip`."""


def load_rendered(root: Path | None = None, kind: str | None = None) -> list[Clip]:
    """Read a rendered dataset.

    Args:
        root: folder of the dataset; None for the edition in the package.
        kind: only clips of this kind, one of `KINDS`; None for all.

    Returns:
        The clips in the order of the table. Their intensity is that of the labelled expression;
        `load_frame_truth` also has the second one's.

    Raises:
        FergcnError: the folder is missing, of another layout or not completely rendered; the kind
            is unknown, or there are no clips of it.
    """
    if kind is not None and kind not in KINDS:
        raise FergcnError(
            f"found the kind {kind}, expected one of {', '.join(KINDS)}: choose one of these"
        )
    root = _checked_root(root)
    intensity: dict[str, list[float]] = {}
    for row in _read_table(root, "frames.csv"):
        intensity.setdefault(row["clip_id"], []).append(float(row["intensity"]))
    clips = [
        _clip(root, row, intensity)
        for row in _read_table(root, "clips.csv")
        if kind is None or row["kind"] == kind
    ]
    if not clips:
        raise FergcnError(
            f"{root}: found no clips of the kind {kind}, expected at least one: "
            f"run fergcn render FOLDER --kinds {kind} and name that folder"
        )
    for clip in clips:
        if not clip.path.exists() and clip.path.with_suffix(".mp4").exists():
            raise FergcnError(
                f"{root}: found stills as videos, expected them as pictures, as they are rendered "
                "now: delete this folder and render it again"
            )
        if not clip.path.exists():
            raise FergcnError(
                f"{clip.path}: found no such file, expected what a row of clips.csv is about: "
                "copy or render the dataset again"
            )
    return clips


def read_rendered(root: Path, kind: str | None = None) -> Listing:
    """Read a rendered dataset, of which nothing is left out; see `load_rendered`."""
    return Listing(load_rendered(root, kind))


def load_frame_truth(root: Path | None = None) -> dict[str, NDArray[np.float64]]:
    """Read how intensely each clip shows which expression in every frame.

    Args:
        root: folder of the dataset; None for the edition in the package.

    Returns:
        For each clip id `(N, 8)` values of 0–1, one column for each of `fergcn.EXPRESSIONS`; at
        most one of them is above 0 in a frame, none where the face is neutral.

    Raises:
        FergcnError: as `load_rendered`.
    """
    root = _checked_root(root)
    shown = {row["clip_id"]: row for row in _read_table(root, "clips.csv")}
    truth: dict[str, list[NDArray[np.float64]]] = {}
    try:
        for row in _read_table(root, "frames.csv"):
            clip = shown[row["clip_id"]]
            frame = np.zeros(len(EXPRESSIONS))
            frame[EXPRESSIONS.index(clip["expression"])] = float(row["intensity"])
            if clip.get("second_expression"):
                second = EXPRESSIONS.index(clip["second_expression"])
                frame[second] = float(row["second_intensity"])
            truth.setdefault(row["clip_id"], []).append(frame)
    except (KeyError, ValueError):
        raise _damaged(root / "frames.csv", "the frames of the clips in clips.csv") from None
    return {clip_id: np.stack(frames) for clip_id, frames in truth.items()}


def load_motion(root: Path | None = None) -> dict[str, NDArray[np.float64]]:
    """Read where each clip's expression moves the face.

    Args:
        root: folder of the dataset; None for the edition in the package.

    Returns:
        For each clip id a `(14, 14)` grid over the aligned face, 1 in the cell whose visible
        surface moves most, 0 everywhere for neutral.

    Raises:
        FergcnError: as `load_rendered`.
    """
    root = _checked_root(root)
    clip_ids = [row["clip_id"] for row in _read_table(root, "clips.csv")]
    try:
        motion = np.load(root / "motion.npy") / 255.0
    except (OSError, ValueError):
        raise _damaged(root / "motion.npy", "motion maps") from None
    if len(motion) != len(clip_ids):
        raise _damaged(root / "motion.npy", f"{len(clip_ids)} motion maps")
    return dict(zip(clip_ids, motion, strict=True))


def _checked_root(root: Path | None) -> Path:
    root = BUNDLED if root is None else root
    manifest = root / "rendered.json"
    if not root.is_dir():
        raise FergcnError(
            f"{root}: found no such folder, expected a rendered dataset: "
            "check the path or render one"
        )
    if (root / "in-progress").exists() and not manifest.exists():
        raise FergcnError(
            f"{root}: found a rendering that was interrupted, expected a complete one: "
            "render it again with the same settings to go on"
        )
    if not manifest.exists():
        raise FergcnError(
            f"{root}: found no rendered.json, expected a rendered dataset: name its top folder"
        )
    try:
        found = json.loads(manifest.read_text())["format"]
    except (OSError, ValueError, KeyError, TypeError):
        raise _damaged(manifest, "settings in JSON") from None
    if found != FORMAT:
        raise FergcnError(
            f"{root}: found layout {found}, expected layout {FORMAT}: render it again or use the "
            "version of fergcn that rendered it"
        )
    return root


def _read_table(root: Path, name: str) -> list[dict[str, str]]:
    try:
        with (root / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        rows = []
    if not rows or None in rows[-1].values():
        raise _damaged(root / name, "a table")
    return rows


def _damaged(path: Path, expected: str) -> FergcnError:
    return FergcnError(
        f"{path}: found it missing or damaged, expected {expected}: "
        "copy or render the dataset again"
    )


def _clip(root: Path, row: dict[str, str], intensity: dict[str, list[float]]) -> Clip:
    try:
        suffix = ".jpg" if row["kind"] == "still" else ".mp4"
        return Clip(
            clip_id=row["clip_id"],
            subject_id=row["subject_id"],
            expression=row["expression"],
            path=root / "clips" / row["subject_id"] / f"{row['clip_id']}{suffix}",
            intensity=tuple(intensity[row["clip_id"]]),
            apex_index=int(row["apex_index"]) if row["apex_index"] else None,
            attributes={
                name: value if name in WORDS else float(value)
                for name, value in row.items()
                if name not in IDENTIFIERS
            },
        )
    except (KeyError, ValueError):
        raise _damaged(root / "clips.csv", "one row per clip") from None
