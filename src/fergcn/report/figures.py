"""Figures of the benchmark report: weights, A, heatmaps. Nothing here computes results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fergcn.explain import Heatmaps

Floats = NDArray[np.float64]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""The palette of Okabe and Ito, which the colour-blind can tell apart."""


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plot_weights(weights: Mapping[str, Floats], truth: Mapping[str, Floats]) -> Figure:
    """Draw intensity weights over the steps of a clip, raw and through a sigmoid (Fig. 4).

    Args:
        weights: `(networks, N)` for each name; the line is the mean, the band the range.
        truth: `(N,)` mean true intensity for each name, where it is known; drawn dashed.
    """
    figure = _figure(9, 3.4)
    raw, squashed = figure.subplots(1, 2)
    for (name, rows), colour in zip(weights.items(), COLOURS * len(weights), strict=False):
        for panel, values in ((raw, rows), (squashed, 1 / (1 + np.exp(-rows)))):
            steps = np.arange(1, values.shape[1] + 1)
            panel.plot(steps, values.mean(0), color=colour, label=_label(name))
            panel.fill_between(
                steps, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0
            )
    raw.set_ylabel("intensity weight")
    squashed.set_ylabel("sigmoid of the weight")
    if truth:
        right = raw.twinx()
        right.set_ylabel("mean true intensity (dashed)")
        right.set_ylim(0, 1)
        for name, colour in zip(weights, COLOURS * len(weights), strict=False):
            if name in truth:
                steps = np.arange(1, len(truth[name]) + 1)
                right.plot(steps, truth[name], color=colour, linestyle="--")
    for panel in (raw, squashed):
        panel.set_xlabel("step in the clip")
        panel.spines["top"].set_visible(False)
    if len(weights) > 1:
        squashed.legend(frameon=False, fontsize=8)
    return figure


def plot_adjacency(history: Floats) -> Figure:
    """Draw A minus the identity, its start, during training.

    Args:
        history: `(epochs + 1, modules, N, N)`.
    """
    last = len(history) - 1
    epochs = sorted({0, round(last / 10), round(last / 3), last})
    modules = history.shape[1]
    changes = history - np.eye(history.shape[-1])
    limit = max(float(np.abs(changes[epochs]).max()), 1e-6)
    figure = _figure(2.6 * len(epochs) + 0.8, 2.7 * modules + 0.2)
    panels = figure.subplots(modules, len(epochs), squeeze=False)
    for module in range(modules):
        for panel, epoch in zip(panels[module], epochs, strict=True):
            image = panel.imshow(changes[epoch, module], cmap="RdBu_r", vmin=-limit, vmax=limit)
            title = "start" if epoch == 0 else f"epoch {epoch}"
            panel.set_title(title if modules == 1 else f"{title}, module {module + 1}", fontsize=9)
            panel.set_xticks([0, history.shape[-1] - 1], ["1", str(history.shape[-1])])
            panel.set_yticks([0, history.shape[-1] - 1], ["1", str(history.shape[-1])])
            panel.set_xlabel("drawn from frame", fontsize=8)
        panels[module, 0].set_ylabel("updated frame", fontsize=8)
    figure.colorbar(image, ax=panels, shrink=0.9)
    return figure


@dataclass(frozen=True)
class ExampleClip:
    """A test clip to look at."""

    title: str
    faces: NDArray[np.uint8]
    """`(N, S, S, 3)` RGB, what the network sees."""
    heatmaps: Heatmaps
    contributions: Floats | None
    """`(N,)` part of each frame in the logit of the clip's expression; None where frames have no
    parts of their own, as in a transformer."""


def plot_heatmaps(example: ExampleClip, every: int = 2) -> Figure:
    """Draw faces, and on them the heatmaps before and after the graph layer (Fig. 1 and 3).

    Args:
        example: the clip.
        every: draw each `every`-th frame.
    """
    maps = example.heatmaps
    rows: Sequence[tuple[str, Floats | None]] = [("face", None), ("before graph", maps.before)]
    if maps.after is not None:
        rows = [*rows, ("after graph", maps.after)]
    columns = range(0, len(example.faces), every)
    figure = _figure(1.3 * len(columns) + 0.5, 1.3 * len(rows) + 0.6)
    panels = figure.subplots(len(rows), len(columns), squeeze=False)
    for (title, values), line in zip(rows, panels, strict=True):
        line[0].set_ylabel(title, fontsize=9)
        for frame, panel in zip(columns, line, strict=True):
            face = example.faces[frame]
            panel.imshow(face if values is None else overlaid(face, values[frame]))
            panel.set_xticks([])
            panel.set_yticks([])
    for frame, panel in zip(columns, panels[0], strict=True):
        parts = example.contributions
        part = "" if parts is None else f": {parts[frame]:+.2f}"
        panel.set_title(f"{frame + 1}{part}", fontsize=8)
    figure.suptitle(_label(example.title), fontsize=10)
    return figure


def overlaid(
    face: NDArray[np.uint8], values: Floats, least_span: float = 1e-12
) -> NDArray[np.float64]:
    """Lay a heatmap over a grey face, coloured from its lowest to its highest value.

    Args:
        face: `(S, S, 3)` RGB.
        values: `(h, w)`; what is below zero counts as zero.
        least_span: a range of values smaller than this does not reach the hottest colour.

    Returns:
        `(S, S, 3)` RGB, 0 to 1.
    """
    from matplotlib import colormaps

    side = face.shape[0]
    positive = np.clip(values, 0, None)
    span = max(float(np.ptp(positive)), least_span)
    scaled = (positive - positive.min()) / span
    heat = cv2.resize(scaled, (side, side), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    grey = face.mean(-1, keepdims=True) / 255
    coloured: NDArray[np.float64] = 0.5 * grey + 0.5 * colormaps["jet"](heat)[..., :3]
    return coloured


def _label(text: str) -> str:
    """Text that matplotlib shows as it is; an underscore first would hide a label."""
    shown = text.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
