"""Datasets: each is one function that yields clips; nothing after it knows which one it is."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fergcn.clips import Clip
from fergcn.datasets.rendered import load_rendered
from fergcn.expressions import FergcnError
from fergcn.prepare import prepared_dataset, read_prepared

DATASETS: dict[str, Callable[[Path | None], list[Clip]]] = {
    "rendered": load_rendered,
    "rendered-apex": partial(load_rendered, kind="onset_apex"),
    "rendered-offset": partial(load_rendered, kind="onset_apex_offset"),
}
"""Reader of each dataset by its name; with no root it reads the edition in the package."""


def load_dataset(name: str, root: Path | None = None) -> list[Clip]:
    """Read the clips of a dataset.

    Args:
        name: a key of `DATASETS`.
        root: the dataset's folder, or a store that was prepared from it; None for the edition in
            the package.

    Raises:
        FergcnError: the name is unknown, the folder has another layout or is a store of another
            dataset.
    """
    if name not in DATASETS:
        raise FergcnError(
            f"found the dataset {name}, expected one of {', '.join(DATASETS)}: choose one of these"
        )
    if root is not None and (prepared := prepared_dataset(root)) is not None:
        if prepared != name:
            raise FergcnError(
                f"{root}: found faces of the dataset {prepared}, expected {name}: "
                f"choose {prepared}, or another folder"
            )
        return read_prepared(root)
    return DATASETS[name](root)
