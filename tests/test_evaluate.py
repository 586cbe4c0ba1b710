"""A checkpoint on single pictures: from the folder to scores that anybody can recompute."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.data import astronaut
from sklearn.metrics import confusion_matrix, f1_score, recall_score

from conftest import TINY, tiny_config
from fergcn.cache import cache_dir
from fergcn.checkpoint import load_checkpoint, save_checkpoint
from fergcn.cli import main
from fergcn.clips import Clip, clip_digest, load_clip, picture_files, read_clip
from fergcn.datasets import list_dataset, load_dataset
from fergcn.datasets.check import check_dataset
from fergcn.evaluation import evaluate_clips, load_faces
from fergcn.expressions import FergcnError
from fergcn.faces.detect import FaceDetector
from fergcn.metrics import bootstrap_interval, expected_calibration_error
from fergcn.model import FERGCN
from fergcn.prediction import predict_probs
from fergcn.prepare import read_prepared
from fergcn.rendering import RenderConfig, render_dataset
from fergcn.transforms import eval_transform

KNOWN = ("anger", "fear", "happiness", "neutral")
FACE = astronaut()[20:190, 130:290]
GREY = np.full((120, 100, 3), 128, dtype=np.uint8)


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve rendered faces of three people, and a grey picture of one of them."""
    root = tmp_path_factory.mktemp("stills")
    rendered = load_dataset("rendered")
    for expression in KNOWN:
        of_expression = [clip for clip in rendered if clip.expression == expression]
        for person, clip in zip(("Ann", "Bob_Dee", "Eve"), of_expression[::20], strict=False):
            save(root / expression / f"{person}_0007.png", load_clip(clip, 3)[2])
    save(root / "neutral" / "Ann_0008.jpg", GREY)
    (root / "README.md").write_text("pictures")
    (root / "neutral" / "notes.txt").write_text("Ann was away")
    return root


@pytest.fixture(scope="module")
def checkpoint(stills: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network that gives different answers to the pictures."""
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("checkpoints") / "tiny"
    model = FERGCN(tiny_config(num_classes=len(KNOWN))).eval()
    faces = np.stack([load_clip(clip, 4) for clip in list_dataset("stills", stills).clips[:6]])
    with torch.inference_mode():
        frames = torch.stack([eval_transform(clip, 40, 32) for clip in faces])
        logits = model(frames)
    layer = model.head.classifier
    layer.bias.data -= logits.mean(0)
    scale = 2 / logits.std()
    layer.weight.data *= scale
    layer.bias.data *= scale
    save_checkpoint(directory, model, KNOWN, resize=40, crop=32)
    return directory


# --- pictures as clips ---------------------------------------------------------------------------


def test_folder_is_the_label_and_file_the_person(stills: Path) -> None:
    listing = list_dataset("stills", stills)
    assert len(listing.clips) == 13
    clips = {clip.clip_id: clip for clip in listing.clips}
    assert clips["anger/Bob_Dee_0007"].subject_id == "Bob_Dee"
    assert clips["anger/Bob_Dee_0007"].expression == "anger"
    assert clips["neutral/Ann_0008"].path == stills / "neutral" / "Ann_0008.jpg"
    assert {clip.subject_id for clip in listing.clips} == {"Ann", "Bob_Dee", "Eve"}
    assert listing.left_out == []
    assert check_dataset("stills", stills).problems == []


@pytest.mark.parametrize(
    ("file", "subject"),
    [
        ("Jane_10.jpg", "Jane"),
        ("Jane.JPG", "Jane"),
        ("Jane_Roe_2_0004.png", "Jane_Roe_2"),
        ("Jane10.jpeg", "Jane10"),
        ("_10.png", "_10"),
    ],
)
def test_person_is_the_name_without_its_number(tmp_path: Path, file: str, subject: str) -> None:
    save(tmp_path / "fear" / file, GREY)
    save(tmp_path / "stray_1.png", GREY)
    listing = list_dataset("stills", tmp_path)
    assert [clip.subject_id for clip in listing.clips] == [subject]
    assert [path.name for path, _ in listing.left_out] == ["stray_1.png"]


@pytest.mark.parametrize(
    "files",
    [
        [],
        ["Ann_1.png"],
        ["pictures/fear/Ann_1.png"],
        ["fear1/Ann_1.png"],
        ["fear/Ann_1.png", "fear/Ann_1.jpg"],
    ],
)
def test_other_layouts_are_one_line(tmp_path: Path, files: list[str]) -> None:
    for file in files:
        save(tmp_path / file, GREY)
    with pytest.raises(FergcnError, match=r"^[^\n]*found [^\n]*expected [^\n]*: [^\n]*$"):
        list_dataset("stills", tmp_path)


def test_one_picture_is_a_clip_everywhere(tmp_path: Path) -> None:
    path = save(tmp_path / "a.PNG", FACE)
    clip = Clip("a", "a", "fear", path, view="left half")
    ((index, image),) = read_clip(clip)
    assert index == 0
    np.testing.assert_array_equal(image, FACE[:, :80])
    np.testing.assert_array_equal(load_clip(clip, 5), np.stack([FACE[:, :80]] * 5))
    assert picture_files(path) == [path]
    before = clip_digest(clip)
    save(path, FACE[::-1])
    assert clip_digest(clip) != before
    path.write_bytes(path.read_bytes()[:500])
    for read in (lambda: list(read_clip(clip, print)), lambda: load_clip(clip, 5)):
        with pytest.raises(FergcnError, match=r"a\.PNG: found a file that can't be decoded"):
            read()
    assert any("a.PNG" in line for line in _problems_of(tmp_path, path))


def _problems_of(tmp_path: Path, broken: Path) -> list[str]:
    folder = tmp_path / "root" / "fear"
    folder.mkdir(parents=True)
    shutil.copy(broken, folder)
    return check_dataset("stills", tmp_path / "root").problems


@pytest.mark.parametrize("side", [24, 60, 100, 350])
def test_tight_crops_of_any_size_have_their_face(side: int) -> None:
    detector = FaceDetector()
    (whole,) = detector(np.ascontiguousarray(FACE))
    left, top, right, bottom = whole.xyxy.round().astype(int)
    crop = np.array(Image.fromarray(FACE[top:bottom, left:right]).resize((side, side)))
    (face,) = detector(crop)
    expected = (whole.landmarks - [left, top]) * side / [right - left, bottom - top]
    assert np.abs(face.landmarks - expected).max() < 0.12 * side
    assert (face.xyxy >= 0).all() and (face.xyxy <= side).all()
    assert detector(np.full_like(crop, 128)) == []


def test_frames_that_are_used_again_change_no_answer(stills: Path, checkpoint: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    clips = list_dataset("stills", stills).clips[:3]
    probs = predict_probs(loaded.model, clips, 40, 32)
    for clip, row in zip(clips, probs, strict=True):
        frames = eval_transform(load_clip(clip, 4), 40, 32)
        with torch.inference_mode():
            expected = loaded.model(frames[None]).softmax(1)[0].numpy()
        np.testing.assert_allclose(row, expected, rtol=1e-3, atol=1e-5)


def test_a_picture_and_its_mirror_image_get_one_answer(stills: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint("rendered-only")
    clips = [clip for clip in list_dataset("stills", stills).clips if clip.clip_id[-1] == "7"]
    turned = [
        replace(clip, path=save(tmp_path / f"{n}.png", load_clip(clip, 1)[0][:, ::-1]))
        for n, clip in enumerate(clips)
    ]
    names = [clip.clip_id for clip in clips]
    ours, theirs = (
        evaluate_clips(loaded, these)
        .predictions.set_index("clip_id")
        .loc[names, list(loaded.expressions)]
        for these in (clips, turned)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    sides = [predict_probs(loaded.model, these, 192, 144) for these in (clips, turned)]
    assert np.abs(sides[0] - sides[1]).max() > 0.05  # one side alone says something else
    moving = load_dataset("rendered")[:2]
    one_side = predict_probs(loaded.model, moving, 192, 144)
    np.testing.assert_array_equal(
        predict_probs(loaded.model, moving, 192, 144, mirrored=True), one_side
    )
    for clip, row in zip(clips, ours.to_numpy(), strict=True):
        frames = eval_transform(load_clip(clip, 1), 192, 144)
        with torch.inference_mode():
            features = loaded.model.frame_features(torch.cat([frames, frames.flip(-1)]))
            logits = loaded.model.head(features.mean(0).expand(1, 16, -1))
        np.testing.assert_allclose(row, logits.softmax(1)[0].numpy(), atol=1e-4)


def test_prepare_stores_one_face_a_picture(run, stills: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(stills, tmp_path / "root"))
    (root / "fear" / "Zoe_1.jpg").write_bytes(b"no picture")
    code, out, err = run("prepare", "stills", root, "-o", tmp_path / "store", "--workers", 1)
    assert code == 1
    assert "no face found in neutral/Ann_0008" in out
    assert err.count("\n") == 1 and "Zoe_1.jpg: found a file that can't be decoded" in err
    faces = {clip.clip_id: np.load(clip.path) for clip in read_prepared(tmp_path / "store")}
    empty = {clip_id for clip_id, images in faces.items() if len(images) == 0}
    assert empty == {"neutral/Ann_0008", "fear/Zoe_1"}
    assert {images.shape for clip_id, images in faces.items() if clip_id not in empty} == {
        (1, 256, 256, 3)
    }


def test_people_kept_aside_are_those_that_are_scored(
    run, stills: Path, few_rendered: Path, tmp_path: Path
) -> None:
    """Training sees nobody of the fold that `evaluate` scores, and a second dataset whole."""
    store, run_dir, scores = tmp_path / "store", tmp_path / "run", tmp_path / "s.json"
    assert run("prepare", "stills", stills, "-o", store, "--workers", 1)[0] == 0
    network = ("--backbone", TINY, "--no-pretrained", "--num-frames", 1, "--num-modules", 0)
    training = ("--epochs", 1, "--resize", 40, "--crop", 32, "--balance", 0.8, "--half")
    code, _, err = run(
        *("train", "stills", store, "--hold-out", 3, "--also", f"rendered-apex={few_rendered}"),
        *("-o", run_dir, *network, *training, "--augmentation", "wild"),
    )
    assert code == 0, err
    card = load_checkpoint(run_dir / "checkpoint")
    assert card.metadata["hold_out"] == 3
    code, _, err = run(
        *("evaluate", "stills", store, "--hold-out", 3, "--json", scores),
        *("--checkpoint", run_dir / "checkpoint"),
    )
    assert code == 0, err
    summary, table = read_scores(scores)
    assert set(table["subject_id"]) == {"Ann"}  # first of three
    assert summary["count"] == 5  # with the picture that has no face
    code, out, err = run("evaluate", "stills", store, "--hold-out", 4)
    assert (code, out) == (1, "")
    assert "found --hold-out 4, expected 2 to 3" in err


# --- evaluate ------------------------------------------------------------------------------------


def read_scores(json_file: Path) -> tuple[dict, pd.DataFrame]:
    table = pd.read_csv(json_file.with_suffix(".csv"), keep_default_na=False, na_values=[""])
    return json.loads(json_file.read_text()), table


def test_scores_follow_from_the_table(run, stills: Path, checkpoint: Path, tmp_path: Path) -> None:
    code, out, err = run(
        *("evaluate", "stills", stills, "--checkpoint", checkpoint, "--json", tmp_path / "s.json")
    )
    assert (code, err) == (0, "")
    scores, table = read_scores(tmp_path / "s.json")
    assert list(table.columns) == ["clip_id", "subject_id", "target", "prediction", *KNOWN]
    assert sorted(table["clip_id"]) == [c.clip_id for c in list_dataset("stills", stills).clips]
    answered = table[table["prediction"].notna()]
    missing = table[table["prediction"].isna()]
    assert list(missing["clip_id"]) == ["neutral/Ann_0008"]
    assert missing[list(KNOWN)].isna().all(axis=None)
    assert answered["prediction"].nunique() > 1
    probs = answered[list(KNOWN)].to_numpy()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)
    assert list(answered["prediction"]) == [KNOWN[row] for row in probs.argmax(axis=1)]

    target, prediction = table["target"], table["prediction"].fillna("nobody")
    of_classes = {"labels": list(KNOWN), "average": None, "zero_division": 0}
    recall = recall_score(target, prediction, **of_classes)
    assert scores["accuracy"] == pytest.approx((target == prediction).mean())
    assert scores["uar"] == pytest.approx(recall.mean())
    assert scores["macro_f1"] == pytest.approx(f1_score(target, prediction, **of_classes).mean())
    assert list(scores["recall"].values()) == pytest.approx(list(recall))
    for name, rows in table.groupby("target"):
        right = (rows["prediction"] == name).to_numpy().astype(np.int64)
        interval = bootstrap_interval(
            np.ones_like(right), right, rows["subject_id"].tolist(), "accuracy"
        )
        several = rows["subject_id"].nunique() > 1
        assert scores["recall_ci"][name] == (pytest.approx(list(interval)) if several else None)
    assert scores["counts"] == target.value_counts().reindex(KNOWN).to_dict()
    np.testing.assert_array_equal(
        scores["confusion"],
        confusion_matrix(answered["target"], answered["prediction"], labels=list(KNOWN)),
    )
    codes = answered["target"].map(KNOWN.index).to_numpy()
    assert scores["expected_calibration_error"] == pytest.approx(
        calibration_by_loop(probs, codes, 15), abs=1e-6
    )
    for name in ("accuracy", "uar", "macro_f1"):
        low, high = scores[f"{name}_ci"]
        assert low <= scores[name] <= high
        assert f"{scores[name]:.3f} ({low:.3f}–{high:.3f})" in out
    assert (scores["count"], scores["unanswered"], scores["num_subjects"]) == (13, 1, 3)
    assert scores["expressions"] == list(KNOWN)
    assert scores["checkpoint_sha256"] == load_checkpoint(checkpoint).sha256
    assert (scores["dataset"], scores["left_out"]) == ("stills", {})
    assert "1 without a face" in out


def test_what_runs_the_backbone_is_what_is_scored(
    run, stills: Path, checkpoint: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint, tmp_path / "exported")
    assert run("export", tmp_path / "exported", "--in-place")[0] == 0
    probs = {}
    for wanted, folder in (
        ("auto", checkpoint),
        ("onnx", checkpoint),
        ("torch", tmp_path / "exported"),
        ("auto", tmp_path / "exported"),
    ):
        file = tmp_path / "scores.json"
        settings = ("--checkpoint", folder, "--runtime", wanted, "--json", file)
        code, out, err = run("evaluate", "stills", stills, *settings)
        assert (code, err) == (0, "")
        scores, table = read_scores(file)
        assert f"on stills, by {scores['runtime']}" in out
        probs[wanted, folder.name, scores["runtime"]] = table[list(KNOWN)].to_numpy()
    by_torch, by_onnx, exact, in_8_bits = probs.values()
    assert [key[2] for key in probs] == ["torch", "onnx", "torch", "int8"]
    np.testing.assert_array_equal(by_torch, exact)
    np.testing.assert_allclose(by_onnx, exact, atol=1e-4)
    off = np.nanmax(np.abs(in_8_bits - exact))
    assert 0 < off < 0.1
    # An export of other weights is not scored as these.
    card = tmp_path / "exported" / "export.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"checkpoint_sha256": "0" * 64}))
    code, _, err = run("evaluate", "stills", stills, "--checkpoint", tmp_path / "exported")
    assert code == 1 and err.count("\n") == 1 and "found an export of the weights 0000" in err


def test_sure_answers_are_those_of_the_table(run, stills: Path, checkpoint: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    clips, _ = load_faces("stills", stills, 4)
    table = evaluate_clips(loaded, clips).predictions
    confidence = table[list(KNOWN)].max(axis=1)  # NaN where there is no face
    right = table["prediction"] == table["target"]
    sure_from = float(confidence.median())
    found = evaluate_clips(loaded, clips, sure_from=sure_from).summary["selective"]
    sure = confidence >= sure_from
    assert 0 < sure.sum() < 12
    assert found["answered"] == pytest.approx(sure.sum() / 13)
    assert found["accuracy"] == pytest.approx(right[sure].mean())
    surest = right[confidence.sort_values(ascending=False, kind="stable").index].to_numpy()
    assert found["accuracy_at_80"] == pytest.approx(surest[:10].mean())
    assert found["accuracy_at_90"] == pytest.approx(surest[:12].mean())
    risks = [1 - surest[:k].mean() for k in range(1, 13)]
    assert found["area_under_risk_coverage"] == pytest.approx(np.mean(risks))


@pytest.fixture(scope="module")
def rendered_scores(
    few_rendered: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A small per-clip network, and its scores on rendered clips by three attributes."""
    folder = tmp_path_factory.mktemp("rendered-scores")
    torch.manual_seed(0)
    model = FERGCN(tiny_config(num_classes=3, adjacency="per_clip", neutral=2))
    with torch.no_grad():  # as made, it hardly tells frames apart
        model.projection.weight.copy_(20 * torch.randn_like(model.projection.weight))
    save_checkpoint(folder / "c", model, ("happiness", "surprise", "neutral"), 40, 32)
    command = f"evaluate rendered {few_rendered} --checkpoint {folder / 'c'}"
    wanted = f"--by skin_tone glasses hair --json {folder / 's.json'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fergcn", *command.split(), *wanted.split()])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert not stopped.value.code
    return folder / "c", folder / "s.json"


def test_groups_are_those_of_the_clips(
    few_rendered: Path, rendered_scores: tuple[Path, Path]
) -> None:
    scores, table = read_scores(rendered_scores[1])
    clips = {clip.clip_id: clip for clip in load_dataset("rendered", few_rendered)}
    for name in ("skin_tone", "glasses", "hair"):
        value = table["clip_id"].map(lambda clip_id, n=name: clips[clip_id].attributes[n])
        seen = 0
        for group in scores["by"][name]:
            if name == "hair":
                inside = value == group["group"]
            else:
                low, _, high = group["group"].partition("–")
                inside = value.between(float(low) - 0.005, float(high or low) + 0.005)
            rows = table[inside]
            right = rows["target"] == rows["prediction"]
            assert group["count"] == len(rows) > 0
            assert group["num_subjects"] == rows["subject_id"].nunique()
            assert group["accuracy"] == pytest.approx(right.mean())
            assert group["uar"] == pytest.approx(right.groupby(rows["target"]).mean().mean())
            seen += len(rows)
        assert seen == len(table)
    assert len(scores["by"]["skin_tone"]) == 3


def test_frames_are_compared_with_the_truth(
    few_rendered: Path, rendered_scores: tuple[Path, Path]
) -> None:
    found = json.loads(rendered_scores[1].read_text())["intensity_claims"]["intensity"]
    loaded = load_checkpoint(rendered_scores[0])
    correlations, errors, everything = [], [], []
    for clip in load_dataset("rendered", few_rendered):
        frames = eval_transform(load_clip(clip, 4), 40, 32)
        with torch.inference_mode():
            features = loaded.model.frame_features(frames)
            u = loaded.model.head.read(features[None]).intensity[0].numpy()
        chosen = np.round(np.linspace(0, len(clip.intensity) - 1, 4)).astype(int)
        truth = np.array(clip.intensity)[chosen]
        everything.append((u, truth))
        if clip.expression == "neutral":
            continue
        correlations.append(np.corrcoef(u, truth)[0, 1])
        errors.append(abs(u.argmax() - np.abs(chosen - clip.apex_index).argmin()))
    assert found["clips"] == len(correlations)
    assert found["correlation"] == pytest.approx(np.mean(correlations), abs=5e-3)
    assert found["apex_error"] == pytest.approx(np.median(errors), abs=0.5)
    assert found["pooled_clips"] == len(everything) > len(correlations)
    pooled = np.corrcoef(*np.concatenate(everything, axis=1))[0, 1]
    assert found["pooled_correlation"] == pytest.approx(pooled, abs=5e-3)
    low, high = found["pooled_correlation_ci"]
    assert low <= pooled <= high


def test_unknown_attributes_are_one_line(run, stills: Path, checkpoint: Path) -> None:
    code, out, err = run("evaluate", "stills", stills, "--checkpoint", checkpoint, "--by", "age")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "found --by age, expected a dataset that knows such things" in err


def test_card_has_the_scores_between_its_markers(
    run, rendered_scores: tuple[Path, Path], checkpoint: Path
) -> None:
    directory, json_file = rendered_scores
    readme = directory / "README.md"
    assert run("card", directory, "--scores", json_file)[0] == 0
    card = readme.read_text()
    scores = json.loads(json_file.read_text())
    low, high = scores["uar_ci"]
    assert f"UAR {scores['uar']:.3f} ({low:.3f} to {high:.3f})" in card
    assert f"--runtime {scores['runtime']}`" in card
    for group in scores["by"]["hair"]:
        assert f"| {group['group']} | {group['count']} |" in card
    name, recall = next((n, r) for n, r in scores["recall"].items() if scores["recall_ci"][n])
    low, high = scores["recall_ci"][name]
    assert f"| {name} | {recall:.2f} ({low:.2f} to {high:.2f}) | {scores['counts'][name]} |" in card
    claim = scores["intensity_claims"]["intensity"]
    assert f"r of the intensity is {claim['pooled_correlation']:.2f} (" in card
    assert f"| {claim['clips']} | {claim['correlation']:.2f} " in card
    readme.write_text(card.replace("## Measured", "Prose.\n\n## Measured") + "More prose.\n")
    before = readme.read_text()
    assert run("card", directory, "--scores", json_file)[0] == 0
    assert readme.read_text() == before  # the same scores again, the prose as it was
    code, _, err = run("card", checkpoint, "--scores", json_file)
    assert code == 1 and "found scores of the weights" in err
    readme.write_text("no markers")
    code, _, err = run("card", directory, "--scores", json_file)
    assert (code, err.count("\n")) == (1, 1) and "found no two lines" in err
    assert readme.read_text() == "no markers"


def test_a_mask_makes_the_rest_add_up_again(
    run, stills: Path, checkpoint: Path, tmp_path: Path
) -> None:
    evaluate = ("evaluate", "stills", stills, "--checkpoint", checkpoint, "--json")
    run(*evaluate, tmp_path / "all.json")
    _, full = read_scores(tmp_path / "all.json")
    tables = []
    for spelling in (["neutral,anger", "fear"], ["fear, anger,neutral"]):
        code, out, err = run(*evaluate, tmp_path / "some.json", "--expressions", *spelling)
        assert (code, err) == (0, "")
        assert "3 clips of other expressions left out: happiness 3" in out
        tables.append((tmp_path / "some.csv").read_text())
    assert tables[0] == tables[1]
    scores, masked = read_scores(tmp_path / "some.json")
    kept = ["anger", "fear", "neutral"]  # the checkpoint's order
    assert scores["expressions"] == list(masked.columns[4:]) == kept
    assert scores["left_out"] == {"happiness": 3}
    full = full[full["target"] != "happiness"]
    assert list(masked["clip_id"]) == list(full["clip_id"])
    expected = full[kept].div(full[kept].sum(axis=1), axis=0)
    np.testing.assert_allclose(masked[kept], expected, rtol=1e-3, atol=1e-6)
    assert "happiness" not in set(masked["prediction"])


def test_faces_are_looked_for_once(run, stills: Path, checkpoint: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(stills, tmp_path / "root"))
    (root / "fear" / "Zoe_1.jpg").write_bytes(b"no picture")
    before = set(cache_dir().glob("prepared/*"))
    evaluate = ("evaluate", "stills", root, "--checkpoint", checkpoint)
    first = run(*evaluate)
    assert first[0] == 1
    assert first[2].count("\n") == 1 and "fear/Zoe_1" in first[2]
    assert "2 without a face" in first[1]
    (store,) = set(cache_dir().glob("prepared/*")) - before
    written = {file: file.stat().st_mtime_ns for file in store.rglob("*")}
    assert run(*evaluate) == first
    assert {file: file.stat().st_mtime_ns for file in store.rglob("*")} == written

    (store / "index.csv").write_text("damaged")
    assert run(*evaluate) == first  # made again from the faces that are there
    shutil.copytree(store, tmp_path / "copy")
    store_of_user = run("evaluate", "stills", tmp_path / "copy", "--checkpoint", checkpoint)
    assert store_of_user == first

    save(root / "fear" / "Zoe_1.jpg", FACE)
    code, out, err = run(*evaluate)
    assert (code, err) == (0, "")
    assert "1 without a face" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--expressions", "anger,joy"], "found the expressions joy, expected some of .* anger, "),
        (["--expressions", "anger"], "found anger to choose from, expected at least two"),
        (["--expressions", ","], "found no expression to choose from, expected at least two"),
        (["--json", "."], "found a folder"),
        (["--json", "scores.csv"], "expected a file such as scores.json"),
    ],
)
def test_impossible_wishes_are_one_line(
    run, stills: Path, checkpoint: Path, arguments: list[str], message: str
) -> None:
    code, out, err = run("evaluate", "stills", stills, "--checkpoint", checkpoint, *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert re.search(message, err)


def test_data_that_does_not_fit_is_one_line(run, checkpoint: Path, tmp_path: Path) -> None:
    save(tmp_path / "pride" / "Ann_1.png", GREY)
    evaluate = ("evaluate", "stills", tmp_path, "--checkpoint", checkpoint)
    for arguments, message in (
        ([], "found clips of pride, expected anger, fear"),
        (["--expressions", "fear,anger"], "found no clips of anger, fear"),
    ):
        code, out, err = run(*evaluate, *arguments)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert message in err
    code, _, err = run("evaluate", "stills", "--checkpoint", checkpoint)
    assert (code, err.count("\n")) == (1, 1)
    assert "found no folder for stills" in err


# --- calibration ---------------------------------------------------------------------------------


def calibration_by_loop(probs: np.ndarray, targets: np.ndarray, bins: int) -> float:
    error = 0.0
    for number in range(bins):
        inside = [
            (float(row.max()), row.argmax() == target)
            for row, target in zip(probs, targets, strict=True)
            if number / bins < row.max() <= (number + 1) / bins
        ]
        if inside:
            confidence, right = np.mean([c for c, _ in inside]), np.mean([r for _, r in inside])
            error += len(inside) / len(targets) * abs(confidence - right)
    return error


@given(
    st.lists(
        st.tuples(st.lists(st.integers(1, 20), min_size=3, max_size=3), st.integers(0, 2)),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 20),
)
def test_calibration_agrees_with_a_loop(clips: list[tuple[list[int], int]], bins: int) -> None:
    probs = np.array([weights for weights, _ in clips], dtype=np.float64)
    probs /= probs.sum(axis=1, keepdims=True)
    targets = np.array([target for _, target in clips])
    assert expected_calibration_error(probs, targets, bins) == pytest.approx(
        calibration_by_loop(probs, targets, bins)
    )


def test_calibration_of_known_answers() -> None:
    sure = np.array([[1.0, 0.0]] * 4)
    assert expected_calibration_error(sure, np.zeros(4, dtype=int)) == 0
    assert expected_calibration_error(sure, np.ones(4, dtype=int)) == 1
    assert expected_calibration_error(sure, np.array([0, 0, 0, 1])) == pytest.approx(0.25)


@pytest.mark.parametrize("command", ["train", "crossval"])
def test_one_expression_is_nothing_to_tell_apart(run, tmp_path: Path, command: str) -> None:
    neutral = RenderConfig(
        num_subjects=2, kinds=("still",), expressions=("neutral",), image_size=32
    )
    render_dataset(tmp_path / "root", neutral, workers=1)
    code, _, err = run(command, "rendered-still", tmp_path / "root", "-o", tmp_path / "run")
    assert code == 1
    assert err.startswith("fergcn: found clips of neutral only, expected at least two expressions")
    assert not (tmp_path / "run").exists()
