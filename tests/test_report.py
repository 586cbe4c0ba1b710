"""The benchmark page, from folders that real cross-validations left behind."""

import json
import re
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import pearsonr

from conftest import tiny_config
from fergcn.ablation import ablate_clips
from fergcn.clips import Clip, sample_frames
from fergcn.crossval import crossvalidate
from fergcn.datasets import load_dataset
from fergcn.expressions import FergcnError
from fergcn.folds import Protocol
from fergcn.report import published
from fergcn.report.benchmark import write_benchmark
from fergcn.report.evidence import choose_examples
from test_training import FAST

FROZEN = replace(FAST, freeze_backbone=True)
TWO = Protocol(folds=2, seeds=(0, 1))


@pytest.fixture(scope="module")
def rendered_run(few_rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "<b>mine & yours"
    crossvalidate(
        load_dataset("rendered-apex", few_rendered),
        directory,
        tiny_config(num_classes=3, num_frames=8),
        replace(FROZEN, optimizer="adamw", learning_rate=0.02),  # A must move to be compared
        TWO,
        {"dataset": "rendered-apex", "root": str(few_rendered)},
    )
    return directory


def tables_of(markdown: str) -> dict[str, list[list[str]]]:
    """Rows, the heading first, of each table by the caption above it."""
    found: dict[str, list[list[str]]] = {}
    for caption, body in re.findall(r"^\*(.+)\*\n\n((?:\|.*\n?)+)", markdown, re.MULTILINE):
        lines = [line.strip("| ").split(" | ") for line in body.strip().splitlines()]
        found[plain(caption)] = [
            [plain(cell.strip("* ")) for cell in line] for line in [lines[0], *lines[2:]]
        ]
    return found


def plain(markdown: str) -> str:
    return re.sub(r"\\(.)", r"\1", markdown)


def table_of(markdown: str, start: str) -> list[list[str]]:
    (found,) = (rows for caption, rows in tables_of(markdown).items() if caption.startswith(start))
    return found


def test_page_of_a_rendered_run(rendered_run: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    page = write_benchmark(
        [rendered_run], tmp_path / "out", on_progress=lambda _, *done: steps.append(done)
    )
    html = page.read_text()
    # Self-contained, and what comes from a file name is no markup.
    assert not re.search(r'(?:src|href)="(?!data:)', html)
    assert "<b>" not in html
    assert "<b>mine & yours" in unescape(html)
    # Nothing rendered beside the paper.
    assert "can&#x27;t be put beside the paper" in html
    assert "Table I" not in html
    assert not any(f"{value:.2f}" in html for value in published.TABLE_1[-1].accuracies)

    markdown = (page.parent / "report.md").read_text()
    summary = json.loads((rendered_run / "summary.json").read_text())
    rules = table_of(markdown, "Which epoch counts")
    assert [row[0] for row in rules[1:]] == [
        "last epoch",
        "inner validation",
        "best on test (optimistic)",
    ]
    for row, scores in zip(rules[1:], summary["rules"].values(), strict=True):
        assert float(row[1]) == pytest.approx(100 * scores["mean_of_folds"], abs=0.051)
        low, high = scores["accuracy_ci"]
        expected = f"{100 * scores['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        assert row[2] == expected
    confusion = np.array([row[1:] for row in table_of(markdown, "Confusion, this run")[1:]])
    counts = np.array(summary["rules"]["last"]["confusion"])
    expected_shares = 100 * counts / counts.sum(1, keepdims=True)
    shares = np.where(confusion == "·", "0", confusion).astype(float)
    np.testing.assert_allclose(shares, expected_shares, atol=0.5)

    (unlike,) = re.findall(r"unlike the paper.*", plain(markdown))
    assert "optimizer adamw" in unlike
    assert "init" not in unlike

    pictures = re.findall(r"^!\[.*\]\((.+\.png)\)$", markdown, re.MULTILINE)
    assert any("weights" in name for name in pictures)
    assert any("adjacency" in name for name in pictures)
    for name in pictures:
        assert Image.open(page.parent / name).width > 300
    assert html.count('src="data:image/png') == len(pictures)
    # Eight clips show an expression: those are looked at, each with its own fold's network.
    assert steps[0] == (0, 8)
    assert steps[-1] == (8, 8)


def test_claims_are_what_the_files_say(
    rendered_run: Path, few_rendered: Path, tmp_path: Path
) -> None:
    page = write_benchmark([rendered_run], tmp_path)
    claims = table_of((page.parent / "report.md").read_text(), "The paper's claims")
    values = {row[0]: row[1] for row in claims[1:]}
    clips = {clip.clip_id: clip for clip in load_dataset("rendered-apex", few_rendered)}
    correlations, errors = [], []
    for seed in TWO.seeds:
        for row in pd.read_csv(rendered_run / "clips.csv").itertuples():
            clip = clips[row.clip_id]
            if clip.expression == "neutral":
                continue
            folder = rendered_run / f"seed_{seed}" / f"fold_{row.fold:02d}"
            influence = np.load(folder / "adjacency.npy")[-1].astype(float).mean(axis=0)
            weights = np.exp(influence) / np.exp(influence).sum()  # Eq. 7
            indices = sample_frames(len(clip.intensity or ()), 8)
            truth = np.array(clip.intensity)[indices]
            correlations.append(pearsonr(weights, truth).statistic)
            errors.append(abs(weights.argmax() - np.abs(indices - clip.apex_index).argmin()))
    of_clips = values["weights follow the true intensity: Pearson's r in a clip, mean"]
    assert float(of_clips) == pytest.approx(np.mean(correlations), abs=6e-4)
    distance = values["the highest weight is at the apex: distance in sampled frames, mean"]
    assert float(distance) == pytest.approx(np.mean(errors), abs=6e-3)
    before, after = (
        float(values[f"share of heat where the face moves, {when} the graph layer"])
        for when in ("before", "after")
    )
    assert 0 < before < 1
    assert 0 < after < 1


def test_page_beside_the_paper(coloured_clips: list[Clip], tmp_path: Path) -> None:
    run = tmp_path / "mine"
    about = {"dataset": "mmi", "root": str(tmp_path / "gone")}
    crossvalidate(coloured_clips, run, tiny_config(), FROZEN, Protocol(folds=2), about)
    page = write_benchmark([run], tmp_path / "report")
    markdown = (page.parent / "report.md").read_text()
    table = table_of(markdown, "Average accuracy")
    assert table[0] == ["method", "CK+", "Oulu-CASIA", "MMI", "feature", "from"]
    assert ["FER-GCN", "99.54", "91.04", "85.89", "dynamic", "paper"] in table
    ours = [row for row in table if row[-1] == "this run"]
    rules = json.loads((run / "summary.json").read_text())["rules"]
    assert [(row[1:4], row[0]) for row in ours] == [
        (["–", "–", f"{100 * rules['last']['mean_of_folds']:.2f}"], "mine (2 folds, last epoch)"),
        (
            ["–", "–", f"{100 * rules['best-on-test']['mean_of_folds']:.2f}"],
            "mine (2 folds, best on test (optimistic))",
        ),
    ]
    assert page.read_text().count('<tr class="ours">') == 2
    assert table_of(markdown, "Confusion, paper, Table IV")[1][1:] == [
        "77",
        "13",
        "·",
        "·",
        "10",
        "·",
    ]
    assert "No heatmaps and no check against the truth" in markdown  # the faces are gone


def test_page_of_an_ablation(coloured_clips: list[Clip], tmp_path: Path) -> None:
    groups = {
        "table-v": {"modules-0": {"num_modules": 0}, "mean": {"fusion": "mean"}},
        "ours": {"same": {"fusion": "mean"}, "large": {"network": "r3d-18"}},
    }
    about = {"dataset": "oulu-casia", "root": None}
    directory = tmp_path / "ablation"
    ablate_clips(coloured_clips, directory, tiny_config(), FROZEN, Protocol(folds=2), groups, about)
    markdown = (write_benchmark([directory], tmp_path / "r").parent / "report.md").read_text()
    table = table_of(markdown, "Table V on Oulu-CASIA")
    by_name = {row[0]: row[1:] for row in table[1:]}

    def measured(variant: str) -> str:
        summary = json.loads((directory / variant / "summary.json").read_text())
        return f"{100 * summary['rules']['last']['mean_of_folds']:.2f}"

    tiny = "mobilenetv3_small_050"
    assert by_name["VGG16"] == [tiny, "85.83", measured("modules-0")]
    assert by_name["VGG16 + graph module × 1"] == ["–", "88.33", "–"]
    assert by_name["VGG16 + graph module × 2"] == [tiny, "89.79", measured("mean")]
    assert by_name["VGG16 + graph module × 2 + weighted fusion"][2] == measured("fer-gcn")
    ours = table_of(markdown, "ours: last epoch")
    assert [row[0] for row in ours[1:]] == ["fer-gcn", "same"]
    assert "large was left out" in plain(markdown)
    pairs = table_of(markdown, "Pairs on the same clips")
    assert [row[0] for row in pairs[1:]] == ["modules-0", "mean", "same"]


def test_examples_are_the_surest_right_answers() -> None:
    rows = [
        ("a", "anger", "anger", 0.9, 0.1),
        ("b", "anger", "anger", 0.95, 0.05),
        ("c", "fear", "fear", 0.2, 0.8),
        ("d", "fear", "anger", 0.99, 0.01),
        ("e", "neutral", "neutral", 0.0, 0.0),
    ]
    table = pd.DataFrame(rows, columns=["clip_id", "target", "prediction", "anger", "fear"])
    assert choose_examples(table)["clip_id"].tolist() == ["b", "c"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: shutil.rmtree(run), "found no such folder"),
        (lambda run: (run / "run.json").unlink(), "found no run"),
        (lambda run: (run / "run.json").write_text("{"), "expected settings in JSON"),
        (lambda run: (run / "run.json").write_text('{"format": 9}'), "found format 9, expected 1"),
        (lambda run: (run / "summary.json").unlink(), "it goes on where it was"),
        (lambda run: (run / "summary.json").write_text('{"rules": 1}'), "missing or damaged"),
        (lambda run: (run / "clips.csv").write_text("x\n"), "expected the columns clip_id"),
        (lambda run: (run / "predictions.csv").write_text(""), "expected a table"),
        (
            lambda run: (run / "seed_0" / "fold_01" / "adjacency.npy").write_bytes(b"x"),
            "expected A after each epoch",
        ),
    ],
)
def test_damaged_runs_get_one_line(
    rendered_run: Path, tmp_path: Path, spoil: object, message: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(rendered_run, run)
    assert callable(spoil)
    spoil(run)
    if "table" in message:  # only the heatmaps need the predictions, and the page says so
        page = write_benchmark([run], tmp_path / "out")
        assert message in page.read_text()
        return
    with pytest.raises(FergcnError, match=message) as caught:
        write_benchmark([run], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
