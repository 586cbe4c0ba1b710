"""The sound of a video, put beside pictures that were made from it."""

from collections.abc import Iterator
from contextlib import suppress
from heapq import merge
from pathlib import Path
from typing import Any

import av
import av.error

from fergcn.video import Clock, first_stamp, open_video, read_packets

COPIED_CODECS = ("aac", "mp3", "ac3", "eac3", "alac", "flac", "opus")
"""What MP4 may hold and players play there, as FFmpeg calls it; other sound becomes AAC."""
SAMPLE_RATE = 48_000
"""Of sound that becomes AAC, in samples a second."""
AAC_SAMPLES = 1024
"""In a packet of AAC."""


def add_sound(pictures: Path, video: Path, path: Path) -> None:
    """Write the pictures of one file with the sound of another.

    The first sound track that is known counts. It is copied where MP4 may hold it and otherwise
    becomes AAC, in mono or stereo. It stays where it was beside the pictures: what lies before the
    first one is left out. Damaged sound ends earlier or is left out.

    Args:
        pictures: MP4 whose time 0 is that of the first frame of `video`.
        video: the video with the sound.
        path: the MP4 file to write; it appears under its name only when complete. Of a video
            without sound it has the pictures alone.

    Raises:
        FergcnError: the video can't be read.
    """
    partial = path.with_name(path.name + ".partial")
    start_s = first_stamp(video)
    try:
        with open_video(video) as (container, _, _):
            sound = _sound_track(container)
            codec = "" if sound is None else sound.codec_context.codec.canonical_name
        ways = [] if sound is None else [True, False] if codec in COPIED_CODECS else [False]
        for is_copied in ways:
            # A track may be such that MP4 refuses it: an odd sampling rate, no header.
            with suppress(av.error.FFmpegError, ValueError):
                _join(pictures, video, start_s, is_copied, partial)
                partial.replace(path)
                return
        pictures.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _sound_track(container: Any) -> Any:
    known = (stream for stream in container.streams.audio if stream.codec_context is not None)
    return next(known, None)


def _join(pictures: Path, video: Path, start_s: float, is_copied: bool, path: Path) -> None:
    """Write both tracks, one packet after the other in the order of time.

    Raises:
        FFmpegError: MP4 refuses the sound.
        ValueError: there is no sound that can be used.
    """
    with (
        pictures.open("rb") as shown,  # FFmpeg would take a name with a colon for an address
        av.open(shown, "r") as shown_container,
        open_video(video) as (container, _, source),
        path.open("wb") as file,
        av.open(file, "w", format="mp4") as out,
    ):
        (shown_track,) = shown_container.streams.video
        sound_track = _sound_track(container)
        to_show = out.add_stream_from_template(shown_track)
        to_hear: Any
        packets = read_packets(container, sound_track, source)
        if is_copied:
            to_hear = out.add_stream_from_template(sound_track)
        else:
            layout = "mono" if sound_track.channels == 1 else "stereo"
            to_hear = out.add_stream("aac", rate=SAMPLE_RATE, layout=layout)
            packets = _as_aac(packets, sound_track, to_hear)
        out.start_encoding()
        pairs = (
            (packet.dts * packet.time_base, to_show, packet)
            for packet in shown_container.demux(shown_track)
            if packet.dts is not None and packet.time_base is not None
        )
        heard = False
        for _, stream, packet in merge(
            pairs, _timed(packets, start_s, to_hear), key=lambda pair: pair[0]
        ):
            source.be_patient()
            heard |= stream is to_hear
            packet.stream = stream
            out.mux(packet)
        if not heard:
            raise ValueError(f"{video}: found no sound that can be used")


def _timed(packets: Iterator[Any], start_s: float, stream: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Give packets times that rise and count from the first picture; leave out those before it."""
    clock: Clock | None = None
    offset_s = 0.0
    for packet in packets:
        if packet is None or packet.size == 0:
            continue
        stamp = packet.dts if packet.pts is None else packet.pts
        stamp_s = None if stamp is None else float(stamp * packet.time_base)
        if clock is None:
            clock = Clock(float((packet.duration or 1) * packet.time_base))
            offset_s = 0.0 if stamp_s is None else stamp_s - start_s
        time_s = clock(stamp_s) + offset_s
        ticks = round(time_s / packet.time_base)
        if ticks >= 0:
            packet.pts = packet.dts = ticks
            yield ticks * packet.time_base, stream, packet


def _as_aac(packets: Iterator[Any], track: Any, stream: Any) -> Iterator[Any]:
    """Decode packets, leaving out those that are damaged, and encode what was in them."""
    resampler = av.AudioResampler("fltp", stream.layout, SAMPLE_RATE, AAC_SAMPLES)
    with suppress(av.error.FFmpegError, ValueError):  # the sound changes its form: it ends there
        for packet in packets:
            frames = []
            with suppress(av.error.FFmpegError):
                frames = track.decode(packet)
            for frame in frames:
                for samples in resampler.resample(frame):
                    yield from stream.encode(samples)
    for samples in resampler.resample(None):
        yield from stream.encode(samples)
    yield from stream.encode(None)
