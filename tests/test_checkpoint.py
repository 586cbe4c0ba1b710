import json
import pickle
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import tiny_config
from fergcn.checkpoint import (
    SHIPPED,
    load_checkpoint,
    load_training_state,
    save_checkpoint,
    save_training_state,
)
from fergcn.expressions import FergcnError
from fergcn.model import FERGCN


def test_a_checkpoint_gives_the_same_answers(tmp_path: Path) -> None:
    model = FERGCN(tiny_config()).eval()
    save_checkpoint(tmp_path / "c", model, ("anger", "fear", "neutral"), 40, 32, {"seed": 3})
    loaded = load_checkpoint(tmp_path / "c")
    frames = torch.randn(2, 4, 3, 32, 32)
    assert torch.equal(loaded.model(frames), model(frames))
    assert not loaded.model.training
    assert loaded.expressions == ("anger", "fear", "neutral")
    assert (loaded.resize, loaded.crop, loaded.metadata) == (40, 32, {"seed": 3})
    assert sorted(p.name for p in tmp_path.rglob("*")) == [
        "c",
        "checkpoint.json",
        "model.safetensors",
    ]


def test_half_the_space_gives_nearly_the_same_answers(tmp_path: Path) -> None:
    model = FERGCN(tiny_config()).eval()
    expressions = ("anger", "fear", "neutral")
    save_checkpoint(tmp_path / "whole", model, expressions, 40, 32)
    save_checkpoint(tmp_path / "half", model, expressions, 40, 32, half=True)
    sizes = {k: (tmp_path / k / "model.safetensors").stat().st_size for k in ("whole", "half")}
    assert sizes["half"] < 0.6 * sizes["whole"]
    loaded = load_checkpoint(tmp_path / "half").model
    assert {tensor.dtype for tensor in loaded.parameters()} == {torch.float32}
    frames = torch.randn(2, 4, 3, 32, 32)
    probs, expected = (net(frames).softmax(1) for net in (loaded, model))
    torch.testing.assert_close(probs, expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("name", "recipe"), [("default", "checkpoint.toml"), ("rendered-only", "rendered-only.toml")]
)
def test_the_shipped_checkpoints_load_and_are_made_by_the_recipe(name: str, recipe: str) -> None:
    loaded = load_checkpoint(name)
    files = [path for path in SHIPPED[name].rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 25e6
    assert "What it must not be used for" in (SHIPPED[name] / "README.md").read_text("utf-8")
    assert loaded.model.config.num_frames == 16
    assert "neutral" in loaded.expressions
    made = loaded.metadata["settings"]["training"] | loaded.metadata["settings"]["model"]
    text = (Path(__file__).parents[1] / "configs" / recipe).read_text("utf-8")
    told = {"seed": 0} | tomllib.loads(text)["train"]
    compared = (told.keys() & made.keys()) - {"init"}  # a path
    assert {key: made[key] for key in compared} == {key: told[key] for key in compared}


def test_not_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FergcnError, match="found no such folder"):
        load_checkpoint(tmp_path / "none")
    with pytest.raises(FergcnError, match="found a folder without it"):
        load_checkpoint(tmp_path)
    (tmp_path / "file.pt").write_bytes(pickle.dumps({"weights": 1}))
    with pytest.raises(FergcnError, match="found a file, expected a checkpoint"):
        load_checkpoint(tmp_path / "file.pt")
    (tmp_path / "checkpoint.json").write_text("{}")
    with pytest.raises(FergcnError, match="something else than a checkpoint's card"):
        load_checkpoint(tmp_path)


def edit_card(directory: Path, **changes: object) -> None:
    path = directory / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_checkpoint_that_does_not_fit(tiny_checkpoint: Path) -> None:
    card = json.loads((tiny_checkpoint / "checkpoint.json").read_text())
    edit_card(tiny_checkpoint, model=card["model"] | {"feature_dim": 18})
    with pytest.raises(FergcnError, match="weights that don't fit its configuration"):
        load_checkpoint(tiny_checkpoint)
    edit_card(tiny_checkpoint, model=card["model"] | {"depth": 3})
    with pytest.raises(FergcnError, match="don't fit its configuration"):
        load_checkpoint(tiny_checkpoint)
    edit_card(tiny_checkpoint, model=card["model"], expressions=["anger", "joy", "neutral"])
    with pytest.raises(FergcnError, match="found the expressions anger, joy, neutral"):
        load_checkpoint(tiny_checkpoint)
    edit_card(tiny_checkpoint, expressions=card["expressions"], format=99)
    with pytest.raises(FergcnError, match="found format 99, expected 1"):
        load_checkpoint(tiny_checkpoint)


def test_damaged_weights_are_noticed(tiny_checkpoint: Path) -> None:
    weights = tiny_checkpoint / "model.safetensors"
    tensors = load_file(weights)
    tensors["head.adjacency"] += 1
    save_file(tensors, weights)
    with pytest.raises(FergcnError, match="found other weights"):
        load_checkpoint(tiny_checkpoint)
    weights.unlink()
    with pytest.raises(FergcnError, match="found no model"):
        load_checkpoint(tiny_checkpoint)


def test_a_damaged_training_state_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_training_state(path, {"a": torch.ones(3)}, {"epoch": 2})
    state, info = load_training_state(path)
    assert state["a"].tolist() == [1, 1, 1]
    assert info == {"epoch": 2}
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(FergcnError, match="found a damaged file"):
        load_training_state(path)
