"""The networks; imports torch only."""

from fergcn.model.comparators import VideoCNN
from fergcn.model.config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig
from fergcn.model.fergcn import FERGCN, GraphHead, Network, create_network, last_layer
from fergcn.model.graph import GraphConvolution, GraphModule, intensity_weights

__all__ = [
    "FERGCN",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "GraphConvolution",
    "GraphHead",
    "GraphModule",
    "ModelConfig",
    "Network",
    "VideoCNN",
    "create_network",
    "intensity_weights",
    "last_layer",
]
