"""Videos of all sorts, damaged ones, and files that only look like one; all from a seed."""

import io
import os
import random
import shutil
import socket
import wave
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from PIL import Image

from fergcn.datasets.rendered import BUNDLED
from fergcn.video import read_frames

NUM_FRAMES = 8
FACE, READ, FAIL, EITHER = "face", "read", "fail", "either"
"""What is expected: all frames, with a face; some answer; a line that says why not; one of them."""


@dataclass(frozen=True)
class OddFile:
    path: Path
    kind: str
    expected: str


def face_pictures(width: int = 160, height: int = 120) -> list[np.ndarray]:
    """A rendered face on grey, as large as fits."""
    clip = BUNDLED / "clips" / "R0-S003" / "R0-S003-happiness-0.mp4"
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    pictures = []
    for frame in list(read_frames(clip))[:NUM_FRAMES]:
        picture = np.full((height, width, 3), 120, np.uint8)
        face = cv2.resize(frame.image, (side, side), interpolation=cv2.INTER_AREA)
        picture[top : top + side, left : left + side] = face
        pictures.append(picture)
    return pictures


def encode(
    path: Path,
    pictures: Iterable[np.ndarray],
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    *,
    times_ms: Sequence[int] | None = None,
    rate: Fraction | int = 25,
    options: dict[str, str] | None = None,
    container_format: str | None = None,
    turn: tuple[float, bool, bool] | None = None,
    pixel_ratio: Fraction | None = None,
    with_sound: bool = False,
) -> Path:
    """Write pictures with any encoder into any container."""
    with av.open(str(path), "w", format=container_format) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
        stream.pix_fmt = pix_fmt
        if times_ms is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if turn is not None:
            stream.set_display_rotation(*turn)
        sound: Any = container.add_stream("aac", rate=16000) if with_sound else None
        for index, picture in enumerate(pictures):
            if index == 0:
                stream.height, stream.width = picture.shape[:2]
                if pixel_ratio is not None:
                    stream.codec_context.sample_aspect_ratio = pixel_ratio
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            samples = np.zeros((1, 16000), np.float32)
            audio = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            audio.sample_rate = 16000
            container.mux(sound.encode(audio))
            container.mux(sound.encode())
    return path


ENCODINGS: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    *[("mp4", "libx264", form, {}) for form in ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le")],
    *[("mkv", "libx264", form, {}) for form in ("yuvj420p", "gray", "yuv422p10le", "nv12")],
    *[("mp4", "libx265", form, {}) for form in ("yuv420p", "yuv420p10le", "yuv444p12le")],
    *[("mkv", "ffv1", form, {}) for form in ("yuv420p", "gray", "gray16le", "yuva420p", "bgra")],
    *[("mkv", "ffv1", form, {}) for form in ("yuv410p", "yuv440p", "gbrp14le", "yuv422p16le")],
    *[("mov", "prores_ks", form, {}) for form in ("yuv422p10le", "yuva444p10le")],
    *[("mov", "png", form, {}) for form in ("rgb24", "rgba", "rgba64be", "gray")],
    *[("mov", "qtrle", form, {}) for form in ("rgb24", "argb", "rgb555be")],
    *[("avi", "rawvideo", form, {}) for form in ("bgr24", "rgb555le", "yuyv422")],
    *[("avi", codec, "yuv420p", {}) for codec in ("mpeg4", "msmpeg4", "libx264")],
    *[("avi", codec, "yuvj420p", {}) for codec in ("mjpeg",)],
    *[("avi", codec, "yuv422p", {}) for codec in ("huffyuv", "utvideo")],
    ("avi", "zmbv", "bgr0", {}),
    ("avi", "cinepak", "rgb24", {}),
    ("mkv", "snow", "yuv420p", {}),
    ("mkv", "libvpx", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    ("webm", "libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    ("webm", "libvpx-vp9", "yuva420p", {"deadline": "realtime", "cpu-used": "8"}),
    ("mp4", "libsvtav1", "yuv420p", {"preset": "12"}),
    ("mp4", "mpeg4", "yuv420p", {}),
    ("mp4", "mjpeg", "yuvj420p", {}),
    ("mov", "v210", "yuv422p10le", {}),
    ("mpg", "mpeg1video", "yuv420p", {}),
    ("mpg", "mpeg2video", "yuv420p", {}),
    ("ts", "mpeg2video", "yuv420p", {}),
    ("ts", "libx264", "yuv420p", {}),
    ("m2ts", "libx264", "yuv420p", {}),
    ("wmv", "wmv2", "yuv420p", {}),
    ("flv", "flv", "yuv420p", {}),
    ("flv", "libx264", "yuv420p", {}),
    ("gif", "gif", "rgb8", {}),
    ("gif", "gif", "gray", {}),
    ("apng", "apng", "rgba", {}),
    ("nut", "ffv1", "yuv420p", {}),
    ("y4m", "rawvideo", "yuv420p", {}),
    ("ivf", "libvpx", "yuv420p", {"deadline": "realtime"}),
    ("h264", "libx264", "yuv420p", {}),
    ("hevc", "libx265", "yuv420p", {}),
    ("mjpeg", "mjpeg", "yuvj420p", {}),
    ("mxf", "mpeg2video", "yuv422p", {}),
)
"""Ending, encoder, pixels and options."""


def _encodings(folder: Path, _: random.Random) -> Iterable[tuple[Path, str]]:
    pictures = face_pictures()
    for suffix, codec, pix_fmt, options in ENCODINGS:
        path = folder / f"{suffix}-{codec}-{pix_fmt}.{suffix}"
        if codec.startswith("libx26"):
            options = {**options, "preset": "ultrafast"}
            if codec == "libx265":
                options["x265-params"] = "log-level=none"
        yield encode(path, pictures, codec, pix_fmt, options=options), FACE
    encode(folder / "h263.3gp", face_pictures(176, 144), "h263")
    yield folder / "h263.3gp", FACE
    yield encode(folder / "sound.mp4", pictures, with_sound=True), FACE
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    with av.open(str(folder / "fragments.mp4"), "w", options=fragments) as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    yield folder / "fragments.mp4", FACE


def _shown_otherwise(folder: Path, _: random.Random) -> Iterable[tuple[Path, str]]:
    pictures = face_pictures()
    for degrees in (0, 90, 180, 270):
        for mirrored in (False, True):
            # What the camera wrote, so that it is upright again when shown.
            stored = [np.rot90(image, -degrees // 90) for image in pictures]
            if mirrored:
                stored = [image[:, ::-1] if degrees % 180 == 0 else image[::-1] for image in stored]
            path = folder / f"turned-{degrees}{'-mirrored' * mirrored}.mp4"
            yield encode(path, stored, turn=(degrees, mirrored, False)), FACE
    for name, width, height, ratio in (
        ("wide", 80, 120, Fraction(2)),
        ("high", 160, 60, Fraction(1, 2)),
        ("dv", 120, 120, Fraction(4, 3)),
        ("absurd", 160, 120, Fraction(255)),
    ):
        squeezed = [cv2.resize(image, (width, height)) for image in pictures]
        path = folder / f"pixels-{name}.mkv"
        yield encode(path, squeezed, "mpeg4", pixel_ratio=ratio), FACE
    interlaced = {"flags": "+ilme+ildct"}
    for suffix in ("mpg", "ts", "mkv", "mxf"):
        path = folder / f"interlaced.{suffix}"
        yield encode(path, pictures, "mpeg2video", options=interlaced), FACE
    path = folder / "interlaced-h264.mp4"
    yield encode(path, pictures, options={"x264-params": "interlaced=1"}), FACE
    for name, sizes in (
        ("growing", ((160, 120), (320, 240))),
        ("shrinking", ((160, 120), (96, 72))),
        ("turning", ((160, 120), (120, 160))),
        ("many", ((160, 120), (64, 64), (200, 50), (160, 120))),
    ):
        for suffix, codec in (("h264", "libx264"), ("mpg", "mpeg2video"), ("ts", "libx264")):
            path = folder / f"size-{name}.{suffix}"
            parts = []
            for width, height in sizes:
                part = encode(folder / f"part.{suffix}", face_pictures(width, height), codec)
                parts.append(part.read_bytes())
                part.unlink()
            path.write_bytes(b"".join(parts))
            yield path, READ
    for name, width, height, suffix, codec, pix_fmt, expected in (
        ("odd", 161, 121, "mkv", "ffv1", "yuv420p", FACE),
        ("odd", 161, 121, "mov", "png", "rgb24", FACE),
        ("one-pixel", 1, 1, "mkv", "libx264", "yuv444p", READ),
        ("one-pixel", 1, 1, "gif", "gif", "rgb8", READ),
        ("one-pixel", 1, 1, "avi", "rawvideo", "bgr24", READ),
        ("one-pixel", 1, 1, "mov", "png", "rgb24", READ),
        ("one-column", 1, 120, "mov", "png", "rgb24", READ),
        ("one-row", 160, 1, "mkv", "ffv1", "yuv420p", READ),
        ("thread", 3000, 2, "mkv", "mpeg4", "yuv420p", READ),
        ("two-pixels", 2, 2, "mp4", "libx264", "yuv420p", READ),
        ("small", 11, 13, "mkv", "ffv1", "yuv444p", READ),
        ("small", 16, 12, "mp4", "mpeg4", "yuv420p", READ),
        ("tiny-interlaced", 16, 2, "mkv", "mpeg2video", "yuv420p", READ),
    ):
        images = [cv2.resize(image, (width, height)) for image in pictures]
        options = interlaced if codec == "mpeg2video" else None
        path = folder / f"{name}-{codec}.{suffix}"
        yield encode(path, images, codec, pix_fmt, options=options), expected
    yield encode(folder / "one-frame.mp4", pictures[:1]), READ
    large = cv2.resize(pictures[0], (7680, 4320), interpolation=cv2.INTER_NEAREST)
    yield encode(folder / "8k.mp4", [large], "mjpeg", "yuvj420p"), READ
    stills = Image.fromarray(pictures[0])
    for suffix in ("jpg", "png", "webp", "bmp"):
        stills.save(folder / f"still.{suffix}")
        yield folder / f"still.{suffix}", READ
    stills.save(folder / "still-called.mp4", format="png")
    yield folder / "still-called.mp4", READ
    stills.save(folder / "moving.webp", save_all=True, append_images=[stills] * 3)
    yield folder / "moving.webp", EITHER


def _odd_times(folder: Path, _: random.Random) -> Iterable[tuple[Path, str]]:
    pictures = face_pictures()
    for name, times_ms in {
        "varying": [0, 40, 60, 200, 210, 500, 900, 901],
        "late-start": [5_000_000 + 40 * index for index in range(NUM_FRAMES)],
        "hour-long-pause": [0, 40, 80, 120, 3_600_000, 3_600_040, 3_600_080, 3_600_120],
        "before-zero": [40 * index - 100 for index in range(NUM_FRAMES)],
        "fast": list(range(NUM_FRAMES)),
        "slow": [60_000 * index for index in range(NUM_FRAMES)],
        "a-year": [0, 40, 80, 120, *[31_536_000_000 + 40 * index for index in range(4)]],
    }.items():
        for suffix in ("mp4", "mkv", "nut"):
            path = folder / f"times-{name}.{suffix}"
            if suffix == "nut" or name != "a-year":  # the others can't say it
                # MP4 hides what lies before zero behind an edit list.
                expected = READ if path.name == "times-before-zero.mp4" else FACE
                yield encode(path, pictures, "mjpeg", "yuvj420p", times_ms=times_ms), expected
    for name, rate in (("slow", Fraction(1, 1000)), ("fast", Fraction(1000))):
        yield encode(folder / f"rate-{name}.avi", pictures, "mjpeg", "yuvj420p", rate=rate), FACE
    path = encode(folder / "times-equal.mp4", pictures, "mpeg4")
    data = bytearray(path.read_bytes())
    table = data.index(b"stts") + 12  # after version, flags and the number of entries
    data[table + 4 : table + 8] = bytes(4)  # duration of each frame
    path.write_bytes(data)
    yield path, FACE
    whole = encode(folder / "part.ts", pictures, "mpeg2video").read_bytes()
    (folder / "part.ts").unlink()
    (folder / "times-jump-back.ts").write_bytes(whole * 3)
    yield folder / "times-jump-back.ts", READ


def _other_tracks(folder: Path, _: random.Random) -> Iterable[tuple[Path, str]]:
    pictures = face_pictures()
    tone = np.zeros((1, 16000), np.float32)
    for suffix, codec in (
        ("mp4", "aac"),
        ("mp3", "libmp3lame"),
        ("mkv", "libmp3lame"),
        ("mov", "aac"),
    ):
        for cover in (False, True):
            if cover and suffix == "mkv":
                continue
            path = folder / f"sound{'-and-cover' * cover}.{suffix}"
            with av.open(str(path), "w") as container:
                stream: Any = container.add_stream(codec, rate=16000)
                picture: Any = None
                if cover:
                    picture = container.add_stream("mjpeg", rate=1)
                    picture.width, picture.height, picture.pix_fmt = 160, 120, "yuvj420p"
                    picture.disposition = av.stream.Disposition.attached_pic
                form = stream.codec_context.format.name if stream.codec_context.format else "fltp"
                samples = tone if form.startswith("flt") else (tone * 32767).astype(np.int16)
                audio = av.AudioFrame.from_ndarray(
                    samples, format="fltp" if samples is tone else "s16p", layout="mono"
                )
                audio.sample_rate = 16000
                if picture is not None:
                    frame = av.VideoFrame.from_ndarray(pictures[0], format="rgb24")
                    container.mux(picture.encode(frame))
                    container.mux(picture.encode())
                container.mux(stream.encode(audio))
                container.mux(stream.encode())
            yield path, FAIL
    with wave.open(str(folder / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(bytes(3200))
    yield folder / "sound.wav", FAIL
    for default in (0, 1):
        path = folder / f"two-tracks-{default}.mkv"
        with av.open(str(path), "w") as container:
            streams: list[Any] = []
            for number, size in enumerate(((64, 48), (160, 120))):
                track: Any = container.add_stream("mpeg4", rate=25)
                track.width, track.height, track.pix_fmt = *size, "yuv420p"
                if number == default:
                    track.disposition = av.stream.Disposition.default
                streams.append(track)
            for image in pictures:
                for track in streams:
                    small = cv2.resize(image, (track.width, track.height))
                    frame = av.VideoFrame.from_ndarray(small, format="rgb24")
                    container.mux(track.encode(frame))
            for track in streams:
                container.mux(track.encode())
        yield path, READ


def _no_videos(folder: Path, rng: random.Random) -> Iterable[tuple[Path, str]]:
    video = encode(folder / "secret.mp4", face_pictures())
    yield video, FACE
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("video.mp4", video.read_bytes())
    contents: dict[str, bytes] = {
        "empty.mp4": b"",
        "one-byte.mp4": b"\0",
        "zeros.mp4": bytes(10_000),
        "noise.mp4": rng.randbytes(10_000),
        "noise.ts": rng.randbytes(18_800),
        "noise.mpg": rng.randbytes(10_000),
        "text.mp4": b"This is no video.\n" * 100,
        "page.mp4": b"<!doctype html><html><body>404 not found</body></html>",
        "document.mp4": b"%PDF-1.7\n" + rng.randbytes(3000),
        "archive.mp4": archive.getvalue(),
        "program.mp4": b"\x7fELF" + rng.randbytes(3000),
        "drawing.mp4": b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9"/></svg>',
        "object.mp4": b'{"video": "secret.mp4"}',
        "only-a-type.mp4": video.read_bytes()[:32],
        "apple-double.mov": b"\0\5\x16\7\0\2\0\0Mac OS X        " + rng.randbytes(4000),
        "no-index.mp4": video.read_bytes().replace(b"moov", b"nope"),
        "playlist.m3u8.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.mp4\n"
        b"#EXT-X-ENDLIST\n",
        "playlist-absolute.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://"
        + bytes(video.resolve())
        + b"\n#EXT-X-ENDLIST\n",
        "playlist-web.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n"
        b"http://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
        "concat.mp4": b"ffconcat version 1.0\nfile secret.mp4\n",
        "session.mp4": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        b"m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "dash.mp4": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" '
        b'type="static"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
        b'bandwidth="1"><BaseURL>secret.mp4</BaseURL></Representation></AdaptationSet></Period>'
        b"</MPD>",
        "subtitles.mp4": b"1\n00:00:00,000 --> 00:00:01,000\nhello\n\n",
        "redirect.mp4": b"[Reference]\nRef1=http://127.0.0.1:9/secret.mp4\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        yield folder / name, FAIL
    for name, target in (("broken-link.mp4", "nowhere.mp4"), ("loop.mp4", "loop.mp4")):
        (folder / name).symlink_to(target)
        yield folder / name, FAIL
    os.mkfifo(folder / "pipe.mp4")
    yield folder / "pipe.mp4", FAIL
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind(str(folder / "plug.mp4"))
    yield folder / "plug.mp4", FAIL
    # A header that promises far more than there is: 20,000 × 20,000 pixels.
    huge = encode(folder / "huge.mov", face_pictures(), "png", "rgb24")
    data = huge.read_bytes()
    header = data.index(b"IHDR") + 4
    sides = (20_000).to_bytes(4, "big") * 2
    patched = bytearray(data)
    patched[header : header + 8] = sides
    where = data.rindex(b"png ", 0, len(data)) + 28
    patched[where : where + 4] = (20_000).to_bytes(2, "big") * 2
    huge.write_bytes(patched)
    yield huge, EITHER


Mutation = Callable[[bytes, random.Random], bytes]


def _flip(count: int, within: float = 1.0) -> Mutation:
    def mutate(data: bytes, rng: random.Random) -> bytes:
        changed = bytearray(data)
        for _ in range(count):
            changed[rng.randrange(max(1, int(len(data) * within)))] = rng.randrange(256)
        return bytes(changed)

    return mutate


def _block(change: Callable[[bytes], bytes]) -> Mutation:
    def mutate(data: bytes, rng: random.Random) -> bytes:
        start = rng.randrange(len(data) // 4, len(data) // 2)
        stop = start + len(data) // 8
        return data[:start] + change(data[start:stop]) + data[stop:]

    return mutate


MUTATIONS: dict[str, Mutation] = {
    "cut-5": lambda data, _: data[: len(data) // 20],
    "cut-30": lambda data, _: data[: len(data) * 3 // 10],
    "cut-70": lambda data, _: data[: len(data) * 7 // 10],
    "cut-99": lambda data, _: data[: len(data) - 9],
    "flip-1": _flip(3),
    "flip-10": _flip(20),
    "flip-many": _flip(200),
    "flip-head": _flip(4, within=0.03),
    "zeroed": _block(lambda block: bytes(len(block))),
    "removed": _block(lambda _: b""),
    "doubled": _block(lambda block: block * 2),
    "junk-before": lambda data, rng: rng.randbytes(1000) + data,
    "junk-after": lambda data, rng: data + rng.randbytes(10_000),
    "twice": lambda data, _: data * 2,
    "halves-swapped": lambda data, _: data[len(data) // 2 :] + data[: len(data) // 2],
}


def _mutated(folder: Path, rng: random.Random) -> Iterable[tuple[Path, str]]:
    pictures = face_pictures()
    for suffix, codec, pix_fmt in (
        ("mp4", "libx264", "yuv420p"),
        ("mov", "mpeg4", "yuv420p"),
        ("mkv", "libx264", "yuv420p"),
        ("webm", "libvpx", "yuv420p"),
        ("avi", "mpeg4", "yuv420p"),
        ("ts", "libx264", "yuv420p"),
        ("mpg", "mpeg2video", "yuv420p"),
        ("flv", "flv", "yuv420p"),
        ("wmv", "wmv2", "yuv420p"),
        ("gif", "gif", "rgb8"),
        ("mxf", "mpeg2video", "yuv422p"),
    ):
        whole = encode(folder / f"whole.{suffix}", pictures, codec, pix_fmt)
        data = whole.read_bytes()
        whole.unlink()
        for name, mutate in MUTATIONS.items():
            path = folder / f"{suffix}-{name}.{suffix}"
            path.write_bytes(mutate(data, rng))
            yield path, EITHER


NAMES = (
    *("two words.mp4", " leading.mp4", "trailing .mp4", "tab\there.mp4", "line\nbreak.mp4"),
    *("-x.mp4", "--help.mp4", "\xdcml.mp4", "U\u0308ml.mp4", "表情 😀.mp4", "עברית.mp4"),
    *("$HOME.mp4", "a$b$c_^.mp4", "[bold]x[/].mp4", "[/red].mp4", ":smile:.mp4", "%d%s%03d.mp4"),
    *("star*.mp4", "what?.mp4", "[ab].mp4", "http:x.mp4", "pipe:0.mp4", "back\\slash.mp4"),
    *("quote's.mp4", 'double".mp4', "<script>.mp4", "a;b&c|d.mp4", "CON.mp4", "nul.mp4"),
    *("..mp4", "...mp4", "a..mp4", "a.mp4", "A.mp4", "a.mkv", "a.MP4", "a-2.mp4", "a.b.mp4"),
    *("run.partial.mp4", "run.mp4", "run.old.mp4", "frames.csv.mp4", "summary.json.mp4"),
    *("l" * 250 + ".mp4", "l" * 249 + "m.mp4", "€" * 83 + ".mp4", os.fsdecode(b"\xff\xfe.mp4")),
    *("folder.mp4/inside.mp4", "run/inside.mp4", "a/b/c/d.mp4", "esc\x1b[31mred.mp4"),
    *("‮gnp.mp4", "{braces}.mp4", "~.mp4", "#1.mp4", "x" + "\u0301" * 30 + ".mp4"),
)


def _names(folder: Path, _: random.Random) -> Iterable[tuple[Path, str]]:
    whole = encode(folder / "whole.mp4", face_pictures()[:2])
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(whole, path)
        yield path, READ
    whole.unlink()


KINDS: dict[str, Callable[[Path, random.Random], Iterable[tuple[Path, str]]]] = {
    "encodings": _encodings,
    "shown otherwise": _shown_otherwise,
    "odd times": _odd_times,
    "other tracks": _other_tracks,
    "no videos": _no_videos,
    "mutated": _mutated,
    "names": _names,
}


def write_odd_files(folder: Path, kind: str, seed: int = 0) -> list[OddFile]:
    """Write all files of one kind into a new folder."""
    folder.mkdir(parents=True)
    rng = random.Random(f"{kind} {seed}")
    return [OddFile(path, kind, expected) for path, expected in KINDS[kind](folder, rng)]
