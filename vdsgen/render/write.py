"""The one place that writes rendered files: all of them, or none."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.files import sync_directory

EXECUTABLE = frozenset({"launch.sh"})
"""Files that people run."""

PENDING = ".vdsgen-pending"
"""Ends the names of files that are not complete yet."""


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` (name -> bytes) into `directory`, which is created if needed.

    Every file is written and synced beside its place first, then all are renamed into it: a full disk or a
    lost power supply leaves the old files whole. Files under other names are left alone. Raises VdsgenError
    where the directory holds something that vdsgen did not render, a target is a link or a directory,
    or the system refuses.
    """
    try:
        _refuse_foreign_directory(directory)
        directory.mkdir(parents=True, exist_ok=True)
        for name in files:
            _refuse_odd_target(directory / name)
        pending = {name: directory / f".{name}{PENDING}" for name in files}
        try:
            for name, path in pending.items():
                _write_synced(path, files[name], 0o777 if name in EXECUTABLE else 0o666)
            for name, path in pending.items():
                path.replace(directory / name)
        finally:
            for path in pending.values():
                path.unlink(missing_ok=True)
        sync_directory(directory)
    except OSError as error:
        place = error.filename if error.filename is not None else directory
        raise VdsgenError(
            f"cannot write {place}: {error.strerror or error}",
            remedy="files that were there before are unchanged; choose another --out, or free the place",
        ) from error


def is_rendered(directory: Path) -> bool:
    """Whether `directory` holds a plan.json that vdsgen wrote."""
    try:
        plan = json.loads((directory / "plan.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(plan, dict) and str(plan.get("generator", "")).startswith("vdsgen ")


def _refuse_foreign_directory(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise VdsgenError(f"{directory} is a file, not a directory", remedy="choose another --out")
    if not directory.is_dir() or is_rendered(directory):
        return
    foreign = sorted(entry.name for entry in directory.iterdir() if not entry.name.endswith(PENDING))
    if foreign:
        named = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
        raise VdsgenError(
            f"{directory} is not empty and was not rendered by vdsgen; it holds {named}",
            remedy="choose a new or empty directory for --out",
        )


def _refuse_odd_target(path: Path) -> None:
    if path.is_symlink():
        raise VdsgenError(
            f"{path} is a symbolic link; writing through it would change {path.readlink()}",
            remedy="remove the link, or choose another --out",
        )
    if path.is_dir():
        raise VdsgenError(f"{path} is a directory", remedy="choose another --out")


def _write_synced(path: Path, content: bytes, mode: int) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        os.close(descriptor)
