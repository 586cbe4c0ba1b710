"""Checkpoints: a folder with the weights (safetensors) and what they are (JSON), never a pickle.

torch is imported when weights are read or written: naming a checkpoint does without.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from fergcn.expressions import FergcnError, sort_expressions
from fergcn.files import file_sha256
from fergcn.model.config import ModelConfig

if TYPE_CHECKING:
    import torch

    from fergcn.model import Network

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "checkpoint.json"
FORMAT = 1

SHIPPED = {
    name: Path(__file__).parent / "checkpoints" / name for name in ("default", "rendered-only")
}
"""Checkpoints in the package, by the name that `--checkpoint` takes."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained network with what is needed to use it."""

    model: Network
    """In evaluation mode, on the CPU."""
    expressions: tuple[str, ...]
    """Meaning of the logits, in order."""
    resize: int
    """Side to which face crops are resized, in pixels."""
    crop: int
    """Side of the centre crop that the network takes, in pixels."""
    sha256: str
    """Of the weights file."""
    metadata: dict[str, Any]
    """How it was made: data, seed, fold, version …"""
    half: bool = False
    """Its weights are stored as float16."""

    @property
    def config(self) -> ModelConfig:
        """What defines the network."""
        return self.model.config


def save_checkpoint(
    directory: Path,
    model: Network,
    expressions: tuple[str, ...],
    resize: int,
    crop: int,
    metadata: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write a checkpoint; the folder appears under its name only when complete.

    Args:
        directory: the folder to write; a checkpoint there is replaced.
        model: the network.
        expressions: meaning of the logits, in order.
        resize: side to which face crops are resized, in pixels.
        crop: side of the crop that the network takes, in pixels.
        metadata: what else is worth knowing, as JSON values.
        half: store the weights as float16, in half the space; they are float32 again when loaded.
            The classifier stays as it is: rounding it could change an answer.
    """
    from safetensors.torch import save_file

    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    state = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    if half:
        state = {
            name: tensor.half()
            if tensor.is_floating_point() and not name.startswith(("head.classifier.", "cnn.fc."))
            else tensor
            for name, tensor in state.items()
        }
    save_file(state, partial / WEIGHTS_FILE)
    card = {
        "format": FORMAT,
        "model": asdict(model.config),
        "expressions": list(expressions),
        "resize": resize,
        "crop": crop,
        "sha256": file_sha256(partial / WEIGHTS_FILE),
        "fergcn_version": version("fergcn"),
        "metadata": dict(metadata or {}),
    }
    (partial / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n")
    if directory.exists():
        shutil.rmtree(directory)
    partial.replace(directory)


def checkpoint_folder(source: str | Path) -> Path:
    """The folder of a checkpoint, given as such or by a name in `SHIPPED`."""
    return SHIPPED.get(str(source), Path(source))


def load_checkpoint(source: str | Path = "default") -> Checkpoint:
    """Load a checkpoint.

    Args:
        source: a folder that `save_checkpoint` wrote, or the name of one in `SHIPPED`.

    Raises:
        FergcnError: there is none, it is not one of ours, or its weights don't fit it.
    """
    import torch
    from safetensors.torch import load_file

    from fergcn.model import create_network

    directory = checkpoint_folder(source)
    card = _read_card(directory)
    weights = directory / WEIGHTS_FILE
    if not weights.exists():
        raise FergcnError(
            f"{directory}: found no {WEIGHTS_FILE}, expected one: copy the folder whole"
        )
    if (digest := file_sha256(weights)) != card["sha256"]:
        raise FergcnError(
            f"{weights}: found other weights than {CARD_FILE} names, expected sha256 "
            f"{card['sha256'][:12]}…: copy the folder again"
        )
    try:
        # The weights are about to be loaded: ImageNet's are not needed.
        config = replace(ModelConfig(**card["model"]), pretrained=False)
        model = create_network(config)
        state = load_file(weights)
        model.load_state_dict(state)
    except (TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise FergcnError(
            f"{directory}: found weights that don't fit its configuration "
            f"({str(error).splitlines()[0]}), expected a checkpoint of this version: train again"
        ) from None
    expressions = tuple(map(str, card["expressions"]))
    if len(expressions) != config.num_classes or sort_expressions(set(expressions)) != expressions:
        raise FergcnError(
            f"{directory / CARD_FILE}: found the expressions {', '.join(expressions)}, "
            f"expected {config.num_classes} in the one order: copy the folder again"
        )
    half = any(tensor.dtype == torch.float16 for tensor in state.values())
    return Checkpoint(
        model.eval(), expressions, card["resize"], card["crop"], digest, card["metadata"], half
    )


def _read_card(directory: Path) -> dict[str, Any]:
    path = directory / CARD_FILE
    advice = f"name a folder with {CARD_FILE} and {WEIGHTS_FILE}, as fergcn train writes it"
    if not path.is_file():
        found = "a folder without it" if directory.is_dir() else "no such folder"
        if directory.is_file():
            found = "a file"
        raise FergcnError(f"{directory}: found {found}, expected a checkpoint: {advice}")
    try:
        card = json.loads(path.read_text())
        keys = {"format", "model", "expressions", "resize", "crop", "sha256", "metadata"}
        if not isinstance(card, dict) or not keys <= card.keys():
            raise ValueError("keys are missing")
    except ValueError:
        raise FergcnError(
            f"{path}: found something else than a checkpoint's card: {advice}"
        ) from None
    if card["format"] != FORMAT:
        raise FergcnError(
            f"{path}: found format {card['format']}, expected {FORMAT}: "
            "it was written by another version of fergcn"
        )
    return card


def save_training_state(
    path: Path, state: Mapping[str, torch.Tensor], info: Mapping[str, Any]
) -> None:
    """Write what is needed to go on with a run, as one file that is complete or absent.

    Args:
        path: the file to write.
        state: tensors by name.
        info: JSON values.
    """
    from safetensors.torch import save_file

    partial = path.with_name(path.name + ".partial")
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in state.items()}
    save_file(tensors, partial, metadata={"info": json.dumps(dict(info))})
    partial.replace(path)


def load_training_state(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `save_training_state` wrote.

    Raises:
        FergcnError: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            info = json.loads(file.metadata()["info"])
            return {name: file.get_tensor(name) for name in file.keys()}, info  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError):
        raise FergcnError(
            f"{path}: found a damaged file, expected the state of a run: delete it to start anew"
        ) from None
