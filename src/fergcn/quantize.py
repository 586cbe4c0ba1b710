"""An exported backbone again, with weights and values of 8 bits: faster on a CPU (docs/LOG.md)."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from fergcn.onnx_session import open_session  # before ONNX Runtime, which reads what this sets

BATCH = 16
ROUNDING = 2
"""Version of how numbers are rounded; exports that are kept in the cache depend on it."""
PRODUCTS = ("MatMul", "Gemm")
"""Their inputs get 8 bits, their outputs, of which the features are one, do not."""
OPERATORS = (*PRODUCTS, "Conv", "Add", "Relu", "Clip", "Pad", "AveragePool", "MaxPool")
"""Those that get 8 bits; what follows a convolution must be among them, or its values would go back
and forth."""
EXACT = (0, 2)
"""So many first convolutions keep 32 bits: none, or else those whose large weights of both signs
would make much of how pixels are rounded."""


def quantize_backbone(
    source: Path, target: Path, frames: NDArray[np.float32], tolerance: float
) -> bool:
    """Write a backbone with weights and values of 8 bits.

    Weights have a scale for each output channel. Processors without VNNI add two products of 8 bits
    in 16, which overflow: the scale leaves room for the two neighbours that are largest together,
    and the weights of `PRODUCTS` have 7 bits. Values have the range that they take on the frames.

    Args:
        source: an ONNX file that maps `frames` to `features` and holds its weights.
        target: the file to write.
        frames: `(M, 3, crop, crop)` normalised, of faces like those to come.
        tolerance: if the features of these frames differ by a larger part, in norm, the first
            convolutions keep their 32 bits.

    Returns:
        Whether it was written: no range can be found for values that are no numbers.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Faces(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime has no types
        def __init__(self) -> None:
            self._batches: Iterator[NDArray[np.float32]] = iter(
                frames[start : start + BATCH] for start in range(0, len(frames), BATCH)
            )

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"frames": batch}

    with TemporaryDirectory(dir=target.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folded = Path(folder) / "folded.onnx"  # normalisation is part of the weights there
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        graph = onnx.load(folded).graph
        convolutions = [node for node in graph.node if node.op_type == "Conv"]
        stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        features = _features(folded, frames)
        for exact in EXACT:
            ranges = {
                node.input[1]: [
                    {"axis": 0, "quant_type": QuantType.QInt8, "symmetric": True}
                    | {"reduce_range": False, "rmin": -largest, "rmax": largest}
                    for largest in _weight_ranges(stored[node.input[1]])
                ]
                for node in convolutions[exact:]
                if node.input[1] in stored
            }
            try:
                quantize_static(
                    str(folded),
                    str(target),
                    Faces(),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=list(OPERATORS),
                    nodes_to_exclude=[node.name for node in convolutions[:exact]],
                    per_channel=True,
                    reduce_range=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    extra_options={
                        "OpTypesToExcludeOutputQuantization": list(PRODUCTS),
                        "TensorQuantOverrides": ranges,
                    },
                )
            except (AssertionError, ValueError):  # how ONNX Runtime refuses a range
                target.unlink(missing_ok=True)
                return False
            off = np.linalg.norm(_features(target, frames) - features)
            if off <= tolerance * np.linalg.norm(features):
                break
    return True


def _weight_ranges(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The weight that 127 stands for: `(out, in, …)` → `(out,)`.

    Neighbours in the order in which ONNX Runtime packs them, channels last, come to no more than
    127 together where they have one sign, and rounded to 128: 32,640 with two values of 255.
    """
    flat = np.moveaxis(weights, 1, -1).reshape(len(weights), -1)
    pairs = [
        np.maximum(sign * flat[:, :-1], 0) + np.maximum(sign * flat[:, 1:], 0) for sign in (1, -1)
    ]
    largest: NDArray[np.float32] = np.concatenate([np.abs(flat), *pairs], axis=1).max(axis=1)
    return largest


def _features(path: Path, frames: NDArray[np.float32]) -> NDArray[np.float32]:
    session = open_session(path, threads=0)  # all
    parts = [
        session.run(None, {"frames": frames[start : start + BATCH]})[0]
        for start in range(0, len(frames), BATCH)
    ]
    return np.concatenate(parts)
