"""Intensity over the frames of a clip: when an expression begins, peaks and ends."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Kind = Literal["onset_apex", "onset_apex_offset"]
"""`onset_apex`: neutral to apex, as in CK+; `onset_apex_offset`: and back again, as in MMI."""

KINDS: tuple[Kind, ...] = get_args(Kind)


def sample_curve(
    kind: Kind, num_frames: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], int]:
    """Draw one intensity curve.

    Args:
        kind: where the apex lies.
        num_frames: length, at least 5.
        rng: source of chance.

    Returns:
        `(num_frames,)` values of 0–1 that start at 0 and reach 1, and the index of the apex.
    """
    if kind == "onset_apex":
        return _onset_apex(num_frames, rng), num_frames - 1
    return _onset_apex_offset(num_frames, rng)


def _onset_apex(num_frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Logistic rise; how early and how fast it comes differs from clip to clip."""
    middle = rng.uniform(0.25, 0.65) * (num_frames - 1)
    duration = rng.uniform(0.045, 0.14) * num_frames
    rise: NDArray[np.float64] = 1 / (1 + np.exp(-(np.arange(num_frames) - middle) / duration))
    curve: NDArray[np.float64] = (rise - rise[0]) / (rise[-1] - rise[0])
    return curve


def _onset_apex_offset(
    num_frames: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], int]:
    """Rise, hold and fall; the fall is usually slower, and may not be over at the last frame."""
    last = num_frames - 1
    apex = round(rng.uniform(0.3, 0.7) * last)
    hold = rng.uniform(0, 0.08) * last
    onset = rng.uniform(0, 0.6) * apex
    offset = apex + rng.uniform(0.5, 1.2) * (last - apex) + 1
    frames = np.arange(num_frames)
    rising = np.clip((frames - onset) / max(apex - hold - onset, 1), 0, 1)
    falling = np.clip((offset - frames) / max(offset - apex - hold, 1), 0, 1)
    curve = _smoothstep(np.minimum(rising, falling))
    curve[0], curve[apex] = 0, 1
    return curve, apex


def _smoothstep(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x * x * (3 - 2 * x)


def delayed(curve: NDArray[np.float64], frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """Play a curve later, since not every muscle starts at once.

    Args:
        curve: `(N,)` intensity.
        frames: `(A,)` delay of each action in frames, ≥ 0.

    Returns:
        `(N, A)`; before its delay an action has the curve's first value.
    """
    times = np.arange(len(curve))
    return np.stack([np.interp(times - delay, times, curve) for delay in frames], axis=1)
