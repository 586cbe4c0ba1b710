"""Flags that several commands have: the network, its training, where results go."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fergcn.clips import Clip
from fergcn.expressions import FergcnError
from fergcn.model import ModelConfig
from fergcn.training.config import TrainConfig


@dataclass(frozen=True)
class NetworkOptions(ModelConfig):
    """The network's flags: everything but the classes, which the dataset decides."""

    num_classes: Annotated[int, Parameter(parse=False)] = 8
    neutral: Annotated[int | None, Parameter(parse=False)] = None

    def for_clips(self, clips: list[Clip]) -> ModelConfig:
        """Complete the configuration with the number of classes that occur.

        Raises:
            FergcnError: there are no two expressions to tell apart.
        """
        from fergcn.clips import dataset_expressions

        expressions = dataset_expressions(clips)
        if len(expressions) < 2:
            raise FergcnError(
                f"found clips of {', '.join(expressions) or 'no expression'} only, expected at "
                "least two expressions: name a dataset that has more, or add one with --also"
            )
        return replace(self, num_classes=len(expressions))


Network = Annotated[NetworkOptions, Parameter(name="*")]
Training = Annotated[TrainConfig, Parameter(name="*", negative_iterable="")]
Output = Annotated[Path, Parameter(name=["--output", "-o"])]
DEFAULT_NETWORK, DEFAULT_TRAINING = NetworkOptions(), TrainConfig()
