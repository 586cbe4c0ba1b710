"""The timeline: probabilities, intensity and segments of every face over the time of a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fergcn.expressions import one_line

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from fergcn.analysis.collect import Analysis

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
NO_FACE_COLOUR = "#9A9A9A"

PANEL_TOP = 1.2
"""Upper end of a panel; the segments lie between probability 1 and this."""
MAX_TRACKS = 12
"""More tracks than this are not drawn: the longest ones are, the title names the number."""


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


def plot_timeline(analysis: Analysis) -> Figure:
    """Draw one panel for each face.

    The stacked areas are the probabilities, neutral on top; the line is the intensity. Bars above a
    panel are the segments, from onset to offset, with a triangle at the apex. Hatched grey is time
    without this face.

    Args:
        analysis: what `analyze` returned; frames may be left out at regular intervals.

    Returns:
        A figure of 11 inches' width with an Agg canvas; no state of pyplot is touched.
    """
    frames = analysis.frames
    track_ids = longest_tracks(frames)
    num_panels = max(1, len(track_ids))
    height = 1.1 + 2.1 * num_panels
    figure = Figure(figsize=(11, height), facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(num_panels, 1, sharex=True, squeeze=False)[:, 0]
    step, frame_s = frame_step(frames), _frame_duration(frames)
    end_s = float(frames["time_s"].max()) + frame_s
    for panel, track_id in zip(panels, track_ids, strict=False):
        track = frames[frames["track_id"] == track_id]
        segments = analysis.segments[analysis.segments["track_id"] == track_id]
        _draw_track(panel, track, segments, analysis.expressions, end_s, frame_s, step)
        panel.set_ylabel(f"face {track_id}\nprobability")
    if not track_ids:
        panels[0].set_facecolor("#EEEEEE")
        panels[0].text(
            0.5, 0.5, "no face found", ha="center", va="center", transform=panels[0].transAxes
        )
        panels[0].set_yticks([])
    panels[-1].set_xlim(0, end_s)
    panels[-1].set_xlabel("time in s")

    title = _drawable(str(analysis.summary["video"]["file"])).replace("$", r"\$")
    num_tracks = analysis.summary["counts"]["tracks"]
    if num_tracks > len(track_ids):
        title += f"  (the {len(track_ids)} longest of {num_tracks} tracks)"
    # Inches, not fractions of the figure: title and legend keep their room whatever its height.
    figure.text(0.07, 1 - 0.1 / height, title, ha="left", va="top", fontsize=11, weight="bold")
    figure.legend(
        handles=_legend(analysis.expressions),
        loc="upper left",
        bbox_to_anchor=(0.065, 1 - 0.27 / height),
        ncols=11,
        frameon=False,
        fontsize=8,
        handlelength=1.2,
        columnspacing=1.1,
        borderaxespad=0.2,
    )
    figure.subplots_adjust(
        left=0.07, right=0.985, top=1 - 0.62 / height, bottom=0.45 / height, hspace=0.2
    )
    return figure


def _draw_track(
    panel: Axes,
    track: pd.DataFrame,
    segments: pd.DataFrame,
    expressions: Sequence[str],
    end_s: float,
    frame_s: float,
    step: int,
) -> None:
    order = [name for name in expressions if name != "neutral"]
    order += [name for name in expressions if name == "neutral"]
    time_s = track["time_s"].to_numpy()
    cuts = np.flatnonzero(np.diff(track["frame_index"].to_numpy()) > step) + 1
    absent_from = 0.0
    for run in np.split(np.arange(len(track)), cuts):
        # Every value holds until the next frame, so that a single frame has a width, too.
        edges = np.append(time_s[run], time_s[run[-1]] + frame_s)
        held = np.append(run, run[-1])
        panel.stackplot(
            edges,
            track[order].to_numpy()[held].T,
            colors=[EXPRESSION_COLOURS[name] for name in order],
            edgecolor="white",
            linewidth=0.3,
        )
        panel.plot(edges, track["intensity"].to_numpy()[held], color="black", linewidth=1.3)
        _draw_absence(panel, absent_from, edges[0], frame_s)
        absent_from = edges[-1]
    _draw_absence(panel, absent_from, end_s, frame_s)

    for segment in segments.to_dict("records"):
        onset_s, offset_s = segment["onset_s"], segment["offset_s"] + frame_s
        panel.axvspan(
            onset_s, offset_s, 1 / PANEL_TOP, 1, color=EXPRESSION_COLOURS[segment["expression"]]
        )
        for edge_s in (onset_s, offset_s):
            panel.plot(
                [edge_s, edge_s], [0, PANEL_TOP], color="black", linewidth=0.8, linestyle=":"
            )
        panel.plot(
            segment["apex_s"] + frame_s / 2,
            segment["peak_intensity"],
            marker="v",
            markersize=7,
            markerfacecolor="white",
            markeredgecolor="black",
            zorder=5,
            clip_on=False,
        )
        # A name that would not fit its bar is left out; the colour still says it.
        if (offset_s - onset_s) / end_s * 165 > len(segment["expression"]):
            light = segment["expression"] not in ("sadness", "anger", "disgust")
            panel.text(
                (onset_s + offset_s) / 2,
                (1 + PANEL_TOP) / 2,
                segment["expression"],
                ha="center",
                va="center_baseline",
                fontsize=8,
                color="black" if light else "white",
            )
    panel.axhline(1, color="black", linewidth=0.6)
    panel.set_ylim(0, PANEL_TOP)
    panel.set_yticks([0, 0.5, 1])
    panel.spines[["top", "right"]].set_visible(False)


def _draw_absence(panel: Axes, start_s: float, stop_s: float, frame_s: float) -> None:
    if stop_s - start_s > frame_s / 2:
        panel.axvspan(
            start_s,
            stop_s,
            0,
            1 / PANEL_TOP,
            facecolor="#F2F2F2",
            edgecolor=NO_FACE_COLOUR,
            hatch="///",
        ).set_linewidth(0)


def _frame_duration(frames: pd.DataFrame) -> float:
    """Median time between two frames, in seconds."""
    steps = np.diff(frames["time_s"].drop_duplicates().to_numpy())
    return float(np.median(steps)) if len(steps) else 0.04


def _legend(expressions: Sequence[str]) -> list[Patch | Line2D]:
    handles: list[Patch | Line2D] = [
        Patch(facecolor=EXPRESSION_COLOURS[name], label=name) for name in expressions
    ]
    apex = Line2D(
        [], [], marker="v", color="none", markerfacecolor="white", markeredgecolor="black"
    )
    apex.set_label("apex")
    return [
        *handles,
        Line2D([], [], color="black", linewidth=1.3, label="intensity"),
        apex,
        Patch(facecolor="#F2F2F2", edgecolor=NO_FACE_COLOUR, hatch="////", label="no face"),
    ]


def _drawable(text: str) -> str:
    """Boxes for letters that the font lacks: matplotlib warns of them, and stops at some."""
    font = get_font(findfont(FontProperties(weight="bold")))
    return "".join(letter if font.get_char_index(ord(letter)) else "□" for letter in one_line(text))
