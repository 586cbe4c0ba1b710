"""Other tools beside ours: what evaluate and bench tell about them."""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.table import Table

from fergcn.clips import Clip
from fergcn.commands.progress import stdout
from fergcn.commands.scores import with_interval
from fergcn.evaluation import STATISTICS, Evaluation, evaluate_probs
from fergcn.expressions import FergcnError
from fergcn.peers import SCRIPTS, find_peer, peer_probs, run_script
from fergcn.progress import Progress

MODES = {"haar": 3, "mtcnn": 6}
"""Of `fer`, each with the wanted ratio of our speed to its."""


def find_peers(values: Sequence[str]) -> list[str]:
    """Read the names of peers, given one by one or as a,b.

    Raises:
        FergcnError: there is none of such a name.
    """
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    for name in names:
        find_peer(name)
    return list(dict.fromkeys(names))


def score_peers(
    names: Sequence[str],
    clips: Sequence[Clip],
    expressions: tuple[str, ...],
    num_frames: int,
    report: Progress,
) -> tuple[dict[str, Evaluation], dict[str, str]]:
    """Score peers on the clips of these expressions.

    Returns:
        The scores of those that could be run, and what is wrong with the others.
    """
    clips = [clip for clip in clips if clip.expression in expressions]
    with_face = np.array([clip.has_frames() for clip in clips])
    faces = [clip for clip in clips if clip.has_frames()]
    scores, failed = {}, {}
    for name in names:
        probs = np.full((len(clips), len(expressions)), np.nan, dtype=np.float32)
        try:
            probs[with_face] = peer_probs(name, faces, num_frames, expressions, report)
        except FergcnError as error:
            failed[name] = str(error)
            continue
        evaluation = evaluate_probs(clips, expressions, probs)
        about = {"packages": list(find_peer(name).packages)}
        scores[name] = replace(evaluation, summary=about | evaluation.summary)
    return scores, failed


def print_peers(evaluations: Mapping[str, Evaluation]) -> None:
    """Print the scores of several side by side."""
    table = Table("", title="On the same faces")
    for name in evaluations:
        table.add_column(name)
    summaries = [evaluation.summary for evaluation in evaluations.values()]
    for statistic in STATISTICS:
        table.add_row(statistic, *(with_interval(summary, statistic) for summary in summaries))
    for expression in summaries[0]["expressions"]:
        recalls = [summary["recall"][expression] for summary in summaries]
        shown = ["·" if recall is None else f"{recall:.3f}" for recall in recalls]
        table.add_row(f"recall of {expression}", *shown)
    stdout.print(table)


def bench_peers(video: Path, repeats: int) -> None:
    """Print how fast we analyse a video and write the results, and how fast `fer` does.

    Models are loaded and have seen a picture before the clock starts. What is compared is run in
    turns.

    Raises:
        FergcnError: `fer` can't be installed or run, or the video can't be read.
    """
    from fergcn.analysis.config import AnalysisConfig
    from fergcn.analysis.network import FaceNetwork
    from fergcn.commands.predict import analyze_to

    network = FaceNetwork("default", "cpu")
    speeds: dict[str, list[float]] = {"fergcn": [], **{mode: [] for mode in MODES}}
    with TemporaryDirectory() as folder:
        for turn in range(repeats + 1):
            start = time.perf_counter()
            analysis = analyze_to(video, Path(folder), network, AnalysisConfig(), [], _silent)
            seconds = time.perf_counter() - start
            if turn == 0:  # warms up
                continue
            speeds["fergcn"].append(analysis.summary["counts"]["frames"] / seconds)
            for mode in MODES:
                arguments = [mode, str(video.absolute()), str(Path(folder) / "fer.csv")]
                told = run_script("fer", SCRIPTS / "fer_video.py", arguments)
                speeds[mode].append(float(json.loads(told)["frames_per_s"]))
    median = {name: statistics.median(values) for name, values in speeds.items()}
    ours = median["fergcn"]
    title = f"{video.name}: fergcn predict, {ours:.1f} frames/s"
    table = Table("against", "frames/s", "ratio", "wanted", title=title)
    for mode, wanted in MODES.items():
        ratio = f"{ours / median[mode]:.1f} ×"
        table.add_row(f"fer 25.10, {mode}", f"{median[mode]:.1f}", ratio, f"≥ {wanted} ×")
    stdout.print(table)


def _silent(_what: str, _done: int, _total: int | None) -> None:
    """Show nothing: a bar would take time."""
