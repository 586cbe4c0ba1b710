"""Files that appear under their name only when complete."""

import csv
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Write a file that takes the place of `path` when the block ends without an error.

    Yields:
        The file under a name of this process's own, which ends with `.partial`; it is removed when
        the block fails, as on a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock(folder: Path, wait: bool = True) -> int:
    """Keep other processes out of a folder, those that ask the same way.

    The system lets go of it when the descriptor is closed, which it is when the process ends,
    however it ends. File systems that know no locks keep nobody out.

    Args:
        folder: is there.
        wait: until the one who holds it lets go.

    Returns:
        A descriptor for `os.close`.

    Raises:
        BlockingIOError: somebody else holds it, and `wait` is not set.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        pass  # as on some network disks
    return descriptor


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one go."""
    with open_atomically(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8; bytes of a file's name that are no text become escapes."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object in JSON, indented."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format rows of the same columns as a table with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
