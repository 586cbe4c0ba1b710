"""Live sources: a camera, video on stdin, an address; the newest frame wins."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import av
import av.error
from av.video.reformatter import VideoReformatter

from fergcn.expressions import FergcnError
from fergcn.video import (
    FORMATS,
    MAX_STORED_PIXELS,
    Clock,
    VideoFrame,
    frame_rate,
    pixel_ratio,
    upright_rgb,
    without_combs,
)

PROTOCOLS = {
    "http": "http,https,tcp,tls,crypto",
    "https": "http,https,tcp,tls,crypto",
    "rtsp": "rtsp,rtp,rtcp,udp,tcp,tls,http,https",
    "rtmp": "rtmp,rtmpt,tcp,http",
    "tcp": "tcp",
    "udp": "udp,rtp",
}
"""Addresses that are opened, and what each may open in turn: never a file."""
PLAYLISTS = {"http": ("hls",), "https": ("hls",), "rtsp": ("rtsp",)}
"""What may be there beside the formats of files: it tells where the video is."""
STDIN = ("-", "/dev/stdin")
TIMEOUT_S = (10.0, 30.0)
"""For opening an address, and for its next bytes."""
ANALYZE_US = 1_000_000
"""How much of a stream is read before the first frame, in microseconds: it holds back so much."""


def as_file(name: str) -> Path | None:
    """Tell live sources from files.

    Args:
        name: as the user wrote it.

    Returns:
        The path of a file, for `-` (stdin) of the one that it is redirected from; None for `-`
        where that is a pipe, the number of a camera (unless there is a file of that name) and an
        address.

    Raises:
        FergcnError: the address is of a kind that is not opened.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", name)
    if scheme is None:
        is_camera = name.isascii() and name.isdecimal() and not Path(name).exists()
        if name in STDIN:
            return _file_at_stdin()
        return None if is_camera else Path(name)
    kind = scheme[1].lower()
    if kind == "file":
        return Path(url2pathname(urlsplit(name).path))
    if kind not in PROTOCOLS:
        raise FergcnError(
            f"{name}: found an address that begins with {kind}, expected file, "
            f"{', '.join(PROTOCOLS)}: download the video first"
        )
    return None


def _file_at_stdin() -> Path | None:
    try:
        path = Path(STDIN[1]).resolve()
        return path if path.is_file() and path.samefile(STDIN[1]) else None
    except OSError:  # it is closed
        return None


def source_name(name: str) -> str:
    """What the results of a live source are called."""
    if name in STDIN:
        return "stdin"
    if name.isdecimal():
        return f"camera-{name}"
    address = urlsplit(name)
    stem = Path(address.path).stem
    return (
        re.sub(r"[^A-Za-z0-9._-]+", "-", f"{address.hostname or ''}-{stem}").strip("-.") or "live"
    )


class LiveSource:
    """Frames as they are filmed, in a thread of their own.

    A frame that nobody has taken when the next one comes is dropped. Where frames come before
    their time, as when a recorded file is piped in, they wait for it instead: such a source is
    read as fast as it is analysed, and dropped from only if that is slower than real time. A source
    that says how long and how large it is, as a file behind an address does, is a recording: all
    its frames wait.

    Args:
        name: a live source, as `as_file` tells.

    Raises:
        FergcnError: it can't be opened, or holds no video.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._container = _open(name)
        stream = self._container.streams.video[0]
        self.width: int = stream.width
        self.height: int = stream.height
        self.fps = frame_rate(stream)
        self._pixel_ratio = pixel_ratio(stream)
        # Both: the first piece of MP4 for streaming says how long that piece is.
        self._is_recording = bool(self._container.duration) and self._container.size > 0
        self.num_dropped = 0
        self.trouble: str | None = None
        """What ended it, unless it came to its end or was stopped."""
        self._arrived: dict[int, float] = {}  # frames taken whose predictions are still to come
        self._num_forgotten = 0
        self._changed = threading.Condition()
        self._newest: tuple[float, float, Any] | None = None
        self._ended = False
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def stop(self) -> None:
        """End the frames; may be called from a signal's handler."""
        self._ended = True

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the newest frame whenever one is asked for.

        Raises:
            FergcnError: there was none.
        """
        index = 0
        converter = VideoReformatter()
        size: tuple[int, int] | None = None
        try:
            while True:
                with self._changed:
                    while self._newest is None and not self._ended:
                        self._changed.wait(0.1)  # a handler can't notify
                    if self._newest is None:
                        break
                    arrived, time_s, frame = self._newest
                    self._newest = None
                    self._changed.notify_all()
                try:
                    image = upright_rgb(frame, converter, self._pixel_ratio, size)
                except (av.error.FFmpegError, ValueError, MemoryError):
                    continue  # a picture in a form that can't be converted
                size = (image.shape[1], image.shape[0])
                self._arrived[index] = arrived
                yield VideoFrame(index, time_s, image)
                index += 1
        finally:
            self.stop()  # whoever gives up lets the reader go, too
        if index == 0:
            why = f" ({self.trouble})" if self.trouble else ""
            raise FergcnError(
                f"{self.name}: found no frame{why}, expected a video: does it film? A file whose "
                "index is at its end, as MP4's often is, has to be saved first"
            )

    def age(self, frame_index: int) -> float:
        """Seconds since a frame came in."""
        return time.perf_counter() - self._arrived[frame_index]

    def forget(self, frame_index: int) -> None:
        """Forget when the frames before this one came in."""
        for index in range(self._num_forgotten, frame_index):
            del self._arrived[index]
        self._num_forgotten = max(self._num_forgotten, frame_index)

    def _read(self, stream: Any) -> None:
        clock = Clock(1 / self.fps)
        start: float | None = None
        try:
            for frame in without_combs(self._decoded(stream)):
                now = time.perf_counter()
                start = now if start is None else start
                time_s = clock(frame.time)
                self._offer(now, time_s, frame, start + time_s)
                if self._ended:
                    break
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if not self._ended and not isinstance(error, av.error.EOFError):
                self.trouble = _reason(error, TIMEOUT_S[1])
        with self._changed:
            while self._newest is not None and not self._ended:
                self._changed.wait(0.1)
            self._ended = True
            self._changed.notify_all()

    def _decoded(self, stream: Any) -> Iterator[Any]:
        while not self._ended:
            with suppress(av.error.BlockingIOError):  # a damaged stretch was passed over
                for packet in self._container.demux(stream):
                    with suppress(av.error.FFmpegError):  # damaged, or begun before we came
                        yield from packet.decode()
                return
            time.sleep(0.001)

    def _offer(self, now: float, time_s: float, frame: Any, due: float) -> None:
        with self._changed:
            while self._newest is not None and not self._ended:
                early_s = 0.1 if self._is_recording else due - time.perf_counter()
                if early_s <= 0:
                    break
                self._changed.wait(min(0.1, max(0.001, early_s)))
            self.num_dropped += self._newest is not None
            self._newest = (now, time_s, frame)
            self._changed.notify_all()


def _open(name: str) -> Any:
    """Open a live source with FFmpeg, or say in one line why not."""
    options = {"analyzeduration": str(ANALYZE_US), "max_pixels": str(MAX_STORED_PIXELS)}
    address, kind, advice = name, None, "check the address, and whether it sends"
    if name.isdecimal():
        address, kind, advice = f"/dev/video{name}", "v4l2", "is it plugged in, and may you use it?"
        options["protocol_whitelist"] = "file"
    else:
        scheme = urlsplit(name).scheme.lower()
        options["protocol_whitelist"] = PROTOCOLS.get(scheme, "pipe")
        options["format_whitelist"] = ",".join((*FORMATS, *PLAYLISTS.get(scheme, ())))
    if name in STDIN:
        address, advice = "pipe:0", "pipe MP4 for streaming, MKV or MPEG-TS into it"
    try:
        container = av.open(address, format=kind, options=options, timeout=TIMEOUT_S)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        why = _reason(error, TIMEOUT_S[0])
        raise FergcnError(
            f"{name}: found nothing that can be read ({why}), expected video: {advice}"
        ) from None
    if not container.streams.video:
        container.close()
        raise FergcnError(f"{name}: found no video track, expected a video: is it sound only?")
    container.streams.video[0].thread_type = "SLICE"  # whole frames in threads come late
    return container


def _reason(error: Exception, timeout_s: float) -> str:
    if isinstance(error, av.error.ExitError):  # the time was up
        return f"no answer in {timeout_s:.0f} s"
    return getattr(error, "strerror", None) or str(error)
