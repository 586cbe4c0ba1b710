"""What the trained networks of a run say about themselves, each on its own test clips only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from fergcn.checkpoint import load_checkpoint
from fergcn.clips import Clip, load_clip
from fergcn.datasets import load_dataset
from fergcn.datasets.rendered import load_motion
from fergcn.explain import (
    Heatmaps,
    WeightClaims,
    frame_contributions,
    heatmap_share,
    heatmaps,
    sampled_intensity,
    weight_claims,
)
from fergcn.expressions import FergcnError
from fergcn.model import FERGCN, IMAGENET_MEAN, IMAGENET_STD, GraphHead, intensity_weights
from fergcn.progress import Progress
from fergcn.report.figures import ExampleClip
from fergcn.report.runs import Run
from fergcn.transforms import eval_transform

Floats = NDArray[np.float64]
MAX_EXAMPLES = 3


@dataclass(frozen=True)
class Shares:
    """Share of each clip's heatmaps where its face really moves, mean over the frames."""

    subject_ids: list[str]
    before: Floats
    """`(clips,)`, of the features that enter the graph layer."""
    after: Floats
    """`(clips,)`, of the graph layer's outputs."""
    uniform: Floats
    """`(clips,)`, of a heatmap that is the same everywhere: the number to beat."""


def run_clips(run: Run) -> list[Clip]:
    """Read the clips of a run from their dataset.

    Raises:
        FergcnError: the dataset is not there any more, or its clips are others now.
    """
    root = run.settings.get("root")
    clips = load_dataset(run.dataset, None if root is None else Path(root))
    now = [(clip.clip_id, clip.subject_id, clip.expression) for clip in clips]
    then = run.clips[["clip_id", "subject_id", "expression"]].itertuples(index=False, name=None)
    if now != list(then):
        raise FergcnError(
            f"{run.directory}: found other clips in {run.dataset} than the run had, expected the "
            "same: run it again"
        )
    return clips


def run_weights(run: Run) -> Floats | None:
    """Intensity weights of the trained networks (Eq. 7), `(seeds · folds, N)`.

    Returns:
        None where the frames are not weighted by a learned A.
    """
    if run.settings["model"].get("fusion") != "intensity":
        return None
    history = run.adjacency()
    if history is None:
        return None
    # Where each module has its own A, the last one counts, as in the network.
    return np.stack([intensity_weights(torch.from_numpy(A)).numpy() for A in history[:, -1, -1]])


def run_weight_claims(run: Run, clips: Sequence[Clip], weights: Floats) -> WeightClaims | None:
    """Compare each network's weights with the truth of its own test clips, all seeds together."""
    folds = run.clips["fold"].to_numpy(dtype=np.int64)
    tested = np.flatnonzero(folds >= 0)
    rows = [seed * run.num_folds + folds[tested] for seed in range(len(run.seeds))]
    return weight_claims(
        weights[np.concatenate(rows)], [clips[row] for row in tested.tolist()] * len(run.seeds)
    )


def mean_intensity(clips: Sequence[Clip], num_frames: int) -> Floats | None:
    """Mean true intensity of the clips with an expression, `(N,)`; None where nobody knows it."""
    shown = [clip for clip in clips if clip.expression != "neutral"]
    known = [truth for c in shown if (truth := sampled_intensity(c, num_frames)) is not None]
    return np.mean(known, axis=0) if known else None


def choose_examples(predictions: pd.DataFrame) -> pd.DataFrame:
    """Choose clips to show: the surest right answer of each expression, the surest of these first.

    Args:
        predictions: rows of one seed, as `Run.predictions` gives them.

    Returns:
        At most `MAX_EXAMPLES` rows of different expressions, with the target's probability as
        `sure`. Neutral is left out: nothing moves there.
    """
    right = predictions[
        (predictions["target"] == predictions["prediction"]) & (predictions["target"] != "neutral")
    ]
    sure = [row[row["target"]] for row in right.to_dict("records")]
    ranked = right.assign(sure=np.array(sure, dtype=np.float64)).sort_values(
        ["sure", "clip_id"], ascending=[False, True], kind="stable"
    )
    return ranked.drop_duplicates("target").head(MAX_EXAMPLES)


def look_at_networks(
    run: Run, clips: Sequence[Clip], on_progress: Progress
) -> tuple[list[ExampleClip], Shares | None]:
    """Make heatmaps with the networks of the first seed.

    Every test clip is looked at where the dataset knows what moves, else the examples alone.

    Args:
        run: the run.
        clips: its clips.
        on_progress: told about clips.

    Returns:
        Clips to show, and how much of the heat lies where faces move, where that is known.

    Raises:
        FergcnError: a checkpoint or a clip can't be read, or the backbone has no maps.
    """
    root = run.settings.get("root")
    motion = {}
    if run.dataset.startswith("rendered"):
        motion = load_motion(None if root is None else Path(root))
    predictions = run.predictions()
    chosen = choose_examples(predictions[predictions["seed"] == run.seeds[0]])
    order = chosen["clip_id"].tolist()
    folds = run.clips["fold"].to_numpy(dtype=np.int64)
    wanted = [
        (int(folds[row]), clip)
        for row, clip in enumerate(clips)
        if folds[row] >= 0
        and (clip.clip_id in order or (clip.expression != "neutral" and clip.clip_id in motion))
    ]
    wanted.sort(key=lambda pair: pair[0])  # each network is loaded once
    directories = {fold: path for seed, fold, path in run.fold_dirs() if seed == run.seeds[0]}
    examples: dict[str, ExampleClip] = {}
    rows: list[tuple[str, float, float, float]] = []
    done = 0
    for fold, pairs in groupby(wanted, key=lambda pair: pair[0]):
        checkpoint = load_checkpoint(directories[fold] / "checkpoint")
        model = checkpoint.model
        if not isinstance(model, FERGCN):
            raise FergcnError(
                f"{run.name}: found {model.config.network}, expected a network with frame "
                "features: heatmaps need them"
            )
        for _, clip in pairs:
            on_progress(f"heatmaps of {run.name}", done, len(wanted))
            done += 1
            faces = load_clip(clip, model.config.num_frames)
            frames = eval_transform(faces, checkpoint.resize, checkpoint.crop)  # (N, 3, S, S)
            maps = heatmaps(model, frames)
            if clip.clip_id in motion and maps.after is not None:
                grid, extent = motion[clip.clip_id], checkpoint.crop / checkpoint.resize
                before, after, uniform = (
                    float(np.nanmean(heatmap_share(values, grid, extent)))
                    for values in (maps.before, maps.after, np.ones((1, 1, 1)))
                )
                rows.append((clip.subject_id, before, after, uniform))
            if clip.clip_id in order:
                target = checkpoint.expressions.index(clip.expression)
                examples[clip.clip_id] = _example(model, clip, frames, maps, target)
    on_progress(f"heatmaps of {run.name}", len(wanted), len(wanted))
    return [examples[clip_id] for clip_id in order], _shares(rows)


def _example(model: FERGCN, clip: Clip, frames: Tensor, maps: Heatmaps, target: int) -> ExampleClip:
    contributions = None
    if isinstance(model.head, GraphHead):
        with torch.inference_mode():
            features = model.frame_features(frames)
        contributions = frame_contributions(model.head, features)[0][:, target]
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    seen = ((frames * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    return ExampleClip(
        title=f"{clip.clip_id}: {clip.expression}",
        faces=seen.permute(0, 2, 3, 1).numpy(),
        heatmaps=maps,
        contributions=contributions,
    )


def _shares(rows: Sequence[tuple[str, float, float, float]]) -> Shares | None:
    rows = [row for row in rows if np.isfinite(row[1:]).all()]
    if not rows:
        return None
    values = np.array([row[1:] for row in rows])
    return Shares([row[0] for row in rows], values[:, 0], values[:, 1], values[:, 2])
