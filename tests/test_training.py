import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from conftest import tiny_config
from fergcn.calibration import divide_logits
from fergcn.checkpoint import load_checkpoint
from fergcn.clips import Clip, load_clip
from fergcn.expressions import FergcnError
from fergcn.features import dataset_features
from fergcn.model import FERGCN
from fergcn.prediction import predict_feature_probs, predict_probs
from fergcn.training import loop
from fergcn.training.batches import epoch_batches, sampling_probs
from fergcn.training.config import TrainConfig
from fergcn.training.lessons import read_soft_labels
from fergcn.training.loop import train_model
from fergcn.transforms import eval_transform

FAST = TrainConfig(epochs=3, batch_size=4, resize=40, crop=32, accelerator="cpu")


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model.safetensors")


def assert_same(left: Path, right: Path) -> None:
    ours, theirs = weights(left), weights(right)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert different == []


def test_defaults_are_the_papers() -> None:
    config = TrainConfig()
    assert (config.optimizer, config.learning_rate, config.weight_decay) == ("sgd", 1e-3, 5e-5)
    assert (config.epochs, config.resize, config.crop) == (120, 256, 224)
    assert (config.schedule, config.freeze_backbone) == ("constant", False)


@given(
    num_clips=st.integers(1, 50),
    batch_size=st.integers(1, 9),
    world_size=st.integers(1, 4),
    epoch=st.integers(0, 5),
)
def test_every_clip_is_seen_once_in_an_epoch(
    num_clips: int, batch_size: int, world_size: int, epoch: int
) -> None:
    config = replace(FAST, batch_size=batch_size)
    ranks = [epoch_batches(num_clips, config, epoch, r, world_size) for r in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert all(1 <= len(batch) <= batch_size for batches in ranks for batch in batches)
    seen = Counter(int(i) for batches in ranks for batch in batches for i in batch)
    assert set(seen) == set(range(num_clips))
    if world_size == 1:
        assert set(seen.values()) == {1}


def test_order_changes_with_epoch_and_seed() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(epoch_batches(40, replace(FAST, seed=seed), epoch)).tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def some_clips(counts: dict[tuple[str, str], int]) -> list[Clip]:
    """So many clips of each (person, expression)."""
    return [
        Clip(f"{person}-{expression}-{index}", person, expression, Path("none.mp4"))
        for (person, expression), count in counts.items()
        for index in range(count)
    ]


def drawn(clips: list[Clip], probs: np.ndarray, by: str) -> dict[str, float]:
    total: Counter[str] = Counter()
    for clip, prob in zip(clips, probs, strict=True):
        total[getattr(clip, by)] += prob
    return dict(total)


def test_balance_makes_expressions_equally_likely() -> None:
    clips = some_clips(
        {("a", "anger"): 2, ("b", "neutral"): 20, ("c", "fear"): 7, ("d", "fear"): 1}
    )
    assert sampling_probs(clips, 0) == pytest.approx(1 / len(clips))
    full = drawn(clips, sampling_probs(clips, 1), "expression")
    assert full == pytest.approx({"anger": 1 / 3, "neutral": 1 / 3, "fear": 1 / 3})
    half = drawn(clips, sampling_probs(clips, 0.5), "expression")
    assert 2 / 30 < half["anger"] < half["fear"] < half["neutral"] < 20 / 30


def test_balance_keeps_one_person_from_filling_an_expression() -> None:
    clips = some_clips({("often", "fear"): 16, ("once", "fear"): 1, ("other", "anger"): 1})
    people = drawn(clips, sampling_probs(clips, 1), "subject_id")
    assert people["often"] / people["once"] == pytest.approx(4)  # 16 ** (1 - 1 / 2)


def test_balance_keeps_the_share_of_each_dataset() -> None:
    """Expressions that are rare in one dataset are not taken from the other instead."""
    real = some_clips({("a", "anger"): 1, ("b", "neutral"): 19})
    rendered = some_clips({("c", "anger"): 10, ("d", "neutral"): 10})
    probs = sampling_probs(real + rendered, 1, [0] * 20 + [1] * 20)
    assert probs[:20].sum() == pytest.approx(0.5)
    assert probs[0] == pytest.approx(0.25)


def test_an_epoch_draws_by_probability() -> None:
    probs = np.array([0.7, 0.1, 0.1, 0.1, 0.0])
    seen: Counter[int] = Counter()
    for epoch in range(100):
        batches = epoch_batches(5, FAST, epoch, probs=probs)
        assert sum(map(len, batches)) == 5
        seen.update(np.concatenate(batches).tolist())
    assert seen[0] / 500 == pytest.approx(0.7, abs=0.08)
    assert seen[4] == 0


@pytest.mark.parametrize("freeze_backbone", [False, True])
def test_one_seed_gives_one_result(
    coloured_clips: list[Clip], tmp_path: Path, freeze_backbone: bool
) -> None:
    config = replace(FAST, freeze_backbone=freeze_backbone)
    runs = [
        train_model(coloured_clips, tmp_path / name, tiny_config(), config) for name in ("a", "b")
    ]
    assert_same(*runs)
    other = train_model(coloured_clips, tmp_path / "c", tiny_config(), replace(config, seed=1))
    assert not torch.equal(
        weights(runs[0])["head.classifier.weight"], weights(other)["head.classifier.weight"]
    )


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("freeze_backbone", [False, True])
def test_a_stopped_run_ends_as_an_uninterrupted_one(
    coloured_clips: list[Clip],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    optimizer: str,
    freeze_backbone: bool,
) -> None:
    config = replace(
        FAST, epochs=4, optimizer=optimizer, schedule="cosine", freeze_backbone=freeze_backbone
    )
    config = replace(config, anneal_dropout=True)
    network = tiny_config(feature_dropout=0.5)
    whole = train_model(coloured_clips, tmp_path / "whole", network, config)

    def stop_in_third_epoch(what: str, done: int, _total: int) -> None:
        if what == "epochs" and done == 2:
            raise StoppedError

    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0)
    run_dir = tmp_path / "stopped"
    with pytest.raises(StoppedError):
        train_model(coloured_clips, run_dir, network, config, on_progress=stop_in_third_epoch)
    assert not (run_dir / "checkpoint").exists()
    epochs = []
    resumed = train_model(
        coloured_clips,
        run_dir,
        network,
        config,
        on_progress=lambda what, done, _total: epochs.append(done) if what == "epochs" else None,
    )
    assert epochs[0] == 2
    assert_same(whole, resumed)
    logs = [pd.read_csv(tmp_path / name / "log.csv") for name in ("whole", "stopped")]
    same = ["epoch", "loss", "accuracy", "learning_rate"]
    pd.testing.assert_frame_equal(logs[0][same], logs[1][same])
    assert not (run_dir / "state.safetensors").exists()


def test_a_killed_process_goes_on(coloured_clips: list[Clip], tmp_path: Path) -> None:
    """A real process, a real SIGKILL, the same weights in the end."""
    config = replace(FAST, epochs=12)
    whole = train_model(coloured_clips, tmp_path / "whole", tiny_config(), config)
    run_dir = tmp_path / "killed"
    code = f"""
from pathlib import Path
import torch
from conftest import tiny_config
from fergcn.training import loop
from fergcn.training.config import TrainConfig
from fergcn.clips import Clip
torch.set_num_threads({torch.get_num_threads()})
loop.SAVE_EVERY_S = 0
clips = [Clip(i, s, e, Path(p)) for i, s, e, p in {
        [(c.clip_id, c.subject_id, c.expression, str(c.path)) for c in coloured_clips]
    }]
loop.train_model(clips, Path({str(run_dir)!r}), tiny_config(), {config!r})
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    deadline = time.monotonic() + 60
    while not (run_dir / "state.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (run_dir / "state.safetensors").exists()
    assert not (run_dir / "checkpoint").exists()
    assert_same(whole, train_model(coloured_clips, run_dir, tiny_config(), config))


def test_training_learns(coloured_clips: list[Clip], tmp_path: Path) -> None:
    """Features that tell the class in the last frames alone are learned."""
    width = FERGCN(tiny_config()).backbone_dim
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, len(coloured_clips), 4, width)).astype(np.float32)
    for row, clip in enumerate(coloured_clips):
        features[:, row, 2:, ("anger", "happiness", "sadness").index(clip.expression)] += 20
    config = replace(FAST, epochs=60, optimizer="adamw", freeze_backbone=True)
    train_model(coloured_clips, tmp_path, tiny_config(), config, features)
    log = pd.read_csv(tmp_path / "log.csv")
    assert log["loss"].iloc[-1] < 0.5 * log["loss"].iloc[0]
    assert log["accuracy"].iloc[-1] == 1


def test_the_recipe_for_pictures_from_anywhere_learns_and_repeats(
    coloured_clips: list[Clip], tmp_path: Path
) -> None:
    config = replace(FAST, augmentation="wild", balance=0.8, label_smoothing=0.1)
    config = replace(config, epochs=4, optimizer="adamw", learning_rate=1e-2)
    sources = [index % 2 for index in range(len(coloured_clips))]
    first, second = (
        train_model(coloured_clips, tmp_path / name, tiny_config(), config, sources=sources)
        for name in "ab"
    )
    assert_same(first, second)
    log = pd.read_csv(tmp_path / "a" / "log.csv")
    assert log["loss"].iloc[-1] < log["loss"].iloc[0]


def test_a_frozen_backbone_stays_as_it_was(coloured_clips: list[Clip], tmp_path: Path) -> None:
    config = replace(FAST, freeze_backbone=True)
    started_from = loop.build_model(tiny_config(), config).backbone.state_dict()
    trained = weights(train_model(coloured_clips, tmp_path, tiny_config(), config))
    for name, tensor in started_from.items():
        assert torch.equal(trained[f"backbone.{name}"], tensor), name


def test_cached_features_equal_the_whole_network(coloured_clips: list[Clip]) -> None:
    torch.manual_seed(0)
    model = FERGCN(tiny_config()).eval()
    features = dataset_features(model, coloured_clips, 40, 32)
    again = dataset_features(model, coloured_clips, 40, 32)
    np.testing.assert_array_equal(features, again)
    np.testing.assert_allclose(
        predict_feature_probs(model, features[0]),
        predict_probs(model, coloured_clips, 40, 32),
        rtol=1e-3,
        atol=1e-5,
    )
    assert not np.allclose(features[0], features[1])


def test_other_settings_never_overwrite_a_run(coloured_clips: list[Clip], tmp_path: Path) -> None:
    done = train_model(coloured_clips, tmp_path, tiny_config(), FAST)
    before = weights(done)
    with pytest.raises(FergcnError, match="found a run with other settings"):
        train_model(coloured_clips, tmp_path, tiny_config(), replace(FAST, seed=5))
    with pytest.raises(FergcnError, match="found a run with other settings"):
        train_model(coloured_clips[:-1], tmp_path, tiny_config(), FAST)
    assert_same(train_model(coloured_clips, tmp_path, tiny_config(), FAST), done)
    assert before.keys() == weights(done).keys()


def test_mixed_precision_trains(coloured_clips: list[Clip], tmp_path: Path) -> None:
    config = replace(FAST, precision="bf16-mixed")
    assert weights(train_model(coloured_clips, tmp_path, tiny_config(), config))


def test_tensorboard_log(coloured_clips: list[Clip], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_model(coloured_clips, tmp_path, tiny_config(), replace(FAST, tensorboard=True))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    logged = [event.value for event in events.Scalars("loss")]
    np.testing.assert_allclose(logged, pd.read_csv(tmp_path / "log.csv")["loss"], rtol=1e-5)


def test_backbones_come_from_checkpoints(
    coloured_clips: list[Clip], tmp_path: Path, tiny_checkpoint: Path
) -> None:
    config = replace(FAST, init=str(tiny_checkpoint), freeze_backbone=True)
    trained = weights(train_model(coloured_clips, tmp_path / "run", tiny_config(), config))
    shipped = weights(tiny_checkpoint)
    torch.manual_seed(FAST.seed)
    expected = FERGCN(tiny_config()).head.classifier.weight
    assert torch.equal(trained["backbone.conv_stem.weight"], shipped["backbone.conv_stem.weight"])
    # What no checkpoint gives is the seed's, whatever the checkpoint.
    for begun in (config, replace(config, init=None)):
        head = loop.build_model(tiny_config(), begun).head.classifier
        assert torch.equal(head.weight, expected), begun.init
    with pytest.raises(FergcnError, match="found the backbone mobilenetv3_small_050"):
        loop.build_model(tiny_config(backbone="resnet10t"), config)


def test_the_norms_of_a_published_network_are_settled_before_training(
    coloured_clips: list[Clip], tmp_path: Path
) -> None:
    config = tiny_config(backbone="face_mobilenet", num_modules=0)
    seen = []

    def look(epoch: int, model: nn.Module) -> None:
        if epoch == 0:
            first = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
            frames = [
                eval_transform(load_clip(clip, 1), FAST.resize, FAST.crop)
                for clip in coloured_clips
            ]
            with torch.inference_mode():
                maps = model.get_submodule("backbone.network.conv_stem")(torch.cat(frames))
            torch.testing.assert_close(first.running_mean, maps.mean((0, 2, 3)))
            torch.testing.assert_close(first.running_var, maps.var((0, 2, 3), correction=0))
            seen.append(epoch)

    settings = replace(FAST, epochs=1)
    train_model(coloured_clips, tmp_path / "run", config, settings, on_epoch=look)
    assert seen


def test_soft_labels_teach_what_the_labels_do_not(
    coloured_clips: list[Clip], tmp_path: Path
) -> None:
    """Labels say one class of two; the other network says that a third is half as likely."""
    table = pd.DataFrame(
        {
            "clip_id": [clip.clip_id for clip in coloured_clips[:-1]],
            "happiness": 0.6,
            "sadness": 0.4,
        }
    )
    table.to_csv(tmp_path / "soft.csv", index=False)
    config = replace(FAST, epochs=30, optimizer="adamw", soft_labels=str(tmp_path / "soft.csv"))
    strong = replace(config, soft_share=100.0)
    probs = []
    for name, settings in (("labels", replace(FAST, epochs=2)), ("soft", strong)):
        run = train_model(coloured_clips, tmp_path / name, tiny_config(), settings)
        model = load_checkpoint(run).model
        probs.append(predict_probs(model, coloured_clips, 40, 32).mean(axis=0))
    assert abs(probs[1] - [0, 0.6, 0.4]).max() < 0.05 < abs(probs[0] - [0, 0.6, 0.4]).max()

    known = read_soft_labels(
        tmp_path / "soft.csv", coloured_clips, ("anger", "happiness", "sadness")
    )
    np.testing.assert_allclose(known[:-1], np.tile([0, 0.6, 0.4], (11, 1)), atol=1e-6)
    assert not known[-1].any()  # the table has no answer to it
    (tmp_path / "soft.csv").write_text("clip_id,happiness\nclip0,seven\n")
    with pytest.raises(FergcnError, match=r"soft\.csv: found no probabilities for these clips"):
        train_model(coloured_clips, tmp_path / "bad", tiny_config(), config)


def test_rare_expressions_are_leant_towards(coloured_clips: list[Clip], tmp_path: Path) -> None:
    """Odds between two expressions change by the ratio of their counts to the power asked for."""
    clips = coloured_clips[:9] + [c for c in coloured_clips[9:] if c.expression == "anger"]
    config = replace(FAST, epochs=1)
    odds, scored = [], []
    for shift in (0.0, 0.5):
        settings = replace(config, rare_shift=shift)
        run = train_model(
            clips,
            tmp_path / str(shift),
            tiny_config(),
            settings,
            on_epoch=lambda _, network: scored.append(predict_probs(network.eval(), clips, 40, 32)),
        )
        probs = predict_probs(load_checkpoint(run).model, clips, 40, 32)
        np.testing.assert_allclose(scored[-1], probs, rtol=1e-5)  # what is scored is what is saved
        odds.append(probs[:, 1] / probs[:, 0])  # 3 clips of happiness, 4 of anger
    np.testing.assert_allclose(odds[1] / odds[0], (4 / 3) ** 0.5, rtol=1e-4)

    model = FERGCN(tiny_config())
    before = model.head.classifier.bias.detach().clone()
    for amount in (0.0, 0.5):  # nobody shows the last expression
        shifted = loop.shifted_to_rare(model, np.array([0, 0, 0, 0, 1]), amount)
        assert isinstance(shifted, FERGCN)
        difference = shifted.head.classifier.bias.detach() - before
        expected = torch.tensor([0, amount, amount]) * math.log(4)
        torch.testing.assert_close(difference, expected)
    torch.testing.assert_close(model.head.classifier.bias.detach(), before)


def test_intensity_is_read_from_logits_as_they_were_learned() -> None:
    torch.manual_seed(0)
    model = FERGCN(tiny_config(adjacency="per_clip", neutral=1, sharpness=0.0)).eval()
    features = torch.randn(9, 4, model.config.frame_dim)
    with torch.no_grad():
        learned = model.head.read(features)
        leaning = loop.shifted_to_rare(model, np.array([0, 1, 1, 1, 2]), 0.5)
        divide_logits(leaning, 0.6)
        reading = leaning.head.read(features)
    odds = reading.logits[:, 0] - reading.logits[:, 1]
    before = learned.logits[:, 0] - learned.logits[:, 1]
    torch.testing.assert_close(odds, (before + 0.5 * math.log(3)) / 0.6)
    torch.testing.assert_close(reading.intensity, learned.intensity)


def test_dropout_falls_to_nothing(coloured_clips: list[Clip], tmp_path: Path) -> None:
    """Every step leaves a little less out than the one before."""
    shares: list[float] = []

    def note(_epoch: int, model: torch.nn.Module) -> None:
        assert isinstance(model, FERGCN)
        shares.append(model.dropout.p)

    config = replace(FAST, epochs=5, anneal_dropout=True)
    network = tiny_config(feature_dropout=0.5)
    annealed = train_model(coloured_clips, tmp_path / "annealed", network, config, on_epoch=note)
    steps = np.diff(shares[1:])  # the first is before training
    assert shares[0] == 0.5 and (steps < 0).all() and np.ptp(steps) < 1e-9  # a straight line
    assert shares[-1] == pytest.approx(0.5 / 15)  # the last of five times three steps
    constant = train_model(
        coloured_clips, tmp_path / "constant", network, replace(config, anneal_dropout=False)
    )
    name = "head.classifier.weight"
    assert not torch.equal(weights(annealed)[name], weights(constant)[name])
    with pytest.raises(FergcnError, match=r"expected more: add --feature-dropout 0.5"):
        train_model(coloured_clips, tmp_path / "none", tiny_config(), config)
    assert not (tmp_path / "none").exists()


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(FergcnError, match="found crop=300 above resize=256"):
        TrainConfig(crop=300)
    with pytest.raises(FergcnError, match="found epochs=0"):
        TrainConfig(epochs=0)


def test_unknown_backbone_is_one_line() -> None:
    with pytest.raises(FergcnError, match="found the backbone vgg99, expected"):
        loop.build_model(tiny_config(backbone="vgg99"), FAST)


def test_two_processes_share_a_step(coloured_clips: list[Clip], tmp_path: Path) -> None:
    """Real distributed training on the CPU: both halves of a batch count, once."""
    code = f"""
from pathlib import Path
from conftest import tiny_config
from fergcn.clips import Clip
from fergcn.training.config import TrainConfig
from fergcn.training.loop import train_model
clips = [Clip(i, s, e, Path(p)) for i, s, e, p in {
        [(c.clip_id, c.subject_id, c.expression, str(c.path)) for c in coloured_clips]
    }]
config = {replace(FAST, devices=2, batch_size=2, freeze_backbone=True)!r}
train_model(clips, Path({str(tmp_path / "two")!r}), tiny_config(), config)
"""
    script = tmp_path / "train.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run(
        [sys.executable, script], env=environment, check=True, capture_output=True, timeout=120
    )
    alone = replace(FAST, batch_size=4, freeze_backbone=True)
    one = weights(train_model(coloured_clips, tmp_path / "one", tiny_config(), alone))
    two = weights(tmp_path / "two" / "checkpoint")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_intensity_is_learned_from_labels_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clips, features, truth = [], [], []
    for number in range(48):
        expression = ("happiness", "surprise", "neutral")[number % 3]
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(b"features are given: never read")
        clips.append(Clip(str(number), str(number), expression, path))
        intensity = np.zeros(4)
        if expression != "neutral":  # one frame of four shows it, nobody says which
            intensity[rng.integers(4)] = 1
        direction = np.eye(8)[number % 3]
        features.append(3 * intensity[:, None] * direction + 0.3 * rng.normal(size=(4, 8)))
        truth.append(intensity)
    views = np.repeat(np.array(features, dtype=np.float32)[None], 2, axis=0)
    wide = np.zeros((*views.shape[:3], 1024), dtype=np.float32)
    wide[..., :8] = views
    config = TrainConfig(
        epochs=40, batch_size=8, optimizer="adamw", freeze_backbone=True, accelerator="cpu"
    )
    expressions = ("happiness", "surprise", "neutral")
    folder = train_model(
        clips,
        tmp_path / "run",
        tiny_config(adjacency="per_clip", temporal="none"),
        config,
        features=wide,
        expressions=expressions,
    )
    model = load_checkpoint(folder).model
    assert isinstance(model, FERGCN)
    with torch.inference_mode():
        u = model.head.read(model.projection(torch.from_numpy(wide[0]))).intensity.numpy()
    shown = np.array(truth) == 1
    assert u[shown].mean() > u[~shown].mean() + 0.4
    loud = np.array([clip.expression != "neutral" for clip in clips])
    assert (u[loud].argmax(1) == np.array(truth)[loud].argmax(1)).mean() > 0.9
