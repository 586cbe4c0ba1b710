"""Which videos a command was given, and where the results of each belong."""

import glob
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from fergcn.expressions import FergcnError

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"}
    | {".3gp", ".mts", ".m2ts", ".ogv", ".gif"}
)
"""Files in a folder that count as videos; one that is named itself may be called anything."""


def find_videos(paths: Sequence[Path], listed_in: Path | None = None) -> dict[Path, Path]:
    """Find the videos that are meant.

    Args:
        paths: files; folders, which are searched to the bottom; patterns with `*`, `?`, `[…]` and
            `**`, which are read as such where no file has that very name.
        listed_in: a file with one path in a line, read like `paths`; `-` is stdin.

    Returns:
        Each video once, in the order given (in folders by name), with the folder of its results
        below the output: the video's name without its suffix, inside a searched folder below the
        same subfolders. Where two would meet, the second one gets `-2`, and so on.

    Raises:
        FergcnError: the list can't be read, or a folder or a pattern holds no video.
    """
    places: dict[Path, Path] = {}
    for path in [*paths, *_listed(listed_in)]:
        for video, place in _expand(path):
            places.setdefault(video, place)
    seen: Counter[Path] = Counter()
    for video, place in places.items():
        seen[place] += 1
        if seen[place] > 1:
            places[video] = place.with_name(f"{place.name}-{seen[place]}")
    return places


def _listed(path: Path | None) -> list[Path]:
    if path is None:
        return []
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FergcnError(
            f"{path}: found no list that can be read ({getattr(error, 'strerror', 'not UTF-8')}), "
            "expected a text file with one path in a line"
        ) from None
    return [Path(line) for line in text.splitlines() if line.strip()]


def _expand(path: Path) -> Iterable[tuple[Path, Path]]:
    """Videos that one argument means, and where their results belong."""
    if path.is_dir():
        videos = sorted(
            video
            for video in path.rglob("*")
            if video.suffix.lower() in VIDEO_SUFFIXES and video.is_file()
        )
        if not videos:
            raise FergcnError(
                f"{path}: found no video in this folder, expected "
                f"{', '.join(sorted(VIDEO_SUFFIXES))}: name the files themselves"
            )
        return [(video, video.relative_to(path).with_suffix("")) for video in videos]
    if not path.exists() and glob.has_magic(str(path)):
        # Path.glob refuses patterns that begin at the root.
        matches = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207
        videos = [match for match in matches if match.is_file()]
        if not videos:
            raise FergcnError(f"{path}: found no file like this, expected videos: check the path")
        return [(video, Path(video.stem)) for video in videos]
    return [(path, Path(path.stem or "video"))]
