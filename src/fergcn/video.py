"""Read video frames with their true timestamps, and write videos."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from fergcn.expressions import FergcnError


@dataclass(frozen=True)
class VideoFrame:
    """One decoded frame."""

    index: int
    """Position among the decoded frames, from 0."""
    time_s: float
    """Presentation time from the container, in seconds after the first frame."""
    image: NDArray[np.uint8]
    """`(H, W, 3)` RGB, upright."""


@dataclass(frozen=True)
class VideoInfo:
    """What the container says before anything is decoded."""

    width: int
    height: int
    fps: float
    num_frames: int | None
    """Estimated number of frames, for a progress bar; the stream decides."""


def probe_video(path: Path) -> VideoInfo:
    """Read a video's header.

    Raises:
        FergcnError: the file is missing, empty or holds no video.
    """
    with _open(path) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or stream.guessed_rate or 25)
        num_frames = stream.frames or None
        if num_frames is None and container.duration:
            num_frames = max(1, round(container.duration / av.time_base * fps))
        return VideoInfo(stream.width, stream.height, fps, num_frames)


def read_frames(path: Path) -> Iterator[VideoFrame]:
    """Decode a video frame by frame.

    A file that is cut off or damaged in the middle ends with its last whole frame. A frame without
    a timestamp is placed one frame duration after the one before.

    Raises:
        FergcnError: the file is missing, empty, holds no video, or no frame can be decoded.
    """
    index = 0
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        frame_duration = 1 / float(stream.average_rate or stream.guessed_rate or 25)
        start_s: float | None = None
        time_s = -frame_duration
        try:
            for frame in container.decode(stream):
                if frame.time is None:
                    time_s += frame_duration
                else:
                    start_s = frame.time if start_s is None else start_s
                    time_s = frame.time - start_s
                yield VideoFrame(index, time_s, _upright_rgb(frame))
                index += 1
        except av.error.FFmpegError:
            pass  # cut off: what was decoded so far is still good
    if index == 0:
        raise FergcnError(
            f"{path}: found no frame that can be decoded, expected a video: export it again"
        )


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float, crf: int = 20) -> None:
    """Encode RGB frames as H.264 in MP4; the file appears under its name only when complete.

    Args:
        path: the file to write.
        frames: `(H, W, 3)` RGB arrays of one size; an odd side loses its last row or column.
        fps: frames a second.
        crf: x264 quality, lower is better.

    Raises:
        FergcnError: there are no frames.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with av.open(str(partial), "w", format="mp4") as container:
            stream: Any = None
            for image in frames:
                if stream is None:
                    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
                    rate = Fraction(fps).limit_denominator(1001)
                    stream = container.add_stream(
                        "libx264", rate=rate, options={"crf": str(crf), "preset": "medium"}
                    )
                    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                    # one thread: with several, the bytes depend on the number of cores
                    stream.codec_context.thread_count = 1
                upright = np.ascontiguousarray(image[:height, :width])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(upright, format="rgb24")))
            if stream is None:
                raise FergcnError(f"{path}: found no frames to write, expected at least one")
            container.mux(stream.encode())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _open(path: Path) -> Any:
    """Open a container that holds a video, or say in one line why not."""
    if not path.exists():
        raise FergcnError(f"{path}: found nothing there, expected a video file: check the path")
    if path.is_dir():
        raise FergcnError(f"{path}: found a folder, expected a video file: name the file itself")
    if path.stat().st_size == 0:
        raise FergcnError(f"{path}: found an empty file, expected a video: copy it again")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError, ValueError):
        raise FergcnError(
            f"{path}: found a file that is not a video or is cut off before its index, "
            "expected MP4, MOV, AVI, MKV or WebM: export or copy it again"
        ) from None
    if not container.streams.video:
        container.close()
        raise FergcnError(f"{path}: found no video track, expected a video: is it sound only?")
    return container


def _upright_rgb(frame: Any) -> NDArray[np.uint8]:
    """Convert to RGB and undo the display matrix, by which phones mark a turned picture."""
    image: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image
