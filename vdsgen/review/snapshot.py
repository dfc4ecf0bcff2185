"""The files of one side of a review as bytes, wherever they come from: a folder, a revision, a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vdsgen.errors import InputError, Problem, VdsgenError
from vdsgen.render.file_names import KNOWN_FILES
from vdsgen.render.others import OTHER_FILES

RENDERED_FILES = (*KNOWN_FILES, *OTHER_FILES)
"""Names that files of a rendered directory can have: reviewers look at no others."""
NEEDED = ("plan.json", "train.yaml", "ds_config.json")
"""Without these there is nothing to review."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Some files of one folder at one time."""

    label: str
    """What people call it: a path, or `REVISION:PATH`. Messages put it before names of files."""
    files: Mapping[str, bytes]
    """File name -> content."""

    def file(self, name: str) -> str:
        """What messages call one of its files."""
        return f"{self.label}{name}" if self.label.endswith(("/", ":")) else f"{self.label}/{name}"

    @property
    def missing(self) -> list[str]:
        """Files that a rendered directory would have."""
        return [name for name in NEEDED if name not in self.files]


def snapshot_of_folder(path: Path) -> Snapshot:
    """Those of a rendered directory's files that are in a folder. Raises VdsgenError where it is none, and
    InputError where a file cannot be read."""
    if not path.is_dir():
        kind = "is a file" if path.exists() else "does not exist"
        raise VdsgenError(
            f"{path} {kind}, a rendered directory is needed",
            remedy="name a directory that `vdsgen generate` wrote",
        )
    files = {name: read_bytes(path / name) for name in RENDERED_FILES if (path / name).is_file()}
    return Snapshot(str(path), files)


def read_bytes(path: Path) -> bytes:
    """Raises InputError where the file cannot be read."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a NUL in the path
        why = getattr(error, "strerror", None) or str(error)
        raise InputError([Problem(f"cannot be read: {why}", str(path))]) from error
