"""Numbers that faces keep: on the true places of rendered people, and on synthetic trajectories."""

from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from fergcn.faces.align import LANDMARK_TEMPLATE
from fergcn.faces.cuts import is_cut, thumbnail
from fergcn.faces.detect import Detection, FaceDetector
from fergcn.faces.follow import find_faces
from fergcn.faces.look import look_difference, look_of
from fergcn.faces.track import MAX_WAIT, Tracker
from fergcn.rendering.crowd import FPS, SCENE_KINDS, Scene, Seen, Walk, render_crowd, sample_scene
from fergcn.video import VideoFrame

HEIGHT, WIDTH = 120, 320
SIDE = 40
"""Of the synthetic faces, in pixels."""


def count_switches(
    truth: list[list[Seen]], found: list[tuple[list[Detection], list[int]]]
) -> tuple[int, int]:
    """Faces found that somebody has, and how often a person's number is not the one of before."""
    last: dict[int, int] = {}
    faces = switches = 0
    for people, (detections, numbers) in zip(truth, found, strict=True):
        shown = [person for person in people if person.visible > 0.4]
        distance = np.array(
            [
                [
                    np.linalg.norm(face.landmarks - person.landmarks, axis=1).mean()
                    / np.hypot(*(person.landmarks[0] - person.landmarks[1])).clip(8)
                    for face in detections
                ]
                for person in shown
            ]
        ).reshape(len(shown), len(detections))
        for row, column in zip(*linear_sum_assignment(distance.clip(max=9)), strict=True):
            if distance[row, column] < 0.6:
                subject = shown[row].subject
                faces += 1
                switches += last.get(subject, numbers[column]) != numbers[column]
                last[subject] = numbers[column]
    return faces, switches


def follow_crowd(scene: Scene, seed: int, detector: FaceDetector) -> tuple[int, int, int]:
    """Faces found, and switches with and without looks, from pictures to numbers."""
    truth: list[list[Seen]] = []

    def frames() -> Iterator[VideoFrame]:
        for index, (image, seen) in enumerate(render_crowd(scene, seed)):
            truth.append(seen)
            yield VideoFrame(index, index / FPS, image)

    tracker, by_place = Tracker(FPS), Tracker(FPS)
    numbered, without = [], []
    for frame, faces in find_faces(frames(), detector, 0.25, 80):
        numbered += tracker.add(frame, faces)
        without.append((faces, by_place.update(faces)))
    numbered += tracker.finish()
    found = [(list(faces), numbers) for _, faces, numbers in numbered]
    assert [frame.index for frame, _, _ in numbered] == list(range(len(truth)))
    faces_found, switches = count_switches(truth, found)
    return faces_found, switches, count_switches(truth, without)[1]


def walk(subject: int, *rows: tuple[float, float, float]) -> Walk:
    """Through these times, columns and sizes."""
    return Walk(subject, np.array([(time_s, x, 150, size, 0) for time_s, x, size in rows]))


def test_rendered_people_are_where_the_truth_says() -> None:
    detector = FaceDetector(30)
    scene = Scene(
        (walk(1, (0, 150, 30), (0.1, 150, 30)), walk(2, (0, 450, 40), (0.1, 450, 40))), 0.1
    )
    image, seen = next(render_crowd(scene))
    faces = detector(image)
    assert len(faces) == 2 and [person.subject for person in seen] == [1, 2]
    for face, person in zip(faces, seen, strict=True):
        size = np.hypot(*(person.landmarks[1] - person.landmarks[0]))
        assert np.linalg.norm(face.landmarks - person.landmarks, axis=1).max() < 0.3 * size
        assert person.visible == 1


def test_nearer_people_and_pillars_hide_those_behind() -> None:
    near, far = walk(1, (0, 300, 40), (0.1, 300, 40)), walk(2, (0, 310, 25), (0.1, 310, 25))
    visible = {
        person.subject: person.visible
        for person in next(render_crowd(Scene((near, far), 0.1, pillars=((280, 300),))))[1]
    }
    assert 0.6 < visible[1] < 0.95 and visible[2] < 0.3


def test_scenes_of_every_kind_are_whole() -> None:
    for number, kind in enumerate(SCENE_KINDS):
        scene = sample_scene(kind, np.random.default_rng(number))
        assert len({walk.subject for walk in scene.walks}) >= 2
        for one in scene.walks:
            times = one.path[:, 0]
            assert (np.diff(times) >= 0).all() and 0 <= times[0] < times[-1] <= scene.duration_s
            assert (one.path[:, 3] > 15).all()
        for subject in {walk.subject for walk in scene.walks}:  # nobody is in two places at once
            own = sorted(
                (one.path[0, 0], one.path[-1, 0]) for one in scene.walks if one.subject == subject
            )
            assert all(end <= start for (_, end), (start, _) in pairwise(own))


def test_rendered_people_who_change_places_at_a_cut_keep_their_numbers() -> None:
    """They would swap numbers by place alone."""
    scene = Scene(
        (
            walk(3, (0, 160, 40), (1, 170, 40)), walk(10, (0, 480, 36), (1, 470, 36)),
            walk(10, (1, 170, 40), (2, 170, 40)), walk(3, (1, 470, 36), (2, 470, 36)),
        ),
        2.0,
        cuts_s=(1.0,),
    )  # fmt: skip
    faces, switches, by_place = follow_crowd(scene, 4, FaceDetector())
    assert faces > 80 and by_place == 2 and switches == 0


@pytest.mark.nightly
def test_numbers_hardly_switch_on_rendered_scenes() -> None:
    """Over 5,000 faces in scenes of every kind, of which none was looked at for the thresholds."""
    detector = FaceDetector()
    faces = switches = by_place = 0
    for seed in (20, 21):
        for number, kind in enumerate(SCENE_KINDS):
            rng = np.random.default_rng([seed, number])
            counts = follow_crowd(sample_scene(kind, rng, 3 + seed % 2), seed, detector)
            print(f"{kind} {seed}: faces, switches, switches by place alone: {counts}")
            faces, switches = faces + counts[0], switches + counts[1]
            by_place += counts[2]
    print(f"{faces} faces, {switches} switches, {by_place} by place alone")
    assert faces > 5000
    assert switches <= faces / 1000 and switches < by_place / 4


def face_at(x: float, y: float, side: float = SIDE) -> Detection:
    corner = np.array([x, y]) - side / 2
    return Detection(np.array([*corner, *(corner + side)]), corner + LANDMARK_TEMPLATE * side, 1.0)


@cache
def pattern(person: int) -> NDArray[np.uint8]:
    """What a person looks like: smooth noise in a colour of their own."""
    rng = np.random.default_rng([7, person])
    noise = cv2.GaussianBlur(rng.normal(0, 1, (2 * SIDE, 2 * SIDE, 3)), (0, 0), 2)
    colour = 128 + 90 * np.array([np.cos(2.4 * person), np.sin(2.4 * person), 0])
    return (colour + 120 * noise).clip(0, 255).astype(np.uint8)


def picture(
    places: dict[int, tuple[float, float]], background: int = 90
) -> tuple[NDArray[np.uint8], list[Detection], list[int]]:
    """People at their places, the later in front; faces and people from left to right."""
    image = np.full((HEIGHT, WIDTH, 3), background, dtype=np.uint8)
    for person, (x, y) in places.items():
        left, top = round(x) - SIDE, round(y) - SIDE
        part = pattern(person)[max(-top, 0) : HEIGHT - top, max(-left, 0) : WIDTH - left]
        image[max(top, 0) :, max(left, 0) :][: part.shape[0], : part.shape[1]] = part
    people = sorted(places, key=lambda person: places[person])
    return image, [face_at(*places[person]) for person in people], people


def numbers_of(
    frames: list[dict[int, tuple[float, float]]], cuts: tuple[int, ...] = (), max_missed: int = 10
) -> list[dict[int, int]]:
    """The number of each person in each frame."""
    tracker = Tracker(max_missed)
    people, numbered = [], []
    for index, places in enumerate(frames):
        background = 20 if sum(index >= cut for cut in cuts) % 2 else 200
        image, faces, who = picture(places, background)
        people.append(who)
        numbered += tracker.add(VideoFrame(index, index / 25, image), faces)
        assert len(people) - len(numbered) <= MAX_WAIT
    numbered += tracker.finish()
    return [
        dict(zip(who, numbers, strict=True))
        for who, (_, _, numbers) in zip(people, numbered, strict=True)
    ]


def test_place_alone_decides_from_frame_to_frame() -> None:
    frames = [{0: (50 + 2 * step, 60.0), 1: (250 - 2 * step, 60.0)} for step in range(20)]
    assert numbers_of(frames) == [{0: 0, 1: 1}] * 20


def test_people_who_swap_places_at_a_cut_keep_their_numbers() -> None:
    before, after = {0: (60.0, 60.0), 1: (240.0, 60.0)}, {1: (60.0, 60.0), 0: (240.0, 60.0)}
    numbers = numbers_of([before] * 8 + [after] * 8, cuts=(8,))
    assert numbers == [{0: 0, 1: 1}] * 16


def test_who_comes_back_elsewhere_and_late_gets_the_old_number() -> None:
    frames = [{0: (60.0, 60.0), 1: (250.0, 60.0)}] * 6 + [{1: (250.0, 60.0)}] * 60
    frames += [{1: (250.0, 60.0), 0: (150.0, 60.0)}] * 20
    assert numbers_of(frames)[-1] == {0: 0, 1: 1}


def test_somebody_else_in_the_same_place_gets_a_new_number() -> None:
    for away in (3, 9, 30):
        frames = [{0: (60.0, 60.0)}] * 6 + [{}] * away + [{1: (60.0, 60.0)}] * 20
        assert numbers_of(frames)[-1] == {1: 1}


people_walk = st.fixed_dictionaries(
    {},
    optional={
        person: st.tuples(
            st.floats(40, 280), st.floats(-6, 6), st.integers(0, 10), st.integers(5, 40)
        )
        for person in range(4)
    },
)


@given(people_walk, st.lists(st.integers(1, 40), max_size=2, unique=True))
@settings(max_examples=15)
def test_numbers_are_whole_and_nobody_shares_one(walks: dict, cuts: list[int]) -> None:
    """Whatever happens: each face has a number, in a frame each its own, and none is left out."""
    frames = [
        {
            person: (float(np.clip(x + speed * step, 20, 300)), 60.0)
            for person, (x, speed, start, length) in walks.items()
            if start <= step < start + length
        }
        for step in range(40)
    ]
    known = 0
    for places, numbers in zip(frames, numbers_of(frames, tuple(cuts)), strict=True):
        assert numbers.keys() == places.keys()
        assert len(set(numbers.values())) == len(numbers)
        new = sorted(number for number in numbers.values() if number >= known)
        assert new == list(range(known, known + len(new)))
        known += len(new)


lanes = st.lists(
    st.tuples(st.floats(-40, 40), st.floats(-8, 8), st.floats(30, 60)), min_size=1, max_size=6
)


@given(lanes, st.data())
@settings(max_examples=30)
def test_trajectories_far_apart_keep_their_numbers(walks: list, data: st.DataObject) -> None:
    """Each person in a lane; some are hidden for a while, shorter than `max_missed`."""
    hidden = [data.draw(st.tuples(st.integers(3, 20), st.integers(0, 8))) for _ in walks]
    tracker = Tracker(max_missed=10)
    numbers: dict[int, set[int]] = {}
    for step in range(35):
        shown = [
            lane
            for lane, (start, length) in enumerate(hidden)
            if not start <= step < start + length
        ]
        faces = [
            face_at(300 + walks[lane][0] + walks[lane][1] * step, 200 * lane, walks[lane][2])
            for lane in shown
        ]
        for lane, number in zip(shown, tracker.update(faces), strict=True):
            numbers.setdefault(lane, set()).add(number)
    assert all(len(own) == 1 for own in numbers.values())
    assert len(set.union(*numbers.values())) == len(walks)


ASTRONAUT = skimage.data.astronaut()
LANDMARKS = np.array([(202.0, 109), (247, 107), (225, 140), (208, 157), (246, 155)])


def test_look_hardly_changes_with_light_size_and_place() -> None:
    look = look_of(ASTRONAUT, LANDMARKS)
    assert look is not None and look_difference(look, [look]) < 1e-3
    darker = (0.85 * ASTRONAUT).astype(np.uint8)
    half = cv2.resize(ASTRONAUT, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    double = cv2.resize(ASTRONAUT, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    moved = np.roll(ASTRONAUT, (13, 21), axis=(0, 1))
    for image, landmarks in (
        (darker, LANDMARKS),
        (half, LANDMARKS / 2),
        (double, LANDMARKS * 2),
        (moved, LANDMARKS + np.array((21, 13))),
    ):
        other = look_of(image, landmarks)
        assert other is not None and look_difference(other, [look]) < 0.6
    mirrored = look_of(np.ascontiguousarray(ASTRONAUT[::-1]), LANDMARKS)
    assert mirrored is not None and look_difference(mirrored, [look]) > 1.2


def test_half_hidden_face_still_looks_like_itself() -> None:
    look = look_of(ASTRONAUT, LANDMARKS)
    covered = ASTRONAUT.copy()
    covered[:, 228:300] = 20
    hidden = look_of(covered, LANDMARKS)
    assert look is not None and hidden is not None
    assert look_difference(hidden, [look]) < 0.6


@pytest.mark.parametrize("where", [(-400, -400), (5000, 0), (-40, -30), (300, 390)])
def test_face_outside_or_at_the_border_has_a_look_or_none(where: tuple[int, int]) -> None:
    look = look_of(ASTRONAUT, LANDMARKS + where)
    assert look is None or (np.isfinite(look.texture).all() and np.isfinite(look.colour).all())


def test_cut_is_told_from_movement() -> None:
    moved = np.roll(ASTRONAUT, 6, axis=1)
    assert not is_cut(thumbnail(ASTRONAUT), thumbnail(moved))
    assert is_cut(thumbnail(ASTRONAUT), thumbnail(skimage.data.coffee()))
    assert is_cut(thumbnail(ASTRONAUT), thumbnail(255 - ASTRONAUT))
