"""Scenes of several people who cross, hide, leave and come back, with the truth beside them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from fergcn.rendering import facs, scene
from fergcn.rendering.draw import View, draw_head, landmarks, pose_head, to_camera, to_plane
from fergcn.rendering.head import load_head
from fergcn.rendering.identity import make_person

WIDTH, HEIGHT, FPS = 640, 360, 25
CAMERA_DISTANCE = 16.0
FOLD_STRENGTH = 8.0
NOISE = 1.5
"""Standard deviation of the camera's noise, of 255."""
GRAIN_SHIFTS = 64
"""One picture of noise is cut out at this many places in each direction: drawing is slow."""
_DISPLAY = 255 * np.linspace(0, 1, 1024, dtype=np.float32) ** np.float32(1 / 2.2)
"""From linear light to a display's levels."""

SceneKind = Literal["cross", "return", "hide", "cut", "mix"]
"""People pass each other; leave and come back elsewhere; pass behind a pillar or look away; a cut
swaps places and sizes; all of it in turn."""
SCENE_KINDS: tuple[SceneKind, ...] = get_args(SceneKind)


@dataclass(frozen=True, eq=False)
class Walk:
    """One person's way through the picture, from its first moment to its last."""

    subject: int
    path: NDArray[np.float64]
    """`(K, 5)`: time in seconds, x and y between the eyes and the distance of the eyes in pixels,
    yaw in degrees; in between it is linear."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Who is where, when."""

    walks: tuple[Walk, ...]
    """A person may have several, one after the other."""
    duration_s: float
    pillars: tuple[tuple[float, float], ...] = ()
    """Left and right edges in pixels of what stands before everybody."""
    cuts_s: tuple[float, ...] = ()
    """Times at which another room is seen."""


@dataclass(frozen=True, eq=False)
class Seen:
    """One person in one frame."""

    subject: int
    landmarks: NDArray[np.float64]
    """`(5, 2)` pixel positions, in the order of `fergcn.faces.align.LANDMARK_TEMPLATE`."""
    visible: float
    """Share of the head's pixels inside the picture that nobody and nothing hides, 0 to 1."""


def sample_scene(kind: SceneKind, rng: np.random.Generator, people: int = 3) -> Scene:
    """Compose a scene.

    Args:
        kind: what happens in it.
        rng: chooses people, places, sizes and speeds.
        people: how many take part, at least two.
    """
    subjects = rng.choice(1000, people, replace=False).tolist()
    if kind != "mix":
        walks, duration_s, pillars, cuts = _PARTS[kind](subjects, rng)
        return Scene(tuple(walks), duration_s, pillars, cuts)
    all_walks: list[Walk] = []
    start_s, all_cuts = 0.0, []
    for part in ("cross", "return", "cut"):
        walks, duration_s, _, cuts = _PARTS[part](subjects, rng)
        shift = np.array([start_s, 0, 0, 0, 0])
        all_walks += [Walk(walk.subject, walk.path + shift) for walk in walks]
        all_cuts += [start_s, *(start_s + cut for cut in cuts)]
        start_s += duration_s
    return Scene(tuple(all_walks), start_s, (), tuple(all_cuts[1:]))


def render_crowd(crowd: Scene, seed: int = 0) -> Iterator[tuple[NDArray[np.uint8], list[Seen]]]:
    """Draw a scene frame by frame, 640 × 360 pixels at 25 fps.

    Args:
        crowd: who is where.
        seed: chooses light, rooms, expressions and noise; people are the same for every seed.

    Yields:
        `(HEIGHT, WIDTH, 3)` RGB, and everybody of whom something is in the picture.

    Raises:
        FergcnError: `anny` or `numba` is not installed.
    """
    head = load_head()
    rng = np.random.default_rng([seed, 998])
    num_frames = round(crowd.duration_s * FPS)
    people = {walk.subject: make_person(head, 0, walk.subject) for walk in crowd.walks}
    actions = facs.Actions(head.action_names)
    movements = {
        subject: person.resting_face + _expressions(actions, num_frames, rng)
        for subject, person in people.items()
    }
    sway = {subject: _sway(num_frames, rng) for subject in people}
    lighting = scene.sample_lighting(rng)
    rooms = [_room(rng) for _ in range(len(crowd.cuts_s) + 1)]
    size = (HEIGHT + GRAIN_SHIFTS, WIDTH + GRAIN_SHIFTS, 3)
    grain = rng.normal(0, NOISE, size).astype(np.float32)
    exposure: float | None = None
    for index in range(num_frames):
        time_s = index / FPS
        image = rooms[sum(time_s >= cut - 1e-9 for cut in crowd.cuts_s)].copy()
        owner = np.full(image.shape[:2], -1)
        drawn: list[tuple[int, NDArray[np.float64], int]] = []
        here = [
            (walk.subject, _place(walk.path, time_s))
            for walk in crowd.walks
            if walk.path[0, 0] - 1e-9 <= time_s < walk.path[-1, 0] - 1e-9
        ]
        for subject, (x, y, size, yaw) in sorted(here, key=lambda item: float(item[1][2])):
            angles = sway[subject][index] + np.array([np.deg2rad(yaw), 0, 0])
            view = View(angles, CAMERA_DISTANCE, np.array([[size, 0, x], [0, size, y]]))
            values = np.clip(movements[subject][index], 0, facs.MAX_ACTION)
            person = people[subject]
            drawing = draw_head(image, head, person, values, view, lighting, FOLD_STRENGTH)
            on_head = drawing.triangle_ids >= 0
            if not on_head.any():
                continue
            owner[on_head] = subject
            points = to_camera(pose_head(head, person, values), angles, CAMERA_DISTANCE)
            marks = landmarks(head, to_plane(points, CAMERA_DISTANCE)).astype(np.float64)
            drawn.append((subject, marks * size + (x, y), int(on_head.sum())))
        for left, right in crowd.pillars:
            image[:, max(0, round(left)) : max(0, round(right))] = (0.05, 0.045, 0.04)
            owner[:, max(0, round(left)) : max(0, round(right))] = -1
        if exposure is None and drawn:
            exposure = scene.auto_exposure(image, owner >= 0)
        seen = [
            Seen(subject, marks, float((owner == subject).sum() / pixels))
            for subject, marks, pixels in drawn
        ]
        top, left = rng.integers(0, GRAIN_SHIFTS, 2).tolist()
        yield _photograph(image, exposure or 1.0, grain, (top, left)), seen


def _place(path: NDArray[np.float64], time_s: float) -> NDArray[np.float64]:
    """`(4,)`: x, y, distance of the eyes, yaw."""
    return np.array([np.interp(time_s, path[:, 0], column) for column in path.T[1:]])


def _cross(
    subjects: list[int], rng: np.random.Generator
) -> tuple[list[Walk], float, tuple[tuple[float, float], ...], tuple[float, ...]]:
    """Everybody walks through the picture and back at a pace of their own; some stand."""
    duration_s = 8.0
    walks = []
    row = rng.uniform(0.4, 0.5) * HEIGHT
    for number, subject in enumerate(subjects):
        size = rng.uniform(22, 46)
        margin = 2 * size
        ends = rng.permutation([rng.uniform(margin, 0.3 * WIDTH), WIDTH - margin])
        if number == len(subjects) - 1 and number > 1:
            ends = np.full(2, rng.uniform(0.35, 0.65) * WIDTH)
        there_s = rng.uniform(2.5, 5.5)
        y = row + rng.uniform(-0.4, 0.4) * size
        times = (0, there_s, there_s + rng.uniform(0, 1), duration_s)
        xs = (ends[0], ends[1], ends[1], ends[0])
        walks.append(Walk(subject, _path(times, xs, y, size, rng.uniform(-12, 12))))
    return walks, duration_s, (), ()


def _return(
    subjects: list[int], rng: np.random.Generator
) -> tuple[list[Walk], float, tuple[tuple[float, float], ...], tuple[float, ...]]:
    """One stays; the others leave the picture and come back from either side, once or twice."""
    walks = [_stay(subjects[0], 0, 10, rng.uniform(0.4, 0.6) * WIDTH, rng)]
    for subject in subjects[1:]:
        size = rng.uniform(22, 42)
        y = rng.uniform(0.35, 0.55) * HEIGHT
        leave_s, away_s = rng.uniform(1.5, 3), rng.uniform(0.4, 4)
        home = rng.choice([0.18, 0.82]) * WIDTH + rng.uniform(-20, 20)
        sides = rng.choice([-2.2 * size, WIDTH + 2.2 * size], 2)
        yaw = rng.uniform(-12, 12)
        out = _path((0, leave_s, leave_s + 1.2), (home, home, sides[0]), y, size, yaw)
        back_s = leave_s + 1.2 + away_s
        new_home = rng.choice([0.2, 0.8]) * WIDTH + rng.uniform(-20, 20)
        back = _path(
            (back_s, back_s + 1.2, 10), (sides[1], new_home, new_home), y, size * 1.1, -yaw
        )
        walks += [Walk(subject, out), Walk(subject, back)]
    return walks, 10.0, (), ()


def _hide(
    subjects: list[int], rng: np.random.Generator
) -> tuple[list[Walk], float, tuple[tuple[float, float], ...], tuple[float, ...]]:
    """People pass behind pillars, and look away for a moment."""
    pillars = tuple(
        (centre * WIDTH - half, centre * WIDTH + half)
        for centre, half in zip((0.35, 0.68), rng.uniform(25, 70, 2), strict=True)
    )
    walks, duration_s, _, _ = _cross(subjects, rng)
    for number, walk in enumerate(walks):
        moment_s = rng.uniform(1, duration_s - 2)
        turned = np.sort(np.append(walk.path[:, 0], moment_s + np.array([0, 0.3, 0.9, 1.2])))
        path = np.column_stack([turned, [_place(walk.path, time_s) for time_s in turned]])
        away = (turned > moment_s + 0.29) & (turned < moment_s + 0.91)
        path[away, 4] += rng.choice([-110, 110])
        walks[number] = Walk(walk.subject, path)
    return walks, duration_s, pillars, ()


def _cut(
    subjects: list[int], rng: np.random.Generator
) -> tuple[list[Walk], float, tuple[tuple[float, float], ...], tuple[float, ...]]:
    """Four shots: people swap places, come closer, and not everybody is in every one."""
    shots = np.concatenate([[0], np.cumsum(rng.uniform(1.5, 2.6, 4))]).round(2)
    walks = []
    for start_s, end_s in pairwise(shots.tolist()):
        shown = rng.permutation(subjects)[: rng.integers(1, len(subjects) + 1)]
        places = (np.arange(len(shown)) + 0.5) / len(shown) * WIDTH
        for subject, x in zip(shown.tolist(), places, strict=True):
            walks.append(_stay(subject, start_s, end_s, x, rng))
    return walks, float(shots[-1]), (), tuple(shots[1:-1].tolist())


_PARTS = {"cross": _cross, "return": _return, "hide": _hide, "cut": _cut}


def _stay(subject: int, start_s: float, end_s: float, x: float, rng: np.random.Generator) -> Walk:
    """Stand in one place, nearly."""
    size, y = rng.uniform(22, 46), rng.uniform(0.4, 0.5) * HEIGHT
    xs = x + rng.uniform(-15, 15, 2)
    return Walk(subject, _path((start_s, end_s), xs, y, size, rng.uniform(-15, 15)))


def _path(
    times: tuple[float, ...], xs: object, y: float, size: float, yaw: float
) -> NDArray[np.float64]:
    rows = np.broadcast_arrays(times, np.asarray(xs, dtype=np.float64), y, size, yaw)
    return np.column_stack(rows).astype(np.float64)


def _expressions(
    actions: facs.Actions, num_frames: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """One expression after the other, some weak, with pauses; `(num_frames, 52)`."""
    values = np.zeros((num_frames, len(actions.names)))
    start = 0
    while start < num_frames:
        length = min(int(rng.integers(FPS, 3 * FPS)), num_frames - start)
        name = str(rng.choice(["anger", "fear", "happiness", "sadness", "surprise"]))
        apex = facs.sample_apex(name, actions, np.ones(len(actions.names)), rng)
        curve = np.sin(np.linspace(0, np.pi, length)) ** 2
        values[start : start + length] = np.outer(curve, rng.uniform(0, 1) * apex)
        start += length
    for start in range(0, num_frames, FPS):
        length = min(FPS, num_frames - start)
        values[start : start + length] += facs.sample_gaze_and_blinks(actions, length, rng)
    return values


def _sway(num_frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Slight movement of the head, `(num_frames, 3)` radians."""
    times = np.arange(num_frames)[:, None] / FPS
    amplitude = np.deg2rad(rng.uniform((3, 1, 1), (10, 4, 4)))
    waves: NDArray[np.float64] = amplitude * np.sin(
        2 * np.pi * times / rng.uniform(2, 6, 3) + rng.uniform(0, 6, 3)
    )
    return waves


def _room(rng: np.random.Generator) -> NDArray[np.float32]:
    """A blurred room."""
    room = cv2.resize(scene.sample_background(rng), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(cv2.GaussianBlur(room, (0, 0), 6), dtype=np.float32).clip(0.01, 1)


def _photograph(
    light: NDArray[np.float32], exposure: float, grain: NDArray[np.float32], corner: tuple[int, int]
) -> NDArray[np.uint8]:
    steps = np.minimum(light * np.float32(1023 * exposure), 1023).astype(np.uint16)
    soft = cv2.GaussianBlur(_DISPLAY[steps], (0, 0), 0.6)
    top, left = corner
    noisy: NDArray[np.float32] = (
        soft + grain[top : top + light.shape[0], left : left + light.shape[1]]
    )
    return np.round(noisy).clip(0, 255).astype(np.uint8)
