"""Sound beside pictures: where it was, in whatever form it came, and never in the way."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from fergcn.sound import add_sound
from fergcn.video import VideoFrame, probe_video, read_frames, write_frames

RATE = 48_000
BEEP_S = 1.0
"""When the picture turns white and a tone of a tenth of a second begins, in the file's own time."""


def record(
    path: Path,
    codec: str,
    *,
    container_format: str | None = None,
    pictures_from_s: float = 0.0,
    sound_from_s: float = 0.0,
    layout: str = "stereo",
    rate: int = RATE,
    sound_until_s: float = 2.0,
) -> Path:
    """Two seconds of a flash and a beep at the same time; tracks may begin later."""
    with av.open(str(path), "w", format=container_format) as container:
        pictures: Any = container.add_stream("mpeg4", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound: Any = container.add_stream(codec, rate=rate, layout=layout)
        for index in range(round(pictures_from_s * 25), 50):
            image = np.full((48, 64, 3), 255 if index / 25 >= BEEP_S else 0, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode())
        start = round(sound_from_s * rate)
        time_s = np.arange(start, round(sound_until_s * rate)) / rate
        beeps = (time_s >= BEEP_S) & (time_s < BEEP_S + 0.1)
        wave = (0.5 * np.sin(2 * np.pi * 1000 * time_s) * beeps).astype(np.float32)
        resampler = av.AudioResampler(sound.format, layout, rate, sound.frame_size or 1024)
        whole = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        whole.sample_rate, whole.pts, whole.time_base = rate, start, Fraction(1, rate)
        for frame in [*resampler.resample(whole), *resampler.resample(None)]:
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return path


def shown(video: Path, path: Path) -> Path:
    """The pictures alone, at their times after the first one, as an overlay has them."""
    frames = (VideoFrame(f.index, f.time_s, 255 - f.image) for f in read_frames(video))
    write_frames(path, frames, fps=25)
    return path


def beep_and_codec(path: Path) -> tuple[float, str]:
    """When the first loud sample is played, in seconds of the file's time, and the codec."""
    with av.open(str(path)) as container:
        (track,) = container.streams.audio
        to_floats = av.AudioResampler("fltp", "mono")
        for stored in container.decode(track):
            for frame in to_floats.resample(stored):
                loud = np.flatnonzero(np.abs(frame.to_ndarray()[0]) > 0.1)
                if len(loud):
                    return frame.time + int(loud[0]) / frame.sample_rate, track.codec_context.name
    raise AssertionError("no beep")


def flash(path: Path) -> float:
    return next(frame.time_s for frame in read_frames(path) if frame.image.mean() < 128)


def with_sound(video: Path, folder: Path) -> Path:
    add_sound(shown(video, folder / "shown.mp4"), video, folder / "overlay.mp4")
    names = {entry.name for entry in folder.iterdir()}
    assert names - {"shown.mp4"} == {video.name, "overlay.mp4"}
    return folder / "overlay.mp4"


@pytest.mark.parametrize(
    ("name", "codec", "becomes"),
    [
        ("a.mp4", "aac", "aac"),
        ("a.ts", "aac", "aac"),  # with headers that MP4 has elsewhere
        ("a.mkv", "libopus", "opus"),
        ("a.mkv", "flac", "flac"),
        ("a.avi", "libmp3lame", "mp3float"),
        ("a.mkv", "ac3", "ac3"),
        ("a.mkv", "wavpack", "aac"),
        ("a.mov", "pcm_s16le", "aac"),
        ("a.avi", "pcm_s16le", "aac"),
        ("a.mpg", "mp2", "aac"),
    ],
)
def test_sound_of_any_form_stays_beside_the_pictures(
    tmp_path: Path, name: str, codec: str, becomes: str
) -> None:
    video = record(tmp_path / name, codec)
    overlay = with_sound(video, tmp_path)
    # What the container made of the times counts: some can't hold them exactly.
    with av.open(str(video)) as container:
        frames = list(container.decode(video=0))
        stamps = [frame.time for frame in frames]
        white = next(k for k, f in enumerate(frames) if f.to_ndarray(format="gray").mean() > 128)
    beep_s, found = beep_and_codec(overlay)
    assert found == becomes
    assert flash(overlay) == pytest.approx(stamps[white] - stamps[0], abs=0.001)
    assert beep_s == pytest.approx(beep_and_codec(video)[0] - stamps[0], abs=0.03)
    assert beep_s - flash(overlay) == pytest.approx(0, abs=0.05)


def packets_of(path: Path, codec: str) -> list[bytes]:
    with av.open(str(path)) as container:
        (track,) = container.streams.audio
        assert track.codec_context.name == codec
        return [bytes(packet) for packet in container.demux(track) if packet.size]


def test_copied_sound_is_the_same_bytes(tmp_path: Path) -> None:
    video = record(tmp_path / "a.mkv", "libopus")
    before, after = packets_of(video, "opus"), packets_of(with_sound(video, tmp_path), "opus")
    assert after == before[1:]  # the first one begins before the first picture


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
@pytest.mark.parametrize(
    ("pictures_from_s", "sound_from_s"), [(0.4, 0.0), (0.0, 0.4), (0.8, 0.2), (1.6, 0.0)]
)
def test_tracks_that_begin_at_different_times(
    tmp_path: Path, codec: str, pictures_from_s: float, sound_from_s: float
) -> None:
    video = record(
        tmp_path / "a.mkv", codec, pictures_from_s=pictures_from_s, sound_from_s=sound_from_s
    )
    overlay = with_sound(video, tmp_path)
    if pictures_from_s > BEEP_S:
        with pytest.raises(AssertionError, match="no beep"):
            beep_and_codec(overlay)
        return
    assert flash(overlay) == pytest.approx(BEEP_S - pictures_from_s, abs=0.002)
    assert beep_and_codec(overlay)[0] == pytest.approx(BEEP_S - pictures_from_s, abs=0.03)


@pytest.mark.parametrize(("pictures_s", "sound_s"), [(0.4, 0.0), (0.0, 0.4), (0.4, 0.4)])
def test_players_begin_with_the_first_of_both(
    tmp_path: Path, pictures_s: float, sound_s: float
) -> None:
    video = record(
        tmp_path / "a.mkv", "pcm_s16le", pictures_from_s=pictures_s, sound_from_s=sound_s
    )
    late_s = max(0.0, pictures_s - sound_s)
    assert probe_video(video).start_s == pytest.approx(late_s, abs=0.002)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_sound_after_a_pause_stays_where_it_was(tmp_path: Path, codec: str) -> None:
    """Two recordings of which the second one begins an hour later, in one file."""
    first = record(tmp_path / "first.mkv", codec, sound_until_s=0.9)
    second = record(tmp_path / "second.mkv", codec)
    video = tmp_path / "paused.mkv"
    with av.open(str(video), "w") as out, av.open(str(first)) as template:
        tracks = {track.type: out.add_stream_from_template(track) for track in template.streams}
        for part, later_s in ((first, 0), (second, 3600)):
            with av.open(str(part)) as container:
                for packet in container.demux():
                    if packet.dts is not None:
                        shift = round(later_s / packet.time_base)
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = tracks[packet.stream.type]
                        out.mux(packet)
    overlay = tmp_path / "overlay.mp4"
    add_sound(shown(video, tmp_path / "shown.mp4"), video, overlay)
    assert beep_and_codec(overlay)[0] == pytest.approx(3600 + BEEP_S, abs=0.03)
    assert overlay.stat().st_size < 300_000


def test_no_sound_stays_no_sound(tmp_path: Path) -> None:
    video = shown(record(tmp_path / "a.mp4", "aac"), tmp_path / "silent.mp4")
    pictures = video.rename(tmp_path / "pictures.mp4")
    (tmp_path / "silent.mp4").write_bytes(pictures.read_bytes())
    before = pictures.read_bytes()
    add_sound(pictures, video, tmp_path / "overlay.mp4")
    assert (tmp_path / "overlay.mp4").read_bytes() == before


@pytest.mark.parametrize(("name", "codec"), [("a.ts", "aac"), ("a.avi", "mp2"), ("a.mkv", "flac")])
def test_damaged_sound_is_not_in_the_way(tmp_path: Path, name: str, codec: str) -> None:
    video = record(tmp_path / name, codec)
    pictures = shown(video, tmp_path / "shown.mp4").read_bytes()
    whole = video.read_bytes()
    for seed in range(4):
        damaged = np.frombuffer(whole, np.uint8).copy()
        rng = np.random.default_rng(seed)
        # Behind the headers; in most places there is sound, as the pictures are plain.
        places = rng.integers(4000, len(whole), 200)
        damaged[places] = rng.integers(0, 256, 200)
        video.write_bytes(damaged.tobytes()[: len(whole) * (4 - seed) // 4])
        (tmp_path / "shown.mp4").write_bytes(pictures)
        add_sound(tmp_path / "shown.mp4", video, tmp_path / "overlay.mp4")
        assert flash(tmp_path / "overlay.mp4") == pytest.approx(BEEP_S, abs=0.001)


def test_sound_that_mp4_refuses_is_encoded_anew(tmp_path: Path) -> None:
    """MP3 of a sampling rate that MP4 has no place for."""
    overlay = with_sound(
        record(tmp_path / "a.mkv", "libmp3lame", rate=8000, layout="mono"), tmp_path
    )
    beep_s, codec = beep_and_codec(overlay)
    assert (codec, beep_s) == ("aac", pytest.approx(BEEP_S, abs=0.1))
    with av.open(str(overlay)) as container:
        assert container.streams.audio[0].channels == 1
