"""The files of one side of a comparison, by path, wherever they lie; read only where they are needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from vdsgen.errors import InputError, Problem
from vdsgen.review.git.repository import MOST_FILE_BYTES, Blob, Repository, blob_oid
from vdsgen.review.snapshot import NEEDED, RENDERED_FILES

STANDING = ("plan.json", "ds_config.json")
"""Files of a rendered directory that stand for it where one of them is named."""

Read = Callable[[Collection[str]], Mapping[str, bytes]]


@dataclass(frozen=True, slots=True)
class Files:
    """One side."""

    label: str
    """What messages put before paths: `main:`, `main:configs`, `configs`."""
    oids: Mapping[str, str]
    """Path -> the name that git has, or would have, for its content: equal names are equal bytes."""
    read: Read
    """The contents of paths."""
    named: bool = False
    """Whether it is one file that somebody named: then it is to be a config, whatever it looks like."""

    def label_of(self, path: str) -> str:
        """What messages call a folder or file of it."""
        if path in ("", "."):
            return self.label
        return f"{self.label}{path}" if not self.label or self.label[-1] in ":/" else f"{self.label}/{path}"


def files_of_folder(folder: Path, label: str) -> Files:
    """Of this machine. A file is a side of its own, under its name; one of a rendered directory stands for
    that. Raises InputError where there is neither."""
    if folder.is_file():
        if folder.name in STANDING and all((folder.parent / name).is_file() for name in NEEDED):
            return files_of_folder(folder.parent, _parent(label) or ".")
        return replace(_of_paths({folder.name: folder}, _parent(label)), named=True)
    if not folder.is_dir():
        remedy = "name a rendered directory, a DeepSpeed JSON, a tree of them, or REVISION:PATH"
        raise InputError([Problem("does not exist", label, remedy=remedy)])
    found: dict[str, Path] = {}
    for place, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in names:
            path = Path(place) / name
            if is_wanted(name):
                found[path.relative_to(folder).as_posix()] = path
    return _of_paths(found, label)


def _parent(label: str) -> str:
    return label.rpartition("/")[0]


def files_of_revision_path(repository: Repository, tree: str, path: PurePosixPath, label: str) -> Files:
    """`REVISION:PATH`: paths start at PATH; a file is a side of its own. Raises InputError where it is not
    there."""
    listed = repository.files(tree, path)
    if not listed:
        raise InputError([Problem("does not exist", label, remedy="see `git ls-tree`")])
    name = path.as_posix()
    if name in listed:
        revision, _, written = label.partition(":")
        around = f"{revision}:{_parent(written)}"
        if path.name in STANDING:
            beside = repository.files(tree, path.parent)
            if all((path.parent / needed).as_posix() in beside for needed in NEEDED):
                return files_of_revision_path(repository, tree, path.parent, around)
        return replace(_of_blobs(repository, {path.name: listed[name]}, around), named=True)
    below = 0 if name == "." else len(name) + 1
    return _of_blobs(
        repository, {whole[below:]: blob for whole, blob in listed.items() if is_wanted(whole)}, label
    )


def files_of_revision(repository: Repository, tree: str, paths: Sequence[PurePosixPath], label: str) -> Files:
    """Paths start at the root of the repository; those that are not there are no files."""
    found = {
        name: blob
        for below in paths
        for name, blob in repository.files(tree, below).items()
        if is_wanted(name)
    }
    return _of_blobs(repository, found, label)


def files_of_working_tree(repository: Repository, paths: Sequence[PurePosixPath], label: str = "") -> Files:
    """What lies there now, without what git ignores."""
    names = {name for below in paths for name in repository.paths_here(below) if is_wanted(name)}
    return _of_paths({name: repository.root / name for name in sorted(names)}, label)


def is_wanted(path: str) -> bool:
    """Whether a review looks at a file of this name."""
    name = path.rpartition("/")[2]
    return name in RENDERED_FILES or name.endswith(".json")


def _of_paths(found: Mapping[str, Path], label: str) -> Files:
    contents: dict[str, bytes] = {}
    for name, path in found.items():
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MOST_FILE_BYTES:
            continue
        contents[name] = path.read_bytes()
    oids = {name: blob_oid(content) for name, content in contents.items()}
    return Files(label, oids, lambda paths: {path: contents[path] for path in paths})


def _of_blobs(repository: Repository, blobs: Mapping[str, Blob], label: str) -> Files:
    def read(paths: Collection[str]) -> Mapping[str, bytes]:
        contents = repository.read(blobs[path] for path in paths)
        return {path: contents[blobs[path].oid] for path in paths if blobs[path].oid in contents}

    return Files(label, {path: blob.oid for path, blob in blobs.items()}, read)


def folders(paths: Iterable[str]) -> dict[str, list[str]]:
    """Folder ("" for the root) -> names of the files right in it."""
    found: dict[str, list[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        found.setdefault(folder, []).append(name)
    return found
