"""Cross-validation: selection rules, resuming, parallel folds."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, recall_score

from conftest import tiny_config
from fergcn import subject_folds
from fergcn.ablation import GROUPS, ablate_clips
from fergcn.checkpoint import load_checkpoint
from fergcn.clips import Clip
from fergcn.crossval import CrossvalResult, choose_epochs, crossvalidate
from fergcn.expressions import FergcnError
from fergcn.folds import Protocol
from fergcn.prediction import predict_probs
from fergcn.training.config import TrainConfig
from fergcn.transforms import eval_transform
from test_training import FAST

FROZEN = replace(FAST, freeze_backbone=True)
THREE = Protocol(folds=3)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 5), st.integers(1, 5))
def test_epochs_are_chosen_as_a_loop_would(seed: int, epochs: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    # few distinct values, so that epochs are often equal
    validation = rng.choice([0.2, 0.8], (epochs, n, 2)).astype(np.float32)
    test = rng.choice([0.2, 0.8], (epochs, m, 2)).astype(np.float32)
    validation_targets, test_targets = rng.integers(2, size=n), rng.integers(2, size=m)
    chosen = choose_epochs(validation, validation_targets, test, test_targets)

    def right(probs: NDArray[np.float32], targets: NDArray[np.int64]) -> int:
        return sum(int(row.argmax()) == target for row, target in zip(probs, targets, strict=True))

    def loss(probs: NDArray[np.float32]) -> float:
        return -sum(
            np.log(row[target]) for row, target in zip(probs, validation_targets, strict=True)
        )

    assert chosen["last"] == epochs - 1
    best = max(range(epochs), key=lambda e: (right(test[e], test_targets), -e))
    assert chosen["best-on-test"] == best
    if n == 0:
        assert chosen["validation"] is None
    else:
        best = max(
            range(epochs),
            key=lambda e: (
                right(validation[e], validation_targets),
                round(-loss(validation[e]), 4),
                -e,
            ),
        )
        assert chosen["validation"] == best


@pytest.fixture(scope="module")
def result(
    coloured_clips: list[Clip], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, CrossvalResult]:
    run = tmp_path_factory.mktemp("crossval")
    protocol = replace(THREE, seeds=(0, 7))
    return run, crossvalidate(coloured_clips, run, tiny_config(), FROZEN, protocol)


def test_every_clip_is_tested_once_for_each_seed(
    result: tuple[Path, CrossvalResult], coloured_clips: list[Clip]
) -> None:
    run, crossval = result
    table = pd.read_csv(run / "predictions.csv")
    assert list(table["clip_id"]) == 2 * [clip.clip_id for clip in coloured_clips]
    assert set(table["seed"]) == {0, 7}
    assert table.groupby("subject_id")["fold"].nunique().max() == 1
    np.testing.assert_allclose(table[list(crossval.expressions)].sum(axis=1), 1, atol=1e-5)
    best = table[list(crossval.expressions)].idxmax(axis=1)
    assert (best == table["prediction"]).all()


def test_summary_is_what_scikit_learn_says_of_the_table(
    result: tuple[Path, CrossvalResult],
) -> None:
    run, _ = result
    table = pd.read_csv(run / "predictions.csv")
    rules = json.loads((run / "summary.json").read_text())["rules"]
    columns = {
        "last": "prediction",
        "validation": "prediction_validation",
        "best-on-test": "prediction_best_on_test",
    }
    for rule, column in columns.items():
        truth, answers, scores = table["target"], table[column], rules[rule]
        assert scores["accuracy"] == pytest.approx(accuracy_score(truth, answers))
        assert scores["uar"] == pytest.approx(recall_score(truth, answers, average="macro"))
        assert scores["macro_f1"] == pytest.approx(f1_score(truth, answers, average="macro"))
        assert scores["accuracy_ci"][0] <= scores["accuracy"] <= scores["accuracy_ci"][1]
        right = (truth == answers).groupby([table["seed"], table["fold"]]).mean()
        np.testing.assert_allclose(np.ravel(scores["fold_accuracies"]), right)
        assert scores["mean_of_folds"] == pytest.approx(right.mean())
        assert np.sum(scores["confusion"]) == len(table)
    assert rules["best-on-test"]["accuracy"] >= rules["last"]["accuracy"]


def test_frozen_and_whole_network_agree_on_the_test_folds(
    result: tuple[Path, CrossvalResult], coloured_clips: list[Clip]
) -> None:
    """The features that a fold trains on are the rows of its own clips."""
    run, crossval = result
    first = crossval.predictions[crossval.predictions["seed"] == 0]
    for fold in range(3):
        rows = (first["fold"] == fold).to_numpy()
        clips = [clip for clip, chosen in zip(coloured_clips, rows, strict=True) if chosen]
        checkpoint = load_checkpoint(run / "seed_0" / f"fold_{fold:02d}" / "checkpoint")
        np.testing.assert_allclose(
            first.loc[rows, list(crossval.expressions)],
            predict_probs(checkpoint.model, clips, 40, 32),
            atol=1e-4,
        )
        matrices = np.load(run / "seed_0" / f"fold_{fold:02d}" / "adjacency.npy")
        np.testing.assert_array_equal(matrices[0], np.eye(4))
        trained = checkpoint.model.head.adjacency.detach().numpy()
        np.testing.assert_array_equal(matrices[-1], trained)


def test_a_finished_run_is_read_and_a_lost_fold_is_run_again(
    result: tuple[Path, CrossvalResult], coloured_clips: list[Clip]
) -> None:
    run, crossval = result
    shutil.rmtree(run / "seed_7" / "fold_01")
    kept = (run / "seed_0" / "fold_01" / "log.csv").stat().st_mtime_ns
    protocol = replace(THREE, seeds=(0, 7))
    again = crossvalidate(coloured_clips, run, tiny_config(), FROZEN, protocol)
    pd.testing.assert_frame_equal(again.predictions, crossval.predictions)
    assert (run / "seed_0" / "fold_01" / "log.csv").stat().st_mtime_ns == kept


def test_further_seeds_join_a_run(
    result: tuple[Path, CrossvalResult], coloured_clips: list[Clip], tmp_path: Path
) -> None:
    _, both = result
    first = crossvalidate(coloured_clips, tmp_path, tiny_config(), FROZEN, THREE)
    kept = (tmp_path / "seed_0" / "fold_00" / "log.csv").stat().st_mtime_ns
    seeds = replace(THREE, seeds=(0, 7))
    more = crossvalidate(coloured_clips, tmp_path, tiny_config(), FROZEN, seeds)
    assert len(more.predictions) == 2 * len(first.predictions)
    pd.testing.assert_frame_equal(more.predictions, both.predictions)
    assert (tmp_path / "seed_0" / "fold_00" / "log.csv").stat().st_mtime_ns == kept
    assert json.loads((tmp_path / "run.json").read_text())["protocol"]["seeds"] == [0, 7]
    config = replace(FROZEN, seed=5)  # gives way to those of the protocol
    again = crossvalidate(coloured_clips, tmp_path, tiny_config(), config, THREE)
    pd.testing.assert_frame_equal(again.predictions, first.predictions)


def test_a_stopped_run_of_further_seeds_leaves_the_result_readable(
    coloured_clips: list[Clip], tmp_path: Path
) -> None:
    crossvalidate(coloured_clips, tmp_path, tiny_config(), FROZEN, THREE)
    about = (tmp_path / "run.json").read_bytes()

    def stop(what: str, done: int, total: int | None) -> None:
        if "epochs" in what and done > 3 * FROZEN.epochs:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crossvalidate(
            *(coloured_clips, tmp_path, tiny_config(), FROZEN),
            replace(THREE, seeds=(0, 7)),
            on_progress=stop,
        )
    assert (tmp_path / "run.json").read_bytes() == about


def test_a_stopped_fold_goes_on_with_the_same_result(
    result: tuple[Path, CrossvalResult],
    coloured_clips: list[Clip],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fergcn.training.loop.SAVE_EVERY_S", 0.0)

    def stop_in_second_fold(what: str, done: int, total: int) -> None:
        if what == "epochs of all folds" and done == FROZEN.epochs + 2:
            raise KeyboardInterrupt

    run, _ = result
    arguments = (coloured_clips, tmp_path, tiny_config(), FROZEN, THREE)
    with pytest.raises(KeyboardInterrupt):
        crossvalidate(*arguments, on_progress=stop_in_second_fold)
    assert not (tmp_path / "summary.json").exists()
    crossvalidate(*arguments)
    for name in ("probs.npy", "adjacency.npy"):
        for fold in range(3):
            path = Path("seed_0") / f"fold_{fold:02d}" / name
            np.testing.assert_array_equal(np.load(tmp_path / path), np.load(run / path))


def test_folds_in_processes_give_the_same_predictions(
    result: tuple[Path, CrossvalResult], coloured_clips: list[Clip], tmp_path: Path
) -> None:
    _, crossval = result
    reported: list[int] = []

    def remember(what: str, done: int, total: int) -> None:
        if what == "epochs of all folds":
            reported.append(done)

    parallel = crossvalidate(
        coloured_clips, tmp_path, tiny_config(), FROZEN, THREE, None, 2, remember
    )
    first = crossval.predictions[crossval.predictions["seed"] == 0]
    pd.testing.assert_frame_equal(parallel.predictions, first, atol=1e-4)
    assert reported[-1] == 3 * FROZEN.epochs


def _train_for_long(clips: list[Clip], run: Path) -> None:
    config = replace(FROZEN, epochs=100_000)
    crossvalidate(clips, run, tiny_config(), config, THREE, None, 2)


def test_folds_end_with_a_run_that_is_killed(coloured_clips: list[Clip], tmp_path: Path) -> None:
    caller = get_context("spawn").Process(target=_train_for_long, args=(coloured_clips, tmp_path))
    caller.start()
    folds = [tmp_path / "seed_0" / f"fold_{fold:02d}" / "probs.npy" for fold in range(2)]
    while not all(path.exists() for path in folds):
        assert caller.is_alive()
        time.sleep(0.1)
    below = Path(f"/proc/{caller.pid}/task/{caller.pid}/children").read_text().split()
    assert len(below) >= 2
    caller.kill()
    caller.join()
    deadline = time.monotonic() + 20
    while any(_is_running(pid) for pid in below):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _is_running(pid: str) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("config", [FROZEN, FAST], ids=["frozen", "whole"])
def test_clips_without_a_face_count_as_errors(
    coloured_clips: list[Clip], tmp_path: Path, config: TrainConfig
) -> None:
    np.save(tmp_path / "none.npy", np.zeros((0, 48, 48, 3), np.uint8))
    faceless = [Clip(f"faceless{i}", f"S{i:03d}", "anger", tmp_path / "none.npy") for i in range(3)]
    clips = [*faceless[:1], *coloured_clips, *faceless[1:]]
    config = replace(config, epochs=1)
    crossval = crossvalidate(clips, tmp_path / "run", tiny_config(), config, THREE)
    assert crossval.summary["unanswered"] == 3
    table = crossval.predictions
    assert (table["prediction"] == "").sum() == 3
    assert set(table.loc[table["prediction"] == "", "clip_id"]) == {c.clip_id for c in faceless}
    right = (table["prediction"] == table["target"]).sum()
    assert crossval.scores["last"].accuracy == pytest.approx(right / 15)
    assert (
        not table.loc[table["prediction"] != "", list(crossval.expressions)].isna().to_numpy().any()
    )


def test_a_class_may_be_missing_from_a_fold(coloured_clips: list[Clip], tmp_path: Path) -> None:
    """As in CK+, where no subject of fold 10 shows fear."""
    alone = [replace(clip, expression="fear") if i == 0 else clip
             for i, clip in enumerate(coloured_clips)]  # fmt: skip
    crossval = crossvalidate(alone, tmp_path, tiny_config(4), replace(FROZEN, epochs=1), THREE)
    assert 0 <= crossval.summary["rules"]["last"]["uar"] <= 1
    assert crossval.expressions == ("anger", "fear", "happiness", "sadness")


def test_without_validation_everybody_is_trained_on(
    coloured_clips: list[Clip], tmp_path: Path
) -> None:
    protocol = replace(THREE, validation=False)
    config = replace(FROZEN, epochs=1)
    crossval = crossvalidate(coloured_clips, tmp_path, tiny_config(), config, protocol)
    assert crossval.summary["rules"]["validation"] is None
    assert (crossval.predictions["prediction_validation"] == "").all()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: {**run, "format": 99}, "found a run of layout 99, expected layout 1"),
        (lambda _run: [], "found a run of layout None"),
        (lambda run: {**run, "data": "0" * 16}, "found a run with another data"),
    ],
)
def test_another_run_is_not_overwritten(
    coloured_clips: list[Clip], tmp_path: Path, damage: Callable[[object], object], message: str
) -> None:
    config = replace(FROZEN, epochs=1)
    crossvalidate(coloured_clips, tmp_path, tiny_config(), config, THREE)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(FergcnError, match=message):
        crossvalidate(coloured_clips, tmp_path, tiny_config(), config, THREE)
    with pytest.raises(FergcnError, match=r"expected none or the same|expected layout"):
        crossvalidate(
            coloured_clips, tmp_path, tiny_config(), replace(config, learning_rate=1.0), THREE
        )


def test_ablation_pairs_every_variant_with_the_reference(
    coloured_clips: list[Clip], tmp_path: Path
) -> None:
    config = replace(FROZEN, epochs=1)
    groups = {
        "table-v": {"modules-0": {"num_modules": 0}, "mean": {"fusion": "mean"}},
        "comparators": {"fusion-mean": {"fusion": "mean"}, "r3d-18": {"network": "r3d-18"}},
    }
    rows, left_out = ablate_clips(coloured_clips, tmp_path, tiny_config(), config, THREE, groups)
    assert [row["variant"] for row in rows] == ["fer-gcn", "modules-0", "mean", "fusion-mean"]
    assert "leave --freeze-backbone out" in left_out["r3d-18"]
    tables = {
        name: pd.read_csv(tmp_path / name / "predictions.csv", keep_default_na=False)
        for name in ("fer-gcn", "modules-0", "mean")
    }
    assert not (tmp_path / "fusion-mean").exists()  # the same network as "mean"
    right = {name: table["prediction"] == table["target"] for name, table in tables.items()}
    for row in rows[1:3]:
        expected = right[row["variant"]].mean() - right["fer-gcn"].mean()
        assert row["difference"] == pytest.approx(expected)
        assert row["difference_ci"][0] <= row["difference"] <= row["difference_ci"][1]
    content = json.loads((tmp_path / "ablation.json").read_text())
    assert content["same_as"]["fusion-mean"] == "mean"
    assert content["comparison"] == rows


# --- controls and what is known of single frames -------------------------------------------------


@pytest.fixture(scope="module")
def many_clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Ninety clips of thirty people, told apart by colour; the intensity of each frame is known."""
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(1)
    clips = []
    for number in range(90):
        expression = ("anger", "happiness", "neutral")[number % 3]
        strength = rng.permutation([0.0, 0.2, 0.6, 1.0])
        faces = rng.integers(90, 110, (4, 40, 40, 3))
        if expression != "neutral":
            faces[..., number % 3] += (100 * strength).astype(int)[:, None, None]
        path = folder / f"{number}.npy"
        np.save(path, faces.astype(np.uint8))
        truth = tuple(strength) if expression != "neutral" else (0.0,) * 4
        clips.append(
            Clip(f"c{number:02d}", f"S{number // 3:02d}", expression, path,
                 intensity=truth, apex_index=int(np.argmax(truth)))
        )  # fmt: skip
    return clips


LEARNING = replace(FROZEN, epochs=8, batch_size=8, optimizer="adamw", learning_rate=1e-2)
PER_CLIP = tiny_config(adjacency="per_clip", temporal="none")


@pytest.fixture(scope="module")
def learned(
    many_clips: list[Clip], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, CrossvalResult]:
    run = tmp_path_factory.mktemp("learned")
    return run, crossvalidate(many_clips, run, PER_CLIP, LEARNING, THREE)


def test_random_labels_lead_to_chance(
    many_clips: list[Clip], learned: tuple[Path, CrossvalResult], tmp_path: Path
) -> None:
    learned_low, _ = learned[1].summary["rules"]["last"]["accuracy_ci"]
    assert learned_low > 0.45  # there is something to learn
    control = replace(THREE, random_labels=True)
    random = crossvalidate(many_clips, tmp_path, PER_CLIP, LEARNING, control)
    low, high = random.summary["rules"]["last"]["accuracy_ci"]
    assert low <= 1 / 3 <= high and high < learned_low
    assert (random.predictions["target"] == learned[1].predictions["target"]).all()


def test_frames_of_test_clips_are_compared_with_the_truth(
    many_clips: list[Clip], learned: tuple[Path, CrossvalResult]
) -> None:
    run, crossval = learned
    correlations = []
    for fold in range(3):
        directory = run / "seed_0" / f"fold_{fold:02d}"
        model = load_checkpoint(directory / "checkpoint").model
        for index, clip in enumerate(many_clips):
            if subject_folds([c.subject_id for c in many_clips], 3)[index] != fold:
                continue
            if clip.expression == "neutral":
                continue
            with torch.no_grad():
                frames = eval_transform(np.load(clip.path), 40, 32)
                reading = model.head.read(model.frame_features(frames)[None])
            u = reading.intensity[0].numpy()
            correlations.append(np.corrcoef(u, clip.intensity)[0, 1])
    claims = crossval.summary["intensity_claims"]
    assert claims["intensity"]["clips"] == len(correlations) == 60
    assert claims["intensity"]["correlation"] == pytest.approx(np.mean(correlations), abs=1e-3)
    assert claims["intensity"]["correlation"] > 0.5  # the frames' own, learned from labels alone
    for name in ("correlation", "apex_error"):
        low, high = claims["intensity"][f"{name}_ci"]
        assert low <= claims["intensity"][name] <= high
    assert json.loads((run / "summary.json").read_text())["intensity_claims"] == claims


def test_order_is_nothing_to_a_head_that_is_blind_to_it(
    many_clips: list[Clip], tmp_path: Path
) -> None:
    config = replace(LEARNING, epochs=2)
    shuffled = replace(THREE, shuffle_frames=True)
    probs = {}
    for name, changes in {
        "blind": {"network": "frame-average"},
        "attention": {"network": "frame-attention"},
        "last": {"num_modules": 0, "fusion": "last"},
    }.items():
        both = [
            crossvalidate(many_clips, tmp_path / name / str(n), tiny_config(**changes), config, p)
            for n, p in enumerate((THREE, shuffled))
        ]
        probs[name] = [run.predictions[list(run.expressions)].to_numpy() for run in both]
        if name == "attention":  # its weights are put back to the frames that they belong to
            in_order, out_of_order = (run.summary["intensity_claims"]["weights"] for run in both)
            assert in_order["correlation"] == pytest.approx(out_of_order["correlation"], abs=1e-3)
    np.testing.assert_allclose(*probs["blind"], atol=1e-4)
    np.testing.assert_allclose(*probs["attention"], atol=1e-4)
    assert np.abs(probs["last"][0] - probs["last"][1]).max() > 1e-3


def test_shuffling_needs_features(many_clips: list[Clip], tmp_path: Path) -> None:
    control = replace(THREE, shuffle_frames=True)
    with pytest.raises(FergcnError, match="add --freeze-backbone"):
        crossvalidate(many_clips, tmp_path, tiny_config(), FAST, control)
    pairs = replace(FAST, freeze_backbone=True, neutral_pairs=0.5)
    with pytest.raises(FergcnError, match="leave --neutral-pairs out"):
        crossvalidate(many_clips, tmp_path, tiny_config(), pairs, control)


def test_settings_that_are_refused_leave_the_folder_to_better_ones(
    coloured_clips: list[Clip], tmp_path: Path
) -> None:
    run_dir, config = tmp_path / "run", replace(FAST, epochs=1, anneal_dropout=True)
    with pytest.raises(FergcnError, match="add --feature-dropout"):
        crossvalidate(coloured_clips, run_dir, tiny_config(), config, THREE)
    assert not run_dir.exists()
    crossvalidate(coloured_clips, run_dir, tiny_config(feature_dropout=0.5), config, THREE)


def test_any_variant_can_be_the_reference(many_clips: list[Clip], tmp_path: Path) -> None:
    config = replace(LEARNING, epochs=1)
    groups = {"evidence": {n: GROUPS["evidence"][n] for n in ("per-clip", "last-frame")}}
    arguments = (many_clips, tmp_path, tiny_config(), config, THREE, groups)
    rows, _ = ablate_clips(*arguments, reference="per-clip")
    accuracy = {row["variant"]: row["accuracy"] for row in rows}
    assert "difference" not in rows[1]
    for row in (rows[0], rows[2]):
        expected = accuracy[row["variant"]] - accuracy["per-clip"]
        assert row["difference"] == pytest.approx(expected)
        assert row["against"] == "per-clip"
    assert set(rows[1]["intensity_claims"]) == {"weights", "intensity"}
    assert rows[2]["intensity_claims"] == {}  # nothing is learned about frames there
    with pytest.raises(FergcnError, match="found the reference transformer, expected one of fer"):
        ablate_clips(*arguments, reference="transformer")
