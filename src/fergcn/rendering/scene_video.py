"""A short video of two persons who show expressions, with the truth beside it."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fergcn.rendering import facs, scene
from fergcn.rendering.draw import View, draw_head
from fergcn.rendering.head import load_head
from fergcn.rendering.identity import make_person
from fergcn.rendering.rasterize import Lighting
from fergcn.video import write_video

WIDTH, HEIGHT, FPS, DURATION_S = 640, 360, 25, 8.0
SUPERSAMPLING = 2
EYE_DISTANCE = 52.0
"""Pixels between the eyes, which makes a face about 150 pixels high."""

EYE_ROW = 196.0
CAMERA_DISTANCE = 16.0
CRF = 24


@dataclass(frozen=True)
class Episode:
    """One expression from the first movement to its end, in seconds."""

    expression: str
    onset_s: float
    apex_start_s: float
    apex_end_s: float
    offset_s: float


@dataclass(frozen=True)
class Actor:
    """One person of the scene."""

    name: str
    subject: int
    column: float
    """Position in pixels."""
    yaw_degrees: float
    episodes: tuple[Episode, ...]


ACTORS = (
    Actor(
        "left", 0, 190.0, 6.0,
        (Episode("happiness", 1.0, 1.8, 2.8, 3.6), Episode("surprise", 4.6, 5.1, 6.2, 7.0)),
    ),
    Actor(
        "right", 1, 450.0, -6.0,
        (Episode("anger", 0.8, 1.6, 2.6, 3.5), Episode("sadness", 4.3, 5.4, 6.4, 7.4)),
    ),
)  # fmt: skip
"""Who is seen: neutral, one expression, neutral, another one, neutral."""

STUDIO = Lighting(
    directions=np.array([(0.45, 0.45, 0.77), (-0.6, 0.1, 0.79)], np.float32),
    colours=np.array([(0.95, 0.9, 0.85), (0.25, 0.27, 0.3)], np.float32),
    ground=np.array((0.25, 0.23, 0.22), np.float32),
    sky=np.array((0.6, 0.62, 0.66), np.float32),
    wrap=0.35,
    shadow_strength=0.6,
)
FOLD_STRENGTH = 8.0
EXPOSURE = 0.9


def render_scene_video(path: Path, seed: int = 0, actors: Sequence[Actor] = ACTORS) -> Path:
    """Render an 8 s video of 640 × 360 pixels at 25 fps, and the truth about it as a table.

    Args:
        path: the video, for example `demo.mp4`.
        seed: chooses the persons and the room.
        actors: who is seen where, and shows what when.

    Returns:
        The table, for example `demo_truth.csv`: one row per frame and face with `frame_index`,
        `time_s`, `face` (the actor's name: left or right), `expression` (neutral where the
        intensity is 0) and `intensity` (0–1).

    Raises:
        FergcnError: `anny` or `numba` is not installed.
    """
    num_frames = round(DURATION_S * FPS)
    write_video(path, _frames(seed, actors, num_frames), FPS, CRF)
    table = path.with_name(f"{path.stem}_truth.csv")
    with table.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["frame_index", "time_s", "face", "expression", "intensity"])
        for index in range(num_frames):
            for actor in actors:
                expression, intensity = _truth(actor, index / FPS)
                row = [index, f"{index / FPS:.2f}", actor.name, expression, f"{intensity:.4f}"]
                writer.writerow(row)
    return table


def _truth(actor: Actor, time_s: float) -> tuple[str, float]:
    """The expression an actor shows, and its intensity."""
    for episode in actor.episodes:
        if (intensity := _intensity(episode, time_s)) > 0:
            return episode.expression, intensity
    return "neutral", 0.0


def _intensity(episode: Episode, time_s: float) -> float:
    """A smooth rise, a hold and a smooth fall."""
    rise = (time_s - episode.onset_s) / (episode.apex_start_s - episode.onset_s)
    fall = (episode.offset_s - time_s) / (episode.offset_s - episode.apex_end_s)
    level = min(max(min(rise, fall), 0.0), 1.0)
    return level * level * (3 - 2 * level)


def _frames(seed: int, actors: Sequence[Actor], num_frames: int) -> Iterator[NDArray[np.uint8]]:
    head = load_head()
    actions = facs.Actions(head.action_names)
    people, values, angles = [], [], []
    for actor in actors:
        rng = np.random.default_rng([seed, actor.subject, 999])
        person = make_person(head, seed, actor.subject)
        movement = person.resting_face + _blinks_and_gaze(actions, num_frames, rng)
        for episode in actor.episodes:
            apex = facs.sample_apex(episode.expression, actions, np.ones(len(actions.names)), rng)
            curve = [_intensity(episode, index / FPS) for index in range(num_frames)]
            movement = movement + np.outer(curve, apex)
        people.append(person)
        values.append(np.clip(movement, 0, facs.MAX_ACTION))
        angles.append(_slow_sway(num_frames, rng) + np.deg2rad((actor.yaw_degrees, 2, 0)))
    room = _room(np.random.default_rng([seed, 999]))
    for index in range(num_frames):
        image = room.copy()
        for actor, person, movement, angle in zip(actors, people, values, angles, strict=True):
            scale = SUPERSAMPLING * EYE_DISTANCE
            matrix = np.array(
                [
                    [scale, 0, SUPERSAMPLING * actor.column],
                    [0, scale, SUPERSAMPLING * EYE_ROW],
                ]
            )
            view = View(angle[index], CAMERA_DISTANCE, matrix)
            draw_head(image, head, person, movement[index], view, STUDIO, FOLD_STRENGTH)
        light = EXPOSURE * cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        levels = np.clip(light, 0, 1) ** np.float32(1 / 2.2)
        yield np.round(255 * levels).astype(np.uint8)


def _room(rng: np.random.Generator) -> NDArray[np.float32]:
    """A blurred, rather dark room, so that the faces stand out."""
    size = (SUPERSAMPLING * WIDTH, SUPERSAMPLING * HEIGHT)
    dark = 0.3 * scene.sample_background(rng) + 0.05
    room = cv2.resize(dark, size, interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(cv2.GaussianBlur(room, (0, 0), 12), dtype=np.float32).clip(0.01, 1)


def _blinks_and_gaze(
    actions: facs.Actions, num_frames: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Everyday movement of one clip's length after the other; the mouth keeps still."""
    pieces = []
    for start in range(0, num_frames, FPS):
        length = min(FPS, num_frames - start)
        pieces.append(facs.sample_gaze_and_blinks(actions, length, rng))
    return np.concatenate(pieces)


def _slow_sway(num_frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Slight movement of the head: three slow waves; `(N, 3)` radians."""
    times = np.arange(num_frames)[:, None] / FPS
    amplitude = np.deg2rad(rng.uniform((2, 1, 1), (5, 2.5, 2)))
    return amplitude * np.sin(2 * np.pi * times / rng.uniform(3, 6, 3) + rng.uniform(0, 6, 3))
