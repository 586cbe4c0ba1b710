"""The folder of results of a video: tables, summary and timeline; and the table of all videos."""

import csv
import errno
import io
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from fergcn.analysis.collect import Analysis, column_types, make_table
from fergcn.analysis.config import AnalysisConfig
from fergcn.analysis.network import FaceNetwork
from fergcn.analysis.tables import Row, table_columns
from fergcn.expressions import FergcnError
from fergcn.files import lock, write_text
from fergcn.report.annotations import render_eaf, render_srt
from fergcn.report.timeline import draw_timeline

COMPLETE_FILES = (
    *("frames.csv", "frames.parquet", "windows.csv", "segments.csv", "segments.srt"),
    *("segments.eaf", "summary.json", "timeline.png"),
)
"""What every analysis has."""
RESULT_FILES = (*COMPLETE_FILES, "contributions.csv", "overlay.mp4", "report.html")
"""What belongs to one analysis and goes when the next one takes its place."""
VIDEO_COLUMNS = ("file", "status", "faces", "expression", "segments", "note", "results")
"""Columns of the table with one line for each video."""

MAX_SHOWN_FRAMES = 4000
"""Of longer videos, plot and page show about so many frames, evenly chosen; bounds memory."""
CHUNK_ROWS = 10_000
"""Rows of a table that are read at once; bounds memory."""
PART_ROWS = 1_000
"""Rows after which a Parquet file is written."""
PART_S = 10.0
"""Time after which one is written though it has fewer, in seconds."""


class ResultWriter:
    """Write the results of one video while they come.

    Each row goes into a CSV table in `<directory>.partial` and from there to the disk's cache at
    once, so that whole rows can be read while the work goes on, and after this process is killed.
    Parquet is read from its end, so until then `frames.parquet` is a folder of files, which pandas
    and others read as one table: it lacks the rows of the last `PART_S`. `finish` joins them and
    makes the rest from the tables; more may be written into `partial` then. When the block ends
    without an error after that, the folder is swapped in. A result that was there is replaced, and
    with it what was made from it (`RESULT_FILES`); any other file in the directory stays. An error
    leaves the partial folder if there is a row in it.

    Args:
        directory: the folder to write.
        expressions: names of the probabilities.
        contributions: whether there is a table of contributions.
        video: the file, for ELAN to play; None for a live source.

    Raises:
        FergcnError: there is a file of that name, or another process writes this folder.
    """

    def __init__(
        self,
        directory: Path,
        expressions: tuple[str, ...],
        contributions: bool = False,
        video: Path | None = None,
    ) -> None:
        if directory.exists() and not directory.is_dir():
            raise FergcnError(
                f"{directory}: found a file, expected a folder: choose another output"
            )
        self.directory = directory
        self.video = video
        self.partial = directory.with_name(directory.name + ".partial")
        self._lock = _take_partial(self.partial)
        self._has_rows = False
        self._is_whole = False
        self._expressions = expressions
        self._parts = self.partial / "frames.parquet"
        self._part_rows: list[Row] = []
        self._num_parts = 0
        self._part_began = time.monotonic()
        # Line by line: what is in the file is always whole rows.
        self._files: list[TextIO] = []
        self._tables = {}
        try:
            for name, columns in table_columns(expressions, contributions).items():
                path = self.partial / f"{name}.csv"
                file = path.open("w", buffering=1, newline="", encoding="utf-8")
                self._files.append(file)
                self._tables[name] = csv.writer(file, lineterminator="\n")
                self._tables[name].writerow(columns)
        except OSError:
            self._end()
            raise

    def add(self, name: str, row: Row) -> None:
        """Append a row to a table."""
        self._tables[name].writerow(row)
        self._has_rows = True
        if name == "frames":
            self._part_rows.append(row)
            is_time = time.monotonic() >= self._part_began + PART_S
            if len(self._part_rows) == PART_ROWS or is_time:
                self._write_part()

    def _write_part(self) -> None:
        self._parts.mkdir(exist_ok=True)
        path = self._parts / f"{self._num_parts:06}.parquet"
        frames = make_table("frames", self._part_rows, self._expressions)
        self._part_rows.clear()
        unfinished = path.with_name(f".{path.name}.partial")  # for those who read the folder
        frames.to_parquet(unfinished, index=False)
        unfinished.rename(path)
        self._num_parts += 1
        self._part_began = time.monotonic()

    def finish(self, summary: dict[str, Any]) -> Analysis:
        """Write what is made from the tables.

        Args:
            summary: of the analysis.

        Returns:
            What `read_results` reads.
        """
        for file in self._files:
            file.close()
        if self._part_rows or not self._parts.exists():
            self._write_part()
        _join_parts(self._parts)
        text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
        # Bytes in a file's name that are no text become JSON's own escapes.
        (self.partial / "summary.json").write_text(
            text, encoding="utf-8", errors="backslashreplace"
        )
        analysis = read_results(self.partial)
        segments, track_ids = analysis.segments, [track["track_id"] for track in summary["tracks"]]
        start_s = summary["video"].get("start_s", 0.0)
        write_text(self.partial / "segments.srt", render_srt(segments, start_s))
        eaf = render_eaf(segments, track_ids, self.video, self.directory, start_s)
        write_text(self.partial / "segments.eaf", eaf)
        draw_timeline(analysis).save(self.partial / "timeline.png", compress_level=1)
        self._is_whole = True
        return analysis

    def _end(self) -> None:
        """Let go of everything; a folder without a row goes."""
        for file in self._files:
            with suppress(OSError):  # a full disk has been noticed before
                file.close()
        if not (self._has_rows or self._is_whole):
            shutil.rmtree(self.partial, ignore_errors=True)
        os.close(self._lock)

    def __enter__(self) -> "ResultWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._is_whole:
                _swap_in(self.partial, self.directory)
        finally:
            self._end()


@contextmanager
def added_to(directory: Path) -> Iterator[Path]:
    """Make more files for results that are there.

    Yields:
        An empty folder beside them that no other process writes, as `ResultWriter.partial`; its
        files join the results when the block ends without an error.

    Raises:
        FergcnError: another process writes this folder.
    """
    partial = directory.with_name(directory.name + ".partial")
    held = _take_partial(partial)
    try:
        yield partial
        for made in partial.iterdir():
            made.replace(directory / made.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(held)


def _take_partial(partial: Path) -> int:
    """Make an empty folder that is this process's own → the descriptor that holds it."""
    while True:
        partial.mkdir(parents=True, exist_ok=True)
        try:
            held = lock(partial, wait=False)
        except BlockingIOError:
            raise FergcnError(
                f"{partial}: found that another run is writing here, expected to be alone: wait "
                "for it, or choose another folder with -o"
            ) from None
        except FileNotFoundError:
            continue  # it has just got its final name
        if partial.exists() and os.path.samestat(os.fstat(held), partial.stat()):
            break
        os.close(held)
    for entry in partial.iterdir():  # left by a run that was stopped
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    return held


def write_analysis(analysis: Analysis, directory: Path, video: Path | None = None) -> None:
    """Write the tables, the summary and the timeline of one video, as `ResultWriter` does.

    Args:
        analysis: what `analyze` returned.
        directory: the folder to write.
        video: the file that was analysed, for ELAN to play.

    Raises:
        FergcnError: there is a file of that name.
    """
    contributions = bool(analysis.summary["settings"]["contributions"])
    with ResultWriter(directory, analysis.expressions, contributions, video) as writer:
        for name in table_columns(analysis.expressions, contributions):
            table = getattr(analysis, name).astype(object)
            for row in table.where(table.notna(), None).itertuples(index=False, name=None):
                writer.add(name, row)
        writer.finish(analysis.summary)


def read_results(directory: Path) -> Analysis:
    """Read what a writer wrote, as much of it as can be shown.

    Args:
        directory: the folder.

    Returns:
        The analysis without windows and contributions. Of a video of more than
        `MAX_SHOWN_FRAMES` frames, it has those at regular intervals, and all apexes.
    """
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    expressions = tuple(summary["checkpoint"]["expressions"])
    columns = table_columns(expressions, contributions=False)
    segments = pd.concat(read_table(directory / "segments.csv"))
    step = max(1, summary["counts"]["frames"] // MAX_SHOWN_FRAMES)
    apexes = set(segments["apex_s"])
    frames = pd.concat(
        chunk[(chunk["frame_index"] % step == 0) | chunk["time_s"].isin(apexes)]
        for chunk in read_table(directory / "frames.csv")
    )
    windows = pd.DataFrame(columns=list(columns["windows"]))
    return Analysis(
        frames.reset_index(drop=True),
        windows.astype(column_types(windows.columns)),
        segments,
        expressions,
        summary,
    )


def read_table(path: Path) -> Iterator[pd.DataFrame]:
    """Read a table in pieces of `CHUNK_ROWS`, at least one.

    Args:
        path: a CSV file that a writer wrote.
    """
    with path.open(encoding="utf-8", newline="") as file:
        names = pd.Index(next(csv.reader(file), []))
    chunks = pd.read_csv(
        path, dtype=column_types(names), float_precision="round_trip", chunksize=CHUNK_ROWS
    )
    return iter(chunks)


def _join_parts(folder: Path) -> None:
    """Make one Parquet file of those in a folder, and put it in the folder's place."""
    whole, joined = folder.with_name(f".{folder.name}"), folder.with_name(".parts")
    parts = _parquet_files(folder)
    with parquet.ParquetWriter(whole, parquet.read_schema(parts[0])) as writer:
        for first in range(0, len(parts), CHUNK_ROWS // PART_ROWS):
            few = parts[first : first + CHUNK_ROWS // PART_ROWS]
            writer.write_table(pa.concat_tables(map(parquet.read_table, few)))
    folder.rename(joined)
    whole.rename(folder)
    shutil.rmtree(joined)


def _parquet_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


class VideoTable:
    """`videos.csv`: one line for each video, written as it ends; several runs may share it.

    Args:
        path: the table. Lines there about other videos stay, those about these or in their folders
            go: the same file may have been named otherwise.
        places: the videos that are to come, with the folders of their results below the table's.

    Raises:
        FergcnError: the table can't be written.
    """

    def __init__(self, path: Path, places: Mapping[str, str]) -> None:
        self.path = path
        folders = set(places.values())
        lines = [dict(zip(VIDEO_COLUMNS, VIDEO_COLUMNS, strict=True))]
        with self._held():
            if path.is_file():
                with path.open(newline="", encoding="utf-8", errors="replace") as file:
                    others = (row for row in csv.DictReader(file) if row.get("file"))
                    lines += [
                        row
                        for row in others
                        if row["file"] not in places and row.get("results") not in folders
                    ]
            text = io.StringIO()
            writer = csv.DictWriter(
                text, VIDEO_COLUMNS, restval="", extrasaction="ignore", lineterminator="\n"
            )
            writer.writerows(lines)
            write_text(path, text.getvalue())

    def add(
        self, file: str, summary: Mapping[str, Any] | None, directory: Path, note: str = ""
    ) -> None:
        """Append a line.

        Args:
            file: the video.
            summary: of its analysis; None where it failed.
            directory: its results, below the table's folder.
            note: what else there is to say.

        Raises:
            FergcnError: the table can't be written; it is as it was.
        """
        row: list[object] = [file, "failed", "", "", "", note, ""]
        if summary is not None:
            tracks = summary["tracks"]
            longest = max(tracks, key=lambda track: track["num_frames"], default=None)
            answer = "" if longest is None else longest["answer"]
            results = directory.relative_to(self.path.parent)
            row = [file, "done", len(tracks), answer, summary["counts"]["segments"], note, results]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(row)
        line = text.getvalue().encode(errors="backslashreplace")
        with self._held(), self.path.open("ab", buffering=0) as table:
            size = table.seek(0, io.SEEK_END)
            if table.write(line) < len(line):  # part of a line would spoil the next one
                table.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Let no other run write meanwhile, and say in one line what goes wrong."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            held = lock(self.path.parent)
            try:
                yield
            finally:
                os.close(held)
        except (FileExistsError, NotADirectoryError):
            raise FergcnError(
                f"{self.path.parent}: found a file there, expected a folder: choose another with -o"
            ) from None
        except OSError as error:
            raise FergcnError(
                f"{self.path}: found it can't be written ({error.strerror}), expected a folder "
                "with room: choose another with -o"
            ) from None


def belongs_to_other(directory: Path, video: Path) -> bool:
    """Whether a folder holds the results of another video, or of a recording.

    A file of the same name, size and time of change is the same video, wherever it lies now; so is
    one under the same path, whatever became of it.
    """
    try:
        about = json.loads((directory / "summary.json").read_text(encoding="utf-8"))["video"]
        if about.get("path") == str(video.absolute()):
            return False
        return not _is_same_file(about, video)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _is_same_file(about: Mapping[str, Any], video: Path) -> bool:
    there = video.stat()
    return (video.name, there.st_size, there.st_mtime_ns) == tuple(
        about.get(key) for key in ("file", "size_bytes", "modified_ns")
    )


def is_current(
    directory: Path,
    video: Path,
    settings: AnalysisConfig,
    network: FaceNetwork,
) -> bool:
    """Whether a folder holds the complete results of this very analysis, but for what is drawn.

    Args:
        directory: the folder.
        video: the video; by its name, size and time of change it is known again.
        settings: how it is to be analysed.
        network: with which network.
    """
    wanted = [*COMPLETE_FILES, *(["contributions.csv"] if settings.contributions else [])]
    if not all((directory / name).is_file() for name in wanted):
        return False
    try:
        summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
        same_video = _is_same_file(summary["video"], video)
        # Through JSON and back, as what was written: it knows no tuples.
        same_settings = json.loads(json.dumps(asdict(settings))) == summary["settings"]
        same_network = summary["checkpoint"]["sha256"] == network.checkpoint.sha256 and summary[
            "versions"
        ]["fergcn"] == version("fergcn")
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return same_video and same_settings and same_network


def _swap_in(partial: Path, directory: Path) -> None:
    """Put a finished folder in the place of an old one without losing files of others."""
    old = directory.with_name(directory.name + ".old")
    if directory.exists():
        if old.exists():  # left by a run that was stopped after its swap
            _keep_foreign_files(old, directory)
        directory.replace(old)
    partial.replace(directory)
    if old.exists():
        _keep_foreign_files(old, directory)


def _keep_foreign_files(old: Path, directory: Path) -> None:
    for entry in old.iterdir():
        if entry.name not in RESULT_FILES and not (directory / entry.name).exists():
            entry.replace(directory / entry.name)
    shutil.rmtree(old)
