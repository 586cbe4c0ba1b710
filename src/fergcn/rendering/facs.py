"""Which facial actions make an expression, and how a face moves apart from expressions.

The recipes follow FACS and EMFACS (Ekman, Friesen & Hager 2002; Friesen & Ekman 1983): each
expression is a few prototypes of action units (AU), written in ARKit's actions. Contempt is the
one-sided expression. What is random about an expression is which prototype, which optional AUs, how
strong each is, and how uneven both sides are.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fergcn.rendering.looks import PLAIN, Looks

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Use:
    """How a prototype uses one action."""

    low: float
    high: float
    probability: float = 1.0


@dataclass(frozen=True)
class Prototype:
    """One way to show an expression. Actions without a side are shown on both."""

    weight: float
    """How often this prototype is chosen, relative to the others."""
    actions: dict[str, Use]
    one_sided: bool = False
    """Paired actions act on one side only, the same for all of them."""


PAIRED_ACTIONS = frozenset(
    (
        "browDown", "browOuterUp", "cheekSquint", "eyeBlink", "eyeLookDown", "eyeLookUp",
        "eyeSquint", "eyeWide", "mouthDimple", "mouthFrown", "mouthLowerDown", "mouthPress",
        "mouthSmile", "mouthStretch", "mouthUpperUp", "noseSneer",
    )
)  # fmt: skip
"""Actions that exist as …Left and …Right and are used on both sides alike."""

PROTOTYPES: dict[str, tuple[Prototype, ...]] = {
    "anger": (
        Prototype(  # AU 4+5+7+23/24: pressed lips
            0.4,
            {
                "browDown": Use(0.6, 1.0),
                "eyeSquint": Use(0.2, 0.8, 0.9),
                "eyeWide": Use(0.1, 0.5, 0.5),
                "mouthPress": Use(0.4, 1.0),
                "mouthRollLower": Use(0.0, 0.4, 0.5),
                "mouthRollUpper": Use(0.0, 0.3, 0.4),
                "noseSneer": Use(0.0, 0.35, 0.5),
                "mouthShrugLower": Use(0.0, 0.4, 0.4),
                "mouthFrown": Use(0.0, 0.35, 0.4),
            },
        ),
        Prototype(  # AU 4+5+7+10+22+25: bared teeth
            0.35,
            {
                "browDown": Use(0.6, 1.0),
                "eyeSquint": Use(0.1, 0.7, 0.7),
                "eyeWide": Use(0.1, 0.6, 0.5),
                "noseSneer": Use(0.2, 0.7, 0.9),
                "mouthUpperUp": Use(0.3, 0.9),
                "mouthLowerDown": Use(0.2, 0.9, 0.9),
                "jawOpen": Use(0.05, 0.35, 0.9),
                "mouthStretch": Use(0.0, 0.4, 0.5),
                "mouthFunnel": Use(0.0, 0.5, 0.5),
            },
        ),
        Prototype(  # AU 4+5+10+25+26: shouting
            0.25,
            {
                "browDown": Use(0.5, 1.0),
                "eyeWide": Use(0.2, 0.7, 0.7),
                "eyeSquint": Use(0.1, 0.5, 0.5),
                "noseSneer": Use(0.1, 0.6, 0.8),
                "jawOpen": Use(0.35, 1.0),
                "mouthUpperUp": Use(0.3, 0.9, 0.9),
                "mouthLowerDown": Use(0.3, 0.8, 0.9),
                "mouthStretch": Use(0.1, 0.5, 0.6),
                "cheekSquint": Use(0.0, 0.5, 0.5),
            },
        ),
    ),
    "contempt": (
        Prototype(  # AU 14 (+12), one side: tightened mouth corner
            0.6,
            {
                "mouthDimple": Use(0.6, 1.0),
                "mouthSmile": Use(0.15, 0.5, 0.9),
                "mouthPress": Use(0.1, 0.5, 0.6),
                "browDown": Use(0.0, 0.3, 0.3),
                "cheekSquint": Use(0.0, 0.3, 0.4),
            },
            one_sided=True,
        ),
        Prototype(  # AU 12+14 (+10), one side: raised mouth corner
            0.4,
            {
                "mouthSmile": Use(0.35, 0.7),
                "mouthDimple": Use(0.3, 0.9),
                "mouthUpperUp": Use(0.1, 0.5, 0.6),
                "noseSneer": Use(0.0, 0.3, 0.4),
                "browOuterUp": Use(0.1, 0.5, 0.3),
            },
            one_sided=True,
        ),
    ),
    "disgust": (
        Prototype(  # AU 9+10+15/17: nose wrinkle
            0.45,
            {
                "noseSneer": Use(0.6, 1.0),
                "mouthUpperUp": Use(0.4, 1.0),
                "browDown": Use(0.2, 0.7, 0.9),
                "eyeSquint": Use(0.2, 0.8, 0.9),
                "cheekSquint": Use(0.2, 0.7, 0.8),
                "mouthShrugLower": Use(0.1, 0.6, 0.7),
                "mouthFrown": Use(0.1, 0.6, 0.7),
                "jawOpen": Use(0.0, 0.1, 0.4),
            },
        ),
        Prototype(  # AU 9+10+16+25 (+19): open mouth
            0.3,
            {
                "noseSneer": Use(0.5, 1.0),
                "mouthUpperUp": Use(0.4, 1.0),
                "mouthLowerDown": Use(0.3, 0.9),
                "browDown": Use(0.1, 0.6, 0.8),
                "eyeSquint": Use(0.2, 0.7, 0.8),
                "cheekSquint": Use(0.2, 0.7, 0.8),
                "jawOpen": Use(0.05, 0.3, 0.8),
                "tongueOut": Use(0.0, 0.5, 0.3),
                "mouthFrown": Use(0.0, 0.4, 0.4),
            },
        ),
        Prototype(  # AU 10+17: raised upper lip, closed mouth
            0.25,
            {
                "noseSneer": Use(0.3, 0.8),
                "mouthUpperUp": Use(0.5, 1.0),
                "mouthFrown": Use(0.2, 0.7, 0.8),
                "mouthShrugLower": Use(0.2, 0.8, 0.8),
                "mouthShrugUpper": Use(0.1, 0.6, 0.6),
                "eyeSquint": Use(0.0, 0.5, 0.6),
                "browDown": Use(0.0, 0.4, 0.5),
            },
        ),
    ),
    "fear": (
        Prototype(  # AU 1+2+4+5+20+25/26: stretched open mouth
            0.6,
            {
                "browInnerUp": Use(0.6, 1.0),
                "browOuterUp": Use(0.2, 0.8, 0.9),
                "browDown": Use(0.15, 0.55, 0.9),
                "eyeWide": Use(0.5, 1.0),
                "mouthStretch": Use(0.4, 1.0),
                "mouthLowerDown": Use(0.2, 0.7, 0.8),
                "mouthUpperUp": Use(0.0, 0.3, 0.4),
                "jawOpen": Use(0.1, 0.4, 0.9),
                "mouthFrown": Use(0.0, 0.35, 0.4),
            },
        ),
        Prototype(  # AU 1+2+4+5+7+20: tense, nearly closed mouth
            0.4,
            {
                "browInnerUp": Use(0.5, 1.0),
                "browOuterUp": Use(0.1, 0.6, 0.7),
                "browDown": Use(0.2, 0.6, 0.9),
                "eyeWide": Use(0.4, 1.0),
                "eyeSquint": Use(0.0, 0.35, 0.4),
                "mouthStretch": Use(0.3, 0.9),
                "jawOpen": Use(0.02, 0.25, 0.7),
                "mouthPress": Use(0.0, 0.2, 0.2),
            },
        ),
    ),
    "happiness": (
        Prototype(  # AU 6+12+25: teeth
            0.45,
            {
                "mouthSmile": Use(0.75, 1.2),
                "cheekSquint": Use(0.4, 1.0),
                "eyeSquint": Use(0.1, 0.6, 0.8),
                "mouthUpperUp": Use(0.25, 0.8),
                "mouthLowerDown": Use(0.05, 0.5, 0.8),
                "jawOpen": Use(0.02, 0.18),
                "mouthDimple": Use(0.0, 0.3, 0.4),
            },
        ),
        Prototype(  # AU 6+12: closed mouth
            0.3,
            {
                "mouthSmile": Use(0.55, 1.1),
                "cheekSquint": Use(0.2, 0.8, 0.9),
                "eyeSquint": Use(0.1, 0.5, 0.6),
                "mouthDimple": Use(0.0, 0.4, 0.5),
                "mouthPress": Use(0.0, 0.2, 0.3),
            },
        ),
        Prototype(  # AU 6+12+26: laughing
            0.25,
            {
                "mouthSmile": Use(0.85, 1.25),
                "cheekSquint": Use(0.5, 1.0),
                "eyeSquint": Use(0.2, 0.7, 0.9),
                "mouthUpperUp": Use(0.4, 0.9),
                "mouthLowerDown": Use(0.2, 0.7),
                "jawOpen": Use(0.15, 0.7),
                "browOuterUp": Use(0.0, 0.3, 0.3),
                "browInnerUp": Use(0.0, 0.25, 0.3),
            },
        ),
    ),
    "sadness": (
        Prototype(  # AU 1+4+15+17: mouth corners down, chin up
            0.4,
            {
                "browInnerUp": Use(0.5, 1.0),
                "browDown": Use(0.1, 0.45, 0.9),
                "mouthFrown": Use(0.5, 1.0),
                "mouthShrugLower": Use(0.2, 0.8, 0.9),
                "mouthShrugUpper": Use(0.0, 0.3, 0.3),
                "eyeSquint": Use(0.0, 0.35, 0.6),
                "eyeBlink": Use(0.0, 0.35, 0.5),
                "eyeLookDown": Use(0.0, 0.5, 0.5),
            },
        ),
        Prototype(  # AU 1+15 (+64): lowered gaze
            0.3,
            {
                "browInnerUp": Use(0.3, 0.8, 0.9),
                "browDown": Use(0.0, 0.4, 0.6),
                "mouthFrown": Use(0.4, 0.9),
                "eyeBlink": Use(0.05, 0.4, 0.8),
                "eyeLookDown": Use(0.1, 0.8, 0.8),
                "mouthPress": Use(0.0, 0.4, 0.4),
            },
        ),
        Prototype(  # AU 1+4+6+7+15+20: crying
            0.3,
            {
                "browInnerUp": Use(0.4, 1.0),
                "browDown": Use(0.2, 0.7),
                "eyeSquint": Use(0.3, 0.9),
                "cheekSquint": Use(0.2, 0.7, 0.8),
                "mouthFrown": Use(0.3, 0.8),
                "mouthStretch": Use(0.2, 0.7, 0.9),
                "mouthLowerDown": Use(0.1, 0.6, 0.7),
                "mouthUpperUp": Use(0.1, 0.4, 0.6),
                "mouthShrugLower": Use(0.1, 0.6, 0.7),
                "jawOpen": Use(0.0, 0.2, 0.6),
                "eyeBlink": Use(0.0, 0.5, 0.5),
            },
        ),
    ),
    "surprise": (
        Prototype(  # AU 1+2+5+26: dropped jaw
            0.6,
            {
                "browInnerUp": Use(0.6, 1.0),
                "browOuterUp": Use(0.6, 1.0),
                "eyeWide": Use(0.4, 1.0),
                "jawOpen": Use(0.35, 1.1),
                "mouthFunnel": Use(0.0, 0.35, 0.4),
                "mouthPucker": Use(0.0, 0.2, 0.2),
            },
        ),
        Prototype(  # AU 1+2+5+25: hardly open
            0.25,
            {
                "browInnerUp": Use(0.6, 1.0),
                "browOuterUp": Use(0.6, 1.0),
                "eyeWide": Use(0.3, 1.0),
                "jawOpen": Use(0.08, 0.3),
            },
        ),
        Prototype(  # AU 1+2+5+12+26: pleasant
            0.15,
            {
                "browInnerUp": Use(0.4, 1.0),
                "browOuterUp": Use(0.4, 1.0),
                "eyeWide": Use(0.3, 1.0),
                "jawOpen": Use(0.2, 0.7),
                "mouthSmile": Use(0.05, 0.3),
            },
        ),
    ),
    "neutral": (Prototype(1.0, {}),),
}

MAX_ACTION = 1.3
"""The most that any action is used in an expression shown in full."""

MAX_EXAGGERATED = 1.6
"""The most in one that is stronger; beyond this the mesh breaks."""

SIDE_DIFFERENCE = 0.08
"""Standard deviation by which one side of an expression is stronger, as a part."""

SPEECH_SHAPES: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.4},
    {"jawOpen": 0.2, "mouthFunnel": 0.5},
    {"jawOpen": 0.1, "mouthPucker": 0.6},
    {"mouthPress": 0.5},
    {"jawOpen": 0.12, "mouthStretch": 0.35},
    {"jawOpen": 0.15, "mouthLowerDown": 0.4, "mouthUpperUp": 0.15},
    {"mouthRollLower": 0.5},
    {},
)
"""Mouth shapes between which a speaking mouth moves."""

BROAD_SMILES: tuple[Prototype, ...] = (
    Prototype(  # AU 6+12+25: upper teeth
        0.55,
        {
            "mouthSmile": Use(0.6, 1.2),
            "cheekSquint": Use(0.3, 1.0),
            "eyeSquint": Use(0.1, 0.6, 0.7),
            "mouthUpperUp": Use(0.35, 1.0),
            "mouthLowerDown": Use(0.0, 0.5, 0.6),
            "jawOpen": Use(0.03, 0.2),
            "mouthDimple": Use(0.0, 0.3, 0.4),
            "mouthStretch": Use(0.0, 0.3, 0.3),
            "mouthRollUpper": Use(0.0, 0.4, 0.5),
        },
    ),
    Prototype(  # AU 6+12: closed mouth
        0.25,
        {
            "mouthSmile": Use(0.5, 1.1),
            "cheekSquint": Use(0.2, 0.8, 0.9),
            "eyeSquint": Use(0.1, 0.5, 0.6),
            "mouthDimple": Use(0.0, 0.5, 0.6),
            "mouthPress": Use(0.0, 0.4, 0.4),
            "mouthRollUpper": Use(0.0, 0.4, 0.4),
            "mouthRollLower": Use(0.0, 0.4, 0.4),
            "mouthStretch": Use(0.0, 0.3, 0.3),
        },
    ),
    Prototype(  # AU 6+12+26: laughter
        0.2,
        {
            "mouthSmile": Use(0.8, 1.25),
            "cheekSquint": Use(0.5, 1.0),
            "eyeSquint": Use(0.2, 0.7, 0.9),
            "mouthUpperUp": Use(0.4, 1.0),
            "mouthLowerDown": Use(0.2, 0.7),
            "jawOpen": Use(0.15, 0.7),
            "browOuterUp": Use(0.0, 0.3, 0.3),
            "browInnerUp": Use(0.0, 0.25, 0.3),
            "mouthRollUpper": Use(0.0, 0.3, 0.4),
        },
    ),
)
"""Happiness as people show it who are photographed: broad, most often with teeth."""

RESTING_ACTIONS = (
    "browDown", "browInnerUp", "browOuterUp", "cheekSquint", "eyeSquint", "eyeWide",
    "mouthFrown", "mouthPress", "mouthSmile", "mouthUpperUp",
)  # fmt: skip
"""Actions by which one neutral face differs from another."""

GRIM_ACTIONS = {
    "mouthFrown": 1.8, "browDown": 2.1, "mouthPress": 1.7, "mouthShrugLower": 1.25,
    "eyeSquint": 2.1, "browInnerUp": 1.25, "browOuterUp": 1.7, "mouthSmile": 1.0,
    "mouthUpperUp": 1.0, "mouthRollUpper": 1.7, "mouthRollLower": 1.25, "eyeBlink": 1.0,
    "cheekSquint": 1.0, "noseSneer": 0.8, "eyeWide": 1.0, "mouthStretch": 0.8,
    "mouthFunnel": 0.8, "jawOpen": 0.5,
}  # fmt: skip
"""Likewise of people who look grim, tired or sceptical at rest: how far, relative to others."""

TWITCH_ACTIONS = (
    "browDown", "browInnerUp", "browOuterUp", "cheekSquint", "eyeSquint", "mouthDimple",
    "mouthFrown", "mouthPress", "mouthPucker", "mouthRollLower", "mouthSmile", "noseSneer",
)  # fmt: skip
"""Actions that come and go without meaning."""


class Actions:
    """Writes action values by name into rows of 52."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._index = {name: column for column, name in enumerate(names)}

    def columns(self, action: str) -> list[int]:
        """Columns of an action; both sides of one without a side."""
        if action in self._index:
            return [self._index[action]]
        return [self._index[action + "Left"], self._index[action + "Right"]]

    def vector(self, values: dict[str, float]) -> Floats:
        """Bring named values into `(52,)`, 0 where not named."""
        vector = np.zeros(len(self.names))
        for action, value in values.items():
            vector[self.columns(action)] += value
        return vector


def sample_apex(
    expression: str,
    actions: Actions,
    expressivity: Floats,
    rng: np.random.Generator,
    looks: Looks = PLAIN,
) -> Floats:
    """Draw the actions of an expression at its apex.

    Args:
        expression: a key of `PROTOTYPES`.
        actions: the order of the actions.
        expressivity: `(52,)` the person's factor on each action.
        rng: source of chance.
        looks: the person's.

    Returns:
        `(52,)` action values, 0 to `MAX_ACTION`.
    """
    prototypes = PROTOTYPES[expression]
    if expression == "happiness" and "smiles" in looks:
        prototypes = BROAD_SMILES
    weights = np.array([prototype.weight for prototype in prototypes])
    prototype = prototypes[rng.choice(len(prototypes), p=weights / weights.sum())]
    strong_side = int(rng.integers(2))
    apex = np.zeros(len(actions.names))
    for action, use in prototype.actions.items():
        if rng.random() > use.probability:
            continue
        value = rng.uniform(use.low, use.high)
        columns = actions.columns(action)
        if len(columns) == 1:
            sides = np.ones(1)
        elif prototype.one_sided:
            sides = np.full(2, rng.uniform(0, 0.2))
            sides[strong_side] = 1
        else:
            difference = rng.normal(0, SIDE_DIFFERENCE)
            sides = np.array([1 + difference, 1 - difference])
        apex[columns] += value * sides
    return np.clip(apex * expressivity, 0, MAX_ACTION)


def sample_expressivity(actions: Actions, rng: np.random.Generator) -> Floats:
    """Draw how strongly a person uses each action, the same on both sides.

    Returns:
        `(52,)` factors around 0.93.
    """
    by_base = {base: rng.uniform(0.7, 1.15) for base in sorted({_base(n) for n in actions.names})}
    return np.array([by_base[_base(name)] for name in actions.names])


def sample_resting_face(
    actions: Actions,
    rng: np.random.Generator,
    amount: float = 0.1,
    looks: Looks = PLAIN,
) -> Floats:
    """Draw how a relaxed face differs from the average one.

    Args:
        actions: the order of the actions.
        rng: source of chance.
        amount: standard deviation of the actions that differ.
        looks: the person's.

    Returns:
        `(52,)` action values.
    """
    if "grim" in looks:
        values = {
            action: abs(rng.normal(0, spread * amount))
            for action, spread in GRIM_ACTIONS.items()
            if rng.random() < 0.4
        }
    else:
        values = {
            action: abs(rng.normal(0, amount)) for action in RESTING_ACTIONS if rng.random() < 0.3
        }
    values["eyeBlink"] = values.get("eyeBlink", 0) + 2 * amount * rng.beta(1, 6)
    return actions.vector(values) * rng.normal(1, 0.1, len(actions.names))


def sample_everyday_movement(
    actions: Actions,
    num_frames: int,
    rng: np.random.Generator,
    looks: Looks = PLAIN,
) -> Floats:
    """Draw what a face does apart from expressions: gaze, blinks, speech and small twitches.

    Args:
        actions: the order of the actions.
        num_frames: length of the clip.
        rng: source of chance.
        looks: the person's.

    Returns:
        `(num_frames, 52)` action values.
    """
    movement = np.tile(sample_resting_face(actions, rng, 0.08, looks), (num_frames, 1))
    movement += sample_gaze_and_blinks(actions, num_frames, rng)
    if rng.random() < 0.45:
        movement += rng.uniform(0.2, 1.0) * sample_speech(actions, num_frames, rng)
    for _ in range(rng.poisson(0.8)):
        movement += _twitch(actions, num_frames, rng)
    return movement


def sample_gaze_and_blinks(actions: Actions, num_frames: int, rng: np.random.Generator) -> Floats:
    """Draw what the eyes do.

    Returns:
        `(num_frames, 52)` action values.
    """
    movement = _gaze(actions, num_frames, rng)
    if rng.random() < 0.35:
        movement = np.maximum(movement, _blink(actions, num_frames, rng))
    return movement


def _base(action: str) -> str:
    return action.removesuffix("Left").removesuffix("Right")


def _gaze(actions: Actions, num_frames: int, rng: np.random.Generator) -> Floats:
    """Fixations with jumps between them, both eyes alike; the upper lids follow the gaze."""
    times = np.arange(num_frames)
    jumps = np.sort(rng.uniform(0, num_frames, rng.poisson(0.7)))
    spread = rng.choice([0.08, 0.25])
    # a first fixation, and one after every jump; a jump takes two frames
    fixations = np.cumsum(rng.normal(0, spread, (len(jumps) + 1, 2)), axis=0)
    passed = np.clip((times[:, None] - jumps) / 2, 0, 1)
    gaze = fixations[0] + passed @ np.diff(fixations, axis=0)
    left, up = np.clip(gaze, -0.6, 0.6).T
    movement = np.zeros((num_frames, len(actions.names)))
    for action, value in {
        "eyeLookOutLeft": left,
        "eyeLookInRight": left,
        "eyeLookInLeft": -left,
        "eyeLookOutRight": -left,
        "eyeLookUp": up,
        "eyeLookDown": -up,
        "eyeBlink": -0.3 * up,
    }.items():
        movement[:, actions.columns(action)] += np.maximum(value, 0)[:, None]
    return movement


def sample_speech(actions: Actions, num_frames: int, rng: np.random.Generator) -> Floats:
    """Draw mouth shapes that follow each other every two to six frames, as syllables at 25 fps.

    Returns:
        `(num_frames, 52)` action values.
    """
    knots = np.cumsum(rng.uniform(2, 6, num_frames // 2 + 2)) - rng.uniform(0, 6)
    shapes = np.stack(
        [
            actions.vector(SPEECH_SHAPES[rng.integers(len(SPEECH_SHAPES))]) * rng.uniform(0.4, 1.2)
            for _ in knots
        ]
    )
    times = np.arange(num_frames)
    right = np.clip(np.searchsorted(knots, times), 1, len(knots) - 1)
    progress = np.clip((times - knots[right - 1]) / (knots[right] - knots[right - 1]), 0, 1)
    progress = progress * progress * (3 - 2 * progress)
    movement: Floats = (
        shapes[right - 1] * (1 - progress[:, None]) + shapes[right] * progress[:, None]
    )
    return movement


def _twitch(actions: Actions, num_frames: int, rng: np.random.Generator) -> Floats:
    """One weak action that comes and goes, or stays."""
    action = TWITCH_ACTIONS[rng.integers(len(TWITCH_ACTIONS))]
    times = np.arange(num_frames)
    centre, width = rng.uniform(0, num_frames), rng.uniform(1.5, 8)
    envelope = np.exp(-(((times - centre) / width) ** 2))
    strength = 0.35 * rng.beta(1.2, 3)
    movement: Floats = envelope[:, None] * actions.vector({action: strength})
    return movement


def _blink(actions: Actions, num_frames: int, rng: np.random.Generator) -> Floats:
    """One blink of three to five frames."""
    centre, half = rng.uniform(0, num_frames), rng.uniform(1.5, 2.5)
    closure = np.clip(1.3 - np.abs(np.arange(num_frames) - centre) / half, 0, 1)
    movement: Floats = closure[:, None] * actions.vector({"eyeBlink": 1.0})
    return movement
