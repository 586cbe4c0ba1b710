"""Everything around the head: pose, light, background, and what a camera does to the picture."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fergcn.rendering.rasterize import Lighting

Floats = NDArray[np.float32]

BACKGROUND_HALF_WIDTH = 4.0
"""The background picture reaches this far from between the eyes, in eye distances."""

BACKGROUND_SIZE = 256
MAX_ANGLE = np.deg2rad(24)
"""Beyond this no face detector's alignment would work."""


def sample_pose_track(num_frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw how a head is turned over time.

    Returns:
        `(num_frames, 3)` yaw, pitch and roll in radians.
    """
    mean = np.deg2rad(rng.normal(0, (11, 7, 7)))
    steps = np.deg2rad(rng.normal(0, 1.0, (num_frames + 4, 3)))
    kernel = np.ones(5) / 5
    smooth = np.stack([np.convolve(column, kernel, "valid") for column in steps.T], axis=1)
    track = mean + rng.uniform(0.1, 1.6) * np.cumsum(smooth, axis=0)
    return np.clip(track, -MAX_ANGLE, MAX_ANGLE)


def sample_lighting(rng: np.random.Generator) -> Lighting:
    """Draw one or two lights from in front, and light from above and below."""

    def tint() -> NDArray[np.float64]:
        return np.exp(rng.normal(0, 0.12, 3))

    azimuth = np.deg2rad(rng.uniform(-75, 75))
    directions = [_direction(azimuth, np.deg2rad(rng.uniform(-5, 65)))]
    colours = [tint() * rng.uniform(0.35, 1.5)]
    if rng.random() < 0.5:  # a weaker one from the other side
        directions.append(_direction(-azimuth + rng.normal(0, 0.5), rng.uniform(-0.3, 0.8)))
        colours.append(tint() * rng.uniform(0.05, 0.5))
    return Lighting(
        directions=np.array(directions, np.float32),
        colours=np.array(colours, np.float32),
        ground=(tint() * rng.uniform(0.1, 0.55)).astype(np.float32),
        sky=(tint() * rng.uniform(0.3, 0.95)).astype(np.float32),
        wrap=float(rng.uniform(0.1, 0.5)),
        shadow_strength=float(rng.uniform(0.3, 1)) if rng.random() < 0.6 else 0.0,
    )


def harder_light(light: Lighting, rng: np.random.Generator) -> Lighting:
    """Often a lamp above with deep shadows, or a flash (look `lamps`)."""
    kind = rng.random()
    directions, colours = light.directions.copy(), light.colours.copy()
    if kind < 0.45:
        directions[0] = _direction(np.deg2rad(rng.normal(0, 30)), np.deg2rad(rng.uniform(35, 75)))
        colours[0] *= rng.uniform(1.0, 2.0)
        return light._replace(
            directions=directions,
            colours=colours,
            ground=light.ground * np.float32(rng.uniform(0.3, 0.9)),
            sky=light.sky * np.float32(rng.uniform(0.3, 0.9)),
            wrap=float(rng.uniform(0, 0.3)),
            shadow_strength=float(rng.uniform(0.5, 1)),
        )
    if kind < 0.7:
        directions[0] = _direction(np.deg2rad(rng.normal(0, 8)), np.deg2rad(rng.uniform(0, 20)))
        colours[0] *= rng.uniform(1.2, 2.2)
        return light._replace(
            directions=directions,
            colours=colours,
            ground=light.ground * np.float32(0.4),
            sky=light.sky * np.float32(0.5),
            wrap=float(rng.uniform(0, 0.2)),
        )
    return light


def _direction(azimuth: float, elevation: float) -> tuple[float, float, float]:
    return (
        float(np.sin(azimuth) * np.cos(elevation)),
        float(np.sin(elevation)),
        float(np.cos(azimuth) * np.cos(elevation)),
    )


def sample_background(rng: np.random.Generator) -> Floats:
    """Draw what is behind the head: a wall, a gradient, blurred clutter or shapes.

    Returns:
        `(BACKGROUND_SIZE, BACKGROUND_SIZE, 3)` linear light.
    """
    size = BACKGROUND_SIZE
    base = rng.random(3) ** 1.2
    # rooms are mostly greyish
    base = base.mean() + (base - base.mean()) * rng.choice([0.25, 1.0])
    kind = rng.choice(["wall", "gradient", "clutter", "shapes"])
    picture = np.ones((size, size, 3), np.float32) * base.astype(np.float32)
    if kind == "gradient":
        ramp = np.linspace(0, 1, size)[:, None, None]
        ramp = ramp if rng.random() < 0.5 else ramp.transpose(1, 0, 2)
        picture = (picture * (1 - ramp) + rng.random(3) * ramp).astype(np.float32)
    elif kind != "wall":
        knots = int(rng.choice([4, 8, 16, 32]))
        colours = rng.random((knots, knots, 3), dtype=np.float32)
        clutter = cv2.resize(colours, (size, size), interpolation=cv2.INTER_CUBIC)
        picture = np.ascontiguousarray(0.5 * picture + 0.5 * clutter, dtype=np.float32)
        if kind == "shapes":
            for _ in range(rng.integers(3, 14)):
                _draw_shape(picture, rng)
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 5)).astype(np.float32)
    light: Floats = np.clip(picture, 0, 1) ** np.float32(2.2)
    return light


def _draw_shape(picture: Floats, rng: np.random.Generator) -> None:
    size = picture.shape[0]
    corner, opposite = rng.integers(0, size, (2, 2)).tolist()
    colour = rng.random(3).tolist()
    if rng.random() < 0.6:
        cv2.rectangle(picture, corner, opposite, colour, -1)
    else:
        cv2.circle(picture, corner, int(rng.integers(5, size // 4)), colour, -1)


def place_background(background: Floats, matrix: NDArray[np.floating], size: int) -> Floats:
    """Cut the background that a crop sees.

    Args:
        background: `(B, B, 3)`.
        matrix: `(2, 3)` from the picture plane in eye distances to crop pixels.
        size: side of the crop.

    Returns:
        `(size, size, 3)` linear light.
    """
    scale = 2 * BACKGROUND_HALF_WIDTH / (background.shape[0] - 1)
    to_plane = np.array(
        [[scale, 0, -BACKGROUND_HALF_WIDTH], [0, scale, -BACKGROUND_HALF_WIDTH], [0, 0, 1]]
    )
    crop = cv2.warpAffine(
        background, matrix @ to_plane, (size, size), borderMode=cv2.BORDER_REPLICATE
    )
    return np.ascontiguousarray(crop, dtype=np.float32)


@dataclass(frozen=True)
class Frame:
    """Where the camera's picture ends, in eye distances from between the eyes, y down."""

    left: float
    top: float
    right: float
    bottom: float


def sample_frame(rng: np.random.Generator) -> Frame | None:
    """Draw a tightly cropped picture, as in many photo collections; mostly none."""
    if rng.random() > 0.15:
        return None
    left, top, right, bottom = rng.uniform((-1.6, -1.1, 1.1, 1.8), (-1.1, -0.65, 1.6, 2.3))
    return Frame(float(left), float(top), float(right), float(bottom))


def repeat_border(image: Floats, frame: Frame, matrix: NDArray[np.floating]) -> Floats:
    """Repeat the picture's border outside the picture, as alignment does.

    Args:
        image: `(S, S, 3)` crop.
        frame: where the picture ends.
        matrix: `(2, 3)` from the picture plane in eye distances to crop pixels.
    """
    size = image.shape[0]
    inverse = cv2.invertAffineTransform(matrix)
    rows, columns = np.mgrid[:size, :size]
    plane = np.stack([columns, rows, np.ones_like(rows)], -1) @ inverse.T
    plane = np.clip(plane, (frame.left, frame.top), (frame.right, frame.bottom))
    source = (plane @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    repeated = cv2.remap(
        image,
        np.ascontiguousarray(source[..., 0]),
        np.ascontiguousarray(source[..., 1]),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(repeated, np.float32)


@dataclass(frozen=True)
class Degradation:
    """What camera and storage do to a picture, the same for a whole clip."""

    exposure: float
    """Factor on the automatic exposure."""
    white_balance: Floats
    """`(3,)` factor on each colour."""
    gamma: float
    contrast: float
    grey: bool
    blur: float
    """Standard deviation in pixels of a 128-pixel face."""
    noise: float
    """Standard deviation in grey levels of 255."""
    jpeg_quality: int | None


def sample_degradation(rng: np.random.Generator) -> Degradation:
    """Draw a camera: mostly a decent one, sometimes a bad one."""
    return Degradation(
        exposure=float(np.exp(rng.normal(0, 0.28))),
        white_balance=np.exp(rng.normal(0, 0.07, 3)).astype(np.float32),
        gamma=float(rng.uniform(0.87, 1.18)),
        contrast=float(rng.uniform(0.78, 1.22)),
        grey=bool(rng.random() < 0.25),
        blur=float(
            rng.choice([0, rng.uniform(0.3, 0.7), rng.uniform(0.7, 1.6)], p=[0.4, 0.4, 0.2])
        ),
        noise=float(rng.choice([0, rng.uniform(0.5, 2), rng.uniform(2, 7)], p=[0.3, 0.55, 0.15])),
        jpeg_quality=(
            None
            if rng.random() < 0.5
            else int(rng.choice([rng.integers(60, 95), rng.integers(30, 60)]))
        ),
    )


AUTO_EXPOSURE_TARGET = 0.25
"""Mean linear light that a camera aims at."""

AUTO_EXPOSURE_STRENGTH = 0.6
"""How far it goes there: less than 1, so dark skin stays darker than light skin."""


def auto_exposure(image: Floats, on_head: NDArray[np.bool_]) -> float:
    """Factor that a camera with face metering would apply.

    Args:
        image: `(H, W, 3)` linear light.
        on_head: `(H, W)` where the head is.
    """
    mean = float(image[on_head].mean()) if on_head.any() else float(image.mean())
    return float((AUTO_EXPOSURE_TARGET / max(mean, 1e-3)) ** AUTO_EXPOSURE_STRENGTH)


SHOULDER = 0.8
"""Linear light above which a camera compresses instead of clipping."""


def degrade(
    image: Floats, exposure: float, camera: Degradation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Turn linear light into the picture a camera would store.

    Args:
        image: `(S, S, 3)` linear light.
        exposure: the automatic exposure of the clip.
        camera: the camera.
        rng: source of the noise.

    Returns:
        `(S, S, 3)` RGB.
    """
    light = np.clip(image * (exposure * camera.exposure * camera.white_balance), 0, 4)
    above = np.maximum(light - SHOULDER, 0)
    light = np.minimum(light, SHOULDER) + (1 - SHOULDER) * (1 - np.exp(-above / (1 - SHOULDER)))
    levels = light ** np.float32(camera.gamma / 2.2)
    levels = 255 * ((levels - 0.5) * np.float32(camera.contrast) + 0.5)
    if camera.grey:
        luma = levels @ np.array([0.299, 0.587, 0.114], np.float32)
        levels = np.repeat(luma[..., None], 3, axis=2)
    if camera.blur > 0:
        sigma = camera.blur * image.shape[0] / 128
        levels = cv2.GaussianBlur(levels, (0, 0), sigma)
    if camera.noise > 0:
        channels = 1 if camera.grey else 3
        shape = (*image.shape[:2], channels)
        levels = levels + camera.noise * rng.standard_normal(shape, dtype=np.float32)
    stored: NDArray[np.uint8] = np.clip(levels, 0, 255).astype(np.uint8)
    if camera.jpeg_quality is None:
        return stored
    quality = [cv2.IMWRITE_JPEG_QUALITY, camera.jpeg_quality]
    _, encoded = cv2.imencode(".jpg", stored, quality)
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
