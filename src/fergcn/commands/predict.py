"""The predict command: videos in, tables, plots and pages out."""

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from fergcn.analysis.collect import Analysis, analyze_live, analyze_video
from fergcn.analysis.config import AnalysisConfig, Runtime
from fergcn.analysis.network import FaceNetwork
from fergcn.analysis.tables import answer_text
from fergcn.cluster import run_on_cluster
from fergcn.commands.inputs import find_videos
from fergcn.commands.progress import progress_bars, stdout
from fergcn.expressions import NOT_SURE, FergcnError, one_line
from fergcn.live import LiveSource, as_file, source_name
from fergcn.progress import Progress
from fergcn.report.outputs import ResultWriter, VideoTable, added_to, is_current, read_results
from fergcn.report.overlay import write_overlay
from fergcn.workers import num_cores, report_progress, run_tasks

Settings = Annotated[AnalysisConfig, Parameter(name="*")]
_SETTINGS = AnalysisConfig()


def predict(
    *videos: str,
    files_from: Path | None = None,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("results"),
    checkpoint: str = "default",
    overlay: bool = False,
    report: bool = False,
    overwrite: bool = False,
    num_workers: int = 1,
    ray: str | None = None,
    settings: Settings = _SETTINGS,
) -> int:
    """Tell who shows which expression when in videos.

    Writes OUTPUT/<name of the video>/ with frames.csv, frames.parquet, windows.csv, segments.csv,
    segments.srt (subtitles), segments.eaf (for ELAN), timeline.png and summary.json. Videos whose
    results are there, made from the same file with the same settings and checkpoint, are skipped:
    a run that was stopped goes on. While a video is analysed, its rows are in OUTPUT/<name of the
    video>.partial/ already. OUTPUT/videos.csv has one line for each video.

    A live source is recorded until it ends or Ctrl-C is pressed: it drops frames rather than lag,
    but for those of a file behind an address. Each recording gets a folder of its own.

    Args:
        videos: video files, folders that hold some, or patterns as 'day*/*.mp4'; or one live
            source: the number of a camera, an address (http, https, rtsp, rtmp, tcp, udp), or - for
            video that is piped in; of a file that stdin is redirected from, - is just a name.
        files_from: file that lists more of them, one in a line; - reads the list from stdin.
        output: folder of the results.
        checkpoint: folder of a checkpoint or of what fergcn export wrote, or the name of one in the
            package.
        overlay: also write overlay.mp4, the video with boxes and expressions.
        report: also write report.html, one page with everything.
        overwrite: analyse again what is there already.
        num_workers: videos that are analysed at the same time.
        ray: HOST:PORT of a Ray cluster that analyses the videos, one on each of its cores, or auto
            for the one on this machine. All machines need the same folders under the same paths.
    """
    if not videos and files_from is None:
        return _wrong_usage("found no video, expected at least one: fergcn predict VIDEO…")
    if num_workers < 1:
        return _wrong_usage(f"found num_workers={num_workers}, expected at least 1: raise it")
    if "" in videos:
        return _wrong_usage("found a video without a name, expected one: is a variable empty?")
    files = [path for video in videos if (path := as_file(video)) is not None]
    if len(files) < len(videos):
        if len(videos) > 1 or files_from is not None:
            return _wrong_usage("found a live source and other videos, expected it alone")
        if overlay:
            return _wrong_usage("found --overlay for a live source, expected a file: leave it out")
        return _record(videos[0], output, checkpoint, settings, report)
    network = FaceNetwork(checkpoint, settings.device, settings.runtime)
    places, errors = find_videos(files, files_from, output)
    if not places and not errors:
        errors = [
            FergcnError(
                f"{files_from}: found an empty list, expected a video in each line: does what "
                "makes it find any?"
            )
        ]
    _tell(Outcome(complaints=[str(error) for error in errors]))
    failed = bool(errors)
    named = {str(video): str(place) for video, place in places.items()}
    table = VideoTable(output / "videos.csv", named)
    jobs = []
    for video, place in places.items():
        directory = output / place
        is_analyzed = not overwrite and is_current(directory, video, settings, network)
        draw = [
            name
            for name, wanted in (("overlay.mp4", overlay), ("report.html", report))
            if wanted and not (is_analyzed and (directory / name).is_file())
        ]
        if is_analyzed and not draw:
            again = "(--overwrite does it again)"
            _tell(Outcome([f"{video.name}: done before → {directory} {again}"]))
            summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
            note = "; ".join(["done before", *_warnings(str(video), summary)])
            table.add(str(video), summary, directory, note)
            continue
        threads = max(1, num_cores() // num_workers) if ray is None else 1
        jobs.append(Job(video, directory, checkpoint, settings, draw, threads, is_analyzed))
    with progress_bars() as progress:
        if ray is None and len(places) == len(jobs) == 1:
            failed |= _end_job(jobs[0], run_job(jobs[0], progress), table)
        elif jobs:
            runs = (
                run_on_cluster(run_job, jobs, ray)
                if ray
                else run_tasks(run_job, jobs, num_workers, progress)
            )
            with closing(runs) as outcomes:
                for done, (position, outcome) in enumerate(outcomes, 1):
                    job = jobs[position]
                    if isinstance(outcome, FergcnError):
                        outcome = Outcome(complaints=[f"{job.video}: {outcome}"], failed=True)
                    failed |= _end_job(job, outcome, table)
                    for bar in (_bar(job.video), _overlay_bar(job.video)):
                        progress(bar, 1, 1)  # it goes, also where a video ended early
                    progress("videos", done, len(jobs))
    return int(failed)


def _bar(video: Path) -> str:
    """What stands beside the progress of a video: cameras' files often differ by folder only."""
    return str(Path(*video.parts[-2:]))


def _overlay_bar(video: Path) -> str:
    return f"{_bar(video)}: overlay"


def _end_job(job: "Job", outcome: "Outcome", table: VideoTable) -> bool:
    """Tell what became of a video and note it in the table; say whether that failed."""
    _tell(outcome)
    try:
        table.add(str(job.video), outcome.summary, job.directory, "; ".join(outcome.complaints))
    except FergcnError as error:  # the disk is full: for others, there may be room again
        _tell(Outcome(complaints=[str(error)]))
        return True
    return outcome.failed


def _wrong_usage(message: str) -> int:
    print(f"fergcn: {message}", file=sys.stderr)
    return 2


def _record(
    name: str, output: Path, checkpoint: str, settings: AnalysisConfig, report: bool
) -> int:
    """Analyse a live source until it ends or Ctrl-C is pressed."""
    network = FaceNetwork(checkpoint, settings.device, settings.runtime)
    source = LiveSource(name)
    directory = _free_place(output / source_name(name))
    print(f"fergcn: recording into {directory}.partial; Ctrl-C ends it", file=sys.stderr)
    with (
        _ctrl_c_stops(source),
        progress_bars() as progress,
        _writing_to(directory, name),
        ResultWriter(directory, network.checkpoint.expressions, settings.contributions) as writer,
    ):
        summary = analyze_live(
            source, network, settings, writer.add, lambda done: progress("frames", done, None)
        )
        analysis = writer.finish(summary)
        if report:
            from fergcn.report.page import write_report

            write_report(analysis, writer.partial / "report.html")
    latency = analysis.summary["latency_s"]
    lines = [
        *answer_lines(source_name(name), analysis, directory),
        f"  latency: windows {latency['windows']['median']:.2f} s (95 % within "
        f"{latency['windows']['p95']:.2f} s), final rows {latency['frames']['median']:.2f} s "
        f"({latency['frames']['p95']:.2f} s); "
        f"{analysis.summary['video']['dropped_frames']} frames dropped",
    ]
    warnings = _warnings(name, analysis.summary)
    _tell(Outcome(lines, warnings))
    VideoTable(output / "videos.csv", {}).add(
        name, analysis.summary, directory, "; ".join(warnings)
    )
    return int(source.trouble is not None)


@contextmanager
def _writing_to(directory: Path, name: str) -> Iterator[None]:
    """Say in one line that the results of a video can't be written."""
    try:
        yield
    except OSError as error:
        raise FergcnError(
            f"{name}: found {directory} can't be written ({error.strerror or error}), expected a "
            "folder with room: choose another with -o"
        ) from None


@contextmanager
def _ctrl_c_stops(source: LiveSource) -> Iterator[None]:
    """Let the first Ctrl-C end a recording, and the second one the program."""

    def stop(_number: int, _frame: object) -> None:
        source.stop()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _free_place(directory: Path) -> Path:
    """A folder that is not there yet: no recording takes another one's place."""
    place, number = directory, 1
    while place.exists() or place.with_name(place.name + ".partial").exists():
        number += 1
        place = directory.with_name(f"{directory.name}-{number}")
    return place


@dataclass(frozen=True)
class Job:
    """One video to analyse, in this process or another one."""

    video: Path
    directory: Path
    checkpoint: str
    settings: AnalysisConfig
    draw: list[str]
    """Which of `overlay.mp4` and `report.html` to make."""
    threads: int
    """Of the network; several videos at once share the cores."""
    is_analyzed: bool = False
    """Whether all else is there, so that only these are made."""


@dataclass(frozen=True)
class Outcome:
    """What there is to tell about one video."""

    answer: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    failed: bool = False
    summary: dict[str, Any] | None = None
    """Of the analysis, unless it failed."""


def run_job(job: Job, progress: Progress = report_progress) -> Outcome:
    """Analyse one video; what is wrong with it becomes a line."""
    try:
        network = _open_once(job.checkpoint, job.settings.device, job.settings.runtime, job.threads)
        # Asked again: the file may have changed while it waited for its turn.
        if job.is_analyzed and is_current(job.directory, job.video, job.settings, network):
            return _add_drawings(job, network, progress)
        with _writing_to(job.directory, str(job.video)):
            analysis = analyze_to(
                job.video, job.directory, network, job.settings, job.draw, progress
            )
    except FergcnError as error:
        return Outcome(complaints=[str(error)], failed=True)
    except Exception as error:  # whatever it is, the other videos go on
        if os.environ.get("FERGCN_DEBUG"):
            traceback.print_exc()
        complaint = (
            f"{job.video}: found {type(error).__name__} ({error}), expected no such error: run it "
            "alone; if it fails again, report it with what FERGCN_DEBUG=1 prints"
        )
        return Outcome(complaints=[complaint], failed=True)
    return Outcome(
        answer_lines(job.video.name, analysis, job.directory),
        _warnings(str(job.video), analysis.summary),
        summary=analysis.summary,
    )


def _add_drawings(job: Job, network: FaceNetwork, progress: Progress) -> Outcome:
    """Make what is to be drawn from results that are there; they stay if that fails."""
    analysis = read_results(job.directory)
    warnings = _warnings(str(job.video), analysis.summary)
    try:
        with _writing_to(job.directory, str(job.video)), added_to(job.directory) as folder:
            _draw(job.video, analysis, job.directory, folder, network, job.draw, progress)
    except FergcnError as error:
        return Outcome([], [str(error), *warnings], failed=True, summary=analysis.summary)
    lines = answer_lines(job.video.name, analysis, job.directory)
    return Outcome(lines, warnings, summary=analysis.summary)


def _warnings(name: str, summary: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {warning}" for warning in summary["warnings"]]


@cache
def _open_once(checkpoint: str, device: str, runtime: Runtime, threads: int) -> FaceNetwork:
    return FaceNetwork(checkpoint, device, runtime, threads)


def _tell(outcome: Outcome) -> None:
    """Print an outcome."""
    for line in outcome.answer:
        stdout.out(one_line(line), highlight=False)  # as it is: names may look like markup
    for complaint in outcome.complaints:
        print(f"fergcn: {one_line(complaint)}", file=sys.stderr)


def analyze_to(
    video: Path,
    directory: Path,
    network: FaceNetwork,
    settings: AnalysisConfig,
    draw: Sequence[str],
    progress: Progress,
) -> Analysis:
    """Analyse one video and write its results as they come.

    Args:
        video: the file.
        directory: the folder of its results.
        network: what describes faces and answers windows.
        settings: of the analysis.
        draw: which of `overlay.mp4` and `report.html` to make, too.
        progress: gets how far it is.

    Returns:
        As much of the analysis as can be shown, as `read_results` reads it.

    Raises:
        FergcnError: the video can't be read, or the results can't be written.
    """
    expressions = network.checkpoint.expressions
    with ResultWriter(directory, expressions, settings.contributions, video) as writer:
        summary = analyze_video(
            video,
            network,
            settings,
            writer.add,
            lambda done, total: progress(_bar(video), done, total),
        )
        analysis = writer.finish(summary)
        _draw(video, analysis, writer.partial, writer.partial, network, draw, progress)
    return analysis


def _draw(
    video: Path,
    analysis: Analysis,
    results: Path,
    directory: Path,
    network: FaceNetwork,
    names: Sequence[str],
    progress: Progress,
) -> None:
    """Make overlay and page of a folder of results into a folder, which may be the same."""
    if "overlay.mp4" in names:
        write_overlay(
            video,
            analysis,
            directory / "overlay.mp4",
            results / "frames.csv",
            lambda done, total: progress(_overlay_bar(video), done, total),
        )
    if "report.html" in names:
        from fergcn.report.page import write_report

        write_report(analysis, directory / "report.html", video, network)


def answer_lines(name: str, analysis: Analysis, directory: Path) -> list[str]:
    """What was found in one video."""
    counts = analysis.summary["counts"]
    lines = [
        f"{name}: {counts['frames_with_face']} of {counts['frames']} frames show a face "
        f"→ {directory}"
    ]
    for track in analysis.summary["tracks"]:
        answer = answer_text(track)
        if track["answer"] != NOT_SURE:
            answer = f"mostly {answer}"
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
