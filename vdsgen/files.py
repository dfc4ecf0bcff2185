"""Writing files so that neither a failed write nor a lost power supply leaves half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes, *, executable: bool = False) -> None:
    """Replaces `path` by `content`, wholly or not at all.

    Raises OSError (no space, no permission), with the old file untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(stream.fileno(), 0o755 if executable else 0o644)
            os.fsync(stream.fileno())
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def append_line(path: Path, line: bytes) -> None:
    """Adds a line that is on the disk when this returns. What a killed process left unfinished before it
    stays a line of its own. Raises OSError."""
    new = not path.exists()
    with path.open("a+b") as stream:
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write(line + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    if new:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Names of files in it are on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
