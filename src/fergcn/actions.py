"""A second lesson for the backbone: which facial actions a rendered face shows.

What a renderer knows about a picture is more than its expression. A network that has to tell how
far the jaw is open and the brows are raised looks at what real faces share with rendered ones.
"""

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
"""Actions that differ less than that from clip to clip (standard deviation) are not taught."""


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


def read_actions(path: Path, clips: Sequence[Clip]) -> NDArray[np.float32]:
    """Read what the faces of the training clips do.

    Args:
        path: a table with `clip_id` and a column for each action, as `fergcn render` writes it for
            the kind `still`.
        clips: the training clips.

    Returns:
        `(len(clips), A)` of the A actions that occur, each with mean 0 and standard deviation 1;
        rows of NaN for clips that are not in the table.

    Raises:
        FergcnError: the file is no such table, or knows none of the clips.
    """
    try:
        table = pd.read_csv(path).drop_duplicates("clip_id").set_index("clip_id")
        values = table.reindex([clip.clip_id for clip in clips]).astype(np.float64).to_numpy()
        if not np.isfinite(values).any():
            raise ValueError
    except (OSError, ValueError, KeyError):
        raise FergcnError(
            f"{path}: found no facial actions of these clips, expected a table with clip_id and a "
            "column for each action: make it with fergcn render --kinds still"
        ) from None
    deviation = np.nanstd(values, axis=0)
    occurs = deviation > MIN_DEVIATION
    standard = (values[:, occurs] - np.nanmean(values[:, occurs], axis=0)) / deviation[occurs]
    actions: NDArray[np.float32] = standard.astype(np.float32)
    return actions


def action_loss(told: Tensor, shown: Tensor) -> Tensor:
    """Mean squared error of the actions that are known.

    Args:
        told: `(B, A)`.
        shown: `(B, A)`; a row of NaN is not known and counts as 0.
    """
    known = torch.isfinite(shown)
    return torch.where(known, told.float() - shown.nan_to_num(), 0.0).square().mean()
