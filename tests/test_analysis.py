"""From a video with a real face to tables, pictures and pages."""

import io
import json
import re
import signal
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace
from html import escape, unescape
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor

from conftest import tiny_config
from fergcn.analysis import Analysis, AnalysisConfig, SegmentConfig, analyze, find_segments
from fergcn.analysis.network import FaceNetwork
from fergcn.analysis.tables import FACE_COLUMNS, SEGMENT_COLUMNS
from fergcn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from fergcn.commands.predict import answer_lines
from fergcn.expressions import EXPRESSIONS, FergcnError
from fergcn.model import FERGCN
from fergcn.report import apexes, outputs
from fergcn.report.outputs import PART_ROWS, ResultWriter, write_analysis
from fergcn.report.overlay import write_overlay
from fergcn.report.page import NO_PICTURES, write_report
from fergcn.report.timeline import (
    EXPRESSION_COLOURS,
    LEFT,
    PANEL_HEIGHT,
    PANEL_TOP,
    RIGHT,
    TOP,
    WIDTH,
    draw_timeline,
)
from fergcn.transforms import eval_transform
from fergcn.video import read_frames, write_video
from odd_files import encode
from test_video import write_with_times

ASTRONAUT = skimage.data.astronaut()[40:240, 130:330]
FACE_CENTRE = (94, 78)
"""Middle of the face in that cut, x and y."""
FPS = 10


def scene(faces: Sequence[tuple[int, int]], width: int = 480, height: int = 240) -> np.ndarray:
    """Dark picture with the astronaut's cut at each of the places, its upper left corner there."""
    image = np.full((height, width, 3), 40, dtype=np.uint8)
    for x, y in faces:
        right, bottom = min(width, x + 200), min(height, y + 200)
        image[y:bottom, x:right] = ASTRONAUT[: bottom - y, : right - x]
    return image


def write_scenes(path: Path, scenes: Sequence[Sequence[tuple[int, int]]]) -> Path:
    write_video(path, (scene(faces) for faces in scenes), fps=FPS, crf=18)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    torch.manual_seed(0)
    model = FERGCN(tiny_config(num_classes=8))
    with torch.no_grad():  # as made, it answers 1/8 each whatever it sees
        model.projection.weight.mul_(20)
        model.head.classifier.weight.mul_(20)
    directory = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_checkpoint(directory, model, expressions=EXPRESSIONS, resize=40, crop=32)
    return load_checkpoint(directory)


@pytest.fixture(scope="module")
def panned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face that moves to the right for 11 frames."""
    path = tmp_path_factory.mktemp("video") / "panned.mp4"
    return write_scenes(path, [[(20 * step, 10)] for step in range(11)])


@pytest.fixture(scope="module")
def result(panned: Path, checkpoint: Checkpoint) -> Analysis:
    return analyze(panned, checkpoint)


def test_moving_face_keeps_its_number_and_its_box(result: Analysis) -> None:
    frames = result.frames
    assert list(frames.columns) == [*FACE_COLUMNS, *EXPRESSIONS]
    assert list(frames["frame_index"]) == list(range(11))
    assert list(frames["track_id"]) == [0] * 11
    np.testing.assert_allclose(frames["time_s"], np.arange(11) / FPS, atol=1e-6)
    centre_x = (frames["x1"] + frames["x2"]) / 2 - 20 * np.arange(11)
    centre_y = (frames["y1"] + frames["y2"]) / 2 - 10
    assert (abs(centre_x - FACE_CENTRE[0]) < 15).all()
    assert (abs(centre_y - FACE_CENTRE[1]) < 20).all()


def test_numbers_in_the_tables_fit_together(result: Analysis) -> None:
    probs = result.frames[list(EXPRESSIONS)]
    np.testing.assert_allclose(probs.sum(axis=1), 1)
    np.testing.assert_allclose(result.frames["intensity"], 1 - probs["neutral"])
    assert list(result.frames["expression"]) == list(probs.idxmax(axis=1))
    np.testing.assert_allclose(result.windows[list(EXPRESSIONS)].sum(axis=1), 1)
    assert list(result.segments.columns) == list(SEGMENT_COLUMNS)
    assert result.num_faces == result.summary["counts"]["faces"] == 11
    # A video of 1 s is one window of 2 s.
    assert list(result.windows["start_frame"]) == [0]
    assert list(result.windows["end_frame"]) == [10]
    timings = result.summary["timings_s"]
    assert {"decode", "detect", "align", "backbone", "head"} < timings.keys()
    # Two threads work at once.
    assert sum(timings.values()) - timings["total"] <= 2 * timings["total"] + 0.01


def test_an_improbable_answer_is_not_sure(panned: Path, checkpoint: Checkpoint) -> None:
    (track,) = analyze(panned, checkpoint, AnalysisConfig(sure_from=0)).summary["tracks"]
    mean = track["mean_probabilities"]
    best, second = sorted(mean, key=mean.get, reverse=True)[:2]
    assert track["answer"] == track["expression"] == best
    below = analyze(panned, checkpoint, AnalysisConfig(sure_from=mean[best] - 0.001))
    assert below.summary["tracks"][0]["answer"] == best
    assert f"face 0: mostly {best} (0.00" in answer_lines(panned.name, below, Path())[1]
    above = analyze(panned, checkpoint, AnalysisConfig(sure_from=min(1, mean[best] + 0.001)))
    (unsure,) = above.summary["tracks"]
    assert (unsure["answer"], unsure["expression"]) == ("not sure", best)
    said = f"face 0: not sure: {best} {mean[best]:.2f}, {second} {mean[second]:.2f} (0.00"
    assert said in answer_lines(panned.name, above, Path())[1]
    pd.testing.assert_frame_equal(above.frames, below.frames)
    with pytest.raises(ValueError, match=r"sure_from=1\.5, expected 0 to 1"):
        AnalysisConfig(sure_from=1.5)


def test_network_with_its_own_intensity_is_asked_for_it(panned: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = FERGCN(tiny_config(num_classes=8, adjacency="per_clip", neutral=7))
    save_checkpoint(tmp_path / "own", model, expressions=EXPRESSIONS, resize=40, crop=32)
    result = analyze(panned, tmp_path / "own")
    intensity = result.frames["intensity"]
    assert intensity.between(0, 1, inclusive="neither").all()
    np.testing.assert_allclose(intensity, 1 - result.frames["neutral"])
    # The windows say which expression, and the frame how much of it.
    names = [name for name in EXPRESSIONS if name != "neutral"]
    (window,) = result.windows[names].to_numpy()
    shares = result.frames[names].div(intensity, axis=0)
    np.testing.assert_allclose(shares, np.tile(window / window.sum(), (11, 1)))


def test_batch_size_has_no_influence(
    panned: Path, checkpoint: Checkpoint, result: Analysis
) -> None:
    other = analyze(panned, checkpoint, AnalysisConfig(batch_size=3))
    pd.testing.assert_frame_equal(other.frames, result.frames, rtol=1e-4, atol=1e-5)
    pd.testing.assert_frame_equal(other.windows, result.windows, rtol=1e-4, atol=1e-5)


def test_every_frame_is_reported_as_progress(panned: Path, checkpoint: Checkpoint) -> None:
    calls: list[tuple[int, int | None]] = []
    analyze(panned, checkpoint, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 11) for done in range(1, 12)]


def test_two_faces_are_two_tracks(tmp_path: Path, checkpoint: Checkpoint) -> None:
    path = write_scenes(tmp_path / "two.mp4", [[(5 * step, 10), (250, 10)] for step in range(6)])
    result = analyze(path, checkpoint)
    assert list(result.frames["track_id"]) == [0, 1] * 6
    assert list(result.frames["frame_index"]) == [index for index in range(6) for _ in range(2)]
    assert (result.frames.query("track_id == 0")["x2"] < 250).all()
    assert [track["track_id"] for track in result.summary["tracks"]] == [0, 1]


def test_face_that_leaves_and_comes_back(tmp_path: Path, checkpoint: Checkpoint) -> None:
    here, away = [[(100, 10)]], [[]]
    path = write_scenes(
        tmp_path / "back.mp4", here * 5 + away * 8 + here * 5 + away * 12 + here * 3
    )
    result = analyze(path, checkpoint)
    ids = result.frames["track_id"]
    assert len(result.frames) == 33
    assert ids[5:13].isna().all() and ids[18:30].isna().all()
    assert list(ids[13:18]) == [0] * 5  # 0.8 s is within keep_lost_s
    assert list(ids[30:]) == [0] * 3  # 1.2 s is not, but it clearly looks the same
    empty = result.frames.loc[5, ["x1", "face_confidence", "expression", "intensity", *EXPRESSIONS]]
    assert empty.isna().all()
    bridges = (result.windows["start_frame"] < 13) & (result.windows["end_frame"] >= 13)
    assert not bridges.any()
    assert result.summary["counts"]["frames_with_face"] == 13


def test_face_seen_for_a_moment_is_a_false_alarm(tmp_path: Path, checkpoint: Checkpoint) -> None:
    moment = [[(10, 10)], [(10, 10), (250, 10)], [(250, 10)], [(250, 10)]]
    path = write_scenes(tmp_path / "moment.mp4", moment)
    frames = analyze(path, checkpoint).frames
    assert frames["track_id"].isna().tolist() == [True, False, False, False]
    assert frames["track_id"].dropna().eq(0).all() and (frames["x1"].dropna() > 200).all()
    every = analyze(path, checkpoint, AnalysisConfig(min_track_frames=1)).frames
    assert every["track_id"].tolist() == [0, 0, 1, 1, 1]


def test_video_of_one_picture(tmp_path: Path, checkpoint: Checkpoint) -> None:
    result = analyze(write_scenes(tmp_path / "one.mp4", [[(100, 10)]]), checkpoint)
    assert result.num_faces == len(result.windows) == 1


def test_video_without_a_face_is_a_good_result(tmp_path: Path, checkpoint: Checkpoint) -> None:
    path = write_scenes(tmp_path / "none.mp4", [[]] * 3)
    result = analyze(path, checkpoint)
    assert result.num_faces == 0
    assert len(result.frames) == 3 and result.frames["track_id"].isna().all()
    assert result.windows.empty and result.segments.empty
    assert "no face" in result.summary["warnings"][0]
    write_analysis(result, tmp_path / "out")
    assert len(pd.read_csv(tmp_path / "out" / "frames.csv")) == 3
    write_report(result, tmp_path / "report.html", path)
    write_overlay(path, result, tmp_path / "overlay.mp4")
    assert len(list(read_frames(tmp_path / "overlay.mp4"))) == 3


def test_bad_input_is_named(tmp_path: Path, panned: Path, checkpoint: Checkpoint) -> None:
    with pytest.raises(FergcnError, match="found nothing there"):
        analyze(tmp_path / "missing.mp4", checkpoint)
    with pytest.raises(FergcnError, match="found device nonsense"):
        analyze(panned, checkpoint, AnalysisConfig(device="nonsense"))
    with pytest.raises(ValueError, match="min_face_size=5"):
        AnalysisConfig(min_face_size=5)
    with pytest.raises(ValueError, match="stride=0"):
        AnalysisConfig(stride=0)
    with pytest.raises(ValueError, match="the stride at most the window"):
        AnalysisConfig(window_s=1, stride_s=1.5)
    with pytest.raises(ValueError, match="window_s=nan"):
        AnalysisConfig(window_s=float("nan"))
    with pytest.raises(
        ValueError, match="runtime=tensorrt, expected one of auto, torch, onnx, int8"
    ):
        AnalysisConfig(runtime="tensorrt")


def segments_of(intensity: Sequence[float], names: str = "", **changes: float) -> list[tuple]:
    """Segments of a face at 10 frames/s; `names` has an h or an s for each frame."""
    expressions = ("happiness", "sadness", "neutral")
    values = np.array(intensity)
    happy = np.array([name == "h" for name in names or "h" * len(values)], dtype=bool)
    probs = np.stack([values * happy, values * ~happy, 1 - values], axis=1)
    config = SegmentConfig(**{"min_length_s": 0.2, "merge_gap_s": 0.1, "apex_span_s": 0} | changes)
    found = find_segments(np.arange(len(values)) / 10, values, probs, expressions, config)
    return [(s.expression, s.onset_s, s.apex_s, s.offset_s, s.peak_intensity) for s in found]


def test_segment_has_onset_apex_and_offset() -> None:
    assert segments_of([0, 0.3, 0.4, 0.6, 0.9, 0.4, 0.3, 0.45, 0]) == [
        ("happiness", 0.2, 0.4, 0.5, 0.9)
    ]


def test_apex_is_the_middle_of_the_most_intense_time_not_its_noisiest_frame() -> None:
    values = [0, 0.5, 0.6, 0.8, 0.8, 0.8, 0.8, 0.8, 0.6, 0.5, 0.95, 0]
    assert [s[2] for s in segments_of(values)] == [pytest.approx(1.0)]
    ((_, onset, apex, offset, peak),) = segments_of(values, apex_span_s=0.4)
    assert (onset, apex, offset, peak) == (0.1, pytest.approx(0.5), 1.0, 0.95)
    ((_, _, plateau, _, _),) = segments_of([1.0] * 21, apex_span_s=2)
    assert plateau == pytest.approx(1.0)


def test_what_stays_below_the_onset_threshold_or_is_short_is_no_segment() -> None:
    assert segments_of([0, 0.4, 0.49, 0.4, 0]) == []
    assert segments_of([0, 0, 0.9, 0.9, 0, 0]) == []
    assert segments_of([]) == []


def test_short_gaps_are_closed_and_long_ones_are_not() -> None:
    values = [0.8, 0.8, 0.8, 0, 0.9, 0.9, 0.9]
    assert segments_of(values, merge_gap_s=0.21) == [("happiness", 0, 0.4, 0.6, 0.9)]
    assert len(segments_of(values, merge_gap_s=0.15)) == 2


def test_expression_that_turns_into_another_is_divided() -> None:
    values = [0.8] * 12 + [0.9] * 12
    assert segments_of(values, "s" * 12 + "h" * 12) == [
        ("sadness", 0, 0, 1.1, 0.8),
        ("happiness", 1.2, 1.2, 2.3, 0.9),
    ]
    assert segments_of(values, "s" * 10 + "hs" + "s" * 12) == [("sadness", 0, 1.2, 2.3, 0.9)]


def test_what_nobody_can_name_is_no_segment() -> None:
    """Over the first half three expressions share the probability, then one has most of it."""
    shares = np.array([[0.36, 0.33, 0.31]] * 12 + [[0.1, 0.8, 0.1]] * 12)
    probs = np.hstack([0.9 * shares, np.full((24, 1), 0.1)])
    names = ("anger", "fear", "sadness", "neutral")

    def found(**changes: float) -> list[str]:
        segments = find_segments(
            np.arange(24) / 10, np.full(24, 0.9), probs, names, SegmentConfig(**changes)
        )
        return [segment.expression for segment in segments]

    assert found() == ["fear"]
    assert found(min_share=0.35) == ["anger", "fear"]
    assert found(min_share=0.85) == []


@given(st.lists(st.tuples(st.floats(0.01, 0.8), *[st.floats(0, 1)] * 3), min_size=1, max_size=60))
@settings(max_examples=100, deadline=None)
def test_segments_keep_their_promises(rows: list[tuple[float, ...]]) -> None:
    values = np.array(rows)
    time_s, probs = values[:, 0].cumsum(), values[:, 1:] + 0.01
    probs /= probs.sum(axis=1, keepdims=True)
    config = SegmentConfig()
    segments = find_segments(
        time_s, 1 - probs[:, 2], probs, ("anger", "fear", "neutral"), config, max_gap_s=0.5
    )
    for segment in segments:
        assert segment.onset_s <= segment.apex_s <= segment.offset_s
        assert segment.offset_s - segment.onset_s > config.min_length_s - 1e-5
        assert config.onset_threshold <= segment.peak_intensity <= 1
        assert segment.expression in ("anger", "fear")
        inside = (time_s >= segment.onset_s) & (time_s <= segment.offset_s)
        assert np.diff(time_s[inside]).max() < 0.5 + 1e-5
        assert segment.peak_intensity == (1 - probs[inside, 2]).max()
    for before, after in pairwise(segments):
        assert before.offset_s < after.onset_s


def with_segment(result: Analysis) -> Analysis:
    """The same with one segment, whatever the network with random weights thinks."""
    row = (0, "happiness", 0.2, 0.5, 0.9, 0.9)
    return replace(result, segments=pd.DataFrame([row], columns=list(SEGMENT_COLUMNS)))


def test_written_tables_read_back(tmp_path: Path, result: Analysis) -> None:
    out = tmp_path / "new" / "panned"
    write_analysis(with_segment(result), out)
    assert sorted(entry.name for entry in out.iterdir()) == [
        *("frames.csv", "frames.parquet", "segments.csv", "segments.eaf", "segments.srt"),
        *("summary.json", "timeline.png", "windows.csv"),
    ]
    pd.testing.assert_frame_equal(pd.read_parquet(out / "frames.parquet"), result.frames)
    read = pd.read_csv(out / "frames.csv", dtype={"track_id": "Int64"})
    pd.testing.assert_frame_equal(read, result.frames, check_dtype=False)
    assert json.loads((out / "summary.json").read_text())["counts"]["tracks"] == 1


def tables_of_frames(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    from_csv = pd.read_csv(folder / "frames.csv", dtype={"track_id": "Int64"})
    return from_csv, pd.read_parquet(folder / "frames.parquet")


@pytest.mark.parametrize("num_rows", [1, PART_ROWS, 2 * PART_ROWS, 10 * PART_ROWS + 1])
def test_parquet_is_one_file_in_the_end(num_rows: int, tmp_path: Path, result: Analysis) -> None:
    frames = pd.concat([result.frames] * (num_rows // len(result.frames) + 1))[:num_rows]
    frames = frames.reset_index(drop=True)
    # Without a face: a whole part, and the end.
    empty = [*range(PART_ROWS, min(2 * PART_ROWS, num_rows)), num_rows - 1]
    frames.loc[empty, list(frames.columns[2:])] = pd.NA
    write_analysis(replace(result, frames=frames), tmp_path / "long")
    names = {entry.name for entry in (tmp_path / "long").iterdir()}
    assert "frames.parquet" in names and not any(name.startswith(".") for name in names)
    from_csv, from_parquet = tables_of_frames(tmp_path / "long")
    assert len(from_parquet) == num_rows
    assert from_parquet.dtypes.equals(result.frames.dtypes)
    pd.testing.assert_frame_equal(from_csv, from_parquet, check_dtype=False)


def test_parquet_can_be_read_after_a_kill(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from fergcn.report.outputs import ResultWriter

with ResultWriter(Path("video"), ("fear", "neutral")) as writer:
    for k in range({2 * PART_ROWS + PART_ROWS // 2}):
        face = (k % 3, 0.5, k / 7, 60.25, 70.5, 0.9, "fear", 0.75, 0.75, 0.25)
        writer.add("frames", (k, k / 25, *(face if k % 5 else [None] * len(face))))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL
    from_csv, from_parquet = tables_of_frames(tmp_path / "video.partial")
    assert len(from_csv) == 2.5 * PART_ROWS
    assert len(from_parquet) == 2 * PART_ROWS
    pd.testing.assert_frame_equal(from_csv[: 2 * PART_ROWS], from_parquet, check_dtype=False)


def test_parquet_is_seconds_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "PART_S", 0.05)
    with ResultWriter(tmp_path / "video", ("fear", "neutral")) as writer:
        for k in range(3):
            writer.add("frames", (k, k / 25, *[None] * 10))
        time.sleep(0.06)
        writer.add("frames", (3, 3 / 25, *[None] * 10))
        assert len(tables_of_frames(tmp_path / "video.partial")[1]) == 4


def test_result_is_replaced_and_other_files_stay(tmp_path: Path, result: Analysis) -> None:
    out = tmp_path / "panned"
    write_analysis(result, out)
    (out / "report.html").write_text("of the previous result")
    (out / "notes.txt").write_text("mine")
    write_analysis(result, out)
    names = {entry.name for entry in out.iterdir()}
    assert "notes.txt" in names and "report.html" not in names
    assert [entry.name for entry in tmp_path.iterdir()] == ["panned"]
    (tmp_path / "file").touch()
    with pytest.raises(FergcnError, match="found a file"):
        write_analysis(result, tmp_path / "file")


def test_overlay_shows_every_frame_with_a_box(
    tmp_path: Path, panned: Path, result: Analysis
) -> None:
    write_overlay(panned, result, tmp_path / "overlay.mp4")
    frames = list(read_frames(tmp_path / "overlay.mp4"))
    assert len(frames) == 11
    assert frames[0].image.shape[0] > 240 and frames[0].image.shape[1] == 480
    original = next(read_frames(panned)).image
    changed = np.abs(frames[0].image[:240].astype(int) - original).max(axis=2) > 60
    rows, columns = np.nonzero(changed)
    box = result.frames.loc[0]
    assert abs(columns.min() - box["x1"]) < 5 and abs(rows.max() - box["y2"]) < 5


def test_overlay_and_page_say_not_sure(tmp_path: Path, panned: Path, result: Analysis) -> None:
    rng = np.random.default_rng(0)
    probs = 0.2 * rng.dirichlet(np.ones(8), len(result.frames))
    probs[:, EXPRESSIONS.index("sadness")] += 0.8
    columns = dict(zip(EXPRESSIONS, probs.T, strict=True))
    frames = result.frames.assign(expression="sadness", **columns)
    (track,) = result.summary["tracks"]
    mean = dict(zip(EXPRESSIONS, probs.mean(0).tolist(), strict=True))
    second = sorted(mean, key=mean.get)[-2]
    for sure_from, answer, colour in ((0.6, "sadness", "#0072B2"), (1.0, "not sure", "#9A9A9A")):
        said = replace(
            result,
            frames=frames,
            summary=result.summary
            | {"settings": result.summary["settings"] | {"sure_from": sure_from}}
            | {"tracks": [track | {"answer": answer, "mean_probabilities": mean}]},
        )
        write_overlay(panned, said, tmp_path / "overlay.mp4")
        image = next(read_frames(tmp_path / "overlay.mp4")).image
        box = frames.loc[0]
        edge = image[round((box["y1"] + box["y2"]) / 2), round(box["x2"])].astype(int)
        expected = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)])
        assert np.abs(edge - expected).max() < 40, (sure_from, edge)
        write_report(said, tmp_path / "report.html")
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        two = f"not sure: sadness {mean['sadness']:.2f}, {second} {mean[second]:.2f}"
        assert (two in page) == (sure_from == 1)


def test_overlay_keeps_the_times_of_a_varying_frame_rate(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    path, times_ms = tmp_path / "varying.mp4", [0, 100, 117, 600, 72_000_000, 72_000_033]
    write_with_times(path, times_ms)
    write_overlay(path, analyze(path, checkpoint), tmp_path / "overlay.mp4")
    frames = list(read_frames(tmp_path / "overlay.mp4"))  # one each, also over 20 hours' pause
    times = [frame.time_s for frame in frames]
    np.testing.assert_allclose(times, np.array(times_ms) / 1000, atol=1e-3)
    assert [round(frame.image[30, 30].mean() / 8) for frame in frames] == list(range(6))


def test_overlay_has_the_sound_of_the_video(tmp_path: Path, checkpoint: Checkpoint) -> None:
    path = encode(tmp_path / "loud.mp4", [scene([])] * 10, with_sound=True)
    write_overlay(path, analyze(path, checkpoint), tmp_path / "overlay.mp4")
    sound = []
    for file in (path, tmp_path / "overlay.mp4"):
        with av.open(str(file)) as container:
            packets = [p for p in container.demux(audio=0) if p.pts is not None and p.pts >= 0]
            sound.append([(float(p.pts * p.time_base), bytes(p)) for p in packets])
    assert sound[0] == sound[1] and len(sound[0]) > 10
    assert {p.name for p in tmp_path.iterdir()} == {"loud.mp4", "overlay.mp4"}


def test_timeline_shows_the_tables_values(result: Analysis) -> None:
    """Columns of pixels hold as much of each colour as the frame has of the probability."""
    rows = np.random.default_rng(0).dirichlet(np.ones(8), size=11)
    values = dict(zip(result.expressions, rows.T, strict=True)) | {"intensity": 1 - rows[:, -1]}
    with_values = replace(with_segment(result), frames=result.frames.assign(**values))
    page = np.asarray(draw_timeline(with_values)).astype(int)
    panel = page[TOP : TOP + PANEL_HEIGHT, LEFT : WIDTH - RIGHT]
    row_of_one = round(PANEL_HEIGHT * (1 - 1 / PANEL_TOP))
    for x in range(10, panel.shape[1], 40):
        time_s = x / panel.shape[1] * 1.1
        for name in result.expressions:
            off = np.abs(panel[:, x] - ImageColor.getrgb(EXPRESSION_COLOURS[name])).sum(1)
            drawn = (off[row_of_one:] < 60).mean()
            expected = np.interp(time_s, np.arange(11) / FPS, values[name])
            # The line of the intensity and smoothed edges hide a few pixels.
            assert abs(drawn - expected) < 0.04, (time_s, name)
            # The bar of the segment goes from its onset to the end of its last frame.
            assert (off[5] < 60) == (name == "happiness" and 0.2 <= time_s <= 1.0), (time_s, name)


def test_timeline_of_any_length_has_round_times(result: Analysis) -> None:
    for end_s in (0.03, 7.2, 119, 3600, 7199.9, 1e6):
        frames = result.frames.copy()
        frames["time_s"] *= end_s / frames["time_s"].max()
        page = np.asarray(draw_timeline(replace(result, frames=frames)))
        assert page.shape[1] == WIDTH and (page[:, -2:] == 255).all()


def test_timeline_keeps_the_number_of_tracks_beside_a_long_name(result: Analysis) -> None:
    pages = []
    for file, tracks in (("x" * 300, 1), ("x" * 300, 99), ("x" * 400, 99)):
        counts = result.summary["counts"] | {"tracks": tracks}
        video = result.summary["video"] | {"file": file}
        named = replace(result, summary=result.summary | {"video": video, "counts": counts})
        pages.append(np.asarray(draw_timeline(named)))
    assert all((page[:, -2:] == 255).all() for page in pages)
    assert (pages[0] != pages[1]).any() and (pages[1] == pages[2]).all()


def test_page_is_self_contained_and_escapes_names(
    tmp_path: Path, panned: Path, result: Analysis
) -> None:
    video = result.summary["video"] | {"file": "<script>alert(1)</script> & co.mp4"}
    named = replace(with_segment(result), summary=result.summary | {"video": video})
    write_report(named, tmp_path / "report.html", panned)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page
    assert all(link.startswith("data:") for link in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert page.count("data:image/jpeg") == 1


def jpegs(page: str) -> dict[str, np.ndarray]:
    """Pictures in a page by what is said of them."""
    found = {}
    for alt, data in re.findall(r'<img alt="([^"]*)" src="data:image/jpeg;base64,([^"]*)"', page):
        found[unescape(alt)] = np.array(Image.open(io.BytesIO(b64decode(data))))
    return found


def test_page_shows_the_apex_and_what_the_network_looked_at(
    tmp_path: Path, panned: Path, result: Analysis, checkpoint: Checkpoint
) -> None:
    network = FaceNetwork(checkpoint)
    write_report(with_segment(result), tmp_path / "report.html", panned, network)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    face, heat = jpegs(page).items()
    assert face[0] == "face 0 at the apex of happiness"
    assert face[1].shape == heat[1].shape == (160, 160, 3)
    # The cut is the frame at 0.5 s around the face, which has moved by 100 pixels.
    box = result.frames.loc[5, ["x1", "y1", "x2", "y2"]].to_numpy(dtype=float)
    reach = np.ptp(box.reshape(2, 2), axis=0).max() * 1.25 / 2
    middle = box.reshape(2, 2).mean(0)
    left, top, right, bottom = (*(middle - reach).round(), *(middle + reach).round())
    frame = Image.fromarray(list(read_frames(panned))[5].image)
    expected = np.array(frame.crop((left, top, right, bottom)).resize((160, 160)))
    assert np.abs(face[1].astype(int) - expected).mean() < 12
    # The numbers are the probabilities of the picture alone.
    said = re.search(r"probability (0\.\d\d) → (0\.\d\d) with the hottest place blurred", heat[0])
    assert said is not None and float(said[1]) >= float(said[2])
    assert f"{said[1]} → {said[2]}</td>" in page


def test_a_still_face_is_a_window_in_which_nothing_moves(checkpoint: Checkpoint) -> None:
    faces = np.stack([ASTRONAUT[:144, :144], ASTRONAUT[56:, 56:]])
    logits = FaceNetwork(checkpoint).still_logits(faces)
    with torch.inference_mode():
        frames = eval_transform(faces, checkpoint.resize, checkpoint.crop)
        expected = checkpoint.model(frames[:, None].repeat(1, 4, 1, 1, 1))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_page_has_few_pictures_and_says_so(
    tmp_path: Path, panned: Path, result: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = {"fear": 0.6, "happiness": 0.9, "sadness": 0.7}
    rows = [(0, name, 0.2, 0.5, 0.9, peak) for name, peak in peaks.items()]
    many = replace(result, segments=pd.DataFrame(rows, columns=list(SEGMENT_COLUMNS)))
    monkeypatch.setattr(apexes, "MAX_APEXES", 2)
    write_report(many, tmp_path / "report.html", panned)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [alt.split()[-1] for alt in jpegs(page)] == ["happiness", "sadness"]
    assert "of the 2 segments with the highest peak intensity, of 3." in page
    assert "ooked at" not in page  # no network was at hand
    write_report(many, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not jpegs(page) and escape(NO_PICTURES) in page and page.count("<td>") == 4


def test_a_face_that_is_not_found_again_has_no_heatmap(
    tmp_path: Path, result: Analysis, checkpoint: Checkpoint
) -> None:
    other = write_scenes(tmp_path / "other.mp4", [[]] * 11)  # its place was interpolated, say
    write_report(with_segment(result), tmp_path / "report.html", other, FaceNetwork(checkpoint))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(jpegs(page)) == 1
