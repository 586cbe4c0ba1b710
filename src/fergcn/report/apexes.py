"""The faces at the apexes and what the network looked at there, from a second pass over a video."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp

from fergcn.explain import occlusion_map
from fergcn.faces.align import align_face
from fergcn.faces.detect import FaceDetector
from fergcn.report.figures import overlaid
from fergcn.video import read_frames

if TYPE_CHECKING:
    from fergcn.analysis.collect import Analysis
    from fergcn.analysis.network import FaceNetwork

Picture = NDArray[np.uint8]
Box = NDArray[np.float64]

MAX_APEXES = 60
"""So many are looked at, those with the highest peak intensity; bounds time and the page's size."""
PICTURE_SIZE = 160
"""Side of the pictures, in pixels."""
SURROUNDINGS = 1.0
"""How far around a face it is looked for again, in sides of its box."""
MAX_OFF = 0.5
"""An edge of a face that is found again lies no further from where it was, in sides of its box."""
HOT = 1.0
"""Fall of the log-odds that reaches the hottest colour at least: so the face of which no place
counts by itself stays cold."""


@dataclass(frozen=True, eq=False)
class Apex:
    """A face at the apex of a segment."""

    picture: Picture
    """`(PICTURE_SIZE, PICTURE_SIZE, 3)` RGB, cut out of the video."""
    heat: Picture | None = None
    """The same size: the face as the network sees it, under a heatmap of what it looked at. None
    without a network, or where the detector did not find the face in this frame by itself."""
    whole: float = 0.0
    """Probability of the segment's expression for the picture alone."""
    blurred: float = 0.0
    """The same with the hottest place blurred."""


def look_at_apexes(
    path: Path, analysis: Analysis, network: FaceNetwork | None = None
) -> dict[int, Apex]:
    """Look at the apexes of segments, in one more pass over the video.

    Args:
        path: the video that was analysed.
        analysis: what `analyze` returned for it.
        network: what answered; None leaves the heatmaps out.

    Returns:
        By row of `Analysis.segments`, at most `MAX_APEXES`.

    Raises:
        FergcnError: the video can't be read.
    """
    segments = analysis.segments.reset_index(drop=True)
    chosen = segments.sort_values("peak_intensity", ascending=False, kind="stable")[:MAX_APEXES]
    faces = analysis.frames.dropna(subset=["track_id"])
    wanted: dict[int, list[tuple[int, str, Box]]] = {}  # by frame
    for row, segment in zip(chosen.index.tolist(), chosen.to_dict("records"), strict=True):
        at_apex = (faces["track_id"] == segment["track_id"]) & (
            faces["time_s"] == segment["apex_s"]
        )
        face = faces[at_apex].iloc[0]
        box = face[["x1", "y1", "x2", "y2"]].to_numpy(dtype=np.float64)
        wanted.setdefault(int(face["frame_index"]), []).append((row, segment["expression"], box))
    apexes: dict[int, Apex] = {}
    if not wanted:
        return apexes
    settings = analysis.summary["settings"]
    detector = FaceDetector(settings["min_face_size"], settings["min_confidence"])
    for frame in read_frames(path):
        for row, expression, box in wanted.pop(frame.index, []):
            apex = Apex(_square_cut(frame.image, box))
            if network is not None:
                aligned = _aligned_again(frame.image, box, detector, network.checkpoint.resize)
                if aligned is not None:
                    apex = _with_heat(apex, aligned, expression, network)
            apexes[row] = apex
        if not wanted:
            break
    return apexes


def _aligned_again(image: Picture, box: Box, detector: FaceDetector, size: int) -> Picture | None:
    """Align a face of which only the box is known; None if the detector does not find it."""
    side = float((box[2:] - box[:2]).max())
    left, top = np.maximum(box[:2] - SURROUNDINGS * side, 0).astype(int)
    right, bottom = np.ceil(box[2:] + SURROUNDINGS * side).astype(int)
    part = np.ascontiguousarray(image[top:bottom, left:right])
    offset = np.array([left, top])
    off_by = {
        float(np.abs(found.xyxy + np.tile(offset, 2) - box).max()) / side: found
        for found in detector(part)
    }
    if not off_by or min(off_by) > MAX_OFF:
        return None
    return align_face(part, off_by[min(off_by)].landmarks, size)


def _with_heat(apex: Apex, face: Picture, expression: str, network: FaceNetwork) -> Apex:
    target = network.checkpoint.expressions.index(expression)

    def log_odds(faces: Picture) -> NDArray[np.float64]:
        logits = network.still_logits(faces).astype(np.float64)
        odds: NDArray[np.float64] = logits[:, target] - logsumexp(
            np.delete(logits, target, axis=1), axis=1
        )
        return odds

    crop, resize = network.checkpoint.crop, network.checkpoint.resize
    falls = occlusion_map(log_odds, face, crop / resize)
    whole = float(log_odds(face[None])[0])
    start = (resize - crop) // 2
    seen = face[start : start + crop, start : start + crop]
    heat = cv2.resize(overlaid(seen, falls, HOT), (PICTURE_SIZE, PICTURE_SIZE))
    return replace(
        apex,
        heat=(255 * heat).round().astype(np.uint8),
        whole=float(expit(whole)),
        blurred=float(expit(whole - falls.max())),
    )


def _square_cut(image: Picture, xyxy: Box) -> Picture:
    """Cut a square around a box, a quarter larger than its longer side."""
    size = PICTURE_SIZE
    side = max(1, round(float(np.max(xyxy[2:] - xyxy[:2])) * 1.25))
    left, top = np.round((xyxy[:2] + xyxy[2:] - side) / 2).astype(int)
    matrix = np.array([[size / side, 0, -left * size / side], [0, size / side, -top * size / side]])
    if side > 2 * size:  # bilinear sampling alone would alias
        image = cv2.GaussianBlur(image, (0, 0), 0.35 * side / size).astype(np.uint8)
    return cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.uint8)
