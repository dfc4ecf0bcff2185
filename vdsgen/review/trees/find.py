"""Which rendered directories and which manifests lie in a tree."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.render.write import is_rendered
from vdsgen.review.snapshot import NEEDED
from vdsgen.spec.manifest import MANIFEST

PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class Found:
    """What lies below the paths that were named."""

    directories: tuple[Path, ...]
    """Rendered ones, sorted."""
    manifests: tuple[Path, ...]
    """Those that say something of a directory below these paths: in them, or in a folder around them."""


def find(paths: Sequence[Path]) -> Found:
    """Raises VdsgenError where a path is no directory."""
    directories: dict[Path, None] = {}
    manifests: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            kind = "is a file" if path.exists() else "does not exist"
            raise VdsgenError(
                f"{path} {kind}, a rendered directory is needed",
                remedy="name a directory that `vdsgen generate` wrote, or one with such directories below it",
            )
        around = _manifest_around(path)
        if around is not None:
            manifests[around] = None
        for folder, names in _folders(path):
            # One whose plan.json is broken is one all the same.
            if set(NEEDED) <= set(names) or (PLAN in names and is_rendered(folder)):
                directories[folder] = None
            if MANIFEST in names:
                manifests[folder / MANIFEST] = None
    return Found(tuple(sorted(directories)), tuple(sorted(manifests)))


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """(folder, names of its files), without hidden folders, and without following links."""
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield Path(folder), names


def _manifest_around(path: Path) -> Path | None:
    """The nearest manifest in a folder above, no further than the root of the repository."""
    absolute = path.absolute()
    folders = [absolute, *absolute.parents]
    top = next((folder for folder in folders if (folder / ".git").exists()), None)
    if top is None or absolute == top:
        return None
    for levels, folder in enumerate(folders[1 : folders.index(top) + 1], start=1):
        if (folder / MANIFEST).is_file():
            return _upwards(path, levels) / MANIFEST
    return None


def _upwards(path: Path, levels: int) -> Path:
    """The folder so many levels above, as short as it can be written from here."""
    folder = path.absolute().parents[levels - 1]
    return Path(os.path.relpath(folder)) if not path.is_absolute() else folder
