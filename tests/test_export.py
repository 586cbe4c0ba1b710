"""Exported networks answer as torch does, whatever the batch and, where it is free, the length."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from conftest import tiny_config
from fergcn import export
from fergcn.analysis.network import FaceNetwork
from fergcn.checkpoint import SHIPPED, save_checkpoint
from fergcn.clips import load_clip
from fergcn.datasets.rendered import load_rendered
from fergcn.export import TOLERANCE, write_backbone, write_head
from fergcn.faces.recognition import RECOGNIZED_SIDE, face_vectors
from fergcn.model import FERGCN, GraphHead, VideoCNN
from fergcn.model.face_networks import FaceRecognition
from fergcn.quantize import EXACT, quantize_backbone
from fergcn.transforms import eval_transform
from test_analysis import write_scenes

CLASSES = ("anger", "happiness", "neutral")


def network(**changes: Any) -> FERGCN:
    """A tiny network none of whose parameters and statistics has its special first value."""
    torch.manual_seed(0)
    model = FERGCN(tiny_config(**{"feature_dim": 8, **changes})).eval()
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        if isinstance(model.head, GraphHead) and model.head.per_clip:
            model.head.temperature.fill_(1.5)
            model.head.shift.normal_()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    return model


def outputs_of(path: Path, value: torch.Tensor) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {session.get_inputs()[0].name: value.numpy()})
    return dict(zip(names, found, strict=True))


QUICK_HEADS = {
    "shared": {},
    "per clip": {"adjacency": "per_clip", "num_modules": 1, "neutral": 1},
    "transformer": {"network": "transformer"},
}
OTHER_HEADS = {
    "own": {"adjacency": "own", "temporal": "concat"},
    "identity": {"adjacency": "identity", "temporal": "none", "fusion": "last"},
    "two modules per clip, mean": {"adjacency": "per_clip", "fusion": "mean"},
    "without modules": {"adjacency": "per_clip", "num_modules": 0},
    "frame-average": {"network": "frame-average"},
    "cnn-bilstm": {"network": "cnn-bilstm"},
    "frame-attention": {"network": "frame-attention"},
}


@pytest.mark.parametrize(
    "changes",
    [
        *(pytest.param(changes, id=name) for name, changes in QUICK_HEADS.items()),
        *(
            pytest.param(changes, id=name, marks=pytest.mark.nightly)
            for name, changes in OTHER_HEADS.items()
        ),
    ],
)
def test_heads_answer_alike(changes: dict[str, Any], tmp_path: Path) -> None:
    model = network(**changes)
    head, num_frames = model.head, model.config.num_frames
    path = tmp_path / "head.onnx"
    write_head(model, path)
    lengths = [num_frames]
    if model.config.per_clip:
        lengths += [1, num_frames - 1, num_frames + 9]
    for length in lengths:
        for batch in (1, 5):
            features = torch.randn(batch, length, model.config.frame_dim)
            outputs = outputs_of(path, features)
            with torch.no_grad():
                truth = {"logits": head(features)}
                if isinstance(head, GraphHead):
                    reading = head.read(features)
                    truth |= {"weights": reading.weights, "contributions": reading.contributions}
                    if len(lengths) > 1:
                        truth["intensity"] = reading.intensity
            assert outputs.keys() == truth.keys()
            for name, values in truth.items():
                np.testing.assert_allclose(outputs[name], values.numpy(), atol=1e-5)


# dlib's network pads by shape, and differently at odd sizes; EfficientNet as TensorFlow does.
@pytest.mark.parametrize(
    ("backbone", "crop"),
    [
        ("face_resnet", 67),
        *(
            pytest.param(*case, marks=pytest.mark.nightly)
            for case in (
                ("face_mobilenet", 65),
                ("vgg16_bn", 32),
                ("tf_efficientnet_lite0", 33),
                ("test_vit", 160),
            )
        ),
    ],
)
def test_backbones_answer_alike(backbone: str, crop: int, tmp_path: Path) -> None:
    model = network(backbone=backbone, num_modules=0)
    path = tmp_path / "backbone.onnx"
    write_backbone(model, crop, path)
    for batch in (1, 3):
        frames = torch.randn(batch, 3, crop, crop)
        outputs = outputs_of(path, frames)
        with torch.no_grad():
            features = model.frame_features(frames).numpy()
        assert outputs.keys() == {"features"}
        np.testing.assert_allclose(outputs["features"], features, atol=1e-4, rtol=1e-4)


def test_first_convolutions_keep_32_bits_where_8_answer_otherwise(tmp_path: Path) -> None:
    source, target = tmp_path / "backbone.onnx", tmp_path / "backbone-int8.onnx"
    write_backbone(network(num_modules=0), 32, source)
    frames = torch.randn(4, 3, 32, 32)
    truth = outputs_of(source, frames)["features"]

    def quantized(tolerance: float) -> tuple[list[bool], float]:
        """Which convolutions have weights of 8 bits, and how far features are from the truth."""
        assert quantize_backbone(source, target, frames.numpy(), tolerance)
        graph = onnx.load(target).graph
        makers = {name: node.op_type for node in graph.node for name in node.output}
        convolutions = [node for node in graph.node if node.op_type == "Conv"]
        coarse = outputs_of(target, frames)["features"]
        of_8_bits = [makers.get(node.input[1]) == "DequantizeLinear" for node in convolutions]
        return of_8_bits, float(np.linalg.norm(coarse - truth) / np.linalg.norm(truth))

    everywhere, off = quantized(np.inf)
    assert all(everywhere) and off > 0
    assert quantized(off * 1.01)[0] == everywhere
    assert quantized(off * 0.99)[0] == [False] * 2 + [True] * (len(everywhere) - 2)


def test_two_products_of_8_bits_fit_into_16(tmp_path: Path) -> None:
    """As processors without VNNI add them: neighbouring channels, each with a value up to 255."""
    source, target = tmp_path / "backbone.onnx", tmp_path / "backbone-int8.onnx"
    write_backbone(network(num_modules=0), 32, source)
    assert quantize_backbone(source, target, torch.randn(4, 3, 32, 32).numpy(), np.inf)
    graph = onnx.load(target).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scaled = {node.output[0]: node.input[0] for node in graph.node}
    largest = []
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            weights = stored[scaled[node.input[1]]].astype(int)
            if node.op_type == "Conv":
                weights = weights.transpose(0, 2, 3, 1)
            flat = weights.reshape(len(weights), -1)
            for of_sign in (flat.clip(min=0), -flat.clip(max=0)):
                assert 255 * (of_sign[:, :-1] + of_sign[:, 1:]).max(initial=0) < 2**15
            largest.append(np.abs(flat).max())
    assert max(largest) > 64  # 7 bits would fit always


def test_other_convolutions_are_rounded_too(tmp_path: Path) -> None:
    """Over one axis, as in channel attention (ECA), and with weights that are made on the way."""
    source, target = tmp_path / "backbone.onnx", tmp_path / "backbone-int8.onnx"

    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.along = torch.nn.Conv1d(3, 8, 3)

        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            rows = self.along(frames.flatten(2))
            weights = rows.mean((0, 2))[:, None, None] * torch.ones(8, 8, 1)
            return torch.nn.functional.conv1d(rows, weights).mean(2)

    frames = torch.randn(4, 3, 8, 8)
    names = {"input_names": ["frames"], "output_names": ["features"]}
    torch.onnx.export(Odd().eval(), (frames,), source, external_data=False, **names)
    assert quantize_backbone(source, target, frames.numpy(), np.inf)
    exact, coarse = (outputs_of(path, frames)["features"] for path in (source, target))
    np.testing.assert_allclose(coarse, exact, atol=0.05 * np.abs(exact).max())


@pytest.fixture
def per_clip_checkpoint(tmp_path: Path) -> Path:
    directory = tmp_path / "checkpoint"
    model = network(adjacency="per_clip", num_modules=1)
    save_checkpoint(directory, model, CLASSES, resize=40, crop=32, half=True)
    return directory


def test_an_export_is_checked_and_predicts_as_torch_does(
    run, per_clip_checkpoint: Path, face_video: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out" / "exported"
    # Beyond any tolerance: exit 1 and nothing left, but the report is printed.
    code, out, err = run("export", per_clip_checkpoint, "-o", target, "--tolerance", 0)
    assert code == 1 and err.count("\n") == 1 and "nothing was written" in err
    assert "logits" in out
    assert list(target.parent.iterdir()) == []
    code, out, err = run("export", per_clip_checkpoint, "-o", target)
    assert code == 0, err
    assert sorted(path.name for path in target.iterdir()) == [
        *("backbone-int8.onnx", "backbone.onnx", "export.json", "head.onnx", "parity.json")
    ]
    source_card = json.loads((per_clip_checkpoint / "checkpoint.json").read_text())
    card = json.loads((target / "export.json").read_text())
    assert card["checkpoint_sha256"] == source_card["sha256"]
    assert [card[key] for key in ("expressions", "resize", "crop")] == [list(CLASSES), 40, 32]
    parity = json.loads((target / "parity.json").read_text())["outputs"]
    assert {entry["output"] for entry in parity} == {
        *("features", "intensity", "logits", "contributions", "weights")
    }
    for entry in parity:
        assert entry["values"] > 0 and entry["largest"] > 0
        assert entry["difference"] <= TOLERANCE
    # The export and the checkpoint, exported in passing, give what torch gives.
    for runtime, source in (
        ("torch", per_clip_checkpoint),
        ("onnx", target),
        ("onnx", per_clip_checkpoint),
    ):
        place = tmp_path / f"{runtime} {source.name}"
        settings = ("--runtime", runtime, "--checkpoint", source, "--stride", 2)
        code, _, err = run("predict", face_video, "-o", place, "--contributions", *settings)
        assert code == 0, err
        for name in ("frames", "windows", "segments", "contributions"):
            tables = [
                pd.read_csv(folder / face_video.stem / f"{name}.csv")
                for folder in (tmp_path / "torch checkpoint", place)
            ]
            pd.testing.assert_frame_equal(*tables, rtol=1e-3, atol=1e-3)
        assert len(tables[0]) > 0
    summary = json.loads((place / face_video.stem / "summary.json").read_text())
    assert summary["settings"]["runtime"] == "onnx"
    assert summary["checkpoint"]["sha256"] == source_card["sha256"]
    # A file that is not the card's is not run.
    (target / "head.onnx").write_bytes((target / "head.onnx").read_bytes()[:-1])
    code, _, err = run("predict", face_video, "--runtime", "onnx", "--checkpoint", target)
    assert code == 1 and "head.onnx: found another file" in err and err.count("\n") == 1
    # What is no export is not replaced.
    (target / "notes.txt").write_text("mine")
    code, _, err = run("export", per_clip_checkpoint, "-o", target)
    assert code == 1 and "notes.txt" in err and err.count("\n") == 1


def test_graphs_beside_the_weights(
    run, per_clip_checkpoint: Path, face_video: Path, tmp_path: Path
) -> None:
    """They hold no weights of their own, and an analysis takes them by itself."""
    folder = tmp_path / "with graphs"
    shutil.copytree(per_clip_checkpoint, folder)
    code, _, err = run("export", folder, "--in-place")
    assert code == 0, err
    tables = {}
    clips_of_all = load_rendered()[7::37]
    for runtime, wanted, checkpoint in (
        ("torch", "auto", per_clip_checkpoint),
        ("onnx", "onnx", folder),
        ("int8", "auto", folder),
    ):
        place = tmp_path / runtime
        settings = ("--checkpoint", checkpoint, "--runtime", wanted)
        code, _, err = run("predict", face_video, "-o", place, *settings)
        assert code == 0, err
        summary = json.loads((place / face_video.stem / "summary.json").read_text())
        assert summary["runtime"] == runtime and summary["settings"]["runtime"] == wanted
        tables[runtime] = pd.read_csv(place / face_video.stem / "frames.csv")
    pd.testing.assert_frame_equal(tables["torch"], tables["onnx"], rtol=1e-3, atol=1e-3)
    assert not tables["torch"].equals(tables["int8"])
    side = json.loads((folder / "checkpoint.json").read_text())["resize"]
    faces = np.stack([cv2.resize(load_clip(clip, 1)[0], (side, side)) for clip in clips_of_all])
    exact, coarse = (FaceNetwork(folder, "cpu", name).features(faces) for name in ("onnx", "int8"))
    assert 0 < np.linalg.norm(coarse - exact) < 0.1 * np.linalg.norm(exact)
    assert not list(folder.glob("*.partial"))
    weights = load_file(folder / "model.safetensors")
    shared = set()
    for name in ("backbone.onnx", "head.onnx"):
        graph = onnx.load(folder / name, load_external_data=False).graph
        stored = {value.name for value in graph.initializer if value.external_data}
        shared |= {value.removesuffix(".stored").removeprefix("model.") for value in stored}
    assert shared <= weights.keys() and {"projection.weight", "head.classifier.weight"} <= shared
    # Files that do not belong together, or that the card does not name, are not run.
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / "model.safetensors"
    path.write_bytes(path.read_bytes() + b" ")
    code, _, err = run("predict", face_video, "--checkpoint", tmp_path / "copy")
    assert code == 1 and "model.safetensors: found another file" in err and err.count("\n") == 1
    shutil.copytree(folder, tmp_path / "unnamed")
    card_path = tmp_path / "unnamed" / "export.json"
    card = json.loads(card_path.read_text())
    card_path.write_text(json.dumps(card | {"files": {}}))
    code, _, err = run("predict", face_video, "--checkpoint", tmp_path / "unnamed")
    assert code == 1 and "backbone.onnx: found another file" in err and err.count("\n") == 1


def test_8_bits_are_left_out_where_they_would_cost_too_much(
    run, per_clip_checkpoint: Path, face_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = run("export", per_clip_checkpoint, "--in-place")
    assert code == 0 and err == "" and (per_clip_checkpoint / "backbone-int8.onnx").exists()

    def difference() -> float:
        parity = json.loads((per_clip_checkpoint / "parity.json").read_text())
        return float(parity["int8"]["features"])

    assert 0 < difference() < export.INT8_TOLERANCE
    limit = difference() / 10
    monkeypatch.setattr(export, "INT8_TOLERANCE", limit)
    code, out, err = run("export", per_clip_checkpoint, "--in-place")
    assert (code, err) == (0, "") and difference() > limit
    assert f"differ by {difference():.1%}" in out
    assert "backbone-int8.onnx was left out" in out
    assert not (per_clip_checkpoint / "backbone-int8.onnx").exists()
    assert FaceNetwork(per_clip_checkpoint, "cpu").runtime == "onnx"
    settings = ("--runtime", "int8", "--checkpoint", per_clip_checkpoint)
    code, _, err = run("predict", face_video, *settings)
    assert code == 1 and err.count("\n") == 1
    assert "found an export without backbone-int8.onnx" in err and "--runtime onnx" in err
    # A file that is named and not there is not run without.
    monkeypatch.undo()
    assert run("export", per_clip_checkpoint, "--in-place")[0] == 0
    (per_clip_checkpoint / "backbone-int8.onnx").unlink()
    code, _, err = run("predict", face_video, "--checkpoint", per_clip_checkpoint)
    assert code == 1 and "backbone-int8.onnx: found no such file" in err


def test_what_is_no_number_is_not_exported(run, tmp_path: Path) -> None:
    model = network(adjacency="per_clip", num_modules=1)
    with torch.no_grad():
        next(model.backbone.parameters()).fill_(float("nan"))
    save_checkpoint(tmp_path / "broken", model, CLASSES, resize=40, crop=32)
    code, out, err = run("export", tmp_path / "broken", "-o", tmp_path / "out")
    assert code == 1 and not (tmp_path / "out").exists()
    assert err.count("\n") == 1 and "nothing was written" in err
    assert "no range for the values was found" in out


@pytest.mark.parametrize("name", SHIPPED)
def test_8_bits_in_the_package_answer_nearly_as_its_weights(name: str) -> None:
    """On clips by which the ranges of values were not chosen, and alone as in a batch."""
    in_8_bits, by_torch = FaceNetwork(name, "cpu"), FaceNetwork(name, "cpu", "torch")
    assert in_8_bits.runtime == "int8"
    graph = onnx.load(SHIPPED[name] / "backbone-int8.onnx").graph
    kinds = {value.name: value.data_type for value in graph.initializer}
    scaled = {node.output[0]: node.input[0] for node in graph.node}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 20
    weights = [kinds.get(scaled.get(node.input[1], "")) for node in convolutions]
    first = next(count for count in EXACT if weights[count] == onnx.TensorProto.INT8)
    assert set(weights[first:]) == {onnx.TensorProto.INT8}
    side, num_frames = by_torch.checkpoint.resize, by_torch.num_frames
    probs = []
    for clip in load_rendered()[5::37]:  # of all expressions
        faces = np.stack([cv2.resize(face, (side, side)) for face in load_clip(clip, num_frames)])
        exact, coarse = by_torch.features(faces), in_8_bits.features(faces)
        assert np.linalg.norm(coarse - exact) < 0.25 * np.linalg.norm(exact)
        np.testing.assert_allclose(in_8_bits.features(faces[3:4]), coarse[3:4], atol=1e-4)
        windows = (exact[None], coarse[None])
        logits = [torch.from_numpy(by_torch.answers(window).logits[0]) for window in windows]
        probs.append(torch.stack([values.softmax(0) for values in logits]))
    exact_probs, coarse_probs = torch.stack(probs).unbind(1)
    assert len(probs) == 18
    assert (exact_probs.argmax(1) == coarse_probs.argmax(1)).sum() >= 15
    off = (exact_probs - coarse_probs).abs()
    assert off.mean() < 0.015 and off.max() < 0.2


@pytest.mark.nightly
def test_8_bits_are_faster() -> None:
    """One thread each, in turns; twice as fast with VNNI, a little without."""
    exact, coarse = (FaceNetwork("default", "cpu", name, threads=1) for name in ("onnx", "int8"))
    side = exact.checkpoint.resize
    faces = np.random.default_rng(0).integers(0, 256, (16, side, side, 3)).astype(np.uint8)
    ratios = []
    for _ in range(7):
        seconds = []
        for network in (exact, coarse):
            begin = time.perf_counter()
            network.features(faces)
            seconds.append(time.perf_counter() - begin)
        ratios.append(seconds[0] / seconds[1])
    assert np.median(ratios) > 1.1


@pytest.mark.parametrize("name", SHIPPED)
def test_graphs_in_the_package_answer_as_its_weights(name: str) -> None:
    by_onnx, by_torch = (FaceNetwork(name, "cpu", runtime) for runtime in ("onnx", "torch"))
    graphs = [SHIPPED[name] / file for file in ("backbone.onnx", "head.onnx")]
    assert sum(path.stat().st_size for path in graphs) < 5e5
    side = by_torch.checkpoint.resize
    faces = np.random.default_rng(0).integers(0, 256, (5, side, side, 3)).astype(np.uint8)
    expected = by_torch.features(faces)
    np.testing.assert_allclose(by_onnx.features(faces), expected, atol=TOLERANCE)
    windows = expected[np.random.default_rng(1).integers(0, 5, (3, by_torch.num_frames))]
    for found, truth in zip(by_onnx.answers(windows), by_torch.answers(windows), strict=True):
        assert (found is None) == (truth is None)
        if truth is not None:
            np.testing.assert_allclose(found, truth, atol=TOLERANCE)


def test_tracker_knows_people_by_the_network_that_dlib_published() -> None:
    """The file in the package, half as precise; what is half as far apart as two people counts."""
    faces = np.stack([load_clip(clip, 1)[0] for clip in load_rendered()[::40]])
    faces = np.stack([cv2.resize(face, (RECOGNIZED_SIDE,) * 2) for face in faces])
    with torch.inference_mode():
        side = RECOGNIZED_SIDE
        truth = FaceRecognition().eval()(eval_transform(faces, side, side)).numpy()
    assert np.linalg.norm(face_vectors(faces) - truth, axis=1).max() < 0.01
    apart = np.linalg.norm(truth[:, None] - truth, axis=2)[~np.eye(len(faces), dtype=bool)]
    assert apart.min() > 0.2


def test_video_is_analysed_without_torch(tmp_path: Path) -> None:
    """Importing torch takes longer than analysing a short video."""
    film = write_scenes(tmp_path / "film.mp4", [[(20, 20)]] * 4)
    script = (
        "import sys; from pathlib import Path; from fergcn.analysis.config import AnalysisConfig;"
        "from fergcn.commands.predict import predict; settings = AnalysisConfig(device='cpu');"
        f"assert predict({str(film)!r}, output=Path({str(tmp_path)!r}), settings=settings) == 0;"
        "assert not {'torch', 'scipy', 'matplotlib', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    summary = json.loads((tmp_path / "film" / "summary.json").read_text())
    assert summary["runtime"] == "int8"
    assert torch.__version__.startswith(summary["versions"]["torch"])


def test_nobody_is_told(tmp_path: Path) -> None:
    """ONNX Runtime reports to its maker, and keeps a number for that, unless it is told not to."""
    script = (
        "import numpy as np; from fergcn.analysis.network import FaceNetwork;"
        "network = FaceNetwork('rendered-only', 'cpu'); assert network.runtime == 'int8';"
        "side = network.checkpoint.resize; network.features(np.zeros((1, side, side, 3), np.uint8))"
    )
    places = ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "TMPDIR")
    leave_out = ("ORT_DISABLE_TELEMETRY", "CI", "GITHUB_ACTIONS")  # these silence it, too
    kept = {name: value for name, value in os.environ.items() if name not in leave_out}
    environment = kept | dict.fromkeys(places, str(tmp_path))
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=120)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_cant_be_exported_is_one_line(
    run, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = tmp_path / "video"
    model = VideoCNN(tiny_config(network="r3d-18"))
    save_checkpoint(video, model, CLASSES, resize=40, crop=32)
    code, _, err = run("export", video, "-o", tmp_path / "out")
    assert code == 1 and "r3d-18" in err and err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as where it is not installed
    code, _, err = run("export", tiny_checkpoint, "-o", tmp_path / "out")
    assert code == 1 and err.count("\n") == 1
    assert "onnxscript" in err and "pip install 'fergcn[export]'" in err
    code, _, err = run("export", tiny_checkpoint, "--in-place", "-o", tmp_path / "out")
    assert code == 2 and err.count("\n") == 1 and "--in-place and --output" in err
    assert not (tmp_path / "out").exists()
