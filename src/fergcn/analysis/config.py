"""How a video is analysed."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from fergcn.analysis.segments import SegmentConfig
from fergcn.expressions import SURE_FROM
from fergcn.faces.detect import MTCNN_INPUT_SIZE

Runtime = Literal["auto", "torch", "onnx", "int8"]


@dataclass(frozen=True)
class AnalysisConfig:
    """How a video is analysed."""

    window_s: float = 2.0
    """Time that a window spans, in seconds; the network's N frames are spread evenly over it."""
    stride_s: float = 0.25
    """Time from one window's end to the next one's, in seconds. Smaller is smoother."""
    stride: int | None = None
    """The same in frames of the face; where it is given, it counts and `stride_s` does not."""
    batch_size: int = 8
    """Faces that pass through the backbone at once; so many frames wait for them at most."""
    min_face_size: int = 40
    """Smaller faces are not looked for, in pixels, unless one fills much of the picture. A larger
    value is faster."""
    min_confidence: float = 0.9
    """Faces that the detector is less sure of are left out."""
    detect_every_s: float = 0.25
    """Seconds between two searches for faces; where they moved, came or left, more are made, and
    otherwise their places in between are interpolated. 0 searches every frame."""
    min_track_frames: int = 3
    """Faces found in fewer frames are taken for false alarms, except in a shorter video."""
    keep_lost_s: float = 1.0
    """A face is expected back near its place for so long, in seconds; later, or elsewhere, it gets
    its number again only if it clearly looks the same."""
    max_gap_s: float = 0.5
    """No window and no segment goes on over a longer time without the face, in seconds."""
    sure_from: float = SURE_FROM
    """A face whose most probable expression is less probable gets the answer `not sure`; 0 always
    names one."""
    contributions: bool = False
    """Also keep what each frame contributed to each window's answer."""
    device: str = "auto"
    """Where the network runs: `cpu`, `cuda`, or `auto` for a GPU if there is one."""
    runtime: Runtime = "auto"
    """What runs the network: `torch`, `onnx` for ONNX Runtime on the CPU, `int8` for the same with
    a backbone of 8 bits, or `auto` for the last of these that the checkpoint has files for, where
    no GPU is used."""
    segments: SegmentConfig = field(default_factory=SegmentConfig)
    """When an expression counts as shown."""

    def __post_init__(self) -> None:
        if self.runtime not in get_args(Runtime):
            raise ValueError(
                f"found runtime={self.runtime}, expected one of {', '.join(get_args(Runtime))}"
            )
        if self.runtime in ("onnx", "int8") and self.device not in ("auto", "cpu"):
            raise ValueError(
                f"found runtime={self.runtime} and device={self.device}, expected auto or cpu: "
                "leave --device out"
            )
        if (self.stride is not None and self.stride < 1) or self.batch_size < 1:
            raise ValueError(
                f"found stride={self.stride} and batch_size={self.batch_size}, "
                "expected whole numbers from 1"
            )
        if not (0 < self.window_s < float("inf") and 0 < self.stride_s <= self.window_s):
            raise ValueError(
                f"found window_s={self.window_s} and stride_s={self.stride_s}, expected seconds "
                "above 0, the stride at most the window: frames in between would get no answer"
            )
        times = (self.detect_every_s, self.keep_lost_s, self.max_gap_s)
        if not all(seconds >= 0 for seconds in times):  # min would pass over what is no number
            raise ValueError(
                f"found detect_every_s={self.detect_every_s}, keep_lost_s={self.keep_lost_s} and "
                f"max_gap_s={self.max_gap_s}, expected seconds from 0"
            )
        if not 0 <= self.sure_from <= 1:
            raise ValueError(f"found sure_from={self.sure_from}, expected 0 to 1")
        if self.min_face_size < MTCNN_INPUT_SIZE or not 0 <= self.min_confidence <= 1:
            raise ValueError(
                f"found min_face_size={self.min_face_size} and "
                f"min_confidence={self.min_confidence}, "
                f"expected at least {MTCNN_INPUT_SIZE} pixels and 0 to 1"
            )
