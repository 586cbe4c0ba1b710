"""Reading and writing videos: true times, turned pictures, files that are not what they seem."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fergcn.expressions import FergcnError
from fergcn.video import probe_video, read_frames, write_video


def numbered_frames(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Grey pictures whose brightness says which frame they are, with a white upper left corner."""
    frames = []
    for index in range(count):
        image = np.full((height, width, 3), 8 * index, dtype=np.uint8)
        image[:8, :8] = 255
        frames.append(image)
    return frames


def write_with_times(path: Path, times_ms: list[int], format_name: str = "mp4") -> None:
    with av.open(str(path), "w", format=format_name) as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for image, time_ms in zip(numbered_frames(len(times_ms)), times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def turn(path: Path, quarter_turns_clockwise: int) -> None:
    """Set the display matrix in an MP4's track header, as a phone held sideways does."""
    one = 1 << 16
    a, b, c, d = {1: (0, one, -one, 0), 2: (-one, 0, 0, -one), 3: (0, -one, one, 0)}[
        quarter_turns_clockwise
    ]
    matrix = b"".join(
        value.to_bytes(4, "big", signed=True) for value in (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    )
    data = bytearray(path.read_bytes())
    # Track header version 0: the matrix begins 40 bytes after the end of the box's name.
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = matrix
    path.write_bytes(bytes(data))


def test_written_frames_come_back(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    images = numbered_frames(12)
    write_video(path, iter(images), fps=25, crf=10)
    frames = list(read_frames(path))
    assert [frame.index for frame in frames] == list(range(12))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(12) / 25, atol=1e-6)
    for frame, image in zip(frames, images, strict=True):
        assert frame.image.shape == image.shape and frame.image.dtype == np.uint8
        assert np.abs(frame.image.astype(int) - image).mean() < 4
    info = probe_video(path)
    assert (info.width, info.height, info.fps, info.num_frames) == (64, 48, 25, 12)
    assert [entry.name for entry in tmp_path.iterdir()] == ["video.mp4"]


@pytest.mark.parametrize("format_name", ["mp4", "matroska"])
def test_varying_frame_rate_keeps_true_times(tmp_path: Path, format_name: str) -> None:
    path = tmp_path / "video"
    times_ms = [0, 40, 60, 200, 210, 500, 900]
    write_with_times(path, times_ms, format_name)
    frames = list(read_frames(path))
    np.testing.assert_allclose(
        [frame.time_s for frame in frames], np.array(times_ms) / 1000, atol=1e-3
    )
    assert [round(frame.image[30, 30].mean() / 8) for frame in frames] == list(range(7))


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "video.mkv"
    write_with_times(path, [5000, 5100, 5200], "matroska")
    assert [round(frame.time_s, 3) for frame in read_frames(path)] == [0, 0.1, 0.2]


@pytest.mark.parametrize(
    ("turns", "shape", "corner"),
    [
        (1, (64, 48), (slice(0, 8), slice(40, 48))),
        (2, (48, 64), (slice(40, 48), slice(56, 64))),
        (3, (64, 48), (slice(56, 64), slice(0, 8))),
    ],
)
def test_turned_video_comes_upright(
    tmp_path: Path, turns: int, shape: tuple[int, int], corner: tuple[slice, slice]
) -> None:
    path = tmp_path / "phone.mp4"
    write_video(path, numbered_frames(3), fps=25)
    turn(path, turns)
    image = next(read_frames(path)).image
    assert image.shape[:2] == shape
    assert image[corner].mean() > 220


def test_odd_sides_lose_a_row_or_column(tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    write_video(path, numbered_frames(2, 49, 63), fps=25)
    assert next(read_frames(path)).image.shape == (48, 62, 3)


def test_video_cut_off_in_the_middle_gives_its_whole_frames(tmp_path: Path) -> None:
    path = tmp_path / "cut.mkv"
    write_with_times(path, [40 * index for index in range(30)], "matroska")
    whole = len(list(read_frames(path)))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    assert 0 < len(list(read_frames(path))) < whole


def test_bad_files_are_named_in_one_line(tmp_path: Path) -> None:
    empty, text, sound, cut = (tmp_path / name for name in ("empty", "text", "sound", "cut"))
    empty.touch()
    text.write_text("no video at all\n" * 50)
    with av.open(str(sound), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        audio = av.AudioFrame.from_ndarray(
            np.zeros((1, 16000), np.float32), format="fltp", layout="mono"
        )
        audio.sample_rate = 16000
        container.mux(stream.encode(audio))
        container.mux(stream.encode())
    write_video(cut, numbered_frames(5), fps=25)
    cut.write_bytes(cut.read_bytes()[:300])
    expected = {
        tmp_path / "missing": "found nothing",
        tmp_path: "found a folder",
        empty: "found an empty file",
        text: "not a video",
        sound: "no video track",
        cut: "cut off|no frame",
    }
    for path, message in expected.items():
        with pytest.raises(FergcnError, match=message) as error:
            list(read_frames(path))
        assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_failed_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FergcnError, match="no frames"):
        write_video(tmp_path / "none.mp4", [], fps=25)
    assert not list(tmp_path.iterdir())
