"""Other tools that read expressions, measured beside a checkpoint on the same faces.

Each one lives in an environment of its own, which `installed` makes, and answers through a script
in this folder that knows nothing of this program:

* stdin: one array of faces after another, `(N, H, W, 3)` uint8 RGB in NumPy's format;
* stdout: CSV, first the names of the expressions as this program calls them, then one line of
  probabilities for each face, in order;
* an error: anything on stderr and an exit status other than 0.

A new peer is an entry in `PEERS` and such a script.
"""

import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from fergcn.cache import cache_dir
from fergcn.clips import Clip, load_clip
from fergcn.expressions import FergcnError
from fergcn.features import distinct_frames
from fergcn.files import lock
from fergcn.progress import Progress, silent

SCRIPTS = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """Another tool."""

    packages: tuple[str, ...]
    """What is installed for it, with exact versions: the first one is the tool itself."""
    script: Path
    """Answers for faces; `.py` and packages from PyPI, or `.cjs` for Node and those from npm."""


PEERS = {
    "fer": Peer(
        ("fer==25.10.3", "tensorflow==2.21.0", "setuptools==80.9.0"), SCRIPTS / "fer_faces.py"
    ),
    "face-api": Peer(
        (
            "@vladmandic/face-api@1.7.15",
            "@tensorflow/tfjs@4.22.0",
            "@tensorflow/tfjs-backend-wasm@4.22.0",
        ),
        SCRIPTS / "face_api_faces.cjs",
    ),
}


def find_peer(name: str) -> Peer:
    """Look a peer up.

    Raises:
        FergcnError: there is none of this name.
    """
    if name not in PEERS:
        raise FergcnError(
            f"found the peer {name!r}, expected some of {', '.join(PEERS)}: choose among these"
        )
    return PEERS[name]


def installed(name: str, on_progress: Progress = silent) -> Path:
    """Environment of a peer; made in the user's cache where it is not there yet.

    Raises:
        FergcnError: there is no such peer, or it can't be installed.
    """
    peer = find_peer(name)
    kind = f"python{sys.version_info.minor}" if peer.script.suffix == ".py" else "node"
    key = hashlib.sha256("\n".join((kind, *peer.packages)).encode()).hexdigest()[:12]
    home = cache_dir() / "peers" / f"{kind}-{key}"
    if home.is_dir():
        return home
    partial = home.with_name(f"{home.name}.partial")
    on_progress(f"install {name}", 0, 1)
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        held = lock(partial.parent)  # until another process has made it, or was killed at it
        try:
            if not home.is_dir():
                if partial.exists():
                    shutil.rmtree(partial)
                _make_environment(name, peer, partial, held)
                partial.rename(home)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            os.close(held)
    except OSError as error:
        raise FergcnError(
            f"{name}: found {error.filename or partial} can't be used ({error.strerror}), expected "
            "to install it: check the program and the cache's folder"
        ) from None
    finally:
        on_progress(f"install {name}", 1, 1)
    return home


def _make_environment(name: str, peer: Peer, place: Path, held: int) -> None:
    """Install a peer; what is started for it holds the lock too, and lives on after a kill."""
    place.mkdir()
    if peer.script.suffix == ".py":
        _install([sys.executable, "-m", "venv", "--without-pip", str(place)], name, held)
        pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python")]
        tool = [*pip, "install", "--quiet", "--no-compile"]
    else:
        quiet = ("--ignore-scripts", "--no-audit", "--no-fund")
        tool = ["npm", "install", *quiet, "--prefix", str(place)]
    if peer.packages:
        _install([*tool, *peer.packages], name, held)


def run_script(
    name: str, script: Path, arguments: Sequence[str] = (), faces: Iterable[NDArray[np.uint8]] = ()
) -> str:
    """Run a script in a peer's environment.

    Args:
        name: a key of `PEERS`, installed already or not.
        script: what to run there.
        arguments: of its command line.
        faces: arrays that it reads from stdin, see above.

    Returns:
        What it wrote to stdout.

    Raises:
        FergcnError: it can't be installed or run, or it failed.
    """
    home = installed(name)
    program = _python(home) if script.suffix == ".py" else ["node"]
    # Files, not pipes: a script that talks while it is fed would wait for a reader for ever.
    with TemporaryFile() as answers, TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                [*program, str(script), *arguments],
                stdin=subprocess.PIPE,
                stdout=answers,
                stderr=complaints,
                env=os.environ | {"NODE_PATH": str(home / "node_modules")},
            )
        except OSError as error:
            raise FergcnError(
                f"{name}: found that {program[0]} can't be started ({error.strerror}), expected to "
                f"run {script.name}: install it, or delete {home}"
            ) from None
        with process:
            try:
                assert process.stdin is not None
                with suppress(BrokenPipeError), process.stdin:  # it ended: its status says why
                    for array in faces:
                        content = io.BytesIO()
                        np.save(content, array)
                        process.stdin.write(content.getbuffer())
            except BaseException:
                process.kill()
                raise
        complaints.seek(0)
        if process.returncode != 0:
            raise _failure(name, f"{script.name} to run", complaints.read())
        answers.seek(0)
        return answers.read().decode(errors="replace")


def peer_probs(
    name: str,
    clips: Sequence[Clip],
    num_frames: int,
    expressions: Sequence[str],
    on_progress: Progress = silent,
) -> NDArray[np.float32]:
    """Probabilities that a peer gives to clips: the mean over the frames of each.

    Args:
        name: a key of `PEERS`.
        clips: aligned faces.
        num_frames: frames of each clip that are looked at, evenly spread, as for a checkpoint.
        expressions: those that it may choose from; one that it does not know gets 0.
        on_progress: told about clips.

    Returns:
        `(len(clips), len(expressions))`; each row adds up to 1, or is missing where the peer gives
        nothing to any of these expressions.

    Raises:
        FergcnError: a clip can't be read, or the peer can't be installed, fails or gives an answer
            that is none.
    """
    peer = find_peer(name)
    places: list[NDArray[np.int64]] = []
    num_faces = 0

    def faces() -> Iterator[NDArray[np.uint8]]:
        nonlocal num_faces
        for index, clip in enumerate(clips):
            distinct, position = distinct_frames(load_clip(clip, num_frames))
            places.append(num_faces + position)
            num_faces += len(distinct)
            yield distinct
            on_progress(name, index + 1, len(clips))

    known, answers = _read_answers(name, run_script(name, peer.script, faces=faces()))
    if len(answers) != num_faces or len(places) != len(clips):
        raise FergcnError(
            f"{name}: found {len(answers)} answers, expected one for each of {num_faces} faces: "
            f"check {peer.script.name}"
        )
    probs: NDArray[np.float32] = np.zeros((len(clips), len(expressions)), dtype=np.float32)
    for column, expression in enumerate(expressions):
        if expression in known:
            of_faces = answers[:, known.index(expression)]
            probs[:, column] = [of_faces[place].mean() for place in places]
    total = probs.sum(axis=1, keepdims=True)
    total[total == 0] = np.nan
    probs /= total
    return probs


def _read_answers(name: str, text: str) -> tuple[list[str], NDArray[np.float64]]:
    """Names of the expressions and `(faces, names)` of what a script wrote."""
    try:
        known, *rows = csv.reader(io.StringIO(text))
        answers = np.array(rows, dtype=np.float64).reshape(len(rows), len(known))
        if len(set(known)) < len(known) or not ((answers >= 0) & (answers <= 1)).all():
            raise ValueError
    except ValueError:
        raise FergcnError(
            f"{name}: found answers that are no table of probabilities, expected names of "
            "expressions and a line for each face: check its script"
        ) from None
    return known, answers


def _python(home: Path) -> list[str]:
    # isolated: neither PYTHONPATH nor packages of the user's get in
    return [str(home / "bin" / "python"), "-I"]


def _install(command: list[str], name: str, held: int) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, pass_fds=(held,))
    if done.returncode != 0:
        raise _failure(name, "to install it", done.stderr)


def _failure(name: str, expected: str, complaints: bytes) -> FergcnError:
    """The error in one line: the first one that says so, as the last line is often a hint only."""
    lines = [line.strip() for line in complaints.decode(errors="replace").splitlines()]
    lines = [line for line in lines if line] or ["no reason given"]
    reason = next((line for line in lines if "error" in line.lower()), lines[-1])
    return FergcnError(f"{name}: found {reason[:300]!r}, expected {expected}: try again or without")
