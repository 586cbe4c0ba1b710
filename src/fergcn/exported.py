"""An exported network: ONNX files and the card that says what they are, run by ONNX Runtime."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fergcn.crops import normalized_crops
from fergcn.expressions import FergcnError
from fergcn.files import file_sha256
from fergcn.model.config import ModelConfig
from fergcn.onnx_session import open_session
from fergcn.workers import num_cores

CARD_FILE = "export.json"
BACKBONE_FILE = "backbone.onnx"
INT8_FILE = "backbone-int8.onnx"
HEAD_FILE = "head.onnx"
PARITY_FILE = "parity.json"
FORMAT = 1

Floats = NDArray[np.float32]


class WindowAnswers(NamedTuple):
    """What a network says of windows."""

    logits: Floats
    """`(W, classes)`."""
    contributions: Floats | None
    """`(W, N, classes)` what each frame contributed to each logit; together with `classifier_bias`
    they add up to it. None for other heads than the graph head."""
    intensity: Floats | None
    """`(W, N)` how intense an expression each frame shows, 0 to 1; None without
    `adjacency="per_clip"`."""


class ExportedNetwork:
    """A network that `fergcn.export` wrote, on the CPU; arrays in, arrays out.

    Its files are checked when it is made, and opened when they are first run.

    Args:
        directory: the folder.
        threads: of ONNX Runtime; None takes every core that this process may use.
        int8: run the backbone whose weights and values have 8 bits.

    Raises:
        FergcnError: the folder is not an export, is damaged, or has no such backbone.
    """

    device = "cpu"

    def __init__(self, directory: Path, threads: int | None = None, int8: bool = False) -> None:
        card = _read_card(directory)
        self.config = ModelConfig(**card["model"])
        self.num_frames = self.config.num_frames
        self.expressions = tuple(map(str, card["expressions"]))
        """Meaning of the logits, in order."""
        self.resize = int(card["resize"])
        """Side to which face crops are resized, in pixels."""
        self.crop = int(card["crop"])
        """Side of the centre crop that the network takes, in pixels."""
        self.sha256 = str(card["checkpoint_sha256"])
        """Of the weights file of the checkpoint that was exported."""
        self.metadata: dict[str, Any] = card["metadata"]
        """How that checkpoint was made."""
        self.classifier_bias: list[float] | None = card["classifier_bias"]
        """Of each class's logit, beside the frames' contributions; None where there are none."""
        self._directory = directory
        self._threads = threads or num_cores()
        hashes = card["files"]
        if int8 and INT8_FILE not in hashes:
            raise FergcnError(
                f"{directory}: found an export without {INT8_FILE}, expected one with it: use "
                "--runtime onnx, or export again if it is older than that file"
            )
        self._backbone_file = INT8_FILE if int8 else BACKBONE_FILE
        for name in sorted({BACKBONE_FILE, HEAD_FILE, *hashes}):
            _check_unchanged(directory / name, hashes.get(name))

    @cached_property
    def _backbone(self) -> Any:
        return open_session(self._directory / self._backbone_file, self._threads)

    @cached_property
    def _head(self) -> Any:
        return open_session(self._directory / HEAD_FILE, self._threads)

    def features(self, faces: NDArray[np.uint8]) -> Floats:
        """Describe single faces: `(M, resize, resize, 3)` RGB, aligned, to `(M, frame_dim)`."""
        return self.run_backbone(normalized_crops(faces, self.crop))["features"]

    def answers(self, windows: Floats) -> WindowAnswers:
        """Answer windows of features, `(W, N, frame_dim)`."""
        outputs = self.run_head(windows)
        return WindowAnswers(
            outputs["logits"], outputs.get("contributions"), outputs.get("intensity")
        )

    def run_backbone(self, frames: Floats) -> dict[str, Floats]:
        """Outputs of the backbone's file for `(M, 3, crop, crop)` normalised frames, by name."""
        return _run(self._backbone, {"frames": frames})

    def run_head(self, features: Floats) -> dict[str, Floats]:
        """Outputs of the head's file for `(B, N, frame_dim)` features, by name."""
        return _run(self._head, {"features": features})


def is_export(directory: Path) -> bool:
    """Whether a folder says of itself that it is an exported network."""
    return (directory / CARD_FILE).is_file()


def has_int8(directory: Path) -> bool:
    """Whether an export has a backbone of 8 bits.

    Raises:
        FergcnError: the folder is not an export, or its card is damaged.
    """
    return INT8_FILE in _read_card(directory)["files"]


def _read_card(directory: Path) -> dict[str, Any]:
    path = directory / CARD_FILE
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = card["format"]
    except (OSError, ValueError, KeyError, TypeError):
        raise FergcnError(
            f"{directory}: found no {CARD_FILE} that can be read, expected an exported network: "
            "name a folder that fergcn export wrote"
        ) from None
    if found != FORMAT:
        raise FergcnError(f"{path}: found format {found}, expected {FORMAT}: export again")
    return card


def _check_unchanged(path: Path, sha256: str | None) -> None:
    if not path.is_file() or file_sha256(path) != sha256:
        found = "another file than its card names" if path.is_file() else "no such file"
        raise FergcnError(f"{path}: found {found}, expected it unchanged: export again")


def _run(session: Any, inputs: dict[str, Floats]) -> dict[str, Floats]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
