"""Writing reports and traces: over those that were written before, never over anything else."""

from __future__ import annotations

from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.files import write_atomically
from vdsgen.report.page import MARK
from vdsgen.report.trace_events import MADE_BY

HEAD_BYTES = 4096
"""In which a file says what it is."""


def write_page(path: Path, content: bytes) -> None:
    """Raises VdsgenError where the file is there and no report, or cannot be written."""
    _write(path, content, MARK, "report")


def write_trace(path: Path, content: bytes) -> None:
    """Raises VdsgenError where the file is there and no trace of a schedule, or cannot be written."""
    _write(path, content, f'"{MADE_BY[0]}":"{MADE_BY[1]}"', "trace")


def _write(path: Path, content: bytes, mark: str, kind: str) -> None:
    if path.is_symlink():
        raise VdsgenError(f"{path} is a symbolic link", remedy="remove it, or name another file")
    if path.is_dir():
        raise VdsgenError(f"{path} is a directory", remedy="name a file")
    if path.exists() and path.stat().st_size:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
        if mark.encode() not in head:
            raise VdsgenError(
                f"{path} is there, and is no {kind} of vdsgen's", remedy="name another file, or remove it"
            )
    try:
        write_atomically(path, content)
    except OSError as error:
        raise VdsgenError(
            f"cannot write {path}: {error.strerror or error}", remedy="name another file, or free the place"
        ) from error
