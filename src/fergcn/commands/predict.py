"""The predict command: videos in, tables, plots and pages out."""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fergcn.analysis.stream import Analysis, AnalysisConfig, analyze
from fergcn.checkpoint import Checkpoint, load_checkpoint
from fergcn.commands.progress import Report, progress_bars, stdout
from fergcn.expressions import FergcnError
from fergcn.report.outputs import write_analysis, write_overlay

Settings = Annotated[AnalysisConfig, Parameter(name="*")]
_SETTINGS = AnalysisConfig()


def predict(
    *videos: Path,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("results"),
    checkpoint: str = "default",
    overlay: bool = False,
    report: bool = False,
    settings: Settings = _SETTINGS,
) -> int:
    """Tell who shows which expression when in videos.

    Writes OUTPUT/<name of the video>/ with frames.csv, frames.parquet, windows.csv, segments.csv,
    timeline.png and summary.json.

    Args:
        videos: video files.
        output: folder of the results.
        checkpoint: folder of a checkpoint, or the name of one in the package.
        overlay: also write overlay.mp4, the video with boxes and expressions.
        report: also write report.html, one page with everything.
    """
    if not videos:
        print(
            "fergcn: found no video, expected at least one: fergcn predict VIDEO…", file=sys.stderr
        )
        return 2
    loaded = load_checkpoint(checkpoint)
    seen: Counter[str] = Counter()
    failed = False
    with progress_bars() as progress:
        for video in videos:
            seen[video.stem] += 1  # files of one name in several folders keep apart
            again = seen[video.stem]
            name = video.stem if again == 1 else f"{video.stem}-{again}"
            try:
                analysis = analyze_to(
                    video, output / name, loaded, settings, overlay, report, progress
                )
            except FergcnError as error:
                print(f"fergcn: {error}", file=sys.stderr)
                failed = True
            except OSError as error:
                where, why = error.filename or output / name, error.strerror or error
                print(
                    f"fergcn: {video}: found {where} can't be written ({why}), "
                    "expected a folder with room: choose another with -o",
                    file=sys.stderr,
                )
                failed = True
            else:
                print_answer(video, analysis, output / name)
    return int(failed)


def analyze_to(
    video: Path,
    directory: Path,
    checkpoint: Checkpoint,
    settings: AnalysisConfig,
    overlay: bool,
    report: bool,
    progress: Report,
) -> Analysis:
    """Analyse one video and write its results.

    Raises:
        FergcnError: the video can't be read, or the results can't be written.
    """
    analysis = analyze(
        video, checkpoint, settings, lambda done, total: progress(video.name, done, total)
    )
    write_analysis(analysis, directory)
    if overlay:
        write_overlay(video, analysis, directory / "overlay.mp4")
    if report:
        from fergcn.report.page import write_report

        write_report(analysis, directory / "report.html", video)
    return analysis


def print_answer(video: Path, analysis: Analysis, directory: Path) -> None:
    """Print what was found in one video."""
    counts = analysis.summary["counts"]
    stdout.print(
        f"{video.name}: {counts['frames_with_face']} of {counts['frames']} frames show a face "
        f"→ {directory}",
        soft_wrap=True,
        highlight=False,
    )
    for warning in analysis.summary["warnings"]:
        print(f"fergcn: {video}: {warning}", file=sys.stderr)
    for track in analysis.summary["tracks"]:
        stdout.print(
            f"  face {track['track_id']}: mostly {track['expression']} "
            f"({track['first_s']:.2f}–{track['last_s']:.2f} s)",
            highlight=False,
        )
        segments = analysis.segments[analysis.segments["track_id"] == track["track_id"]]
        for segment in segments.itertuples():
            stdout.print(
                f"    {segment.expression}: onset {segment.onset_s:.2f} s, apex "
                f"{segment.apex_s:.2f} s, offset {segment.offset_s:.2f} s, "
                f"peak intensity {segment.peak_intensity:.2f}",
                highlight=False,
            )
