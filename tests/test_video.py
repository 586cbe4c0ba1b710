"""Reading and writing videos: true times, turned pictures, files that are not what they seem."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fergcn import video
from fergcn.expressions import FergcnError
from fergcn.video import (
    MAX_PAUSE_S,
    MAX_PIXELS,
    Clock,
    VideoFrame,
    probe_video,
    read_frames,
    write_frames,
    write_video,
)
from odd_files import encode


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


@given(st.lists(st.floats(1e-4, 86_000), max_size=8))
@settings(max_examples=30)
def test_written_times_come_back(tmp_path_factory: pytest.TempPathFactory, steps: list) -> None:
    path = tmp_path_factory.mktemp("timed") / "video.mp4"
    times = np.cumsum([0.0, *steps])
    images = numbered_frames(len(times))
    write_frames(path, (VideoFrame(k, t, images[k]) for k, t in enumerate(times.tolist())), fps=25)
    frames = list(read_frames(path))
    # A tenth of a millisecond is a tick, and frames never share one.
    np.testing.assert_allclose([f.time_s for f in frames], times, atol=1e-4 * len(times))
    assert [round(frame.image[30, 30].mean() / 8) for frame in frames] == list(range(len(times)))


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


STAMPS = st.floats(-1e9, 1e9) | st.none() | st.sampled_from([0.0, 0.04, 0.05, 5.0, 1e12])


@given(st.lists(STAMPS, min_size=1, max_size=30), st.floats(1e-3, 1))
def test_times_rise_whatever_the_stamps_do(stamps: list[float | None], frame_s: float) -> None:
    clock = Clock(frame_s)
    times = [clock(stamp) for stamp in stamps]
    assert times[0] == pytest.approx(0, abs=1e-12)
    assert all(0 < step <= MAX_PAUSE_S + 1e-3 for step in np.diff(times))


@given(st.lists(st.integers(1, 10**7), max_size=30), st.integers(-(10**9), 10**9))
def test_good_stamps_count_as_they_are(steps_ms: list[int], start_ms: int) -> None:
    stamps = (start_ms + np.cumsum([0, *steps_ms])) / 1000
    clock = Clock(0.04)
    np.testing.assert_allclose([clock(stamp) for stamp in stamps], stamps - stamps[0], atol=1e-6)


@pytest.mark.parametrize(
    ("stamps", "times"),
    [
        ([None, None, None], [0, 0.04, 0.08]),
        ([7, None, 7.1], [0, 0.04, 0.1]),
        ([0, 0, 0.04, 0.04, 0.08], [0, 0.02, 0.04, 0.06, 0.08]),  # fields, or frames said twice
        ([0, 0.04, 0.03, 0.08], [0, 0.04, 0.06, 0.08]),
        ([0, 0, 0, 0], [0, 0.02, 0.06, 0.1]),
        ([9, 9.04, 0, 0.04, 0.5], [0, 0.04, 0.08, 0.12, 0.58]),  # two recordings, joined
        ([0, 3600, 3600.04], [0, 3600, 3600.04]),
        ([0, 0.04, 1e9, 1e9 + 0.04], [0, 0.04, 0.08, 0.12]),
    ],
)
def test_what_odd_stamps_mean(stamps: list[float | None], times: list[float]) -> None:
    clock = Clock(0.04)
    np.testing.assert_allclose([clock(stamp) for stamp in stamps], times, atol=1e-6)


def test_interlaced_frames_come_without_combs(tmp_path: Path) -> None:
    # A bar that moves on between the two fields of each frame.
    pictures = []
    for index in range(8):
        picture = np.full((64, 128, 3), 40, np.uint8)
        picture[::2, 10 * index : 10 * index + 24] = 220
        picture[1::2, 10 * index + 5 : 10 * index + 29] = 220
        pictures.append(picture)

    def combs(image: np.ndarray) -> float:
        return np.abs(np.diff(image.astype(int), axis=0)).mean()

    flags = {"flags": "+ilme+ildct", "qmin": "1", "qmax": "2"}
    path = encode(tmp_path / "i.mpg", pictures, "mpeg2video", options=flags)
    plain = encode(tmp_path / "p.mpg", pictures, "mpeg2video", options={"qmin": "1", "qmax": "2"})
    frames, as_stored = list(read_frames(path)), list(read_frames(plain))
    assert [frame.time_s for frame in frames] == [frame.time_s for frame in as_stored]
    for frame, stored, picture in zip(frames, as_stored, pictures, strict=True):
        assert combs(stored.image) > 8
        assert combs(frame.image) < 3
        # The place of the bar stays.
        across = [image[..., 0].mean(0) > 130 for image in (frame.image, picture)]
        assert np.abs(np.flatnonzero(across[0]).mean() - np.flatnonzero(across[1]).mean()) < 4


def test_other_picture_sizes_are_fitted_into_the_first(tmp_path: Path) -> None:
    red = np.full((48, 64, 3), (200, 0, 0), np.uint8)
    green = np.full((128, 64, 3), (0, 200, 0), np.uint8)
    parts = [
        encode(tmp_path / f"{number}.mpg", [picture] * 4, "mpeg2video").read_bytes()
        for number, picture in enumerate((red, green))
    ]
    (tmp_path / "both.mpg").write_bytes(b"".join(parts))
    frames = list(read_frames(tmp_path / "both.mpg"))
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    last = frames[-1].image.astype(int)
    assert last[24, 32, 1] > 150 and last[24, 32, 0] < 60
    assert last[:, :18].max() < 30 and last[:, -18:].max() < 30  # 24 of 64 columns are the picture


def test_huge_pictures_are_scaled_down_or_refused(tmp_path: Path) -> None:
    picture = np.zeros((4320, 7680, 3), np.uint8)
    picture[:2160, :3840] = 255
    path = encode(tmp_path / "8k.avi", [picture], "mjpeg", "yuvj420p")
    image = next(read_frames(path)).image
    assert image.shape == (2304, 4096, 3) and image[..., 0].size <= MAX_PIXELS
    assert image[:1140, :2030].min() > 250 and image[1160:].max() < 5
    assert probe_video(path).width == 7680
    large = np.zeros((8200, 8200, 3), np.uint8)
    path = encode(tmp_path / "larger.avi", [large], "mjpeg", "yuvj420p")
    with pytest.raises(FergcnError, match="more than 67 million pixels"):
        next(read_frames(path))


def test_a_growing_file_counts_as_it_was(tmp_path: Path) -> None:
    path = encode(tmp_path / "growing.ts", numbered_frames(30), "mpeg2video")
    whole = path.read_bytes()
    frames = read_frames(path)
    next(frames)
    with path.open("ab") as file:
        file.write(whole * 3)
    assert 28 <= 1 + len(list(frames)) <= 31


def test_a_file_that_gives_nothing_more_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "pit.ts", numbered_frames(10), "mpeg2video")
    with path.open("ab") as file:
        file.truncate(1 << 40)  # a terabyte of nothing, which takes no room
    monkeypatch.setattr(video, "PATIENCE_S", 1.0)
    assert 9 <= len(list(read_frames(path))) <= 10


@pytest.mark.parametrize("rate", [10, 30, 50, 120, 240])
@pytest.mark.parametrize("scan", ["progressive", "interlaced"])
def test_a_bare_stream_has_the_rate_that_its_pictures_tell(
    rate: int, scan: str, tmp_path: Path
) -> None:
    """As Raspberry Pi cameras record; FFmpeg would take it for 25 frames/s."""
    options = {"flags": "+ilme+ildct", "x264-params": "tff=1"} if scan == "interlaced" else {}
    path = encode(tmp_path / "pi.h264", numbered_frames(12), "libx264", rate=rate, options=options)
    info = probe_video(path)
    assert (info.fps, info.has_times) == (rate, False)
    times = [frame.time_s for frame in read_frames(path)]
    np.testing.assert_allclose(times, np.arange(12) / rate, atol=1e-9)


@pytest.mark.parametrize("format_name", ["mkv", "mp4", "mov", "avi"])
def test_sound_promises_no_frames(format_name: str, tmp_path: Path) -> None:
    path = tmp_path / f"long_sound.{format_name}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("ac3", rate=48000)
        sound.layout = "mono"
        for index, image in enumerate(numbered_frames(10)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for index in range(100):
            samples = np.zeros((1, 1536), np.float32)
            piece = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            piece.sample_rate, piece.pts = 48000, 1536 * index
            piece.time_base = Fraction(1, 48000)
            container.mux(sound.encode(piece))
        container.mux(sound.encode())
    info = probe_video(path)
    assert len(list(read_frames(path))) == 10
    if format_name == "mkv":
        assert (info.promised_frames, info.promised_s) == (None, pytest.approx(0.4, abs=0.02))
    else:
        assert info.promised_frames == 10


def test_guessed_pictures_are_marked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (144, 176, 3), dtype=np.uint8) for _ in range(10)]
    path = encode(tmp_path / "whole.mp4", noise, "libx264")
    assert not any(frame.is_damaged for frame in read_frames(path))
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 2000
    for place in range(start, start + 60_000, 3_000):
        content[place] ^= 0xFF
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(content)
    assert any(frame.is_damaged for frame in read_frames(damaged))
