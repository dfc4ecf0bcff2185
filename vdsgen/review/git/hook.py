"""Before a commit: which rendered directories the changed files bear on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.render.write import is_rendered
from vdsgen.review.git.command import git_output
from vdsgen.review.git.repository import Repository
from vdsgen.review.trees.entries import beside, read_manifest
from vdsgen.review.trees.find import find
from vdsgen.spec.manifest import MANIFEST

HOOK = """\
#!/bin/sh
# Written by `vdsgen git install --hook`: rendered directories that a commit changes must be fresh.
exec {command} git hook --staged
"""


def bears_on(files: Iterable[Path], root: Path) -> list[Path]:
    """Directories and trees to check: those that the files lie in, and those that manifests render from them.
    A manifest that changed has all of its tree checked."""
    changed = [Path(os.path.normpath(file)) for file in files]
    found: dict[Path, None] = {}
    for file in changed:
        if (file.name == MANIFEST and file.is_file()) or is_rendered(file.parent):
            found[file.parent] = None
    for manifest in find([root]).manifests if changed else ():
        for out in _rendered_from(manifest, {file.resolve() for file in changed}):
            if out.is_dir():
                found[out] = None
    return sorted(path for path in found if not any(other in path.parents for other in found))


def _rendered_from(manifest: Path, changed: set[Path]) -> Iterator[Path]:
    """What this manifest renders from one of these files."""
    names = {path.name for path in changed}
    for entry in read_manifest(manifest).rendered:
        experiment, lab = (beside(manifest.parent, name) for name in (entry.experiment, entry.lab))
        templates = None if entry.templates is None else beside(manifest.parent, entry.templates).resolve()
        inputs = {experiment.resolve(), lab.resolve()}
        # A lab names calibrations by their files.
        text = lab.read_text("utf-8", "replace") if lab.is_file() else ""
        named = any(name in text for name in names)
        if (
            inputs & changed
            or named
            or (templates is not None and any(templates in one.parents for one in changed))
        ):
            yield beside(manifest.parent, entry.out)


def staged_files(repository: Repository) -> list[Path]:
    """What the commit changes. Raises VdsgenError where one of them has changes that are not staged: it is
    the files that lie there which are checked."""
    staged = _names(
        repository, ["diff-index", "--cached", "--name-only", "--no-ext-diff", "-z", *_head(repository)]
    )
    changed = _names(repository, ["diff-files", "--name-only", "--no-ext-diff", "-z"])
    torn = sorted(set(staged) & set(changed))
    if torn:
        raise VdsgenError(
            f"{', '.join(torn[:5])}: changed again since staged, and what lies there is checked",
            remedy="git add, or git stash --keep-index",
        )
    return [repository.root / name for name in staged]


def _head(repository: Repository) -> Sequence[str]:
    """The commit before; before the first, the empty tree."""
    commit = repository.commit_of("HEAD")
    if commit is not None:
        return [commit, "--"]
    return [git_output(repository.root, ["hash-object", "-t", "tree", "/dev/null"]).decode().strip(), "--"]


def _names(repository: Repository, arguments: Sequence[str]) -> list[str]:
    listed = git_output(repository.root, arguments)
    return [part.decode("utf-8", "surrogateescape") for part in listed.split(b"\0")[:-1]]


def install_hook(here: Path, command: str) -> Path:
    """Writes the repository's pre-commit hook. Raises VdsgenError where there is another one."""
    path = _hook_path(here)
    text = HOOK.format(command=command)
    if path.exists() and path.read_text("utf-8", "replace") != text:
        raise VdsgenError(
            f"{path} is there and does something else",
            remedy=f"add to it the line: {command} git hook --staged",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def uninstall_hook(here: Path) -> None:
    """Takes the hook away if it is ours."""
    path = _hook_path(here)
    if path.is_file() and "vdsgen git install --hook" in path.read_text("utf-8", "replace"):
        path.unlink()


def _hook_path(here: Path) -> Path:
    """Raises VdsgenError outside of repositories, and where hooks lie in a place that is shared."""
    repository = Repository.around(here)
    if repository is None:
        raise VdsgenError(f"{here.absolute()} is in no git repository")
    folder = git_output(here, ["rev-parse", "--path-format=absolute", "--git-common-dir"])
    return Path(folder.decode("utf-8", "surrogateescape").removesuffix("\n")) / "hooks" / "pre-commit"
