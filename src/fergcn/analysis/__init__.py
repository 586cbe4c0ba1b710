"""From a video to who showed which expression when."""

from fergcn.analysis.segments import SegmentConfig, find_segments
from fergcn.analysis.stream import Analysis, AnalysisConfig, analyze

__all__ = ["Analysis", "AnalysisConfig", "SegmentConfig", "analyze", "find_segments"]
