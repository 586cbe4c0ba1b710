"""Vectors by which a person is known again: dlib's face recognition network (Davis King, CC0)."""

from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fergcn.crops import normalized_crops
from fergcn.onnx_session import open_session

NETWORK = Path(__file__).parent / "recognition.onnx"
"""As `fergcn.export.export_recognition` writes it."""
RECOGNIZED_SIDE = 150
"""Of the aligned faces that it takes, in pixels."""


def face_vectors(faces: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Describe who is shown.

    Args:
        faces: `(M, 150, 150, 3)` RGB, aligned.

    Returns:
        `(M, 128)`; those of one person are about 0.3 apart, those of two 0.6.
    """
    frames = normalized_crops(faces, faces.shape[1])
    return cast(NDArray[np.float32], _session().run(None, {"frames": frames})[0])


@cache
def _session() -> Any:
    return open_session(NETWORK, threads=1)
