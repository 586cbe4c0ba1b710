"""Probabilities that say what they mean: one temperature, folded into the classifier."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fergcn.checkpoint import Checkpoint, save_checkpoint
from fergcn.clips import Clip, encode_targets, people_digests
from fergcn.expressions import FergcnError
from fergcn.folds import subject_folds
from fergcn.metrics import expected_calibration_error
from fergcn.model import GraphHead, Network, last_layer
from fergcn.prediction import predict_probs
from fergcn.progress import Progress, silent

TEMPERATURES = (0.05, 20.0)
"""Between these the temperature is looked for."""

SMALLEST = 1e-30
"""A probability that is 0 in float32 counts as this much."""


def fit_temperature(probs: NDArray[np.floating[Any]], targets: NDArray[np.int64]) -> float:
    """Find T so that `softmax(logits / T)` has the lowest cross-entropy (Guo et al. 2017).

    Args:
        probs: `(n, classes)` probabilities `softmax(logits)`; their logarithms are logits, too.
        targets: `(n,)` true class indices.

    Returns:
        T; above 1 the probabilities were too sure.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        of_truth = rescale(probs, float(np.exp(log_temperature)))[np.arange(len(targets)), targets]
        return float(-np.log(np.maximum(of_truth, SMALLEST)).mean())

    bounds = tuple(np.log(TEMPERATURES).tolist())
    result: Any = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-5})
    return float(np.exp(result.x))


def rescale(probs: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float64]:
    """Probabilities `(n, classes)` as they are with all logits divided by T."""
    logits = np.log(np.maximum(probs.astype(np.float64), SMALLEST)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return scaled


def calibrate_checkpoint(
    checkpoint: Checkpoint,
    clips: Sequence[Clip],
    directory: Path,
    dataset: str,
    hold_out: int | None = None,
    other_people: bool = False,
    on_progress: Progress = silent,
) -> dict[str, Any]:
    """Write a checkpoint whose probabilities are calibrated and whose answers are the same.

    Single pictures are seen from one side, as the frames of a video are. The temperature goes into
    the classifier's weights and bias, so that nothing is new when the checkpoint is used.

    Args:
        checkpoint: as it was trained.
        clips: aligned faces of people that it was not trained on; those without a face are left
            out.
        directory: the folder to write; must not exist.
        dataset: name of the clips' dataset.
        hold_out: the clips are those that `fergcn train --hold-out` left out with this number.
        other_people: the user says that the checkpoint was trained on nobody of them, where that
            can't be seen or people of two datasets have the same names.
        on_progress: told about clips.

    Returns:
        What the checkpoint's metadata says under `calibration`: `temperature`, `dataset`,
        `hold_out`, `count`, `num_subjects`, cross-entropy and expected calibration error `before`
        and `after`. The latter are cross-validated: each clip's temperature is fitted on other
        people.

    Raises:
        FergcnError: the checkpoint is calibrated already, may have seen these people, or the clips
            don't fit it; or the folder exists.
    """
    if directory.exists():
        raise FergcnError(f"{directory}: found it there already, expected none: choose another -o")
    if "calibration" in checkpoint.metadata:
        raise FergcnError(
            "found a checkpoint that is calibrated already, expected one as it was trained: "
            "calibrate that one"
        )
    clips = [clip for clip in clips if clip.has_frames()]
    if not other_people:
        require_other_people(checkpoint, clips, dataset, hold_out)
    targets = encode_targets(clips, checkpoint.expressions)
    subjects = [clip.subject_id for clip in clips]
    folds = subject_folds(subjects, min(5, max(2, len(set(subjects)))))
    probs = predict_probs(
        checkpoint.model, clips, checkpoint.resize, checkpoint.crop, on_progress
    ).astype(np.float64)
    after = np.empty_like(probs)
    for fold in range(folds.max() + 1):
        inside = folds == fold
        after[inside] = rescale(probs[inside], fit_temperature(probs[~inside], targets[~inside]))
    temperature = fit_temperature(probs, targets)
    about = {
        "temperature": temperature,
        "dataset": dataset,
        "hold_out": hold_out,
        "other_people": other_people,
        "count": len(clips),
        "num_subjects": len(set(subjects)),
        "before": _calibration(probs, targets),
        "after": _calibration(after, targets),
    }
    model = copy.deepcopy(checkpoint.model)
    divide_logits(model, temperature)
    metadata = {**checkpoint.metadata, "calibration": about, "uncalibrated": checkpoint.sha256}
    save_checkpoint(
        directory,
        model,
        checkpoint.expressions,
        checkpoint.resize,
        checkpoint.crop,
        metadata,
        checkpoint.half,
    )
    return about


def require_other_people(
    checkpoint: Checkpoint, clips: Sequence[Clip], dataset: str, hold_out: int | None
) -> None:
    """Refuse people that a checkpoint was trained on.

    Raises:
        FergcnError: it knows some of them, or it does not say whom it knows and it isn't clear from
            `hold_out` that it knows none of them.
    """
    metadata = checkpoint.metadata
    otherwise = "or say --other-people if they are others"
    if "people" in metadata:
        known = len(people_digests(clips) & set(metadata["people"]))
        if known:
            raise FergcnError(
                f"found {known} people that the checkpoint was trained on, expected none: keep "
                f"some aside with fergcn train --hold-out, and name the number here, {otherwise}"
            )
        return
    trained = (metadata.get("dataset"), metadata.get("hold_out"))
    if hold_out is None or trained != (dataset, hold_out):
        raise FergcnError(
            f"found --hold-out {hold_out} of {dataset} and a checkpoint trained on {trained[0]} "
            f"with --hold-out {trained[1]}, expected the same: it may have seen these people; "
            f"name those that were kept aside, {otherwise}"
        )


def divide_logits(model: Network, temperature: float) -> None:
    """Change a network so that all its logits are divided by T: its classifier is linear."""
    layer = last_layer(model)
    with torch.no_grad():
        layer.weight.div_(temperature)
        layer.bias.div_(temperature)
        if model.config.per_clip:
            assert isinstance(model.head, GraphHead)
            model.head.temperature.mul_(temperature)


def _calibration(probs: NDArray[np.float64], targets: NDArray[np.int64]) -> dict[str, float]:
    of_truth = np.maximum(probs[np.arange(len(targets)), targets], SMALLEST)
    return {
        "cross_entropy": float(-np.log(of_truth).mean()),
        "expected_calibration_error": expected_calibration_error(probs, targets),
    }
