"""Where one shot of a video ends and the next one begins."""

import numpy as np
from numpy.typing import NDArray

CUT_DIFFERENCE = 30
"""Mean difference of two neighbouring pictures, of 255, from which there is a cut between them."""
THUMBNAIL_SIDE = 48
"""Pixels of the longer side that are compared for it."""


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Reduce a picture to what `is_cut` compares."""
    step = max(1, max(image.shape[:2]) // THUMBNAIL_SIDE)
    return image[::step, ::step].astype(np.int16)


def is_cut(before: NDArray[np.int16], after: NDArray[np.int16]) -> bool:
    """Tell whether two neighbouring pictures belong to different shots, from their thumbnails."""
    return before.shape != after.shape or float(np.abs(before - after).mean()) > CUT_DIFFERENCE
