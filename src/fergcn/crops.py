"""From face crops to the arrays that a network takes, without torch.

Importing torch takes longer than a short video to analyse, and an exported network needs none.
"""

import numpy as np
from numpy.typing import NDArray

from fergcn.model.config import IMAGENET_MEAN, IMAGENET_STD


def normalized_crops(faces: NDArray[np.uint8], crop: int) -> NDArray[np.float32]:
    """Cut the centre and bring RGB values to what ImageNet backbones expect.

    Args:
        faces: `(M, S, S, 3)` RGB.
        crop: side of the centre crop, in pixels.

    Returns:
        `(M, 3, crop, crop)`.
    """
    margin = round((faces.shape[1] - crop) / 2)
    inner = faces[:, margin : margin + crop, margin : margin + crop]
    # One thread: others would take the cores on which the faces of the next frames are searched.
    values = inner.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    values *= np.float32(1 / 255)
    mean, std = np.array([IMAGENET_MEAN, IMAGENET_STD], np.float32).reshape(2, 3, 1, 1)
    values -= mean
    values /= std
    return values
