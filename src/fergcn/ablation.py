"""Variants of the network and other networks, run on the same folds and compared in pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fergcn.clips import Clip
from fergcn.crossval import CrossvalResult, crossvalidate
from fergcn.expressions import FergcnError
from fergcn.files import write_json
from fergcn.folds import Protocol
from fergcn.metrics import mcnemar, paired_difference
from fergcn.model import ModelConfig
from fergcn.progress import Progress, silent
from fergcn.training.config import TrainConfig

FORMAT = 1
"""Version of an ablation's folder."""

PAPER = "fer-gcn"
"""The full network of the paper, always run, with which every variant is compared by default."""

Variants = Mapping[str, Mapping[str, Any]]
"""What each variant changes in `ModelConfig`, by the variant's name."""

TABLE_V: Variants = {
    "modules-0": {"num_modules": 0},
    "modules-1": {"num_modules": 1, "fusion": "mean"},
    "modules-2": {"num_modules": 2, "fusion": "mean"},
    "modules-3": {"num_modules": 3, "fusion": "mean"},
}
"""Rows of the paper's Table V; its last row is the reference."""

OURS: Variants = {
    "adjacency-own": {"adjacency": "own"},
    "adjacency-fixed": {"adjacency": "identity"},
    "adjacency-per-clip": {"adjacency": "per_clip"},
    "temporal-concat": {"temporal": "concat"},
    "temporal-none": {"temporal": "none"},
    "fusion-mean": {"fusion": "mean"},
    "fusion-last": {"fusion": "last"},
    "frames-8": {"num_frames": 8},
    "frames-32": {"num_frames": 32},
}
"""Choices that the paper does not vary."""

COMPARATORS: Variants = {
    name: {"network": name}
    for name in ("frame-average", "cnn-bilstm", "frame-attention", "transformer", "r3d-18")
}
"""Other networks under the same folds, features and schedule."""

PER_CLIP = {"adjacency": "per_clip", "temporal": "none", "feature_dropout": 0.5}
"""Our network; the checkpoint in the package has it, with a given sharpness."""

EVIDENCE: Variants = {
    "per-clip": PER_CLIP,
    "temporal-none": OURS["temporal-none"],
    "temporal-none-dropout": {"temporal": "none", "feature_dropout": 0.5},
    "frame-average": COMPARATORS["frame-average"],
    "last-frame": {"num_modules": 0, "fusion": "last"},
    "cnn-bilstm": COMPARATORS["cnn-bilstm"],
    "frame-attention": COMPARATORS["frame-attention"],
    "transformer": COMPARATORS["transformer"],
}
"""What our network has to win against where the true intensity is known, and what of it does it."""

GROUPS: dict[str, Variants] = {
    "table-v": TABLE_V,
    "ours": OURS,
    "comparators": COMPARATORS,
    "evidence": EVIDENCE,
}


def ablate_clips(
    clips: Sequence[Clip],
    run_dir: Path,
    model_config: ModelConfig,
    config: TrainConfig,
    protocol: Protocol,
    groups: Mapping[str, Variants],
    about: dict[str, Any] | None = None,
    workers: int = 1,
    on_progress: Progress = silent,
    reference: str = PAPER,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Cross-validate the paper's network and every variant, and compare them over the same clips.

    Args:
        clips: the dataset.
        run_dir: gets one run's folder for each variant, and `ablation.json`.
        model_config: the paper's network, which the variants change.
        config: how all of them are trained.
        protocol: folds and seeds of all of them.
        groups: the variants, by the name of their table.
        about: as `crossvalidate` takes it.
        workers: folds that run at the same time.
        on_progress: told about variants and epochs.
        reference: the variant with which the others are compared.

    Returns:
        One row a variant (`variant`, `against`, `accuracy`, `uar`, `difference` of the accuracies
        with its 95 % interval over subjects in `difference_ci`, `p_mcnemar` of the first seed, and
        `intensity_claims` as in `CrossvalResult.summary`), the paper's network first; and the
        variants that could not be run, with the reason.

    Raises:
        FergcnError: as `crossvalidate`, for the paper's network and the reference, or the
            reference is none of the variants.
    """
    variants = {PAPER: {}, **{k: v for group in groups.values() for k, v in group.items()}}
    if reference not in variants:
        raise FergcnError(
            f"found the reference {reference}, expected one of {', '.join(variants)}: "
            "choose one of these or another group"
        )
    results: dict[str, CrossvalResult] = {}
    run_as: dict[ModelConfig, str] = {}  # variants of two tables may be the same network
    left_out: dict[str, str] = {}
    for number, (name, overrides) in enumerate(variants.items()):
        on_progress("variants", number, len(variants))
        varied = replace(model_config, **overrides)
        same = run_as.setdefault(varied, name)
        if same in results:
            results[name] = results[same]
            continue
        try:
            results[name] = crossvalidate(
                clips,
                run_dir / name,
                varied,
                config,
                protocol,
                {**(about or {}), "variant": name},
                workers,
                on_progress,
            )
        except FergcnError as error:
            if name in (PAPER, reference):
                raise
            left_out[name] = str(error)
    on_progress("variants", len(variants), len(variants))
    comparison = [_compare(name, result, reference, results) for name, result in results.items()]
    write_json(
        run_dir / "ablation.json",
        {
            "format": FORMAT,
            **(about or {}),
            "variants": {name: dict(overrides) for name, overrides in variants.items()},
            "groups": {name: [PAPER, *group] for name, group in groups.items()},
            "same_as": {name: run_as[replace(model_config, **variants[name])] for name in results},
            "left_out": left_out,
            "comparison": comparison,
        },
    )
    return comparison, left_out


def _compare(
    name: str, result: CrossvalResult, reference: str, results: Mapping[str, CrossvalResult]
) -> dict[str, Any]:
    table, against = result.predictions, results[reference].predictions
    scores = result.scores["last"]
    row = {
        "variant": name,
        "against": reference,
        "accuracy": scores.accuracy,
        "uar": scores.uar,
        "intensity_claims": result.summary["intensity_claims"],
    }
    if name == reference:
        return row
    right = (table["prediction"] == table["target"]).to_numpy()
    reference_right = (against["prediction"] == against["target"]).to_numpy()
    first = np.asarray(table["seed"] == table["seed"].iloc[0])  # seeds repeat the same clips
    difference, low, high = paired_difference(right, reference_right, table["subject_id"].tolist())
    return {
        **row,
        "difference": difference,
        "difference_ci": [low, high],
        "p_mcnemar": mcnemar(right[first], reference_right[first]),
    }
