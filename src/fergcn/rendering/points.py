"""Points on a head that show what a face does: where they are in a picture, and what moved them."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from fergcn.rendering.draw import View, pose_head, to_camera, to_plane
from fergcn.rendering.head import Head
from fergcn.rendering.identity import Person
from fergcn.rendering.rasterize import SKIN

Ints = NDArray[np.intp]

NUM_PAIRS = 36
"""Points on each side of the face."""

FRONT = ((0.02, 1.0), (-1.75, 0.75), (-0.35, np.inf))
"""Where the left ones may be: x, y and z in eye distances."""

LEAST_MOVED = 0.02
"""A point is moved at least so far by some action, in eye distances."""


@cache
def face_points(head: Head) -> Ints:
    """Choose vertices far from each other, closer where actions move the face most.

    Returns:
        `(2 · NUM_PAIRS,)` vertices; the first half is on the subject's left, each with its mirror
        image in the second half.
    """
    skin = head.part_vertices(SKIN)
    steps = head.action_offsets.reshape(len(head.action_names), -1, 3)
    moved = np.linalg.norm(steps, axis=2).max(axis=0)
    inside = moved[skin] > LEAST_MOVED
    for axis, (low, high) in enumerate(FRONT):
        inside &= (head.rest[skin, axis] > low) & (head.rest[skin, axis] < high)
    left = skin[inside]
    importance = 0.3 + np.minimum(moved[left], 0.4)
    chosen = [int(np.argmax(moved[left]))]
    nearest = np.full(len(left), np.inf)
    for _ in range(NUM_PAIRS - 1):
        apart = np.linalg.norm(head.rest[left] - head.rest[left[chosen[-1]]], axis=1)
        nearest = np.minimum(nearest, apart)
        chosen.append(int(np.argmax(nearest * importance)))
    across = head.rest[left[chosen]] * (-1, 1, 1)
    apart = np.linalg.norm(head.rest[skin][None] - across[:, None], axis=2)
    return np.concatenate([left[chosen], skin[apart.argmin(axis=1)]])


def place_points(
    head: Head, person: Person, action_values: NDArray[np.floating], view: View, size: int
) -> NDArray[np.float32]:
    """Find the points of `face_points` in a picture.

    Args:
        head: the parametric head.
        person: whose head.
        action_values: `(52,)`.
        view: where the head is seen.
        size: side of the picture in pixels.

    Returns:
        `(2, P, 2)`: x and y of each point, 0 at the left or upper edge of the picture and 1 at the
        other; and how far the actions have moved it from where the same head has it without any.
    """
    places = []
    for values in (action_values, np.zeros_like(action_values)):
        points = pose_head(head, person, values)[face_points(head)]
        plane = to_plane(to_camera(points, view.angles, view.distance), view.distance)
        pixels = plane @ view.matrix[:, :2].T + view.matrix[:, 2]
        places.append((pixels + 0.5) / size)  # pixel centres are at whole numbers
    return np.stack([places[0], places[0] - places[1]]).astype(np.float32)
