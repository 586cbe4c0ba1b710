"""The two calls that an analysis makes to the network: faces to features, features to answers."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fergcn.analysis.config import Runtime
from fergcn.checkpoint import Checkpoint, checkpoint_folder, load_checkpoint
from fergcn.exported import ExportedNetwork, is_export
from fergcn.expressions import FergcnError
from fergcn.model import FERGCN, GraphHead
from fergcn.transforms import eval_transform

Floats = NDArray[np.float32]


class FaceNetwork:
    """A checkpoint's network on the device where it runs; arrays in, arrays out.

    Args:
        checkpoint: a folder or a name as in `load_checkpoint`, or one that is loaded already; its
            network is moved to the device. But for the runtime `torch`, it may also be an export.
        device: `cpu`, `cuda`, or `auto` for a GPU if there is one.
        runtime: `torch`, `onnx` for ONNX Runtime on the CPU, or `auto` for ONNX Runtime where no
            GPU is used and the folder holds the files for it. With `onnx`, a checkpoint without
            them is first exported into the user's cache folder, unless that was done before.

    Raises:
        FergcnError: there is no such checkpoint or device, or its network has no frame features;
            with `onnx`, what `cached_export` and `ExportedNetwork` raise.
    """

    def __init__(
        self,
        checkpoint: str | Path | Checkpoint,
        device: str = "auto",
        runtime: Runtime = "auto",
    ) -> None:
        self.checkpoint: Checkpoint | ExportedNetwork
        self._model: FERGCN | ExportedNetwork
        self.classifier_bias: list[float] | None = None
        """Of each class's logit, beside the frames' contributions; None where there are none."""
        if device == "auto":
            on_gpu = torch.cuda.is_available() and runtime != "onnx"
            device = "cuda" if on_gpu else "cpu"
        if runtime == "auto":
            runtime = "onnx" if device == "cpu" and _has_export(checkpoint) else "torch"
        self.runtime = runtime
        if runtime == "onnx":
            exported = _open_export(checkpoint)
            self.checkpoint = self._model = exported
            self.device = exported.device
            self.num_frames = exported.num_frames
            self.classifier_bias = exported.classifier_bias
            return
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = load_checkpoint(checkpoint)
        self.device = device
        self.checkpoint = checkpoint
        try:
            model = checkpoint.model.to(device).eval()
        except (AssertionError, RuntimeError):
            raise FergcnError(
                f"found device {device}, expected one that this machine has: try auto or cpu"
            ) from None
        if not isinstance(model, FERGCN):
            raise FergcnError(
                f"found a checkpoint of {model.config.network}, which has no frame features for "
                "windows to share, expected one of another network: choose another --checkpoint"
            )
        self._model = model
        self.num_frames = model.config.num_frames
        if isinstance(model.head, GraphHead):
            self.classifier_bias = model.head.classifier.bias.tolist()

    def features(self, faces: NDArray[np.uint8]) -> tuple[Floats, Floats | None]:
        """Describe single faces.

        Args:
            faces: `(M, resize, resize, 3)` RGB, aligned.

        Returns:
            Features `(M, d)`, and how intense an expression each face shows, `(M,)`, 0 to 1: what
            a network with `adjacency="per_clip"` says of the frame alone, None for other networks.
        """
        if isinstance(self._model, ExportedNetwork):
            return self._model.features(faces)
        with torch.inference_mode():
            batch = eval_transform(faces, self.checkpoint.resize, self.checkpoint.crop)
            features = self._model.frame_features(batch.to(self.device))
            head = self._model.head
            intensity = None
            if isinstance(head, GraphHead) and head.intensity is not None:
                scores = head.intensity_scores(features[None])[0]
                intensity = torch.sigmoid(scores).cpu().numpy()
        return features.cpu().numpy(), intensity

    def answers(self, windows: Floats) -> tuple[Floats, Floats | None]:
        """Answer windows.

        Args:
            windows: `(W, N, d)` features.

        Returns:
            Logits `(W, classes)`, and what each frame contributed to each logit, `(W, N, classes)`;
            together with `classifier_bias` they add up to it. None for other heads than the graph
            head.
        """
        if isinstance(self._model, ExportedNetwork):
            return self._model.answers(windows)
        with torch.inference_mode():
            features = torch.from_numpy(windows).to(self.device)
            head = self._model.head
            if not isinstance(head, GraphHead):
                return head(features).cpu().numpy(), None
            parts = head.frame_contributions(features)
            logits = parts.sum(dim=1) + head.classifier.bias
        return logits.cpu().numpy(), parts.cpu().numpy()

    def still_logits(self, faces: NDArray[np.uint8]) -> Floats:
        """Answer each face by itself, as a window in which nothing moves.

        Args:
            faces: `(M, resize, resize, 3)` RGB, aligned.

        Returns:
            Logits `(M, classes)`.
        """
        features, _ = self.features(faces)
        return self.answers(np.repeat(features[:, None], self.num_frames, axis=1))[0]


def _has_export(checkpoint: str | Path | Checkpoint) -> bool:
    return not isinstance(checkpoint, Checkpoint) and is_export(checkpoint_folder(checkpoint))


def _open_export(checkpoint: str | Path | Checkpoint) -> ExportedNetwork:
    """Open an export, or that of a checkpoint, with as many threads as torch may use."""
    if not isinstance(checkpoint, Checkpoint) and _has_export(checkpoint):
        directory = checkpoint_folder(checkpoint)
    else:
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = load_checkpoint(checkpoint)
        from fergcn.export import cached_export  # what it needs takes long to import

        directory = cached_export(checkpoint)
    return ExportedNetwork(directory, torch.get_num_threads())
