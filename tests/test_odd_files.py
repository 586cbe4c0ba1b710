"""Videos of all sorts, damaged ones, and no videos: read here, analysed in real processes."""

import ctypes
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import av
import matplotlib.font_manager  # reads or makes its cache of fonts, before any test
import numpy as np
import pandas as pd
import pytest

from fergcn.expressions import FergcnError, one_line
from fergcn.video import MAX_PIXELS, VideoFrame, read_frames
from odd_files import (
    EITHER,
    FACE,
    FAIL,
    KINDS,
    NUM_FRAMES,
    OddFile,
    encode,
    face_pictures,
    write_odd_files,
)

TABLES = ("frames.csv", "windows.csv", "segments.csv")
TIME_LIMIT_S = 900


def run_predict(
    *arguments: object,
    without_privileges: bool = False,
    max_file_size: int | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own; a traceback or a hang is a failure."""

    def restrict() -> None:
        if without_privileges:  # root may write anywhere, unless these two are dropped
            for capability in (1, 2):
                ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
        if max_file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_size, max_file_size))

    result = subprocess.run(
        [sys.executable, "-m", "fergcn", "predict", *map(os.fspath, map(str, arguments))],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=TIME_LIMIT_S,
        check=False,
        stdin=subprocess.DEVNULL,
        # A first run would make the cache of fonts, which takes long and is more than a full disk.
        env={**os.environ, "MPLCONFIGDIR": matplotlib.get_cachedir()},
        preexec_fn=restrict,
        cwd=cwd,
    )
    assert "Traceback" not in result.stderr, result.stderr
    assert all(line.startswith("fergcn: ") for line in result.stderr.splitlines()), result.stderr
    return result


def results_below(output: Path) -> dict[str, Path]:
    """Finished results by the name of the video; nothing is half done."""
    found = {}
    for summary in filter(Path.is_file, output.rglob("summary.json")):
        found[json.loads(summary.read_text())["video"]["file"]] = summary.parent
    assert not [path for path in output.rglob("*") if path.name.endswith(".partial")]
    return found


def check_tables(folder: Path) -> pd.DataFrame:
    frames = pd.read_csv(folder / "frames.csv")
    assert len(pd.read_parquet(folder / "frames.parquet")) == len(frames) > 0
    times = frames.drop_duplicates("frame_index")
    assert times["frame_index"].tolist() == list(range(len(times)))
    assert times["time_s"].is_monotonic_increasing and times["time_s"].iloc[0] == 0
    for table in TABLES[1:]:
        pd.read_csv(folder / table)
    return frames


def check_outcome(
    files: Sequence[OddFile], result: subprocess.CompletedProcess[str], output: Path
) -> dict[str, Path]:
    """Every file has whole results or one line that says why not."""
    results = results_below(output)
    lines = result.stderr.splitlines()
    for file in files:
        start = f"fergcn: {one_line(str(file.path))}: "
        complaints = [line for line in lines if line.startswith(start)]
        folder = results.get(file.path.name)
        if folder is None:
            assert file.expected in (FAIL, EITHER), (file, complaints)
            assert len(complaints) == 1 and ", expected " in complaints[0], (file, complaints)
            continue
        assert file.expected != FAIL, file
        assert f"{one_line(file.path.name)}: " in result.stdout
        frames = check_tables(folder)
        if file.expected == FACE:
            assert frames["frame_index"].nunique() == NUM_FRAMES, file
            assert frames["track_id"].notna().sum() >= NUM_FRAMES - 2, file
    failed = len(files) - sum(file.path.name in results for file in files)
    assert result.returncode == (1 if failed else 0)
    return results


def read_or_complain(path: Path) -> tuple[list[VideoFrame], str]:
    frames = []
    try:
        frames.extend(read_frames(path))
    except FergcnError as error:
        return frames, str(error)
    return frames, ""


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "encodings"])
def test_odd_files_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    for file in write_odd_files(tmp_path / "files", kind):
        frames, complaint = read_or_complain(file.path)
        assert bool(frames) != bool(complaint) and "\n" not in complaint
        assert file.expected == EITHER or bool(complaint) == (file.expected == FAIL), complaint
        if complaint:
            continue
        assert all(before.time_s < after.time_s for before, after in pairwise(frames)), file
        assert len({frame.image.shape for frame in frames}) == 1
        assert frames[0].image[..., 0].size <= MAX_PIXELS
        if file.expected == FACE:
            assert len(frames) == NUM_FRAMES, file


def test_odd_files_show_the_picture_as_it_is_meant(tmp_path: Path) -> None:
    meant = face_pictures()
    for file in write_odd_files(tmp_path / "files", "shown otherwise"):
        if file.expected == FACE and "absurd" not in file.path.name and "odd" not in file.path.name:
            for frame, picture in zip(read_frames(file.path), meant, strict=True):
                difference = np.abs(frame.image.astype(int) - picture).mean()
                assert frame.image.shape == picture.shape and difference < 12, (file, difference)


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    encode(tmp_path / "secret.mp4", face_pictures())
    playlist = tmp_path / "playlist.mp4"
    playlist.write_text("ffconcat version 1.0\nfile secret.mp4\n")
    with av.open(str(playlist)) as container:  # what FFmpeg does with it
        assert len(list(container.decode(video=0))) == NUM_FRAMES
    with pytest.raises(FergcnError, match="not a video"):
        next(read_frames(playlist))


def test_some_odd_files_in_one_run(tmp_path: Path) -> None:
    files = [
        *write_odd_files(tmp_path / "times", "odd times")[::8],
        *write_odd_files(tmp_path / "other", "other tracks")[::3],
        *write_odd_files(tmp_path / "none", "no videos")[::5],
        *write_odd_files(tmp_path / "mutated", "mutated")[::20],
    ]
    result = run_predict(*(file.path for file in files), "-o", tmp_path / "out")
    check_outcome(files, result, tmp_path / "out")


@pytest.mark.nightly
@pytest.mark.parametrize("how", ["read-only", "full", "read-only result"])
def test_output_that_cannot_be_written(how: str, tmp_path: Path) -> None:
    video = encode(tmp_path / "video.mp4", face_pictures())
    output = tmp_path / "out"
    if how == "read-only":
        output.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    elif how == "read-only result":  # of an earlier run; a new one takes its place
        run_predict(video, "-o", output)
        (output / "video").chmod(stat.S_IRUSR | stat.S_IXUSR)
    result = run_predict(
        *(video, "-o", output, "--overlay", "--overwrite"),
        without_privileges=how != "full",
        max_file_size=20_000 if how == "full" else None,
    )
    if how == "read-only result":  # the old one is whole, or the new one is
        check_tables(output / "video")
        if result.returncode == 0:
            return
    else:
        assert not (output / "video").exists()
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and ", expected " in result.stderr, result.stderr
    assert str(output) in result.stderr


@pytest.mark.nightly
@pytest.mark.parametrize("max_file_size", [10, 200, 900, 4_000, 15_000])
def test_a_disk_that_is_full_at_any_moment(max_file_size: int, tmp_path: Path) -> None:
    """In videos.csv, the first header, a row, the Parquet file, the timeline: one line each."""
    encode(tmp_path / "video.mp4", face_pictures())
    output = tmp_path / "out"
    # Short names: with long ones, videos.csv may have no room for the complaint, either.
    options = ("-o", "out", "--overlay", "--report", "--checkpoint", "rendered-only")
    result = run_predict("video.mp4", *options, max_file_size=max_file_size, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and ", expected a folder with room" in result.stderr
    assert not (output / "video").exists()
    if (table := output / "videos.csv").exists():
        assert table.read_bytes().endswith(b"\n")


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_all_odd_files_of_a_kind(kind: str, tmp_path: Path) -> None:
    files = write_odd_files(tmp_path / "files", kind)
    named = [file.path for file in files]
    everything = ("-o", tmp_path / "out", "--num-workers", 2)
    result = run_predict(*named, *everything)
    results = check_outcome(files, result, tmp_path / "out")
    # The others make no difference: each alone has the same tables, byte for byte.
    for file in [file for file in files if file.path.name in results][:: max(1, len(results) // 2)]:
        lone = tmp_path / "lone" / os.fsencode(file.path.name).hex()[:40]
        shutil.rmtree(lone, ignore_errors=True)
        run_predict(file.path, "-o", lone, "--num-workers", 2)
        for table in TABLES:
            alone = (results_below(lone)[file.path.name] / table).read_bytes()
            assert alone == (results[file.path.name] / table).read_bytes(), (file, table)
