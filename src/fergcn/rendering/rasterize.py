"""Compiled kernels: which triangle each pixel sees, and what colour it has.

One thread, no graphics card, the same bytes on every run. Positions are in camera space: the camera
sits at the origin and looks along −z; lengths are in eye distances, colours are linear light.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fergcn.expressions import FergcnError

try:
    from numba import njit
except ImportError:
    raise FergcnError(
        "found no numba, which draws the rendered faces: run pip install 'fergcn[render]'"
    ) from None

Function = TypeVar("Function", bound=Callable[..., Any])
OPTIONS: dict[str, Any] = {"cache": True, "fastmath": True, "error_model": "numpy"}


def _compiled(function: Function) -> Function:
    """Compile a function, once per machine."""
    compiled: Function = njit(**OPTIONS)(function)
    return compiled


def _inlined(function: Function) -> Function:
    """Compile a small function into its callers; calling it would double the time of a frame."""
    inlined: Function = njit(inline="always", **OPTIONS)(function)
    return inlined


Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Triple = tuple[float, float, float]

SKIN, LEFT_EYE, RIGHT_EYE, UPPER_TEETH, LOWER_TEETH, TONGUE, HAIR, MOUTH_CAVITY = range(8)
"""What a triangle is made of; left and right are the subject's."""

(
    SCLERA_COLOUR,
    IRIS_COLOUR,
    PUPIL_COLOUR,
    TEETH_COLOUR,
    TONGUE_COLOUR,
    HAIR_COLOUR,
    CAVITY_COLOUR,
) = range(7)
"""Rows of the palette of everything that is not skin."""

TEXTURE_SPECULAR, TEXTURE_OCCLUSION = 3, 4
"""Channels of the skin texture after its colour."""


class Mesh(NamedTuple):
    """The head of one frame."""

    triangles: Ints
    """`(F, 3)` vertex indices."""
    parts: Ints
    """`(F,)` `SKIN`, `LEFT_EYE`, …"""
    positions: Floats
    """`(V, 3)` in camera space."""
    normals: Floats
    """`(V, 3)` of unit length."""
    occlusion: Floats
    """`(V,)` how much of the surrounding light arrives: low in a fold, about 1 on a plane."""
    rest: Floats
    """`(V, 3)` the average head: where on a head a point is, whoever's head it is."""
    texture_coords: Floats
    """`(V, 2)` column and row in the texture, 0–1."""


class Surface(NamedTuple):
    """What one person's surfaces look like."""

    texture: Floats
    """`(T, T, 5)` skin: red, green, blue, specular factor, occlusion."""
    wrinkles: Floats
    """`(T, T)` factor on the skin colour, 1 where the skin is smooth."""
    palette: Floats
    """`(7, 3)` colours of eyes, teeth, tongue, hair and mouth cavity."""
    eye_centres: Floats
    """`(2, 3)` of the average head, left eye first."""
    iris_radius: float
    """Sine of the angle from the eye's axis to the rim of the iris."""
    teeth_depth: Floats
    """`(2,)` z of the hindmost and of the foremost tooth of the average head."""
    specular: float
    shininess: float


class Lighting(NamedTuple):
    """Lights of a scene; the first one casts shadows."""

    directions: Floats
    """`(L, 3)` unit vectors towards the lights."""
    colours: Floats
    """`(L, 3)`."""
    ground: Floats
    """`(3,)` light from below."""
    sky: Floats
    """`(3,)` light from above."""
    wrap: float
    """How far light reaches around the edge of a lit side: skin scatters light."""
    shadow_strength: float
    """0: no cast shadows, 1: shadows without any of the first light."""


class ShadowMap(NamedTuple):
    """The scene seen from the first light."""

    depth: Floats
    """`(Q, Q)`."""
    rotation: Floats
    """`(3, 3)` camera space to light space."""
    corner: Floats
    """`(2,)` of the map, in light space."""
    scale: float
    """Map pixels per eye distance."""


SHADOW_BIAS = 0.06
"""Depth by which a point must lie behind another to be in its shadow, in eye distances."""

PUPIL_OF_IRIS = 0.42
"""Radius of the pupil, as a part of the iris radius."""


@_compiled
def rasterize(
    points: Floats, triangles: Ints, triangle_ids: Ints, depth: Floats, weights: Floats
) -> None:
    """Find the nearest triangle at each pixel centre (z-buffer).

    Args:
        points: `(V, 3)` column, row and distance of each vertex.
        triangles: `(F, 3)`.
        triangle_ids: `(H, W)`, filled with −1 by the caller; receives the visible triangle.
        depth: `(H, W)`, filled with a large number by the caller; receives the distance.
        weights: `(H, W, 2)`; receives the barycentric weights of the first two corners.
    """
    height, width = triangle_ids.shape
    for triangle in range(triangles.shape[0]):
        a, b, c = triangles[triangle, 0], triangles[triangle, 1], triangles[triangle, 2]
        ax, ay, bx, by = points[a, 0], points[a, 1], points[b, 0], points[b, 1]
        cx, cy = points[c, 0], points[c, 1]
        doubled_area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy)
        if abs(doubled_area) < 1e-9:
            continue
        left = max(int(np.ceil(min(ax, bx, cx))), 0)
        right = min(int(np.floor(max(ax, bx, cx))), width - 1)
        top = max(int(np.ceil(min(ay, by, cy))), 0)
        bottom = min(int(np.floor(max(ay, by, cy))), height - 1)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                wa = ((by - cy) * (x - cx) + (cx - bx) * (y - cy)) / doubled_area
                wb = ((cy - ay) * (x - cx) + (ax - cx) * (y - cy)) / doubled_area
                wc = 1.0 - wa - wb
                if wa < -1e-5 or wb < -1e-5 or wc < -1e-5:
                    continue
                distance = wa * points[a, 2] + wb * points[b, 2] + wc * points[c, 2]
                if distance < depth[y, x]:
                    depth[y, x] = distance
                    triangle_ids[y, x] = triangle
                    weights[y, x, 0] = wa
                    weights[y, x, 1] = wb


@_compiled
def weighted_sum(weights: Floats, rows: NDArray[Any]) -> Floats:
    """Add rows up; zero weights cost nothing, and the order of additions is always the same.

    Args:
        weights: `(K,)`.
        rows: `(K, M)`.

    Returns:
        `(M,)`.
    """
    total = np.zeros(rows.shape[1], np.float32)
    for row in range(rows.shape[0]):
        weight = weights[row]
        if weight != 0.0:
            for column in range(rows.shape[1]):
                total[column] += weight * rows[row, column]
    return total


@_compiled
def vertex_normals(positions: Floats, triangles: Ints) -> Floats:
    """Average the triangles' normals at each vertex, weighted by area.

    Returns:
        `(V, 3)` of unit length; zero where no triangle meets.
    """
    normals = np.zeros_like(positions)
    for triangle in range(triangles.shape[0]):
        a, b, c = triangles[triangle, 0], triangles[triangle, 1], triangles[triangle, 2]
        ux = positions[b, 0] - positions[a, 0]
        uy = positions[b, 1] - positions[a, 1]
        uz = positions[b, 2] - positions[a, 2]
        vx = positions[c, 0] - positions[a, 0]
        vy = positions[c, 1] - positions[a, 1]
        vz = positions[c, 2] - positions[a, 2]
        for corner in (a, b, c):
            normals[corner, 0] += uy * vz - uz * vy
            normals[corner, 1] += uz * vx - ux * vz
            normals[corner, 2] += ux * vy - uy * vx
    for vertex in range(normals.shape[0]):
        x, y, z = normals[vertex, 0], normals[vertex, 1], normals[vertex, 2]
        length = np.sqrt(x * x + y * y + z * z) + 1e-12
        normals[vertex, 0] = x / length
        normals[vertex, 1] = y / length
        normals[vertex, 2] = z / length
    return normals


@_compiled
def fold_occlusion(positions: Floats, triangles: Ints, normals: Floats, strength: float) -> Floats:
    """Estimate how open each vertex is from how far its neighbours rise above it.

    Args:
        positions: `(V, 3)`.
        triangles: `(F, 3)`.
        normals: `(V, 3)`.
        strength: darkening per eye distance of rise.

    Returns:
        `(V,)`, 0.35 in a deep fold to 1.12 on a ridge.
    """
    neighbour_sum = np.zeros_like(positions)
    count = np.zeros(positions.shape[0], np.int32)
    for triangle in range(triangles.shape[0]):
        for corner in range(3):
            a, b = triangles[triangle, corner], triangles[triangle, (corner + 1) % 3]
            for axis in range(3):
                neighbour_sum[a, axis] += positions[b, axis]
                neighbour_sum[b, axis] += positions[a, axis]
            count[a] += 1
            count[b] += 1
    occlusion = np.ones(positions.shape[0], np.float32)
    for vertex in range(positions.shape[0]):
        if count[vertex] > 0:
            rise = 0.0
            for axis in range(3):
                mean = neighbour_sum[vertex, axis] / count[vertex]
                rise += (mean - positions[vertex, axis]) * normals[vertex, axis]
            occlusion[vertex] = min(max(1.0 - strength * rise, 0.35), 1.12)
    return occlusion


@_compiled
def shade(
    triangle_ids: Ints,
    weights: Floats,
    mesh: Mesh,
    surface: Surface,
    lighting: Lighting,
    shadow: ShadowMap,
    image: Floats,
) -> None:
    """Colour every pixel that sees the head; the others keep the background.

    Args:
        triangle_ids: `(H, W)` from `rasterize`.
        weights: `(H, W, 2)` from `rasterize`.
        mesh: the head.
        surface: the person's colours.
        lighting: the lights.
        shadow: what the first light sees.
        image: `(H, W, 3)` background in linear light; the head is written over it.
    """
    for y in range(triangle_ids.shape[0]):
        for x in range(triangle_ids.shape[1]):
            triangle = triangle_ids[y, x]
            if triangle < 0:
                continue
            wa, wb = weights[y, x, 0], weights[y, x, 1]
            corners = (
                mesh.triangles[triangle, 0],
                mesh.triangles[triangle, 1],
                mesh.triangles[triangle, 2],
            )
            blend = (wa, wb, 1.0 - wa - wb)
            position = _interpolate(mesh.positions, corners, blend)
            to_camera = _unit((-position[0], -position[1], -position[2]))
            normal = _unit(_interpolate(mesh.normals, corners, blend))
            if _dot(normal, to_camera) < 0.0:
                normal = (-normal[0], -normal[1], -normal[2])
            part = mesh.parts[triangle]
            rest = _interpolate(mesh.rest, corners, blend)
            if part == SKIN:
                colour, occlusion, specular = _skin(mesh, surface, corners, blend)
                shininess = surface.shininess
            elif part in (LEFT_EYE, RIGHT_EYE):
                colour = _eye(surface, rest, part - LEFT_EYE)
                occlusion, specular, shininess = 0.52, 1.2, 90.0
            elif part in (UPPER_TEETH, LOWER_TEETH):
                colour = _teeth(surface, rest)
                occlusion, specular, shininess = 0.6, 0.15, 30.0
            elif part == TONGUE:
                colour = _palette(surface, TONGUE_COLOUR)
                occlusion, specular, shininess = 0.22, 0.1, 20.0
            elif part == HAIR:
                colour = _palette(surface, HAIR_COLOUR)
                occlusion, specular, shininess = 1.0, 0.1, 15.0
            else:
                colour = _palette(surface, CAVITY_COLOUR)
                occlusion, specular, shininess = 0.6, 0.0, 1.0
            light, highlight = _light(
                lighting, shadow, position, normal, to_camera, occlusion, shininess, part == SKIN
            )
            image[y, x, 0] = colour[0] * light[0] + specular * highlight[0]
            image[y, x, 1] = colour[1] * light[1] + specular * highlight[1]
            image[y, x, 2] = colour[2] * light[2] + specular * highlight[2]


@_inlined
def _interpolate(values: Floats, corners: tuple[int, int, int], blend: Triple) -> Triple:
    a, b, c = corners
    wa, wb, wc = blend
    return (
        wa * values[a, 0] + wb * values[b, 0] + wc * values[c, 0],
        wa * values[a, 1] + wb * values[b, 1] + wc * values[c, 1],
        wa * values[a, 2] + wb * values[b, 2] + wc * values[c, 2],
    )


@_inlined
def _dot(u: Triple, v: Triple) -> float:
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


@_inlined
def _unit(v: Triple) -> Triple:
    length: float = np.sqrt(_dot(v, v)) + 1e-9
    return (v[0] / length, v[1] / length, v[2] / length)


@_inlined
def _palette(surface: Surface, row: int) -> Triple:
    return (surface.palette[row, 0], surface.palette[row, 1], surface.palette[row, 2])


@_inlined
def _scaled(colour: Triple, factor: float) -> Triple:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


@_inlined
def _skin(
    mesh: Mesh, surface: Surface, corners: tuple[int, int, int], blend: Triple
) -> tuple[Triple, float, float]:
    """Look the skin up in the texture (bilinear): colour, occlusion and specular factor."""
    size = surface.texture.shape[0]
    a, b, c = corners
    coords = mesh.texture_coords
    column = blend[0] * coords[a, 0] + blend[1] * coords[b, 0] + blend[2] * coords[c, 0]
    row = blend[0] * coords[a, 1] + blend[1] * coords[b, 1] + blend[2] * coords[c, 1]
    column = min(max(column * (size - 1), 0.0), size - 1.001)
    row = min(max(row * (size - 1), 0.0), size - 1.001)
    i, j = int(row), int(column)
    down, right = row - i, column - j
    w00, w01 = (1 - down) * (1 - right), (1 - down) * right
    w10, w11 = down * (1 - right), down * right
    texture, wrinkles = surface.texture, surface.wrinkles
    wrinkle = (
        w00 * wrinkles[i, j]
        + w01 * wrinkles[i, j + 1]
        + w10 * wrinkles[i + 1, j]
        + w11 * wrinkles[i + 1, j + 1]
    )
    colour = (
        wrinkle * _bilinear(texture, i, j, w00, w01, w10, w11, 0),
        wrinkle * _bilinear(texture, i, j, w00, w01, w10, w11, 1),
        wrinkle * _bilinear(texture, i, j, w00, w01, w10, w11, 2),
    )
    specular = surface.specular * _bilinear(texture, i, j, w00, w01, w10, w11, TEXTURE_SPECULAR)
    fold = (
        blend[0] * mesh.occlusion[a] + blend[1] * mesh.occlusion[b] + blend[2] * mesh.occlusion[c]
    )
    return colour, fold * _bilinear(texture, i, j, w00, w01, w10, w11, TEXTURE_OCCLUSION), specular


@_inlined
def _bilinear(
    texture: Floats, i: int, j: int, w00: float, w01: float, w10: float, w11: float, channel: int
) -> float:
    value: float = (
        w00 * texture[i, j, channel]
        + w01 * texture[i, j + 1, channel]
        + w10 * texture[i + 1, j, channel]
        + w11 * texture[i + 1, j + 1, channel]
    )
    return value


@_inlined
def _eye(surface: Surface, rest: Triple, eye: int) -> Triple:
    """Colour of the eyeball: pupil, iris with a dark rim, sclera that darkens towards the lids."""
    x = rest[0] - surface.eye_centres[eye, 0]
    y = rest[1] - surface.eye_centres[eye, 1]
    z = rest[2] - surface.eye_centres[eye, 2]
    from_axis = np.sqrt(x * x + y * y) / (np.sqrt(x * x + y * y + z * z) + 1e-9)
    if z < 0.0:
        from_axis = 1.0
    pupil_radius = PUPIL_OF_IRIS * surface.iris_radius
    if from_axis < pupil_radius:
        return _palette(surface, PUPIL_COLOUR)
    if from_axis < surface.iris_radius:
        outwards = (from_axis - pupil_radius) / (surface.iris_radius - pupil_radius)
        return _scaled(_palette(surface, IRIS_COLOUR), 1.1 - 0.55 * outwards**3)
    rim = min(max((from_axis - 0.5) / 0.5, 0.0), 1.0)
    return _scaled(_palette(surface, SCLERA_COLOUR), 1.0 - 0.45 * rim)


@_inlined
def _teeth(surface: Surface, rest: Triple) -> Triple:
    """Colour of the teeth: the back ones lie in the dark, and a gap parts each from the next."""
    back, front = surface.teeth_depth[0], surface.teeth_depth[1]
    forward = min(max((rest[2] - back) / (front - back), 0.0), 1.0)
    gap = 1.0 - 0.25 * max(0.0, np.cos(rest[0] * 55.0)) ** 6
    return _scaled(_palette(surface, TEETH_COLOUR), (0.08 + 0.92 * forward**2) * gap)


@_inlined
def _shadow_visibility(shadow: ShadowMap, position: Triple) -> float:
    """Share of a 3×3 neighbourhood of the shadow map in which the point sees the light."""
    rotation, size = shadow.rotation, shadow.depth.shape[0]
    px, py, pz = position
    column = (
        rotation[0, 0] * px + rotation[0, 1] * py + rotation[0, 2] * pz - shadow.corner[0]
    ) * shadow.scale
    row = (
        rotation[1, 0] * px + rotation[1, 1] * py + rotation[1, 2] * pz - shadow.corner[1]
    ) * shadow.scale
    depth = rotation[2, 0] * px + rotation[2, 1] * py + rotation[2, 2] * pz
    lit = 0
    for down in range(-1, 2):
        for right in range(-1, 2):
            i, j = int(row + down + 0.5), int(column + right + 0.5)
            outside = i < 0 or j < 0 or i >= size or j >= size
            if outside or depth <= shadow.depth[i, j] + SHADOW_BIAS:
                lit += 1
    return lit / 9.0


@_inlined
def _light(
    lighting: Lighting,
    shadow: ShadowMap,
    position: Triple,
    normal: Triple,
    to_camera: Triple,
    occlusion: float,
    shininess: float,
    is_skin: bool,
) -> tuple[Triple, Triple]:
    """Light that a surface scatters, and the highlights it mirrors (Blinn–Phong)."""
    up = 0.5 + 0.5 * normal[1]
    red = (lighting.ground[0] * (1 - up) + lighting.sky[0] * up) * occlusion
    green = (lighting.ground[1] * (1 - up) + lighting.sky[1] * up) * occlusion
    blue = (lighting.ground[2] * (1 - up) + lighting.sky[2] * up) * occlusion
    shine_red, shine_green, shine_blue = 0.0, 0.0, 0.0
    for index in range(lighting.directions.shape[0]):
        direction = (
            lighting.directions[index, 0],
            lighting.directions[index, 1],
            lighting.directions[index, 2],
        )
        facing = _dot(normal, direction)
        visible = 1.0
        if index == 0 and lighting.shadow_strength > 0.0:
            visible -= lighting.shadow_strength * (1.0 - _shadow_visibility(shadow, position))
        wrap = lighting.wrap
        # red light travels farthest inside skin, so it reaches farthest around a shadow's edge
        wrap_green, wrap_blue = (0.7 * wrap, 0.55 * wrap) if is_skin else (wrap, wrap)
        openness = visible * (0.45 + 0.55 * occlusion)
        red += lighting.colours[index, 0] * openness * max((facing + wrap) / (1 + wrap), 0.0)
        green += (
            lighting.colours[index, 1]
            * openness
            * max((facing + wrap_green) / (1 + wrap_green), 0.0)
        )
        blue += (
            lighting.colours[index, 2] * openness * max((facing + wrap_blue) / (1 + wrap_blue), 0.0)
        )
        if facing > 0.0:
            halfway = _unit(
                (
                    direction[0] + to_camera[0],
                    direction[1] + to_camera[1],
                    direction[2] + to_camera[2],
                )
            )
            shine = max(_dot(normal, halfway), 0.0) ** shininess * visible * occlusion
            shine_red += lighting.colours[index, 0] * shine
            shine_green += lighting.colours[index, 1] * shine
            shine_blue += lighting.colours[index, 2] * shine
    return (red, green, blue), (shine_red, shine_green, shine_blue)


def visible_triangles(
    points: Floats, triangles: Ints, height: int, width: int
) -> tuple[Ints, Floats, Floats]:
    """Run `rasterize` on fresh buffers.

    Args:
        points: `(V, 3)` column, row and distance of each vertex.
        triangles: `(F, 3)`.
        height: rows of the picture.
        width: columns of the picture.

    Returns:
        `(H, W)` triangle indices with −1 for none, `(H, W)` distances, `(H, W, 2)` weights.
    """
    triangle_ids = np.full((height, width), -1, np.int32)
    depth = np.full((height, width), 1e9, np.float32)
    weights = np.zeros((height, width, 2), np.float32)
    rasterize(points, triangles, triangle_ids, depth, weights)
    return triangle_ids, depth, weights


def interpolate_at_pixels(
    values: NDArray[Any], triangles: Ints, triangle_ids: Ints, weights: Floats
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Carry values from the vertices to the pixels.

    Args:
        values: `(V, …)` one value or vector per vertex.
        triangles: `(F, 3)`.
        triangle_ids: `(H, W)` from `rasterize`.
        weights: `(H, W, 2)` from `rasterize`.

    Returns:
        `(H, W, …)` values, zero where no triangle is seen, and `(H, W)` where one is.
    """
    covered = triangle_ids >= 0
    corner_weights = np.concatenate([weights, 1 - weights.sum(-1, keepdims=True)], -1)[covered]
    at_corners = values[triangles[triangle_ids[covered]]]
    out = np.zeros(triangle_ids.shape + values.shape[1:], np.float32)
    out[covered] = np.einsum("pc,pc...->p...", corner_weights, at_corners)
    return out, covered
