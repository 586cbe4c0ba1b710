"""What a face looks like, in few numbers, so that it is known again within one video."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from fergcn.faces.align import align_face, similarity_transform
from fergcn.faces.recognition import RECOGNIZED_SIDE, face_vectors

FACE_SIDE = 64
"""Side of the aligned face in pixels; eyes are 22 pixels apart, as in the smallest faces found."""
ABOVE, BELOW = 24, 24
"""Rows over and under it: hair and clothes."""
CELLS = 6
"""Cells along each side of the face, in each of which patterns are counted."""
RADIUS = 2
"""A pixel is compared with its eight neighbours at this distance."""
COLOUR_COLUMNS, COLOUR_ROWS = 4, 7
"""Cells of 16 × 16 pixels whose mean colour is kept."""
SHARE = 0.5
"""Share of the cells, those that differ least, that decide: the others may be hidden."""
TEXTURE_SCALE, COLOUR_SCALE = 0.36, 7.8
"""Medians of the differences between two people in pictures from the news."""
COLOUR_WEIGHT = 0.5
"""Light changes colours more than texture."""


MAX_COMPARED = 4
"""Looks of one person with which a face is compared by its vector."""
VECTOR_SCALE, VECTOR_WEIGHT = 0.5, 0.7
"""Distance of two vectors that counts as a difference of looks of 1, and how much it counts."""


@dataclass(eq=False)
class Look:
    """One face in one picture."""

    texture: NDArray[np.float32]
    """`(CELLS², 59)` square roots of how often each uniform local binary pattern occurs in each
    cell (Ojala et al. 2002; Ahonen et al. 2006), rows of length 1. Light hardly changes it."""
    colour: NDArray[np.float32]
    """`(COLOUR_ROWS · COLOUR_COLUMNS, 3)` mean colour of hair, face and clothes, Lab."""
    face: NDArray[np.uint8] | None
    """`(150, 150, 3)` RGB, aligned, until its vector is known."""

    @cached_property
    def vector(self) -> NDArray[np.float32]:
        """`(128,)`, what dlib's network says of the face: takes milliseconds, so only on demand."""
        assert self.face is not None
        vector: NDArray[np.float32] = face_vectors(self.face[None])[0]
        self.face = None
        return vector


def look_of(image: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> Look | None:
    """Describe a face.

    Args:
        image: `(H, W, 3)` RGB.
        landmarks: `(5, 2)` pixel positions, in the order of `fergcn.faces.align.LANDMARK_TEMPLATE`.

    Returns:
        Its look; `None` if the face lies outside the picture.
    """
    patch = _cut_out(image, landmarks)
    if patch is None:
        return None
    grey = cv2.cvtColor(patch[ABOVE : ABOVE + FACE_SIDE], cv2.COLOR_RGB2GRAY)
    grey = cv2.GaussianBlur(grey, (0, 0), 1)  # a face far away is compared with the same one near
    codes = np.zeros((_INNER, _INNER), dtype=np.uint8)
    middle = grey[RADIUS:-RADIUS, RADIUS:-RADIUS]
    for bit, (row, column) in enumerate(RADIUS * np.array(_NEIGHBOURS)):
        neighbour = grey[row : row + _INNER, column : column + _INNER]
        codes |= (neighbour >= middle).view(np.uint8) << np.uint8(bit)
    counts = np.bincount((_CELL_START + _PATTERN[codes]).ravel(), minlength=CELLS * CELLS * 59)
    counts = counts.reshape(-1, 59)
    texture = np.sqrt(counts / counts.sum(axis=1, keepdims=True))
    means = cv2.resize(patch, (COLOUR_COLUMNS, COLOUR_ROWS), interpolation=cv2.INTER_AREA)
    colour = cv2.cvtColor(means.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    face = align_face(image, landmarks, RECOGNIZED_SIDE)
    return Look(texture.astype(np.float32), colour.astype(np.float32, copy=False), face)


def look_difference(look: Look, known: Sequence[Look]) -> float:
    """How different a face looks from the most similar one of several looks of another.

    Returns:
        0 for the same picture, about 1.5 for two people; 0 if there is nothing to compare with.
    """
    if not known:
        return 0.0
    return float(_differences(look, known).min())


def person_difference(look: Look, known: Sequence[Look]) -> float:
    """Tell more of the same with vectors: `look_difference` takes half hidden faces for one.

    Slower, a few milliseconds for each look that was not compared before.

    Returns:
        0 for the same picture, about 1.3 for two people; 0 if there is nothing to compare with.
    """
    if not known:
        return 0.0
    differences = _differences(look, known)
    nearest = np.argsort(differences)[:MAX_COMPARED]
    distances = [np.linalg.norm(known[position].vector - look.vector) for position in nearest]
    by_vector = float(min(distances)) / VECTOR_SCALE
    return (1 - VECTOR_WEIGHT) * float(differences.min()) + VECTOR_WEIGHT * by_vector


def _differences(look: Look, known: Sequence[Look]) -> NDArray[np.float64]:
    """From each known look, `(K,)`."""
    textures = np.stack([other.texture for other in known])  # (K, CELLS², 59)
    colours = np.stack([other.colour for other in known])
    texture = 1 - np.einsum("kcp,cp->kc", textures, look.texture)
    colour = np.linalg.norm(colours - look.colour, axis=2)
    difference = (
        _mean_of_smallest(texture) / TEXTURE_SCALE
        + COLOUR_WEIGHT * _mean_of_smallest(colour) / COLOUR_SCALE
    )
    return np.asarray(difference, dtype=np.float64)


def _mean_of_smallest(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """`(K, cells)` → `(K,)`."""
    number = round(SHARE * values.shape[1])
    smallest: NDArray[np.float32] = np.partition(values, number, axis=1)[:, :number]
    mean: NDArray[np.float32] = smallest.mean(axis=1)
    return mean


def _cut_out(image: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.uint8] | None:
    """The face with hair and clothes, aligned, `(ABOVE + FACE_SIDE + BELOW, FACE_SIDE, 3)`."""
    matrix = similarity_transform(landmarks, FACE_SIDE)
    matrix[1, 2] += ABOVE
    width, height = FACE_SIDE, ABOVE + FACE_SIDE + BELOW
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    # Only what is needed of the picture is shrunk, so that a large face costs little.
    back = cv2.invertAffineTransform(matrix)
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)])
    corners = corners @ back[:, :2].T + back[:, 2]
    size = np.array(image.shape[1::-1])
    left, top = np.clip(np.floor(corners.min(axis=0)) - 2, 0, size).astype(int).tolist()
    right, bottom = np.clip(np.ceil(corners.max(axis=0)) + 2, 0, size).astype(int).tolist()
    part = image[top:bottom, left:right]
    if not part.size:
        return None
    matrix[:, 2] += matrix[:, :2] @ (left, top)
    if scale < 0.7:
        shrunk = tuple(max(1, round(side * scale)) for side in (right - left, bottom - top))
        matrix[:, :2] *= np.array([right - left, bottom - top]) / shrunk
        part = cv2.resize(part, shrunk, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    patch = cv2.warpAffine(part, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return patch.astype(np.uint8, copy=False)


def _pattern_numbers() -> NDArray[np.int64]:
    """Numbers of the 58 patterns with at most two changes around the circle; 58 is all others."""
    numbers = np.full(256, 58)
    uniform = [
        code for code in range(256) if (code ^ ((code >> 1) | ((code & 1) << 7))).bit_count() <= 2
    ]
    numbers[uniform] = np.arange(len(uniform))
    return numbers


_NEIGHBOURS = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
_PATTERN = _pattern_numbers()
_INNER = FACE_SIDE - 2 * RADIUS
_CELL = np.arange(_INNER) * CELLS // _INNER
_CELL_START = (_CELL[:, None] * CELLS + _CELL[None]) * 59
