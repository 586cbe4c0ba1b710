"""Readers of datasets, on small trees in their official layouts."""

import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from fergcn.cli import main
from fergcn.clips import read_clip
from fergcn.datasets import DATASETS, list_dataset, load_dataset
from fergcn.datasets.check import check_dataset
from fergcn.expressions import FergcnError
from fergcn.folds import Protocol, assign_folds, subject_folds
from fergcn.video import write_video

ABOVE = pytest.mark.parametrize("above", ["", "archive"])
"""Folders that the user may name: the dataset's own, or the one that it was unpacked in."""


def picture(path: Path, colour: int | tuple[int, int, int] = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((16, 16, 3), colour, np.uint8))


def video(path: Path, grey: int = 90) -> None:
    film(path, np.full((32, 32, 3), grey, np.uint8))


def film(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, [image] * 3, fps=25)


def text(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def reasons(name: str, root: Path) -> dict[str, str]:
    """Name of each sequence that is left out, and why."""
    return {path.name: reason for path, reason in list_dataset(name, root).left_out}


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


# Only these sums are published. Who shows what is made up here so that it adds up to them.
CKPLUS_FOLDS = (33, 39, 40, 35, 30, 37, 29, 29, 33, 22)
CKPLUS_CLASSES = {
    "anger": 45,
    "contempt": 18,
    "disgust": 59,
    "fear": 25,
    "happiness": 69,
    "sadness": 28,
    "surprise": 83,
}
CKPLUS_NUMBERS = ("neutral", "anger", "contempt", "disgust", "fear", *list(CKPLUS_CLASSES)[4:])


def whole_ckplus(root: Path) -> dict[str, tuple[str, int]]:
    """Make 593 sequences of 123 subjects, 327 of 118 labelled → their expressions and folds."""
    subjects = [f"S{5 + 7 * number:03d}" for number in range(123)]
    labelled = [subject for rank, subject in enumerate(subjects) if rank % 25 != 3]
    others = [name for name, n in CKPLUS_CLASSES.items() for _ in range(n) if name != "fear"]
    random.Random(0).shuffle(others)
    names = iter(["fear"] * 25 + others)  # all fear comes before fold 10
    truth: dict[str, tuple[str, int]] = {}
    for fold, size in enumerate(CKPLUS_FOLDS):
        of_fold = labelled[fold::10]
        for number in range(size):
            subject, sequence = of_fold[number % len(of_fold)], f"{number // len(of_fold) + 1:03d}"
            expression = next(names)
            colour = (len(truth) // 256, len(truth) % 256)
            stem = f"{subject}/{sequence}/{subject}_{sequence}_"
            for frame in (1, 2):
                picture(root / f"cohn-kanade-images/{stem}{frame:08d}.png", (*colour, frame))
            label = f"   {CKPLUS_NUMBERS.index(expression)}.0000000e+00"
            text(root / f"Emotion/{stem}00000002_emotion.txt", [label])
            truth[f"{subject}/{sequence}"] = (expression, fold)
    for number in range(593 - len(truth)):
        sequence = f"{subjects[number % 123]}/{number // 123 + 50:03d}"
        text(root / f"cohn-kanade-images/{sequence}/never_opened.png", [])
        if number % 2:
            (root / "Emotion" / sequence).mkdir(parents=True)
    return truth


def test_the_whole_of_ckplus_has_the_published_folds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = whole_ckplus(tmp_path)
    listing = list_dataset("ckplus", tmp_path)
    assert (len(listing.clips), len(listing.left_out)) == (327, 266)
    folds = subject_folds([clip.subject_id for clip in listing.clips])
    found = zip(listing.clips, folds.tolist(), strict=True)
    assert {clip.clip_id: (clip.expression, fold) for clip, fold in found} == truth
    assert tuple(np.bincount(folds)) == CKPLUS_FOLDS
    in_fold_10 = Counter(expression for expression, fold in truth.values() if fold == 9)
    assert in_fold_10["fear"] == 0 and len(in_fold_10) == 6

    def check() -> tuple[int, str]:
        arguments = ["datasets", "check", "ckplus", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["fergcn", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), capsys.readouterr().out

    code, out = check()
    assert code == 0, out
    assert "folds by subjects: 33 39 40 35 30 37 29 29 33 22" in out
    gone = next(iter(truth))  # of the first fold, which shows fear
    shutil.rmtree(tmp_path / "cohn-kanade-images" / gone)
    shutil.rmtree(tmp_path / "Emotion" / gone)
    code, out = check()
    assert code == 1
    assert "problem: clips: found 326, expected 327" in out
    assert "problem: fear: found 24, expected 25" in out
    assert "problem: folds: found 32 39 " in out


@pytest.mark.parametrize("label", ["8.0000000e+00", "", "happy"])
def test_ckplus_refuses_a_label_that_is_none(tmp_path: Path, label: str) -> None:
    picture(tmp_path / "cohn-kanade-images/S005/001/S005_001_00000001.png")
    text(tmp_path / "Emotion/S005/001/S005_001_00000001_emotion.txt", [label])
    with pytest.raises(FergcnError, match="expected one number from 0 to 7"):
        list_dataset("ckplus", tmp_path)


@pytest.mark.parametrize("above", ["", "B_OriginalImg/B_OriginalImg"])
def test_oulu_casia_takes_visible_light_and_strong(tmp_path: Path, above: str) -> None:
    for light in ("VL/Strong", "VL/Dark", "NI/Strong"):
        for person in ("P001", "P002"):
            for name in ("Anger", "Surprise"):
                picture(tmp_path / above / f"OriginalImg/{light}/{person}/{name}/000.jpeg")
    clips = list_dataset("oulu-casia", tmp_path).clips
    assert {(clip.subject_id, clip.expression) for clip in clips} == {
        (person, name) for person in ("P001", "P002") for name in ("anger", "surprise")
    }
    assert len(clips) == 4
    assert all("VL/Strong" in str(clip.path) for clip in clips)


def mmi_session(root: Path, number: int, stem: str, emotion: int | None, view: int = 0) -> Path:
    """A session whose video is dark on the left and light on the right."""
    folder = root / "Sessions" / str(number)
    image = np.full((32, 48, 3), 60, np.uint8)
    image[:, 24:] = 200
    film(folder / f"{stem}.avi", image)
    tags = ['<Metatag Name="AUs" Value="12"/>']
    if emotion is not None:
        tags.append(f'<Metatag Name="Emotion" Value="{emotion}"/>')
    deeper = '<Track><Metatag Name="Emotion" Value="1"/></Track>'  # not about the session
    header = '<?xml version="1.0" encoding="UTF-8"?>'
    text(folder / f"{stem}.xml", [header, "<Session>", *tags, deeper, "</Session>"])
    text(folder / f"{stem}-oao_aucs.xml", [header, "<ActionUnitCoding/>"])
    track = f'<track trackId="1" filename="{stem}.avi" view="{view}"/>'
    text(folder / "session.xml", [header, f"<session>{track}</session>"])
    return folder


@ABOVE
def test_mmi_knows_labels_and_where_the_front_is(tmp_path: Path, above: str) -> None:
    root = tmp_path / above
    mmi_session(root, 11, "S001-001", 1)  # profile and front in one picture
    mmi_session(root, 12, "S003-104", 6)
    mmi_session(root, 13, "S053-001", 3)
    mmi_session(root, 14, "S028-002", 4, view=2)
    clips = {clip.clip_id: clip for clip in list_dataset("mmi", tmp_path).clips}
    assert {name: (clip.subject_id, clip.expression) for name, clip in clips.items()} == {
        "11/S001-001": ("S001", "anger"),
        "12/S003-104": ("S003", "surprise"),
        "13/S053-001": ("S053", "fear"),
        "14/S028-002": ("S028", "happiness"),
    }
    frames = {name: [image for _, image in read_clip(clip)] for name, clip in clips.items()}
    assert {len(images) for images in frames.values()} == {3}
    right, left, whole, turned = (images[0] for images in frames.values())
    assert [image.shape[:2] for image in (right, left, whole)] == [(32, 24), (32, 24), (32, 48)]
    assert right.mean() == pytest.approx(200, abs=12)
    assert left.mean() == pytest.approx(60, abs=12)
    assert turned.shape[:2] == (48, 32)  # clockwise: what was on the left is at the top
    assert turned[:20].mean() == pytest.approx(60, abs=12)
    assert turned[28:].mean() == pytest.approx(200, abs=12)


def test_mmi_leaves_out_what_shows_no_expression_from_the_front(tmp_path: Path) -> None:
    mmi_session(tmp_path, 1, "S002-001", 5)
    mmi_session(tmp_path, 2, "S002-002", 7)
    mmi_session(tmp_path, 3, "S002-003", None)
    mmi_session(tmp_path, 4, "S002-004", 2, view=1)
    (mmi_session(tmp_path, 5, "S002-005", 2) / "S002-005.avi").unlink()
    stills = mmi_session(tmp_path, 6, "S002-006", 2)
    (stills / "S002-006.avi").unlink()
    picture(stills / "S002-006.jpg")
    (mmi_session(tmp_path, 7, "S002-007", 2) / "S002-007.xml").unlink()
    (clip,) = list_dataset("mmi", tmp_path).clips
    assert clip.expression == "sadness"
    assert reasons("mmi", tmp_path) == {
        "2": "not one of the six expressions (Emotion 7)",
        "3": "no label",
        "4": "seen from the side only",
        "5": "labelled, but its video or pictures are missing",
        "6": "pictures only, no video",
        "7": "no label",
    }
    problems = check_dataset("mmi", tmp_path).problems
    assert "clips: found 1, expected 205" in problems
    assert any("1 labelled clips" in problem for problem in problems)


def test_mmi_refuses_a_damaged_label(tmp_path: Path) -> None:
    folder = mmi_session(tmp_path, 1, "S002-001", 5)
    text(folder / "S002-001.xml", ["<Session><Metatag"])
    with pytest.raises(FergcnError, match=r"S002-001\.xml: found .*, expected plain XML"):
        list_dataset("mmi", tmp_path)


DFEW_LABELS = ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear")


def dfew(root: Path, frames: str = "clip_224x224") -> None:
    """Ten clips, numbered from 1, of which clip n is tested in set n % 5 + 1."""
    for number in (*range(1, 11), 99):  # the last is in no list: people did not agree on it
        picture(root / f"Clip/{frames}/{number:05d}/1.jpg", 10 * number % 256)
        picture(root / f"Clip/{frames}/{number:05d}/2.jpg", 10 * number % 256 + 5)
    for fold in range(5):
        parts: dict[str, list[str]] = {"train": ["video_name,label"], "test": ["video_name,label"]}
        for number in range(1, 11):
            part = "test" if number % 5 == fold else "train"
            parts[part].append(f"{number},{(number - 1) % 7 + 1}")
        for part, lines in parts.items():
            folder = root / f"EmoLabel_DataSplit/{part}(single-labeled)"
            text(folder / f"set_{fold + 1}.csv", lines)


@ABOVE
@pytest.mark.parametrize("frames", ["clip_224x224", "jpg_256", "clip_224x224_16f"])
def test_dfew_is_tested_set_by_set(tmp_path: Path, above: str, frames: str) -> None:
    dfew(tmp_path / above, frames)
    clips = list_dataset("dfew", tmp_path).clips
    assert {clip.clip_id: (clip.expression, clip.fold) for clip in clips} == {
        f"{number:05d}": (DFEW_LABELS[(number - 1) % 7], number % 5) for number in range(1, 11)
    }
    assert all(clip.subject_id == clip.clip_id for clip in clips)
    assert [index for index, _ in read_clip(clips[0])] == [0, 1]
    folds = assign_folds(clips, Protocol("official"))
    assert np.bincount(folds).tolist() == [2] * 5


def test_dfew_names_clips_and_labels_that_are_missing(tmp_path: Path) -> None:
    dfew(tmp_path)
    shutil.rmtree(tmp_path / "Clip/clip_224x224/00003")
    assert list(reasons("dfew", tmp_path)) == ["00003"]
    assert any("00003" in problem for problem in check_dataset("dfew", tmp_path).problems)
    table = tmp_path / "EmoLabel_DataSplit/test(single-labeled)/set_2.csv"
    before = table.read_text()
    table.write_text(before.replace("6,6", "6,8"))
    with pytest.raises(FergcnError, match=r"set_2\.csv: found another table, expected .* 1 to 7"):
        list_dataset("dfew", tmp_path)
    table.write_text(before + "5,5\n")  # is in the training list of this set
    with pytest.raises(FergcnError, match="found the clip 00005 in training and test of set 2"):
        list_dataset("dfew", tmp_path)
    table.write_text(before.replace("6,6\n", ""))
    with pytest.raises(FergcnError, match="found the clip 00006 in no test list"):
        list_dataset("dfew", tmp_path)
    table.unlink()
    with pytest.raises(FergcnError, match=r"set_2\.csv: found no such file"):
        list_dataset("dfew", tmp_path)


def ferv39k(root: Path) -> Path:
    """Three clips to train on, two to test → the folder of the lists."""
    parts = {
        "train": ["Action/Happy/0267 Happy", "Crime/Angry/0001 Angry", "DailyLife/Sad/0002 Sad"],
        "test": ["Action/Surprise/0268 Surprise", "War/Neutral/0003 Neutral"],
    }
    for part, lines in parts.items():
        text(root / f"4_setups/All_scenes/{part}_All.csv", lines)
        for number, line in enumerate(lines):
            picture(root / f"2_ClipsforFaceCrop/{line.split()[0]}/{number:05d}.jpg")
    picture(root / "2_ClipsforFaceCrop/Action/Fear/0999/00001.jpg")  # in no list
    text(root / "4_setups/Action/train_Action.csv", ["Action/Happy/0267 Happy"])
    return root / "4_setups/All_scenes"


@ABOVE
def test_ferv39k_takes_the_split_over_all_scenes(tmp_path: Path, above: str) -> None:
    ferv39k(tmp_path / above)
    clips = list_dataset("ferv39k", tmp_path).clips
    assert [(c.clip_id, c.expression, c.fold, c.attributes["scene"]) for c in clips] == [
        ("Action/Happy/0267", "happiness", -1, "Action"),
        ("Action/Surprise/0268", "surprise", 0, "Action"),
        ("Crime/Angry/0001", "anger", -1, "Crime"),
        ("DailyLife/Sad/0002", "sadness", -1, "DailyLife"),
        ("War/Neutral/0003", "neutral", 0, "War"),
    ]
    assert len(list(read_clip(clips[0]))) == 1
    counts = {c.what: (c.found, c.expected) for c in check_dataset("ferv39k", tmp_path).counts}
    assert counts["training"] == (3, 31088)
    assert counts["test"] == (2, 7847)


def test_ferv39k_names_clips_and_labels_that_are_missing(tmp_path: Path) -> None:
    lists = ferv39k(tmp_path)
    (tmp_path / "2_ClipsforFaceCrop/Crime/Angry/0001/00001.jpg").rename(
        tmp_path / "2_ClipsforFaceCrop/Crime/Angry/0001/.hidden"
    )
    assert list(reasons("ferv39k", tmp_path)) == ["0001"]
    train = lists / "train_All.csv"
    before = train.read_text()
    train.write_text(before + "War/Neutral/0003 Neutral\n")
    with pytest.raises(FergcnError, match="War/Neutral/0003 in training and test"):
        list_dataset("ferv39k", tmp_path)
    train.write_text(before + "War/Neutral/0004\n")
    with pytest.raises(FergcnError, match="found the line 'War/Neutral/0004'"):
        list_dataset("ferv39k", tmp_path)
    train.unlink()
    with pytest.raises(FergcnError, match=r"train_All\.csv: found no such file"):
        list_dataset("ferv39k", tmp_path)


MAFW_LABELS = (
    *("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "contempt"),
    *("anxiety", "helplessness", "disappointment"),
)


def mafw(root: Path, frames: str = "frames", numbers: bool = False) -> Path:
    """Eleven clips, one of each class; clip n is tested in set n % 5 + 1 → the lists' folder."""
    lists = root / "split/single/no_caption"
    for number in (*range(1, 12), 99):  # the last shows several expressions
        picture(root / f"data/{frames}/{number:05d}/00001.png", 10 * number % 256)
    for fold in range(5):
        parts: dict[str, list[str]] = {"train": [], "test": []}
        for number, label in enumerate(MAFW_LABELS, start=1):
            part = "test" if number % 5 == fold else "train"
            parts[part].append(f"{number:05d}.mp4 {number if numbers else label}")
        for part, lines in parts.items():
            text(lists / f"set_{fold + 1}/{part}.txt", lines)
    return lists


@ABOVE
@pytest.mark.parametrize(("frames", "numbers"), [("frames", False), ("faces", True)])
def test_mafw_has_eleven_expressions(
    tmp_path: Path, above: str, frames: str, numbers: bool
) -> None:
    mafw(tmp_path / above, frames, numbers)
    clips = list_dataset("mafw", tmp_path).clips
    assert {clip.clip_id: (clip.expression, clip.fold) for clip in clips} == {
        f"{number:05d}": (label, number % 5) for number, label in enumerate(MAFW_LABELS, start=1)
    }
    assert clips[0].path == tmp_path / above / "data" / frames / "00001"
    counts = {c.what: (c.found, c.expected) for c in check_dataset("mafw", tmp_path).counts}
    assert counts["set 1, training"] == (9, 7332)
    assert counts["set 1, test"] == (2, 1838)


def test_mafw_leaves_out_what_a_set_does_not_list(tmp_path: Path) -> None:
    lists = mafw(tmp_path)
    train = lists / "set_3/train.txt"
    train.write_text(train.read_text().replace("00001.mp4 anger\n", ""))
    shutil.rmtree(tmp_path / "data/frames/00002")
    assert list_dataset("mafw", tmp_path).clips[0].clip_id == "00003"
    assert reasons("mafw", tmp_path) == {
        "00001": "in neither list of one of the sets",
        "00002": "labelled, but its video or pictures are missing",
    }
    train.write_text(train.read_text().replace("contempt", "pride"))
    with pytest.raises(FergcnError, match="found the label pride, expected"):
        list_dataset("mafw", tmp_path)


@ABOVE
def test_cremad_tells_all_by_the_name(tmp_path: Path, above: str) -> None:
    folder = tmp_path / above / "VideoFlash"
    names = {
        "1001_DFA_ANG_XX": ("anger", "unspecified"),
        "1001_IEO_DIS_HI": ("disgust", "high"),
        "1002_IEO_FEA_LO": ("fear", "low"),
        "1003_IEO_HAP_MD": ("happiness", "medium"),
        "1004_IWW_NEU_XX": ("neutral", "unspecified"),
        "1005_TAI_SAD_XX": ("sadness", "unspecified"),
    }
    for name in names:
        video(folder / f"{name}.flv")
    video(folder / "demonstration.flv")
    text(tmp_path / above / "AudioWAV/1001_DFA_ANG_XX.wav", [])
    clips = list_dataset("crema-d", tmp_path).clips
    assert {c.clip_id: (c.expression, c.attributes["level"]) for c in clips} == names
    assert [clip.subject_id for clip in clips] == ["1001", "1001", "1002", "1003", "1004", "1005"]
    assert clips[0].attributes["sentence"] == "DFA"
    assert len(list(read_clip(clips[0]))) == 3
    assert list(reasons("crema-d", tmp_path)) == ["demonstration.flv"]
    own = DATASETS["crema-d"]
    folds = assign_folds(clips, Protocol(own.scheme, own.folds))
    assert folds.tolist() == [0, 0, 1, 2, 3, 4]


def test_cremad_without_git_lfs_is_found_out(tmp_path: Path) -> None:
    pointer = ["version https://git-lfs.github.com/spec/v1", "oid sha256:0", "size 1"]
    text(tmp_path / "VideoFlash/1001_DFA_ANG_XX.flv", pointer)
    problems = check_dataset("crema-d", tmp_path).problems
    assert any("1001_DFA_ANG_XX.flv" in problem for problem in problems)


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
