"""The benchmark report: runs and ablations as one self-contained page and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fergcn.clips import Clip
from fergcn.explain import WeightClaims
from fergcn.expressions import FergcnError
from fergcn.files import write_bytes, write_text
from fergcn.metrics import mean_interval
from fergcn.model import ModelConfig
from fergcn.progress import Progress, silent
from fergcn.report import published
from fergcn.report.document import (
    Block,
    Heading,
    Paragraph,
    Picture,
    Table,
    figure_png,
    render_html,
    render_markdown,
)
from fergcn.report.evidence import (
    Shares,
    look_at_networks,
    mean_intensity,
    run_clips,
    run_weight_claims,
    run_weights,
)
from fergcn.report.figures import plot_adjacency, plot_heatmaps, plot_weights
from fergcn.report.runs import RULES, Ablation, Run, find_runs
from fergcn.training.config import TrainConfig

Floats = NDArray[np.float64]

TITLE = "FER-GCN: report"
RULES_TEXT = (
    "All scores are per cent. Unless said otherwise each network is taken after its last epoch. "
    "Choosing the epoch by its accuracy on the test fold, as some papers do, is optimistic: it is "
    "printed for comparison with them only. Mean of folds: every fold counts alike; pooled: every "
    "clip counts alike. UAR is the mean recall of the expressions. Intervals in brackets are 95 %. "
    "A clip without a face counts as an error."
)
RENDERED_TEXT = (
    "These faces are rendered, not photographed. Scores on them say nothing about real faces and "
    "can't be put beside the paper's figures, so they are kept in a section of their own."
)
OTHER_TEXT = (
    "The paper has no figures for this dataset, so its results are kept in a section of their own."
)
MACHINE_ONLY = {"num_classes", "seed", "accelerator", "devices", "num_workers", "tensorboard"}
"""Settings that say nothing about how a run differs from the paper's."""


def write_benchmark(
    paths: Sequence[Path],
    output: Path,
    heatmaps: bool = True,
    on_progress: Progress = silent,
) -> Path:
    """Write `index.html`, `report.md` and the pictures of the latter.

    Args:
        paths: runs, ablations, or folders that hold them at any depth.
        output: the folder to write to.
        heatmaps: also load the networks and look at what they look at.
        on_progress: told about clips that are looked at.

    Returns:
        The page.

    Raises:
        FergcnError: a folder holds no run, or a run is damaged or of another version.
    """
    runs, ablations = find_runs(paths)
    blocks = list(benchmark_blocks(runs, ablations, heatmaps, on_progress))
    for block in blocks:
        if isinstance(block, Picture):
            write_bytes(output / f"{block.name}.png", block.png)
    write_text(output / "report.md", render_markdown(blocks))
    page = output / "index.html"
    write_text(page, render_html(TITLE, blocks))
    return page


def benchmark_blocks(
    runs: Sequence[Run], ablations: Sequence[Ablation], heatmaps: bool, on_progress: Progress
) -> Iterator[Block]:
    """Put the report together: the paper's tables first, then every dataset by itself."""
    yield Heading(TITLE, 1)
    yield Paragraph(RULES_TEXT)
    # Of an ablation, the variant that changes nothing stands for the network.
    shown = [*runs, *(a.baseline for a in ablations if a.baseline is not None)]
    yield from _paper_tables(shown)
    found = {run.dataset for run in runs} | {ablation.dataset for ablation in ablations}
    ours_first = [*published.PAPER_DATASETS, published.AFEW]
    for dataset in [*(d for d in ours_first if d in found), *sorted(found - set(ours_first))]:
        yield Heading(f"Dataset {dataset}")
        if dataset not in ours_first:
            rendered = dataset.startswith("rendered")
            yield Paragraph(RENDERED_TEXT if rendered else OTHER_TEXT, note=True)
        here = [run for run in shown if run.dataset == dataset]
        if len(here) > 1:
            yield _overview(here)
        yield from _weights_of_all(here)
        for ablation in ablations:
            if ablation.dataset == dataset:
                yield from _ablation_blocks(ablation)
        for run in here:
            name = f"run-{shown.index(run) + 1}"
            yield from _run_blocks(run, name, heatmaps, on_progress)


def _paper_tables(runs: Sequence[Run]) -> Iterator[Block]:
    """Tables I and VI with our runs on the same datasets, and numbers from elsewhere."""
    names = list(published.PAPER_DATASETS)
    if ours := [run for run in runs if run.dataset in names]:
        rows = [
            [p.method, *map(_printed, p.accuracies), p.feature, "paper"] for p in published.TABLE_1
        ]
        count = len(rows)
        for run in ours:
            for label, accuracy in _comparable(run):
                cells = [_printed(accuracy if name == run.dataset else None) for name in names]
                rows.append([label, *cells, "dynamic", "this run"])
        yield Heading("Beside the paper: Table I")
        yield Table(
            "Average accuracy in cross-validation, mean of folds, %; paper's rows from its Table I",
            ["method", *published.PAPER_DATASETS.values(), "feature", "from"],
            rows,
            frozenset(range(count, len(rows))),
        )
    if ours := [run for run in runs if run.dataset == published.AFEW]:
        rows = [[method, _printed(accuracy), "paper"] for method, accuracy in published.TABLE_6]
        count = len(rows)
        for run in ours:
            rows += [[label, _printed(value), "this run"] for label, value in _comparable(run)]
        yield Heading("Beside the paper: Table VI")
        yield Table(
            "Accuracy on the validation set of AFEW 8.0, %; paper's rows from its Table VI",
            ["method", "accuracy", "from"],
            rows,
            frozenset(range(count, len(rows))),
        )
    found = {run.dataset for run in runs}
    if elsewhere := [(d, *row) for d, row in published.ELSEWHERE.items() if d in found]:
        yield Table(
            "Published elsewhere, protocol as far as known; accuracy in %",
            ["dataset", "method", "protocol", "accuracy"],
            [[d, method, known, f"{value:g}"] for d, method, known, value in elsewhere],
            text_columns=3,
        )


def _comparable(run: Run) -> Iterator[tuple[str, float]]:
    """Label and accuracy in per cent of a run's rows in the paper's tables."""
    about = f"{run.name} ({_protocol(run)}"
    for rule in ("last", "best-on-test"):
        if scores := run.summary["rules"].get(rule):
            yield f"{about}, {RULES[rule]})", 100 * scores["mean_of_folds"]


def _protocol(run: Run) -> str:
    seeds = "" if len(run.seeds) == 1 else f", {len(run.seeds)} seeds"
    return f"{run.num_folds} folds{seeds}"


def _overview(runs: Sequence[Run]) -> Table:
    return Table(
        "All runs, last epoch, %",
        ["run", "backbone", "protocol", *_SCORE_HEADINGS],
        [
            [
                run.name,
                str(run.settings["model"].get("backbone", "")),
                _protocol(run),
                *_score_cells(run.summary["rules"]["last"]),
            ]
            for run in runs
        ],
        text_columns=3,
    )


_SCORE_HEADINGS = ("mean of folds", "accuracy, pooled", "UAR", "macro-F1")


def _score_cells(scores: dict[str, Any]) -> list[str]:
    return [
        _percent(scores["mean_of_folds"]),
        *(
            f"{_percent(scores[key])} [{_percent(low)}, {_percent(high)}]"
            for key in ("accuracy", "uar", "macro_f1")
            for low, high in (scores[f"{key}_ci"],)
        ),
    ]


def _run_blocks(run: Run, picture: str, heatmaps: bool, on_progress: Progress) -> Iterator[Block]:
    summary = run.summary
    last = summary["rules"]["last"]
    yield Heading(f"Run {run.name}", 3)
    yield Table("Settings", ["what", "value"], _facts(run), text_columns=2)
    rules = [
        [RULES[rule], *_score_cells(scores)]
        if (scores := summary["rules"].get(rule))
        else [RULES[rule], *["not measured"] * 4]
        for rule in RULES
    ]
    yield Table("Which epoch counts, %", ["epoch", *_SCORE_HEADINGS], rows=rules)
    yield Table(
        "Accuracy of each fold, last epoch, %",
        ["seed", *(str(fold) for fold in range(run.num_folds)), "mean"],
        [
            [str(seed), *map(_percent, accuracies), _percent(float(np.mean(accuracies)))]
            for seed, accuracies in zip(run.seeds, last["fold_accuracies"], strict=True)
        ],
    )
    if len(run.seeds) > 1:
        yield Table(
            "Each seed, all folds pooled, last epoch, %",
            ["seed", "accuracy", "UAR", "macro-F1"],
            [
                [seed, *(_percent(scores[key]) for key in ("accuracy", "uar", "macro_f1"))]
                for seed, scores in last["per_seed"].items()
            ],
        )
    counts = np.array(last["confusion"])
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    ours = _confusion("Confusion, this run, last epoch", summary["expressions"], shares)
    if run.dataset in published.CONFUSIONS:
        number, expressions, values = published.CONFUSIONS[run.dataset]
        paper = _confusion(f"Confusion, paper, {number}", expressions, np.array(values, float))
        yield (paper, ours)
    else:
        yield ours
    yield from _network_blocks(run, picture, heatmaps, on_progress)


def _facts(run: Run) -> list[tuple[str, str]]:
    settings, summary = run.settings, run.summary
    protocol = settings["protocol"]
    defaults = {
        field.name: field.default for kind in (ModelConfig, TrainConfig) for field in fields(kind)
    }
    chosen = {  # JSON has no tuples
        key: tuple(value) if isinstance(value, list) else value
        for key, value in {**settings["model"], **settings["training"]}.items()
    }
    changed = {
        key: value
        for key, value in chosen.items()
        if key in defaults and key not in MACHINE_ONLY and value != defaults[key]
    }
    return [
        ("dataset", f"{run.dataset} (data {settings.get('data', 'unknown')})"),
        (
            "clips",
            f"{summary['num_clips']} of {summary.get('num_subjects', 'unknown')} people, "
            f"{summary.get('unanswered', 0)} without a face",
        ),
        (
            "protocol",
            f"{protocol.get('scheme', 'folds')}, {run.num_folds} folds, "
            f"inner validation {'yes' if protocol.get('validation') else 'no'}, "
            f"seeds {_listed(run.seeds)}",
        ),
        ("network", _pairs(settings["model"])),
        ("training", _pairs(settings["training"])),
        ("unlike the paper", _pairs(changed) or "nothing"),
        ("version", f"fergcn {settings.get('fergcn_version', 'unknown')}"),
    ]


def _confusion(caption: str, expressions: Sequence[str], percent: Floats) -> Table:
    return Table(
        f"{caption}: row = truth, column = answer, %",
        ["", *(name[:2].capitalize() for name in expressions)],
        [
            [name, *(f"{value:.0f}" if value else "·" for value in row)]
            for name, row in zip(expressions, percent, strict=True)
        ],
    )


def _weights_of_all(runs: Sequence[Run]) -> Iterator[Block]:
    """Fig. 4: the weights of all runs on a dataset in one figure."""
    weights = {run.name: rows for run in runs if (rows := run_weights(run)) is not None}
    if not weights:
        return
    truth = {}
    for run in runs:
        try:
            curve = mean_intensity(run_clips(run), int(run.settings["model"]["num_frames"]))
        except FergcnError:
            continue  # the run's own section says why
        if run.name in weights and curve is not None:
            truth[run.name] = curve
    dataset = runs[0].dataset
    yield Picture(
        f"weights-{dataset}",
        f"Intensity weights on {dataset} over the steps of a clip, raw and through a sigmoid as in "
        "the paper's Fig. 4. Line: mean of the folds and seeds; band: their range."
        + (" Dashed: mean true intensity of the clips with an expression." if truth else ""),
        figure_png(plot_weights(weights, truth)),
    )


def _network_blocks(
    run: Run, picture: str, heatmaps: bool, on_progress: Progress
) -> Iterator[Block]:
    """A during training, claims as numbers, heatmaps: what there is data for."""
    history = run.adjacency()
    if history is not None:
        yield Picture(
            f"{picture}-adjacency",
            "A minus the identity, its start, during training; mean of the folds and seeds. Row i "
            "says what frame i draws from the others.",
            figure_png(plot_adjacency(history.mean(0))),
        )
    try:
        clips = run_clips(run)
        examples, shares = look_at_networks(run, clips, on_progress) if heatmaps else ([], None)
    except FergcnError as error:
        yield Paragraph(f"No heatmaps and no check against the truth: {error}")
        return
    claims = _claims(run, clips, shares)
    if claims:
        yield Table(
            "The paper's claims (Section IV.D) as numbers, each network on its own test clips",
            ["claim", "value", "95 % interval", "to beat"],
            claims,
        )
    for index, example in enumerate(examples):
        yield Picture(
            f"{picture}-heatmap-{index + 1}",
            f"{example.title}. Where the features before and after the first graph layer come from "
            "(what changes against the clip's mean; each heatmap from its own lowest to its "
            "highest value). Above each frame: its number and its part in the expression's logit.",
            figure_png(plot_heatmaps(example)),
        )


def _claims(
    run: Run, clips: Sequence[Clip], shares: Shares | None
) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    weights = run_weights(run)
    claims = None if weights is None else run_weight_claims(run, clips, weights)
    if claims is not None:
        rows += _weight_rows(claims)
    if shares is not None:
        rows += _share_rows(shares)
    return rows


def _weight_rows(claims: WeightClaims) -> list[tuple[str, str, str, str]]:
    people = claims.subject_ids
    errors = claims.apex_errors
    return [
        (
            "weights follow the true intensity: Pearson's r in a clip, mean",
            f"{claims.correlations.mean():.3f}",
            _interval(claims.correlations, people),
            "0",
        ),
        (
            "the same for the average weights and the average intensities",
            f"{claims.curve_correlation:.3f}",
            "",
            "0",
        ),
        (
            "the highest weight is at the apex: distance in sampled frames, mean",
            f"{errors.mean():.2f}",
            _interval(errors, people, 2),
            f"{claims.middle_errors.mean():.2f} (always the middle frame)",
        ),
        (
            "the same, median",
            f"{np.median(errors):g}",
            "",
            f"{np.median(claims.middle_errors):g} (always the middle frame)",
        ),
    ]


def _share_rows(shares: Shares) -> list[tuple[str, str, str, str]]:
    people = shares.subject_ids
    uniform = f"{shares.uniform.mean():.3f} (the same heat everywhere)"
    rows = [
        (
            f"share of heat where the face moves, {name} the graph layer",
            f"{values.mean():.3f}",
            _interval(values, people),
            uniform,
        )
        for name, values in (("before", shares.before), ("after", shares.after))
    ]
    change = shares.after - shares.before
    rows.append(
        (
            "the graph layer concentrates the heat there: after minus before",
            f"{change.mean():+.4f}",
            _interval(change, people, 4),
            "0",
        )
    )
    return rows


def _interval(values: Floats, subject_ids: Sequence[str], digits: int = 3) -> str:
    low, high = mean_interval(values, subject_ids)
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def _ablation_blocks(ablation: Ablation) -> Iterator[Block]:
    yield Heading(f"Ablation {ablation.name}", 3)
    variants, groups = ablation.settings["variants"], ablation.settings["groups"]
    if ablation.dataset in published.PAPER_DATASETS:
        yield from _table_5(ablation)
    for group, names in groups.items():
        runs = [(name, ablation.runs[name]) for name in names if name in ablation.runs]
        if runs:
            yield Table(
                f"{group}: last epoch, %",
                ["variant", "changes", *_SCORE_HEADINGS, RULES["best-on-test"]],
                [
                    [
                        name,
                        _pairs(variants[name]) or "nothing",
                        *_score_cells(run.summary["rules"]["last"]),
                        _rule_accuracy(run, "best-on-test"),
                    ]
                    for name, run in runs
                ],
                text_columns=2,
            )
    for name, reason in ablation.settings["left_out"].items():
        yield Paragraph(f"{name} was left out: {reason}", note=True)
    pairs = [row for row in ablation.settings["comparison"] if "difference" in row]
    if pairs:
        yield Table(
            "Pairs on the same clips: accuracy in %, difference in points, McNemar's test",
            ["variant", "against", "accuracy", "UAR", "difference", "p"],
            [
                [
                    str(pair["variant"]),
                    str(pair["against"]),
                    _percent(pair["accuracy"]),
                    _percent(pair["uar"]),
                    f"{100 * pair['difference']:+.1f} "
                    f"[{', '.join(f'{100 * end:+.1f}' for end in pair['difference_ci'])}]",
                    "< 0.001" if pair["p_mcnemar"] < 0.001 else f"{pair['p_mcnemar']:.3f}",
                ]
                for pair in pairs
            ],
            text_columns=2,
        )


def _table_5(ablation: Ablation) -> Iterator[Block]:
    """The paper's Table V beside the variants that are the same but for the backbone."""
    column = list(published.PAPER_DATASETS).index(ablation.dataset)
    ours: dict[tuple[int, bool], Run] = {}
    for name, run in ablation.runs.items():
        if ablation.settings["variants"][name].keys() <= {"num_modules", "fusion"}:
            model = run.settings["model"]
            weighted = model["fusion"] == "intensity" and model["num_modules"] > 0
            if weighted or model["fusion"] == "mean" or model["num_modules"] == 0:
                ours.setdefault((model["num_modules"], weighted), run)
    rows = []
    for key, row in published.TABLE_5.items():
        scores = ours[key].summary["rules"]["last"] if key in ours else None
        backbone = ours[key].settings["model"]["backbone"] if key in ours else "–"
        rows.append(
            [
                row.method,
                backbone,
                _printed(row.accuracies[column]),
                _printed(100 * scores["mean_of_folds"] if scores else None),
            ]
        )
    yield Table(
        f"Table V on {published.PAPER_DATASETS[ablation.dataset]}: accuracy, mean of folds, %",
        ["network", "our backbone", "paper", "this run"],
        rows,
        text_columns=2,
    )


def _rule_accuracy(run: Run, rule: str) -> str:
    scores = run.summary["rules"].get(rule)
    return _percent(scores["accuracy"]) if scores else "–"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _printed(percent: float | None) -> str:
    """A number with the two decimals of the paper's tables."""
    return "–" if percent is None else f"{percent:.2f}"


def _pairs(settings: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {_listed(value) or 'none' if isinstance(value, list | tuple) else value}"
        for key, value in settings.items()
    )


def _listed(items: Sequence[Any]) -> str:
    return ", ".join(map(str, items))
