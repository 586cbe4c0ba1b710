"""The networks; they import torch only, and that when one is named: exported ones do without."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fergcn.model.comparators import VideoCNN as VideoCNN
    from fergcn.model.config import IMAGENET_MEAN as IMAGENET_MEAN
    from fergcn.model.config import IMAGENET_STD as IMAGENET_STD
    from fergcn.model.config import ModelConfig as ModelConfig
    from fergcn.model.fergcn import FERGCN as FERGCN
    from fergcn.model.fergcn import GraphHead as GraphHead
    from fergcn.model.fergcn import Network as Network
    from fergcn.model.fergcn import create_network as create_network
    from fergcn.model.fergcn import last_layer as last_layer
    from fergcn.model.graph import GraphConvolution as GraphConvolution
    from fergcn.model.graph import GraphModule as GraphModule
    from fergcn.model.graph import intensity_weights as intensity_weights

_HOME = {
    "FERGCN": "fergcn",
    "GraphConvolution": "graph",
    "GraphHead": "fergcn",
    "GraphModule": "graph",
    "IMAGENET_MEAN": "config",
    "IMAGENET_STD": "config",
    "ModelConfig": "config",
    "Network": "fergcn",
    "VideoCNN": "comparators",
    "create_network": "fergcn",
    "intensity_weights": "graph",
    "last_layer": "fergcn",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module fergcn.model has no attribute {name}")
    return getattr(import_module(f"fergcn.model.{_HOME[name]}"), name)
