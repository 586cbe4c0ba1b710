"""The two calls that an analysis makes to the network: faces to features, features to answers."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fergcn.analysis.config import Runtime
from fergcn.checkpoint import Checkpoint, checkpoint_folder, load_checkpoint
from fergcn.exported import ExportedNetwork, WindowAnswers, has_int8, is_export

if TYPE_CHECKING:
    from fergcn.analysis.torch_network import TorchNetwork

Floats = NDArray[np.float32]

GPU_DRIVERS = ("libcuda.so.1", "nvcuda.dll")
"""NVIDIA's; without it, torch finds none of its GPUs."""
AMD_DRIVER = Path("/dev/kfd")
"""AMD's; torch brings the library itself."""


class FaceNetwork:
    """A checkpoint's network on the device where it runs; arrays in, arrays out.

    Args:
        checkpoint: a folder or a name as in `load_checkpoint`, or one that is loaded already; its
            network is moved to the device. But for the runtime `torch`, it may also be an export.
        device: `cpu`, `cuda`, or `auto` for a GPU if there is one.
        runtime: as `AnalysisConfig.runtime`. With `onnx` or `int8`, a checkpoint without the files
            is first exported into the user's cache folder, unless that was done before.
        threads: that the network may use on a CPU, with torch in the whole process; None leaves
            torch as it is and gives ONNX Runtime every core that this process may use.

    Raises:
        FergcnError: there is no such checkpoint or device, or its network has no frame features;
            with `onnx` and `int8`, what `cached_export` and `ExportedNetwork` raise.
    """

    def __init__(
        self,
        checkpoint: str | Path | Checkpoint,
        device: str = "auto",
        runtime: Runtime = "auto",
        threads: int | None = None,
    ) -> None:
        self._network: TorchNetwork | ExportedNetwork
        if device == "auto":
            device = "cuda" if runtime in ("auto", "torch") and _has_gpu() else "cpu"
        if runtime == "auto":
            runtime = cpu_runtime(checkpoint) if device == "cpu" else "torch"
        if runtime != "torch":
            self._network = open_export(checkpoint, runtime, threads)
            self.checkpoint: Checkpoint | ExportedNetwork = self._network
        else:
            # Importing torch takes longer than a short video to analyse.
            from fergcn.analysis.torch_network import TorchNetwork

            if not isinstance(checkpoint, Checkpoint):
                checkpoint = load_checkpoint(checkpoint)
            self._network = TorchNetwork(checkpoint, device, threads)
            self.checkpoint = checkpoint
        self.runtime = runtime
        self.device = self._network.device
        self.num_frames = self.checkpoint.config.num_frames
        self.classifier_bias = self._network.classifier_bias
        """Of each class's logit, beside the frames' contributions; None where there are none."""

    def features(self, faces: NDArray[np.uint8], mirrored: bool = False) -> Floats:
        """Describe single faces.

        Args:
            faces: `(M, resize, resize, 3)` RGB, aligned.
            mirrored: take the mean of what each face and its mirror image give, in twice the time.

        Returns:
            `(M, frame_dim)`.
        """
        features = self._network.features(faces)
        if mirrored:
            turned = np.ascontiguousarray(faces[:, :, ::-1])
            features = (features + self._network.features(turned)) * np.float32(0.5)
        return features

    def answers(self, windows: Floats) -> WindowAnswers:
        """Answer windows of features, `(W, N, frame_dim)`."""
        return self._network.answers(windows)

    def still_logits(self, faces: NDArray[np.uint8]) -> Floats:
        """Answer each face by itself, as a window in which nothing moves.

        Args:
            faces: `(M, resize, resize, 3)` RGB, aligned.

        Returns:
            Logits `(M, classes)`.
        """
        features = self.features(faces)
        return self.answers(np.repeat(features[:, None], self.num_frames, axis=1)).logits


def _has_gpu() -> bool:
    """Whether torch can use a GPU; it is asked only where there is a driver for one."""
    has_driver = AMD_DRIVER.exists()
    for name in GPU_DRIVERS:
        with suppress(OSError):
            ctypes.CDLL(name)
            has_driver = True
    if not has_driver:
        return False
    import torch

    return torch.cuda.is_available()


def cpu_runtime(checkpoint: str | Path | Checkpoint) -> Runtime:
    """What runs a checkpoint on a CPU where nobody says it: the fastest that it has files for.

    Raises:
        FergcnError: there is no such checkpoint, or its export's card is damaged.
    """
    if isinstance(checkpoint, Checkpoint) or not is_export(checkpoint_folder(checkpoint)):
        return "torch"
    return "int8" if has_int8(checkpoint_folder(checkpoint)) else "onnx"


def open_export(
    checkpoint: str | Path | Checkpoint, runtime: Runtime, threads: int | None = None
) -> ExportedNetwork:
    """Open an export, or that of a checkpoint, which is made in the user's cache if need be.

    Args:
        checkpoint: a folder or a name as in `load_checkpoint`, or one that is loaded already.
        runtime: `onnx` or `int8`.
        threads: as `ExportedNetwork` takes them.

    Raises:
        FergcnError: as `cached_export` and `ExportedNetwork`.
    """
    if not isinstance(checkpoint, Checkpoint) and is_export(checkpoint_folder(checkpoint)):
        folder = checkpoint_folder(checkpoint)
    else:
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = load_checkpoint(checkpoint)
        from fergcn.export import cached_export  # what it needs takes long to import

        folder = cached_export(checkpoint)
    return ExportedNetwork(folder, threads, int8=runtime == "int8")
