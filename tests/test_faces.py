"""Detection, tracking and alignment, with a real face."""

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import SimilarityTransform

from fergcn.faces.align import LANDMARK_TEMPLATE, align_face, similarity_transform
from fergcn.faces.detect import Detection, FaceDetector
from fergcn.faces.follow import MAX_WAITING, find_faces
from fergcn.faces.track import Tracker
from fergcn.video import VideoFrame

ASTRONAUT = skimage.data.astronaut()[:320, 60:380]
FACE_CENTRE = (164, 118)
"""Middle of the face in that cut, x and y."""


def detection(x: float, y: float, size: float = 50, confidence: float = 1) -> Detection:
    """A face without a picture, its centre at x and y."""
    corner = np.array([x, y]) - size / 2
    return Detection(
        np.array([*corner, *(corner + size)]), corner + LANDMARK_TEMPLATE * size, confidence
    )


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(min_face_size=40)


def test_face_is_found_where_it_is(detector: FaceDetector) -> None:
    (face,) = detector(ASTRONAUT)
    left, top, right, bottom = face.xyxy
    assert left < FACE_CENTRE[0] < right and top < FACE_CENTRE[1] < bottom
    assert 60 < right - left < 130 and 80 < bottom - top < 160
    assert 0.9 <= face.confidence <= 1
    eye_left, eye_right, nose, mouth_left, mouth_right = face.landmarks
    assert eye_left[0] < nose[0] < eye_right[0] and mouth_left[0] < mouth_right[0]
    assert max(eye_left[1], eye_right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])


def test_two_faces_come_from_left_to_right(detector: FaceDetector) -> None:
    faces = detector(np.concatenate([ASTRONAUT, ASTRONAUT[:, ::-1]], axis=1))
    assert len(faces) == 2
    assert faces[0].xyxy[2] < 320 < faces[1].xyxy[0]


def test_box_ends_with_the_picture(detector: FaceDetector) -> None:
    half = np.ascontiguousarray(ASTRONAUT[80:, : FACE_CENTRE[0] + 25])
    for face in FaceDetector(40, min_confidence=0)(half):
        assert (face.xyxy >= 0).all()
        assert (face.xyxy <= [half.shape[1], half.shape[0]] * 2).all()


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 500), (11, 11), (12, 12), (39, 41), (40, 13), (13, 700)]
)
@pytest.mark.parametrize("content", ["black", "noise"])
def test_tiny_and_odd_pictures_have_no_face(
    detector: FaceDetector, height: int, width: int, content: str
) -> None:
    image = np.zeros((height, width, 3), dtype=np.uint8)
    if content == "noise":
        image = np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)
    assert detector(image) == []


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 12"):
        FaceDetector(min_face_size=5)


@given(
    angle=st.floats(-3, 3),
    scale=st.floats(0.2, 8),
    shift=st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
    noise=st.integers(0, 2**32 - 1),
)
@settings(max_examples=50, deadline=None)
def test_similarity_agrees_with_skimage(
    angle: float, scale: float, shift: tuple[float, float], noise: int
) -> None:
    jitter = np.random.default_rng(noise).normal(0, 0.03, (5, 2))
    place = SimilarityTransform(scale=scale, rotation=angle, translation=shift)
    landmarks = place((LANDMARK_TEMPLATE + jitter) * 100)
    expected = SimilarityTransform.from_estimate(landmarks, LANDMARK_TEMPLATE * 224.0)
    np.testing.assert_allclose(
        similarity_transform(landmarks, 224), expected.params[:2], rtol=1e-5, atol=1e-4
    )


def test_aligned_face_has_its_landmarks_on_the_template(detector: FaceDetector) -> None:
    (face,) = detector(ASTRONAUT)
    crop = align_face(ASTRONAUT, face.landmarks, 200)
    assert crop.shape == (200, 200, 3) and crop.dtype == np.uint8
    (again,) = detector(crop)
    assert np.abs(again.landmarks / 200 - LANDMARK_TEMPLATE).mean() < 0.04


def test_turned_face_is_aligned_upright(detector: FaceDetector) -> None:
    """A picture turned by 90° with its landmarks gives the same crop."""
    (face,) = detector(ASTRONAUT)
    height = ASTRONAUT.shape[0]
    turned = np.ascontiguousarray(np.rot90(ASTRONAUT, k=-1))  # clockwise: x' = height − 1 − y
    landmarks = np.stack([height - 1 - face.landmarks[:, 1], face.landmarks[:, 0]], axis=1)
    difference = align_face(turned, landmarks, 128).astype(int) - align_face(
        ASTRONAUT, face.landmarks, 128
    )
    assert np.abs(difference).mean() < 1


def test_numbers_follow_the_order_of_appearance() -> None:
    tracker = Tracker()
    assert tracker.update([detection(400, 100), detection(100, 100)], 0) == [1, 0]
    faces = [detection(102, 100), detection(398, 100), detection(250, 300)]
    assert tracker.update(faces, 0.04) == [0, 1, 2]


def test_crossing_faces_keep_their_numbers() -> None:
    tracker = Tracker()
    ids = [
        tracker.update([detection(100 + 8 * step, 100), detection(420 - 8 * step, 130)], step / 25)
        for step in range(41)
    ]
    assert ids == [[0, 1]] * 41


def test_face_that_comes_back_in_time_gets_its_number_again() -> None:
    for fps in (10, 25, 60):
        for back_s, expected in ((0.4, 0), (0.5, 1)):
            tracker = Tracker(keep_lost_s=0.4)
            assert tracker.update([detection(100, 100)], 0) == [0]
            for index in range(1, round(back_s * fps)):
                assert tracker.update([], index / fps) == []
            assert tracker.update([detection(110, 105)], back_s) == [expected]


def test_another_place_or_size_is_another_face() -> None:
    for other in (detection(300, 100), detection(100, 100, size=150)):
        tracker = Tracker()
        tracker.update([detection(100, 100)], 0)
        assert tracker.update([other], 0.04) == [1]


positions = st.tuples(st.floats(0, 600), st.floats(0, 400), st.floats(20, 120))
scenes = st.lists(st.lists(positions, max_size=5, unique=True), min_size=1, max_size=8)


@given(scenes, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_order_of_detections_has_no_influence(scene: list, random: object) -> None:
    plain, shuffled = Tracker(), Tracker()
    for index, frame in enumerate(scene):
        detections = [detection(*face) for face in frame]
        order = list(range(len(detections)))
        random.shuffle(order)
        ids = plain.update(detections, index / 25)
        shuffled_ids = shuffled.update([detections[i] for i in order], index / 25)
        assert shuffled_ids == [ids[i] for i in order]
        assert len(set(ids)) == len(ids)


@given(scenes)
@settings(max_examples=50, deadline=None)
def test_numbers_appear_without_holes(scene: list) -> None:
    tracker = Tracker(keep_lost_s=0.08)
    known = 0
    for index, frame in enumerate(scene):
        ids = tracker.update([detection(*face) for face in frame], index / 25)
        new = [i for i in ids if i >= known]
        assert sorted(new) == list(range(known, known + len(new)))
        known += len(new)


def panned_frames(shifts: list[float], fps: float = 25) -> list[VideoFrame]:
    """The astronaut at each of the places; NaN is a grey picture without her."""
    frames = []
    for index, shift in enumerate(shifts):
        image = np.full((340, 720, 3), 90, dtype=np.uint8)
        if not np.isnan(shift):
            image[10:330, round(shift) : round(shift) + 320] = ASTRONAUT
        frames.append(VideoFrame(index, index / fps, image))
    return frames


def follow(
    frames: list[VideoFrame], detector: FaceDetector, every_s: float
) -> tuple[list[list[Detection]], int]:
    """The faces of every frame, and how many searches it took."""
    searched = 0

    def count(image: np.ndarray) -> list[Detection]:
        nonlocal searched
        searched += 1
        return detector(image)

    found = list(find_faces(frames, count, every_s))
    assert [frame.index for frame, _ in found] == [frame.index for frame in frames]
    return [faces for _, faces in found], searched


@pytest.mark.parametrize("fps", [5, 25, 240])
def test_steady_face_is_searched_for_a_few_times_a_second(
    detector: FaceDetector, fps: float
) -> None:
    frames = panned_frames([60 + step for step in range(41)], fps)
    found, searched = follow(frames, detector, every_s=0.25)
    expected = {5: 21, 25: 7, 240: 1 + 40 // MAX_WAITING + 1}[fps]
    assert searched == pytest.approx(expected, abs=1)
    for step in range(0, 41, 5):  # as if every frame had been searched
        (face,), (reference,) = found[step], detector(frames[step].image)
        np.testing.assert_allclose(face.landmarks, reference.landmarks, atol=4)
        np.testing.assert_allclose(face.xyxy, reference.xyxy, atol=8)


def test_every_frame_is_searched_on_request(detector: FaceDetector) -> None:
    frames = panned_frames([60 + 3 * step for step in range(6)])
    found, searched = follow(frames, detector, every_s=0)
    assert searched == 6
    for frame, faces in zip(frames, found, strict=True):
        np.testing.assert_array_equal(faces[0].xyxy, detector(frame.image)[0].xyxy)


def test_fast_face_is_searched_for_more_often(detector: FaceDetector) -> None:
    frames = panned_frames([20 * step for step in range(19)])
    found, searched = follow(frames, detector, every_s=0.32)
    assert 5 <= searched <= 19
    for step, faces in enumerate(found):
        (face,) = faces
        assert abs((face.xyxy[0] + face.xyxy[2]) / 2 - 20 * step - FACE_CENTRE[0]) < 15


@pytest.mark.parametrize("cut", [1, 4, 9])
def test_nothing_is_interpolated_over_a_cut(detector: FaceDetector, cut: int) -> None:
    nobody = float("nan")
    frames = panned_frames([100] * cut + [nobody] * (12 - cut))
    found, _ = follow(frames, detector, every_s=0.4)
    assert [len(faces) for faces in found] == [1] * cut + [0] * (12 - cut)
    jump = panned_frames([0] * cut + [380] * (12 - cut))
    centres = [np.mean(faces[0].xyxy[[0, 2]]) for faces in follow(jump, detector, 0.4)[0]]
    expected = FACE_CENTRE[0] + np.array([0] * cut + [380] * (12 - cut))
    np.testing.assert_allclose(centres, expected, atol=15)


def test_large_faces_are_searched_for_in_smaller_pictures(detector: FaceDetector) -> None:
    """None is lost, landmarks hardly move, and a small face that comes later is found in time."""
    sides: list[int] = []

    def measure(image: np.ndarray) -> list[Detection]:
        sides.append(image.shape[1])
        return detector(image)

    frames = panned_frames([60 + step for step in range(60)])
    second = np.ascontiguousarray(ASTRONAUT[::2, ::2])
    for frame in frames[20:]:
        frame.image[20:180, 540:700] = second
    frames = [
        VideoFrame(frame.index, frame.time_s, np.kron(frame.image, np.ones((2, 2, 1), np.uint8)))
        for frame in frames
    ]
    whole = [faces for _, faces in find_faces(frames, detector, 0.25)]
    found = [faces for _, faces in find_faces(frames, measure, 0.25, shrink_to=80)]
    # The whole picture first; of three small ones the last shows one face more, so the whole again.
    assert [side < 1440 for side in sides[:5]] == [False, True, True, True, False]
    for faces, reference in zip(found[:20], whole[:20], strict=True):
        size = np.hypot(*(reference[0].landmarks[1] - reference[0].landmarks[0]))
        assert len(faces) == 1
        assert abs(faces[0].landmarks - reference[0].landmarks).max() < 0.15 * size
    assert all(len(faces) == 2 for faces in found[46:])


def test_no_frames_and_times_that_stand_still(detector: FaceDetector) -> None:
    assert follow([], detector, 0.25) == ([], 0)
    still = [VideoFrame(i, 0.0, f.image) for i, f in enumerate(panned_frames([50] * 20))]
    found, searched = follow(still, detector, 0.25)
    assert all(len(faces) == 1 for faces in found) and searched <= 4
