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

from fergcn.clips import load_clip
from fergcn.datasets.rendered import load_rendered
from fergcn.faces.align import LANDMARK_TEMPLATE
from fergcn.faces.cuts import is_cut, thumbnail
from fergcn.faces.detect import Detection, FaceDetector
from fergcn.faces.follow import find_faces
from fergcn.faces.look import Look, look_difference, look_of, person_difference
from fergcn.faces.track import MAX_WAIT_S, Tracker
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

    tracker, by_place = Tracker(), Tracker()
    faces: list[list[Detection]] = []
    numbers, without = [], []
    for frame, detections in find_faces(frames(), detector, 0.25, 80):
        faces.append(detections)
        numbers += tracker.add(detections, frame.time_s, frame.image)
        without.append(by_place.update(detections, frame.time_s))
    numbers += tracker.finish()
    found, switches = count_switches(truth, list(zip(faces, numbers, strict=True)))
    return found, switches, count_switches(truth, list(zip(faces, without, strict=True)))[1]


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
    for seed in (40, 41):
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


Places = dict[int, tuple[float, float]]
RATES = pytest.mark.parametrize("fps", [10, 25, 60])


def numbers_of(
    frames: list[Places],
    fps: float = 25,
    cuts: tuple[int, ...] = (),
    max_wait_s: float = MAX_WAIT_S,
) -> list[dict[int, int]]:
    """The number of each person in each frame."""
    tracker = Tracker(0.4, max_wait_s)
    people, numbered = [], []
    for index, places in enumerate(frames):
        background = 20 if sum(index >= cut for cut in cuts) % 2 else 200
        image, faces, who = picture(places, background)
        people.append(who)
        numbered += tracker.add(faces, index / fps, image)
        assert (len(people) - len(numbered) - 1) / fps <= max_wait_s + 1e-6  # age of the oldest
    numbered += tracker.finish()
    return [
        dict(zip(who, numbers, strict=True)) for who, numbers in zip(people, numbered, strict=True)
    ]


def lasting(fps: float, *parts: tuple[float, Places]) -> list[Places]:
    """Frames of people who stay in their places for so many seconds each."""
    return [places for seconds, places in parts for _ in range(round(seconds * fps))]


def test_place_alone_decides_from_frame_to_frame() -> None:
    frames = [{0: (50 + 2 * step, 60.0), 1: (250 - 2 * step, 60.0)} for step in range(20)]
    assert numbers_of(frames) == [{0: 0, 1: 1}] * 20


def test_frames_far_apart_are_neighbours_all_the_same() -> None:
    assert numbers_of([{0: (50.0 + 4 * step, 60.0)} for step in range(6)], fps=0.2) == [{0: 0}] * 6


@RATES
def test_people_who_swap_places_at_a_cut_keep_their_numbers(fps: float) -> None:
    before, after = {0: (60.0, 60.0), 1: (240.0, 60.0)}, {1: (60.0, 60.0), 0: (240.0, 60.0)}
    frames = lasting(fps, (0.4, before), (0.4, after))
    assert numbers_of(frames, fps, (round(0.4 * fps),)) == [{0: 0, 1: 1}] * len(frames)


@RATES
@pytest.mark.parametrize("max_wait_s", [0, MAX_WAIT_S])
def test_who_comes_back_elsewhere_and_late_gets_the_old_number(
    fps: float, max_wait_s: float
) -> None:
    one = {1: (250.0, 60.0)}
    frames = lasting(
        fps, (0.4, one | {0: (60.0, 60.0)}), (2.4, one), (0.8, one | {0: (150.0, 60.0)})
    )
    assert numbers_of(frames, fps, max_wait_s=max_wait_s)[-1] == {0: 0, 1: 1}


@RATES
def test_somebody_else_in_the_same_place_gets_a_new_number(fps: float) -> None:
    for away_s in (0.1, 0.3, 1.2):
        here = (60.0, 60.0)
        frames = lasting(fps, (0.4, {0: here}), (away_s, {}), (0.8, {1: here}))
        assert numbers_of(frames, fps)[-1] == {1: 1}


@RATES
@pytest.mark.parametrize(("away_s", "is_held"), [(0.3, False), (0.6, True)])
def test_place_is_evidence_for_who_was_away_for_a_moment(
    fps: float, away_s: float, is_held: bool
) -> None:
    """Who looks somewhat different is waited for after 0.6 s and not after 0.3 s, at any rate."""
    tracker, changed = Tracker(), cv2.addWeighted(pattern(0), 0.8, pattern(1), 0.2, 0)
    parts = ((0.4, pattern(0)), (away_s, None), (0.05, changed))
    given = []
    for part in (part for seconds, part in parts for _ in range(max(1, round(seconds * fps)))):
        image = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
        if part is not None:
            image[20 : 20 + 2 * SIDE, 20 : 20 + 2 * SIDE] = part
        faces = [face_at(60, 60)] if part is not None else []
        given.append(len(tracker.add(faces, len(given) / fps, image)))
    assert sum(given) == len(given) if not is_held else given[-1] == 0


@RATES
def test_movement_goes_on_while_a_face_is_hidden(fps: float) -> None:
    """It comes out five of its sizes away from where it went in, as fast as before."""
    tracker = Tracker(1.0)
    numbers = [
        tracker.update(
            [face_at(60 + 300 * index / fps, 60)] if not 0.3 < index / fps < 0.9 else [],
            index / fps,
        )
        for index in range(round(1.2 * fps))
    ]
    assert numbers[-1] == [0]


def test_frames_are_held_back_only_while_somebody_is_missing_and_never_live() -> None:
    one = {1: (250.0, 60.0)}
    frames = lasting(
        25, (0.4, one | {0: (60.0, 60.0)}), (0.4, one), (0.8, one | {2: (150.0, 60.0)})
    )
    for max_wait_s, held in ((0, 0), (MAX_WAIT_S, 15)):
        tracker = Tracker(0.4, max_wait_s)
        late, given = [], 0
        for index, places in enumerate(frames):
            image, faces, _ = picture(places)
            given += len(tracker.add(faces, index / 25, image))
            late.append(index + 1 - given)
        assert max(late[:20]) == 0 and max(late) == pytest.approx(held, abs=1)


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
    for places, numbers in zip(frames, numbers_of(frames, cuts=tuple(cuts)), strict=True):
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
    """Each person in a lane; some are hidden for a while, shorter than `keep_lost_s`."""
    hidden = [data.draw(st.tuples(st.integers(3, 20), st.integers(0, 8))) for _ in walks]
    tracker = Tracker(keep_lost_s=0.4)
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
        for lane, number in zip(shown, tracker.update(faces, step / 25), strict=True):
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


@cache
def portrait(subject: int, expression: str, hidden: float = 0) -> NDArray[np.uint8]:
    """A rendered person of the bundled dataset, 80 px, a share of the face behind a pillar."""
    people = sorted({clip.subject_id or "" for clip in load_rendered()})
    clip = next(
        clip
        for clip in load_rendered()
        if clip.subject_id == people[subject] and clip.expression == expression
    )
    face = cv2.resize(load_clip(clip, 1)[0], (80, 80), interpolation=cv2.INTER_AREA)
    face[:, round(80 * (1 - hidden)) :] = 60
    return face.astype(np.uint8)


def numbers_of_portraits(parts: list[tuple[int, list[NDArray[np.uint8]]]]) -> list[list[int]]:
    """The last numbers of each part: so many frames of portraits, from left to right."""
    tracker = Tracker(0.4)
    given: list[list[int]] = []
    ends: list[int] = []
    index = 0
    for frames, faces in parts:
        image = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
        found = []
        for place, face in enumerate(faces):
            left = 20 + 120 * place
            image[20:100, left : left + 80] = face
            box = np.array([left, 20.0, left + 80, 100])
            found.append(Detection(box, LANDMARK_TEMPLATE * 80 + (left, 20), 1.0))
        for _ in range(frames):
            given += tracker.add(found, index / 25, image)
            index += 1
        ends.append(index - 1)
    given += tracker.finish()
    return [given[end] for end in ends]


def test_half_hidden_people_are_not_taken_for_each_other() -> None:
    """The same pillar hides half of both, and one of them has left behind it."""
    for first, second in ((4, 5), (10, 11), (20, 30), (7, 12)):
        parts = [
            (12, [portrait(first, "anger")]), (8, [portrait(first, "anger", 0.4)]), (40, []),
            (30, [portrait(second, "anger", 0.45)]),
        ]  # fmt: skip
        assert [numbers for numbers in numbers_of_portraits(parts) if numbers] == [[0], [0], [1]]


def test_people_who_come_together_are_two_whoever_they_are_taken_for() -> None:
    """They come one after the other, then together; no one gets the other one's number."""
    for first, second in ((4, 5), (10, 11), (20, 30), (7, 12)):
        one, other = portrait(first, "anger"), portrait(second, "anger")
        later = [portrait(first, "happiness"), portrait(second, "happiness")]
        parts = [(12, [one]), (40, []), (12, [other]), (40, []), (30, later), (40, []), (30, later)]
        numbers = [there for there in numbers_of_portraits(parts) if there]
        assert numbers[:2] == [[0], [1]] and numbers[2] == numbers[3]
        assert numbers[2][0] != 1 and numbers[2][1] != 0 and set(numbers[2]) & {0, 1}


def test_vectors_know_half_hidden_people_better_than_patterns() -> None:
    """Of twenty rendered people, by another clip of theirs in which they are not hidden."""
    clips = [clip for clip in load_rendered() if clip.expression in ("anger", "happiness")]
    clear: dict[str | None, Look] = {}
    hidden: dict[str | None, Look] = {}
    for clip in clips:
        face = load_clip(clip, 1)[0]
        points = LANDMARK_TEMPLATE * face.shape[0]
        if clip.expression == "happiness":
            face = face.copy()
            face[:, face.shape[1] // 2 :] = 60
        look = look_of(face, points)
        assert look is not None
        (hidden if clip.expression == "happiness" else clear).setdefault(clip.subject_id, look)
    people = list(clear)[:20]
    known = [[clear[person]] for person in people]
    right = [
        sum(np.argmin([differ(hidden[person], looks) for looks in known]) == place
            for place, person in enumerate(people))
        for differ in (look_difference, person_difference)
    ]  # fmt: skip
    assert right[1] >= 2 * right[0] and right[1] >= 10, right


@pytest.mark.parametrize("where", [(-400, -400), (5000, 0), (-40, -30), (300, 390)])
def test_face_outside_or_at_the_border_has_a_look_or_none(where: tuple[int, int]) -> None:
    look = look_of(ASTRONAUT, LANDMARKS + where)
    assert look is None or (np.isfinite(look.texture).all() and np.isfinite(look.colour).all())


def test_cut_is_told_from_movement() -> None:
    moved = np.roll(ASTRONAUT, 6, axis=1)
    assert not is_cut(thumbnail(ASTRONAUT), thumbnail(moved))
    assert is_cut(thumbnail(ASTRONAUT), thumbnail(skimage.data.coffee()))
    assert is_cut(thumbnail(ASTRONAUT), thumbnail(255 - ASTRONAUT))
