"""Which videos a command was given, and where the results of each belong."""

import glob
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fergcn.expressions import FergcnError
from fergcn.live import as_file
from fergcn.report.outputs import belongs_to_other

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"}
    | {".3gp", ".3g2", ".mts", ".m2ts", ".m2v", ".ogv", ".gif", ".asf", ".vob", ".mod", ".mxf"}
    | {".dv", ".h264", ".h265", ".hevc"}
)
"""Files in a folder that count as videos; one that is named itself may be called anything."""
MAX_NAME_BYTES = 200
"""Longer names of results are cut: file systems take 255 bytes, and some of the names written need
an ending of their own."""
OWN_NAMES = ("videos.csv",)
"""What lies in the output folder beside the results of each video."""
OWN_ENDINGS = (".partial", ".old")
"""Endings of folders that are not finished or on their way out; no result is called so."""


def find_videos(
    paths: Sequence[Path], listed_in: Path | None = None, output: Path | None = None
) -> tuple[dict[Path, Path], list[FergcnError]]:
    """Find the videos that are meant.

    Args:
        paths: files; folders, which are searched to the bottom, except for hidden files, links to
            folders and videos that this program wrote; patterns with `*`, `?`, `[…]` and `**`,
            which are read as such where no file has that very name.
        listed_in: a file with one path in a line, or with a NUL character between paths, read like
            `paths`; `-` is stdin.
        output: where results are; a folder there that belongs to another video is not taken.

    Returns:
        Each video once, in the order given (in folders by name), with the folder of its results
        below the output: the video's name without its suffix, inside a searched folder below the
        same subfolders. Where two would meet, also on a disk that takes `A` for `a`, or one would
        lie inside the other, the later one gets `-2`, and so on; names that would lead elsewhere
        are changed as little as possible (`_plain_name`). Then what is wrong with the places that
        were named; what is wrong with a file shows when it is read.

    Raises:
        FergcnError: the list can't be read.
    """
    places: dict[Path, Path] = {}
    errors: list[FergcnError] = []
    seen: set[str] = set()
    named: list[Path | str] = [*paths, *_listed(listed_in)]
    for name in named:
        try:
            path = _path(name) if isinstance(name, str) else name
            for video, place in _expand(path, errors):
                identity = os.path.join(os.path.realpath(video.parent), video.name)  # noqa: PTH118
                if identity not in seen:
                    seen.add(identity)
                    places[video] = place
        except FergcnError as error:
            errors.append(error)
    return _kept_apart(places, output), errors


def _listed(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except (OSError, ValueError, AttributeError) as error:
        raise FergcnError(
            f"{path}: found no list that can be read ({getattr(error, 'strerror', error)}), "
            "expected a text file with one path in a line"
        ) from None
    text = os.fsdecode(content.removeprefix(b"\xef\xbb\xbf"))  # editors mark UTF-8 so
    lines = text.split("\0") if "\0" in text else [line.rstrip("\r") for line in text.split("\n")]
    return [line for line in lines if line.strip()]


def _path(line: str) -> Path:
    """What a line of a list names, file:// included.

    Raises:
        FergcnError: it is another address.
    """
    if "://" not in line:
        return Path(line)
    if (path := as_file(line)) is None:
        raise FergcnError(
            f"{line}: found an address in a list, expected files: give it to fergcn predict alone"
        )
    return path


def _expand(path: Path, errors: list[FergcnError]) -> Iterable[tuple[Path, Path]]:
    """Videos that one argument means, and where their results belong."""
    pattern = str(path)
    if "\0" in pattern or os.path.lexists(path) or not glob.has_magic(pattern):
        if not os.path.isdir(path):  # noqa: PTH112 – unlike Path's, says no where it may not look
            return [(path, Path(_plain_name(_stem(path))))]  # reading it says what is wrong
        known = len(errors)
        videos = sorted(_search(path, errors))
        if not videos and len(errors) == known:
            raise FergcnError(
                f"{path}: found no video in this folder, expected "
                f"{', '.join(sorted(VIDEO_SUFFIXES))}: name the files themselves"
            )
        return [(video, _place_below(path, video)) for video in videos]
    # Path.glob refuses patterns that begin at the root.
    matches = sorted(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207
    videos = [match for match in matches if not os.path.isdir(match)]  # noqa: PTH112
    if not videos:
        raise FergcnError(f"{path}: found no file like this, expected videos: check the path")
    return [(video, Path(_plain_name(_stem(video)))) for video in videos]


def _search(folder: Path, errors: list[FergcnError]) -> Iterator[Path]:
    """Files in a folder that are called like videos; links to folders are not followed."""

    def unreadable(error: OSError) -> None:
        errors.append(
            FergcnError(
                f"{error.filename}: found a folder that can't be read ({error.strerror}), "
                "expected one that may be: check its permissions"
            )
        )

    for place, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            is_result = name == "overlay.mp4" and "frames.csv" in names
            if Path(name).suffix.lower() in VIDEO_SUFFIXES and name[0] != "." and not is_result:
                yield Path(place, name)


def _place_below(folder: Path, video: Path) -> Path:
    *parents, _ = video.relative_to(folder).parts
    return Path(*map(_plain_name, parents), _plain_name(_stem(video)))


def _stem(video: Path) -> str:
    return os.path.splitext(video.name)[0]  # noqa: PTH122 – Path's stem of `...mp4` is `..`


def _plain_name(name: str) -> str:
    """A name that is one folder, on any disk, and not one of the program's own."""
    name = "".join(letter if letter.isprintable() else "_" for letter in name)
    name = name.encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    if name in {"", ".", ".."}:
        return "video"
    return f"{name}_" if name.casefold().endswith(OWN_ENDINGS) else name


def _kept_apart(places: dict[Path, Path], output: Path | None) -> dict[Path, Path]:
    """Number those that would meet, also with what is there, or that others would lie in."""

    def key(place: Path) -> str:
        return unicodedata.normalize("NFC", str(place)).casefold()

    taken = {key(folder) for place in places.values() for folder in place.parents}
    taken.update(OWN_NAMES)
    apart = {}
    for video, place in places.items():
        wanted, number = place, 1
        while key(wanted) in taken or (output and belongs_to_other(output / wanted, video)):
            number += 1
            wanted = place.with_name(f"{place.name}-{number}")
        taken.add(key(wanted))
        apart[video] = wanted
    return apart
