"""Recipes of the checkpoints in the package: commands that can be read, and each stage in small."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts.config import Toml
from PIL import Image

from fergcn.checkpoint import load_checkpoint
from fergcn.cli import _take_config, app
from fergcn.clips import load_clip
from fergcn.datasets import load_dataset

ROOT = Path(__file__).parents[1]
BOX = Path("src/fergcn/checkpoints")


@pytest.mark.parametrize("target", ["checkpoint", "checkpoint-rendered-only", "cards"])
def test_recipes_of_the_makefile_are_commands_that_can_be_read(target: str) -> None:
    """A flag that is renamed must not break the way to the checkpoints in the package."""
    told = subprocess.run(
        ["make", "--dry-run", target, "STILLS=stills"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.replace("\\\n", " ")
    commands = [
        shlex.split(part)
        for line in told.splitlines()
        for part in re.split(r"[;|]|&&|\bdo\b", line)
        if part.strip().startswith(".venv/bin/fergcn ")
    ]
    assert len(commands) >= 4
    for _, *arguments in commands:
        if "--config" in arguments:
            app.config = (Toml(ROOT / _take_config(arguments), must_exist=True),)
        app.parse_args(arguments, print_error=False, exit_on_error=False)
        app.config = ()


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """The Makefile and its recipes, which want hours, with few people and single epochs."""
    (tmp_path / "Makefile").symlink_to(ROOT / "Makefile")
    (tmp_path / "configs").mkdir()
    for config in (ROOT / "configs").glob("*.toml"):
        recipe = re.sub(r"(?m)^num_subjects = \d+", "num_subjects = 4", config.read_text())
        recipe = re.sub(r"(?m)^epochs = \d+", "epochs = 1", recipe)
        recipe = re.sub(r"(?m)^batch_size = \d+", "batch_size = 16", recipe)
        (tmp_path / "configs" / config.name).write_text(recipe)
    for checkpoint in ("default", "rendered-only"):
        (tmp_path / BOX / checkpoint).mkdir(parents=True)
    for clip in load_dataset("rendered"):
        if clip.clip_id.endswith("-0") and clip.subject_id < "R0-S010":
            path = tmp_path / "stills" / clip.expression / f"{clip.subject_id}_0.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(load_clip(clip, 3)[2]).save(path)
    return tmp_path


def make(workplace: Path, target: str) -> None:
    """`make` there, with the packages of this environment."""
    command = [
        *("make", "-o", ".venv/.installed-dev", f"BIN={Path(sys.executable).parent}"),
        *(target, "STILLS=stills"),
    ]
    made = subprocess.run(command, cwd=workplace, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("target", "name"),
    [("checkpoint", "default"), ("checkpoint-rendered-only", "rendered-only")],
)
def test_every_stage_of_a_recipe_runs(target: str, name: str, workplace: Path) -> None:
    """It ends with the network that the package holds; given again, it learns nothing anew."""
    make(workplace, target)
    made, shipped = workplace / BOX / name, ROOT / BOX / name
    missing = {path.name for path in shipped.iterdir()} - {path.name for path in made.iterdir()}
    # What has learned in a few steps need not stand 8 bits, and is then left in 32.
    assert missing <= {"README.md", "backbone-int8.onnx"}
    ours, theirs = (json.loads((root / "checkpoint.json").read_text()) for root in (made, shipped))
    assert ours["model"] == theirs["model"]
    load_checkpoint(made)
    weights = (made / "model.safetensors").read_bytes()
    make(workplace, target)
    assert (made / "model.safetensors").read_bytes() == weights
