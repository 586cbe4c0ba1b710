"""The render command."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fergcn.commands.progress import progress_bars, stdout
from fergcn.rendering.dataset import RenderConfig, render_dataset

Settings = Annotated[RenderConfig, Parameter(name="*")]
_SETTINGS = RenderConfig()


def render(output: Path, /, *, workers: int = 0, settings: Settings = _SETTINGS) -> None:
    """Render a dataset of parametric heads with known truth.

    The same settings give the same files. A rendering that was stopped goes on when the same
    command is given again. Train on it with fergcn train rendered OUTPUT.

    Args:
        output: folder of the dataset.
        workers: processes; 0 takes one for each core.
    """
    with progress_bars() as report:
        render_dataset(
            output,
            settings,
            workers or os.cpu_count() or 1,
            lambda done, total: report("clips", done, total),
        )
    stdout.print(f"dataset: {output}", soft_wrap=True)
