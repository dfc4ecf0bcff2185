"""What git shows of one file of a rendered directory: it hands over one file at a time.

A directory's diff is shown once, in the place of plan.json. That names its experiment by a hash, so the
directory as it was rendered is put together again from what git holds beside it, and nothing else passes for
it. The other files are shown where they say something of their own: when somebody edited them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vdsgen.errors import VdsgenError
from vdsgen.render.engine_config import engine_config
from vdsgen.render.serialise import pretty_json
from vdsgen.review.diff import Diff, diff_sides
from vdsgen.review.directory import RenderedDirectory, rendered_directory
from vdsgen.review.git.repository import Repository
from vdsgen.review.printable import printable
from vdsgen.review.side import DS_CONFIG, plain_config
from vdsgen.review.snapshot import NEEDED, Snapshot
from vdsgen.spec.canonical import sha256_of
from vdsgen.spec.planned_keys import leaves

LOOKED_AT = (*NEEDED, "PLAN.md")
MOST_COMMITS = 40
"""That changed the directory and are looked through for the files beside one."""


@dataclass(frozen=True, slots=True)
class Version:
    """One side of a file."""

    label: str
    content: bytes | None
    """None where there is no such file."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What to print for one file: a diff, or text."""

    diff: Diff | None = None
    text: str = ""


def shown(
    path: str, old: bytes | None, new: bytes | None, repository: Repository | None, number: int
) -> Shown:
    """Of the file at `path` in the repository, one of `number` files that git shows."""
    name = PurePosixPath(path).name
    versions = (Version(f"a/{path}", old), Version(f"b/{path}", new))
    if old is None or new is None or repository is None:
        return _plainly(path, versions)
    try:
        if name == "plan.json":
            return _of_plans(path, old, new, repository)
        folder = path.rpartition("/")[0]
        departures = [_departures(folder, name, content, repository) for content in (old, new)]
        if number > 1 and departures[0] is not None and departures[0] == departures[1]:
            return Shown(
                text=f"{printable(path)}: follows from plan.json beside it, whose change says it all\n"
            )
        if name == DS_CONFIG:
            return Shown(diff=diff_sides(plain_config(f"a/{path}", old), plain_config(f"b/{path}", new)))
    except VdsgenError:
        pass  # what is no rendered file is shown as text
    return _plainly(path, versions)


def _of_plans(path: str, old: bytes, new: bytes, repository: Repository) -> Shown:
    """Raises VdsgenError where one of them is no plan of a rendered directory that git holds the rest of."""
    folder = path.rpartition("/")[0]
    before, after = (
        _around(folder, content, repository, f"{side}/{folder or '.'}")
        for side, content in (("a", old), ("b", new))
    )
    return Shown(diff=diff_sides(before, after))


def _around(folder: str, plan: bytes, repository: Repository, label: str) -> RenderedDirectory:
    """The directory that this plan was rendered to: with the train.yaml whose hash the plan records."""
    for files in _beside(folder, repository):
        if "train.yaml" not in files:
            continue
        candidate = {**files, "plan.json": plan}
        candidate.setdefault(DS_CONFIG, b"{}")
        try:
            found = rendered_directory(Snapshot(label, candidate))
        except VdsgenError:
            continue
        if sha256_of(found.experiment) == found.plan.inputs.experiment_sha256:
            config = engine_config(found.plan, found.experiment)
            content = pretty_json(config).encode()
            return RenderedDirectory(
                label=label,
                files={DS_CONFIG: content, "plan.json": plan, "train.yaml": files["train.yaml"]},
                plan=found.plan,
                experiment=found.experiment,
                ds_config=config,
            )
    raise VdsgenError(f"git holds no train.yaml that {label}/plan.json was planned for")


def _departures(
    folder: str, name: str, content: bytes, repository: Repository
) -> dict[tuple[str, ...], tuple[Any, Any]] | None:
    """What a file says otherwise than the plan beside it: nothing as a rule; what a lab's templates add, or
    somebody by hand. None where git holds no plan that it lay beside."""
    for files in _beside(folder, repository):
        if files.get(name) != content or any(needed not in files for needed in NEEDED):
            continue
        if name not in (DS_CONFIG, "train.yaml"):
            return {}
        try:
            found = rendered_directory(Snapshot(folder, files))
        except VdsgenError:
            continue
        if sha256_of(found.experiment) != found.plan.inputs.experiment_sha256:
            continue
        if name == "train.yaml":
            return {}
        says = dict(leaves(found.ds_config))
        planned = dict(leaves(engine_config(found.plan, found.experiment)))
        return {
            path: (says.get(path), planned.get(path))
            for path in {**says, **planned}
            if says.get(path) != planned.get(path)
        }
    return None


def _beside(folder: str, repository: Repository) -> Iterator[Mapping[str, bytes]]:
    """The files of the folder in the working tree, in the index, and in commits that changed it."""
    if not repository.is_bare:
        yield _here(repository.root / folder)
        yield repository.read_index(folder)
    seen: set[tuple[str, ...]] = set()
    for commit in ("HEAD", *repository.commits_touching(PurePosixPath(folder or "."), MOST_COMMITS)):
        for revision in (commit, f"{commit}^"):
            tree = repository.tree_of(revision)
            if tree is None:
                continue
            listed = repository.files(tree, PurePosixPath(folder or "."))
            prefix = f"{folder}/" if folder else ""
            blobs = {name: listed[prefix + name] for name in LOOKED_AT if prefix + name in listed}
            oids = tuple(blob.oid for blob in blobs.values())
            if oids not in seen:
                seen.add(oids)
                contents = repository.read(blobs.values())
                yield {name: contents[blob.oid] for name, blob in blobs.items() if blob.oid in contents}


def _here(folder: Path) -> Mapping[str, bytes]:
    paths = [folder / name for name in LOOKED_AT]
    return {path.name: path.read_bytes() for path in paths if path.is_file() and not path.is_symlink()}


def _plainly(path: str, versions: tuple[Version, Version]) -> Shown:
    """As git itself would show the text."""
    old, new = (version.content or b"" for version in versions)
    if b"\0" in old or b"\0" in new:
        return Shown(text=f"Binary files a/{printable(path)} and b/{printable(path)} differ\n")
    before, after = (content.decode("utf-8", "backslashreplace").splitlines() for content in (old, new))
    names = [version.label if version.content is not None else "/dev/null" for version in versions]
    lines = [f"diff --git {versions[0].label} {versions[1].label}"]
    lines += difflib.unified_diff(before, after, names[0], names[1], lineterm="")
    return Shown(text="".join(f"{printable(line)}\n" for line in lines))
