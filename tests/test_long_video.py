"""An hour against a minute: memory and speed. Takes minutes."""

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest


def measure(minutes: int, directory: Path) -> tuple[float, float]:
    """Peak memory in MB and frames a second of a stream of one face, results written."""
    command = [sys.executable, __file__, str(minutes), str(directory / str(minutes))]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    megabytes, frames_per_s = map(float, out.split()[-2:])
    return megabytes, frames_per_s


@pytest.mark.nightly
def test_an_hour_takes_the_memory_and_the_pace_of_a_minute(tmp_path: Path) -> None:
    minute, hour = measure(1, tmp_path), measure(60, tmp_path)
    print(f"MB, frames/s: one minute {minute}, an hour {hour}")
    assert hour[0] <= 1.1 * minute[0]
    # The minute's pace without its start and its plot, which the hour has as well.
    assert hour[1] >= 0.95 * minute[1]


def main(minutes: int, directory: Path) -> None:
    """Faces that are found already, the real head, the real tables and plot."""
    import torch

    from fergcn.analysis.collect import summarize, tally_events
    from fergcn.analysis.config import AnalysisConfig
    from fergcn.analysis.engine import Engine, Stopwatch
    from fergcn.expressions import EXPRESSIONS
    from fergcn.report.outputs import ResultWriter
    from test_stream import Cheap, frame_with_faces, numbered

    torch.set_num_threads(1)
    config, network, fps = AnalysisConfig(), Cheap(), 25
    engine = Engine(network, config)
    seconds = [time.perf_counter()]

    def events():
        found = (
            frame_with_faces(k, k / fps, (0,) if k % 500 < 400 else ())
            for k in range(minutes * 60 * fps)
        )
        for frame in numbered(found, config):
            yield from engine.add(frame)
        yield from engine.finish()
        seconds.append(time.perf_counter())

    with ResultWriter(directory, EXPRESSIONS) as writer:
        tally = tally_events(events(), network, config, writer.add)
        video = {"file": "long.mp4", "duration_s": tally.duration_s}
        writer.finish(summarize(video, network, config, tally, Stopwatch(), 1.0, []))
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(megabytes, minutes * 60 * fps / (seconds[1] - seconds[0]))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
