"""Draw one head into a picture: pose, projection, visibility, shadow and shading."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from fergcn.rendering.facs import Actions
from fergcn.rendering.head import Head
from fergcn.rendering.identity import Glasses, Person
from fergcn.rendering.rasterize import (
    HAIR,
    LEFT_EYE,
    RIGHT_EYE,
    TEETH_COLOUR,
    UPPER_TEETH,
    Lighting,
    Mesh,
    ShadowMap,
    Surface,
    fold_occlusion,
    shade,
    vertex_normals,
    visible_triangles,
    weighted_sum,
)
from fergcn.rendering.wrinkles import MAX_DARKENING, wrinkle_depths, wrinkle_maps

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

NECK_PIVOT = np.array([0, -0.9, -0.9], np.float32)
"""Point about which a head turns."""

SHADOW_MAP_SIZE = 128
SHADOW_MAP_EXTENT = 4.2
"""Side of the region that can cast shadows, in eye distances."""


MOUTH_OPENING = {"jawOpen": 1.2, "mouthUpperUp": 0.25, "mouthLowerDown": 0.25, "mouthSmile": 0.1}
"""How far actions part the lips, relative to each other."""

HAIR_GAP = 0.35
"""Gaps up to this wide are filled, in eye distances."""


@dataclass(frozen=True)
class View:
    """How a head is seen in one frame."""

    angles: NDArray[np.floating]
    """`(3,)` yaw, pitch and roll in radians."""
    distance: float
    """From the camera to the eyes, in eye distances."""
    matrix: NDArray[np.float64]
    """`(2, 3)` to pixels from the picture plane: eye distances, y down, origin between the eyes."""


@dataclass(frozen=True)
class Drawing:
    """What was drawn, for those who need more than the picture."""

    triangles: Ints
    """`(F, 3)` that were drawn."""
    triangle_ids: Ints
    """`(H, W)` visible triangle, −1 for none."""
    weights: Floats
    """`(H, W, 2)` barycentric weights of the first two corners."""


def pose_head(head: Head, person: Person, action_values: NDArray[np.floating]) -> Floats:
    """Move a person's face.

    Args:
        head: the parametric head.
        person: whose face.
        action_values: `(52,)`.

    Returns:
        `(V, 3)` in the person's eye distances.
    """
    offsets = weighted_sum(action_values.astype(np.float32), head.action_offsets)
    return person.rest + np.float32(person.action_scale) * offsets.reshape(-1, 3)


def to_camera(points: Floats, angles: NDArray[np.floating], distance: float) -> Floats:
    """Turn points about the neck and set them before the camera."""
    turned = (points - NECK_PIVOT) @ _rotation(angles).T + NECK_PIVOT
    turned[:, 2] -= distance
    return np.ascontiguousarray(turned, dtype=np.float32)


def to_plane(camera_points: Floats, distance: float) -> Floats:
    """Project onto the picture plane: `(V, 3)` → `(V, 2)` in eye distances, y down."""
    scale = distance / -camera_points[:, 2]
    return np.stack([camera_points[:, 0] * scale, -camera_points[:, 1] * scale], axis=1)


def landmarks(head: Head, plane_points: Floats) -> Floats:
    """Find the five landmarks among projected vertices.

    Returns:
        `(5, 2)` in the order of `fergcn.faces.align.LANDMARK_TEMPLATE`.
    """
    right_eye, left_eye, _ = _eyes_and_face(head)
    eyes = [plane_points[right_eye].mean(0), plane_points[left_eye].mean(0)]
    return np.concatenate([eyes, plane_points[head.landmark_vertices]]).astype(np.float32)


def draw_head(
    image: Floats,
    head: Head,
    person: Person,
    action_values: NDArray[np.floating],
    view: View,
    lighting: Lighting,
    fold_strength: float,
) -> Drawing:
    """Draw a head over a background.

    Args:
        image: `(H, W, 3)` linear light; it is drawn into.
        head: the parametric head.
        person: whose head.
        action_values: `(52,)`.
        view: where the head is seen.
        lighting: the lights.
        fold_strength: darkening of folds per eye distance of depth.
    """
    triangles, parts = _drawn_triangles(head, person.has_hair_shell)
    positions = to_camera(pose_head(head, person, action_values), view.angles, view.distance)
    plane = to_plane(positions, view.distance)
    pixels = plane @ view.matrix[:, :2].T + view.matrix[:, 2]
    screen = np.column_stack([pixels, -positions[:, 2]]).astype(np.float32)
    height, width = image.shape[:2]
    triangle_ids, _, weights = visible_triangles(screen, triangles, height, width)
    normals = vertex_normals(positions, triangles)
    mesh = Mesh(
        triangles=triangles,
        parts=parts,
        positions=positions,
        normals=normals,
        occlusion=fold_occlusion(positions, triangles, normals, fold_strength),
        rest=head.rest,
        texture_coords=head.texture_coords,
    )
    shadow = _shadow_map(head, positions, triangles, lighting)
    surface = _surface(head, person, action_values)
    shade(triangle_ids, weights, mesh, surface, lighting, shadow, image)
    if person.has_hair_shell:
        _fill_hair_gaps(image, triangle_ids, parts, view)
    if person.glasses is not None:
        _draw_glasses(image, person.glasses, view)
    return Drawing(triangles, triangle_ids, weights)


def _rotation(angles: NDArray[np.floating]) -> Floats:
    """Yaw, then pitch, then roll."""
    (sin_yaw, sin_pitch, sin_roll), (cos_yaw, cos_pitch, cos_roll) = np.sin(angles), np.cos(angles)
    yaw = np.array([[cos_yaw, 0, sin_yaw], [0, 1, 0], [-sin_yaw, 0, cos_yaw]])
    pitch = np.array([[1, 0, 0], [0, cos_pitch, -sin_pitch], [0, sin_pitch, cos_pitch]])
    roll = np.array([[cos_roll, -sin_roll, 0], [sin_roll, cos_roll, 0], [0, 0, 1]])
    rotation: Floats = (roll @ pitch @ yaw).astype(np.float32)
    return rotation


@cache
def _drawn_triangles(head: Head, with_hair_shell: bool) -> tuple[Ints, Ints]:
    count = len(head.parts) if with_hair_shell else int((head.parts != HAIR).sum())
    return np.ascontiguousarray(head.triangles[:count]), np.ascontiguousarray(head.parts[:count])


@cache
def _eyes_and_face(
    head: Head,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Vertices of the right eye, the left eye and the face."""
    x, y, z = head.rest.T
    face = np.flatnonzero((np.abs(x) < 1) & (z > -0.3) & (y > -1.8) & (y < 1))
    return head.part_vertices(RIGHT_EYE), head.part_vertices(LEFT_EYE), face


@cache
def _eye_centres_and_teeth(head: Head) -> tuple[Floats, Floats]:
    right_eye, left_eye, _ = _eyes_and_face(head)
    centres = np.stack([head.rest[left_eye].mean(0), head.rest[right_eye].mean(0)])
    teeth_z = head.rest[head.part_vertices(UPPER_TEETH), 2]
    return centres.astype(np.float32), np.array([teeth_z.min(), teeth_z.max()], np.float32)


def _surface(head: Head, person: Person, action_values: NDArray[np.floating]) -> Surface:
    depths = wrinkle_depths(action_values, head.action_names) * person.wrinkle_strength
    darkness: Floats = (0.55 * (depths + person.age_wrinkles)).astype(np.float32)
    maps = wrinkle_maps(head)
    darkening = weighted_sum(darkness, maps.reshape(len(maps), -1)).reshape(maps.shape[1:])
    eye_centres, teeth_depth = _eye_centres_and_teeth(head)
    palette = person.palette.copy()
    palette[TEETH_COLOUR] *= _light_on_teeth(head, action_values, "teeth" in person.looks)
    return Surface(
        texture=person.texture,
        wrinkles=(1 - np.minimum(darkening, MAX_DARKENING)).astype(np.float32),
        palette=palette,
        eye_centres=eye_centres,
        iris_radius=person.iris_radius,
        teeth_depth=teeth_depth,
        specular=person.specular,
        shininess=person.shininess,
    )


def _light_on_teeth(
    head: Head, action_values: NDArray[np.floating], brighter: bool = False
) -> float:
    """Teeth behind hardly parted lips lie in the dark: 0.2 to 1, by how open the mouth is."""
    openness = float(_mouth_opening(head.action_names) @ action_values)
    if brighter:
        return 1.15 * (0.35 + 0.65 * min(openness / 0.25, 1.0))
    return 0.2 + 0.8 * min(openness / 0.4, 1.0)


@cache
def _mouth_opening(action_names: tuple[str, ...]) -> NDArray[np.float64]:
    return Actions(action_names).vector(MOUTH_OPENING)


def _shadow_map(head: Head, positions: Floats, triangles: Ints, lighting: Lighting) -> ShadowMap:
    """See the head from the first light."""
    size = SHADOW_MAP_SIZE
    scale = size / SHADOW_MAP_EXTENT
    away = -lighting.directions[0]
    right = np.cross((0, 1, 0), away)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(away, right), away]).astype(np.float32)
    in_light = positions @ rotation.T
    centre = in_light[_eyes_and_face(head)[2], :2].mean(0)
    corner = (centre - SHADOW_MAP_EXTENT / 2).astype(np.float32)
    if lighting.shadow_strength > 0:
        pixels = np.column_stack([(in_light[:, :2] - corner) * scale, in_light[:, 2]])
        _, depth, _ = visible_triangles(pixels.astype(np.float32), triangles, size, size)
    else:
        depth = np.full((size, size), 1e9, np.float32)
    return ShadowMap(depth, rotation, corner, scale)


def _fill_hair_gaps(image: Floats, triangle_ids: Ints, parts: Ints, view: View) -> None:
    """Paint hair where the background would shine through between strips of the hair shell."""
    on_head = triangle_ids >= 0
    hair = on_head & (parts[triangle_ids] == HAIR)
    if not hair.any():
        return
    width = max(3, round(HAIR_GAP * _pixels_per_eye_distance(view)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    closed = cv2.morphologyEx(on_head.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    near_hair = cv2.dilate(hair.astype(np.uint8), kernel)
    gaps = ~on_head & (closed > 0) & (near_hair > 0)
    image[gaps] = 0.8 * np.median(image[hair], axis=0)


def _pixels_per_eye_distance(view: View) -> float:
    return float(np.hypot(view.matrix[0, 0], view.matrix[1, 0]))


def _draw_glasses(image: Floats, glasses: Glasses, view: View) -> None:
    """Draw two frames and the bridge as lines."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    power = 2 / glasses.roundness
    x = glasses.half_width * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    y = glasses.half_height * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power - 0.04
    lines = [(np.column_stack([x + side * 0.53, y, np.full(24, 0.42)]), True) for side in (-1, 1)]
    inner = 0.53 - glasses.half_width
    lines.append((np.array([(-inner, 0, 0.44), (inner, 0, 0.44)]), False))
    thickness = max(1, round(glasses.thickness * _pixels_per_eye_distance(view)))
    for points, closed in lines:
        positions = to_camera(points.astype(np.float32), view.angles, view.distance)
        pixels = to_plane(positions, view.distance) @ view.matrix[:, :2].T + view.matrix[:, 2]
        sixteenths = np.round(pixels * 16).astype(np.int32)  # OpenCV's sub-pixel positions
        colour = glasses.colour.tolist()
        cv2.polylines(image, [sixteenths], closed, colour, thickness, cv2.LINE_AA, 4)
