"""Five-point alignment: every face crop in the project has the same geometry."""

import cv2
import numpy as np
from numpy.typing import NDArray

LANDMARK_TEMPLATE = np.array(
    [
        (0.327, 0.336),  # eye on the image's left (the subject's right eye)
        (0.671, 0.334),
        (0.500, 0.532),  # nose tip
        (0.359, 0.733),  # mouth corner on the image's left
        (0.644, 0.732),
    ],
    dtype=np.float32,
)
"""Where the landmarks land in a crop, `(5, 2)`, as fractions of its side.

The proportions are those of the ArcFace template (Deng et al. 2019), drawn wider so that the chin
and the forehead, which carry expression, stay inside.
"""


def similarity_transform(landmarks: NDArray[np.floating], size: int) -> NDArray[np.float64]:
    """Least-squares rotation, uniform scale and shift from landmarks to the crop (Umeyama 1991).

    Args:
        landmarks: `(5, 2)` pixel positions `x, y`, in the order of `LANDMARK_TEMPLATE`.
        size: side of the crop in pixels.

    Returns:
        `(2, 3)` matrix that maps image pixels to crop pixels.

    Raises:
        ValueError: the landmarks coincide, so no scale can be found.
    """
    source = np.asarray(landmarks, dtype=np.float64)
    target = LANDMARK_TEMPLATE.astype(np.float64) * size
    source_mean, target_mean = source.mean(0), target.mean(0)
    source_centred, target_centred = source - source_mean, target - target_mean
    variance = (source_centred**2).sum() / len(source)
    if variance < 1e-6:
        raise ValueError("the landmarks of a face coincide, so it can't be aligned")
    u, singular_values, vt = np.linalg.svd(target_centred.T @ source_centred / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(u @ vt))])  # a reflection is not a rotation
    linear = (singular_values * signs).sum() / variance * (u * signs) @ vt
    return np.column_stack([linear, target_mean - linear @ source_mean])


def align_face(
    image: NDArray[np.uint8], landmarks: NDArray[np.floating], size: int = 256
) -> NDArray[np.uint8]:
    """Cut one aligned face out of a frame.

    Args:
        image: `(H, W, 3)` RGB.
        landmarks: `(5, 2)` pixel positions, in the order of `LANDMARK_TEMPLATE`.
        size: side of the crop in pixels.

    Returns:
        `(size, size, 3)` RGB; where the frame ends, its border is repeated.
    """
    matrix = similarity_transform(landmarks, size)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < 0.5:  # bilinear sampling alone would alias when a large face is shrunk
        image = cv2.GaussianBlur(image, (0, 0), 0.35 / scale).astype(np.uint8, copy=False)
    crop = cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return crop.astype(np.uint8, copy=False)
