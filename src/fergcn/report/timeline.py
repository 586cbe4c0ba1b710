"""The timeline: probabilities, intensity and segments of every face over the time of a video.

Drawn with NumPy and OpenCV: matplotlib takes as long for it as the network for half a short clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from fergcn.expressions import one_line

if TYPE_CHECKING:
    import pandas as pd

    from fergcn.analysis.collect import Analysis

Picture = NDArray[np.uint8]
Floats = NDArray[np.float64]

EXPRESSION_COLOURS = {
    "anger": "#D55E00",
    "contempt": "#CC79A7",
    "disgust": "#009E73",
    "fear": "#56B4E9",
    "happiness": "#F0E442",
    "sadness": "#0072B2",
    "surprise": "#E69F00",
    "neutral": "#E4E4E4",
}
"""One fixed colour for each expression: the palette of Okabe and Ito, which the colour-blind can
tell apart, with light grey for neutral."""
ABSENCE_COLOURS = ("#F2F2F2", "#C6C6C6")
"""Of the ground and of the stripes where the face is not there."""

PANEL_TOP = 1.2
"""Upper end of a panel; the segments lie between probability 1 and this."""
MAX_TRACKS = 12
"""More tracks than this are not drawn: the longest ones are, the title names the number."""

WIDTH, PANEL_HEIGHT = 1540, 264
LEFT, RIGHT, TOP, GAP, BOTTOM = 108, 24, 88, 40, 64
"""Room around and between the panels, in pixels."""
FINE = 2
"""Panels are drawn this many times as large, then made smaller: that smooths every edge."""
TICKS_S = (
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    20,
    30,
    60,
    120,
    300,
    600,
    1200,
    1800,
    3600,
)
MAX_TICKS = 11


def longest_tracks(frames: pd.DataFrame, limit: int = MAX_TRACKS) -> list[int]:
    """Choose the tracks to draw.

    Args:
        frames: as `Analysis.frames`.
        limit: how many at most.

    Returns:
        The `limit` tracks with the most frames, in ascending order.
    """
    counts = frames["track_id"].value_counts()  # most frequent first; rows without a track left out
    return sorted(int(track_id) for track_id in counts.index[:limit])


def frame_step(frames: pd.DataFrame) -> int:
    """Frames from one that is there to the next one: 1, unless some were left out.

    Args:
        frames: as `Analysis.frames`.
    """
    steps = np.diff(frames["frame_index"].drop_duplicates().to_numpy())
    return int(np.median(steps)) if len(steps) else 1


def draw_timeline(analysis: Analysis) -> Image.Image:
    """Draw one panel for each face.

    The stacked areas are the probabilities, neutral on top; the line is the intensity. Bars above a
    panel are the segments, from onset to offset, with a triangle at the apex. Striped grey is time
    without this face.

    Args:
        analysis: what `analyze` returned; frames may be left out at regular intervals.

    Returns:
        An RGB picture, 1540 pixels wide.
    """
    frames = analysis.frames
    track_ids = longest_tracks(frames)
    num_panels = max(1, len(track_ids))
    step, frame_s = frame_step(frames), _frame_duration(frames)
    end_s = float(frames["time_s"].max()) + frame_s
    height = TOP + num_panels * (PANEL_HEIGHT + GAP) - GAP + BOTTOM
    page = np.full((height, WIDTH, 3), 255, dtype=np.uint8)
    tops = [TOP + position * (PANEL_HEIGHT + GAP) for position in range(num_panels)]
    for top, track_id in zip(tops, track_ids, strict=False):
        panel = _draw_panel(
            frames[frames["track_id"] == track_id],
            analysis.segments[analysis.segments["track_id"] == track_id],
            analysis.expressions,
            end_s,
            frame_s,
            step,
        )
        page[top : top + PANEL_HEIGHT, LEFT : WIDTH - RIGHT] = panel
    image = Image.fromarray(page)
    draw = ImageDraw.Draw(image)
    _draw_title(draw, analysis, len(track_ids))
    _draw_legend(image, draw, analysis.expressions)
    if not track_ids:
        area = (LEFT, TOP, WIDTH - RIGHT, TOP + PANEL_HEIGHT)
        draw.rectangle(area, fill=ABSENCE_COLOURS[0])
        middle = ((LEFT + WIDTH - RIGHT) / 2, TOP + PANEL_HEIGHT / 2)
        draw.text(middle, "no face found", "black", _font(19), anchor="mm")
    for top, track_id in zip(tops, track_ids, strict=False):
        _draw_names(draw, top, analysis.segments[analysis.segments["track_id"] == track_id], end_s)
        draw.text((LEFT - 12, top + 22), f"face {track_id}", "black", _font(17), anchor="rm")
        for probability in (0.0, 0.5, 1.0):
            y = top + round(PANEL_HEIGHT * (1 - probability / PANEL_TOP))
            draw.line([(LEFT - 6, y), (LEFT, y)], fill="black", width=2)
            draw.text((LEFT - 12, y), f"{probability:.1f}", "black", _font(17), anchor="rm")
    for top in tops:
        bottom = top + PANEL_HEIGHT
        draw.line([(LEFT, top), (LEFT, bottom), (WIDTH - RIGHT, bottom)], fill="black", width=2)
        for tick_s in _ticks(end_s):
            x = _column(tick_s, end_s)
            draw.line([(x, bottom), (x, bottom + 6)], fill="black", width=2)
            if top == tops[-1]:
                text = _clock(tick_s, end_s)
                x = min(x, WIDTH - 2 - round(draw.textlength(text, _font(17)) / 2))
                draw.text((x, bottom + 10), text, "black", _font(17), anchor="ma")
    unit = "time in s" if end_s < 120 else "time"
    middle = ((LEFT + WIDTH - RIGHT) / 2, height - 6)
    draw.text(middle, unit, "black", _font(17), anchor="md")
    return image


def _draw_panel(
    track: pd.DataFrame,
    segments: pd.DataFrame,
    expressions: Sequence[str],
    end_s: float,
    frame_s: float,
    step: int,
) -> Picture:
    """Areas, intensity and segments of one face → `(PANEL_HEIGHT, WIDTH - LEFT - RIGHT, 3)`."""
    height, width = FINE * PANEL_HEIGHT, FINE * (WIDTH - LEFT - RIGHT)
    order = [name for name in expressions if name != "neutral"]
    order += [name for name in expressions if name == "neutral"]
    colours = [ImageColor.getrgb(EXPRESSION_COLOURS[name]) for name in order]
    row_of_one = round(height * (1 - 1 / PANEL_TOP))
    panel = np.full((height, width, 3), 255, dtype=np.uint8)
    panel[row_of_one:] = _stripes(height - row_of_one, width)
    time_s = track["time_s"].to_numpy()
    probabilities, intensity = track[order].to_numpy(), track["intensity"].to_numpy()
    cuts = np.flatnonzero(np.diff(track["frame_index"].to_numpy()) > step) + 1
    for run in np.split(np.arange(len(track)), cuts):
        # Every value holds until the next frame, so that a single frame has a width, too.
        edges = np.append(time_s[run], time_s[run[-1]] + frame_s)
        held = np.append(run, run[-1])
        x = edges / end_s * width
        x[-1] = max(x[-1], x[0] + FINE)
        # From the sum of all expressions down to the first one alone: each covers the one before.
        for upper, colour in zip(probabilities[held].cumsum(1).T[::-1], colours[::-1], strict=True):
            outline = _outline(x, height * (1 - upper / PANEL_TOP), height)
            cv2.fillPoly(panel, [_sixteenths(outline)], colour, shift=4)
        points = np.stack([x, height * (1 - intensity[held] / PANEL_TOP)], 1)
        _draw_line(panel, points, 2 * FINE)

    for segment in segments.to_dict("records"):
        ends = (segment["onset_s"], segment["offset_s"] + frame_s)
        left, right = (min(int(end / end_s * width), width - FINE) for end in ends)
        colour = ImageColor.getrgb(EXPRESSION_COLOURS[segment["expression"]])
        panel[:row_of_one, left:right] = colour
        dots = np.arange(height) // (2 * FINE) % 2 == 0
        for column in (left, right):
            panel[dots, column : column + FINE] = 0
        apex = (segment["apex_s"] + frame_s / 2) / end_s * width
        _draw_apex(panel, apex, height * (1 - segment["peak_intensity"] / PANEL_TOP))
    panel[row_of_one : row_of_one + FINE // 2] = 0
    size = (width // FINE, height // FINE)
    return cast(Picture, cv2.resize(panel, size, interpolation=cv2.INTER_AREA))


def _outline(x: Floats, y: Floats, bottom: int) -> Floats:
    """The corners of the area between a curve and the bottom, `(n + 2, 2)`."""
    corners = [[x[0], bottom], *zip(x, y, strict=True), [x[-1], bottom]]
    return np.array(corners)


def _sixteenths(points: Floats) -> NDArray[np.int32]:
    """Pixels in the unit that OpenCV takes with shift 4."""
    return np.round(points * 16).astype(np.int32)


def _draw_line(panel: Picture, points: Floats, thickness: int) -> None:
    """Draw into `panel` along `(n, 2)` points x, y."""
    cv2.polylines(panel, [_sixteenths(points)], False, (0, 0, 0), thickness, cv2.LINE_8, 4)


def _draw_apex(panel: Picture, x: float, y: float) -> None:
    """Draw a white triangle that points down, its middle at x, y."""
    half = 6 * FINE
    x, y = np.clip(x, half, panel.shape[1] - half), max(y, half)
    corners = np.array([[x - half, y - half], [x + half, y - half], [x, y + half]])
    cv2.fillPoly(panel, [_sixteenths(corners)], (255, 255, 255), shift=4)
    _draw_line(panel, corners[[0, 1, 2, 0]], round(1.5 * FINE))


def _draw_names(draw: ImageDraw.ImageDraw, top: int, segments: pd.DataFrame, end_s: float) -> None:
    """Write each segment's expression into its bar; a name that would not fit is left out."""
    for segment in segments.to_dict("records"):
        left, right = (_column(segment[name], end_s) for name in ("onset_s", "offset_s"))
        name = segment["expression"]
        if draw.textlength(name, _font(16)) < right - left - 4:
            ink = "white" if name in ("sadness", "anger", "disgust") else "black"
            middle = ((left + right) / 2, top + PANEL_HEIGHT * (1 - 1 / PANEL_TOP) / 2)
            draw.text(middle, name, ink, _font(16), anchor="mm")


def _draw_title(draw: ImageDraw.ImageDraw, analysis: Analysis, num_drawn: int) -> None:
    name, rest = one_line(str(analysis.summary["video"]["file"])), ""
    num_tracks = analysis.summary["counts"]["tracks"]
    if num_tracks > num_drawn:
        rest = f"  (the {num_drawn} longest of {num_tracks} tracks)"
    font, room = _font(21, bold=True), WIDTH - LEFT - RIGHT
    if draw.textlength(name + rest, font) > room:
        while draw.textlength(f"{name}…{rest}", font) > room:
            name = name[:-1]
        name += "…"
    draw.text((LEFT, 12), name + rest, "black", font)


def _draw_legend(image: Image.Image, draw: ImageDraw.ImageDraw, expressions: Sequence[str]) -> None:
    x, y, font = LEFT, 54, _font(16)
    for label in ("probability of", *expressions, "intensity", "apex", "no face"):
        if label in expressions:
            draw.rectangle((x, y - 6, x + 20, y + 5), fill=EXPRESSION_COLOURS[label])
        elif label == "intensity":
            draw.line([(x, y), (x + 20, y)], fill="black", width=3)
        elif label == "apex":
            draw.polygon([(x + 4, y - 6), (x + 16, y - 6), (x + 10, y + 6)], "white", "black", 2)
        elif label == "no face":
            image.paste(Image.fromarray(_stripes(12, 20)), (x, y - 6))
            draw.rectangle((x, y - 6, x + 20, y + 5), outline=ABSENCE_COLOURS[1])
        if label != "probability of":
            x += 28
        draw.text((x, y), label, "black", font, anchor="lm")
        x += round(draw.textlength(label, font)) + 18


def _stripes(height: int, width: int) -> Picture:
    """Slanted grey stripes: time without the face."""
    ground, stripe = (np.array(ImageColor.getrgb(code), np.uint8) for code in ABSENCE_COLOURS)
    period = 10 * FINE
    slant = np.add.outer(np.arange(period), np.arange(period)) % period < 2 * FINE
    tile = np.where(slant[..., None], stripe, ground)
    repeats = (height // period + 1, width // period + 1, 1)
    return np.tile(tile, repeats)[:height, :width]


def _frame_duration(frames: pd.DataFrame) -> float:
    """Median time between two frames, in seconds."""
    steps = np.diff(frames["time_s"].drop_duplicates().to_numpy())
    return float(np.median(steps)) if len(steps) else 0.04


def _column(time_s: float, end_s: float) -> int:
    """Where a time lies on the page, in pixels."""
    return LEFT + round(time_s / end_s * (WIDTH - LEFT - RIGHT))


def _ticks(end_s: float) -> Floats:
    """Round times from 0 to the end, at most `MAX_TICKS`."""
    fitting = [step for step in TICKS_S if end_s / step < MAX_TICKS]
    step = fitting[0] if fitting else 3600 * np.ceil(end_s / 3600 / (MAX_TICKS - 1))
    return cast(Floats, np.arange(0, end_s + 1e-9, step))


def _clock(time_s: float, end_s: float) -> str:
    """Seconds in a short video, minutes or hours in a long one."""
    if end_s < 120:
        return f"{time_s:.5g}"
    minutes, seconds = divmod(round(time_s), 60)
    if end_s < 7200:
        return f"{minutes}:{seconds:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that matplotlib brings, without importing it, or else Pillow's, of fewer letters."""
    package = find_spec("matplotlib")
    file = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    if package is not None and package.origin is not None:
        with suppress(OSError):
            folder = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf"
            return ImageFont.truetype(folder / file, size)
    return ImageFont.load_default(size)
