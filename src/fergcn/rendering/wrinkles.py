"""Wrinkles: where they run on the face, and which actions deepen them."""

from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fergcn.rendering.facs import Actions
from fergcn.rendering.head import Head

Floats = NDArray[np.float32]
Line = tuple[tuple[float, float], ...]
"""Points x, y on the subject's left half of the average face, in eye distances."""

GLABELLA: tuple[tuple[Line, float, float], ...] = (
    (((0.075, 0.12), (0.085, 0.42)), 0.022, 1.0),
    (((0.0, 0.14), (0.0, 0.30)), 0.020, 0.25),
)
BROW_FOLD: Line = ((0.2, 0.22), (0.35, 0.30))
NASOLABIAL: Line = ((0.24, -0.60), (0.33, -0.74), (0.45, -0.92), (0.53, -1.1), (0.56, -1.25))
CROWS_FEET: tuple[Line, ...] = (
    ((0.78, 0.05), (0.98, 0.2)),
    ((0.78, 0.0), (0.98, 0.06)),
    ((0.78, -0.06), (0.98, -0.08)),
    ((0.78, -0.1), (0.98, -0.2)),
)
UNDER_EYE: Line = ((0.27, -0.16), (0.4, -0.24), (0.6, -0.24), (0.76, -0.13))
MARIONETTE: Line = ((0.46, -1.14), (0.5, -1.28), (0.5, -1.42))
FOREHEAD_HEIGHTS = (0.58, 0.72, 0.86, 0.99)
NOSE_HEIGHTS = (-0.05, 0.03, 0.11)

WRINKLE_ACTIONS: tuple[tuple[str, dict[str, float]], ...] = (
    ("forehead", {"browInnerUp": 0.7, "browOuterUp": 0.3, "browDown": -0.25}),
    ("glabella", {"browDown": 0.55}),
    ("nose", {"noseSneer": 0.5}),
    ("chin", {"mouthShrugLower": 0.9, "mouthFrown": 0.2}),
    ("brow_fold", {"browDown": 0.3}),
    *(
        wrinkle
        for side in ("Left", "Right")
        for wrinkle in (
            (
                f"nasolabial{side}",
                {
                    f"mouthSmile{side}": 0.8,
                    f"noseSneer{side}": 0.8,
                    f"mouthUpperUp{side}": 0.5,
                    f"cheekSquint{side}": 0.3,
                    f"mouthStretch{side}": 0.3,
                },
            ),
            (
                f"crows_feet{side}",
                {f"cheekSquint{side}": 0.8, f"eyeSquint{side}": 0.4, f"mouthSmile{side}": 0.3},
            ),
            (f"under_eye{side}", {f"cheekSquint{side}": 0.6, f"eyeSquint{side}": 0.6}),
            (f"marionette{side}", {f"mouthFrown{side}": 0.8}),
        )
    ),
)
"""Each wrinkle and how much each action deepens it; an action without a side counts both sides."""

NUM_WRINKLES = len(WRINKLE_ACTIONS)
MAX_DARKENING = 0.6


@cache
def _wrinkle_matrix(action_names: tuple[str, ...]) -> NDArray[np.float64]:
    actions = Actions(action_names)
    return np.stack([actions.vector(weights) for _, weights in WRINKLE_ACTIONS])


def wrinkle_depths(
    action_values: NDArray[np.floating], action_names: tuple[str, ...]
) -> NDArray[np.float64]:
    """How deep each wrinkle is.

    Args:
        action_values: `(52,)`.
        action_names: their order.

    Returns:
        `(NUM_WRINKLES,)`, ≥ 0, about 1 at a full expression.
    """
    return np.maximum(_wrinkle_matrix(action_names) @ action_values, 0)


@cache
def wrinkle_maps(head: Head) -> Floats:
    """Draw each wrinkle into the texture.

    Returns:
        `(NUM_WRINKLES, T, T)`, 0–1.
    """
    x, y, z = np.moveaxis(head.texel_rest, -1, 0)
    front = z > -0.45

    def line(points: Line, width: float, side: int) -> Floats:
        distance = np.full(x.shape, 9.0, np.float32)
        for (ax, ay), (bx, by) in pairwise(points):
            dx, dy = bx - ax, by - ay
            along = np.clip(((x * side - ax) * dx + (y - ay) * dy) / (dx**2 + dy**2), 0, 1)
            distance = np.minimum(
                distance, np.hypot(x * side - ax - along * dx, y - ay - along * dy)
            )
        return np.where(z > -0.7, _bump(distance, width), 0).astype(np.float32)

    def both(points: Line, width: float) -> Floats:
        return line(points, width, 1) + line(points, width, -1)

    forehead = sum(_bump(y - (height - 0.10 * x**2), 0.022) for height in FOREHEAD_HEIGHTS)
    nose = sum(_bump(y - (height + 0.25 * np.abs(x)), 0.016) for height in NOSE_HEIGHTS)
    chin = 0.6 * _bump(x / 0.26, 1) * _bump((y + 1.58) / 0.16, 1)
    chin = chin + _bump(y + 1.42 - 0.15 * x**2, 0.03) * _bump(x / 0.3, 1)
    maps = {
        "forehead": forehead * _bump(x / 0.62, 1) ** 2 * front,
        "glabella": sum(share * both(points, width) for points, width, share in GLABELLA),
        "nose": nose * _bump(x / 0.16, 1) * front,
        "chin": chin * front,
        "brow_fold": both(BROW_FOLD, 0.03),
    }
    for side, name in ((1, "Left"), (-1, "Right")):
        maps[f"nasolabial{name}"] = line(NASOLABIAL, 0.035, side)
        maps[f"crows_feet{name}"] = sum(line(points, 0.016, side) for points in CROWS_FEET)
        maps[f"under_eye{name}"] = line(UNDER_EYE, 0.022, side)
        maps[f"marionette{name}"] = line(MARIONETTE, 0.03, side)
    return np.stack([np.clip(maps[name], 0, 1) for name, _ in WRINKLE_ACTIONS]).astype(np.float32)


def _bump(distance: NDArray[np.floating], width: float) -> Floats:
    bump: Floats = np.exp(-((distance / width) ** 2)).astype(np.float32)
    return bump
