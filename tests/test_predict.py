"""What goes wrong while videos are analysed: the trouble of one stays its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from fergcn.analysis.config import AnalysisConfig
from fergcn.analysis.network import FaceNetwork
from fergcn.commands.demo import DEMO_VIDEO
from fergcn.commands.predict import Job, analyze_to, run_job
from fergcn.report.outputs import COMPLETE_FILES, is_current
from fergcn.video import read_frames
from odd_files import encode, face_pictures
from test_analysis import write_scenes

TIMEOUT_S = 600
"""Of a machine with much else to do."""
Run = Callable[..., tuple[int, str, str]]


@contextmanager
def predict(*arguments: object) -> Iterator[subprocess.Popen]:
    """The command in a process of its own, which is gone afterwards."""
    command = [sys.executable, "-m", "fergcn", "predict", *map(str, arguments)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=env, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], Any], process: subprocess.Popen) -> Any:
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def has_rows(output: Path, name: str) -> bool:
    table = output / f"{name}.partial" / "frames.csv"
    return table.exists() and table.read_text().count("\n") > 2


def long_video(path: Path) -> Path:
    return write_scenes(path, [[(20 * (k % 12), 10)] for k in range(120)])


def statuses(output: Path) -> dict[str, str]:
    table = pd.read_csv(output / "videos.csv")
    names = [Path(file).stem for file in table["file"]]
    return dict(zip(names, table["status"], strict=True))


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), MemoryError(), cv2.error("odd")])
def test_an_error_nobody_foresaw_is_one_line(
    error: Exception,
    run: Run,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The library that aligns faces fails at pictures of one size."""
    align = cv2.warpAffine

    def warp_affine(image: np.ndarray, *rest: Any, **more: Any) -> np.ndarray:
        if image.shape[1] == 2 * wide:
            raise error
        return align(image, *rest, **more)

    pictures = face_pictures()[:2]
    wide = pictures[0].shape[1]
    double = [np.hstack([picture, picture]) for picture in pictures]
    videos = [
        encode(tmp_path / f"{name}.mp4", double if name == "b" else pictures) for name in "abc"
    ]
    monkeypatch.setattr(cv2, "warpAffine", warp_affine)
    options = ("-o", tmp_path / "out", "--checkpoint", tiny_checkpoint)
    for video in videos:  # one by one: several would be analysed in a process without our patch
        code, out, err = run("predict", video, *options)
        if video.stem == "b":
            assert (code, out) == (1, "")
            assert err.count("\n") == 1 and f"b.mp4: found {type(error).__name__}" in err
            assert ", expected" in err
        else:
            assert code == 0 and "2 of 2 frames show a face" in out
    assert statuses(tmp_path / "out") == {"a": "done", "b": "failed", "c": "done"}
    assert not (tmp_path / "out" / "b").exists()
    monkeypatch.setenv("FERGCN_DEBUG", "1")
    code, _, err = run("predict", videos[1], *options)
    assert code == 1 and "Traceback" in err and "warp_affine" in err


def workers_at(folder: Path) -> set[int]:
    """Processes that have a file of a folder open."""
    found = set()
    for place in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            is_there = folder in place.readlink().parents
        except OSError:  # it is gone, or not ours
            continue
        if is_there:
            found.add(int(place.parts[2]))
    return found


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_costs_its_own_video_only(
    workers: int, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Whoever works on one of the videos is killed, twice, as by a decoder that crashes."""
    output = tmp_path / "out"
    videos = [encode(tmp_path / f"{name}.mp4", face_pictures()) for name in ("a", "fatal", "b")]
    killed: set[int] = set()

    def kill() -> bool:
        for worker in workers_at(output / "fatal.partial") - killed:
            os.kill(worker, signal.SIGKILL)
            killed.add(worker)
        return len(killed) == 2

    options = ("-o", output, "--checkpoint", tiny_checkpoint, "--num-workers", workers)
    with predict(*videos, *options) as process:
        wait_for(kill, process)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1, err
    assert err.count("\n") == 1 and "fatal.mp4: found that its process was killed 2 times" in err
    assert out.count("frames show a face") == 2
    assert statuses(output) == {"a": "done", "fatal": "failed", "b": "done"}
    assert not (output / "fatal").exists()


@pytest.mark.nightly
@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores, and Linux to keep a process on one",
)
def test_two_workers_on_two_cores_against_one_on_one(tmp_path: Path) -> None:
    """20 files by one worker on one core, then by two on two, each the better of two turns."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for k in range(20):
        shutil.copy(DEMO_VIDEO, videos / f"{k}.mp4")
    everywhere = sorted(os.sched_getaffinity(0))

    def seconds(count: int) -> float:
        options = ("--num-workers", count, "--overwrite", "-o", tmp_path / str(count))
        os.sched_setaffinity(0, everywhere[:count])  # a new process has its parent's
        start = time.perf_counter()
        with predict(videos, *options) as process:
            _, err = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, err
        return time.perf_counter() - start

    try:
        turns = [(seconds(1), seconds(2)) for _ in range(2)]
    finally:
        os.sched_setaffinity(0, everywhere)
    one, two = (min(times) for times in zip(*turns, strict=True))
    print(f"one worker {one:.1f} s, two {two:.1f} s: {one / two:.2f} times as fast")
    assert one >= 1.6 * two


@pytest.mark.parametrize("how", ["grows", "is replaced", "goes away"])
def test_a_file_that_changes_while_it_is_read_is_not_done(
    how: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    video, other = (encode(tmp_path / name, face_pictures()) for name in ("a.mp4", "b.mp4"))
    network, settings = FaceNetwork(tiny_checkpoint, "cpu"), AnalysisConfig()

    def change(*_: object) -> None:
        if how == "grows" and video.stat().st_size == other.stat().st_size:
            with video.open("ab") as file:
                file.write(other.read_bytes())
        elif how == "is replaced" and other.exists():
            other.replace(video)
        elif how == "goes away":
            video.unlink(missing_ok=True)

    def analyze(progress: Callable[..., None]) -> list[str]:
        result = analyze_to(video, tmp_path / "a", network, settings, [], progress)
        return [text for text in result.summary["warnings"] if "changed while it was read" in text]

    assert len(analyze(change)) == 1
    assert all((tmp_path / "a" / name).exists() for name in COMPLETE_FILES)
    assert not is_current(tmp_path / "a", video, settings, network)
    if how != "goes away":
        assert analyze(lambda *_: None) == []
        assert is_current(tmp_path / "a", video, settings, network)


def test_two_runs_into_one_folder(run: Run, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The second one leaves the video that the first one is at alone, and does the others."""
    output = tmp_path / "out"
    video, short = long_video(tmp_path / "long.mp4"), tmp_path / "short.mp4"
    encode(short, face_pictures()[:2])
    options = ("-o", output, "--checkpoint", tiny_checkpoint, "--window-s", "0.5")
    with predict(video, *options, "--overlay") as first:
        wait_for(lambda: has_rows(output, "long"), first)
        first.send_signal(signal.SIGSTOP)  # it is at work for as long as this takes
        code, out, err = run("predict", video, short, *options)
        first.send_signal(signal.SIGCONT)
        _, err_first = first.communicate(timeout=TIMEOUT_S)
    assert (code, "2 of 2 frames" in out) == (1, True)
    assert err.count("\n") == 1 and "found that another run is writing here" in err
    assert (first.returncode, err_first) == (0, "")
    assert len(pd.read_csv(output / "long" / "frames.csv")) == 120
    assert (output / "long" / "overlay.mp4").exists()
    assert sorted(path.name for path in output.iterdir()) == ["long", "short", "videos.csv"]
    assert statuses(output) == {"long": "done", "short": "done"}


def test_two_runs_that_add_an_overlay(run: Run, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """One draws and the other leaves it alone; one that is killed leaves nothing in the results."""
    output = tmp_path / "out"
    video = long_video(tmp_path / "long.mp4")
    options = ("-o", output, "--checkpoint", tiny_checkpoint, "--window-s", "0.5")
    assert run("predict", video, *options)[0] == 0
    files = sorted(path.name for path in (output / "long").iterdir())

    def draws() -> bool:
        return any(output.glob("long.partial/*"))

    with predict(video, *options, "--overlay") as first:
        wait_for(draws, first)
        first.send_signal(signal.SIGSTOP)
        code, _, err = run("predict", video, *options, "--overlay")
        assert (code, "found that another run is writing here" in err) == (1, True)
        table = pd.read_csv(output / "videos.csv")
        assert (list(table["status"]), list(table["results"])) == (["done"], ["long"])
        first.kill()
    assert sorted(path.name for path in (output / "long").iterdir()) == files
    assert run("predict", video, *options, "--overlay")[0] == 0
    assert sorted(path.name for path in (output / "long").iterdir()) == sorted(
        [*files, "overlay.mp4"]
    )
    assert sorted(path.name for path in output.iterdir()) == ["long", "videos.csv"]


def test_a_video_that_is_replaced_before_it_is_drawn(tiny_checkpoint: Path, tmp_path: Path) -> None:
    video = encode(tmp_path / "a.mp4", face_pictures()[:8])
    job = Job(video, tmp_path / "a", str(tiny_checkpoint), AnalysisConfig(), [], 1)
    assert not run_job(job).failed
    encode(video, face_pictures()[:5])
    again = run_job(replace(job, draw=["overlay.mp4"], is_analyzed=True))
    assert again.summary is not None and again.summary["counts"]["frames"] == 5
    assert len(list(read_frames(tmp_path / "a" / "overlay.mp4"))) == 5
