"""The predict command: videos in, tables, plots and pages out."""

import sys
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter

from fergcn.analysis.stream import Analysis, AnalysisConfig, analyze
from fergcn.checkpoint import Checkpoint, load_checkpoint
from fergcn.commands.inputs import find_videos
from fergcn.commands.progress import Report, progress_bars, stdout
from fergcn.expressions import NOT_SURE, FergcnError, one_line
from fergcn.report.outputs import is_current, write_analysis, write_overlay
from fergcn.workers import num_cores, run_tasks

Settings = Annotated[AnalysisConfig, Parameter(name="*")]
_SETTINGS = AnalysisConfig()


def predict(
    *videos: Path,
    files_from: Path | None = None,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("results"),
    checkpoint: str = "default",
    overlay: bool = False,
    report: bool = False,
    overwrite: bool = False,
    num_workers: int = 1,
    settings: Settings = _SETTINGS,
) -> int:
    """Tell who shows which expression when in videos.

    Writes OUTPUT/<name of the video>/ with frames.csv, frames.parquet, windows.csv, segments.csv,
    timeline.png and summary.json. Videos whose results are there, made from the same file with the
    same settings and checkpoint, are skipped: a run that was stopped goes on.

    Args:
        videos: video files, folders that hold some, or patterns as 'day*/*.mp4'.
        files_from: file that lists more of them, one in a line; - reads the list from stdin.
        output: folder of the results.
        checkpoint: folder of a checkpoint, or the name of one in the package.
        overlay: also write overlay.mp4, the video with boxes and expressions.
        report: also write report.html, one page with everything.
        overwrite: analyse again what is there already.
        num_workers: videos that are analysed at the same time.
    """
    if not videos and files_from is None:
        print(
            "fergcn: found no video, expected at least one: fergcn predict VIDEO…", file=sys.stderr
        )
        return 2
    if num_workers < 1:
        raise FergcnError(f"found num_workers={num_workers}, expected at least 1: raise it")
    loaded = load_checkpoint(checkpoint)
    places, errors = find_videos(videos, files_from)
    failed = _tell(Outcome(complaints=[str(error) for error in errors], failed=bool(errors)))
    jobs = []
    for video, place in places.items():
        directory = output / place
        if not overwrite and is_current(directory, video, settings, loaded, overlay, report):
            again = "(--overwrite does it again)"
            _tell(Outcome([f"{video.name}: done before → {directory} {again}"]))
            continue
        threads = max(1, num_cores() // num_workers)
        jobs.append(Job(video, directory, checkpoint, settings, overlay, report, threads))
    with progress_bars() as progress:
        if num_workers == 1 or len(jobs) < 2:
            for job in jobs:
                failed |= _tell(run_job(job, progress))
        else:
            with closing(run_tasks(run_job, jobs, num_workers)) as outcomes:
                for done, (_, outcome) in enumerate(outcomes, 1):
                    failed |= _tell(outcome)
                    progress("videos", done, len(jobs))
    return int(failed)


@dataclass(frozen=True)
class Job:
    """One video to analyse, in this process or another one."""

    video: Path
    directory: Path
    checkpoint: str
    settings: AnalysisConfig
    overlay: bool
    report: bool
    threads: int
    """Of the network; several videos at once share the cores."""


@dataclass(frozen=True)
class Outcome:
    """What there is to tell about one video."""

    answer: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    failed: bool = False


def run_job(job: Job, progress: Report = lambda _what, _done, _total: None) -> Outcome:
    """Analyse one video; what is wrong with it becomes a line."""
    torch.set_num_threads(job.threads)
    try:
        analysis = analyze_to(
            job.video,
            job.directory,
            _load_once(job.checkpoint),
            job.settings,
            job.overlay,
            job.report,
            progress,
        )
    except FergcnError as error:
        return Outcome(complaints=[str(error)], failed=True)
    except OSError as error:
        complaint = (
            f"{job.video}: found {job.directory} can't be written ({error.strerror or error}), "
            "expected a folder with room: choose another with -o"
        )
        return Outcome(complaints=[complaint], failed=True)
    warnings = [f"{job.video}: {warning}" for warning in analysis.summary["warnings"]]
    return Outcome(answer_lines(job.video, analysis, job.directory), warnings)


@cache
def _load_once(checkpoint: str) -> Checkpoint:
    return load_checkpoint(checkpoint)


def _tell(outcome: Outcome) -> bool:
    """Print an outcome; say whether it failed."""
    for line in outcome.answer:
        stdout.out(one_line(line), highlight=False)  # as it is: names may look like markup
    for complaint in outcome.complaints:
        print(f"fergcn: {one_line(complaint)}", file=sys.stderr)
    return outcome.failed


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


def answer_lines(video: Path, analysis: Analysis, directory: Path) -> list[str]:
    """What was found in one video."""
    counts = analysis.summary["counts"]
    lines = [
        f"{video.name}: {counts['frames_with_face']} of {counts['frames']} frames show a face "
        f"→ {directory}"
    ]
    for track in analysis.summary["tracks"]:
        answer = f"mostly {track['answer']}"
        if track["answer"] == NOT_SURE:
            ranked = sorted(track["mean_probabilities"].items(), key=lambda item: -item[1])
            first_two = ", ".join(f"{name} {probability:.2f}" for name, probability in ranked[:2])
            answer = f"{NOT_SURE}: {first_two}"
        lines.append(
            f"  face {track['track_id']}: {answer} ({track['first_s']:.2f}–{track['last_s']:.2f} s)"
        )
        segments = analysis.segments[analysis.segments["track_id"] == track["track_id"]]
        lines.extend(
            f"    {segment.expression}: onset {segment.onset_s:.2f} s, apex "
            f"{segment.apex_s:.2f} s, offset {segment.offset_s:.2f} s, "
            f"peak intensity {segment.peak_intensity:.2f}"
            for segment in segments.itertuples()
        )
    return lines
