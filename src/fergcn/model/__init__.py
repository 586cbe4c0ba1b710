"""The network; imports torch only."""

from fergcn.model.fergcn import FERGCN, GraphHead, ModelConfig
from fergcn.model.graph import GraphConvolution, GraphModule, intensity_weights

__all__ = [
    "FERGCN",
    "GraphConvolution",
    "GraphHead",
    "GraphModule",
    "ModelConfig",
    "intensity_weights",
]
