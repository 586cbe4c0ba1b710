"""The bench command: speed as ratios in one run, so that a noisy machine cannot lie much."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
from cyclopts import Parameter
from rich.table import Table
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from fergcn.analysis.collect import analyze_video
from fergcn.analysis.config import AnalysisConfig
from fergcn.analysis.network import FaceNetwork
from fergcn.analysis.tables import Row
from fergcn.checkpoint import load_checkpoint
from fergcn.commands.peers import bench_peers
from fergcn.commands.progress import progress_bars, stdout
from fergcn.expressions import FergcnError
from fergcn.model import FERGCN, ModelConfig
from fergcn.progress import Progress
from fergcn.report.outputs import ResultWriter

WINDOWS = 32
"""Windows at stride 1 that are answered at once."""


def bench(
    *videos: Path,
    repeats: int = 3,
    peers: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Measure speed as ratios on this machine.

    What is compared is run in turns; each figure is the median over the turns.

    Args:
        videos: also analyse these with the default checkpoint and tell where the time goes.
        repeats: turns.
        peers: also against fer 25.10 on each video; it is installed into an environment of its own
            in the cache, once.
    """
    if peers and not videos:
        raise FergcnError("found --peers without a video, expected one: fergcn bench VIDEO --peers")
    stdout.print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    table = Table("what", "against", "ratio", "wanted", title="Network (VGG16-BN, 16 × 224 px)")
    with progress_bars() as report:
        head_share, step_share = _network_ratios(repeats, report)
        shared = _sharing_ratio(repeats)
        help_s = _help_seconds(repeats)
    table.add_row("graph head forward", "backbone forward", f"{head_share:.2%}", "≤ 3 %")
    table.add_row(
        "training steps a second", "bare backbone forward + backward", f"{step_share:.1%}", "≥ 90 %"
    )
    table.add_row(
        "windows at stride 1 that share features",
        "each window by itself (default checkpoint)",
        f"{shared:.1f} ×",
        "≥ 12 ×",
    )
    table.add_row("fergcn --help", "", f"{help_s:.2f} s", "≤ 0.40 s")
    stdout.print(table)
    for video in videos:
        _bench_video(video)
        if peers:
            bench_peers(video, repeats)


def _network_ratios(repeats: int, report: Progress) -> tuple[float, float]:
    """Head time over backbone time, and backbone training time over that of the whole network."""
    model = FERGCN(ModelConfig(num_classes=7, pretrained=False))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    frames, targets = torch.randn(1, 16, 3, 224, 224), torch.tensor([3])
    with torch.inference_mode():
        features = model.frame_features(frames[0])[None]

    def head_forward() -> None:
        with torch.inference_mode():
            model.head(features)

    def backbone_forward() -> None:
        with torch.inference_mode():
            model.backbone(frames[0])

    def backbone_step() -> None:
        model.zero_grad()
        torch.autograd.backward(model.backbone(frames[0]).sum())

    def training_step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(frames), targets))
        optimizer.step()

    jobs = (head_forward, backbone_forward, backbone_step, training_step)
    seconds: dict[str, list[float]] = {job.__name__: [] for job in jobs}
    for turn in range(repeats + 1):
        for job in jobs:
            taken = _seconds(job)
            if turn > 0:  # the first turn warms up
                seconds[job.__name__].append(taken)
        report("turns", turn + 1, repeats + 1)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return (
        median["head_forward"] / median["backbone_forward"],
        median["backbone_step"] / median["training_step"],
    )


def _sharing_ratio(repeats: int) -> float:
    """Time of windows at stride 1 that are run by themselves, over that of those of the engine."""
    network = FaceNetwork("default", "cpu")
    side = network.checkpoint.resize
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (WINDOWS + network.num_frames - 1, side, side, 3), dtype=np.uint8)
    spans = [slice(start, start + network.num_frames) for start in range(WINDOWS)]
    before = network.features(faces[: network.num_frames - 1])

    def by_themselves() -> None:
        for span in spans:
            network.answers(network.features(faces[span])[None])

    def shared() -> None:
        new = network.features(faces[network.num_frames - 1 :])  # each face is new once
        features = np.concatenate([before, new])
        network.answers(np.stack([features[span] for span in spans]))

    shared()  # warms up
    turns = [(_seconds(by_themselves), _seconds(shared)) for _ in range(repeats)]
    return statistics.median(alone / together for alone, together in turns)


def _help_seconds(repeats: int) -> float:
    command = [sys.executable, "-m", "fergcn", "--help"]
    return statistics.median(
        _seconds(lambda: subprocess.run(command, check=True, capture_output=True))
        for _ in range(repeats + 2)
    )


def _seconds(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def _bench_video(video: Path) -> None:
    network = FaceNetwork("default", "cpu")
    with TemporaryDirectory() as folder:
        _stage_seconds(video, network, Path(folder))  # warms up
        frames, seconds, total = _stage_seconds(video, network, Path(folder))
    table = Table("stage", "s", "share", title=f"{video.name}: {frames / total:.1f} frames/s")
    for stage, taken in seconds.items():
        table.add_row(stage, f"{taken:.2f}", f"{taken / total:.0%}")
    table.add_row("total", f"{total:.2f}", "100%")
    stdout.print(table)
    stdout.print("stages run beside each other, so they can take more than the total")
    in_32_bits, in_8_bits, peak = _backbone_flops()
    stdout.print(
        f"backbone alone: {in_32_bits:.0f} GFLOP/s in 32 bits, {in_32_bits / peak:.0%} of the "
        f"{peak:.0f} that large matrix products reach on this machine; in 8 bits, as predict runs "
        f"it on a CPU, {in_8_bits:.0f}, {in_8_bits / in_32_bits:.1f} times as many"
    )


def _stage_seconds(
    video: Path, network: FaceNetwork, folder: Path
) -> tuple[int, dict[str, float], float]:
    """Analyse a video and write its results.

    Returns:
        Its frames, the seconds of each stage, and those from start to end.
    """
    write_s = 0.0

    def add(name: str, row: Row) -> None:
        nonlocal write_s
        write_s += _seconds(lambda: writer.add(name, row))

    start = time.perf_counter()
    with ResultWriter(folder, network.checkpoint.expressions, video=video) as writer:
        summary = analyze_video(video, network, AnalysisConfig(), add)
        write_s += _seconds(lambda: writer.finish(summary))
    total = time.perf_counter() - start
    stages = {stage: taken for stage, taken in summary["timings_s"].items() if stage != "total"}
    return summary["counts"]["frames"], stages | {"write": write_s}, total


def _backbone_flops() -> tuple[float, float, float]:
    """GFLOP/s of the default backbone in 32 and in 8 bits, and of a large matrix product."""
    checkpoint = load_checkpoint("default")
    exact, coarse = (FaceNetwork("default", "cpu", runtime) for runtime in ("onnx", "int8"))
    model, batch = checkpoint.model, AnalysisConfig().batch_size
    assert isinstance(model, FERGCN)
    matrix = torch.rand(2048, 2048)
    faces = np.zeros((batch, checkpoint.resize, checkpoint.resize, 3), np.uint8)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            model.backbone_features(torch.zeros(batch, 3, checkpoint.crop, checkpoint.crop))
        in_32_bits = min(_seconds(lambda: exact.features(faces)) for _ in range(9))
        in_8_bits = min(_seconds(lambda: coarse.features(faces)) for _ in range(9))
        product = min(_seconds(lambda: matrix @ matrix) for _ in range(9))
    work = counter.get_total_flops() / 1e9
    return work / in_32_bits, work / in_8_bits, 2 * 2048**3 / 1e9 / product
