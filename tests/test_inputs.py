"""Which videos are meant, and that no two results meet or leave the output folder."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fergcn import analyze
from fergcn.commands.inputs import find_videos
from fergcn.expressions import FergcnError
from odd_files import encode, face_pictures, write_odd_files

NAMES = st.text(
    st.one_of(
        st.sampled_from("aA.-2/ é\n\\"), st.characters(exclude_characters="\0*?[", codec="utf-8")
    ),
    min_size=1,
    max_size=300,
)


def assert_kept_apart(places: list[Path]) -> None:
    """Also where A is a, and no one lies in another or is called like something of the program."""
    keys = [str(place).casefold() for place in places]
    assert len(set(keys)) == len(keys)
    for place in places:
        assert not place.is_absolute() and place.parts and ".." not in place.parts
        assert all(part.isprintable() and len(part.encode()) < 220 for part in place.parts)
        assert not any(part.casefold().endswith((".partial", ".old")) for part in place.parts)
        assert str(place).casefold() not in {str(p).casefold() for q in places for p in q.parents}


@given(st.lists(NAMES, max_size=8), st.sampled_from(["a.mp4", "A.mkv", "a-2.mp4", "../.."]))
def test_results_of_any_names_keep_apart(names: list[str], more: str) -> None:
    # Below a folder that isn't there, so that no name leads to a real one.
    places, errors = find_videos(
        [Path("/not there/in/it") / f"./{name}" for name in [*names, more]]
    )
    assert places and not errors
    assert_kept_apart(list(places.values()))


def test_odd_names_in_a_folder_keep_apart(tmp_path: Path) -> None:
    files = write_odd_files(tmp_path / "in", "names")
    hidden = {"..mp4", "...mp4"}  # named by a dot in front
    places, errors = find_videos([tmp_path / "in"])
    assert not errors
    assert set(places) == {file.path for file in files if file.path.name not in hidden}
    assert_kept_apart(list(places.values()))
    assert places[tmp_path / "in" / "two words.mp4"] == Path("two words")
    assert places[tmp_path / "in" / "folder.mp4" / "inside.mp4"] == Path("folder.mp4/inside")
    named, _ = find_videos([file.path for file in files])
    assert len(named) == len(files)
    assert_kept_apart(list(named.values()))


def test_a_video_counts_once_however_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").touch()
    (tmp_path / "link").symlink_to("in")
    paths = ["in", "in/a.mp4", "./in/../in/a.mp4", str(tmp_path / "in/a.mp4"), "link/*.mp4"]
    places, _ = find_videos([Path(path) for path in paths])
    assert places == {Path("in/a.mp4"): Path("a")}


def test_folders_are_searched_for_what_may_be_meant(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "in" / "results" / "a"
    out.mkdir(parents=True)
    for name in ("a.mp4", "B.MOV", "._a.mp4", "a.txt", "results/a/overlay.mp4"):
        (folder / name).touch()
    (out / "frames.csv").touch()
    (folder / ".trash").mkdir()
    (folder / ".trash" / "old.mp4").touch()
    (folder / "round").symlink_to(folder)
    (folder / "lost.mp4").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.mp4")
    places, errors = find_videos([folder])
    assert [path.name for path in places] == ["B.MOV", "a.mp4", "lost.mp4", "pipe.mp4"]
    assert not errors


def test_a_bad_place_stops_no_other(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.mp4").touch()
    paths = [tmp_path / name for name in ("empty", "no*.mp4", "a.mp4", "none.mp4", "a\0b")]
    places, errors = find_videos(paths)
    assert [path.name for path in places] == ["a.mp4", "none.mp4", "a\0b"]
    assert [str(error).count("found no") for error in errors] == [1, 1]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"a.mp4\r\n\r\n b.mp4\r\n", ["a.mp4", " b.mp4"]),
        (b"\xef\xbb\xbfa.mp4\n", ["a.mp4"]),
        (b"a\nb.mp4\0c.mp4\0", ["a\nb.mp4", "c.mp4"]),
        (b"\xff.mp4", [os.fsdecode(b"\xff.mp4")]),
        ("a\u2028b.mp4".encode(), ["a\u2028b.mp4"]),
        (b"", []),
    ],
)
def test_lists_of_any_bytes(content: bytes, names: list[str], tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_bytes(content)
    assert [str(path) for path in find_videos([], listed)[0]] == names
    with pytest.raises(FergcnError, match="found no list"):
        find_videos([], tmp_path)


def test_names_that_begin_with_a_dash(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "-x.mp4", face_pictures()[:2])
    code, out, err = run("predict", "./-x.mp4", "-o", "out")
    assert (code, "2 of 2 frames" in out) == (0, True), err
    code, out, err = run("predict", "-o", "other", "--", "-x.mp4")
    assert (code, "2 of 2 frames" in out) == (0, True), err
    assert run("predict", "-x.mp4")[0] == 2


@pytest.mark.parametrize("how", ["a file", "below a file", "in the way"])
def test_an_output_that_cannot_be(
    how: str, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    video = encode(tmp_path / "video.mp4", face_pictures()[:2])
    output = tmp_path / "out"
    if how == "in the way":
        output.mkdir()
    mine = output / "video" if how == "in the way" else output
    mine.write_text("mine")
    code, _, err = run("predict", video, "-o", output / "more" if how == "below a file" else output)
    assert code == 1
    assert err.count("\n") == 1 and ", expected " in err and str(output) in err, err
    assert mine.read_text() == "mine"
    assert [path for path in tmp_path.rglob("*.csv") if path.name != "videos.csv"] == []


def test_addresses_in_a_list_stop_no_other(tmp_path: Path) -> None:
    (tmp_path / "a b.mp4").touch()
    listed = tmp_path / "list"
    listed.write_text(f"http://host/a.mp4\nfile://{tmp_path}/a%20b.mp4\nftp://host/b.mp4\n")
    places, errors = find_videos([], listed)
    assert list(places) == [tmp_path / "a b.mp4"]
    assert [str(error).split(":")[0] for error in errors] == ["http", "ftp"]
    assert "to fergcn predict alone" in str(errors[0])
    with pytest.raises(FergcnError, match="found a live source, expected a file"):
        analyze("http://host/a.mp4")


def test_a_file_that_is_taken_for_a_flag(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-lead.mp4").touch()
    code, _, err = run("predict", "-lead.mp4")
    assert code == 2 and err.count("\n") == 1 and err.endswith("write ./-lead.mp4\n")
