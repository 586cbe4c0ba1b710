"""Read the folders that cross-validations and ablations leave behind."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fergcn.expressions import FergcnError

FORMAT = 1
RUN_FILE, ABLATION_FILE = "run.json", "ablation.json"
RULES = {
    "last": "last epoch",
    "validation": "inner validation",
    "best-on-test": "best on test (optimistic)",
}
"""How the epoch that counts was chosen, by the name in summary.json."""


@dataclass(frozen=True)
class Run:
    """One cross-validation."""

    name: str
    directory: Path
    settings: dict[str, Any]
    """run.json: dataset, root, model, training, protocol, expressions, version."""
    summary: dict[str, Any]
    """summary.json: scores by the rules of `RULES`."""
    clips: pd.DataFrame
    """clip_id, subject_id, fold and expression of each clip, in the dataset's order."""

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return str(self.settings["dataset"])

    @property
    def seeds(self) -> list[int]:
        """Seeds that the cross-validation was repeated with."""
        return [int(seed) for seed in self.settings["protocol"]["seeds"]]

    @property
    def num_folds(self) -> int:
        """Number of test folds."""
        return len(self.summary["rules"]["last"]["fold_accuracies"][0])

    def fold_dirs(self) -> list[tuple[int, int, Path]]:
        """Seed, fold and folder of every network, seeds first."""
        return [
            (seed, fold, self.directory / f"seed_{seed}" / f"fold_{fold:02d}")
            for seed in self.seeds
            for fold in range(self.num_folds)
        ]

    def predictions(self) -> pd.DataFrame:
        """Read predictions.csv: a row for each seed and clip.

        Raises:
            FergcnError: the file is missing or damaged.
        """
        needed = {"seed", "fold", "clip_id", "target", "prediction", *self.summary["expressions"]}
        path = self.directory / "predictions.csv"
        table = _read_table(path, needed)
        for name in self.summary["expressions"]:  # empty where no face was found
            table[name] = pd.to_numeric(table[name], errors="coerce")
        return table

    def adjacency(self) -> NDArray[np.float64] | None:
        """A after each epoch, `(networks, epochs + 1, modules, N, N)`, a network a seed and fold.

        Returns:
            None for networks that learn no A.

        Raises:
            FergcnError: a file is damaged or only some networks have one.
        """
        paths = [folder / "adjacency.npy" for _, _, folder in self.fold_dirs()]
        if not any(path.exists() for path in paths):
            return None
        stacks = []
        for path in paths:
            try:
                values = np.load(path).astype(np.float64)
                if values.ndim not in (3, 4) or values.shape[-1] != values.shape[-2]:
                    raise ValueError
            except (OSError, ValueError, EOFError):
                raise _damaged(path, "A after each epoch") from None
            stacks.append(values if values.ndim == 4 else values[:, None])
        if len({stack.shape for stack in stacks}) > 1:
            raise _damaged(paths[0].parent.parent, "folds with A of one shape")
        return np.stack(stacks)


@dataclass(frozen=True)
class Ablation:
    """Variants of one network on the same clips and folds."""

    name: str
    settings: dict[str, Any]
    """ablation.json: dataset, variants, groups, same_as, left_out, comparison."""
    runs: dict[str, Run]
    """The variants that are complete, by name."""

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return str(self.settings["dataset"])

    @property
    def baseline(self) -> Run | None:
        """The variant that changes nothing."""
        return next((run for n, run in self.runs.items() if not self.settings["variants"][n]), None)


def find_runs(paths: Sequence[Path]) -> tuple[list[Run], list[Ablation]]:
    """Read everything below some folders.

    Args:
        paths: runs, ablations, or folders that hold them at any depth.

    Returns:
        The runs that are no variant of an ablation, and the ablations, by the order of paths.

    Raises:
        FergcnError: a folder holds no run, or a file of another version or a damaged one.
    """
    runs: dict[Path, Run] = {}
    ablations: dict[Path, Ablation] = {}
    for path in paths:
        found = [*sorted(path.rglob(RUN_FILE)), *sorted(path.rglob(ABLATION_FILE))]
        if not found:
            what = "no run" if path.is_dir() else "no such folder"
            raise FergcnError(
                f"{path}: found {what}, expected a folder that crossval or ablate wrote: "
                "check the path"
            )
        for file in found:
            # What is found below a folder is called by its way from there.
            name = (Path(path.resolve().name) / file.parent.relative_to(path)).as_posix()
            key = file.parent.resolve()
            if file.name == ABLATION_FILE:
                ablations.setdefault(key, _read_ablation(file.parent, name))
            elif not (file.parent.parent / ABLATION_FILE).exists():
                runs.setdefault(key, read_run(file.parent, name))
    names = Counter(run.name for run in runs.values())
    return (
        [replace(r, name=str(r.directory)) if names[r.name] > 1 else r for r in runs.values()],
        list(ablations.values()),
    )


def read_run(directory: Path, name: str) -> Run:
    """Read a finished cross-validation.

    Raises:
        FergcnError: a file is missing, damaged or of another version.
    """
    keys = {"dataset", "model", "training", "protocol", "expressions"}
    settings = _read_json(directory / RUN_FILE, keys)
    if not (directory / "summary.json").exists():
        raise FergcnError(
            f"{directory}: found a run without summary.json, expected a finished one: "
            "give its command again, it goes on where it was"
        )
    summary = _read_json(directory / "summary.json", {"expressions", "num_clips", "rules"})
    try:
        for rule, scores in summary["rules"].items():
            if scores is not None or rule == "last":
                _check_scores(scores)
        if not isinstance(settings["protocol"]["seeds"], list):
            raise TypeError
    except (KeyError, TypeError, AttributeError, ValueError, IndexError):
        raise _damaged(directory / "summary.json", "the scores of each rule") from None
    clips = _read_table(directory / "clips.csv", {"clip_id", "subject_id", "fold", "expression"})
    return Run(name, directory, settings, summary, clips)


def _check_scores(scores: dict[str, Any]) -> None:
    for key in ("mean_of_folds", "accuracy", "uar", "macro_f1"):
        float(scores[key])
    for key in ("accuracy_ci", "uar_ci", "macro_f1_ci"):
        _low, _high = map(float, scores[key])
    np.array(scores["fold_accuracies"], dtype=float)[0, 0]
    np.array(scores["confusion"], dtype=int)[0, 0]
    for values in scores["per_seed"].values():
        float(values["accuracy"])


def _read_ablation(directory: Path, name: str) -> Ablation:
    keys = {"dataset", "variants", "groups", "same_as", "left_out", "comparison"}
    settings = _read_json(directory / ABLATION_FILE, keys)
    # Two variants that are the same network were run once.
    runs = {
        variant: read_run(directory / folder, f"{name}/{variant}")
        for variant, folder in settings["same_as"].items()
        if (directory / folder / "summary.json").exists()
    }
    if not runs:
        raise FergcnError(
            f"{directory}: found no finished variant, expected at least one: "
            "give the ablation's command again, it goes on where it was"
        )
    return Ablation(name, settings, runs)


def _read_json(path: Path, keys: set[str]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError
    except (OSError, ValueError):
        raise _damaged(path, "settings in JSON") from None
    # summary.json has no number of its own: it is written with the run.json beside it.
    if path.name != "summary.json" and content.get("format") != FORMAT:
        raise FergcnError(
            f"{path}: found format {content.get('format')}, expected {FORMAT}: "
            "it was written by another version of fergcn, run it again"
        )
    if missing := keys - content.keys():
        raise _damaged(path, ", ".join(sorted(missing)))
    return content


def _read_table(path: Path, columns: set[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype={"clip_id": str, "subject_id": str}, keep_default_na=False)
    except (OSError, ValueError):
        raise _damaged(path, "a table") from None
    if missing := columns - set(table.columns):
        raise _damaged(path, f"the columns {', '.join(sorted(missing))}")
    return table


def _damaged(path: Path, expected: str) -> FergcnError:
    return FergcnError(
        f"{path}: found it missing or damaged, expected {expected}: "
        "give the run's command again or leave it out"
    )
