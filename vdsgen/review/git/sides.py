"""What `vdsgen diff` is told to compare: paths, `REVISION:PATH`, ranges of revisions, a revision alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vdsgen.errors import InputError, Problem, VdsgenError
from vdsgen.review.git.repository import Repository, no_revision
from vdsgen.review.trees.files import (
    Files,
    files_of_folder,
    files_of_revision,
    files_of_revision_path,
    files_of_working_tree,
)

REMEDY = (
    "name a rendered directory, a DeepSpeed JSON, a tree of them, REVISION:PATH, or a range A..B or A...B"
)


@dataclass(frozen=True, slots=True)
class Sides:
    """Two sets of files."""

    old: Files
    new: Files
    title: str
    """What was asked for, in short."""


def sides(arguments: Sequence[str], here: Path) -> Sides:
    """As git means them: `A..B`, `A...B` (from where they parted), two revisions, a revision alone (against
    the working tree), each with paths behind it; or two of `PATH` and `REVISION:PATH`.

    Raises VdsgenError where an argument is none of these.
    """
    first, *rest = list(arguments) or ["HEAD"]
    if len(rest) == 1 and _is_side(first, here) and _is_side(rest[0], here):
        old, new = _side(first, here), _side(rest[0], here)
        return Sides(old, new, f"{first} -> {rest[0]}")
    if _exists(first, here):
        if not rest:
            return _against_working_tree("HEAD", [first], here)
        raise _nowhere(rest[0])
    if ".." in first and ":" not in first:
        return _range(first, rest, here)
    if rest and not _exists(rest[0], here) and _is_revision(rest[0], here):
        return _between(first, rest[0], first, rest[1:], here, f"{first}..{rest[0]}")
    return _against_working_tree(first, rest, here)


def _exists(argument: str, here: Path) -> bool:
    try:
        return (here / argument).exists()
    except (OSError, ValueError):
        return False


def _nowhere(argument: str) -> InputError:
    return InputError([Problem("does not exist", argument, remedy=REMEDY)])


def _is_side(argument: str, here: Path) -> bool:
    """Whether it names files by itself."""
    return _exists(argument, here) or bool(argument.partition(":")[0] and ":" in argument)


def _is_revision(argument: str, here: Path) -> bool:
    repository = Repository.around(here)
    return repository is not None and repository.tree_of(argument) is not None


def _side(argument: str, here: Path) -> Files:
    if _exists(argument, here):
        return files_of_folder(here / argument, argument)
    revision, _, path = argument.partition(":")
    repository = _repository(here)
    tree = repository.tree_of(revision)
    if tree is None:
        raise no_revision(revision)
    return files_of_revision_path(repository, tree, _from_root(repository, path, here), argument)


def _range(argument: str, paths: Sequence[str], here: Path) -> Sides:
    three = "..." in argument
    left, _, right = argument.partition("..." if three else "..")
    left, right = left or "HEAD", right or "HEAD"
    start = _repository(here).merge_base(left, right) if three else left
    return _between(start, right, start[:10] if three else left, paths, here, argument)


def _between(
    start: str, end: str, start_label: str, paths: Sequence[str], here: Path, argument: str
) -> Sides:
    repository = _repository(here)
    below = _from_here(repository, paths, here)
    found = []
    for revision, label in ((start, start_label), (end, end)):
        tree = repository.tree_of(revision)
        if tree is None:
            raise no_revision(label)
        found.append(files_of_revision(repository, tree, below, f"{label}:"))
    return Sides(found[0], found[1], " ".join([argument, *paths]))


def _against_working_tree(revision: str, paths: Sequence[str], here: Path) -> Sides:
    if Repository.around(here) is None or (not _is_revision(revision, here) and "/" in revision):
        raise _nowhere(revision)
    repository = _repository(here)
    tree = repository.tree_of(revision)
    if tree is None:
        raise no_revision(revision)
    if repository.is_bare:
        raise VdsgenError(f"{repository.root} has no working tree", remedy="name two revisions: A..B")
    below = _from_here(repository, paths, here)
    old = files_of_revision(repository, tree, below, f"{revision}:")
    return Sides(old, files_of_working_tree(repository, below), " ".join([revision, *paths]))


def _repository(here: Path) -> Repository:
    repository = Repository.around(here)
    if repository is None:
        raise VdsgenError(f"{here} is in no git repository", remedy=REMEDY)
    return repository


def _from_here(repository: Repository, paths: Sequence[str], here: Path) -> list[PurePosixPath]:
    """Paths as people write them, from where they are; all of the repository where there are none."""
    if repository.is_bare:
        return [PurePosixPath(path) for path in paths or ["."]]
    return [repository.relative(here / path) for path in paths] or [PurePosixPath(".")]


def _from_root(repository: Repository, path: str, here: Path) -> PurePosixPath:
    """`REVISION:PATH` starts at the root of the repository, `REVISION:./PATH` here (gitrevisions(7))."""
    if path.startswith(("./", "../")) and not repository.is_bare:
        return repository.relative(here / path)
    return PurePosixPath(path.strip("/") or ".")
