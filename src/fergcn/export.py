"""Write a checkpoint as ONNX files that need no torch, and check that they answer alike."""

import hashlib
import json
import os
import shutil
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fergcn.cache import cache_dir
from fergcn.checkpoint import WEIGHTS_FILE, Checkpoint, load_checkpoint
from fergcn.clips import load_clip
from fergcn.datasets.rendered import load_rendered
from fergcn.exported import (
    BACKBONE_FILE,
    CARD_FILE,
    FORMAT,
    HEAD_FILE,
    INT8_FILE,
    PARITY_FILE,
    ExportedNetwork,
)
from fergcn.expressions import FergcnError
from fergcn.faces.recognition import NETWORK
from fergcn.files import file_sha256, write_json
from fergcn.model import FERGCN, IMAGENET_MEAN, IMAGENET_STD, GraphHead
from fergcn.model.face_networks import FaceRecognition
from fergcn.progress import Count, silent
from fergcn.quantize import ROUNDING, quantize_backbone
from fergcn.transforms import eval_transform

OPSET = 20
"""Version of the ONNX operators; ONNX Runtime has them from 1.17 on."""
TOLERANCE = 1e-4
"""Largest difference from torch that an export may have."""
CLIP_STEP = 37
"""Every so many-th of the bundled clips is compared: other people, other expressions."""
RANGE_FRAMES = 4
"""So many frames of as many other clips show what ranges the values of 8 bits need."""
INT8_TOLERANCE = 0.15
"""Largest part of the features, in norm, by which a backbone of 8 bits may differ from torch's."""

OUTPUTS = ("features", "intensity", "logits", "contributions", "weights")


@dataclass(frozen=True)
class Difference:
    """How far one output is from torch's."""

    output: str
    values: int
    """Numbers that were compared."""
    largest: float
    """Largest absolute value that torch gives."""
    difference: float
    """Largest absolute difference."""


@dataclass(frozen=True)
class Int8:
    """How far answers are from torch's when weights and values of the backbone have 8 bits."""

    features: float
    """Norm of the difference, as a part of the norm of torch's."""
    answers: int
    """Clips that were answered."""
    same: int
    """Those that got the same expression."""
    probability: float
    """Largest difference of a probability."""


@dataclass(frozen=True)
class Parity:
    """How far an export is from torch, on clips of the bundled dataset."""

    outputs: list[Difference]
    int8: Int8 | None
    """None where no backbone of 8 bits could be made."""

    def agrees(self, tolerance: float) -> bool:
        """Whether all outputs are within the tolerance; what is not a number is not."""
        return bool(self.worst <= tolerance)

    @property
    def worst(self) -> float:
        """Largest difference of any output."""
        return float(np.max([entry.difference for entry in self.outputs]))  # NaN wins

    @property
    def int8_is_kept(self) -> bool:
        """Whether the backbone of 8 bits is near enough to be written."""
        return self.int8 is not None and self.int8.features <= INT8_TOLERANCE


def export_network(
    checkpoint: Checkpoint,
    directory: Path,
    tolerance: float = TOLERANCE,
    on_progress: Count = silent,
) -> Parity:
    """Write a checkpoint's network as ONNX; the folder appears only if it answers as torch does.

    `backbone.onnx` maps normalised frames `(M, 3, crop, crop)` to features `(M, frame_dim)`;
    `backbone-int8.onnx` does so with weights and values of 8 bits, and is left out where it can't
    be made or would differ by more than `INT8_TOLERANCE`. `head.onnx` maps features
    `(B, N, frame_dim)` to logits `(B, classes)`; the graph head also gives fusion weights `(B, N)`
    and what each frame contributes to each logit `(B, N, classes)`, and with `adjacency="per_clip"`
    each frame's intensity `(B, N)`, 0 to 1. M and B are free, and N too where the head takes any
    (`per_clip`). `export.json` says what the files are, `parity.json` how far they are from torch
    on bundled clips.

    Args:
        checkpoint: its network is moved to the CPU.
        directory: the folder to write; an export there is replaced.
        tolerance: largest absolute difference from torch.
        on_progress: told (clips compared, clips in all).

    Returns:
        The differences. Where an output is beyond the tolerance, nothing was written.

    Raises:
        FergcnError: the network has no frame features or torch can't export it, a package is not
            installed, or the folder holds something else.
    """
    _check_place(directory)
    partial = directory.with_name(f"{directory.name}.{os.getpid()}.partial")
    try:
        parity = _write_checked(checkpoint, partial, None, tolerance, on_progress)
        if parity.agrees(tolerance):
            if directory.exists():
                shutil.rmtree(directory)
            partial.replace(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return parity


def export_in_place(
    directory: Path,
    tolerance: float = TOLERANCE,
    on_progress: Count = silent,
) -> Parity:
    """Write the files of `export_network` into a checkpoint's own folder.

    They read the weights from the checkpoint's own file, so they are small, but for those of 8
    bits, and an analysis finds them by itself.

    Args:
        directory: of the checkpoint.
        tolerance: largest absolute difference from torch.
        on_progress: told (clips compared, clips in all).

    Returns:
        The differences. Where an output is beyond the tolerance, nothing was written.

    Raises:
        FergcnError: as `export_network` and `load_checkpoint`.
    """
    checkpoint = load_checkpoint(directory)
    partial = directory / f"export.{os.getpid()}.partial"
    try:
        weights = directory / WEIGHTS_FILE
        parity = _write_checked(checkpoint, partial, weights, tolerance, on_progress)
        if parity.agrees(tolerance):
            for name in (CARD_FILE, INT8_FILE):
                (directory / name).unlink(missing_ok=True)
            (partial / WEIGHTS_FILE).unlink()
            written = sorted(partial.iterdir(), key=lambda path: path.name == CARD_FILE)
            for path in written:  # the card, which makes it an export, last
                path.replace(directory / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return parity


def _write_checked(
    checkpoint: Checkpoint,
    directory: Path,
    weights: Path | None,
    tolerance: float,
    on_progress: Count,
) -> Parity:
    """Write all files, those with the weights in common read from `weights`, and compare."""
    model = checkpoint.model.to("cpu").eval()
    if not isinstance(model, FERGCN):
        raise FergcnError(
            f"found a checkpoint of {model.config.network}, which has no frame features, expected "
            "one of another network: backbone and head are exported one by one"
        )
    _check_packages()
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    names = [BACKBONE_FILE, HEAD_FILE]
    write_backbone(model, checkpoint.crop, directory / BACKBONE_FILE)
    write_head(model, directory / HEAD_FILE)
    frames = _range_frames(checkpoint)
    made = quantize_backbone(
        directory / BACKBONE_FILE, directory / INT8_FILE, frames, INT8_TOLERANCE
    )
    if weights is not None:
        shutil.copyfile(weights, directory / WEIGHTS_FILE)
        for name in names:
            share_weights(directory / name, directory / WEIGHTS_FILE)
        names.append(WEIGHTS_FILE)
    if made:
        names.append(INT8_FILE)
    hashes = {name: file_sha256(directory / name) for name in names}
    card = _card(checkpoint, model, hashes)
    write_json(directory / CARD_FILE, card)
    in_8_bits = ExportedNetwork(directory, int8=True) if made else None
    parity = compare(checkpoint, ExportedNetwork(directory), in_8_bits, on_progress)
    if made and not parity.int8_is_kept:
        (directory / INT8_FILE).unlink()
        del hashes[INT8_FILE]
        write_json(directory / CARD_FILE, card)
    write_json(directory / PARITY_FILE, {"tolerance": tolerance, **asdict(parity)})
    return parity


def _range_frames(checkpoint: Checkpoint) -> NDArray[np.float32]:
    """Frames `(M, 3, crop, crop)` of bundled clips that `compare` does not look at."""
    clips = load_rendered()[CLIP_STEP // 2 :: CLIP_STEP]
    faces = [load_clip(clip, RANGE_FRAMES) for clip in clips]
    frames = [eval_transform(of_clip, checkpoint.resize, checkpoint.crop) for of_clip in faces]
    return torch.cat(frames).numpy()


def cached_export(checkpoint: Checkpoint, on_progress: Count = silent) -> Path:
    """Export into the user's cache folder, where it is not there already.

    Args:
        checkpoint: its network is moved to the CPU.
        on_progress: told (clips compared, clips in all).

    Returns:
        The folder.

    Raises:
        FergcnError: as `export_network`, or the export doesn't answer as torch does.
    """
    made_from = [
        *(FORMAT, OPSET, torch.__version__, checkpoint.sha256, asdict(checkpoint.model.config)),
        *(checkpoint.expressions, checkpoint.resize, checkpoint.crop, ROUNDING, INT8_TOLERANCE),
    ]
    key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]
    directory = cache_dir() / "onnx" / key
    if not directory.exists():
        try:
            parity = export_network(checkpoint, directory, on_progress=on_progress)
        except OSError:
            if not directory.exists():  # else another process was faster
                raise
        else:
            if not parity.agrees(TOLERANCE):
                raise FergcnError(
                    f"found an export that differs from torch by {parity.worst:.1e}, "
                    f"expected at most {TOLERANCE:.0e}: use --runtime torch"
                )
    return directory


def compare(
    checkpoint: Checkpoint,
    exported: ExportedNetwork,
    in_8_bits: ExportedNetwork | None,
    on_progress: Count = silent,
) -> Parity:
    """Compare an export with torch, from frames to every output, on clips of the bundled dataset.

    Batches have one clip and, at the end, all of them; where N is free, every other clip has more
    or fewer frames.

    Args:
        checkpoint: what was exported.
        exported: what came of it.
        in_8_bits: the same with weights and values of 8 bits, if there is one.
        on_progress: told (clips compared, clips in all).
    """
    model = checkpoint.model
    assert isinstance(model, FERGCN)  # others are not exported
    num_frames = model.config.num_frames
    clips = load_rendered()[::CLIP_STEP]
    pairs: dict[str, list[tuple[Tensor, NDArray[np.float32]]]] = {name: [] for name in OUTPUTS}
    rounded: dict[str, list[NDArray[np.float32]]] = {"features": [], "logits": []}

    def add(truth: dict[str, Tensor], outputs: dict[str, NDArray[np.float32]]) -> None:
        for name, values in truth.items():
            pairs[name].append((values, outputs[name]))

    usual: list[Tensor] = []
    with torch.inference_mode():
        for number, clip in enumerate(clips):
            length = num_frames
            if model.config.per_clip:
                length = max(1, num_frames + (0, 5, 0, -5)[number % 4])
            faces = load_clip(clip, length)
            frames = eval_transform(faces, checkpoint.resize, checkpoint.crop)
            described = exported.run_backbone(frames.numpy())
            features = model.frame_features(frames)
            truth = _head_truth(model, features[None])
            add(truth, exported.run_head(described["features"][None]))
            add({"features": features}, described)
            if in_8_bits is not None:
                coarse = in_8_bits.run_backbone(frames.numpy())["features"]
                rounded["features"].append(coarse)
                rounded["logits"].append(in_8_bits.run_head(coarse[None])["logits"])
            if length == num_frames:
                usual.append(features)
            on_progress(number + 1, len(clips))
        together = torch.stack(usual)
        add(_head_truth(model, together), exported.run_head(together.numpy()))
    outputs = [_difference(name, found) for name, found in pairs.items() if found]
    exact = {name: [values for values, _ in pairs[name][: len(clips)]] for name in rounded}
    return Parity(outputs, _int8(exact, rounded) if in_8_bits is not None else None)


def write_backbone(model: FERGCN, crop: int, path: Path) -> None:
    """Write backbone and projection.

    Args:
        model: in evaluation mode, on the CPU.
        crop: side of the frames, in pixels.
        path: the file.

    Raises:
        FergcnError: torch can't export it.
    """
    free = {0: torch.export.Dim("batch")}
    frames = torch.zeros(2, 3, crop, crop)
    _write(_Backbone(model), "frames", frames, free, ["features"], path)


def write_head(model: FERGCN, path: Path) -> None:
    """Write the head.

    Args:
        model: in evaluation mode, on the CPU.
        path: the file.

    Raises:
        FergcnError: torch can't export it.
    """
    num_frames, width = model.config.num_frames, model.config.frame_dim
    outputs = ["logits"]
    if isinstance(model.head, GraphHead):
        outputs += ["weights", "contributions"]
    free = {0: torch.export.Dim("batch")}
    if model.config.per_clip:
        outputs += ["intensity"]
        free[1] = torch.export.Dim("frames")
        num_frames += 3  # with N itself, the interpolation of A would not be in the trace
    features = torch.zeros(2, num_frames, width)
    _write(_Head(model), "features", features, free, outputs, path)


def export_recognition(path: Path = NETWORK) -> None:
    """Write dlib's face recognition, weights as float16, for the tracker to know people by.

    Args:
        path: the file; it appears under its name only when complete.

    Raises:
        OSError: the package with dlib's weights is not installed.
    """
    import onnx

    network = FaceRecognition()
    frames = torch.zeros(2, 3, network.side, network.side)
    partial = path.with_name(path.name + ".partial")
    _write(network, "frames", frames, {0: torch.export.Dim("batch")}, ["vectors"], partial)
    written = onnx.load(partial)
    casts = []
    for tensor in written.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            values, name = onnx.numpy_helper.to_array(tensor), tensor.name
            half = onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.stored")
            tensor.CopyFrom(half)
            casts.append(
                onnx.helper.make_node("Cast", [half.name], [name], to=onnx.TensorProto.FLOAT)
            )
    nodes = [*casts, *written.graph.node]
    del written.graph.node[:]
    written.graph.node.extend(nodes)
    partial.write_bytes(written.SerializeToString())
    partial.replace(path)


class _Backbone(nn.Module):
    """Frames in, what `write_backbone` names out."""

    def __init__(self, model: FERGCN) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> Tensor:
        return self.model.frame_features(frames)


class _Head(nn.Module):
    """Features in, what `write_head` names out."""

    def __init__(self, model: FERGCN) -> None:
        super().__init__()
        self.head = model.head

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        if not isinstance(self.head, GraphHead):
            return (self.head(features),)
        return tuple(output for output in self.head.read(features) if output is not None)


def _write(
    module: nn.Module,
    name: str,
    example: Tensor,
    free: dict[int, Any],
    outputs: list[str],
    path: Path,
) -> None:
    from onnxscript import optimizer

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch warns of its own ways
        try:
            program = torch.onnx.export(
                module.eval(),
                (example,),
                dynamo=True,
                input_names=[name],
                output_names=outputs,
                dynamic_shapes=(free,),
                opset_version=OPSET,
                verbose=False,
                optimize=False,  # it would fold normalisation into weights, and share_weights none
            )
        except torch.onnx.OnnxExporterError as error:
            raise FergcnError(
                f"found a network that torch can't export ({str(error).splitlines()[0]}), "
                "expected another backbone: use --runtime torch"
            ) from None
    assert program is not None  # it is None only where torch writes the file itself
    shape = program.model.graph.inputs[0].shape
    # Where code looks at a size as a number, torch fixes the size and goes on.
    if shape is None or any(isinstance(shape[axis], int) for axis in free):
        raise FergcnError(
            f"found a network that torch exports for {shape} alone, expected any batch: "
            "use another backbone or --runtime torch"
        )
    # A transposed weight would be another one than the checkpoint's.
    optimizer.fold_constants(
        program.model, should_fold=lambda node: False if node.op_type == "Transpose" else None
    )
    optimizer.remove_unused_nodes(program.model)
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # where in whose files torch met it
    program.save(path)


def share_weights(path: Path, weights: Path) -> None:
    """Let an ONNX file read the weights that it has in common with a checkpoint from that.

    Args:
        path: the ONNX file; it is replaced.
        weights: the checkpoint's safetensors file, in the same folder; what is float16 there is
            cast when the ONNX file is opened.
    """
    import onnx

    kinds = {"F16": onnx.TensorProto.FLOAT16, "F32": onnx.TensorProto.FLOAT}
    with weights.open("rb") as file:  # its length in 8 bytes, the header in JSON, the values
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    network = onnx.load(path)
    casts = []
    for tensor in network.graph.initializer:
        stored = header.get(tensor.name.removeprefix("model."))
        if stored is None or stored["shape"] != list(tensor.dims) or stored["dtype"] not in kinds:
            continue
        kind = kinds[stored["dtype"]]
        if kind != tensor.data_type:
            name, tensor.name = tensor.name, f"{tensor.name}.stored"
            casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=tensor.data_type))
            tensor.data_type = kind
        start, end = stored["data_offsets"]
        onnx.external_data_helper.set_external_data(
            tensor, weights.name, offset=8 + length + start, length=end - start
        )
        tensor.ClearField("raw_data")
    nodes = [*casts, *network.graph.node]
    del network.graph.node[:]
    network.graph.node.extend(nodes)
    path.write_bytes(network.SerializeToString())


def _card(checkpoint: Checkpoint, model: FERGCN, hashes: dict[str, str]) -> dict[str, Any]:
    head = model.head
    return {
        "format": FORMAT,
        "model": asdict(model.config),
        "expressions": list(checkpoint.expressions),
        "resize": checkpoint.resize,
        "crop": checkpoint.crop,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "any_num_frames": model.config.per_clip,
        "classifier_bias": head.classifier.bias.tolist() if isinstance(head, GraphHead) else None,
        "checkpoint_sha256": checkpoint.sha256,
        "files": hashes,
        "opset": OPSET,
        "versions": {
            name: version(name) for name in ("fergcn", "torch", "onnx", "onnxscript", "onnxruntime")
        },
        "metadata": checkpoint.metadata,
    }


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise FergcnError(
            f"found no package {error.name}, expected the extra export: "
            "run pip install 'fergcn[export]'"
        ) from None


def _check_place(directory: Path) -> None:
    """Refuse to replace what is no export."""
    ours = {CARD_FILE, BACKBONE_FILE, INT8_FILE, HEAD_FILE, PARITY_FILE}
    if directory.is_dir():
        others = sorted(path.name for path in directory.iterdir() if path.name not in ours)
        if not others:
            return
        found = f"a folder with {others[0]}"
    elif directory.exists():
        found = "a file"
    else:
        return
    raise FergcnError(
        f"{directory}: found {found}, expected an empty or no folder, or an export: "
        "choose another with -o"
    )


def _head_truth(model: FERGCN, features: Tensor) -> dict[str, Tensor]:
    if not isinstance(model.head, GraphHead):
        return {"logits": model.head(features)}
    reading = model.head.read(features)._asdict()
    return {name: output for name, output in reading.items() if output is not None}


def _difference(name: str, found: list[tuple[Tensor, NDArray[np.float32]]]) -> Difference:
    truth = np.concatenate([values.numpy().ravel() for values, _ in found])
    outputs = np.concatenate([values.ravel() for _, values in found])
    return Difference(
        name, truth.size, float(np.abs(truth).max()), float(np.abs(truth - outputs).max())
    )


def _int8(exact: dict[str, list[Tensor]], rounded: dict[str, list[NDArray[np.float32]]]) -> Int8:
    features = torch.cat(exact["features"])
    off = torch.from_numpy(np.concatenate(rounded["features"])) - features
    probs = torch.cat(exact["logits"]).softmax(1)
    coarse = torch.from_numpy(np.concatenate(rounded["logits"])).softmax(1)
    return Int8(
        features=float(off.norm() / features.norm()),
        answers=len(probs),
        same=int((probs.argmax(1) == coarse.argmax(1)).sum()),
        probability=float((probs - coarse).abs().max()),
    )
