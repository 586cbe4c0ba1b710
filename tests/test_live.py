"""Live sources in a real process: a paced one over the loopback, and a file piped in."""

import functools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from fergcn.expressions import FergcnError
from fergcn.live import LiveSource, as_file, source_name
from fergcn.video import read_frames, write_video
from odd_files import encode
from test_analysis import scene

FPS = 10


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of a face, in a container that can be read from the middle of a stream."""
    path = tmp_path_factory.mktemp("live") / "recording.ts"
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"tune": "zerolatency", "g": "5"}
        )
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for k in range(4 * FPS):
            image = scene([(2 * k, 10)], width=320)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@contextmanager
def served(content: bytes, seconds: float, repeats: int) -> Iterator[str]:
    """Send bytes at an even pace to the first one who asks."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            connection, _ = server.accept()
            pieces = 100
            size = len(content) // pieces + 1
            with connection:
                for k in range(repeats * pieces):
                    try:
                        connection.sendall(content[k % pieces * size : (k % pieces + 1) * size])
                    except OSError:
                        return
                    if stop.wait(seconds / pieces):
                        return

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        finally:
            stop.set()


@contextmanager
def predict(
    source: str, output: Path, checkpoint: Path, **how: object
) -> Iterator[subprocess.Popen]:
    """The command in a process of its own, which is gone afterwards."""
    command = [sys.executable, "-m", "fergcn", "predict", source, "-o", str(output)]
    command += ["--checkpoint", str(checkpoint), "--window-s", "0.5", "--report"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=env, **pipes, **how) as process:
        try:
            yield process
        finally:
            process.kill()


def test_ctrl_c_ends_a_recording_with_whole_results(
    recording: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with (
        served(recording.read_bytes(), 4, repeats=300) as address,
        predict(address, tmp_path, tiny_checkpoint) as process,
    ):
        table = tmp_path / "127.0.0.1.partial" / "frames.csv"
        deadline = time.monotonic() + 600
        # Longer than the recording: its clock starts anew meanwhile.
        while not (table.exists() and table.read_text().count("\n") > 45):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "latency: windows" in out and "Traceback" not in err
    directory = tmp_path / "127.0.0.1"
    frames = pd.read_parquet(directory / "frames.parquet")
    assert len(frames) > 45 and (np.diff(frames["time_s"]) > 0).all()
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["counts"]["frames"] == len(frames)
    assert 0 < summary["latency_s"]["windows"]["median"] <= summary["latency_s"]["windows"]["p95"]
    assert (directory / "timeline.png").exists()
    page = (directory / "report.html").read_text(encoding="utf-8")
    assert "no pictures of the faces" in page or "No expression was strong" in page
    assert "MEDIA_DESCRIPTOR" not in (directory / "segments.eaf").read_text(encoding="utf-8")
    assert pd.read_csv(tmp_path / "videos.csv")["file"].tolist() == [address]


def test_file_piped_in_is_read_as_fast_as_it_is_analysed(
    recording: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with (
        subprocess.Popen(["cat", str(recording)], stdout=subprocess.PIPE) as cat,
        predict("-", tmp_path, tiny_checkpoint, stdin=cat.stdout) as process,
    ):
        out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    summary = json.loads((tmp_path / "stdin" / "summary.json").read_text())
    assert summary["counts"]["frames"] + summary["video"]["dropped_frames"] == 4 * FPS
    assert summary["counts"]["frames_with_face"] > 0  # a slow machine drops the others
    assert "stdin: " in out


def test_stdin_from_a_file_is_a_file(
    recording: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Its index may be at its end, it can be read twice, and none of its frames is dropped."""
    video = tmp_path / "video.mp4"
    write_video(video, (frame.image for frame in read_frames(recording)), FPS)
    with video.open("rb") as file, predict("-", tmp_path, tiny_checkpoint, stdin=file) as process:
        out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "40 of 40 frames show a face" in out
    assert (tmp_path / "video" / "report.html").exists()  # named as the file is
    program = "import os; os.close(0); from fergcn.live import as_file; assert as_file('-') is None"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_recording_behind_an_address_loses_no_frame(recording: Path, tmp_path: Path) -> None:
    """A server that can't jump in a file, and a reader slower than the video."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 240, 320, 3), dtype=np.uint8)
    write_video(tmp_path / "end.mp4", noise, FPS, crf=1)
    with av.open(str(recording)) as there, av.open(str(tmp_path / "a.mkv"), "w") as new:
        stream = new.add_stream_from_template(there.streams.video[0])
        for packet in there.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        source = LiveSource(f"{address}/a.mkv")
        times = []
        for frame in source.frames():
            times.append(frame.time_s)
            time.sleep(0.15)
        assert source.num_dropped == 0
        np.testing.assert_allclose(times, np.arange(4 * FPS) / FPS, atol=2e-3)
        with pytest.raises(FergcnError, match=r"found no frame \(.*has to be saved first"):
            list(LiveSource(f"{address}/end.mp4").frames())
        server.shutdown()


def test_mp4_for_streaming_is_no_recording(tmp_path: Path) -> None:
    """Though its first piece says how long that piece is, a slow reader gets the newest frame."""
    path = tmp_path / "stream.mp4"
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "500000"}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=FPS, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for k in range(4 * FPS):
            frame = av.VideoFrame.from_ndarray(scene([(2 * k, 10)], width=320), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with served(path.read_bytes(), 4, repeats=1) as address:
        source = LiveSource(address)
        for _ in source.frames():
            time.sleep(0.5)
    assert source.num_dropped > 10


def test_a_damaged_stretch_is_no_end(recording: Path) -> None:
    content = bytearray(recording.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    with served(bytes(content), 0.2, repeats=1) as address:
        source = LiveSource(address)
        times = [frame.time_s for frame in source.frames()]
    assert source.trouble is None
    assert times[-1] > 3 and len(times) + source.num_dropped > 2 * FPS


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_where_nothing_can_be_recorded_is_one_line(
    place: str, recording: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with (
        served(recording.read_bytes(), 1, repeats=1) as address,
        predict(address, tmp_path / place, tiny_checkpoint) as process,
    ):
        out, err = process.communicate(timeout=600)
    assert (process.returncode, out) == (1, "")
    last = err.splitlines()[-1]
    assert "Traceback" not in err and str(tmp_path / "file") in last and ", expected" in last


def test_slow_reader_gets_the_newest_frame(recording: Path) -> None:
    with served(recording.read_bytes(), 4, repeats=1) as address:
        source = LiveSource(address)
        times, ages = [], []
        for frame in source.frames():
            times.append(frame.time_s)
            ages.append(source.age(frame.index))
            source.forget(frame.index)
            time.sleep(0.5)
    assert source.num_dropped > 10
    assert len(times) + source.num_dropped == 4 * FPS
    assert np.diff(times)[:-1].min() > 0.25  # the last one waits for the end
    assert np.median(ages) < 0.4
    assert len(source._arrived) <= 1


def test_sources_and_files_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert as_file("0") is None and as_file("-") is None
    assert as_file("rtsp://camera/1") is None and as_file("HTTPS://host/a.mp4") is None
    assert as_file("file:///a/b%20c.mp4") == Path("/a/b c.mp4")
    assert as_file("video.mp4") == Path("video.mp4") and as_file("a:b.mp4") == Path("a:b.mp4")
    (tmp_path / "0").touch()
    assert as_file("0") == Path("0")
    for name in ("ftp://host/a.mp4", "concat://a", "subfile://a", "data://a", "smb://host/a"):
        with pytest.raises(FergcnError, match="found an address that begins with"):
            as_file(name)
    assert source_name("rtsp://user:secret@host:8554/../a b?token=1") == "host-a-b"
    assert "/" not in source_name("http://host/..") and source_name("3") == "camera-3"


def test_playlist_from_the_net_opens_no_file(recording: Path) -> None:
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nfile://{recording}\n#EXT-X-ENDLIST\n"
    with served(playlist.encode(), 0.1, repeats=1) as address, pytest.raises(FergcnError):
        list(LiveSource(address).frames())


def test_an_address_that_is_silent_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = time.monotonic()
        with pytest.raises(FergcnError, match=r"no answer in 10 s\), expected video"):
            LiveSource(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        assert time.monotonic() - started < 60


def test_interlaced_television_comes_without_combs(tmp_path: Path) -> None:
    pictures = []
    for index in range(12):  # a bar that moves on between the two fields of each frame
        picture = np.full((64, 128, 3), 40, np.uint8)
        picture[::2, 8 * index : 8 * index + 24] = 220
        picture[1::2, 8 * index + 5 : 8 * index + 29] = 220
        pictures.append(picture)
    flags = {"flags": "+ilme+ildct", "qmin": "1", "qmax": "2"}
    path = encode(tmp_path / "i.mpg", pictures, "mpeg2video", options=flags)
    with served(path.read_bytes(), 0.2, repeats=1) as address:
        frames = [frame.image.astype(int) for frame in LiveSource(address).frames()]
    assert frames
    for image in frames:
        assert np.abs(np.diff(image, axis=0)).mean() < 3  # as filmed, above 8


def test_a_source_that_breaks_off_is_no_end(recording: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            connection, _ = server.accept()
            connection.sendall(recording.read_bytes())
            time.sleep(0.5)
            # Gone without a goodbye: what a reader gets is an error.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

        threading.Thread(target=send, daemon=True).start()
        source = LiveSource(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        assert len(list(source.frames())) > 0
    assert source.trouble is not None and "reset" in source.trouble
    with served(recording.read_bytes(), 0.5, repeats=1) as address:
        source = LiveSource(address)
        assert len(list(source.frames())) > 0
    assert source.trouble is None


def test_what_is_not_there_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for name in ("99", f"tcp://127.0.0.1:{port}"):
        with pytest.raises(FergcnError, match="found nothing that can be read"):
            LiveSource(name)
