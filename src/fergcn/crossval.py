"""Cross-validation: one run a fold, three selection rules, pooled scores.

A run's folder holds `run.json` (what was run), `clips.csv` (the clips and their folds),
`seed_0/fold_00/ …` (each fold's log, checkpoint, adjacency and probabilities of every epoch),
`predictions.csv` and `summary.json`.
"""

import csv
import json
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from dataclasses import replace as changed
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fergcn.clips import Clip, dataset_expressions, encode_targets
from fergcn.explain import frame_scores, summarize_claims, weight_claims
from fergcn.expressions import FergcnError
from fergcn.features import clip_fingerprint, dataset_features
from fergcn.files import write_json
from fergcn.folds import Protocol, Split, assign_folds, split_clips
from fergcn.metrics import Scores, Statistic, bootstrap_interval, score
from fergcn.model import FERGCN, ModelConfig, Network
from fergcn.prediction import predict_feature_probs, predict_probs
from fergcn.progress import Progress, silent
from fergcn.training.config import TrainConfig, require_fit
from fergcn.training.loop import build_model, train_model
from fergcn.workers import end_with

FORMAT = 1
"""Version of a run's folder."""

RULES = ("last", "validation", "best-on-test")
"""How the epoch that counts is chosen: the last one; the best on inner validation subjects; the
best on the test fold, which is no honest result and only serves comparison."""

STATISTICS: tuple[Statistic, ...] = ("accuracy", "uar", "macro_f1")


@dataclass(frozen=True)
class CrossvalResult:
    """What a cross-validation gave."""

    expressions: tuple[str, ...]
    """Classes in order."""
    predictions: pd.DataFrame
    """One row a seed and clip: seed, fold, clip_id, subject_id, target, the prediction of each
    rule (empty where the clip shows no face), and the last epoch's probability of each class."""
    summary: dict[str, Any]
    """What `summary.json` holds: scores of each rule; under `intensity_claims` how well the fusion
    `weights` and the frames' `intensity` follow the truth, where a network has them and it is
    known (`fergcn.explain.summarize_claims`)."""
    scores: dict[str, Scores]
    """Pooled scores of each rule over folds and seeds."""


def crossvalidate(
    clips: Sequence[Clip],
    run_dir: Path,
    model_config: ModelConfig,
    config: TrainConfig,
    protocol: Protocol | None = None,
    about: dict[str, Any] | None = None,
    workers: int = 1,
    on_progress: Progress = silent,
) -> CrossvalResult:
    """Train and test a network once for each seed and fold.

    A fold that is complete is not run again, and one that was stopped goes on where it was, also
    when other seeds are asked for: the result is of those that are. Clips without any face are not
    trained on and count as errors in their test fold.

    Args:
        clips: the dataset.
        run_dir: the run's folder.
        model_config: the network.
        config: how to train; its seed gives way to the protocol's.
        protocol: folds, validation subjects and seeds.
        about: what `run.json` should tell besides, as JSON values: `dataset`, `root`.
        workers: folds that run at the same time, each in a process of its own, on its own GPU
            where there are several.
        on_progress: told about epochs over all folds, and what goes on before.

    Raises:
        FergcnError: the clips don't allow the protocol, the network the settings, the folder holds
            another run, or a clip can't be read.
    """
    protocol = protocol or Protocol()
    require_fit(model_config, config)
    if protocol.shuffle_frames and config.neutral_pairs:
        raise FergcnError(
            "found shuffle_frames and neutral_pairs, expected one of them: pairs have frames in "
            "their order; leave --neutral-pairs out"
        )
    if protocol.shuffle_frames and not config.freeze_backbone:
        raise FergcnError(
            "found --shuffle-frames for a whole network, expected it with features that are "
            "computed once: add --freeze-backbone"
        )
    if config.devices > 1:
        raise FergcnError(
            f"found devices={config.devices}, expected 1 in a cross-validation: leave --devices "
            "out and let --workers share the GPUs"
        )
    fold_of_clip = assign_folds(clips, protocol)
    expressions = dataset_expressions(clips)
    test_folds = sorted(set(fold_of_clip.tolist()) - {-1})
    splits = {
        fold: split_clips(clips, fold_of_clip, fold, protocol.validation) for fold in test_folds
    }
    with_face = np.array([clip.has_frames() for clip in clips])
    if not with_face.any():
        raise FergcnError("found no clip with a face, expected some: prepare the dataset again")
    run = _begin(
        run_dir, clips, fold_of_clip, expressions, model_config, config, protocol, about or {}
    )

    tasks = []
    for seed in protocol.seeds:
        seeded = changed(config, seed=seed)
        features_path = None
        if config.freeze_backbone and not _is_seed_complete(run_dir, seed, test_folds):
            features_path = _features(clips, with_face, model_config, seeded, on_progress)
        tasks += [
            FoldTask(
                clips=clips,
                expressions=expressions,
                split=splits[fold],
                with_face=with_face,
                directory=_fold_dir(run_dir, seed, fold),
                model_config=model_config,
                config=seeded,
                features_path=features_path,
                shuffle_frames=protocol.shuffle_frames,
                random_labels=protocol.random_labels,
                metadata={**(about or {}), "fold": fold, "protocol": asdict(protocol)},
            )
            for fold in test_folds
        ]
    total = len(tasks) * config.epochs
    _run_tasks(tasks, workers, lambda done: on_progress("epochs of all folds", done, total))

    result = _collect(clips, fold_of_clip, expressions, tasks, protocol, test_folds)
    write_json(run_dir / "run.json", run)
    result.predictions.to_csv(run_dir / "predictions.csv", index=False)
    write_json(run_dir / "summary.json", result.summary)
    return result


def _begin(
    run_dir: Path,
    clips: Sequence[Clip],
    fold_of_clip: NDArray[np.int64],
    expressions: tuple[str, ...],
    model_config: ModelConfig,
    config: TrainConfig,
    protocol: Protocol,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Write down what is run, or check that the folder holds the same, but for other seeds.

    Returns:
        What `run.json` has to hold once the seeds asked for have run.
    """
    run = {
        "format": FORMAT,
        **about,
        "model": asdict(model_config),
        "training": asdict(config),
        "protocol": asdict(protocol),
        "expressions": list(expressions),
        "data": clip_fingerprint(clips),
    }
    path = run_dir / "run.json"
    if path.exists():
        try:
            found = json.loads(path.read_text())
        except ValueError:
            found = None
        if not isinstance(found, dict):
            found = {}
        if found.get("format") != FORMAT:
            raise FergcnError(
                f"{run_dir}: found a run of layout {found.get('format')}, expected layout "
                f"{FORMAT}: name another folder"
            )
        # Where the data lies may change; what they are may not.
        expected = json.loads(json.dumps(run))
        ours, theirs = _without_seeds(expected), _without_seeds(found)
        different = [key for key in ours if key != "root" and theirs.get(key) != ours[key]]
        if different:
            raise FergcnError(
                f"{run_dir}: found a run with another {' and '.join(different)}, expected none or "
                "the same: name another folder or delete this one"
            )
        return {**found, "protocol": expected["protocol"], "training": expected["training"]}
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["clip_id", "subject_id", "fold", "expression"])
        for clip, fold in zip(clips, fold_of_clip, strict=True):
            writer.writerow([clip.clip_id, clip.subject_id, fold, clip.expression])
    run |= {"fergcn_version": version("fergcn")}
    write_json(path, run)
    return run


def _without_seeds(run: dict[str, Any]) -> dict[str, Any]:
    """What has to be the same: seeds run apart from each other."""
    apart = {"training": "seed", "protocol": "seeds"}
    return {
        key: {name: value for name, value in part.items() if name != apart[key]}
        if key in apart and isinstance(part, dict)
        else part
        for key, part in run.items()
    }


def _fold_dir(run_dir: Path, seed: int, fold: int) -> Path:
    return run_dir / f"seed_{seed}" / f"fold_{fold:02d}"


def _is_seed_complete(run_dir: Path, seed: int, folds: Sequence[int]) -> bool:
    return all((_fold_dir(run_dir, seed, fold) / "checkpoint").is_dir() for fold in folds)


def _features(
    clips: Sequence[Clip],
    with_face: NDArray[np.bool_],
    model_config: ModelConfig,
    config: TrainConfig,
    on_progress: Progress,
) -> Path:
    """Compute the backbone's features of all clips that have a face, and say where they lie."""
    model = build_model(model_config, config).eval()
    assert isinstance(model, FERGCN)  # build_model refuses to freeze others
    features: Any = dataset_features(
        model,
        [clip for clip, has in zip(clips, with_face, strict=True) if has],
        config.resize,
        config.crop,
        lambda done, total: on_progress("features", done, total),
    )
    return Path(features.filename)


# --- one fold ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoldTask:
    """All that a process needs to train and test one fold."""

    clips: Sequence[Clip]
    expressions: tuple[str, ...]
    split: Split
    with_face: NDArray[np.bool_]
    """`(len(clips),)`"""
    directory: Path
    model_config: ModelConfig
    config: TrainConfig
    features_path: Path | None
    """Features of the clips with a face, where the backbone is frozen."""
    shuffle_frames: bool = False
    random_labels: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)

    def answered(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those rows whose clips have a face."""
        return rows[self.with_face[rows]]


def run_fold(task: FoldTask, on_epoch: Callable[[int], None] = lambda _epoch: None) -> None:
    """Train one fold; keep the probabilities and the adjacency matrix of every epoch.

    Writes `probs.npy`, `(epochs, validation clips + test clips, classes)`, `adjacency.npy`,
    `(epochs + 1, N, N)`, and, of networks that have them, `weights.npy` and `intensity.npy`, the
    last epoch's `fergcn.explain.frame_scores` of the same clips, beside what `train_model` writes.

    Args:
        task: the fold.
        on_epoch: told the number of epochs that are done.
    """
    epochs = task.config.epochs
    if (task.directory / "checkpoint").is_dir():
        on_epoch(epochs)
        return
    train = task.answered(task.split.train)
    watched = np.concatenate([task.answered(task.split.validation), task.answered(task.split.test)])
    watched_clips = [task.clips[row] for row in watched.tolist()]
    train_clips = [task.clips[row] for row in train.tolist()]
    if task.random_labels:
        order = np.random.default_rng([task.config.seed, 0, 2]).permutation(len(train_clips))
        train_clips = [
            changed(clip, expression=train_clips[other].expression)
            for clip, other in zip(train_clips, order.tolist(), strict=True)
        ]
    train_features = watched_features = shuffled = None
    if task.features_path is not None:
        features = np.load(task.features_path, mmap_mode="r")  # (views, clips with a face, N, C)
        column = np.cumsum(task.with_face) - 1
        train_features = features[:, column[train]]
        watched_features = features[0, column[watched]]
        if task.shuffle_frames:
            in_order = np.tile(np.arange(features.shape[2]), (len(task.clips), 1))
            rng = np.random.default_rng([task.config.seed, 0, 3])
            shuffled = rng.permuted(in_order, axis=1)  # (clips, N)
            rows = shuffled[train][None, :, :, None]
            train_features = np.take_along_axis(train_features, rows, axis=2)
            rows = shuffled[watched][:, :, None]
            watched_features = np.take_along_axis(watched_features, rows, axis=1)
    task.directory.mkdir(parents=True, exist_ok=True)
    shape = (epochs, len(watched), len(task.expressions))
    probs = _open_array(task.directory / "probs.npy", shape)

    def watch(epoch: int, model: Network) -> None:
        model.eval()
        adjacency = getattr(model.head, "adjacency", None) if hasattr(model, "head") else None
        if adjacency is not None:
            matrices = _open_array(task.directory / "adjacency.npy", (epochs + 1, *adjacency.shape))
            matrices[epoch] = adjacency.detach().cpu().numpy()
            matrices.flush()
        if epoch > 0:
            last: list[dict[str, NDArray[np.float64]]] = []  # of batches or clips

            def look(projected: torch.Tensor) -> None:
                if epoch == epochs:
                    assert isinstance(model, FERGCN)  # others have no features
                    batch = projected if projected.dim() == 3 else projected[None]
                    last.append(frame_scores(model.head, batch))

            if watched_features is not None:
                assert isinstance(model, FERGCN)  # build_model refuses to freeze others
                probs[epoch - 1] = predict_feature_probs(model, watched_features, on_features=look)
            else:
                config = task.config
                probs[epoch - 1] = predict_probs(
                    model, watched_clips, config.resize, config.crop, on_features=look
                )
            probs.flush()
            order = None if shuffled is None else shuffled[watched]
            _write_frame_scores(task.directory, last, order)
        on_epoch(epoch)

    train_model(
        train_clips,
        task.directory,
        task.model_config,
        task.config,
        train_features,
        task.metadata,
        expressions=task.expressions,
        on_epoch=watch,
    )


def _write_frame_scores(
    directory: Path,
    batches: Sequence[dict[str, NDArray[np.float64]]],
    shuffled: NDArray[np.int64] | None,
) -> None:
    """Write what the network says of each frame, each value at its frame's true place."""
    for name in batches[0] if batches else ():
        values = np.concatenate([batch[name] for batch in batches])
        if shuffled is not None:
            np.put_along_axis(values, shuffled, values.copy(), axis=1)
        np.save(directory / f"{name}.npy", values)


def _open_array(path: Path, shape: tuple[int, ...]) -> "np.memmap[Any, np.dtype[np.float32]]":
    """Open an array on disk, new and full of NaN where there is none of this shape."""
    if path.exists():
        try:
            array = np.lib.format.open_memmap(path, "r+")
        except ValueError:  # it was being written when the run was killed
            array = None
        if array is not None and array.shape == shape:
            return array
    array = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    array[:] = np.nan
    return array


# --- many folds ----------------------------------------------------------------------------------


def _run_tasks(tasks: Sequence[FoldTask], workers: int, report: Callable[[int], None]) -> None:
    """Run folds, telling the number of epochs done over all of them."""
    if workers <= 1 or len(tasks) <= 1:
        before = 0
        for task in tasks:

            def report_all(epoch: int, before: int = before) -> None:
                report(before + epoch)

            run_fold(task, report_all)
            before += task.config.epochs
        return
    # spawned, not forked: a fork of a process with threads can hang
    context = get_context("spawn")
    workers = min(workers, len(tasks))
    epochs = context.Array("i", len(tasks))
    started = context.Value("i", 0)
    # Only this process holds the writing end: folds end with it, however it ends. They resume.
    lifeline, writing_end = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        workers,
        mp_context=context,
        initializer=_start_worker,
        initargs=(epochs, started, workers, lifeline),
    )
    try:
        pending = {pool.submit(_run_task, index, task) for index, task in enumerate(tasks)}
        while pending:
            finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()
            report(sum(epochs[:]))
    except BrokenProcessPool:
        raise FergcnError(
            "found that the process of a fold was killed, perhaps for lack of memory: run the same "
            "command again to go on, with fewer workers"
        ) from None
    finally:
        writing_end.close()
        pool.shutdown(cancel_futures=True)
        lifeline.close()


_epochs: Any = None  # of a worker: shared array, epochs done in each task


def _start_worker(epochs: Any, started: Any, workers: int, lifeline: Connection) -> None:
    global _epochs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    end_with(lifeline)
    _epochs = epochs
    with started.get_lock():
        number = started.value
        started.value += 1
    if gpus := torch.cuda.device_count():
        os.environ["CUDA_VISIBLE_DEVICES"] = str(number % gpus)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


def _run_task(index: int, task: FoldTask) -> None:
    def report(epoch: int) -> None:
        _epochs[index] = epoch

    run_fold(task, report)


# --- scores --------------------------------------------------------------------------------------


def choose_epochs(
    validation_probs: NDArray[np.float32],
    validation_targets: NDArray[np.int64],
    test_probs: NDArray[np.float32],
    test_targets: NDArray[np.int64],
) -> dict[str, int | None]:
    """Choose the epoch that counts by each of `RULES`.

    On the validation subjects the highest accuracy wins, among equals the lowest cross-entropy,
    among those the earliest epoch; on the test fold the highest accuracy, the earliest.

    Args:
        validation_probs: `(epochs, n, classes)`; n may be 0.
        validation_targets: `(n,)` class indices.
        test_probs: `(epochs, m, classes)`; m may be 0.
        test_targets: `(m,)` class indices.

    Returns:
        Index of the epoch for each rule; None for validation without clips.
    """
    epochs = len(test_probs)
    chosen: dict[str, int | None] = {"last": epochs - 1, "validation": None}
    if len(validation_targets):
        right = (validation_probs.argmax(2) == validation_targets).mean(1)  # (epochs,)
        of_truth = validation_probs[:, np.arange(len(validation_targets)), validation_targets]
        loss = -np.log(np.maximum(of_truth, 1e-12).astype(np.float64)).mean(1)
        loss = loss.round(9)  # the order of the clips makes no difference
        chosen["validation"] = int(np.lexsort((np.arange(epochs), loss, -right))[0])
    right = (test_probs.argmax(2) == test_targets).sum(1)
    chosen["best-on-test"] = int(right.argmax())
    return chosen


def _collect(
    clips: Sequence[Clip],
    fold_of_clip: NDArray[np.int64],
    expressions: tuple[str, ...],
    tasks: Sequence[FoldTask],
    protocol: Protocol,
    test_folds: Sequence[int],
) -> CrossvalResult:
    """Read what the folds left and pool it."""
    targets = encode_targets(clips, expressions)
    tested = np.flatnonzero(fold_of_clip >= 0)
    tables = []
    for seed_index, seed in enumerate(protocol.seeds):
        predicted = {rule: np.full(len(clips), -1) for rule in RULES}
        probs = np.full((len(clips), len(expressions)), np.nan, dtype=np.float32)
        for position in range(len(test_folds)):
            task = tasks[seed_index * len(test_folds) + position]
            validation, test = task.answered(task.split.validation), task.answered(task.split.test)
            fold_probs = _read_probs(task, len(validation) + len(test))
            on_validation, on_test = np.split(fold_probs, [len(validation)], axis=1)
            epochs = choose_epochs(on_validation, targets[validation], on_test, targets[test])
            for rule, epoch in epochs.items():
                if epoch is not None:
                    predicted[rule][test] = on_test[epoch].argmax(1)
            probs[test] = on_test[-1]
        names = np.array([*expressions, ""])  # index -1: no answer
        tables.append(
            pd.DataFrame(
                {
                    "seed": seed,
                    "fold": fold_of_clip[tested],
                    "clip_id": [clips[row].clip_id for row in tested.tolist()],
                    "subject_id": [clips[row].subject_id for row in tested.tolist()],
                    "target": names[targets[tested]],
                    "prediction": names[predicted["last"][tested]],
                    "prediction_validation": names[predicted["validation"][tested]],
                    "prediction_best_on_test": names[predicted["best-on-test"][tested]],
                    **{name: probs[tested, index] for index, name in enumerate(expressions)},
                }
            )
        )
    claims = {}
    for name in ("weights", "intensity"):
        if (found := _read_frame_scores(tasks, name)) is not None:
            claims[name] = found
    predictions = pd.concat(tables, ignore_index=True)
    scores: dict[str, Scores] = {}
    rules: dict[str, dict[str, Any] | None] = {}
    for rule, column in zip(
        RULES, ("prediction", "prediction_validation", "prediction_best_on_test"), strict=True
    ):
        if rule == "validation" and not protocol.validation:
            rules[rule] = None
            continue
        scores[rule], rules[rule] = _score_rule(predictions, column, expressions)
    summary = {
        "expressions": list(expressions),
        "num_clips": len(tested),
        "num_subjects": int(predictions["subject_id"].nunique()),
        "unanswered": int((~tasks[0].with_face[tested]).sum()),
        "rules": rules,
        "intensity_claims": claims,
    }
    return CrossvalResult(expressions, predictions, summary, scores)


def _read_probs(task: FoldTask, watched: int) -> NDArray[np.float32]:
    path = task.directory / "probs.npy"
    try:
        probs: NDArray[np.float32] = np.load(path)
        complete = probs.shape[:2] == (task.config.epochs, watched) and not np.isnan(probs).any()
    except (OSError, ValueError):
        complete = False
    if not complete:
        raise FergcnError(
            f"{path}: found it missing or incomplete, expected the probabilities of every epoch: "
            f"delete {task.directory} and run the same command again"
        )
    return probs


def _read_frame_scores(tasks: Sequence[FoldTask], name: str) -> dict[str, Any] | None:
    """Compare what the networks say of the frames of their test clips with the truth."""
    scores, clips = [], []
    for task in tasks:
        path = task.directory / f"{name}.npy"
        if not path.exists():
            return None
        test = task.answered(task.split.test)
        scores.append(np.load(path)[len(task.answered(task.split.validation)) :])
        clips += [task.clips[row] for row in test.tolist()]
    claims = weight_claims(np.concatenate(scores), clips)
    return None if claims is None else summarize_claims(claims)


def _score_rule(
    predictions: pd.DataFrame, column: str, expressions: tuple[str, ...]
) -> tuple[Scores, dict[str, Any]]:
    """Scores of one rule, pooled over folds and seeds, with intervals over subjects."""
    index = {name: number for number, name in enumerate(expressions)} | {"": -1}
    targets = predictions["target"].map(index).to_numpy().astype(np.int64)
    answers = predictions[column].map(index).to_numpy().astype(np.int64)
    pooled = score(targets, answers, expressions)
    right = pd.Series(targets == answers)
    folds = right.groupby([predictions["seed"], predictions["fold"]]).mean()
    by_seed = {
        seed: score(targets[rows], answers[rows], expressions)
        for seed in predictions["seed"].unique().tolist()
        for rows in [(predictions["seed"] == seed).to_numpy()]
    }
    subjects = predictions["subject_id"].tolist()
    return pooled, {
        "fold_accuracies": [folds[seed].tolist() for seed in by_seed],
        "mean_of_folds": float(folds.mean()),
        **{name: getattr(pooled, name) for name in STATISTICS},
        **{
            f"{name}_ci": list(bootstrap_interval(targets, answers, subjects, name))
            for name in STATISTICS
        },
        "per_seed": {
            str(seed): {name: getattr(scores, name) for name in STATISTICS}
            for seed, scores in by_seed.items()
        },
        "confusion": pooled.confusion.tolist(),
    }
