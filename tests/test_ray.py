"""Videos spread over a Ray cluster give what one process gives, whoever dies on the way."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

TIMEOUT_S = 300


def test_no_cluster_is_one_line(
    run,
    face_video: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ("predict", face_video, "-o", tmp_path / "out", "--checkpoint", tiny_checkpoint)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # free as soon as it is closed
    for address in (f"127.0.0.1:{port}", "nowhere"):
        code, out, err = run(*arguments, "--ray", address)
        assert (code, out) == (1, "")
        assert err.count("\n") == 1 and address in err and "ray start --head" in err
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    code, _, err = run(*arguments, "--ray", "auto")
    assert code == 1 and err.count("\n") == 1 and "pip install 'fergcn[ray]'" in err


@pytest.fixture
def cluster() -> Iterator[tuple[str, Path]]:
    """A cluster with two worker processes → (its address, its folder)."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: it holds sockets
    environment = {
        **os.environ,
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        # A busy machine takes longer to start than Ray has patience for.
        "RAY_raylet_start_wait_time_s": str(TIMEOUT_S),
        "RAY_agent_register_timeout_ms": str(1000 * TIMEOUT_S),
    }
    ray = Path(sys.executable).with_name("ray")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                *(ray, "start", "--head", "--block", "--num-cpus=2", "--port=0"),
                *("--node-ip-address=127.0.0.1", "--include-dashboard=false"),
                *("--disable-usage-stats", f"--temp-dir={folder / 'ray'}"),
                "--object-store-memory=80000000",
            ],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        try:
            wait_for(lambda: "Ray runtime started" in (folder / "log").read_text(), process)
        except AssertionError:
            for path in (folder / "log", *folder.glob("ray/session_latest/logs/raylet.*")):
                print(path.read_text()[-3000:])
            raise
        found = re.search(r"--address='([^']+)'", (folder / "log").read_text())
        assert found is not None
        yield found[1], folder
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(condition: Callable[[], object], process: subprocess.Popen) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert process.poll() is None, "the process ended before"
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def busy_workers(folder: Path) -> list[int]:
    """Processes of the cluster that are at a task."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            name = (place / "cmdline").read_bytes()
            parent = (place / "stat").read_text().rpartition(")")[2].split()[1]
            ours = str(folder).encode() in Path("/proc", parent, "cmdline").read_bytes()
        except (OSError, IndexError):  # no process, or it is gone
            continue
        if ours and name.startswith(b"ray::_run_in"):
            found.append(int(place.name))
    return found


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs Linux's /proc")
def test_a_killed_worker_loses_and_doubles_nothing(
    run, cluster: tuple[str, Path], face_video: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    address, folder = cluster
    videos = [tmp_path / f"{number}.mp4" for number in range(5)]
    for video in videos:
        shutil.copy(face_video, video)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    far, near = tmp_path / "far", tmp_path / "near"
    arguments = ["predict", *videos, broken, "--checkpoint", tiny_checkpoint.name]
    process = subprocess.Popen(  # relative paths must mean the same on the cluster
        [sys.executable, "-m", "fergcn", *arguments, "-o", far.name, "--ray", address],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        # In the middle: one video is begun, not done.
        wait_for(lambda: list(far.glob("*.partial")) and busy_workers(folder), process)
        killed = busy_workers(folder)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        out, err = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert killed
    assert process.returncode == 1, err
    assert err.count("\n") == 1 and "broken.mp4: found" in err
    code, expected, _ = run(*arguments[:-1], tiny_checkpoint, "-o", near)
    assert code == 1
    assert sorted(out.replace("far", "near").splitlines()) == sorted(
        expected.replace(str(near), "near").splitlines()
    )
    assert sorted(path.name for path in far.iterdir()) == sorted(
        path.name for path in near.iterdir()
    )
    for path in near.rglob("*.csv"):
        tables = [pd.read_csv(place / path.relative_to(near)) for place in (far, near)]
        if path.name == "videos.csv":
            tables = [table.sort_values("file", ignore_index=True) for table in tables]
        pd.testing.assert_frame_equal(*tables, rtol=1e-3, atol=1e-3)
