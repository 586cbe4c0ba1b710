"""From a video to who showed which expression when."""

from fergcn.analysis.collect import Analysis, analyze
from fergcn.analysis.config import AnalysisConfig
from fergcn.analysis.engine import Prediction, stream
from fergcn.analysis.segments import SegmentConfig, find_segments

__all__ = [
    "Analysis",
    "AnalysisConfig",
    "Prediction",
    "SegmentConfig",
    "analyze",
    "find_segments",
    "stream",
]
