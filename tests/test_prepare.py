"""From raw clips to stored faces, with a real face; interruptions and damage included."""

import csv
import hashlib
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fergcn.cli import main
from fergcn.clips import Clip, View, load_clip, picture_files, read_clip, read_picture
from fergcn.datasets import load_dataset
from fergcn.datasets.rendered import BUNDLED
from fergcn.expressions import FergcnError
from fergcn.faces.align import LANDMARK_TEMPLATE
from fergcn.faces.detect import FaceDetector
from fergcn.features import clip_fingerprint
from fergcn.prepare import PrepareConfig, prepare_clips, prepared_dataset, read_prepared
from fergcn.video import write_video

SMALL = PrepareConfig(size=64)
ASTRONAUT = skimage.data.astronaut()
NUM_FRAMES = 5


def face_frames(count: int = NUM_FRAMES) -> list[np.ndarray]:
    """A real face that drifts through the picture."""
    return [
        np.ascontiguousarray(ASTRONAUT[20 : 190 + i % 2, 130 + 3 * i : 290 + 3 * i])
        for i in range(count)
    ]


def write_pictures(folder: Path, images: list[np.ndarray], first: int = 8) -> Path:
    """Write img_8.png, img_9.png, img_10.png …: natural order is not that of the alphabet."""
    folder.mkdir(parents=True)
    for number, image in enumerate(images, start=first):
        Image.fromarray(image).save(folder / f"img_{number}.png")
    return folder


def raw_clips(root: Path) -> list[Clip]:
    """The clips that `write_raw` writes."""

    def clip(name: str, file: str, **fields: object) -> Clip:
        return Clip(name, f"S-{name}", "happiness", root / file, **fields)

    return [
        clip("pictures", "pictures", fold=2, attributes={"age": 0.5, "hair": "short, grey"}),
        clip("video", "video.mp4", apex_index=4, intensity=(0.0, 0.25, 0.5, 0.75, 1.0)),
        clip("halves", "halves", view="right half"),
        clip("turned", "turned", view="rotated 90"),
        clip("blank", "blank", apex_index=1),
        clip("broken", "broken", apex_index=2, intensity=(0.0, 0.1, 0.2, 0.3, 0.4)),
        clip("text", "text.mp4"),
        clip("gone", "gone.mp4"),
    ]


def write_raw(root: Path) -> list[Clip]:
    faces = face_frames()
    write_pictures(root / "pictures", faces)
    write_video(root / "video.mp4", faces, fps=25, crf=5)
    # the other half shows the face too, mirrored
    halves = [np.concatenate([face[:, ::-1], face], axis=1) for face in faces]
    write_pictures(root / "halves", halves)
    write_pictures(root / "turned", [np.rot90(face, k=1) for face in faces])
    noise = np.random.default_rng(0).integers(0, 256, (3, 120, 120, 3), dtype=np.uint8)
    write_pictures(root / "blank", list(noise))
    write_pictures(root / "broken", faces)
    file = root / "broken" / "img_10.png"
    file.write_bytes(file.read_bytes()[:2000])
    (root / "text.mp4").write_text("not a video")
    return raw_clips(root)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return write_raw(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def store(raw: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store; tests that change it take a copy."""
    path = tmp_path_factory.mktemp("prepared") / "store"
    prepare_clips(raw, path, SMALL, "test", workers=1)
    return path


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "copy"))


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def index_rows(store: Path) -> dict[str, dict[str, str]]:
    with (store / "index.csv").open(newline="") as file:
        return {row["clip_id"]: row for row in csv.DictReader(file)}


def stored(store: Path) -> dict[str, np.ndarray]:
    return {clip.clip_id: np.load(clip.path) for clip in read_prepared(store)}


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second).mean())


# --- reading raw clips ---------------------------------------------------------------------------


def test_pictures_come_in_natural_order(tmp_path: Path) -> None:
    names = ["a1.JPG", "img_2.jpeg", "img_10.png", "Img_11.bmp", "img_100.PNG"]
    for name in [*reversed(names), ".hidden.png", "._img_3.png", "notes.txt", "Thumbs.db"]:
        (tmp_path / name).touch()
    assert [file.name for file in picture_files(tmp_path)] == names


@given(st.lists(st.integers(0, 3000), unique=True, min_size=1))
def test_numbers_decide_the_order(numbers: list[int]) -> None:
    class Folder:
        suffix = ""

        def iterdir(self) -> Iterator[Path]:
            return (Path(f"take 2 - {number}.png") for number in numbers)

    files = picture_files(Folder())
    assert [file.stem for file in files] == [f"take 2 - {n}" for n in sorted(numbers)]


@pytest.mark.parametrize("ending", ["npy", "png", "mp4"])
def test_every_kind_of_clip_gives_its_frames(tmp_path: Path, ending: str) -> None:
    images = [np.full((48, 64, 3), 20 * i, dtype=np.uint8) for i in range(12)]
    path = tmp_path / f"clip.{ending}"
    if ending == "npy":
        np.save(path, np.stack(images))
    elif ending == "png":
        path = write_pictures(tmp_path / "clip", images)
    else:
        write_video(path, images, fps=25, crf=1)
    clip = Clip("clip", "S", "fear", path)
    frames = list(read_clip(clip))
    assert [index for index, _ in frames] == list(range(12))
    assert all(image.dtype == np.uint8 for _, image in frames)
    for (_, image), expected in zip(frames, images, strict=True):
        assert difference(image, expected) < 2
    loaded = load_clip(clip, 3)
    assert loaded.dtype == np.uint8
    assert difference(loaded, np.stack([images[0], images[6], images[11]])) < 2
    assert load_clip(clip, 16).shape == (16, 48, 64, 3)


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("whole", [[1, 2, 3], [4, 5, 6]]),
        ("left half", [[1], [4]]),
        ("right half", [[2, 3], [5, 6]]),
        ("rotated 90", [[4, 1], [5, 2], [6, 3]]),
    ],
)
@pytest.mark.parametrize("kind", ["npy", "folder"])
def test_views(tmp_path: Path, view: View, expected: list[list[int]], kind: str) -> None:
    image = np.repeat(np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8)[..., None], 3, axis=2)
    path = tmp_path / "clip.npy"
    np.save(path, image[None])
    if kind == "folder":
        path = write_pictures(tmp_path / "clip", [image])
    clip = Clip("clip", "S", "fear", path, view)
    ((_, frame),) = read_clip(clip)
    assert frame[..., 1].tolist() == expected
    assert load_clip(clip, 2)[1, ..., 2].tolist() == expected


def test_only_the_sampled_pictures_are_read(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "clip", face_frames(9))
    for number in (9, 10, 11, 13, 14, 15):  # all but the first, the middle and the last
        (folder / f"img_{number}.png").write_bytes(b"damaged")
    clip = Clip("clip", "S", "fear", folder)
    assert difference(load_clip(clip, 3)[2], face_frames(9)[8][:170]) == 0
    with pytest.raises(FergcnError, match=r"img_10.png: found a file that can't be decoded"):
        load_clip(clip, 5)


def test_pictures_of_several_sizes_are_brought_to_one(tmp_path: Path) -> None:
    image = face_frames(1)[0]
    folder = write_pictures(tmp_path / "clip", [image, image[::2, ::2], image])
    clip = Clip("clip", "S", "fear", folder)
    frames = load_clip(clip, 3)
    assert frames.shape == (3, *image.shape)
    assert difference(frames[1], image) < 10
    assert [picture.shape[0] for _, picture in read_clip(clip)] == [170, 85, 170]


def test_grey_and_deep_pictures_become_rgb(tmp_path: Path) -> None:
    grey = np.arange(0, 240, 4, dtype=np.uint8).reshape(6, 10)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(np.dstack([grey] * 3 + [255 - grey])).save(tmp_path / "alpha.png")
    for name in ("grey", "deep", "alpha"):
        picture = read_picture(tmp_path / f"{name}.png")
        assert picture.dtype == np.uint8
        np.testing.assert_array_equal(picture, np.dstack([grey] * 3))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), "found no frame, as no face was found"),
        (np.zeros((2, 8, 8), np.uint8), "expected faces as uint8"),
        (np.zeros((2, 8, 8, 3), np.float32), "found an array of float32"),
        (None, "missing or damaged"),
    ],
)
def test_array_without_faces_is_an_error(
    tmp_path: Path, array: np.ndarray | None, message: str
) -> None:
    path = tmp_path / "faces.npy"
    if array is None:
        path.write_bytes(b"\x93NUMPY")
    else:
        np.save(path, array)
    clip = Clip("clip", "S", "fear", path)
    with pytest.raises(FergcnError, match=message):
        load_clip(clip, 4)
    with pytest.raises(FergcnError, match=message):
        list(read_clip(clip))


def test_fingerprint_knows_pictures_and_view(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "clip", face_frames(3))
    clip = Clip("clip", "S", "fear", folder)
    seen = [clip_fingerprint([clip]), clip_fingerprint([replace(clip, view="left half")])]
    (folder / ".DS_Store").touch()
    assert clip_fingerprint([clip]) == seen[0]
    (folder / "img_9.png").rename(folder / "img_20.png")
    seen.append(clip_fingerprint([clip]))
    shutil.copy(folder / "img_8.png", folder / "img_20.png")
    seen.append(clip_fingerprint([clip]))
    assert len(set(seen)) == 4
    with pytest.raises(FergcnError, match="found it can't be read"):
        clip_fingerprint([replace(clip, path=tmp_path / "none.mp4")])


# --- what is stored ------------------------------------------------------------------------------


def test_stored_faces_are_aligned(raw: list[Clip], tmp_path: Path) -> None:
    prepare_clips(raw[:1], tmp_path, PrepareConfig(size=200), "test", workers=1)
    (clip,) = read_prepared(tmp_path)
    faces = np.load(clip.path, mmap_mode="r")
    assert faces.shape == (NUM_FRAMES, 200, 200, 3) and faces.dtype == np.uint8
    for face in faces:
        (found,) = FaceDetector()(np.array(face))
        assert np.abs(found.landmarks / 200 - LANDMARK_TEMPLATE).mean() < 0.04


def test_every_source_and_view_gives_the_same_face(store: Path) -> None:
    faces = stored(store)
    plain = faces["pictures"]
    assert difference(plain, plain[:, :, ::-1]) > 30  # so that a wrong half would be noticed
    for name in ("video", "halves", "turned"):
        assert faces[name].shape == (NUM_FRAMES, 64, 64, 3)
        assert difference(faces[name], plain) < 8, name


def test_clips_come_back_as_they_were(raw: list[Clip], store: Path) -> None:
    clips = read_prepared(store)
    assert [clip.clip_id for clip in clips] == [clip.clip_id for clip in raw]
    for clip, before in zip(clips, raw, strict=True):
        for name in ("subject_id", "expression", "fold", "attributes"):
            assert getattr(clip, name) == getattr(before, name)
        assert (clip.view, clip.path.parent) == ("whole", store / "faces")
    assert (clips[1].apex_index, clips[1].intensity) == (4, raw[1].intensity)


def test_truth_follows_the_frames(store: Path) -> None:
    row = index_rows(store)["broken"]
    assert (row["frames"], row["num_frames"], row["num_faces"]) == ("0 1 3 4", "5", "4")
    clip = next(clip for clip in read_prepared(store) if clip.clip_id == "broken")
    assert clip.intensity == (0.0, 0.1, 0.3, 0.4)
    assert clip.apex_index == 1  # of the neighbours of the frame that was left out, the first
    np.testing.assert_array_equal(np.load(clip.path), stored(store)["pictures"][[0, 1, 3, 4]])


def test_report_names_what_went_wrong(raw: list[Clip], store: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = prepare_clips(
        raw, tmp_path, SMALL, "test", 1, lambda done, total: seen.append((done, total))
    )
    assert seen == [(done, len(raw)) for done in range(1, len(raw) + 1)]
    assert report.without_face == ("blank",)
    assert report.unreadable_pictures == (str(raw[5].path / "img_10.png"),)
    text, gone = report.failed
    assert text.startswith("text: ") and "text.mp4: found a file that is not a video" in text
    assert gone.startswith("gone: ") and "gone.mp4: found" in gone
    assert (report.num_clips, report.num_faces) == (8, 4 * NUM_FRAMES + 4)
    assert (report.num_frames, report.frames_without_face) == (5 * NUM_FRAMES + 3, 3)
    for name in ("blank", "text", "gone"):
        assert stored(store)[name].shape == (0, 64, 64, 3)
        assert index_rows(store)[name]["num_faces"] == "0"
    with pytest.raises(FergcnError, match="leave the clip out"):
        load_clip(read_prepared(store)[4], 4)
    manifest = json.loads((store / "prepared.json").read_text())
    assert manifest["settings"]["size"] == 64
    assert manifest["counts"] == {
        "clips": 8,
        "frames": report.num_frames,
        "faces": report.num_faces,
        "clips_without_face": 1,
        "clips_failed": 2,
    }


def test_the_largest_of_two_faces_is_the_main_one(tmp_path: Path) -> None:
    faces = face_frames(4)
    small = [face[::2, ::-2] for face in faces]  # mirrored
    pictures = []
    for number, (large, other) in enumerate(zip(faces, small, strict=True)):
        image = np.zeros((170, 250, 3), dtype=np.uint8)
        image[: len(other), :80] = other
        if number:  # the small face is there for longer
            image[:, 90:] = large[:170]
        pictures.append(image)
    config = PrepareConfig(size=64, min_face_size=24)
    clips = [
        Clip("two", "S", "fear", write_pictures(tmp_path / "two", pictures)),
        Clip("one", "S", "fear", write_pictures(tmp_path / "one", [f[:170] for f in faces[1:]])),
    ]
    prepare_clips(clips, tmp_path / "store", config, "test", workers=1)
    two, one = stored(tmp_path / "store").values()
    assert index_rows(tmp_path / "store")["two"]["frames"] == "1 2 3"
    assert difference(two, one) < 8 < 30 < difference(two[:, :, ::-1], one)


def test_some_frames_of_many(raw: list[Clip], store: Path, tmp_path: Path) -> None:
    report = prepare_clips(raw, tmp_path, replace(SMALL, num_frames=3), "test", workers=1)
    assert index_rows(tmp_path)["pictures"]["frames"] == "0 2 4"
    assert index_rows(tmp_path)["broken"]["frames"] == "0 3 4"
    assert report.frames_without_face == 3  # those that are not wanted don't count
    np.testing.assert_array_equal(
        stored(tmp_path)["pictures"], stored(store)["pictures"][[0, 2, 4]]
    )


def test_pictures_that_are_faces_already_are_resized(raw: list[Clip], tmp_path: Path) -> None:
    config = PrepareConfig(size=32, detect=False)
    faces = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    own = Clip("own", "S", "fear", write_pictures(tmp_path / "own", list(faces)))
    report = prepare_clips([own, raw[4], raw[5]], tmp_path / "store", config, "test", workers=1)
    assert report.without_face == ()
    found = stored(tmp_path / "store")
    np.testing.assert_array_equal(found["own"], faces)
    assert (len(found["blank"]), len(found["broken"])) == (3, NUM_FRAMES - 1)


def test_more_frames_than_truth_is_named(raw: list[Clip], tmp_path: Path) -> None:
    clip = replace(raw[0], intensity=(0.0, 1.0))
    (reason,) = prepare_clips([clip], tmp_path, SMALL, "test", workers=1).failed
    assert "found 5 frames, expected the 2 whose intensity is known" in reason


@pytest.mark.parametrize(
    "settings", [{"size": 1}, {"num_frames": 0}, {"min_face_size": 3}, {"min_confidence": 2}]
)
def test_impossible_settings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(FergcnError, match=r"found .* expected .*: "):
        PrepareConfig(**settings)


# --- again, elsewhere, interrupted ---------------------------------------------------------------


def test_bytes_do_not_depend_on_the_number_of_workers(
    raw: list[Clip], store: Path, tmp_path: Path
) -> None:
    prepare_clips(raw, tmp_path / "two", SMALL, "test", workers=2)
    assert digests(tmp_path / "two") == digests(store)


def test_finished_faces_are_used_again(raw: list[Clip], store: Path, copy: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (copy / "faces").glob("*.npy")}
    (copy / "faces" / "0123.npy").touch()
    (copy / "faces" / "0123.npy.77.partial").touch()
    prepare_clips(raw, copy, SMALL, "test", workers=1)
    assert digests(copy) == digests(store)
    failed = {index_rows(copy)[name]["file"] for name in ("text", "gone")}  # tried again
    for path, changed in before.items():
        if f"faces/{path.name}" not in failed:
            assert path.stat().st_mtime_ns == changed


def test_changed_settings_and_sources_use_nothing_old(
    raw: list[Clip], store: Path, copy: Path, tmp_path: Path
) -> None:
    keys = {row["file"] for row in index_rows(store).values()}
    for config in (replace(SMALL, min_confidence=0.8), replace(SMALL, detect=False)):
        prepare_clips(raw[:6], copy, config, "test", workers=1)
        new = {row["file"] for row in index_rows(copy).values()}
        assert not keys & new
        assert {f"faces/{path.name}" for path in (copy / "faces").glob("*.npy")} == new
        assert len(read_prepared(copy)) == 6
        keys |= new
    root = tmp_path / "raw"
    (clip,) = raw_clips(root)[:1]
    write_pictures(clip.path, face_frames(4))
    prepare_clips([clip], copy, SMALL, "test", workers=1)
    shutil.copy(clip.path / "img_8.png", clip.path / "img_11.png")
    prepare_clips([clip], copy, SMALL, "test", workers=1)
    (faces,) = stored(copy).values()
    np.testing.assert_array_equal(faces[0], faces[3])


def test_a_truncated_file_is_made_again(raw: list[Clip], store: Path, copy: Path) -> None:
    path = read_prepared(copy)[0].path
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FergcnError, match=r"expected the faces of pictures: run fergcn prepare"):
        read_prepared(copy)
    prepare_clips(raw, copy, SMALL, "test", workers=1)
    assert digests(copy) == digests(store)


def start(*arguments: object, **options: object) -> subprocess.Popen:
    """Start Python in a process of its own."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        **options,
    )


def start_preparing(
    clips: list[Clip], store: Path, workers: int, **options: object
) -> subprocess.Popen:
    """Prepare clips in a process of its own, with the settings `SMALL`."""
    given = store.with_suffix(".pickle")
    given.write_bytes(pickle.dumps((clips, store, SMALL, "test", workers)))
    program = (
        "import pickle, sys; from pathlib import Path; from fergcn.prepare import prepare_clips; "
        "prepare_clips(*pickle.loads(Path(sys.argv[1]).read_bytes()))"
    )
    return start("-c", program, given, **options)


def wait_for(condition: object, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def processes_with(argument: str) -> list[int]:
    """Ids of the processes whose command line or environment names something."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if argument in (entry / "environ").read_text(errors="replace"):
                found.append(int(entry.name))
        except OSError:
            pass
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_resumes_after_a_kill(
    raw: list[Clip], copy: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "long.npy", np.stack([face_frames(1)[0]] * 40))
    clips = [*raw, Clip("long", "S", "fear", tmp_path / "long.npy")]  # takes until after the kill
    monkeypatch.setenv("FERGCN_TEST_OF", str(tmp_path))  # tells its processes from others
    root = tmp_path / "killed"
    process = start_preparing(clips, root, workers)
    monkeypatch.delenv("FERGCN_TEST_OF")
    wait_for(lambda: list(root.glob("faces/*.json")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    if Path("/proc").is_dir():
        wait_for(lambda: not processes_with(f"FERGCN_TEST_OF={tmp_path}"), timeout_s=5)
    finished = {path: path.stat().st_mtime_ns for path in root.glob("faces/*.json")}
    assert 0 < len(finished) < 7
    with pytest.raises(FergcnError, match="interrupted"):
        read_prepared(root)
    assert prepared_dataset(root) == "test"
    prepare_clips(clips, root, SMALL, "test", workers=1)
    prepare_clips(clips, copy, SMALL, "test", workers=1)
    assert digests(root) == digests(copy)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


@pytest.mark.parametrize("workers", [1, 2])
def test_full_disk_is_one_line(raw: list[Clip], tmp_path: Path, workers: int) -> None:
    """A limit on the size of files makes writing fail as a full disk does."""
    root = tmp_path / "full"
    limit = 4 * 64 * 64 * 3 + 1000  # four faces fit, five don't
    process = start_preparing(
        raw[::-1],  # the clip with four faces comes before those with five
        root,
        workers,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    _, err = process.communicate(timeout=60)
    last = err.strip().splitlines()[-1]
    assert last.startswith(f"fergcn.expressions.FergcnError: {root}: found it can't be written")
    assert "make room" in last
    assert not list(root.rglob("*.partial"))
    if workers == 1:  # what was finished stays
        assert {len(np.load(path)) for path in root.glob("faces/*.npy")} == {0, 4}
    assert prepare_clips(raw, root, SMALL, "test", workers=1).num_faces == 4 * NUM_FRAMES + 4


# --- reading stores ------------------------------------------------------------------------------


def test_wrong_folders_are_refused(store: Path, copy: Path, tmp_path: Path) -> None:
    assert prepared_dataset(tmp_path / "none") is None
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(FergcnError, match="expected a store of faces"):
            read_prepared(folder)
    next((copy / "faces").glob("*.npy")).unlink()
    with pytest.raises(FergcnError, match="expected the faces of"):
        read_prepared(copy)
    manifest = json.loads((copy / "prepared.json").read_text())
    (copy / "index.csv").write_text("clip_id,file\na,b\n")
    with pytest.raises(FergcnError, match="expected one row for each clip"):
        read_prepared(copy)
    (copy / "prepared.json").write_text(json.dumps({**manifest, "format": 99}))
    for read in (read_prepared, prepared_dataset):
        with pytest.raises(FergcnError, match="found layout 99, expected layout 1"):
            read(copy)
    (copy / "prepared.json").write_text("{}")
    with pytest.raises(FergcnError, match="delete the store and prepare it again"):
        read_prepared(copy)


def test_nothing_foreign_is_touched(raw: list[Clip], copy: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("do not touch")
    with pytest.raises(FergcnError, match="expected an empty folder"):
        prepare_clips(raw, foreign, SMALL, "test")
    before = digests(copy)
    with pytest.raises(FergcnError, match="found faces of the dataset test, expected other"):
        prepare_clips(raw, copy, SMALL, "other")
    with pytest.raises(FergcnError, match="clips lie in this folder"):
        prepare_clips(read_prepared(copy), copy, SMALL, "test")
    with pytest.raises(FergcnError, match="found no clips"):
        prepare_clips([], copy, SMALL, "test")
    assert digests(copy) == before
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]


def test_dataset_is_read_from_its_own_store_only(raw: list[Clip], tmp_path: Path) -> None:
    prepare_clips(raw[:1], tmp_path, SMALL, "rendered", workers=1)
    assert load_dataset("rendered", tmp_path) == read_prepared(tmp_path)
    with pytest.raises(FergcnError, match="found faces of the dataset rendered, expected rendered"):
        load_dataset("rendered-apex", tmp_path)


# --- command -------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three clips in the layout of a dataset that the command line knows."""
    root = tmp_path / "dataset"
    clip_rows, frame_rows = [], []
    for name in ("a", "b", "c"):
        path = root / "clips" / "S" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        blank = [np.full((64, 64, 3), 90, dtype=np.uint8)] * 3
        write_video(path, blank if name == "b" else face_frames(3), fps=25)
        clip_rows.append(f"{name},S,{'fear' if name == 'b' else 'anger'},onset_apex,2")
        frame_rows += [f"{name},{i},{i / 2}" for i in range(3)]
    header = "clip_id,subject_id,expression,kind,apex_index"
    (root / "clips.csv").write_text("\n".join([header, *clip_rows]) + "\n")
    (root / "frames.csv").write_text(
        "\n".join(["clip_id,frame_index,intensity", *frame_rows]) + "\n"
    )
    (root / "rendered.json").write_text(json.dumps({"format": 1}))
    return root


def fergcn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["fergcn", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0), *capsys.readouterr()


def test_command_tells_what_it_did(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["prepare", "rendered", dataset, "-o", tmp_path / "store", "--workers", 1]
    code, out, err = fergcn(monkeypatch, capsys, *arguments, "--size", 48, "--num-frames", 2)
    assert (code, err) == (0, "")
    assert "no face found in b\n" in out
    assert f"store: {tmp_path / 'store'}\n" in out
    clips = load_dataset("rendered", tmp_path / "store")
    assert [len(np.load(clip.path)) for clip in clips] == [2, 0, 2]
    assert (clips[0].intensity, clips[0].apex_index) == ((0.0, 1.0), 1)
    (dataset / "clips" / "S" / "c.mp4").write_bytes(b"damaged")
    code, out, err = fergcn(monkeypatch, capsys, *arguments)
    assert code == 1
    assert err.startswith("fergcn: c: ") and err.count("\n") == 1
    assert "no face found in b\n" in out
    code, _, err = fergcn(monkeypatch, capsys, "prepare", "rendered", dataset, "-o", dataset)
    assert code == 1
    assert err.startswith(f"fergcn: {dataset}: found") and err.count("\n") == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_stops_at_once(tmp_path: Path, workers: int) -> None:
    root = tmp_path / "store"
    command = ["-m", "fergcn", "prepare", "rendered", BUNDLED, "-o", root, "--workers", workers]
    process = start(*command, start_new_session=True)
    wait_for(lambda: list(root.glob("faces/*.json")))
    os.killpg(process.pid, signal.SIGINT)
    asked = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - asked < 5
    assert process.returncode == 130
    assert err == "fergcn: stopped; the same command keeps what is done and does the rest\n"
    assert not list(root.rglob("*.partial"))


@pytest.mark.parametrize("call", ["read", "seek"])
def test_ctrl_c_while_ffmpeg_reads_is_not_lost(tmp_path: Path, call: str) -> None:
    # The interrupt comes where such a call begins; PyAV would print it there and go on.
    program = (
        "import signal, sys; from fergcn.__main__ import main\n"
        "def begins(frame, event, _):\n"
        f"    if event == 'call' and frame.f_code.co_qualname == '_Source.{call}':\n"
        "        sys.setprofile(None)\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "sys.setprofile(begins)\n"
        "main()\n"
    )
    root = tmp_path / "store"
    command = ["prepare", "rendered", BUNDLED, "-o", root, "--workers", 1]
    process = start("-c", program, *command)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "fergcn: stopped; the same command keeps what is done and does the rest\n"
