"""Readers of datasets, on small trees in their official layouts."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from fergcn.datasets import DATASETS, list_dataset, load_dataset
from fergcn.datasets.check import check_dataset
from fergcn.expressions import FergcnError
from fergcn.video import write_video


def picture(path: Path, grey: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((16, 16, 3), grey, np.uint8))


def video(path: Path, grey: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, [np.full((32, 32, 3), grey, np.uint8)] * 3, fps=25)


@pytest.mark.parametrize("above", ["", "CK+", "download/CK+"])
def test_ckplus_is_labelled_at_the_peak(tmp_path: Path, above: str) -> None:
    root = tmp_path / above
    for number in (1, 2, 3):
        picture(root / f"cohn-kanade-images/S005/001/S005_001_{number:08d}.png", 80 + number)
        picture(root / f"cohn-kanade-images/S010/002/S010_002_{number:08d}.png", 100 + number)
    label = root / "Emotion/S005/001/S005_001_00000003_emotion.txt"
    label.parent.mkdir(parents=True)
    label.write_text("   3.0000000e+00\n")
    (root / "Emotion/S010/002").mkdir(parents=True)  # a session without a label is empty
    listing = list_dataset("ckplus", tmp_path)
    (clip,) = listing.clips
    assert (clip.subject_id, clip.expression, clip.fold) == ("S005", "disgust", None)
    assert clip.path == root / "cohn-kanade-images/S005/001"
    assert [path.name for path, _ in listing.left_out] == ["002"]


def test_oulu_casia_takes_visible_light_and_strong(tmp_path: Path) -> None:
    for light in ("VL/Strong", "VL/Dark", "NI/Strong"):
        for person in ("P001", "P002"):
            for name in ("Anger", "Surprise"):
                picture(tmp_path / f"OriginalImg/{light}/{person}/{name}/000.jpeg")
    clips = list_dataset("oulu-casia", tmp_path).clips
    assert {(clip.subject_id, clip.expression) for clip in clips} == {
        (person, name) for person in ("P001", "P002") for name in ("anger", "surprise")
    }
    assert len(clips) == 4
    assert all("VL/Strong" in str(clip.path) for clip in clips)


def test_afew_is_tested_on_its_validation_part(tmp_path: Path) -> None:
    video(tmp_path / "Train_AFEW/Angry/000223480.avi")
    video(tmp_path / "Train_AFEW/Happy/000223481.avi", 100)
    video(tmp_path / "Val_AFEW/Fear/000223482.avi", 110)
    clips = list_dataset("afew", tmp_path).clips
    assert {(clip.expression, clip.fold) for clip in clips} == {
        ("anger", -1),
        ("happiness", -1),
        ("fear", 0),
    }


def test_ravdess_counts_a_performance_once(tmp_path: Path) -> None:
    for name in ("01-01-06-01-02-01-12", "02-01-06-01-02-01-12", "02-02-03-01-01-01-12"):
        video(tmp_path / f"Actor_12/{name}.mp4")  # audio and video, video alone, a song
    video(tmp_path / "Actor_24/02-01-02-02-01-01-24.mp4", 100)
    clips = list_dataset("ravdess", tmp_path).clips
    assert [(clip.expression, clip.fold) for clip in clips] == [("fear", 2), ("calm", 5)]
    assert clips[0].path.name == "02-01-06-01-02-01-12.mp4"


def test_own_clips_know_their_people_from_a_table(tmp_path: Path) -> None:
    video(tmp_path / "Happy/a.mp4")
    picture(tmp_path / "fear/b/1.png")
    assert all(c.subject_id == c.clip_id for c in list_dataset("folder", tmp_path).clips)
    (tmp_path / "subjects.csv").write_text("clip,subject_id\nHappy/a,ann\nfear/b,bob\n")
    clips = list_dataset("folder", tmp_path).clips
    assert {(c.expression, c.subject_id) for c in clips} == {("happiness", "ann"), ("fear", "bob")}
    (tmp_path / "subjects.csv").write_text("clip,subject_id\nHappy/a,ann\n")
    with pytest.raises(FergcnError, match=r"found .*expected .*: "):
        list_dataset("folder", tmp_path)


@pytest.mark.parametrize("name", [name for name, d in DATASETS.items() if d.bundled is None])
def test_another_layout_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(FergcnError) as caught:
        list_dataset(name, tmp_path)
    assert str(caught.value).count("\n") == 0
    assert str(tmp_path) in str(caught.value)


def test_raw_clips_are_not_taken_for_faces(tmp_path: Path) -> None:
    video(tmp_path / "happy/a.mp4")
    with pytest.raises(FergcnError, match="run fergcn prepare folder"):
        load_dataset("folder", tmp_path)


def test_the_doctor_names_what_is_wrong(tmp_path: Path) -> None:
    video(tmp_path / "happy/a.mp4")
    (tmp_path / "happy/b.mp4").write_bytes((tmp_path / "happy/a.mp4").read_bytes())
    video(tmp_path / "fear/c.mp4", 100)
    (tmp_path / "fear/d.mp4").write_bytes(b"not a video")
    problems = "\n".join(check_dataset("folder", tmp_path).problems)
    assert "d.mp4" in problems
    assert ("a" in problems and "b.mp4" in problems) or "happy/b" in problems
    assert check_dataset("rendered", None).problems == []
