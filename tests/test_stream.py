"""The engine: windows, features kept, what each frame contributes, frames from anywhere."""

import csv
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fergcn
from conftest import tiny_config
from fergcn.analysis import AnalysisConfig, SegmentConfig, find_segments
from fergcn.analysis.collect import make_table, tally_events
from fergcn.analysis.engine import (
    Engine,
    Event,
    Face,
    NumberedFrame,
    Prediction,
    Stopwatch,
    WindowAnswer,
    number_faces,
)
from fergcn.analysis.network import FaceNetwork
from fergcn.analysis.segments import MAX_SEGMENT_FRAMES
from fergcn.analysis.windows import MAX_WINDOW_FRAMES, WindowPlanner, spread_frames
from fergcn.checkpoint import Checkpoint
from fergcn.clips import load_clip, sample_frames
from fergcn.datasets.rendered import load_rendered
from fergcn.expressions import EXPRESSIONS, FergcnError
from fergcn.faces.align import LANDMARK_TEMPLATE
from fergcn.faces.detect import Detection
from fergcn.faces.track import Tracker
from fergcn.model import FERGCN
from fergcn.video import VideoFrame, read_frames
from test_analysis import scene, write_scenes

EPSILON = 1e-6


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """On a busy machine, threads of tiny networks do little but wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(**changes: object) -> FaceNetwork:
    torch.manual_seed(0)
    model = FERGCN(tiny_config(num_classes=8, **changes)).eval()
    with torch.no_grad():  # as made, it answers 1/8 each whatever it sees
        model.projection.weight.mul_(20)
        model.head.classifier.weight.mul_(20)
    return FaceNetwork(Checkpoint(model, EXPRESSIONS, 40, 32, "", {}), "cpu")


class Cheap(FaceNetwork):
    """The real head on features that cost nothing: what a face's colour is."""

    def __init__(self, **changes: object) -> None:
        real = network(**changes)
        vars(self).update(vars(real))
        self.seen: list[int] = []

    def features(self, faces: np.ndarray, _mirrored: bool = False) -> np.ndarray:
        self.seen.append(len(faces))
        colours = faces[:, 20, 20].astype(np.float32)  # (M, 3)
        return np.tile(colours / 128 - 1, (1, 11))[:, : self.checkpoint.config.frame_dim]


def frame_with_faces(index: int, time_s: float, present: tuple[int, ...]) -> tuple:
    """A picture, and a face for each of `present` at a place of its own."""
    image = np.empty((40, 40 + 60 * 4, 3), np.uint8)
    # No jump that looks like a cut, and nobody who looks like another person when coming back.
    image[:] = 128 + 30 * np.sin(np.array([7, 11, 13]) * index / 40)
    detections = []
    for place in present:
        left = 60.0 * place
        points = np.array([(13, 13), (27, 13), (20, 21), (14, 29), (26, 29)], dtype=float)
        points[:, 0] += left
        box = np.array([left, 0, left + 40, 40])
        detections.append(Detection(box, points, 1.0))
    return VideoFrame(index, time_s, image), detections


def play(
    net: FaceNetwork,
    config: AnalysisConfig,
    rows: list[tuple[float, tuple[int, ...]]],
) -> list[Event]:
    engine = Engine(net, config)
    events: list[Event] = []
    found = (frame_with_faces(k, time_s, present) for k, (time_s, present) in enumerate(rows))
    for frame in numbered(found, config):
        events += engine.add(frame)
    return events + list(engine.finish())


def numbered(
    found: Iterable[tuple[VideoFrame, list[Detection]]], config: AnalysisConfig
) -> Iterator[NumberedFrame]:
    return number_faces(found, Tracker(config.keep_lost_s), 40, Stopwatch())


def tables(events: list[Event], net: FaceNetwork) -> dict[str, pd.DataFrame]:
    rows: dict[str, list] = {"frames": [], "windows": [], "segments": [], "contributions": []}
    config = AnalysisConfig(contributions=True)
    tally_events(events, net, config, lambda name, row: rows[name].append(row))
    return {name: make_table(name, part, EXPRESSIONS) for name, part in rows.items()}


# Windows


def reference_windows(
    times: np.ndarray, window_s: float, stride_s: float, stride: int | None, max_gap_s: float
) -> list[tuple[int, int]]:
    """First and last frame of every window, from the whole list of times at once."""
    runs, begin = [], 0
    for k in range(1, len(times) + 1):
        if k == len(times) or times[k] - times[k - 1] > max_gap_s + EPSILON:
            runs.append(range(begin, k))
            begin = k
    windows = []
    for run in runs:

        def first(end: int, run: range = run) -> int:
            return min(k for k in run if times[k] >= times[end] - window_s - EPSILON)

        ends: list[int] = []
        for k in run:
            if ends:
                due = (
                    times[k] >= times[ends[-1]] + stride_s - EPSILON
                    if stride is None
                    else k - ends[-1] >= stride
                )
            else:
                due = times[k] - times[run[0]] >= window_s - EPSILON and first(k) == run[0]
            covered = ends[-1] + 1 if ends else run[0]
            needed = k == run[-1] or first(k + 1) > covered  # or a frame would be left out
            if due or (needed and covered <= k):
                ends.append(k)
        windows += [(first(end), end) for end in ends]
    return windows


def planned(
    times: np.ndarray, num_frames: int, window_s: float, stride_s: float, stride: int | None
) -> list:
    planner = WindowPlanner(num_frames, window_s, stride_s, stride)
    windows = [window for time_s in times for window in planner.add(time_s)]
    return windows + planner.finish()


steps = st.one_of(
    st.lists(st.sampled_from([0.04, 0.1, 0.3, 0.5, 0.75, 1.0]), min_size=1, max_size=60),
    st.integers(1, 60).map(lambda n: [1 / 24] * n),
)


@given(
    steps,
    st.sampled_from([0.1, 0.5, 1.0, 2.0]),
    st.sampled_from([0.04, 0.25, 1.0]),
    st.none() | st.integers(1, 30),
    st.integers(1, 17),
)
def test_windows_are_those_of_a_plain_loop(
    apart: list[float], window_s: float, stride_s: float, stride: int | None, num_frames: int
) -> None:
    times, stride_s = np.cumsum(apart), min(stride_s, window_s)
    expected = reference_windows(times, window_s, stride_s, stride, max_gap_s=np.inf)
    windows = planned(times, num_frames, window_s, stride_s, stride)
    assert [(window.start, window.stop - 1) for window in windows] == expected
    assert set().union(*(range(a, b + 1) for a, b in expected)) == set(range(len(times)))
    for window in windows:
        length = window.stop - window.start
        assert len(window.chosen) == num_frames
        assert (np.diff(window.chosen) >= 0).all()
        assert window.start <= window.chosen[0] and window.chosen[-1] < window.stop
        if length <= num_frames:
            expected_frames = window.start + sample_frames(length, num_frames)
            assert window.chosen.tolist() == expected_frames.tolist()


@given(
    st.lists(st.tuples(st.sampled_from([0.04, 0.1, 0.3, 0.6, 1.2]), st.booleans()), max_size=40),
    st.sampled_from([1, 3, 7]),
)
@settings(max_examples=15)
def test_engine_scores_the_windows_of_a_plain_loop_between_gaps(
    rows: list[tuple[float, bool]], batch_size: int
) -> None:
    times = np.cumsum([apart for apart, _ in rows]) if rows else np.array([])
    shown = [k for k, (_, present) in enumerate(rows) if present]
    net = Cheap()
    config = AnalysisConfig(
        window_s=1, min_track_frames=1, keep_lost_s=99, batch_size=batch_size, max_gap_s=0.5
    )
    events = play(
        net, config, [(float(t), (0,) if p else ()) for t, (_, p) in zip(times, rows, strict=True)]
    )
    found = tables(events, net)
    expected = [
        (shown[a], shown[b]) for a, b in reference_windows(times[shown], 1, 0.25, None, 0.5)
    ]
    windows = found["windows"]
    assert list(zip(windows["start_frame"], windows["end_frame"], strict=True)) == expected
    frames = found["frames"]
    assert list(frames["frame_index"]) == list(range(len(rows)))
    assert list(frames["track_id"].notna()) == [present for _, present in rows]
    for k in shown:  # the mean of the windows that span the frame, also of those that skip it
        spans = windows[(windows["start_frame"] <= k) & (windows["end_frame"] >= k)]
        mean = spans[list(EXPRESSIONS)].mean()
        np.testing.assert_allclose(frames.loc[k, list(EXPRESSIONS)].astype(float), mean, atol=1e-9)


def test_intensity_of_a_frame_is_the_mean_of_its_windows() -> None:
    """Of a network that tells it, between the frames seen in line; the windows say which one."""
    net, config = Cheap(adjacency="per_clip", neutral=7), AnalysisConfig(window_s=0.9)
    rows = [(k / 10, (0,)) for k in range(23)]
    frames = tables(play(net, config, rows), net)["frames"]
    found = (frame_with_faces(k, time_s, (0,)) for k, (time_s, _) in enumerate(rows))
    crops = np.stack([frame.faces[0].crop for frame in numbered(found, config)])
    features = net.features(crops)
    said: list[list[float]] = [[] for _ in rows]
    for window in planned(np.arange(23) / 10, 4, 0.9, config.stride_s, None):
        intensity = net.answers(features[window.chosen][None]).intensity
        assert intensity is not None
        for k in range(window.start, window.stop):
            said[k].append(np.interp(k, window.chosen, intensity[0]))
    expected = np.array([np.mean(values) for values in said])
    assert max(map(len, said)) > 2 and np.ptp(expected) > 1e-4
    np.testing.assert_allclose(frames["intensity"].astype(float), expected, atol=1e-5)
    np.testing.assert_allclose(frames["neutral"].astype(float), 1 - expected, atol=1e-5)


@given(st.integers(1, 80), st.integers(1, 20), st.sampled_from([8, 23.976, 25, 29.97, 60]))
def test_frames_of_a_constant_rate_are_spread_as_in_training(
    length: int, num_frames: int, fps: float
) -> None:
    chosen = spread_frames(np.arange(length) / fps, num_frames)
    assert chosen.tolist() == sample_frames(length, num_frames).tolist()


def test_frames_of_a_varying_rate_are_spread_over_time() -> None:
    times = np.concatenate([np.arange(100) / 100, 1 + np.arange(10) / 10])
    chosen = times[spread_frames(times, 16)]
    assert abs(np.diff(chosen) - 1.9 / 15).max() < 0.11


def test_window_of_too_many_frames_is_cut() -> None:
    planner = WindowPlanner(4, 2.0, 0.25)
    windows = [w for _ in range(2 * MAX_WINDOW_FRAMES + 5) for w in planner.add(1.0)]
    windows += planner.finish()
    assert max(w.stop - w.start for w in windows) == MAX_WINDOW_FRAMES
    assert windows[0].start == 0
    assert all(later.start <= former.stop for former, later in pairwise(windows))


# Features, logits, contributions


@pytest.mark.parametrize("length", [1, 3, 4, 5, 40])
@pytest.mark.parametrize("adjacency", ["shared", "per_clip"])
def test_shared_features_give_the_answers_of_the_whole_network(length: int, adjacency: str) -> None:
    """Windows that share cached features against `model(frames)` on each window's pictures."""
    net = network(adjacency=adjacency)
    rng = np.random.default_rng(length)
    faces = rng.integers(0, 256, (length, 40, 40, 3), dtype=np.uint8)
    features = net.features(faces)
    chosen = np.array([w.chosen for w in planned(np.arange(length) / 25, 4, 0.6, 0.2, None)])
    logits, parts, intensity = net.answers(features[chosen])
    assert (intensity is not None) == (adjacency == "per_clip")
    model = net.checkpoint.model
    with torch.inference_mode():
        frames = fergcn_transform(faces)
        direct = model(frames[torch.from_numpy(chosen)])
    np.testing.assert_allclose(logits, direct, rtol=1e-3, atol=1e-4)
    assert parts is not None and net.classifier_bias is not None
    np.testing.assert_allclose(parts.sum(1) + net.classifier_bias, logits, atol=1e-5)


def fergcn_transform(faces: np.ndarray) -> torch.Tensor:
    from fergcn.transforms import eval_transform

    return eval_transform(faces, 40, 32)


def test_contributions_and_bias_add_up_to_the_windows_logit() -> None:
    net = Cheap()
    events = play(net, AnalysisConfig(window_s=0.5), [(k / 10, (0, 1)) for k in range(20)])
    found = tables(events, net)
    windows, parts = found["windows"], found["contributions"]
    assert len(windows) > 4
    bias = dict(zip(EXPRESSIONS, net.classifier_bias or [], strict=True))
    sums = parts.groupby("window")["contribution"].sum() + windows["expression"].map(bias)
    np.testing.assert_allclose(sums, windows["logit"], atol=1e-5)
    assert not parts.duplicated(["window", "frame_index"]).any()
    probs = windows[list(EXPRESSIONS)]
    assert list(windows["expression"]) == list(probs.idxmax(axis=1))


def test_other_heads_have_no_contributions() -> None:
    net = network(network="transformer")
    logits, parts, intensity = net.answers(np.zeros((2, 4, 16), np.float32))
    assert logits.shape == (2, 8) and parts is None and intensity is None
    assert net.classifier_bias is None


# The stream


def comings_and_goings() -> list[tuple[float, tuple[int, ...]]]:
    """Three faces: one that stays, one that comes and goes, one that is seen for a moment."""
    rows: list[tuple[float, tuple[int, ...]]] = []
    for k in range(150):
        present = (0,) if not 90 < k < 94 else ()
        present += (1,) if k % 50 > 20 else ()
        present += (2,) if k in (30, 31) else ()
        rows.append((k / 25, present))
    return rows


def test_batches_change_nothing() -> None:
    results = []
    for batch_size in (1, 7, 1000):
        net = Cheap()
        events = play(net, AnalysisConfig(batch_size=batch_size), comings_and_goings())
        assert sum(net.seen) == sum(len(present) for _, present in comings_and_goings())
        results.append(tables(events, net))
    for other in results[1:]:
        for name, table in results[0].items():
            pd.testing.assert_frame_equal(other[name], table, atol=1e-5)
    frames = results[0]["frames"]
    assert set(frames["track_id"].dropna()) == {0, 1}
    keys = list(zip(frames["frame_index"], frames["track_id"].fillna(-1), strict=True))
    assert keys == sorted(keys)


@pytest.mark.parametrize("batch_size", [1, 32])
def test_a_picture_is_seen_with_its_mirror_image(batch_size: int) -> None:
    """As a picture, both sides get one answer; as a frame of a video, one side counts."""
    net = FaceNetwork("rendered-only", "cpu", "torch")
    config = AnalysisConfig(batch_size=batch_size)
    side = cv2.resize(load_clip(load_rendered()[0], 3)[2], (192, 192))
    detection = Detection(np.array([0.0, 0, 40, 40]), np.zeros((5, 2)), 1.0)

    def answer(crop: np.ndarray, num_frames: int) -> list[float]:
        engine, events = Engine(net, config), []
        for k in range(num_frames):
            face = Face(k, k / 25, detection, crop)
            face.number = 0
            events += engine.add(NumberedFrame(k, k / 25, 40, 40, [face]))
        events += engine.finish()
        (window,) = [event for event in events if isinstance(event, WindowAnswer)]
        return list(window.probs.values())

    assert answer(side, 1) == pytest.approx(answer(side[:, ::-1], 1), abs=1e-4)
    assert answer(side, 2) != pytest.approx(answer(side[:, ::-1], 2), abs=1e-2)


def test_row_comes_when_no_later_window_can_reach_it() -> None:
    config = AnalysisConfig(batch_size=1)
    engine, given, taken = Engine(Cheap(), config), {}, []

    def found() -> Iterator[tuple[VideoFrame, list[Detection]]]:
        for k in range(100):
            taken.append(k)
            yield frame_with_faces(k, k / 25, (0,) if k < 70 else ())

    for frame in numbered(found(), config):
        for event in engine.add(frame):
            if isinstance(event, Prediction):
                given[event.frame_index] = taken[-1]
    assert all(given[k] - k == 51 for k in range(19))  # 2 s and a frame
    assert {given[k] for k in range(19, 70)} == {82}  # 0.5 s after the face left
    assert given[82] == 82


def test_what_is_kept_is_bounded() -> None:
    """Two and a half minutes of two faces, at ten frames a second."""
    quiet = SegmentConfig(onset_threshold=1, offset_threshold=1)
    config = AnalysisConfig(stride_s=2.0, segments=quiet)
    engine = Engine(Cheap(), config)
    kept, memory = [], []
    found = (frame_with_faces(k, k / 10, (0, 1)) for k in range(1500))
    for k, frame in enumerate(numbered(found, config)):
        for _ in engine.add(frame):
            pass
        kept.append(engine.num_kept)
        if k == 300:
            tracemalloc.start()
        if k in (600, 1499):
            memory.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert max(kept) <= 2 * 21
    assert memory[1] < memory[0] + 300_000
    assert len(engine._frames) + len(engine._windows) + len(engine._waiting) < 100


def test_segment_without_an_end_is_cut() -> None:
    length = 2 * MAX_SEGMENT_FRAMES + 100
    probs = np.full((length, 1), 1.0)
    found = find_segments(np.arange(length) / 25, np.ones(length), probs, ("happiness",))
    assert [round((s.offset_s - s.onset_s) * 25) + 1 for s in found] == [
        *(MAX_SEGMENT_FRAMES, MAX_SEGMENT_FRAMES, 100),
    ]


def test_tracks_that_went_are_not_kept() -> None:
    config = AnalysisConfig(keep_lost_s=0.2)
    engine = Engine(Cheap(), config)
    people = {clip.subject_id: load_clip(clip, 1)[0] for clip in load_rendered()}
    portraits = [cv2.resize(face, (80, 80)) for face in list(people.values())[:30]]

    def found() -> Iterator[tuple[VideoFrame, list[Detection]]]:
        for k in range(900):
            faces = []
            if k % 30 < 20:
                left = 80 * (k // 30 % 3)
                points = LANDMARK_TEMPLATE * 80 + (left, 0)
                faces = [Detection(np.array([left, 0.0, left + 80, 80]), points, 1.0)]
            image = np.concatenate([portraits[k // 30]] * 3, axis=1)
            yield VideoFrame(k, k / 25, image), faces

    for frame in numbered(found(), config):
        for _ in engine.add(frame):
            pass
    assert len(engine._track_ids) == 30 and len(engine._tracks) <= 3


def test_time_that_jumps_back_ends_windows_and_loses_no_frame() -> None:
    rows = [(k / 25, (0,)) for k in range(60)] + [(k / 25, (0,)) for k in range(60)]
    found = tables(play(net := Cheap(), AnalysisConfig(), rows), net)
    assert len(found["frames"]) == 120 and found["frames"]["expression"].notna().all()
    assert not (
        (found["windows"]["start_frame"] < 60) & (found["windows"]["end_frame"] >= 60)
    ).any()


# Segments


def plain_segments(
    times: np.ndarray, intensity: np.ndarray, config: SegmentConfig, max_gap_s: float
) -> list[tuple[float, float]]:
    """Onset and offset of the segments of a single expression, from the whole list at once."""
    stretches: list[list[int]] = []
    for k in range(len(times)):
        if intensity[k] < config.offset_threshold:
            continue
        joins = (
            stretches
            and stretches[-1][-1] == k - 1
            and times[k] - times[k - 1] <= max_gap_s + EPSILON
        )
        if joins:
            stretches[-1].append(k)
        else:
            stretches.append([k])
    stretches = [s for s in stretches if intensity[s].max() >= config.onset_threshold]
    merged: list[list[int]] = []
    for stretch in stretches:
        if (
            merged
            and times[stretch[0]] - times[merged[-1][-1]] <= config.merge_gap_s + EPSILON
            and np.diff(times[merged[-1][-1] : stretch[0] + 1]).max() <= max_gap_s + EPSILON
        ):
            merged[-1] += stretch
        else:
            merged.append(list(stretch))
    return [
        (times[s[0]], times[s[-1]])
        for s in merged
        if times[s[-1]] - times[s[0]] >= config.min_length_s - EPSILON
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.04, 0.1, 0.2, 0.6]), st.sampled_from([0.0, 0.34, 0.36, 0.49, 0.6])
        ),
        max_size=50,
    )
)
def test_segments_as_they_come_are_those_of_the_whole(rows: list[tuple[float, float]]) -> None:
    times = np.cumsum([apart for apart, _ in rows]) if rows else np.array([])
    intensity = np.array([value for _, value in rows])
    probs = np.stack([intensity, 1 - intensity], axis=1) if rows else np.empty((0, 2))
    found = find_segments(times, intensity, probs, ("happiness", "neutral"))
    expected = plain_segments(times, intensity, SegmentConfig(), 0.5)
    assert [(segment.onset_s, segment.offset_s) for segment in found] == expected


# Frames from anywhere


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face that moves for 11 frames, goes for 3 and is back for 4."""
    path = tmp_path_factory.mktemp("video") / "panned.mp4"
    places = [[(20 * k, 10)] for k in range(11)] + [[]] * 3 + [[(100, 10)]] * 4
    return write_scenes(path, places)


def test_collected_stream_is_the_analysis(video: Path) -> None:
    checkpoint = network().checkpoint
    frames = list(read_frames(video))
    predictions = list(
        fergcn.stream(
            (frame.image for frame in frames),
            times=[frame.time_s for frame in frames],
            checkpoint=checkpoint,
        )
    )
    analysis = fergcn.analyze(video, checkpoint)
    rows = [
        (
            *(p.frame_index, p.time_s, p.track_id, *(p.xyxy or [None] * 4), p.confidence),
            *(p.expression, p.intensity, *(p.probs.values() or [None] * 8)),
        )
        for p in predictions
    ]
    pd.testing.assert_frame_equal(
        make_table("frames", rows, EXPRESSIONS), analysis.frames, check_exact=True
    )
    assert predictions[12] == Prediction(12, frames[12].time_s)
    assert list(predictions[0].probs) == list(EXPRESSIONS)


def test_stream_of_a_buffer_that_is_used_again() -> None:
    checkpoint = network().checkpoint

    def filmed(again: bool) -> Iterator[np.ndarray]:
        buffer = np.empty((240, 480, 3), np.uint8)
        for k in range(6):
            buffer = buffer if again else np.empty_like(buffer)
            buffer[:] = scene([(20 * k, 10)])
            yield buffer

    first, second = (
        [asdict(p) for p in fergcn.stream(filmed(again), fps=10, checkpoint=checkpoint)]
        for again in (True, False)
    )
    assert first == second and len(first) == 6
    assert [row["time_s"] for row in first] == [k / 10 for k in range(6)]


def test_bad_frames_are_named() -> None:
    checkpoint = network().checkpoint
    good = np.zeros((60, 60, 3), np.uint8)

    def stream(frames: list, **how: object) -> list:
        return list(fergcn.stream(frames, checkpoint=checkpoint, **how))

    with pytest.raises(FergcnError, match=r"found fps=0, expected frames a second above 0"):
        stream([good], fps=0)
    with pytest.raises(FergcnError, match=r"frame 1: found float64 \(60, 60, 3\)"):
        stream([good, good / 255], fps=25)
    with pytest.raises(FergcnError, match="frame 0: found list"):
        stream([[1, 2]], fps=25)
    with pytest.raises(FergcnError, match=r"frame 1: found time 0\.5 after 1\.0"):
        stream([good] * 2, times=[1.0, 0.5])
    with pytest.raises(FergcnError, match="found 1 times for more frames"):
        stream([good] * 2, times=[1.0])
    assert stream([], fps=25) == []
    assert stream([good], fps=25) == [Prediction(0, 0.0)]
    assert [prediction.time_s for prediction in stream([good] * 3)] == [0, 0.04, 0.08]


# Results as they come


def test_kill_leaves_rows_that_can_be_read_and_no_result(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    video = write_scenes(tmp_path / "long.mp4", [[(20 * (k % 12), 10)] for k in range(400)])
    command = [sys.executable, "-m", "fergcn", "predict", str(video), "-o", str(tmp_path / "out")]
    command += ["--window-s", "0.5", "--checkpoint", str(tiny_checkpoint)]
    table = tmp_path / "out" / "long.partial" / "frames.csv"
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        try:
            deadline = time.monotonic() + 600  # of a machine with much else to do
            while not (table.exists() and table.read_text().count("\n") > 20):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            process.kill()
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert 20 <= len(rows) < 400
    assert [int(row["frame_index"]) for row in rows] == list(range(len(rows)))
    assert all(row["neutral"] for row in rows if row["track_id"])
    assert not (tmp_path / "out" / "long").exists()


def test_windows_are_events_of_their_own() -> None:
    events = play(Cheap(), AnalysisConfig(), [(k / 25, (0,)) for k in range(75)])
    windows = [event for event in events if isinstance(event, WindowAnswer)]
    # 2 s at 25 frames/s, then every seventh frame (0.28 s), then the last one.
    assert [window.end_frame for window in windows] == [50, 57, 64, 71, 74]
    assert [window.start_frame for window in windows] == [0, 7, 14, 21, 24]
