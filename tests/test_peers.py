"""Other tools beside a checkpoint: what goes to them, what comes back, and what if they fail."""

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from skimage.data import astronaut
from sklearn.metrics import recall_score

from fergcn.cache import cache_dir
from fergcn.clips import Clip, load_clip
from fergcn.commands.peers import score_peers
from fergcn.datasets.rendered import BUNDLED
from fergcn.expressions import FergcnError
from fergcn.faces.align import align_face
from fergcn.faces.detect import FaceDetector
from fergcn.peers import PEERS, Peer, installed, peer_probs

ANSWERS = """
import re, sys
stream = sys.stdin.buffer
print("happiness,fear,anger")
while magic := stream.read(10):
    header = stream.read(int.from_bytes(magic[8:], "little")).decode()
    count, height, width, _ = map(int, re.findall(r"[0-9]+", header.split("shape")[1]))
    for _ in range(count):
        face = stream.read(height * width * 3)
        print("x" * 70_000, file=sys.stderr)  # more than a pipe holds
        print(face[0] / 510, face[1] / 510, face[2] / 510, sep=",")
"""
"""A peer whose probabilities are the colour of the upper left pixel, over 510."""


@pytest.fixture
def add_peer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Make a peer of a script; without packages, all share one environment."""

    def add(name: str, source: str) -> None:
        script = tmp_path / f"{name}.py"
        script.write_text(source)
        monkeypatch.setitem(PEERS, name, Peer((), script))

    return add


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    """Arrays of faces of random size and length, one colour each."""
    rng = np.random.default_rng(3)
    made = []
    for index, (length, side) in enumerate([(1, 8), (3, 8), (16, 10), (40, 8), (2, 12)]):
        faces = np.zeros((length, side, side, 3), dtype=np.uint8)
        faces[:] = rng.integers(1, 256, (length, 1, 1, 3))
        np.save(tmp_path / f"{index}.npy", faces)
        made.append(Clip(f"c{index}", f"p{index}", "anger", tmp_path / f"{index}.npy"))
    return made


@pytest.mark.parametrize("num_frames", [1, 4, 16])
def test_a_clip_gets_the_mean_of_its_frames(add_peer, clips: list[Clip], num_frames: int) -> None:
    add_peer("colours", ANSWERS)
    probs = peer_probs("colours", clips, num_frames, ("anger", "fear", "happiness"))
    for clip, row in zip(clips, probs, strict=True):
        colours = load_clip(clip, num_frames)[:, 0, 0].astype(float).mean(axis=0)
        np.testing.assert_allclose(row, colours[::-1] / colours.sum(), rtol=1e-5)


def test_others_are_masked_before_the_choice(add_peer, clips: list[Clip]) -> None:
    add_peer("colours", ANSWERS)
    everything = peer_probs("colours", clips, 4, ("anger", "fear", "happiness"))
    two = peer_probs("colours", clips, 4, ("anger", "surprise", "happiness"))
    assert (two[:, 1] == 0).all()  # not known to this peer, so never its answer
    expected = everything[:, [0, 2]] / everything[:, [0, 2]].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(two[:, [0, 2]], expected, rtol=1e-5)
    assert np.isnan(peer_probs("colours", clips, 4, ("surprise", "sadness"))).all()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import sys; sys.exit('the model is not there')", "the model is not there"),
        ("import no_such_module", "no_such_module"),
        ("raise SystemExit(3)", "no reason given"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "no reason given"),
        ("import sys; sys.stdin.buffer.read()", "no table"),
        ("print('anger,fear')", "0 answers"),
        ("import sys; sys.stdin.buffer.read(); print('anger,fear\\n0.5')", "no table"),
        ("import sys; sys.stdin.buffer.read(); print('anger,fear\\nnan,1')", "no table"),
        ("import sys; sys.stdin.buffer.read(); print('anger,anger\\n0,1')", "no table"),
        (ANSWERS + "    break", "1 answers"),
    ],
)
def test_a_peer_that_fails_is_one_line(
    add_peer, clips: list[Clip], source: str, found: str
) -> None:
    add_peer("broken", source)
    with pytest.raises(FergcnError, match=f"^broken: found .*{found}.*expected") as failure:
        peer_probs("broken", clips, 4, ("anger", "fear"))
    assert "\n" not in str(failure.value) and "Traceback" not in str(failure.value)


@pytest.mark.parametrize(
    ("packages", "script", "path"),
    [
        (("./no-such-file.whl",), "a.py", None),
        (("./no-such-folder",), "a.cjs", "/nowhere"),  # without npm
    ],
)
def test_what_can_not_be_installed_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, packages: tuple[str, ...], script: str, path: str | None
) -> None:
    monkeypatch.setitem(PEERS, "absent", Peer(packages, Path(script)))
    if path:
        monkeypatch.setenv("PATH", path)
    with pytest.raises(FergcnError, match=r"^absent: found .*expected to install it") as failure:
        installed("absent")
    assert "\n" not in str(failure.value)
    assert list((cache_dir() / "peers").glob("absent*")) == []


@pytest.mark.nightly
def test_a_killed_installation_begins_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another process is killed in the middle; what it started ends before the next one begins."""
    begun, package = tmp_path / "begun", tmp_path / "slow"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
    )
    (package / "backend.py").write_text(f"""
import time, zipfile
from pathlib import Path
def build_wheel(folder, *_):
    if not Path({str(begun)!r}).exists():
        Path({str(begun)!r}).touch()
        time.sleep(3)
    with zipfile.ZipFile(Path(folder, "slow-1-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("slow.py", "")
        about = "slow-1.dist-info/"
        wheel.writestr(about + "METADATA", "Metadata-Version: 2.1\\nName: slow\\nVersion: 1\\n")
        wheel.writestr(about + "WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr(about + "RECORD", "")
    return "slow-1-py3-none-any.whl"
""")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    program = f"""
from pathlib import Path
from fergcn.peers import PEERS, Peer, installed
PEERS["slow"] = Peer(({str(package)!r},), Path("a.py"))
installed("slow")
"""
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        deadline = time.monotonic() + 600
        while not begun.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
    (partial,) = (cache_dir() / "peers").iterdir()
    (partial / "left").touch()
    monkeypatch.setitem(PEERS, "slow", Peer((str(package),), Path("a.py")))
    home = installed("slow")
    assert [path.name for path in home.parent.iterdir()] == [home.name]
    assert partial != home and not (home / "left").exists()
    assert list(home.glob("lib/*/site-packages/slow-1*"))


def test_faces_not_found_count_as_errors(add_peer, clips: list[Clip], tmp_path: Path) -> None:
    add_peer("colours", ANSWERS)
    np.save(tmp_path / "none.npy", np.zeros((0, 8, 8, 3), dtype=np.uint8))
    clips.append(Clip("none", "p9", "anger", tmp_path / "none.npy"))
    clips.append(replace(clips[0], clip_id="other", expression="contempt"))
    scores, failed = score_peers(["colours"], clips, ("anger", "happiness"), 4, lambda *_: None)
    colours = np.array([load_clip(clip, 1)[0, 0, 0] for clip in clips[:5]]).astype(int)
    right = (colours[:, 2] > colours[:, 0]).sum()  # anger against happiness
    assert 0 < right < 5
    summary = scores["colours"].summary
    assert (failed, summary["count"], summary["unanswered"]) == ({}, 6, 1)
    assert summary["accuracy"] == summary["recall"]["anger"] == pytest.approx(right / 6)


def test_peers_are_scored_beside_a_checkpoint(
    run, add_peer, tiny_checkpoint: Path, few_rendered: Path, tmp_path: Path
) -> None:
    add_peer("colours", ANSWERS)
    add_peer("broken", "import sys; sys.exit('no luck')")
    code, out, err = run(
        *("evaluate", "rendered", few_rendered, "--checkpoint", tiny_checkpoint),
        *(
            "--hold-out",
            "2",
            "--expressions",
            "happiness,neutral",
            "--json",
            tmp_path / "scores.json",
        ),
        *("--peers", "broken", "colours"),
    )
    assert (code, err.count("\n"), "broken: found 'no luck'" in err) == (1, 1, True)
    scores = json.loads((tmp_path / "scores.json").read_text())
    ours, peer = scores, scores["peers"]["colours"]
    assert "no luck" in scores["peers"]["broken"]["failed"]
    assert ours["counts"] == peer["counts"] and ours["expressions"] == peer["expressions"]
    table = pd.read_csv(tmp_path / "scores.colours.csv")
    assert list(table.columns) == list(pd.read_csv(tmp_path / "scores.csv").columns)
    recall = recall_score(table["target"], table["prediction"], average="macro")
    assert peer["uar"] == pytest.approx(recall)
    low, high = peer["uar_ci"]
    assert f"{recall:.3f} ({low:.3f}–{high:.3f})" in out
    assert not (tmp_path / "scores.broken.csv").exists()


def test_unknown_peers_are_named_before_the_work(run, tiny_checkpoint: Path) -> None:
    code, out, err = run(
        "evaluate", "rendered", "--checkpoint", tiny_checkpoint, "--peers", "x,fer"
    )
    assert (code, out) == (1, "")
    assert "found the peer 'x', expected some of fer, face-api" in err
    assert run("bench", "--peers") == (
        *(1, ""),
        "fergcn: found --peers without a video, expected one: fergcn bench VIDEO --peers\n",
    )


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["fer", "face-api"])
def test_peers_know_a_smile(name: str, tmp_path: Path) -> None:
    """Installs the tool: gigabytes for one of them."""
    image = astronaut()
    landmarks = FaceDetector()(image)[0].landmarks
    np.save(tmp_path / "smile.npy", align_face(image, landmarks)[None])
    clips = [Clip("smile", "p", "happiness", tmp_path / "smile.npy")]
    known = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    probs = peer_probs(name, clips, 1, known)
    assert known[probs[0].argmax()] == "happiness"
    assert (probs > 0).sum() > 4  # not rounded, and no column lost its name


@pytest.mark.nightly
def test_fer_is_timed_on_a_video(run) -> None:
    """Speeds of both, and a ratio that follows from them."""
    code, out, _ = run("bench", BUNDLED.parent / "demo.mp4", "--peers", "--repeats", "1")
    assert code == 0
    stages = {name: float(taken) for name, taken in re.findall(r"│ (\w+)\s+│ ([\d.]+)\s+│", out)}
    parts = [taken for name, taken in stages.items() if name != "total"]
    assert stages["write"] > 0 and max(parts) < stages["total"] < sum(parts)
    ours = float(re.search(r"fergcn predict, ([\d.]+)", out)[1])
    for mode in ("haar", "mtcnn"):
        speed, ratio = re.search(rf"{mode}\s+│\s+([\d.]+)\s+│\s+([\d.]+) ×", out).groups()
        assert ours / float(speed) == pytest.approx(float(ratio), abs=0.1)
