"""What all readers of datasets share."""

from dataclasses import dataclass, field
from pathlib import Path

from fergcn.clips import Clip


@dataclass
class Listing:
    """What a reader found in a dataset's folder."""

    clips: list[Clip]
    """Every labelled clip of the protocol, in a fixed order."""
    left_out: list[tuple[Path, str]] = field(default_factory=list)
    """Sequences that are no part of the protocol, and why: no label, another view …"""
