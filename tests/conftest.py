"""Small real datasets and checkpoints, made on the fly."""

import csv
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from skimage.data import astronaut

from fergcn.checkpoint import save_checkpoint
from fergcn.cli import main
from fergcn.clips import Clip
from fergcn.datasets.rendered import BUNDLED
from fergcn.model import FERGCN, ModelConfig
from fergcn.video import write_video

# A machine that is busy with other work must not fail a property that holds.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # some tests import ONNX Runtime themselves

TINY = "mobilenetv3_small_050"  # the smallest backbone that behaves like a real one


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither use nor fill the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    if "PYTEST_XDIST_WORKER" in os.environ:  # one of several that share the cores
        os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
        torch.set_num_threads(1)
    else:
        torch.set_num_threads(2)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the command line in this process → (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fergcn", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return call


@pytest.fixture(scope="session")
def face_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real face that drifts through the picture for twenty frames."""
    path = tmp_path_factory.mktemp("videos") / "astronaut.mp4"
    image = astronaut()
    write_video(path, [image[:256, 80 + 2 * i : 400 + 2 * i] for i in range(20)], fps=25)
    return path


def tiny_config(num_classes: int = 3, **changes: Any) -> ModelConfig:
    fields = {"num_frames": 4, "feature_dim": 16, "backbone": TINY, "pretrained": False}
    return ModelConfig(num_classes, **{**fields, **changes})


@pytest.fixture(scope="session")
def coloured_clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Twelve clips of six people; the expression is the colour that a grey square turns to."""
    folder = tmp_path_factory.mktemp("clips")
    colours = {"anger": 0, "happiness": 1, "sadness": 2}
    rng = np.random.default_rng(0)
    clips = []
    for number in range(12):
        expression = list(colours)[number % 3]
        frames = []
        for strength in np.linspace(0, 1, 5 + number % 3):
            image = rng.integers(90, 110, (48, 48, 3))
            image[12:36, 12:36, colours[expression]] += int(120 * strength)
            frames.append(image.astype(np.uint8))
        path = folder / f"clip{number}.mp4"
        write_video(path, frames, fps=25, crf=18)
        clips.append(Clip(f"clip{number}", f"S{number // 2:03d}", expression, path))
    return clips


@pytest.fixture
def tiny_checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    directory = tmp_path / "tiny"
    save_checkpoint(
        directory, FERGCN(tiny_config()), ("anger", "happiness", "neutral"), resize=40, crop=32
    )
    return directory


@pytest.fixture(scope="session")
def few_rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people with three expressions of the bundled edition, as a dataset of its own."""
    root = tmp_path_factory.mktemp("rendered") / "few"
    root.mkdir()
    shutil.copy(BUNDLED / "rendered.json", root)
    with (BUNDLED / "clips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [
        number
        for number, row in enumerate(rows)
        if row["subject_id"] in {"R0-S000", "R0-S001", "R0-S002", "R0-S003"}
        and row["expression"] in {"happiness", "surprise", "neutral"}
    ]
    names = {rows[number]["clip_id"] for number in kept}
    for table in ("clips.csv", "frames.csv"):
        with (BUNDLED / table).open(newline="") as file, (root / table).open("w") as out:
            out.write(file.readline())
            out.writelines(line for line in file if line.split(",")[0] in names)
    np.save(root / "motion.npy", np.load(BUNDLED / "motion.npy")[kept])
    for row in (rows[number] for number in kept):
        (root / "clips" / row["subject_id"]).mkdir(parents=True, exist_ok=True)
        for path in (BUNDLED / "clips" / row["subject_id"]).glob("*"):
            shutil.copy(path, root / "clips" / row["subject_id"])
    return root
