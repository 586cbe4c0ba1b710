"""A checkpoint's network, run by torch."""

import numpy as np
import torch
from numpy.typing import NDArray

from fergcn.checkpoint import Checkpoint
from fergcn.exported import WindowAnswers
from fergcn.expressions import FergcnError
from fergcn.model import FERGCN, GraphHead
from fergcn.transforms import eval_transform

Floats = NDArray[np.float32]


class TorchNetwork:
    """The calls of `ExportedNetwork`, answered by torch.

    Args:
        checkpoint: its network is moved to the device.
        device: `cpu` or `cuda`.
        threads: torch's in the whole process; None leaves them as they are.

    Raises:
        FergcnError: there is no such device, or the network has no frame features.
    """

    def __init__(self, checkpoint: Checkpoint, device: str, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
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
        self.device = device
        self.classifier_bias: list[float] | None = None
        if isinstance(model.head, GraphHead):
            self.classifier_bias = model.head.classifier.bias.tolist()
        self._model = model
        self._resize, self._crop = checkpoint.resize, checkpoint.crop

    def features(self, faces: NDArray[np.uint8]) -> Floats:
        """Describe single faces; as `ExportedNetwork.features`."""
        with torch.inference_mode():
            batch = eval_transform(faces, self._resize, self._crop)
            features = self._model.frame_features(batch.to(self.device))
        return features.cpu().numpy()

    def answers(self, windows: Floats) -> WindowAnswers:
        """Answer windows; as `ExportedNetwork.answers`."""
        with torch.inference_mode():
            features = torch.from_numpy(windows).to(self.device)
            head = self._model.head
            if not isinstance(head, GraphHead):
                return WindowAnswers(head(features).cpu().numpy(), None, None)
            reading = head.read(features)
        intensity = None if reading.intensity is None else reading.intensity.cpu().numpy()
        return WindowAnswers(
            reading.logits.cpu().numpy(), reading.contributions.cpu().numpy(), intensity
        )
