"""Intensity over the frames of a clip: when an expression begins, peaks and ends."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Kind = Literal["onset_apex", "onset_apex_offset", "anywhere", "still"]
"""`onset_apex`: neutral to apex, as in CK+; `onset_apex_offset`: and back again, as in MMI;
`anywhere`: cut out at any time, with pauses and often a second expression, whose peak is lower than
that of the labelled one; `still`: a picture of the apex."""

KINDS: tuple[Kind, ...] = get_args(Kind)

PAUSE_SHARE = 0.35
"""How often an onset or an offset of the kind `anywhere` pauses half-way."""

SECOND_SHARE = 0.5
"""How often a clip of the kind `anywhere` shows a second expression."""

SECOND_PEAK = (0.25, 0.6)
"""Peak of the second expression, relative to the main one's: the stronger one is the label."""


@dataclass(frozen=True)
class Curves:
    """How intense the expressions of a clip are in each frame, relative to the main one's peak."""

    main: Floats
    """`(N,)` 0–1."""
    apex_index: int
    """Where the main expression reaches 1."""
    second: Floats
    """`(N,)`, never above 0 where `main` is; 0 everywhere if there is no second expression."""


def sample_curves(kind: Kind, num_frames: int, rng: np.random.Generator) -> Curves:
    """Draw when a clip's expressions begin, peak and end.

    Args:
        kind: where the apex lies; in the first two, the first frame is neutral.
        num_frames: length, at least 5; of a `still`, 1.
        rng: source of chance.
    """
    if kind == "anywhere":
        return _anywhere(num_frames, rng)
    if kind == "still":
        return Curves(np.ones(num_frames), 0, np.zeros(num_frames))
    if kind == "onset_apex":
        curve, apex = _onset_apex(num_frames, rng), num_frames - 1
    else:
        curve, apex = _onset_apex_offset(num_frames, rng)
    return Curves(curve, apex, np.zeros(num_frames))


def _onset_apex(num_frames: int, rng: np.random.Generator) -> Floats:
    """Logistic rise; how early and how fast it comes differs from clip to clip."""
    middle = rng.uniform(0.25, 0.65) * (num_frames - 1)
    duration = rng.uniform(0.045, 0.14) * num_frames
    rise: Floats = 1 / (1 + np.exp(-(np.arange(num_frames) - middle) / duration))
    curve: Floats = (rise - rise[0]) / (rise[-1] - rise[0])
    return curve


def _onset_apex_offset(num_frames: int, rng: np.random.Generator) -> tuple[Floats, int]:
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


def _anywhere(num_frames: int, rng: np.random.Generator) -> Curves:
    """An expression around any frame, and often another one in the longer part beside it."""
    last = num_frames - 1
    apex = int(rng.integers(num_frames))
    onset = _ramp(rng.uniform(0.15, 0.5) * num_frames, rng)
    offset = _ramp(rng.uniform(0.2, 0.8) * num_frames, rng)
    start, end = apex + np.array([-1, 1]) * rng.uniform(0, 0.08, 2) * num_frames  # of the peak
    rooms = {"before": apex, "after": last - apex}
    has_second = rng.random() < SECOND_SHARE
    side = str(rng.choice([name for name, room in rooms.items() if room >= 0.45 * last]))
    if has_second:  # the main expression leaves it half of the room
        ramp = onset if side == "before" else offset
        ramp[:, 0] *= min(1, 0.45 * rooms[side] / ramp[-1, 0])
    # At either end of the clip, it is cut out in the middle of the movement.
    if apex == last:
        start = end = last + rng.uniform(0, 0.6) * onset[-1, 0]
    elif apex == 0:
        start = end = -rng.uniform(0, 0.6) * offset[-1, 0]
    main = _episode(num_frames, onset, start, end, offset)
    second = np.zeros(num_frames)
    if has_second and side == "before":
        second = _second(num_frames, start - onset[-1, 0], rng)
    elif has_second:
        second = _second(num_frames, last - end - offset[-1, 0], rng)[::-1]
    return Curves(main / main[apex], apex, second)


def _ramp(duration: float, rng: np.random.Generator) -> Floats:
    """Knots of an onset or offset, from the peak outwards.

    Args:
        duration: frames between peak and neutral, not counting a pause.
        rng: source of chance.

    Returns:
        `(2 or 4, 2)`: frames from the peak, and intensity from 1 to 0; four rows with a pause.
    """
    duration = max(duration, 3)
    if rng.random() >= PAUSE_SHARE:
        return np.array([(0, 1), (duration, 0)], dtype=float)
    level = rng.uniform(0.3, 0.7)
    begin = (1 - level) * duration
    pause = rng.uniform(2, 5)
    return np.array([(0, 1), (begin, level), (begin + pause, level), (duration + pause, 0)])


def _episode(num_frames: int, onset: Floats, start: float, end: float, offset: Floats) -> Floats:
    """Join onset, peak and offset to `(num_frames,)`; between knots it moves smoothly.

    Args:
        num_frames: length of the clip.
        onset: knots as from `_ramp`.
        start: time of the peak's first moment in frames; may be outside the clip.
        end: time of the peak's last moment.
        offset: knots as from `_ramp`.
    """
    times = np.concatenate([start - onset[::-1, 0], end + offset[:, 0]])
    levels = np.concatenate([onset[::-1, 1], offset[:, 1]])
    knots = np.arange(len(times))
    place = np.interp(np.arange(num_frames), times, knots)
    passed = np.floor(place)
    curve: Floats = np.interp(passed + _smoothstep(place - passed), knots, levels)
    return curve


def _second(num_frames: int, room: float, rng: np.random.Generator) -> Floats:
    """A weaker expression before the main one, perhaps begun before the clip.

    Args:
        num_frames: length of the clip.
        room: frames until the main expression begins.
        rng: source of chance.
    """
    end = room * rng.uniform(0.7, 1)
    offset = np.array([(0, 1), (rng.uniform(0.4, 0.7) * end, 0)])
    onset = np.array([(0, 1), (rng.uniform(0.3, 0.8) * end, 0)])
    peak = np.floor(end - offset[-1, 0])  # a whole frame, so that one shows the peak
    curve = _episode(num_frames, onset, peak - rng.uniform(0, 0.15) * end, peak, offset)
    return curve * rng.uniform(*SECOND_PEAK)


def _smoothstep(x: Floats) -> Floats:
    return x * x * (3 - 2 * x)


def delayed(curve: Floats, frames: Floats) -> Floats:
    """Play a curve later, since not every muscle starts at once.

    Args:
        curve: `(N,)` intensity.
        frames: `(A,)` delay of each action in frames, ≥ 0.

    Returns:
        `(N, A)`; before its delay an action has the curve's first value.
    """
    times = np.arange(len(curve))
    return np.stack([np.interp(times - delay, times, curve) for delay in frames], axis=1)
