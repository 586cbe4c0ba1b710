"""What clips can teach besides the name of their expression, from tables with a row for each.

Another network's probabilities; and the facial actions that a renderer knows: a backbone that has
to tell how far the jaw is open and the brows are raised looks at what real faces share with
rendered ones.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fergcn.clips import Clip
from fergcn.expressions import FergcnError
from fergcn.model import FERGCN

MIN_DEVIATION = 0.03
"""What differs less than that from clip to clip (standard deviation) is not taught."""


class ActionLearner(nn.Module):
    """A network that also tells facial actions, by a linear layer that no checkpoint keeps.

    Args:
        model: the network.
        num_actions: number of actions.
    """

    def __init__(self, model: FERGCN, num_actions: int) -> None:
        super().__init__()
        self.model = model
        self.layer = nn.Linear(model.backbone_dim, num_actions)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Classify clips and tell their actions.

        Args:
            frames: `(B, N, 3, H, W)`, as the network takes them.

        Returns:
            Logits `(B, num_classes)` and actions `(B, num_actions)`, the mean over the frames.
        """
        model = self.model
        features = model.backbone_features(frames.flatten(0, 1))  # (B·N, C)
        nodes = model.projection(model.dropout(features)).view(*frames.shape[:2], -1)
        actions: Tensor = self.layer(features).view(*frames.shape[:2], -1).mean(dim=1)
        return model.head(nodes), actions


def _rows_of_clips(path: Path, clips: Sequence[Clip]) -> pd.DataFrame:
    """Rows `(len(clips), columns)` of a table with `clip_id`; of NaN for clips not in it."""
    table = pd.read_csv(path).drop_duplicates("clip_id").set_index("clip_id")
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
        values = _without_sides(_rows_of_clips(path, clips).astype(np.float64)).to_numpy()
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


def action_loss(told: Tensor, shown: Tensor) -> Tensor:
    """Mean squared error of the actions that are known.

    Args:
        told: `(B, A)`.
        shown: `(B, A)`; a row of NaN is not known and counts as 0.
    """
    known = torch.isfinite(shown)
    return torch.where(known, told.float() - shown.nan_to_num(), 0.0).square().mean()


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
        answers = _rows_of_clips(path, clips).reindex(columns=list(expressions))
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
