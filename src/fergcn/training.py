"""The training loop: from clips to a checkpoint, resumable with the same result."""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

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
from fergcn.clips import Clip, load_clip
from fergcn.expressions import FergcnError, sort_expressions
from fergcn.features import (
    VIEWS,
    FeatureClassifier,
    clip_fingerprint,
    dataset_features,
    distinct_frames,
)
from fergcn.lessons import (
    LessonLearner,
    Lessons,
    lesson_loss,
    read_actions,
    read_points,
    read_soft_labels,
    soft_loss,
)
from fergcn.model import (
    FERGCN,
    ModelConfig,
    Network,
    create_network,
    last_layer,
)
from fergcn.pairs import neutral_partners, with_movement
from fergcn.styles import mix_styles
from fergcn.transforms import (
    augment_clip,
    augment_wild,
    draw_augmentation,
    eval_transform,
    wild_map,
)

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

SAVE_EVERY_S = 30.0
"""A killed run loses at most this much, and the epoch that it was in."""


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained; the defaults are the paper's (Section IV.B)."""

    epochs: int = 120
    """Passes over the training clips. The last epoch is the result: none is chosen by its score."""
    batch_size: int = 4
    """Clips in a step, on each device."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """The paper's SGD, or AdamW."""
    learning_rate: float = 1e-3
    """Step size."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate over the run: the paper's constant one, or one warm-up epoch, then a cosine."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 5e-5
    """L2 penalty."""
    resize: int = 256
    """Side to which face crops are resized, in pixels."""
    crop: int = 224
    """Side of the random crop (centre crop when evaluating), in pixels."""
    illumination: float = 0.2
    """Brightness and contrast of a clip change by at most this share."""
    augmentation: Literal["paper", "wild"] = "paper"
    """The paper's crop, flip and light (IV.B), or what pictures from anywhere need: also turned,
    scaled, grey, tinted, coarse, partly covered and noisy."""
    balance: float = 0.0
    """How far rare expressions, and people with few clips, are drawn more often: 0 draws every
    clip once an epoch, 1 every expression equally often."""
    rare_shift: float = 0.0
    """How far the trained network leans towards rare expressions: each logit is raised by this
    many times minus the logarithm of its share of the training clips (Menon et al. 2021)."""
    anneal_dropout: bool = False
    """The share of features that is left out falls in a straight line, to nothing at the end of
    the run (annealed dropout, Rennie et al. 2014)."""
    label_smoothing: float = 0.0
    """Share of the target that all classes get alike."""
    neutral_pairs: float = 0.0
    """How often a single picture of an expression whose person is known neutral, too, becomes a
    clip in which it comes or goes; between the features of both, so the backbone must be frozen."""
    soft_labels: str | None = None
    """Table of another network's probabilities, `clip_id` and one column for each expression, as
    `fergcn evaluate` writes it; the network is to say the same of the clips that are in it."""
    soft_share: float = 1.0
    """Weight of that loss beside the one of the labels."""
    actions: str | None = None
    """Table of facial actions, as `fergcn render` writes it for the kind `still`; the backbone is
    to tell these, too."""
    points: str | None = None
    """Arrays of points of the face, as `fergcn render` writes them for the kind `still`; the
    backbone is to tell where they are and how far actions have moved them."""
    mix_styles: float = 0.0
    """How often a frame's early features take on contrast and tint of another one's in the batch,
    at each of two depths (MixStyle, Zhou et al. 2021): the network has to look at other things."""
    freeze_backbone: bool = False
    """Train projection and head only, on backbone features that are computed once."""
    init: str | None = None
    """Checkpoint whose backbone is the start, instead of ImageNet's."""
    seed: int = 0
    """Of the initial weights, the order of the clips and their augmentation."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Full precision, or automatic mixed precision."""
    accelerator: str = "auto"
    """Kind of device, as Lightning names it: auto, cpu, cuda, mps."""
    devices: int = 1
    """Number of devices that share each step."""
    num_workers: int = 0
    """Processes that decode and augment clips."""
    half: bool = False
    """Store the checkpoint's weights as float16, in half the space."""
    tensorboard: bool = False
    """Also log for TensorBoard."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "resize", "crop", "devices"):
            if (value := getattr(self, name)) < 1:
                raise FergcnError(f"found {name}={value}, expected at least 1: raise it")
        for name in ("balance", "label_smoothing", "rare_shift", "neutral_pairs", "mix_styles"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise FergcnError(f"found {name}={share}, expected 0 to 1: choose one between")
        if self.neutral_pairs and not self.freeze_backbone:
            raise FergcnError(
                f"found neutral_pairs={self.neutral_pairs} and a backbone that is trained, "
                "expected one whose features stay: add --freeze-backbone"
            )
        for name in ("actions", "points"):
            if getattr(self, name) is not None and self.freeze_backbone:
                raise FergcnError(
                    f"found {name}={getattr(self, name)} and a backbone that stays, expected one "
                    f"that learns: leave --freeze-backbone or --{name} out"
                )
        if self.mix_styles and self.freeze_backbone:
            raise FergcnError(
                f"found mix_styles={self.mix_styles} and a backbone that stays, expected one that "
                "learns: leave --freeze-backbone or --mix-styles out"
            )
        if self.points is not None and self.augmentation != "wild":
            raise FergcnError(
                f"found points={self.points} and the augmentation {self.augmentation}, expected "
                "one that tells where points go: pass --augmentation wild"
            )
        if self.crop > self.resize:
            raise FergcnError(
                f"found crop={self.crop} above resize={self.resize}: crop at most what is resized"
            )


def require_fit(model_config: ModelConfig, config: TrainConfig) -> None:
    """Refuse settings of training that the network can't follow.

    Raises:
        FergcnError: `config` asks for a backbone or a dropout where the network has none.
    """
    per_frame = {
        "freeze_backbone": config.freeze_backbone,
        "init": config.init is not None,
        "actions": config.actions is not None,
        "points": config.points is not None,
        "mix_styles": config.mix_styles > 0,
        "anneal_dropout": config.anneal_dropout,
    }
    if model_config.network == "r3d-18" and any(per_frame.values()):
        name = next(name for name, asked in per_frame.items() if asked)
        raise FergcnError(
            f"found {name} with r3d-18, expected a network with frame features: "
            f"leave --{name.replace('_', '-')} out"
        )
    if config.anneal_dropout and not model_config.feature_dropout:
        raise FergcnError(
            "found anneal_dropout and feature_dropout=0, expected more: add --feature-dropout 0.5"
        )


def build_model(model_config: ModelConfig, config: TrainConfig) -> Network:
    """Make the network that training starts from, the same for the same seed.

    Raises:
        FergcnError: `config.init` is no checkpoint or has another backbone, the backbone's name
            is unknown, its pretrained weights can't be had, or as `require_fit`.
    """
    require_fit(model_config, config)
    torch.manual_seed(config.seed)
    try:
        if config.init is None:
            return create_network(model_config)
        model = FERGCN(replace(model_config, pretrained=False))
    except (ValueError, OSError) as error:
        raise FergcnError(str(error)) from None
    start = load_checkpoint(config.init).model
    if not isinstance(start, FERGCN):
        raise FergcnError(
            f"{config.init}: found {start.config.network}, which has no backbone for single "
            "frames, expected a network that has one: name another checkpoint"
        )
    if (model_config.backbone, start.config.backbone) == ("face_pair", "face_resnet"):
        try:
            model = FERGCN(model_config)  # the other half as published
        except OSError as error:
            raise FergcnError(str(error)) from None
        half = model.backbone.get_submodule("face_resnet")
        half.load_state_dict(start.backbone.state_dict())
        return model
    if start.config.backbone != model_config.backbone:
        raise FergcnError(
            f"{config.init}: found the backbone {start.config.backbone}, expected "
            f"{model_config.backbone}: pass --backbone {start.config.backbone}"
        )
    model.backbone.load_state_dict(start.backbone.state_dict())
    return model


def run_fingerprint(settings: Mapping[str, Any]) -> str:
    """Hash of everything that decides a run's result, 16 hexadecimal digits."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def people_digests(clips: Sequence[Clip]) -> set[str]:
    """Short hashes of the people in clips: who was trained on can be checked, but not read."""
    return {hashlib.sha256(clip.subject_id.encode()).hexdigest()[:8] for clip in clips}


def dataset_expressions(clips: Sequence[Clip]) -> tuple[str, ...]:
    """The expressions that occur, in the order of `fergcn.EXPRESSIONS`."""
    return sort_expressions({clip.expression for clip in clips})


def encode_targets(clips: Sequence[Clip], expressions: tuple[str, ...]) -> NDArray[np.int64]:
    """Class index of each clip, `(len(clips),)`.

    Raises:
        FergcnError: a clip has an expression that is not among them.
    """
    if unknown := {clip.expression for clip in clips} - set(expressions):
        raise FergcnError(
            f"found clips of {', '.join(sorted(unknown))}, expected {', '.join(expressions)}: "
            "use a checkpoint that knows them, or name those to score with --expressions"
        )
    return np.array([expressions.index(clip.expression) for clip in clips], dtype=np.int64)


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


def train_model(
    clips: Sequence[Clip],
    run_dir: Path,
    model_config: ModelConfig,
    config: TrainConfig,
    features: NDArray[np.float32] | None = None,
    metadata: Mapping[str, Any] | None = None,
    on_progress: Progress = lambda _what, _done, _total: None,
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
    soft_labels = None
    if config.soft_labels is not None:
        answers = read_soft_labels(Path(config.soft_labels), clips, expressions)
        settings["soft_labels"] = hashlib.sha256(answers.tobytes()).hexdigest()[:16]
        soft_labels = torch.from_numpy(answers)
    shown = {}
    if config.actions is not None:
        shown["actions"] = read_actions(Path(config.actions), clips)
    if config.points is not None:
        shown["points"] = read_points(Path(config.points), clips)
    for name, values in shown.items():
        settings[name] = hashlib.sha256(values.tobytes()).hexdigest()[:16]
    fingerprint = run_fingerprint(settings)
    checkpoint_dir = run_dir / "checkpoint"
    state_path = run_dir / "state.safetensors"
    if _is_complete(run_dir, settings):
        return checkpoint_dir
    fabric = _launch_fabric(config, run_dir)
    model = build_model(model_config, config)
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
    lessons = None
    if shown:
        assert isinstance(model, FERGCN)  # build_model has refused others
        lessons = Lessons(shown.get("actions"), shown.get("points"), partial(_wild_maps, config))
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
    trained_parameters = [p for p in trained.parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(
            trained_parameters,
            config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        if config.optimizer == "sgd"
        else torch.optim.AdamW(
            trained_parameters, config.learning_rate, weight_decay=config.weight_decay
        )
    )
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
            steps = _feature_batches(features, targets, batches, partners, chance, config, epoch)
        else:
            steps = _frame_batches(clips, targets, batches, model_config.num_frames, config, epoch)
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
                rows = torch.from_numpy(batches[step])
                softened = soft_loss(logits, soft_labels[rows].to(logits.device))
                loss = loss + config.soft_share * softened
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
    shift = -amount * np.log(counts / counts.max())
    shifted = copy.deepcopy(model)
    bias = last_layer(shifted).bias
    with torch.no_grad():
        bias.add_(torch.from_numpy(shift).to(bias))
    return shifted


def predict_probs(
    model: Network,
    clips: Sequence[Clip],
    resize: int,
    crop: int,
    on_progress: Progress = lambda _what, _done, _total: None,
    classes: Sequence[int] | None = None,
    on_features: Callable[[Tensor], None] = lambda _features: None,
    mirrored: bool = False,
) -> NDArray[np.float32]:
    """Probabilities of whole clips.

    Args:
        model: a trained network, in evaluation mode.
        clips: what to classify.
        resize: side to which faces are resized, in pixels.
        crop: side of the centre crop, in pixels.
        on_progress: told about clips.
        classes: indices of the classes to choose from; all if left out.
        on_features: given the frame features `(N, d)` of each clip, where the network has some.
        mirrored: those of a single picture, or of frames that are all the same, are the mean of
            its own and its mirror image's.

    Returns:
        `(len(clips), num_classes)` or one column for each of `classes`; each row adds up to 1.

    Raises:
        FergcnError: a clip can't be read.
    """
    columns = list(range(model.config.num_classes) if classes is None else classes)
    probs = np.empty((len(clips), len(columns)), dtype=np.float32)
    with torch.inference_mode():
        for index, clip in enumerate(clips):
            faces = load_clip(clip, model.config.num_frames)
            # Softmax over some of the logits: the same as probabilities made to add up to 1 again.
            logits = _clip_logits(model, faces, resize, crop, on_features, mirrored)
            probs[index] = logits[columns].softmax(0).cpu().numpy()
            on_progress("clips", index + 1, len(clips))
    return probs


def _clip_logits(
    model: Network,
    faces: NDArray[np.uint8],
    resize: int,
    crop: int,
    on_features: Callable[[Tensor], None],
    mirrored: bool,
) -> Tensor:
    """Logits `(num_classes,)` of one clip's faces `(N, H, W, 3)`."""
    device = next(model.parameters()).device
    if not isinstance(model, FERGCN):
        logits: Tensor = model(eval_transform(faces, resize, crop).to(device)[None])[0]
        return logits
    distinct, position = distinct_frames(faces)
    frames = eval_transform(distinct, resize, crop).to(device)
    features = model.frame_features(frames)
    if mirrored and len(distinct) == 1:
        features = (features + model.frame_features(frames.flip(-1))) / 2
    features = features[torch.from_numpy(position)]  # (N, d)
    on_features(features)
    logits = model.head(features[None])[0]
    return logits


def predict_feature_probs(
    model: FERGCN,
    features: NDArray[np.float32],
    batch_size: int = 256,
    on_features: Callable[[Tensor], None] = lambda _features: None,
) -> NDArray[np.float32]:
    """Probabilities from backbone features `(clips, N, C)`, as `predict_probs` gives them.

    `on_features` is given the frame features `(B, N, d)` of each batch of clips.
    """
    device = next(model.parameters()).device
    probs = np.empty((len(features), model.config.num_classes), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(features), batch_size):
            rows = slice(start, start + batch_size)
            projected = model.projection(torch.from_numpy(features[rows].copy()).to(device))
            on_features(projected)
            probs[rows] = model.head(projected).float().softmax(1).cpu().numpy()
    return probs


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


def _wild_maps(config: TrainConfig, rows: Sequence[int], epoch: int) -> NDArray[np.float64]:
    """Where an epoch's pictures of clips go, `(len(rows), 2, 3)`."""
    keys = [(config.seed, epoch, row) for row in rows]  # those of AugmentedClips
    return np.stack([wild_map(key, config.resize, config.crop) for key in keys])


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


def _feature_batches(
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


def _frame_batches(
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
