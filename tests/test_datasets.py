"""Readers of datasets, on small trees in their official layouts."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from fergcn import subject_folds
from fergcn.datasets import DATASETS, list_dataset, load_dataset
from fergcn.datasets.check import check_dataset
from fergcn.datasets.ckplus import LABELS
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


def write_lines(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def write_full_ckplus(root: Path) -> None:
    """593 sequences of 123 subjects with the published counts of classes and folds.

    Who showed what is not published: each fold's sequences are dealt to its subjects in turn.
    """
    ckplus = DATASETS["ckplus"]
    subjects = [f"S{5 + 7 * rank:03d}" for rank in range(118)]
    dealt = [
        subjects[fold::10][turn % len(subjects[fold::10])]
        for fold, size in enumerate(ckplus.fold_sizes)
        for turn in range(size)
    ]
    labels = sorted(
        (name for name, count in ckplus.expected.items() for _ in range(count)),
        key=lambda name: name != "fear",  # first, so that the last fold has none
    )
    others = [f"S{6 + 7 * rank:03d}" for rank in range(5)]
    unlabelled = [(subjects + others)[turn % 123] for turn in range(593 - 327)]
    rng = np.random.default_rng(0)
    sessions: dict[str, int] = {}
    for subject, label in [
        *zip(dealt, labels, strict=True),
        *((subject, "") for subject in [*others, *unlabelled[: 266 - 5]]),
    ]:
        sessions[subject] = number = sessions.get(subject, 0) + 1
        name = f"{subject}/{number:03d}"
        stem = f"{subject}_{number:03d}_00000011"
        path = root / "cohn-kanade-images" / name / f"{stem}.png"
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        folder = root / "Emotion" / name
        folder.mkdir(parents=True)
        if label:
            text = f"   {LABELS.index(label):.7e}\n"
            (folder / f"{stem}_emotion.txt").write_text(text)


def test_ckplus_has_its_published_folds(tmp_path: Path) -> None:
    write_full_ckplus(tmp_path)
    report = check_dataset("ckplus", tmp_path)
    assert report.problems == []
    assert sum(map(len, report.left_out.values())) == 593 - 327
    clips = report.clips
    folds = subject_folds([clip.subject_id for clip in clips])
    assert np.bincount(folds).tolist() == [33, 39, 40, 35, 30, 37, 29, 29, 33, 22]
    tenth = [clip.expression for clip, fold in zip(clips, folds, strict=True) if fold == 9]
    assert "fear" not in tenth
    lost = clips[100].path
    shutil.rmtree(lost)
    problems = check_dataset("ckplus", tmp_path, open_files=False).problems
    assert "clips: found 326, expected 327" in problems
    assert f"{clips[100].expression}: found" in "\n".join(problems)
    assert any(str(lost) in problem for problem in problems)


def mmi_session(root: Path, session: int, stem: str, emotion: str | None, view: str = "0") -> None:
    folder = root / f"Sessions/{session}"
    folder.mkdir(parents=True)
    tag = f'<Metatag Name="Emotion" Value="{emotion}" />' if emotion else ""
    write_lines(
        folder / f"{stem}.xml",
        f'<ActionUnitCoding><Metatag Name="FACS" Value="x"/>{tag}'
        '<ActionUnit Number="12"><Metatag Name="Emotion" Value="9"/></ActionUnit>'
        "</ActionUnitCoding>",
    )
    write_lines(folder / "session.xml", f'<session><track view="{view}"/></session>')
    write_lines(folder / f"{stem}-oao_aucs.xml", "<other/>")
    video(folder / f"{stem}.avi", 60 + session)


@pytest.mark.parametrize("above", ["", "MMI/download"])
def test_mmi_knows_where_the_front_is(tmp_path: Path, above: str) -> None:
    root = tmp_path / above
    mmi_session(root, 1, "S001-001", "1")
    mmi_session(root, 2, "S003-004", "6")
    mmi_session(root, 3, "S053-002", "3")
    mmi_session(root, 4, "S020-007", "4")
    mmi_session(root, 5, "S020-008", "7")  # above six
    mmi_session(root, 6, "S020-009", None)
    mmi_session(root, 7, "S021-001", "2", view="1")  # the side alone
    mmi_session(root, 8, "S021-002", "2")
    (root / "Sessions/8/S021-002.avi").unlink()
    picture(root / "Sessions/8/S021-002.jpg")
    listing = list_dataset("mmi", tmp_path)
    assert [(c.clip_id, c.subject_id, c.expression, c.view) for c in listing.clips] == [
        ("1/S001-001", "S001", "anger", "right half"),
        ("2/S003-004", "S003", "surprise", "left half"),
        ("3/S053-002", "S053", "fear", "whole"),
        ("4/S020-007", "S020", "happiness", "rotated 90"),
    ]
    assert [path.name for path, _ in listing.left_out] == ["5", "6", "7", "8"]


def test_mmi_trusts_no_document_type(tmp_path: Path) -> None:
    mmi_session(tmp_path, 1, "S001-001", "1")
    file = tmp_path / "Sessions/1/S001-001.xml"
    file.write_text('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>')
    with pytest.raises(FergcnError, match="found a document type, expected plain XML"):
        list_dataset("mmi", tmp_path)


@pytest.mark.parametrize("folder", ["clip_224x224", "clip_224x224_16f", "jpg_256"])
def test_dfew_is_tested_in_its_five_sets(tmp_path: Path, folder: str) -> None:
    labels = {1: "happiness", 2: "sadness", 3: "neutral", 4: "anger", 5: "surprise", 6: "disgust"}
    for number in range(1, 11):
        picture(tmp_path / f"DFEW/Clip/{folder}/{number:05d}/1.jpg", 20 * number)
    rows = [f"{number},{(number - 1) % 6 + 1}" for number in range(1, 11)]
    split = tmp_path / "DFEW/EmoLabel_DataSplit"
    for fold in range(5):
        test = rows[2 * fold : 2 * fold + 2]
        train = [row for row in rows if row not in test]
        write_lines(split / f"test(single-labeled)/set_{fold + 1}.csv", "video_name,label", *test)
        write_lines(split / f"train(single-labeled)/set_{fold + 1}.csv", "video_name,label", *train)
    listing = list_dataset("dfew", tmp_path)
    assert [(c.clip_id, c.expression, c.fold) for c in listing.clips] == [
        (f"{number:05d}", labels[(number - 1) % 6 + 1], (number - 1) // 2)
        for number in range(1, 11)
    ]
    shutil.rmtree(tmp_path / f"DFEW/Clip/{folder}/00004")
    assert [path.name for path, _ in list_dataset("dfew", tmp_path).left_out] == ["00004"]
    write_lines(split / "test(single-labeled)/set_1.csv", "video_name,label", "3,3", "1,1")
    with pytest.raises(FergcnError, match="in training and test of set 1"):
        list_dataset("dfew", tmp_path)


def test_ferv39k_has_one_split(tmp_path: Path) -> None:
    names = ["DailyLife/Angry/0001", "DailyLife/Happy/0002", "Crime/Fear/0003"]
    for number, name in enumerate(names):
        picture(tmp_path / f"2_ClipsforFaceCrop/{name}/1.jpg", 30 * number)
    lists = tmp_path / "4_setups/All_scenes"
    write_lines(lists / "train_All.csv", f"{names[0]} Angry", f"{names[1]} Happy")
    write_lines(lists / "test_All.csv", f"{names[2]} Fear", "Crime/Sad/0009 Sad")
    listing = list_dataset("ferv39k", tmp_path)
    assert [(c.clip_id, c.expression, c.fold) for c in listing.clips] == [
        ("Crime/Fear/0003", "fear", 0),
        ("DailyLife/Angry/0001", "anger", -1),
        ("DailyLife/Happy/0002", "happiness", -1),
    ]
    assert listing.clips[0].attributes == {"scene": "Crime"}
    assert [path.name for path, _ in listing.left_out] == ["0009"]


def test_mafw_is_tested_in_its_five_sets(tmp_path: Path) -> None:
    words = ["anger", "helplessness", "contempt", "anxiety", "disappointment"]
    for number in range(1, 6):
        picture(tmp_path / f"data/frames/{number:05d}/1.png", 30 * number)
    lines = [f"{number:05d}.mp4 {word}" for number, word in enumerate(words, start=1)]
    split = tmp_path / "split/single/no_caption"
    for fold in range(5):
        write_lines(split / f"set_{fold + 1}/test.txt", lines[fold])
        write_lines(split / f"set_{fold + 1}/train.txt", *lines[:fold], *lines[fold + 1 :])
    clips = list_dataset("mafw", tmp_path).clips
    assert [(c.clip_id, c.expression, c.fold) for c in clips] == [
        (f"{number:05d}", word, number - 1) for number, word in enumerate(words, start=1)
    ]
    write_lines(split / "set_1/test.txt", "00001.mp4 joyful")
    with pytest.raises(FergcnError, match="found the label joyful"):
        list_dataset("mafw", tmp_path)


def test_cremad_reads_names(tmp_path: Path) -> None:
    for number, name in enumerate(
        ["1001_DFA_ANG_XX", "1001_IEO_HAP_LO", "1002_IEO_NEU_XX", "1091_WSI_SAD_HI"]
    ):
        video(tmp_path / f"CREMA-D/VideoFlash/{name}.flv", 40 * number)
    clips = list_dataset("crema-d", tmp_path).clips
    assert [(c.subject_id, c.expression) for c in clips] == [
        ("1001", "anger"),
        ("1001", "happiness"),
        ("1002", "neutral"),
        ("1091", "sadness"),
    ]
    assert {str(c.attributes.get("level")) for c in clips} == {"unspecified", "low", "high"}
    assert all(clip.fold is None for clip in clips)
