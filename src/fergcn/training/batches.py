"""Which clips are in each step of an epoch, and what the network is shown of them.

All of it depends on seed and epoch alone, so that a run that goes on after a kill sees the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from fergcn.clips import Clip, load_clip
from fergcn.features import VIEWS
from fergcn.training.config import TrainConfig
from fergcn.training.pairs import with_movement
from fergcn.transforms import augment_clip, augment_wild, draw_augmentation, wild_map


def sampling_probs(
    clips: Sequence[Clip], balance: float, sources: Sequence[int] | None = None
) -> NDArray[np.float64]:
    """Probability of each clip to be drawn, by the rarity of its expression and its person.

    Args:
        clips: the training clips.
        balance: 0 draws all alike, 1 all expressions equally often. Someone with k clips is drawn
            k^(1 − balance/2) times as often as someone with one.
        sources: which dataset each clip is from; one without. Rarity counts within a dataset, and
            each keeps the share that its clips have.

    Returns:
        `(len(clips),)`, adding up to 1.
    """
    table = pd.DataFrame(
        {
            "source": 0 if sources is None else list(sources),
            "expression": [clip.expression for clip in clips],
            # A clip without a known person counts as a person of its own.
            "subject": [clip.subject_id or clip.clip_id for clip in clips],
        }
    )
    of_person = table.groupby(["source", "subject"])["expression"].transform("size")
    weight = of_person.astype(float) ** (-balance / 2)
    of_expression = weight.groupby([table["source"], table["expression"]]).transform("sum")
    weight *= of_expression**-balance
    by_source = weight.groupby(table["source"])
    probs = weight / by_source.transform("sum") * by_source.transform("size") / len(table)
    return probs.to_numpy()


def epoch_batches(
    num_clips: int,
    config: TrainConfig,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
    probs: NDArray[np.float64] | None = None,
) -> list[NDArray[np.int64]]:
    """Indices of the clips in each step of an epoch, for one of the devices.

    The order depends on seed and epoch alone. Every device gets the same number of steps: where
    the last one has fewer clips than devices, clips are used twice. With `probs`, as many clips
    are drawn with these probabilities, some more than once.
    """
    rng = np.random.default_rng([config.seed, epoch])
    order = (
        rng.permutation(num_clips) if probs is None else rng.choice(num_clips, num_clips, p=probs)
    )
    step = config.batch_size * world_size
    chunks = [order[start : start + step] for start in range(0, num_clips, step)]
    if len(chunks[-1]) < world_size:
        chunks[-1] = np.resize(order[::-1], world_size)
    return [chunk[rank::world_size] for chunk in chunks]


def feature_batches(
    features: NDArray[np.float32],
    targets: NDArray[np.int64],
    batches: Sequence[NDArray[np.int64]],
    partners: Mapping[int, NDArray[np.int64]],
    chance: np.random.Generator,
    config: TrainConfig,
    epoch: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield features `(B, N, C)` of a view drawn for each clip, and class indices `(B,)`."""
    views = np.random.default_rng([config.seed, epoch, 1]).integers(VIEWS, size=len(targets))
    for batch in batches:
        frames = with_movement(batch, views, features, partners, config.neutral_pairs, chance)
        yield torch.from_numpy(frames), torch.from_numpy(targets[batch])


def frame_batches(
    clips: Sequence[Clip],
    targets: NDArray[np.int64],
    batches: Sequence[NDArray[np.int64]],
    num_frames: int,
    config: TrainConfig,
    epoch: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield augmented frames `(B, N, 3, crop, crop)` and class indices `(B,)`."""
    dataset = AugmentedClips(clips, targets, num_frames, config)
    dataset.epoch = epoch
    loader: Any = torch.utils.data.DataLoader(
        dataset,
        batch_sampler=[batch.tolist() for batch in batches],
        num_workers=config.num_workers,
        pin_memory=torch.cuda.is_available(),
    )
    yield from loader


class AugmentedClips(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Clips decoded and augmented on demand: frames `(N, 3, crop, crop)` and class index."""

    def __init__(
        self,
        clips: Sequence[Clip],
        targets: NDArray[np.int64],
        num_frames: int,
        config: TrainConfig,
    ) -> None:
        self.clips, self.targets = clips, targets
        self.num_frames, self.config = num_frames, config
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        config = self.config
        faces = load_clip(self.clips[index], self.num_frames)
        key = (config.seed, self.epoch, index)
        if config.augmentation == "wild":
            frames = augment_wild(faces, key, config.resize, config.crop)
        else:
            draw = draw_augmentation(key, config.illumination)
            frames = augment_clip(faces, draw, config.resize, config.crop)
        return frames, int(self.targets[index])


def wild_maps(config: TrainConfig, rows: Sequence[int], epoch: int) -> NDArray[np.float64]:
    """Where an epoch's pictures of clips go, `(len(rows), 2, 3)`."""
    keys = [(config.seed, epoch, row) for row in rows]  # those of AugmentedClips
    return np.stack([wild_map(key, config.resize, config.crop) for key in keys])
