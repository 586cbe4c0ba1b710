"""The command line from end to end, failures included."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from skimage.data import astronaut

from conftest import TINY
from fergcn.analysis.config import AnalysisConfig
from fergcn.cli import COMMANDS
from fergcn.clips import Clip
from fergcn.commands.predict import Job, Outcome, _end_job
from fergcn.report.outputs import VideoTable
from fergcn.video import read_frames, write_video
from odd_files import encode

NETWORK = ["--backbone", TINY, "--no-pretrained", "--num-frames", "4", "--feature-dim", "16"]
TRAINING = ["--epochs", "2", "--resize", "40", "--crop", "32", "--accelerator", "cpu"]


@pytest.fixture
def dataset(coloured_clips: list[Clip], tmp_path: Path) -> Path:
    """The coloured clips in the layout that fergcn render writes."""
    root = tmp_path / "dataset"
    clip_rows, frame_rows = [], []
    for clip in coloured_clips:
        target = root / "clips" / clip.subject_id / f"{clip.clip_id}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip.path, target)
        row = {"clip_id": clip.clip_id, "subject_id": clip.subject_id}
        clip_rows.append(
            row | {"expression": clip.expression, "kind": "onset_apex", "apex_index": 4}
        )
        frame_rows += [
            {"clip_id": clip.clip_id, "frame_index": i, "intensity": i / 8} for i in range(5)
        ]
    for name, rows in (("clips.csv", clip_rows), ("frames.csv", frame_rows)):
        with (root / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    np.save(root / "motion.npy", np.zeros((len(coloured_clips), 14, 14), dtype=np.uint8))
    (root / "rendered.json").write_text(json.dumps({"format": 1, "complete": True}))
    return root


def is_one_line(text: str) -> bool:
    return text.count("\n") == 1 and "Traceback" not in text


def test_help_names_every_command_and_is_quick(run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(name in out for name in COMMANDS)
    loaded = (
        "import sys, fergcn.cli; print([m for m in ('torch', 'pandas', 'cv2') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "Usage: fergcn" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["train"],
        ["predict"],
        ["crossval", "rendered", "--folds", "many"],
        ["train", "rendered", "--fusion", "max"],
        ["train", "rendered", "--num-modules", "9"],
        ["train", "rendered", "--crop", "300"],
        ["train", "rendered", "--config"],
        ["train", "rendered", "--config", "none.toml"],
        ["predict", "video.mp4", "--stride", "0"],
        ["predict", "video.mp4", "--stride", "nan"],
        ["predict", "video.mp4", "--keep-lost-s", "nan"],
        ["predict", "video.mp4", "--max-gap-s", "nan"],
        ["predict", "video.mp4", "--num-workers", "0"],
        ["predict", "video.mp4", "--segments.onset-threshold", "2"],
        ["predict", "video.mp4", "--segments.merge-gap-s", "nan"],
        ["predict", "-x.mp4"],
        ["predict", ""],
    ],
)
def test_wrong_usage_is_exit_2(run, arguments: list[str]) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert is_one_line(err) and err.startswith("fergcn: "), err


def test_train_then_evaluate(run, dataset: Path, tmp_path: Path) -> None:
    run_dir, scores = tmp_path / "run", tmp_path / "scores.json"
    code, out, err = run("train", "rendered", dataset, "-o", run_dir, *NETWORK, *TRAINING)
    assert (code, str(run_dir / "checkpoint") in out) == (0, True), err
    assert len(pd.read_csv(run_dir / "log.csv")) == 2
    code, out, err = run(
        "evaluate", "rendered", dataset, "--checkpoint", run_dir / "checkpoint", "--json", scores
    )
    assert code == 0, err
    content = json.loads(scores.read_text())
    assert content["count"] == 12
    assert np.sum(content["confusion"]) == 12
    assert content["accuracy"] == pytest.approx(np.trace(content["confusion"]) / 12)
    assert f"{content['accuracy']:.3f}" in out


def test_evaluate_counts_a_clip_without_a_face(run, tiny_checkpoint: Path, tmp_path: Path) -> None:
    root, store, scores = tmp_path / "own", tmp_path / "store", tmp_path / "scores.json"
    (root / "happiness").mkdir(parents=True)
    write_video(root / "happiness" / "face.mp4", [astronaut()[:256, 80:400]] * 4, fps=25)
    write_video(root / "happiness" / "none.mp4", [np.full((120, 160, 3), 90, np.uint8)] * 4, fps=25)
    code, _, err = run("prepare", "folder", root, "-o", store, "--size", "64", "--workers", "1")
    assert code == 0, err
    code, out, err = run(
        "evaluate", "folder", store, "--checkpoint", tiny_checkpoint, "--json", scores
    )
    assert code == 0, err
    assert "2 clips" in out
    assert "1 without a face, which count as errors" in out
    content = json.loads(scores.read_text())
    assert (content["count"], content["unanswered"]) == (2, 1)
    assert np.sum(content["confusion"]) == 1
    assert content["accuracy"] == pytest.approx(np.trace(content["confusion"]) / 2)


def test_crossval_prints_folds_and_confusion(run, dataset: Path, tmp_path: Path) -> None:
    arguments = ["--folds", "3", "--freeze-backbone", "-o", tmp_path / "cv", *NETWORK, *TRAINING]
    code, out, err = run("crossval", "rendered", dataset, *arguments)
    assert code == 0, err
    assert "12 clips of 6 subjects, 3 folds (subjects), seeds 0" in out
    assert "optimistic" in out
    assert "anger (4)" in out
    assert len(pd.read_csv(tmp_path / "cv" / "predictions.csv")) == 12
    again = run("crossval", "rendered", dataset, *arguments)
    assert again == (0, out, "")


def test_settings_come_from_a_file_and_flags_win(run, dataset: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text("[train]\nepochs = 1\nseed = 7\nfreeze-backbone = true\n")
    code, _, err = run(
        *("train", "rendered", dataset, "-o", tmp_path / "run", "--config", config),
        *(*NETWORK, "--resize", "40", "--crop", "32", "--seed", "8"),
    )
    assert code == 0, err
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())["training"]
    assert (settings["epochs"], settings["seed"], settings["freeze_backbone"]) == (1, 8, True)


def test_predict_writes_what_the_contract_says(run, face_video: Path, tmp_path: Path) -> None:
    code, out, err = run(
        "predict", face_video, "-o", tmp_path, "--overlay", "--report", "--stride", "2"
    )
    assert code == 0, err
    directory = tmp_path / "astronaut"
    assert str(directory) in out.replace("\n", "")
    assert sorted(path.name for path in directory.iterdir()) == sorted(
        [
            "frames.csv",
            "frames.parquet",
            "windows.csv",
            "segments.csv",
            "segments.eaf",
            "segments.srt",
            "summary.json",
            "timeline.png",
            "overlay.mp4",
            "report.html",
        ]
    )
    frames = pd.read_csv(directory / "frames.csv")
    assert ",".join(frames.columns) == (
        "frame_index,time_s,track_id,x1,y1,x2,y2,face_confidence,expression,intensity,"
        "anger,contempt,disgust,fear,happiness,sadness,surprise,neutral"
    )
    assert frames["frame_index"].tolist() == list(range(20))
    assert frames["track_id"].tolist() == [0] * 20
    assert frames["intensity"].between(0, 1).all()
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["settings"]["stride"] == 2
    assert len(summary["checkpoint"]["sha256"]) == 64


def test_predict_goes_on_after_bad_videos(run, face_video: Path, tmp_path: Path) -> None:
    empty, text, cut = (tmp_path / name for name in ("empty.mp4", "text.mp4", "cut.mp4"))
    empty.touch()
    text.write_text("not a video")
    cut.write_bytes(face_video.read_bytes()[:200])
    code, out, err = run(
        "predict", tmp_path / "none.mp4", empty, text, cut, face_video, "-o", tmp_path / "out"
    )
    assert code == 1
    lines = err.splitlines()
    assert len(lines) == 4
    for line, name in zip(lines, ("none", "empty", "text", "cut"), strict=True):
        assert f"{name}.mp4: found" in line
        assert "expected" in line
    assert "20 of 20 frames show a face" in out
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["astronaut", "videos.csv"]
    table = pd.read_csv(tmp_path / "out" / "videos.csv")
    assert list(table["status"]) == ["failed"] * 4 + ["done"]
    assert [Path(file).stem for file in table["file"]] == [
        *("none", "empty", "text", "cut", "astronaut"),
    ]
    assert table.loc[4, ["faces", "segments"]].notna().all()
    assert table["note"].str.contains("found").tolist()[:4] == [True] * 4


def test_videos_of_one_name_keep_apart(run, face_video: Path, tmp_path: Path) -> None:
    other = tmp_path / "astronaut.mp4"
    shutil.copy(face_video, other)
    code, _, err = run("predict", face_video, other, "-o", tmp_path / "out")
    assert code == 0, err
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["astronaut", "astronaut-2", "videos.csv"]


def test_a_later_run_takes_no_other_videos_folder(run, face_video: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "day1" / "clip.mp4", tmp_path / "day2" / "clip.mp4"
    for video in (first, second):
        video.parent.mkdir()
        shutil.copyfile(face_video, video)
    os.utime(second, (1, 1))
    out = tmp_path / "out"

    def predict(*videos: Path) -> dict[str, str]:
        """The results of each video, by the table of all."""
        code, _, err = run("predict", *videos, "-o", out)
        assert code == 0, err
        table = pd.read_csv(out / "videos.csv")
        return {row.results: row.note for row in table.fillna("").itertuples()}

    assert predict(first) == {"clip": ""}
    assert predict(second) == {"clip": "", "clip-2": ""}
    known = {"clip": "done before", "clip-2": "done before"}
    assert predict(second, first) == known  # whichever comes first now
    for name, video in (("clip", first), ("clip-2", second)):
        about = json.loads((out / name / "summary.json").read_text())["video"]
        assert about["path"] == str(video)
    # A file that changed is done again where it was; one that was moved is known again.
    os.utime(first, (2, 2))
    assert predict(first) == {"clip": "", "clip-2": "done before"}
    moved = second.rename(tmp_path / "clip.mp4")
    assert predict(moved)["clip-2"] == "done before"
    assert sorted(path.name for path in out.iterdir()) == ["clip", "clip-2", "videos.csv"]


def test_a_table_that_cannot_be_written_stops_no_other_video(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = VideoTable(tmp_path / "videos.csv", {})
    (tmp_path / "videos.csv").unlink()
    (tmp_path / "videos.csv").mkdir()
    job = Job(Path("a.mp4"), tmp_path / "a", "default", AnalysisConfig(), [], 1)
    assert _end_job(job, Outcome(complaints=["a.mp4: found nothing"], failed=True), table)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "videos.csv: found it can't be written" in lines[1]


def test_what_was_wrong_is_still_said_of_a_video_done_before(
    run, face_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another working directory gives the same file another name."""
    grey = encode(tmp_path / "grey.mp4", [np.full((64, 64, 3), 99, np.uint8)] * 3)
    for folder, video in ((tmp_path, "grey.mp4"), (tmp_path.parent, grey)):
        monkeypatch.chdir(folder)
        assert run("predict", video, "-o", tmp_path / "out")[0] == 0
        table = pd.read_csv(tmp_path / "out" / "videos.csv")
        assert table["note"].str.contains("found no face").tolist() == [True]
    assert table["note"].str.startswith("done before; ").all()


def test_overlay_and_page_are_added_to_what_is_there(run, face_video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "astronaut"
    assert run("predict", face_video, "-o", tmp_path)[0] == 0
    begun = (folder / "frames.csv").stat().st_mtime_ns
    code, out, err = run("predict", face_video, "-o", tmp_path, "--overlay")
    assert (code, err) == (0, "") and "20 of 20 frames show a face" in out
    drawn = (folder / "overlay.mp4").stat().st_mtime_ns
    assert run("predict", face_video, "-o", tmp_path, "--overlay", "--report")[0] == 0
    assert (folder / "report.html").exists()
    assert (folder / "frames.csv").stat().st_mtime_ns == begun
    assert (folder / "overlay.mp4").stat().st_mtime_ns == drawn
    code, out, _ = run("predict", face_video, "-o", tmp_path, "--report")
    assert code == 0 and "done before" in out
    assert sorted(tmp_path.iterdir()) == [folder, tmp_path / "videos.csv"]
    # As when they are made at once:
    assert run("predict", face_video, "-o", tmp_path / "new", "--overlay", "--report")[0] == 0
    pages = [
        (place / "report.html").read_text(encoding="utf-8").split("<footer")[0]
        for place in (folder, tmp_path / "new" / "astronaut")
    ]
    frames = [
        np.array([frame.image for frame in read_frames(place / "overlay.mp4")], np.int16)
        for place in (folder, tmp_path / "new" / "astronaut")
    ]
    assert pages[0].count("<img") == pages[1].count("<img") > 0
    assert np.abs(frames[0] - frames[1]).mean() < 0.1  # x264 is not always the same to the bit


def test_a_name_that_is_no_text_has_a_page(run, face_video: Path, tmp_path: Path) -> None:
    video = tmp_path / os.fsdecode(b"Gr\xfc\xdfe.mp4")
    shutil.copy(face_video, video)
    code, _, err = run("predict", video, "-o", tmp_path / "out", "--report", "--overlay")
    assert (code, err) == (0, "")
    (page,) = (tmp_path / "out").glob("*/report.html")
    assert "Gr" in page.read_text(encoding="utf-8")


def test_where_no_export_can_be_is_one_line(run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = run("export", "-o", tmp_path / "file" / "below")
    assert code == 1 and is_one_line(err) and f"{tmp_path}/file/below: found" in err


def test_output_of_few_letters(face_video: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fergcn", "predict", str(face_video), "-o", str(tmp_path)]
    env = os.environ | {"PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "show a face \\u2192" in done.stdout


def test_one_pixel_has_an_overlay_and_a_page(run, tmp_path: Path) -> None:
    for height, width in ((1, 1), (1, 40), (40, 1)):
        video = encode(
            tmp_path / f"{height}x{width}.mov",
            [np.full((height, width, 3), 99, np.uint8)] * 3,
            "png",
            "rgb24",
        )
        code, _, err = run("predict", video, "-o", tmp_path, "--overlay", "--report")
        assert code == 0, err
        frames = list(read_frames(tmp_path / video.stem / "overlay.mp4"))
        assert len(frames) == 3 and frames[0].image.shape[1] >= width
        assert (tmp_path / video.stem / "report.html").is_file()


def test_a_video_without_faces_is_an_answer(run, tmp_path: Path) -> None:
    video = tmp_path / "grey.mp4"
    write_video(video, [np.full((120, 160, 3), 90, dtype=np.uint8)] * 8, fps=25)
    code, out, err = run("predict", video, "-o", tmp_path)
    assert code == 0
    assert "0 of 8 frames show a face" in out
    assert "found no face" in err
    frames = pd.read_csv(tmp_path / "grey" / "frames.csv")
    assert len(frames) == 8
    assert frames["track_id"].isna().all()


def test_predict_takes_folders_patterns_and_lists(run, face_video: Path, tmp_path: Path) -> None:
    for name in ("in/a/one.mp4", "in/b/one.MP4", "in/b/two three.mp4", "list/four.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(face_video.read_bytes())
    (tmp_path / "in" / "notes.txt").write_text("no video")
    listed = tmp_path / "videos.txt"
    listed.write_text(f"{tmp_path / 'list' / 'four.mp4'}\n\n{tmp_path / 'in/a/one.mp4'}\n")
    arguments = (
        *("predict", tmp_path / "in", tmp_path / "li?t" / "*.mp4", "--files-from", listed),
        *("-o", tmp_path / "out", "--num-workers", 2),
    )
    code, out, err = run(*arguments)
    assert code == 0, err
    written = sorted(p.parent.relative_to(tmp_path / "out") for p in tmp_path.rglob("summary.json"))
    assert written == [Path("a/one"), Path("b/one"), Path("b/two three"), Path("four")]
    assert out.count("frames show a face") == 4
    # The same again: all is done; another setting or file: again.
    code, out, _ = run(*arguments)
    assert (code, out.count("done before"), out.count("frames show a face")) == (0, 4, 0)
    code, out, _ = run(*arguments, "--stride", 2)
    assert (code, out.count("done before"), out.count("frames show a face")) == (0, 0, 4)
    os.utime(tmp_path / "list" / "four.mp4", (1, 1))
    code, out, _ = run(*arguments, "--stride", 2)
    assert (code, out.count("done before"), out.count("frames show a face")) == (0, 3, 1)
    code, out, _ = run(*arguments, "--stride", 2, "--overwrite")
    assert out.count("frames show a face") == 4


def test_two_workers_find_what_one_finds(run, face_video: Path, tmp_path: Path) -> None:
    videos = [tmp_path / f"{number}.mp4" for number in range(3)]
    for video in videos:
        video.write_bytes(face_video.read_bytes())
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    code, _, err = run("predict", *videos, broken, "-o", tmp_path / "two", "--num-workers", 2)
    assert code == 1 and err.count("broken.mp4: found") == 1 and "Traceback" not in err
    run("predict", *videos, "-o", tmp_path / "one")
    for video in videos:
        tables = [
            pd.read_csv(tmp_path / side / video.stem / "frames.csv") for side in ("one", "two")
        ]
        pd.testing.assert_frame_equal(*tables, rtol=1e-3, atol=1e-4)


def test_a_hyphen_is_stdin(run, tmp_path: Path) -> None:
    code, _, err = run("predict", "--files-from", "-", "-o", tmp_path)
    assert code == 1 and is_one_line(err) and "found an empty list" in err
    code, _, err = run("predict", "-", "-o", tmp_path)
    assert code == 1 and is_one_line(err) and "found nothing that can be read" in err
    code, _, err = run("predict", "-", "a.mp4", "-o", tmp_path)
    assert code == 2 and "found a live source and other videos" in err


@pytest.mark.parametrize(
    ("what", "expected"),
    [("empty", "found no video in this folder"), ("no*.mp4", "found no file like this")],
)
def test_places_without_a_video_are_named(run, tmp_path: Path, what: str, expected: str) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = run("predict", tmp_path / what)
    assert code == 1 and expected in err and err.count("\n") == 1


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_not_a_checkpoint_is_one_line(run, command: str, face_video: Path, tmp_path: Path) -> None:
    target = face_video if command == "predict" else "rendered"
    code, _, err = run(command, target, "--checkpoint", tmp_path / "none")
    assert code == 1
    assert is_one_line(err)
    assert "found no such folder, expected a checkpoint" in err


def break_dataset(root: Path, how: str) -> None:
    if how == "missing":
        shutil.rmtree(root)
    elif how == "layout":
        (root / "rendered.json").unlink()
    elif how == "clip":
        next(root.rglob("*.mp4")).unlink()
    elif how == "video":
        next(root.rglob("*.mp4")).write_bytes(b"broken")
    elif how == "table":
        (root / "clips.csv").write_text("")


@pytest.mark.parametrize("how", ["missing", "layout", "clip", "video", "table"])
def test_a_wrong_dataset_is_one_line(run, dataset: Path, tmp_path: Path, how: str) -> None:
    break_dataset(dataset, how)
    code, out, err = run("train", "rendered", dataset, "-o", tmp_path / "run", *NETWORK, *TRAINING)
    assert code == 1
    assert is_one_line(err), err
    assert "found" in err and "expected" in err
    assert out == ""
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_unknown_names_are_one_line(run, dataset: Path, tmp_path: Path) -> None:
    code, _, err = run("train", "imagenet", dataset)
    assert (code, is_one_line(err)) == (1, True)
    assert "found the dataset imagenet, expected one of ckplus" in err
    code, _, err = run(
        "train", "rendered", dataset, "-o", tmp_path / "x", "--backbone", "vgg99", "--no-pretrained"
    )
    assert (code, is_one_line(err)) == (1, True)
    assert "found the backbone vgg99" in err


def test_datasets_counts_what_ships(run) -> None:
    code, out, _ = run("datasets")
    assert code == 0
    assert "rendered-apex" in out


def test_module_and_exit_code_as_a_real_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fergcn", "predict", str(tmp_path / "none.mp4")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert is_one_line(result.stderr)
    assert [path.name for path in tmp_path.rglob("*")] == ["results", "videos.csv"]


@pytest.mark.parametrize("module", ["fergcn.cli", "cyclopts", "fergcn.commands.bench"])
def test_ctrl_c_is_one_line_while_modules_are_imported(module: str) -> None:
    program = f"""
import sys
class CtrlC:
    def find_spec(self, name, *_):
        if name == "{module}":
            raise KeyboardInterrupt
sys.meta_path.insert(0, CtrlC())
sys.argv = ["fergcn", "bench"]
from fergcn.__main__ import main
main()
"""
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (130, "")
    assert (
        result.stderr == "fergcn: stopped; the same command keeps what is done and does the rest\n"
    )
