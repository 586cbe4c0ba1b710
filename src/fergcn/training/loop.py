"""The training loop: from clips to a checkpoint, resumable with the same result."""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fergcn.checkpoint import (
    load_checkpoint,
    load_training_state,
    save_checkpoint,
    save_training_state,
)
from fergcn.clips import Clip, dataset_expressions, encode_targets, load_clip, people_digests
from fergcn.expressions import FergcnError
from fergcn.features import FeatureClassifier, clip_fingerprint, dataset_features
from fergcn.model import FERGCN, GraphHead, ModelConfig, Network, create_network, last_layer
from fergcn.model.face_networks import FaceMobileNet, settle_norms
from fergcn.progress import Progress, silent
from fergcn.training.batches import (
    epoch_batches,
    feature_batches,
    frame_batches,
    sampling_probs,
    wild_maps,
)
from fergcn.training.config import TrainConfig, require_fit
from fergcn.training.lessons import (
    LessonLearner,
    Lessons,
    lesson_loss,
    read_taught,
    soft_loss,
)
from fergcn.training.pairs import neutral_partners
from fergcn.training.styles import mix_styles
from fergcn.transforms import eval_transform

SAVE_EVERY_S = 30.0
"""A killed run loses at most this much, and the epoch that it was in."""

SETTLED_BY = 256
"""At most so many clips show a network, before training, what its norms will see."""


def build_model(model_config: ModelConfig, config: TrainConfig) -> Network:
    """Make the network that training starts from, the same for the same seed.

    Raises:
        FergcnError: `config.init` is no checkpoint or has another backbone, the backbone's name is
            unknown, its pretrained weights can't be had, or as `require_fit`.
    """
    require_fit(model_config, config)
    start: FERGCN | None = None
    if config.init is not None:
        found = load_checkpoint(config.init).model
        if not isinstance(found, FERGCN):
            raise FergcnError(
                f"{config.init}: found {found.config.network}, which has no backbone for single "
                "frames, expected a network that has one: name another checkpoint"
            )
        if found.config.backbone != model_config.backbone:
            raise FergcnError(
                f"{config.init}: found the backbone {found.config.backbone}, expected "
                f"{model_config.backbone}: pass --backbone {found.config.backbone} or another "
                "--init"
            )
        start = found
    torch.manual_seed(config.seed)  # loading a checkpoint has drawn numbers, too
    try:
        published = model_config.pretrained and start is None
        model = create_network(replace(model_config, pretrained=published))
    except (ValueError, OSError) as error:
        raise FergcnError(str(error)) from None
    if start is not None:
        assert isinstance(model, FERGCN)  # require_fit has refused others
        model.backbone.load_state_dict(start.backbone.state_dict())
    return model


def run_fingerprint(settings: Mapping[str, Any]) -> str:
    """Hash of everything that decides a run's result, 16 hexadecimal digits."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def train_model(
    clips: Sequence[Clip],
    run_dir: Path,
    model_config: ModelConfig,
    config: TrainConfig,
    features: NDArray[np.float32] | None = None,
    metadata: Mapping[str, Any] | None = None,
    on_progress: Progress = silent,
    expressions: tuple[str, ...] | None = None,
    on_epoch: Callable[[int, Network], None] = lambda _epoch, _model: None,
    sources: Sequence[int] | None = None,
) -> Path:
    """Train a network, or go on where an earlier call with the same settings was stopped.

    The result of a run that was killed and resumed is the same as that of one that was not: order
    and augmentation depend on seed and epoch alone, and weights and optimiser are saved.

    Args:
        clips: the training clips.
        run_dir: gets `log.csv`, `checkpoint/` and, while the run goes on, `state.safetensors`.
        model_config: the network; its classes are those of the clips' expressions.
        config: how to train.
        features: `(VIEWS, len(clips), N, C)` backbone features of these clips, where they are
            known already and the backbone is frozen.
        metadata: what the checkpoint should tell besides the settings, as JSON values.
        on_progress: told about epochs.
        expressions: the classes, where the clips need not hold every one; otherwise those that
            occur.
        on_epoch: called with the number of epochs done and the network: before the first one, and
            after each, with what the run would give if it ended there. An epoch that a kill undid
            comes again.
        sources: which dataset each clip is from, where there are several; see `sampling_probs`.

    Returns:
        The checkpoint's folder.

    Raises:
        FergcnError: the folder holds a run with other settings, a clip can't be read, or the
            settings don't fit the data.
    """
    expressions = expressions or dataset_expressions(clips)
    if len(expressions) != model_config.num_classes:
        raise FergcnError(
            f"found clips of {len(expressions)} expressions, expected {model_config.num_classes}: "
            "training clips must hold every class"
        )
    neutral = expressions.index("neutral") if "neutral" in expressions else None
    model_config = replace(model_config, neutral=neutral)
    settings = {
        "model": asdict(model_config),
        "training": asdict(config),
        "data": clip_fingerprint(clips),
    }
    taught = read_taught(config, clips, expressions)
    for name, values in taught.items():
        settings[name] = hashlib.sha256(values.tobytes()).hexdigest()[:16]
    fingerprint = run_fingerprint(settings)
    checkpoint_dir = run_dir / "checkpoint"
    state_path = run_dir / "state.safetensors"
    if _is_complete(run_dir, settings):
        return checkpoint_dir
    fabric = _launch_fabric(config, run_dir)
    model = build_model(model_config, config)
    if isinstance(model, FERGCN) and isinstance(model.backbone, FaceMobileNet) and not config.init:
        some = clips[:: -(-len(clips) // SETTLED_BY)]
        frames = [eval_transform(load_clip(clip, 1), config.resize, config.crop) for clip in some]
        settle_norms(model.backbone.eval(), torch.cat(frames))
    trained: nn.Module = model
    targets = encode_targets(clips, expressions)
    if config.freeze_backbone:
        assert isinstance(model, FERGCN)  # build_model has refused others
        model.requires_grad_(False)
        trained = FeatureClassifier(model).requires_grad_(True)
        if features is None:
            model.to(fabric.device).eval()
            features = dataset_features(
                model,
                clips,
                config.resize,
                config.crop,
                lambda done, total: on_progress("features", done, total),
            )
    if config.mix_styles:
        assert isinstance(model, FERGCN)  # build_model has refused others
        mix_styles(model.backbone, config.mix_styles)
    soft_labels = taught.get("soft_labels")
    lessons = None
    if {"actions", "points"} & taught.keys():
        assert isinstance(model, FERGCN)  # build_model has refused others
        lessons = Lessons(taught.get("actions"), taught.get("points"), partial(wild_maps, config))
        trained = LessonLearner(model, sum(lessons.widths))
    partners: dict[int, NDArray[np.int64]] = {}
    if features is not None and config.neutral_pairs:
        partners = neutral_partners(clips, features, sources)
        if not partners:
            raise FergcnError(
                f"found neutral_pairs={config.neutral_pairs} and nobody with single pictures of "
                "neutral and another expression, expected some: leave --neutral-pairs out"
            )
    # Only now: settings that can't be trained with must not keep the folder from better ones.
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
    optimizer = _make_optimizer(trained, config)
    first_epoch, history = 0, []
    if state_path.exists():
        state, info = load_training_state(state_path)
        if info["fingerprint"] != fingerprint:
            raise _other_run(run_dir)
        first_epoch, history = info["epoch"], info["history"]
        _restore(trained, optimizer, state)
    wrapped, wrapped_optimizer = fabric.setup(trained, optimizer)

    probs = sampling_probs(clips, config.balance, sources) if config.balance else None
    if first_epoch == 0:
        on_epoch(0, model)
    saved_at = time.monotonic()
    for epoch in range(first_epoch, config.epochs):
        on_progress("epochs", epoch, config.epochs)
        trained.train()
        # What is left out at random is the same in an epoch that comes again, and new in the next.
        torch.manual_seed(_epoch_seed(config.seed, epoch, fabric.global_rank))
        started = time.monotonic()
        batches = epoch_batches(
            len(clips), config, epoch, fabric.global_rank, fabric.world_size, probs
        )
        if features is not None:
            chance = np.random.default_rng([config.seed, epoch, 2, fabric.global_rank])
            steps = feature_batches(features, targets, batches, partners, chance, config, epoch)
        else:
            steps = frame_batches(clips, targets, batches, model_config.num_frames, config, epoch)
        totals = torch.zeros(3, dtype=torch.float64)  # loss, correct, clips
        for step, (inputs, labels) in enumerate(steps):
            _set_learning_rate(optimizer, config, epoch + step / len(batches))
            if config.anneal_dropout:
                assert isinstance(model, FERGCN)  # build_model has refused others
                left = 1 - (epoch + step / len(batches)) / config.epochs
                model.dropout.p = model_config.feature_dropout * left
            inputs, labels = fabric.to_device((inputs, labels))
            output = wrapped(inputs)
            logits = output if lessons is None else output[0]
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)
            if lessons is not None:
                seen = lessons.shown(batches[step], epoch)
                loss = loss + lesson_loss(output[1], [part.to(logits.device) for part in seen])
            if soft_labels is not None:
                answers = torch.from_numpy(soft_labels[batches[step]]).to(logits.device)
                loss = loss + config.soft_share * soft_loss(logits, answers)
            wrapped_optimizer.zero_grad()
            fabric.backward(loss)
            wrapped_optimizer.step()
            correct = (logits.argmax(1) == labels).sum()
            totals += torch.stack(
                [
                    loss.detach().double() * len(labels),
                    correct.double(),
                    correct.new_tensor(len(labels)).double(),
                ]
            ).cpu()
            if features is None:
                on_progress(f"epoch {epoch + 1}", step + 1, len(batches))
        totals = fabric.all_reduce(totals, reduce_op="sum")
        row = {
            "epoch": epoch + 1,
            "loss": float(totals[0] / totals[2]),
            "accuracy": float(totals[1] / totals[2]),
            "learning_rate": optimizer.param_groups[0]["lr"],
            "seconds": round(time.monotonic() - started, 3),
        }
        history.append(row)
        fabric.log_dict({k: v for k, v in row.items() if k != "epoch"}, step=epoch + 1)
        on_epoch(epoch + 1, shifted_to_rare(model, targets, config.rare_shift))
        last = epoch + 1 == config.epochs
        if fabric.is_global_zero and (last or time.monotonic() - saved_at > SAVE_EVERY_S):
            pd.DataFrame(history).to_csv(run_dir / "log.csv", index=False)
            info = {"fingerprint": fingerprint, "epoch": epoch + 1, "history": history}
            save_training_state(state_path, _state(trained, optimizer), info)
            saved_at = time.monotonic()
    on_progress("epochs", config.epochs, config.epochs)
    if fabric.is_global_zero:
        about = {"settings": settings, "fingerprint": fingerprint, **(metadata or {})}
        about["people"] = sorted(people_digests(clips))
        result = shifted_to_rare(model, targets, config.rare_shift)
        save_checkpoint(
            checkpoint_dir, result, expressions, config.resize, config.crop, about, config.half
        )
        state_path.unlink(missing_ok=True)
    fabric.barrier()
    return checkpoint_dir


def shifted_to_rare(model: Network, targets: NDArray[np.int64], amount: float) -> Network:
    """A network that leans towards rare expressions; the one given stays, for further epochs.

    Each logit is raised by `amount` times minus the logarithm of its share among the targets. The
    most frequent expression's stays; what all logits share changes no probability.
    """
    if not amount:
        return model
    # An expression that no clip shows counts as one that a single clip shows.
    counts = np.bincount(targets, minlength=model.config.num_classes).clip(min=1)
    shifted = copy.deepcopy(model)
    bias = last_layer(shifted).bias
    shift = torch.from_numpy(-amount * np.log(counts / counts.max())).to(bias)
    with torch.no_grad():
        bias.add_(shift)
        if shifted.config.per_clip:
            assert isinstance(shifted.head, GraphHead)
            shifted.head.shift.add_(shift)
    return shifted


def _is_complete(run_dir: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the run has ended before; a run with other settings is never overwritten."""
    path = run_dir / "settings.json"
    if not path.exists():
        return False
    try:
        same = json.loads(path.read_text()) == json.loads(json.dumps(settings))
    except ValueError:
        same = False
    if not same:
        raise _other_run(run_dir)
    return (run_dir / "checkpoint").is_dir()


def _other_run(run_dir: Path) -> FergcnError:
    return FergcnError(
        f"{run_dir}: found a run with other settings or data, expected none or the same: "
        "name another folder or delete this one"
    )


def _launch_fabric(config: TrainConfig, run_dir: Path) -> Any:
    from lightning.fabric import Fabric

    loggers: list[Any] = []
    if config.tensorboard:
        from lightning.fabric.loggers.tensorboard import TensorBoardLogger

        try:
            loggers.append(TensorBoardLogger(run_dir, name="tensorboard", version=""))
        except ModuleNotFoundError:
            raise FergcnError(
                "found no TensorBoard, expected it for --tensorboard: "
                "run pip install 'fergcn[tensorboard]'"
            ) from None
    fabric = Fabric(
        accelerator=config.accelerator,
        devices=config.devices,
        precision=config.precision,
        loggers=loggers,
    )
    fabric.launch()
    return fabric


def _epoch_seed(seed: int, epoch: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, 3, rank]).generate_state(1)[0])


def _make_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    parameters = [p for p in module.parameters() if p.requires_grad]
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=config.momentum, weight_decay=decay)
    return torch.optim.AdamW(parameters, rate, weight_decay=decay)


def _set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, at: float) -> None:
    """Set the step size for a moment of the run, counted in epochs."""
    factor = 1.0
    if config.schedule == "cosine":
        warm_up = min(1.0, config.epochs / 10)
        factor = (
            max(at, 0.02) / warm_up
            if at < warm_up
            else 0.5 * (1 + math.cos(math.pi * (at - warm_up) / (config.epochs - warm_up)))
        )
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * factor


def _state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights and optimiser as tensors by name."""
    state = {f"model.{name}": tensor for name, tensor in module.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{key}": slot for key, slot in slots.items()}
    return state


def _restore(module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """Undo `_state`."""
    weights: dict[str, Tensor] = {}
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        kind, rest = name.split(".", 1)
        if kind == "model":
            weights[rest] = tensor
        else:
            index, key = rest.split(".", 1)
            slots.setdefault(int(index), {})[key] = tensor
    module.load_state_dict(weights)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
