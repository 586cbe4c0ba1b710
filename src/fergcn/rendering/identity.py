"""One person from a seed: shape, skin, hair, and how this face moves.

Every quantity is drawn from wide distributions, so that a network can't rely on any of them.
"""

import re
from dataclasses import asdict, dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from fergcn.rendering import facs
from fergcn.rendering.head import TEXTURE_SIZE, Head
from fergcn.rendering.looks import PLAIN, Looks
from fergcn.rendering.rasterize import (
    LEFT_EYE,
    LOWER_TEETH,
    RIGHT_EYE,
    SKIN,
    TEXTURE_OCCLUSION,
    TEXTURE_SPECULAR,
    TONGUE,
    UPPER_TEETH,
    vertex_normals,
    weighted_sum,
)

Floats = NDArray[np.float32]
HairLength = Literal["bald", "short", "medium", "long"]
Beard = Literal["none", "stubble", "full", "moustache", "goatee"]

GOLDEN_RATIO = 0.6180339887498949
"""Multiples of it, modulo 1, spread evenly whatever their number."""


def _linear(srgb: object) -> Floats:
    """Approximate linear light of display colours, 0–1."""
    return np.asarray(srgb, np.float32) ** np.float32(2.2)


SKIN_COLOURS = _linear(
    [
        (0.27, 0.18, 0.13), (0.39, 0.26, 0.19), (0.52, 0.36, 0.26), (0.65, 0.46, 0.34),
        (0.77, 0.57, 0.45), (0.86, 0.68, 0.57), (0.92, 0.76, 0.67), (0.95, 0.82, 0.75),
    ]
)  # fmt: skip
"""From skin tone 0 to 1."""

HAIR_COLOURS = _linear(
    [
        (0.06, 0.05, 0.05), (0.12, 0.09, 0.07), (0.20, 0.13, 0.09), (0.33, 0.22, 0.13),
        (0.50, 0.36, 0.20), (0.68, 0.54, 0.34), (0.52, 0.26, 0.13), (0.55, 0.54, 0.53),
        (0.76, 0.75, 0.74),
    ]
)  # fmt: skip
"""Black, three browns, two blonds, red, grey and white."""

IRIS_COLOURS = _linear(
    [
        (0.16, 0.10, 0.07), (0.22, 0.13, 0.08), (0.32, 0.20, 0.10), (0.45, 0.35, 0.20),
        (0.35, 0.42, 0.30), (0.30, 0.42, 0.55), (0.45, 0.55, 0.62),
    ]
)  # fmt: skip
"""Four browns, green and two blues."""


@dataclass(frozen=True)
class Attributes:
    """What is known about a person."""

    skin_tone: float
    """0 the darkest, 1 the lightest; evenly spread over the subjects."""
    age: float
    """0 a child, 0.5 a young adult, 1 an old person."""
    gender: float
    """0 female, 1 male; of the shape of the head."""
    ancestry_african: float
    ancestry_asian: float
    ancestry_european: float
    """Shares of the three shapes of the head; they add up to 1."""
    weight: float
    """0 thin, 0.5 average, 1 heavy."""
    muscle: float
    """0 little, 0.5 average, 1 much."""
    hair: HairLength
    beard: Beard
    glasses: int
    """1 with glasses, 0 without."""


@dataclass(frozen=True)
class Glasses:
    """Frames of a pair of glasses, in eye distances."""

    half_width: float
    half_height: float
    roundness: float
    """Exponent of the super-ellipse: 2 an ellipse, more a rectangle."""
    thickness: float
    colour: Floats
    """`(3,)`."""


@dataclass(frozen=True)
class Person:
    """Everything about one person that does not change from frame to frame."""

    attributes: Attributes
    rest: Floats
    """`(V, 3)` the relaxed head in its own eye distances, with the eyes at the origin."""
    action_scale: float
    """Factor on the movements of the actions."""
    resting_face: NDArray[np.float64]
    """`(52,)` actions of this person's relaxed face."""
    expressivity: NDArray[np.float64]
    """`(52,)` factor on each action of an expression."""
    wrinkle_strength: float
    age_wrinkles: float
    """Wrinkles without any action."""
    texture: Floats
    """`(TEXTURE_SIZE, TEXTURE_SIZE, 5)`, see `rasterize.Surface`."""
    palette: Floats
    """`(7, 3)`, see `rasterize.Surface`."""
    iris_radius: float
    specular: float
    shininess: float
    has_hair_shell: bool
    """Long hair that hangs free of the head."""
    glasses: Glasses | None
    looks: Looks
    """Some of `looks.LOOKS`."""

    @property
    def table_row(self) -> dict[str, float | str]:
        """Attributes for the table of clips."""
        return {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in asdict(self.attributes).items()
        }


def make_person(head: Head, seed: int, subject: int, looks: Looks = PLAIN) -> Person:
    """Draw one person.

    Args:
        head: the parametric head.
        seed: of the dataset; persons of different seeds have nothing in common.
        subject: number of the person within the dataset.
        looks: some of `looks.LOOKS`.
    """
    rng = np.random.default_rng([seed, subject, 0])
    attributes = _sample_attributes(seed, subject, rng)
    hair_colour = _sample_hair_colour(attributes, rng)
    hair = _sample_hair_style(attributes, rng)
    rest, distance = _shape(head, attributes, rng, looks)
    rest = _set_teeth_back(head, _raise_hair(head, rest, hair))
    if "pale lips" in looks:
        rest = _set_teeth_farther_back(head, rest)
    actions = facs.Actions(head.action_names)
    return Person(
        attributes=attributes,
        rest=rest,
        action_scale=float(rng.uniform(0.9, 1.15) / distance),
        resting_face=facs.sample_resting_face(actions, rng, 0.12, looks),
        expressivity=facs.sample_expressivity(actions, rng),
        wrinkle_strength=float(rng.uniform(0.25, 0.7) + max(0.0, attributes.age - 0.5)),
        age_wrinkles=0.24 * max(0.0, attributes.age - 0.6),
        texture=_paint_skin(head, attributes, hair, hair_colour, rng, looks),
        palette=_sample_palette(attributes, hair_colour, looks, rng),
        iris_radius=float(rng.uniform(0.40, 0.47)),
        # a camera's exposure brightens highlights along with dark skin
        specular=float(rng.uniform(0.02, 0.18) * (0.35 + 0.65 * attributes.skin_tone)),
        shininess=float(rng.uniform(8, 35)),
        has_hair_shell=attributes.hair == "long"
        or (attributes.hair == "medium" and bool(rng.random() < 0.3)),
        glasses=_sample_glasses(rng) if attributes.glasses else None,
        looks=looks,
    )


def _sample_attributes(seed: int, subject: int, rng: np.random.Generator) -> Attributes:
    first_tone = np.random.default_rng([seed]).random()
    ancestry = rng.dirichlet([0.45, 0.45, 0.55])
    gender = float(rng.beta(0.35, 0.35))
    male = gender > 0.5
    age = float(
        rng.choice(
            [rng.uniform(0.05, 0.33), rng.uniform(0.33, 0.6), rng.uniform(0.5, 1.0)],
            p=[0.1, 0.45, 0.45],
        )
    )
    hair_odds = [0.12, 0.45, 0.35, 0.08] if male else [0.02, 0.15, 0.28, 0.55]
    lengths: tuple[HairLength, ...] = ("bald", "short", "medium", "long")
    beards: tuple[Beard, ...] = ("stubble", "full", "moustache", "goatee")
    has_beard = male and age > 0.36 and rng.random() < 0.5
    return Attributes(
        skin_tone=float((first_tone + subject * GOLDEN_RATIO) % 1),
        age=age,
        gender=gender,
        ancestry_african=float(ancestry[0]),
        ancestry_asian=float(ancestry[1]),
        ancestry_european=float(ancestry[2]),
        weight=float(np.clip(rng.normal(0.5, 0.22), 0, 1)),
        muscle=float(np.clip(rng.normal(0.5, 0.2), 0, 1)),
        hair=lengths[rng.choice(4, p=hair_odds)],
        beard=beards[rng.choice(4, p=[0.45, 0.25, 0.15, 0.15])] if has_beard else "none",
        glasses=int(rng.random() < 0.18),
    )


# --- shape ---------------------------------------------------------------------------------------


def _between(value: float, names: tuple[str, ...]) -> dict[str, float]:
    """Weights of the two names next to a value; the names are evenly spaced over 0–1."""
    position = min(max(value, 0.0), 1.0) * (len(names) - 1)
    lower = min(int(position), len(names) - 2)
    share = position - lower
    return {names[lower]: 1 - share, names[lower + 1]: share}


def _shape(
    head: Head, attributes: Attributes, rng: np.random.Generator, looks: Looks
) -> tuple[Floats, float]:
    """Blend the shape targets; scale and shift the result so that the eyes are where they belong.

    Returns:
        `(V, 3)`, and the eye distance before scaling.
    """
    weights = _macro_weights(attributes, rng) | _local_weights(head, rng, looks)
    rows = [head.target_index[name] for name in weights if name in head.target_index]
    values = [weight for name, weight in weights.items() if name in head.target_index]
    targets = head.target_offsets[rows].astype(np.float32).reshape(len(rows), -1)
    points = head.rest + weighted_sum(np.array(values, np.float32), targets).reshape(-1, 3)
    left = points[head.part_vertices(LEFT_EYE)].mean(0)
    right = points[head.part_vertices(RIGHT_EYE)].mean(0)
    distance = float(np.linalg.norm(left - right))
    return ((points - (left + right) / 2) / distance).astype(np.float32), distance


def _macro_weights(attributes: Attributes, rng: np.random.Generator) -> dict[str, float]:
    ancestry = {
        "african": attributes.ancestry_african,
        "asian": attributes.ancestry_asian,
        "caucasian": attributes.ancestry_european,
    }
    genders = {"male": attributes.gender, "female": 1 - attributes.gender}
    ages = _between(attributes.age, ("child", "young", "old"))
    muscles = _between(attributes.muscle, ("minmuscle", "averagemuscle", "maxmuscle"))
    weights = _between(attributes.weight, ("minweight", "averageweight", "maxweight"))
    proportions = rng.normal(0, 0.5)
    ideal = "idealproportions" if proportions > 0 else "uncommonproportions"
    macro: dict[str, float] = {}
    for gender, gender_share in genders.items():
        for age, age_share in ages.items():
            share = gender_share * age_share
            for name, ancestry_share in ancestry.items():
                macro[f"macro/{name}-{gender}-{age}"] = share * ancestry_share
            for muscle, muscle_share in muscles.items():
                for weight, weight_share in weights.items():
                    name = f"macro/universal-{gender}-{age}-{muscle}-{weight}"
                    macro[name] = share * muscle_share * weight_share
            name = f"proportions/{gender}-{age}-averagemuscle-averageweight-{ideal}"
            macro[name] = share * min(abs(proportions), 1.0)
    return macro


LOCAL_SPREAD = 0.35
"""Standard deviation of the local face targets."""

DIRECTIONS = re.compile(
    r"-(incr|decr|up|down|in|out|forward|backward|convex|concave|uncompress|compress)$"
)


def _local_weights(head: Head, rng: np.random.Generator, looks: Looks) -> dict[str, float]:
    """Vary most features of the face, both sides nearly alike, and add a little asymmetry."""
    features: dict[str, dict[str, list[str]]] = {}
    for name in head.target_index:
        feature = name.removeprefix("local/")
        if name == feature or feature.startswith("asym") or "neck" in feature:
            continue
        if feature.startswith("head-trans"):  # moves the head against the neck
            continue
        side = feature[:2] if feature.startswith(("l-", "r-")) else ""
        kind = DIRECTIONS.sub("", feature.removeprefix(side))
        features.setdefault(kind, {}).setdefault(side, []).append(name)
    weights: dict[str, float] = {}
    for sides in features.values():
        if rng.random() < 0.3:
            continue
        amount = float(np.clip(rng.normal(0, LOCAL_SPREAD), -0.9, 0.9))
        for side, names in sides.items():
            unevenness = rng.normal(0, 0.1) if side else 0.0
            target = sorted(names)[0 if amount > 0 else -1]
            weights[target] = abs(amount) * (1 + unevenness)
    asymmetries = [name for name in head.target_index if name.startswith("local/asym-")]
    for index in rng.choice(len(asymmetries), 6, replace=False):
        weights[asymmetries[index]] = rng.uniform(0, 0.35)
    return _thin_lips(weights, rng) if "pale lips" in looks else weights


def _thin_lips(weights: dict[str, float], rng: np.random.Generator) -> dict[str, float]:
    """Mostly thinner lips."""
    sizes = [(lip, size) for lip in ("upperlip", "lowerlip") for size in ("height", "volume")]
    for lip, size in sizes:
        for direction in ("incr", "decr"):
            weights.pop(f"local/mouth-{lip}-{size}-{direction}", None)
    thin = rng.normal(0.35, 0.35)
    for lip, size in sizes:
        most = 0.9 if size == "height" else 0.3  # teeth would pierce less volume
        value = float(np.clip(thin + rng.normal(0, 0.2), -0.6, most))
        weights[f"local/mouth-{lip}-{size}-{'decr' if value > 0 else 'incr'}"] = abs(value)
    return weights


def _set_teeth_farther_back(head: Head, rest: Floats) -> Floats:
    """Where lips are thin, teeth would pierce them sooner."""
    inside = head.part_vertices(UPPER_TEETH, LOWER_TEETH, TONGUE)
    centre = rest[inside].mean(0)
    rest[inside] = centre + (rest[inside] - centre) * np.float32(0.93)
    rest[inside, 2] -= 0.07
    return rest


def _set_teeth_back(head: Head, rest: Floats) -> Floats:
    """Move teeth and tongue away from the lips, which some face shapes would let them pierce."""
    inside = head.part_vertices(UPPER_TEETH, LOWER_TEETH, TONGUE)
    centre = rest[inside].mean(0)
    rest = rest.copy()
    rest[inside] = centre + (rest[inside] - centre) * np.float32(0.92)
    rest[inside, 2] -= 0.13
    return rest


# --- hair ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HairStyle:
    """Where the scalp carries hair, and how much it stands out."""

    hairline: float
    """Height of the hair above the eyes at the middle of the forehead."""
    hairline_curvature: float
    """How far the hairline comes down at the temples; negative for receding hair."""
    thickness: float
    waviness_phase: float


def _sample_hair_style(attributes: Attributes, rng: np.random.Generator) -> HairStyle:
    receding = attributes.gender > 0.5 and attributes.age > 0.6 and rng.random() < 0.5
    return HairStyle(
        hairline=float(rng.uniform(0.85, 1.2) + (0.35 if receding else 0)),
        hairline_curvature=float(rng.uniform(-0.3, 1.0)),
        thickness=0.0 if attributes.hair == "bald" else float(rng.uniform(0.03, 0.22)),
        waviness_phase=float(rng.uniform(0, 2 * np.pi)),
    )


def _hair_depth(points: Floats, style: HairStyle) -> Floats:
    """How far inside the hair points of the average head lie; `(…, 3)` → `(…)`, < 0 outside."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    top = y - (style.hairline - 0.18 * (np.abs(x) / 0.7) ** 2 * style.hairline_curvature)
    back = 1.2 * np.minimum(-z - 0.35, y + 0.9)
    temple = 1.3 * np.minimum(-0.28 - z, y - 0.25 + 0.25 * (z + 0.28))
    depth = np.maximum(np.maximum(top, back), temple)
    at_ear = (np.abs(x) > 1.12) & (y < 0.15) & (y > -0.85) & (z > -1.3)
    return np.where(at_ear | (y < -0.9), -1.0, depth).astype(np.float32)


def _raise_hair(head: Head, rest: Floats, style: HairStyle) -> Floats:
    """Lift the scalp outwards by the thickness of the hair."""
    skin = head.triangles[head.parts == SKIN]
    inside = np.clip(_hair_depth(head.rest, style) / 0.18, 0, 1)
    on_skin = np.zeros(len(rest), bool)
    on_skin[np.unique(skin)] = True
    x, z = head.rest[:, 0], head.rest[:, 2]
    waves = 1 + 0.25 * np.sin(7 * x + 3 * z + style.waviness_phase)
    lift = np.where(on_skin, inside * style.thickness * waves, 0).astype(np.float32)
    raised: Floats = rest + lift[:, None] * vertex_normals(rest, skin)
    return raised


def _sample_hair_colour(attributes: Attributes, rng: np.random.Generator) -> Floats:
    dark_haired = max(1 - attributes.ancestry_european, 1 - 1.2 * attributes.skin_tone)
    if attributes.age > 0.75 and rng.random() < 0.7:
        row = rng.choice([7, 8])
    elif rng.random() < dark_haired:
        row = rng.choice(9, p=[0.36, 0.32, 0.2, 0.05, 0.02, 0.01, 0.01, 0.02, 0.01])
    else:
        row = rng.choice(9, p=[0.1, 0.17, 0.22, 0.22, 0.13, 0.08, 0.05, 0.02, 0.01])
    colour: Floats = (HAIR_COLOURS[row] * rng.uniform(0.7, 1.3)).astype(np.float32)
    return colour


# --- skin ----------------------------------------------------------------------------------------


class _Canvas:
    """The skin texture while it is painted, with the point of the average head under each texel."""

    def __init__(self, head: Head, base: Floats) -> None:
        self.x, self.y, self.z = np.moveaxis(head.texel_rest, -1, 0)
        self.front = self.z > -0.45
        self.texture = np.ones((TEXTURE_SIZE, TEXTURE_SIZE, 5), np.float32)
        self.texture[..., :3] = base

    @property
    def colour(self) -> Floats:
        return self.texture[..., :3]

    def cover(self, mask: NDArray[np.floating], colour: NDArray[np.floating]) -> None:
        """Paint over the skin; `mask` `(T, T)` is the opacity."""
        opacity = np.clip(mask, 0, 1)[..., None].astype(np.float32)
        self.texture[..., :3] += opacity * (colour - self.colour)

    def darken(self, mask: NDArray[np.floating], amount: object = 1.0) -> None:
        """Multiply the colour by `1 − mask × amount`; `amount` may differ by channel."""
        factor = 1 - np.clip(mask, 0, 1)[..., None] * np.asarray(amount)
        self.texture[..., :3] *= factor.astype(np.float32)


def _bump(distance: NDArray[np.floating], width: float) -> Floats:
    """1 at distance 0, falling off as a Gaussian."""
    bump: Floats = np.exp(-((distance / width) ** 2)).astype(np.float32)
    return bump


def _noise(rng: np.random.Generator, grain: float, stretch: float = 1.0) -> Floats:
    """Smooth noise of unit variance; a grain is so many texels high, `stretch` times as wide."""
    rows = max(2, int(TEXTURE_SIZE / grain))
    columns = max(2, int(TEXTURE_SIZE / (grain * stretch)))
    knots = rng.standard_normal((rows, columns), dtype=np.float32)
    size = (TEXTURE_SIZE, TEXTURE_SIZE)
    return cv2.resize(knots, size, interpolation=cv2.INTER_CUBIC).astype(np.float32, copy=False)


def _paint_skin(
    head: Head,
    attributes: Attributes,
    hair: HairStyle,
    hair_colour: Floats,
    rng: np.random.Generator,
    looks: Looks,
) -> Floats:
    base = _skin_colour(attributes, rng)
    canvas = _Canvas(head, base)
    _paint_blemishes(canvas, attributes, rng)
    if "spots" in looks:
        _paint_spots(canvas, rng)
    paint_lips = _paint_pale_lips if "pale lips" in looks else _paint_lips
    paint_lips(canvas, head, attributes, base, rng)
    _paint_eye_rims(canvas, head, attributes, rng)
    brow_colour = hair_colour
    if "hollows" in looks:
        brow_colour = _paint_hollows(canvas, hair_colour, rng)
    _paint_brows(canvas, attributes, base, brow_colour, rng)
    _paint_beard(canvas, head, attributes, hair_colour, rng)
    _paint_scalp(canvas, attributes, hair, hair_colour, rng)
    _paint_clothes(canvas, rng)
    nostrils = sum(
        _bump(np.hypot(canvas.x * side - 0.12, (canvas.y + 0.72) * 1.2), 0.055) for side in (1, -1)
    )
    canvas.texture[..., TEXTURE_OCCLUSION] = 1 - 0.8 * np.clip(1.2 * nostrils, 0, 1)
    return np.ascontiguousarray(canvas.texture.clip(0.002, 1.5), dtype=np.float32)


def _skin_colour(attributes: Attributes, rng: np.random.Generator) -> Floats:
    position = attributes.skin_tone * (len(SKIN_COLOURS) - 1)
    lower = min(int(position), len(SKIN_COLOURS) - 2)
    share = position - lower
    colour = SKIN_COLOURS[lower] * (1 - share) + SKIN_COLOURS[lower + 1] * share
    varied: Floats = (colour * np.exp(rng.normal(0, 0.05, 3))).astype(np.float32)
    return varied


def _paint_blemishes(canvas: _Canvas, attributes: Attributes, rng: np.random.Generator) -> None:
    """Uneven colour, red cheeks and nose, freckles, moles, shadows under the eyes."""
    x, y = canvas.x, canvas.y
    pores = rng.uniform(0, 0.05)
    unevenness = 0.05 * _noise(rng, 40) + 0.04 * _noise(rng, 12) + pores * _noise(rng, 3)
    canvas.texture[..., :3] *= np.exp(unevenness)[..., None]

    cheeks = _bump((np.abs(x) - 0.6) / 0.33, 1) * _bump((y + 0.65) / 0.33, 1)
    nose = 0.7 * _bump(x / 0.2, 1) * _bump((y + 0.6) / 0.2, 1)
    redness = rng.uniform(0, 0.35) * (0.3 + 0.7 * attributes.skin_tone)
    canvas.darken((cheeks + nose) * canvas.front * redness, (-0.25, 0.3, 0.3))

    if rng.random() < 0.25 and attributes.skin_tone > 0.5:
        freckles = np.clip(_noise(rng, 2.2) - 1.4, 0, 1) * _bump((y + 0.4) / 0.5, 1)
        canvas.darken(freckles * canvas.front, 0.5 * rng.uniform(0.3, 1))
    for _ in range(rng.poisson(1.5)):
        centre_x, centre_y = rng.uniform(-0.9, 0.9), rng.uniform(-1.6, 0.9)
        mole = 1.6 * _bump(np.hypot(x - centre_x, y - centre_y), rng.uniform(0.012, 0.03))
        canvas.darken(mole * canvas.front, 0.65)
    under_eyes = _bump((np.abs(x) - 0.5) / 0.24, 1) * _bump((y + 0.22) / 0.1, 1)
    canvas.darken(under_eyes * rng.uniform(0, 0.35), (0.5, 0.65, 0.55))


def _paint_lips(
    canvas: _Canvas, head: Head, attributes: Attributes, base: Floats, rng: np.random.Generator
) -> None:
    colour: NDArray[np.floating]
    if attributes.skin_tone > 0.4:
        colour = base * np.array([1.0, 0.62, 0.62]) * rng.uniform(0.75, 1.05)
    else:
        colour = base * np.array([1.1, 0.8, 0.8]) * rng.uniform(0.8, 1.2)
    if attributes.gender < 0.5 and attributes.age > 0.3 and rng.random() < 0.4:  # lipstick
        colour = _linear(np.clip(np.array([0.72, 0.25, 0.28]) + rng.normal(0, 0.12, 3), 0.05, 0.95))
        colour = colour * (0.3 + 0.7 * attributes.skin_tone)
    canvas.cover(1.5 * head.lips * rng.uniform(0.45, 1), colour)
    canvas.texture[..., TEXTURE_SPECULAR] = 1 + head.lips * rng.uniform(0, 2)


def _paint_pale_lips(
    canvas: _Canvas, head: Head, attributes: Attributes, base: Floats, rng: np.random.Generator
) -> None:
    """Lips hardly of another colour than the skin; lipstick less often and less vivid."""
    redness = rng.uniform(0, 1) ** 1.3
    colour = base * (1 - redness * np.array([0.1, 0.4, 0.38])) * rng.uniform(0.8, 1.08)
    strength = rng.uniform(0.3, 0.9)
    if attributes.gender < 0.5 and attributes.age > 0.3 and rng.random() < 0.3:
        lipstick = np.array([0.66, 0.3, 0.32]) + rng.normal(0, 0.08, 3)
        colour = _linear(np.clip(lipstick, 0.05, 0.9)) * (0.3 + 0.7 * attributes.skin_tone)
    canvas.cover(1.3 * head.lips * strength, colour)
    canvas.texture[..., TEXTURE_SPECULAR] = 1 + head.lips * rng.uniform(0, 1.2)


def _paint_spots(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Light and dark that no two people share."""
    field = sum(
        rng.uniform(0, most) * _noise(rng, grain)
        for most, grain in ((0.28, 50), (0.2, 22), (0.15, 10), (0.12, 4))
    )
    canvas.texture[..., :3] *= np.exp(np.clip(field, -0.8, 0.5))[..., None]


def _paint_hollows(canvas: _Canvas, hair_colour: Floats, rng: np.random.Generator) -> Floats:
    """Darken sockets, lash lines, folds beside the nose and bags; return the brows' colour."""
    x, y = np.abs(canvas.x), canvas.y
    socket = _bump(np.hypot((x - 0.45) / 0.42, (y - 0.12) / 0.2), 1.0)
    socket = socket + 0.8 * _bump(np.hypot((x - 0.22) / 0.13, (y - 0.02) / 0.2), 1.0)
    canvas.darken(socket * canvas.front * rng.uniform(0, 0.55), (0.85, 1.0, 1.0))
    rim = _bump(np.hypot((x - 0.51) / 0.26, (y - 0.01) / 0.135) - 1, 0.16)
    rim = rim * (y > 0.02) * (x > 0.22) * (x < 0.82)
    canvas.darken(rim * canvas.front * rng.uniform(0.3, 0.85), 1.0)
    along = np.clip((-0.6 - y) / 0.5, 0, 1)
    fold = _bump(x - (0.24 + 0.26 * along), 0.045) * ((y < -0.58) & (y > -1.12))
    canvas.darken(fold * canvas.front * rng.uniform(0, 0.5), (0.8, 1.0, 1.0))
    bag = _bump(y + 0.2 - 0.1 * ((x - 0.5) / 0.3) ** 2, 0.035) * (np.abs(x - 0.48) < 0.26)
    canvas.darken(bag * canvas.front * rng.uniform(0, 0.35), (0.8, 1.0, 1.0))
    if rng.random() < 0.75:
        return np.minimum(hair_colour, rng.uniform(0.02, 0.1)) * np.ones(3, np.float32)
    return hair_colour


def _paint_eye_rims(
    canvas: _Canvas, head: Head, attributes: Attributes, rng: np.random.Generator
) -> None:
    """Lids, and lashes as a dark line around the eyes, stronger above."""
    canvas.darken(1.3 * head.eyelids, 0.6 * rng.uniform(0, 0.5))
    darkness = rng.uniform(0.2, 0.9) * (1.2 if attributes.gender < 0.5 else 0.8)
    lashes = np.zeros_like(canvas.x)
    for side in (1, -1):
        x = canvas.x * side
        height = np.where(canvas.y > 0, 0.14, 0.135)
        from_rim = np.hypot((x - 0.51) / 0.255, (canvas.y - 0.01) / height) - 1
        lashes += np.where((x > 0.2) & (x < 0.85), _bump(from_rim, 0.14), 0)
    lashes *= np.where(canvas.y > 0, 1, 0.5) * canvas.front
    canvas.darken(lashes * darkness * 0.75, 1.0)


def _paint_brows(
    canvas: _Canvas,
    attributes: Attributes,
    base: Floats,
    hair_colour: Floats,
    rng: np.random.Generator,
) -> None:
    inner_height = rng.uniform(0.22, 0.30)
    arch_height = inner_height + rng.uniform(0.03, 0.12)
    outer_height = inner_height + rng.uniform(-0.12, 0.03)
    thickness = rng.uniform(0.03, 0.075) * (1.15 if attributes.gender > 0.5 else 0.9)
    inner_end, outer_end = rng.uniform(0.12, 0.22), rng.uniform(0.74, 0.88)
    strands = 0.65 + 0.35 * np.clip(0.6 * _noise(rng, 2.5) + 0.5, 0, 1)
    colour = 0.7 * hair_colour + 0.04 * base
    # light brows would not be seen at all
    opacity = rng.uniform(0.65, 1) * (0.6 if hair_colour.mean() > 0.3 else 1)
    for side in (1, -1):
        x = canvas.x * side
        arch = np.clip(1 - ((x - 0.6) / 0.43) ** 2, 0, 1)
        outwards = np.clip((x - 0.6) / 0.3, 0, 1)
        centre = (
            inner_height
            + (arch_height - inner_height) * arch
            + (outer_height - inner_height) * outwards
            + 0.01
        )
        along = np.clip((x - inner_end) / (outer_end - inner_end), 0, 1)
        profile = (0.75 + 0.96 * np.sqrt(along) * (1 - along)) * np.where(
            along > 0.75, 1 - 3 * (along - 0.75), 1
        )
        half = np.maximum(thickness * profile, 0.005)
        ends = np.clip((x - inner_end) / 0.05, 0, 1) * np.clip((outer_end - x) / 0.06, 0, 1)
        mask = np.clip(1.5 - np.abs(canvas.y - centre) / half, 0, 1) * ends
        canvas.cover(mask * canvas.front * strands * opacity, colour)


def _paint_beard(
    canvas: _Canvas,
    head: Head,
    attributes: Attributes,
    hair_colour: Floats,
    rng: np.random.Generator,
) -> None:
    if attributes.beard == "none":
        return
    x, y, z = canvas.x, canvas.y, canvas.z
    off_lips = 1 - np.clip(2 * head.lips, 0, 1)
    moustache = 1.6 * _bump((y + 0.92 + 0.1 * x**2) / 0.10, 1)
    moustache = np.clip(moustache * np.clip((0.5 - np.abs(x)) / 0.1, 0, 1), 0, 1) * off_lips
    jaw = np.clip((-1.0 - y + 0.55 * np.clip(np.abs(x) - 0.45, 0, 2)) / 0.15, 0, 1)
    jaw = jaw * np.clip((y + 2.05) / 0.2, 0, 1) * off_lips * np.clip((z + 0.9) / 0.3, 0, 1)
    chin = jaw * np.clip((0.38 - np.abs(x)) / 0.1, 0, 1)
    mask, low, high = {
        "stubble": (np.maximum(jaw, moustache), 0.15, 0.45),
        "full": (np.maximum(jaw, moustache), 0.6, 0.95),
        "moustache": (moustache, 0.6, 0.95),
        "goatee": (np.maximum(chin, moustache), 0.5, 0.95),
    }[attributes.beard]
    strands = np.clip(0.75 + 0.35 * _noise(rng, 2), 0.3, 1)
    mask = mask * rng.uniform(low, high) * canvas.front * strands
    canvas.cover(mask, 0.9 * hair_colour)
    canvas.texture[..., TEXTURE_SPECULAR] *= 1 - np.clip(mask, 0, 1)


def _paint_scalp(
    canvas: _Canvas,
    attributes: Attributes,
    style: HairStyle,
    hair_colour: Floats,
    rng: np.random.Generator,
) -> None:
    points = np.stack([canvas.x, canvas.y, canvas.z], -1)
    depth = _hair_depth(points, style)
    mask = np.where(depth > -0.5, np.clip(depth / 0.06 + 0.35 * _noise(rng, 4), 0, 1), 0)
    if attributes.hair == "bald":
        mask = mask * (rng.uniform(0, 0.4) if rng.random() < 0.6 else 0.0)
    stretch = 0.15 * rng.choice([1, 6])
    strands = np.exp(0.3 * _noise(rng, 2, stretch) + 0.2 * _noise(rng, 8))
    canvas.cover(mask, hair_colour * strands[..., None])
    canvas.texture[..., TEXTURE_SPECULAR] *= 1 - 0.7 * mask


def _paint_clothes(canvas: _Canvas, rng: np.random.Generator) -> None:
    if rng.random() < 0.8:
        mask = np.clip((-2.15 - canvas.y + 0.15 * np.abs(canvas.x)) / 0.04, 0, 1)
        canvas.cover(mask, _linear(rng.random(3)))
        canvas.texture[..., TEXTURE_SPECULAR] *= 1 - mask


def _sample_palette(
    attributes: Attributes, hair_colour: Floats, looks: Looks, rng: np.random.Generator
) -> Floats:
    """Colours of everything but skin, in the order of `rasterize.SCLERA_COLOUR` and so on."""
    white = rng.uniform(0.4, 0.7)
    sclera = white * np.array([1, rng.uniform(0.9, 0.97), rng.uniform(0.84, 0.96)])
    if rng.random() < 1 - attributes.ancestry_european:
        iris = IRIS_COLOURS[rng.choice(7, p=[0.4, 0.3, 0.2, 0.04, 0.02, 0.02, 0.02])]
    else:
        iris = IRIS_COLOURS[rng.choice(7, p=[0.08, 0.16, 0.2, 0.14, 0.12, 0.18, 0.12])]
    if "dull eyes" in looks:
        sclera, iris = rng.uniform(0.35, 0.85) * sclera, 0.6 * np.asarray(iris)
    teeth = _linear(np.full(3, rng.uniform(0.72, 0.92)))
    teeth = teeth * np.array([1, rng.uniform(0.9, 0.98), rng.uniform(0.75, 0.95)])
    pupil, tongue, cavity = (0.01, 0.01, 0.012), _linear((0.7, 0.33, 0.33)), (0.07, 0.015, 0.012)
    rows = [sclera, iris, pupil, teeth, tongue, 0.8 * hair_colour, cavity]
    return np.array(rows, np.float32)


def _sample_glasses(rng: np.random.Generator) -> Glasses:
    return Glasses(
        half_width=float(rng.uniform(0.3, 0.4)),
        half_height=float(rng.uniform(0.2, 0.34)),
        roundness=float(rng.choice([2, 3, 6])),
        thickness=float(rng.choice([0.025, 0.025, 0.05])),
        colour=(rng.random(3) * rng.choice([0.15, 0.5])).astype(np.float32),
    )
