"""Where files live that can be made again at any time."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Folder of this program below the user's cache folder; deleting it loses nothing."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fergcn"
