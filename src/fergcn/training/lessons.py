"""What clips can teach besides the name of their expression, from tables with a row for each.

Another network's probabilities; and what a renderer knows, facial actions and where points of the
face are: a backbone that has to tell how far the jaw is open and the brows are raised looks at what
real faces share with rendered ones.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fergcn.clips import Clip
from fergcn.expressions import FergcnError
from fergcn.model import FERGCN
from fergcn.training.config import TrainConfig

MIN_DEVIATION = 0.03
"""What differs less than that from clip to clip (standard deviation) is not taught."""

LEAST_SPREAD = 0.0025
"""Points that hardly move are told to no more than this, in sides of the picture."""

Maps = Callable[[Sequence[int], int], NDArray[np.float64]]
"""Tells where the pictures of clips go in an epoch: `(B, 2, 3)`, see `transforms.wild_map`."""


class LessonLearner(nn.Module):
    """A network that also tells what `Lessons` teach, by a linear layer that no checkpoint keeps.

    Args:
        model: the network.
        num_outputs: how many numbers it is to tell.
    """

    def __init__(self, model: FERGCN, num_outputs: int) -> None:
        super().__init__()
        self.model = model
        self.layer = nn.Linear(model.backbone_dim, num_outputs)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Classify clips and tell what else is seen in them.

        Args:
            frames: `(B, N, 3, H, W)`, as the network takes them.

        Returns:
            Logits `(B, num_classes)` and what is told `(B, num_outputs)`, the mean over the frames.
        """
        model = self.model
        features = model.backbone_features(frames.flatten(0, 1))  # (B·N, C)
        nodes = model.projection(model.dropout(features)).view(*frames.shape[:2], -1)
        told: Tensor = self.layer(features).view(*frames.shape[:2], -1).mean(dim=1)
        return model.head(nodes), told


class Lessons:
    """What a renderer knows about the training clips, epoch by epoch.

    Args:
        actions: `(clips, A)`, see `read_actions`; the same in every epoch.
        points: `(clips, 2, P, 2)`, see `read_points`; they move with the picture.
        maps: where the pictures go.

    Attributes:
        widths: how many numbers each lesson has: actions, positions of points, their shifts.
    """

    def __init__(
        self,
        actions: NDArray[np.float32] | None,
        points: NDArray[np.float32] | None,
        maps: Maps,
    ) -> None:
        self.actions, self.points, self.maps = actions, points, maps
        self.widths = () if actions is None else (actions.shape[1],)
        if points is not None:
            self.widths += (2 * points.shape[2],) * 2
            known = np.flatnonzero(np.isfinite(points).all(axis=(1, 2, 3))).tolist()
            seen = seen_points(points[known], maps(known, 0))  # what is usual, from one epoch
            self.usual, self.spread = seen.mean(axis=0), seen.std(axis=0).clip(min=LEAST_SPREAD)

    def shown(self, rows: NDArray[np.int64], epoch: int) -> list[Tensor]:
        """What is seen of some clips: of each lesson `(B, width)`, rows of NaN where unknown."""
        lessons = []
        if self.actions is not None:
            lessons.append(self.actions[rows])
        if self.points is not None:
            seen = seen_points(self.points[rows], self.maps(rows.tolist(), epoch))
            standard = ((seen - self.usual) / self.spread).astype(np.float32)
            lessons += [
                standard[:, 0].reshape(len(rows), -1),
                standard[:, 1].reshape(len(rows), -1),
            ]
        return [torch.from_numpy(lesson) for lesson in lessons]


def read_taught(
    config: TrainConfig, clips: Sequence[Clip], expressions: tuple[str, ...]
) -> dict[str, NDArray[np.float32]]:
    """Read the tables that a training's settings name.

    Returns:
        Those of `soft_labels`, `actions` and `points` that are wanted, by these names, as
        `read_soft_labels`, `read_actions` and `read_points` give them.

    Raises:
        FergcnError: as these do.
    """
    taught = {}
    if config.soft_labels is not None:
        taught["soft_labels"] = read_soft_labels(Path(config.soft_labels), clips, expressions)
    if config.actions is not None:
        taught["actions"] = read_actions(Path(config.actions), clips)
    if config.points is not None:
        taught["points"] = read_points(Path(config.points), clips)
    return taught


def lesson_loss(told: Tensor, shown: Sequence[Tensor]) -> Tensor:
    """Mean squared error of each lesson, added up.

    Args:
        told: `(B, num_outputs)`, the lessons one after the other.
        shown: of each lesson `(B, width)`; a row of NaN is not known and counts as 0.
    """
    parts = torch.split(told.float(), [lesson.shape[1] for lesson in shown], dim=1)
    losses = []
    for part, lesson in zip(parts, shown, strict=True):
        known = torch.isfinite(lesson)
        losses.append(torch.where(known, part - lesson.nan_to_num(), 0.0).square().mean())
    return torch.stack(losses).sum()


def _rows_of_clips(path: Path, table: pd.DataFrame, clips: Sequence[Clip]) -> pd.DataFrame:
    """Rows `(len(clips), columns)` of a file's table with `clip_id`; of NaN for clips not in it."""
    table = table.drop_duplicates("clip_id").set_index("clip_id")
    counts = Counter(clip.clip_id for clip in clips)
    for clip_id in table.index:
        if counts[clip_id] > 1:  # of two datasets: which one the row is about is not known
            raise FergcnError(
                f"{path}: found a row for {clip_id}, the name of {counts[clip_id]} training clips, "
                "expected one: train on datasets whose names differ"
            )
    return table.reindex([clip.clip_id for clip in clips])


def read_actions(path: Path, clips: Sequence[Clip]) -> NDArray[np.float32]:
    """Read what the faces of the training clips do.

    A mirrored picture has the same target: of an action that both sides can do, it is the mean of
    both and how much they differ.

    Args:
        path: a table with `clip_id` and a column for each action, as `fergcn render` writes it for
            the kind `still`.
        clips: the training clips.

    Returns:
        `(len(clips), A)` of the A targets that vary, each with mean 0 and standard deviation 1;
        rows of NaN for clips that are not in the table.

    Raises:
        FergcnError: the file is no such table, tells nothing of the clips, or two of the clips have
            the same row.
    """
    try:
        values = _without_sides(
            _rows_of_clips(path, pd.read_csv(path), clips).astype(np.float64)
        ).to_numpy()
        known = values[np.isfinite(values).all(axis=1)]
        varies = known.std(axis=0) > MIN_DEVIATION if len(known) else np.zeros(1, bool)
        if not varies.any():
            raise ValueError
    except (OSError, ValueError, KeyError):
        raise FergcnError(
            f"{path}: found no facial actions of these clips, expected a table with clip_id and a "
            "column for each action: make it with fergcn render --kinds still"
        ) from None
    standard = (values[:, varies] - known[:, varies].mean(axis=0)) / known[:, varies].std(axis=0)
    actions: NDArray[np.float32] = standard.astype(np.float32)
    return actions


def _without_sides(table: pd.DataFrame) -> pd.DataFrame:
    """Replace …Left and …Right by their mean and their difference."""
    columns = {}
    for name in table.columns:
        base = name.removesuffix("Left").removesuffix("Right")
        left, right = f"{base}Left", f"{base}Right"
        if base == name or not {left, right} <= set(table.columns):
            columns[name] = table[name]
        elif name == left:
            columns[base] = (table[left] + table[right]) / 2
            columns[f"{base} difference"] = (table[left] - table[right]).abs()
    return pd.DataFrame(columns)


def read_points(path: Path, clips: Sequence[Clip]) -> NDArray[np.float32]:
    """Read where points of the faces are in the training clips.

    Args:
        path: arrays `clip_id` `(n,)` and `points` `(n, 2, P, 2)`, as `fergcn render` writes them
            for the kind `still`: x and y of each point, 0–1 of the picture, and how far facial
            actions have moved it; the second half of the points mirrors the first.
        clips: the training clips.

    Returns:
        `(len(clips), 2, P, 2)`; NaN for clips that are not in the file.

    Raises:
        FergcnError: the file holds no such arrays, tells nothing of the clips, or two of the clips
            have the same row.
    """
    try:
        with np.load(path) as arrays:
            clip_ids, points = arrays["clip_id"], arrays["points"]
        with np.errstate(over="ignore"):  # what is too large is not finite then
            points = points.astype(np.float32)
        _, sides, num_points, axes = points.shape
        if (sides, num_points % 2, axes) != (2, 0, 2) or not np.isfinite(points).all():
            raise ValueError
        table = pd.DataFrame(points.reshape(len(points), -1)).assign(clip_id=clip_ids)
        if not set(clip_ids.tolist()) & {clip.clip_id for clip in clips}:
            raise ValueError
    except Exception:  # numpy and zlib raise whatever damaged bytes lead them to
        raise FergcnError(
            f"{path}: found no points of these clips' faces, expected arrays clip_id and points: "
            "make them with fergcn render --kinds still"
        ) from None
    rows = _rows_of_clips(path, table, clips)
    placed: NDArray[np.float32] = rows.to_numpy(np.float32).reshape(-1, 2, num_points, 2)
    return placed


def seen_points(points: NDArray[np.float32], maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move points with their pictures; a mirrored face's left points are its right ones.

    Args:
        points: `(B, 2, P, 2)`, see `read_points`.
        maps: `(B, 2, 3)`, see `transforms.wild_map`.

    Returns:
        `(B, 2, P, 2)`.
    """
    seen: NDArray[np.float64] = np.einsum("bij,bspj->bspi", maps[:, :, :2], points)
    seen[:, 0] += maps[:, None, :, 2]
    mirrored = np.linalg.det(maps[:, :, :2]) < 0
    seen[mirrored] = np.roll(seen[mirrored], points.shape[2] // 2, axis=2)
    return seen


def read_soft_labels(
    path: Path, clips: Sequence[Clip], expressions: tuple[str, ...]
) -> NDArray[np.float32]:
    """Read what another network says of the training clips.

    Args:
        path: a table with `clip_id` and a probability column for each expression that it knows.
        clips: the training clips.
        expressions: the classes, in order; those without a column get 0.

    Returns:
        `(len(clips), len(expressions))`; each row adds up to 1, or to 0 where the table has no
        answer to the clip.

    Raises:
        FergcnError: the file is no such table, or two of the clips have the same row.
    """
    try:
        answers = _rows_of_clips(path, pd.read_csv(path), clips).reindex(columns=list(expressions))
        probs: NDArray[np.float32] = answers.astype(np.float64).fillna(0).to_numpy(np.float32)
        if not ((probs >= 0) & (probs <= 1)).all() or not probs.any():
            raise ValueError
    except (OSError, ValueError, KeyError):
        raise FergcnError(
            f"{path}: found no probabilities for these clips, expected a table with clip_id and a "
            "column for each expression: make it with fergcn evaluate --json"
        ) from None
    probs /= np.maximum(probs.sum(axis=1, keepdims=True), 1e-6)
    return probs


def soft_loss(logits: Tensor, soft_labels: Tensor) -> Tensor:
    """Cross-entropy to another network's probabilities, over the clips that it has answered.

    Args:
        logits: `(B, classes)`.
        soft_labels: `(B, classes)`; a row of zeros has no answer and counts as 0.

    Returns:
        The mean over all B clips.
    """
    return -(soft_labels * logits.float().log_softmax(1)).sum(1).mean()
