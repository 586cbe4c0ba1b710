"""FER-GCN: facial expressions from video with graph convolution over frames.

Public names are imported when they are first used, so that `import fergcn` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fergcn.analysis.collect import Analysis as Analysis
    from fergcn.analysis.collect import analyze as analyze
    from fergcn.analysis.config import AnalysisConfig as AnalysisConfig
    from fergcn.analysis.engine import Prediction as Prediction
    from fergcn.analysis.engine import stream as stream
    from fergcn.checkpoint import Checkpoint as Checkpoint
    from fergcn.checkpoint import load_checkpoint as load_checkpoint
    from fergcn.checkpoint import save_checkpoint as save_checkpoint
    from fergcn.clips import Clip as Clip
    from fergcn.clips import sample_frames as sample_frames
    from fergcn.expressions import EXPRESSIONS as EXPRESSIONS
    from fergcn.expressions import FergcnError as FergcnError
    from fergcn.folds import subject_folds as subject_folds
    from fergcn.model import FERGCN as FERGCN
    from fergcn.model import GraphConvolution as GraphConvolution
    from fergcn.model import ModelConfig as ModelConfig
    from fergcn.model import intensity_weights as intensity_weights
    from fergcn.training.config import TrainConfig as TrainConfig

_HOME = {
    "Analysis": "fergcn.analysis.collect",
    "AnalysisConfig": "fergcn.analysis.config",
    "Checkpoint": "fergcn.checkpoint",
    "Clip": "fergcn.clips",
    "EXPRESSIONS": "fergcn.expressions",
    "FERGCN": "fergcn.model",
    "FergcnError": "fergcn.expressions",
    "GraphConvolution": "fergcn.model",
    "ModelConfig": "fergcn.model",
    "Prediction": "fergcn.analysis.engine",
    "TrainConfig": "fergcn.training.config",
    "analyze": "fergcn.analysis.collect",
    "intensity_weights": "fergcn.model",
    "load_checkpoint": "fergcn.checkpoint",
    "sample_frames": "fergcn.clips",
    "save_checkpoint": "fergcn.checkpoint",
    "stream": "fergcn.analysis.engine",
    "subject_folds": "fergcn.folds",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module fergcn has no attribute {name}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
