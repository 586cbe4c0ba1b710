"""Read video frames with their true timestamps, and write videos.

A file is not trusted: only formats that hold their pictures themselves are read, so a playlist
can't make the decoder open other files or addresses; what counts is what the file held when it was
opened; no picture is larger than `MAX_PIXELS`; a file that gives no frame for `PATIENCE_S` is at
its end.
"""

import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import Any, cast

import av
import av.error
import numpy as np
from av.filter import Graph
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from fergcn.expressions import FergcnError

FORMATS = (
    *("mov", "matroska", "webm", "avi", "mpeg", "mpegts", "mpegvideo", "flv", "live_flv", "asf"),
    *("ogg", "gif", "apng", "webp_anim", "mxf", "dv", "nut", "wtv", "rm", "swf", "ivf", "nsv"),
    *("h261", "h263", "h264", "hevc", "vvc", "m4v", "av1", "obu", "vc1", "mjpeg", "yuv4mpegpipe"),
    *("jpeg_pipe", "png_pipe", "webp_pipe", "bmp_pipe"),
    *("mp3", "aac", "flac", "wav", "w64", "aiff", "caf", "amr", "ac3"),
)
"""What is read, as FFmpeg calls it; a still picture is a video of one frame. The last line is sound
alone, which is known so that it can be named."""
MAX_STORED_PIXELS = 1 << 26
"""Larger pictures are refused, in pixels: 67 million are twice 8K."""
MAX_PIXELS = 4096 * 2304
"""Larger pictures are scaled down to this many pixels when they are decoded; bounds memory."""
NO_TIMESTAMPS = 0x80
"""FFmpeg's mark of a form that holds no times."""
MAX_THREADS = 2
"""That decode such pictures; each holds several in their full size."""
MAX_PIXEL_RATIO = 4
"""Pixels that are said to be wider or higher than this many times are taken for square ones."""
PATIENCE_S = 60.0
"""A file that gives no frame for this time is at its end, in seconds."""
MAX_BACK_S = 1.0
"""Timestamps that jump back by more belong to a clock that was set anew, in seconds."""
MAX_PAUSE_S = 86400.0
"""So do those that jump ahead by more, in seconds."""

TICKS_PER_S = 10_000
"""How finely the times of written frames are kept. A pause of `MAX_PAUSE_S` still fits into the
31 bits that MP4 has for the time between two frames."""

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class VideoFrame:
    """One decoded frame."""

    index: int
    """Position among the decoded frames, from 0."""
    time_s: float
    """Presentation time from the container, in seconds after the first frame; always later than
    that of the frame before (`Clock`)."""
    image: Picture
    """`(H, W, 3)` RGB as it is to be shown: upright, with square pixels, not interlaced. All frames
    of a video have the size of the first."""
    is_damaged: bool = False
    """Whether the decoder had to guess parts of it."""


@dataclass(frozen=True)
class VideoInfo:
    """What the container says before anything is decoded."""

    width: int
    """As stored; frames may be turned, stretched to square pixels or scaled down."""
    height: int
    """As stored."""
    fps: float
    num_frames: int | None
    """Estimated number of frames, for a progress bar; the stream decides."""
    promised_frames: int | None
    """How many frames the header counts."""
    promised_s: float | None
    """How long it says that the pictures' own track is; sound may go on for longer."""
    has_times: bool
    """Whether the file tells when frames are shown; a bare stream such as .h264 does not."""
    size_bytes: int
    """Of the file when it was opened."""
    modified_ns: int
    """When it was last changed then, in nanoseconds."""
    start_s: float
    """How long players play before the first picture, as where the sound begins earlier."""


class Clock:
    """Gives frames times that rise, whatever their timestamps do.

    A timestamp that is later than the frame before counts as it is: pauses stay pauses. A frame
    without one comes one frame duration after the frame before. One that isn't later comes half a
    frame duration after it, or a whole one where that happens again. Where timestamps jump back by
    more than `MAX_BACK_S`, as in joined recordings, or ahead by more than `MAX_PAUSE_S`, the clock
    was set anew: the frame comes one duration after the one before, and those after it keep their
    distance from it.

    Args:
        frame_s: the frame duration, in seconds.
    """

    def __init__(self, frame_s: float) -> None:
        self._frame_s = frame_s
        self._time_s = -frame_s  # so that the first frame is at 0
        self._zero_s: float | None = None  # timestamp of time 0
        self._was_late = False

    def __call__(self, stamp_s: float | None) -> float:
        """Place the next frame.

        Args:
            stamp_s: its timestamp in seconds, from any start.

        Returns:
            Seconds after the first frame.
        """
        before_s = self._time_s
        next_s = before_s + self._frame_s
        is_late = False
        if stamp_s is not None:
            if self._zero_s is None:
                self._zero_s = stamp_s - next_s
            stamped_s = stamp_s - self._zero_s
            if before_s < stamped_s <= before_s + MAX_PAUSE_S:
                next_s = stamped_s
            elif before_s - MAX_BACK_S <= stamped_s <= before_s:
                is_late = True
                next_s = next_s if self._was_late else before_s + self._frame_s / 2
            else:
                self._zero_s = stamp_s - next_s
        self._time_s, self._was_late = next_s, is_late
        return next_s


def probe_video(path: Path) -> VideoInfo:
    """Read a video's header.

    Raises:
        FergcnError: the file is missing, empty, can't be read, or holds no video.
    """
    with open_video(path) as (container, stream, source):
        fps = frame_rate(stream)
        promised_s = _track_duration(container, stream)
        duration_s = promised_s or (container.duration or 0) / av.time_base
        num_frames = stream.frames or None
        if num_frames is None and duration_s:
            num_frames = max(1, round(duration_s * fps))
        there = source.there
        start_s = 0.0
        if stream.start_time is not None and container.start_time is not None:
            start_s = float(stream.start_time * stream.time_base)
            start_s -= container.start_time / av.time_base
        return VideoInfo(
            stream.width,
            stream.height,
            fps,
            num_frames,
            stream.frames or None,
            promised_s,
            _has_times(container),
            there.st_size,
            there.st_mtime_ns,
            start_s if 0 <= start_s <= MAX_PAUSE_S else 0.0,
        )


def read_frames(path: Path) -> Iterator[VideoFrame]:
    """Decode a video frame by frame.

    Frames that can't be decoded are left out; a file that is cut off ends with its last whole
    frame, one that is still growing with the last one that it held at the start. Of several video
    tracks, the one that is marked as the default counts, and among equals the largest. Transparency
    is ignored.

    Raises:
        FergcnError: the file is missing, empty, can't be read, holds no video, or no frame can be
            decoded.
    """
    index = 0
    with open_video(path) as (container, stream, source):
        clock = Clock(1 / frame_rate(stream))
        has_times = _has_times(container)
        ratio = pixel_ratio(stream)
        converter = VideoReformatter()
        size: tuple[int, int] | None = None
        source.be_patient()  # opening may have taken long
        try:
            for frame in without_combs(_decode(container, stream, source)):
                stamp_s = frame.time if frame.time_base and has_times else None
                try:
                    image = upright_rgb(frame, converter, ratio, size)
                except (av.error.FFmpegError, ValueError, MemoryError):
                    continue  # a picture in a form that can't be converted
                size = (image.shape[1], image.shape[0])
                yield VideoFrame(index, clock(stamp_s), image, bool(frame.is_corrupt))
                index += 1
        except av.error.FFmpegError:
            pass  # cut off: what was decoded so far is still good
        except OSError as error:
            raise FergcnError(
                f"{path}: found that the file can't be read to its end ({error.strerror}), "
                "expected one that can: copy it again"
            ) from None
    if index == 0:
        raise FergcnError(
            f"{path}: found no frame that can be decoded, expected a video: export it again"
        )


def first_stamp(path: Path) -> float:
    """Read the timestamp of the first frame: in the file's own time, time 0 of `read_frames`.

    Returns:
        Seconds; 0 for a file without timestamps.

    Raises:
        FergcnError: the file is missing, empty, can't be read, or holds no video.
    """
    with open_video(path) as (container, stream, source):
        frame = next(without_combs(_decode(container, stream, source)), None)
        return float(frame.time) if frame is not None and frame.time is not None else 0.0


def write_video(path: Path, frames: Iterable[Picture], fps: float, crf: int = 20) -> None:
    """Encode RGB frames as H.264 in MP4; the file appears under its name only when complete.

    Args:
        path: the file to write.
        frames: `(H, W, 3)` RGB arrays of one size; an odd side loses its last row or column.
            Where it has no other, pixels are doubled.
        fps: frames a second.
        crf: x264 quality, lower is better.

    Raises:
        FergcnError: there are no frames.
    """
    rate = Fraction(fps).limit_denominator(1001)
    timed = ((image, number) for number, image in enumerate(frames))
    _encode(path, timed, rate, 1 / rate, {"crf": str(crf), "preset": "medium"})


def write_frames(path: Path, frames: Iterable[VideoFrame], fps: float, crf: int = 20) -> None:
    """Encode frames as `write_video` does, each shown from its own time on.

    A pause costs nothing, however long it is: the frame before it is shown until the next one.

    Args:
        path: the file to write.
        frames: of one size; times that are less than a tick apart become a tick apart.
        fps: frames a second, about; the last frame is shown for so long.
        crf: x264 quality, lower is better.

    Raises:
        FergcnError: there are no frames.
    """

    def timed() -> Iterator[tuple[Picture, int]]:
        before = -1
        for frame in frames:
            before = max(round(frame.time_s * TICKS_PER_S), before + 1)
            yield frame.image, before

    rate = Fraction(fps).limit_denominator(1001)
    # Without frames that draw from later ones: before a pause, those would be decoded after it.
    options = {"crf": str(crf), "preset": "medium", "bf": "0"}
    _encode(path, timed(), rate, Fraction(1, TICKS_PER_S), options)


def _encode(
    path: Path,
    frames: Iterable[tuple[Picture, int]],
    rate: Fraction,
    tick: Fraction,
    options: dict[str, str],
) -> None:
    """Encode pictures that are shown from a number of ticks on, in seconds each."""
    partial = path.with_name(path.name + ".partial")
    try:
        # Through a file of Python's: FFmpeg would take a name with a colon for an address.
        with partial.open("wb") as file, av.open(file, "w", format="mp4") as container:
            stream: Any = None
            for image, ticks in frames:
                if min(image.shape[:2]) == 1:
                    image = image.repeat(2, axis=0).repeat(2, axis=1)
                if stream is None:
                    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
                    stream = container.add_stream("libx264", rate=rate, options=options)
                    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                    stream.time_base = stream.codec_context.time_base = tick
                    # one thread: with several, the bytes depend on the number of cores
                    stream.codec_context.thread_count = 1
                upright = np.ascontiguousarray(image[:height, :width])
                frame = av.VideoFrame.from_ndarray(upright, format="rgb24")
                frame.pts, frame.time_base = ticks, tick
                frame.duration = max(1, round(1 / (rate * tick)))
                container.mux(stream.encode(frame))
            if stream is None:
                raise FergcnError(f"{path}: found no frames to write, expected at least one")
            container.mux(stream.encode())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class _Source:
    """A file's bytes as they were when it was opened, for as long as frames come of them.

    FFmpeg reads through it, so names need no escaping and it never opens a file by itself.
    """

    def __init__(self, path: Path) -> None:
        self.name = "video"  # what a file is called is no sign of what it is
        self._file = path.open("rb")
        self.there = os.fstat(self._file.fileno())
        self._size = self.there.st_size
        self.be_patient()

    def be_patient(self) -> None:
        """Wait for the next frame from now on."""
        self._deadline = time.monotonic() + PATIENCE_S

    @property
    def is_over(self) -> bool:
        """Whether it was waited long enough."""
        return time.monotonic() > self._deadline

    def read(self, count: int) -> bytes:
        left = 0 if self.is_over else max(0, self._size - self._file.tell())
        return self._file.read(min(count, left))

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset + self._size if whence == 2 else offset, whence % 2)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


_CALLED_BY_FFMPEG = {method.__code__ for method in (_Source.read, _Source.seek, _Source.tell)}


def is_reading(frame: FrameType | None) -> bool:
    """Whether FFmpeg called what runs at a frame of the interpreter's, to read a file.

    An exception that is not an error, such as KeyboardInterrupt, is lost there.
    """
    while frame is not None and frame.f_code not in _CALLED_BY_FFMPEG:
        frame = frame.f_back
    return frame is not None


@contextmanager
def open_video(path: Path) -> Iterator[tuple[Any, Any, _Source]]:
    """Open a container and choose its video track.

    Yields:
        The container, the track, and what they are read from.

    Raises:
        FergcnError: the file is missing, empty, can't be read, or holds no video.
    """
    try:
        there = path.stat()
        if stat.S_ISDIR(there.st_mode):
            raise FergcnError(
                f"{path}: found a folder, expected a video file: name the file itself"
            )
        if not stat.S_ISREG(there.st_mode):
            raise FergcnError(
                f"{path}: found a pipe or a device, expected a video file: save it as one first"
            )
        if there.st_size == 0:
            raise FergcnError(f"{path}: found an empty file, expected a video: copy it again")
        source = _Source(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FergcnError(
            f"{path}: found nothing there, expected a video file: check the path"
        ) from None
    except (OSError, ValueError) as error:
        raise FergcnError(
            f"{path}: found that it can't be opened ({getattr(error, 'strerror', error)}), "
            "expected a video file that may be read: check the path and its permissions"
        ) from None
    try:
        with _container(path, source) as container:
            yield container, _video_track(path, container), source
    finally:
        source.close()


def _container(path: Path, source: _Source) -> Any:
    try:
        return av.open(
            source,
            metadata_errors="replace",
            options={
                "format_whitelist": ",".join(FORMATS),
                "protocol_whitelist": "none",
                "max_pixels": str(MAX_STORED_PIXELS),
            },
        )
    except (av.error.FFmpegError, OSError, ValueError):
        raise FergcnError(
            f"{path}: found a file that is not a video or is cut off before its index, "
            "expected MP4, MOV, AVI, MKV or WebM: export or copy it again"
        ) from None


def _video_track(path: Path, container: Any) -> Any:
    tracks = [
        stream
        for stream in container.streams.video
        if not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
    ]
    if not tracks:
        raise FergcnError(f"{path}: found no video track, expected a video: is it sound only?")
    known = [stream for stream in tracks if stream.codec_context is not None]
    if not known:
        raise FergcnError(
            f"{path}: found a video in a form that can't be decoded, expected H.264 or another "
            "common one: convert it"
        )

    def rank(stream: Any) -> tuple[bool, int]:
        return bool(stream.disposition & Disposition.default), stream.width * stream.height

    track = max(known, key=rank)  # the first one of equals
    pixels = track.width * track.height
    if not 0 < pixels <= MAX_STORED_PIXELS:  # FFmpeg says 0 for what is too large
        raise FergcnError(
            f"{path}: found pictures of an unknown size or of more than "
            f"{MAX_STORED_PIXELS // 10**6} million pixels, expected smaller ones: scale the video "
            "down, or export it again"
        )
    track.thread_type = "AUTO"
    if pixels > MAX_PIXELS:
        track.codec_context.thread_count = MAX_THREADS
    track.codec_context.options = {"max_pixels": str(MAX_STORED_PIXELS)}
    return track


def frame_rate(stream: Any) -> float:
    """Frames a second; headers that say nothing or nonsense count as 25."""
    rate = stream.average_rate or stream.guessed_rate
    if not _has_times(stream.container):  # then these are guesses; the pictures may tell
        rate = stream.codec_context.framerate or rate
    return float(rate) if rate and 0.001 <= rate <= 1000 else 25.0


def _has_times(container: Any) -> bool:
    return not container.format.flags & NO_TIMESTAMPS


def _track_duration(container: Any, stream: Any) -> float | None:
    """Seconds that a track lasts by its header, which others of the file may outlast."""
    if container.format.name in ("mpeg", "mpegts") or not _has_times(container):
        return None  # no header says so: FFmpeg takes the difference of timestamps, which may jump
    tag = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if tag is not None:
        hours, minutes, seconds = map(float, tag.groups())
        return 3600 * hours + 60 * minutes + seconds
    alone = len(container.streams) == 1 and container.duration
    return float(container.duration / av.time_base) if alone else None


def pixel_ratio(stream: Any) -> float:
    """Width of a pixel over its height."""
    ratio = float(stream.sample_aspect_ratio or 1)
    return ratio if 1 / MAX_PIXEL_RATIO <= ratio <= MAX_PIXEL_RATIO else 1.0


def _decode(container: Any, stream: Any, source: _Source) -> Iterator[Any]:
    """Decode packet by packet, leaving out those that are damaged."""
    for packet in read_packets(container, stream, source):
        try:
            frames = stream.decode(packet)
        except av.error.FFmpegError:
            frames = []
        if not frames and source.is_over:
            return
        for frame in frames:
            yield frame
            source.be_patient()


def read_packets(container: Any, stream: Any, source: _Source) -> Iterator[Any]:
    """Read a track of an open video.

    Yields:
        Its packets, then what makes the decoder give all that it holds, also after damage.
    """
    while not source.is_over:
        try:
            yield from container.demux(stream)
            return
        except av.error.BlockingIOError:
            pass  # a damaged stretch was passed over
        except (av.error.FFmpegError, IndexError):  # the latter at the end, if tracks came later
            break
    yield None


def without_combs(frames: Iterable[Any]) -> Iterator[Any]:
    """Turn interlaced frames into whole pictures; others stay as they are."""
    graph: Graph | None = None
    form: tuple[int, int, str] | None = None
    for frame in frames:
        if graph is not None and form != (frame.width, frame.height, frame.format.name):
            yield from _filtered(graph, None)
            graph = None
        # The filter needs three rows and columns.
        if graph is None and frame.interlaced_frame and min(frame.width, frame.height) >= 3:
            graph = Graph()
            graph.link_nodes(
                graph.add_buffer(
                    width=frame.width,
                    height=frame.height,
                    format=frame.format,
                    time_base=frame.time_base or Fraction(1, 90000),
                ),
                graph.add("bwdif", "mode=send_frame:deint=interlaced"),
                graph.add("buffersink"),
            ).configure()
            form = (frame.width, frame.height, frame.format.name)
        if graph is None:
            yield frame
        else:
            yield from _filtered(graph, frame)
    if graph is not None:
        yield from _filtered(graph, None)


def _filtered(graph: Graph, frame: Any) -> Iterator[Any]:
    """What comes out of a filter when a frame, or the end, goes in."""
    graph.vpush(frame)
    while True:
        try:
            yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def upright_rgb(
    frame: Any, converter: VideoReformatter, pixel_ratio: float, size: tuple[int, int] | None
) -> Picture:
    """Convert to RGB as it is to be shown.

    Args:
        frame: the decoded frame.
        converter: one for all frames: preparing it takes longer than converting a frame.
        pixel_ratio: width of its pixels over their height; the shorter side is lengthened, so that
            nothing is lost.
        size: width and height of the first frame, into which others are fitted with black bars.
    """
    width = frame.width * max(1.0, pixel_ratio)
    height = frame.height / min(1.0, pixel_ratio)
    swap, mirror, flip = _display_matrix(frame)
    if size is None:
        scale = min(1.0, (MAX_PIXELS / (width * height)) ** 0.5)
    else:
        scale = min(size[swap] / width, size[not swap] / height)
    columns, rows = (max(1, round(side * scale)) for side in (width, height))
    stored = converter.reformat(frame, columns, rows, format="rgb24")
    image = cast(Picture, stored.to_ndarray())
    if swap:
        image = image.transpose(1, 0, 2)
    if mirror:
        image = image[:, ::-1]
    if flip:
        image = image[::-1]
    if size is not None and image.shape[:2] != size[::-1]:
        whole = np.zeros((size[1], size[0], 3), dtype=np.uint8)
        image = image[: size[1], : size[0]]
        top, left = (size[1] - image.shape[0]) // 2, (size[0] - image.shape[1]) // 2
        whole[top : top + image.shape[0], left : left + image.shape[1]] = image
        image = whole
    return np.ascontiguousarray(image)


def _display_matrix(frame: Any) -> tuple[bool, bool, bool]:
    """How phones mark a turned picture: swap rows and columns, then mirror, then flip."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, False, False
    # A point's place x, y becomes a·x + c·y, b·x + d·y.
    a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, c < 0, b < 0
    return False, a < 0, d < 0
