"""`vdsgen check --fix`: renders anew what is not fresh, and loses nothing that somebody wrote."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdsgen.errors import VdsgenError
from vdsgen.files import write_atomically
from vdsgen.render.others import render_others
from vdsgen.render.render import render_plan
from vdsgen.render.write import write_files
from vdsgen.review.adopt import adoptable, override_lines, overriding
from vdsgen.review.check import Replan
from vdsgen.review.git.state import held_by_git
from vdsgen.review.overridden import check_overrides
from vdsgen.review.trees.check import CheckedTree, Verdicted
from vdsgen.review.trees.experiment_file import with_overrides
from vdsgen.spec.planned_keys import leaves, merged
from vdsgen.spec.text_file import read_text

ASIDE = ".edited"
"""Ends the names of files that somebody edited, once they were rendered over."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """What became of one directory."""

    path: Path
    written: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    """Names under which edited files now lie beside the rendered ones."""
    refused: str | None = None
    """Why nothing was written."""


def fix(tree: CheckedTree, replan: Replan, *, force: bool) -> list[Fixed]:
    """Renders every directory that can be, each wholly or not at all.

    One with files that were edited by hand is left as it is, unless `force` is given: then these are kept
    aside under another name first. So are files of which cannot be told whether they were edited, where git
    does not hold them as they are.
    """
    return [_fixed(one, replan, force=force) for one in tree.directories if one.verdict != "fresh"]


def _fixed(one: Verdicted, replan: Replan, *, force: bool) -> Fixed:
    try:
        files = _rendered(one, replan)
    except VdsgenError as error:
        return Fixed(one.path, refused=str(error))
    edited = () if one.checked is None else one.checked.edited
    if edited and not force:
        return Fixed(
            one.path,
            refused=f"{', '.join(edited)} edited by hand: --adopt what can be an override, or --force",
        )
    perhaps = set() if one.checked is None else set(one.checked.perhaps_edited)
    aside = [*edited, *(name for name in sorted(perhaps) if not held_by_git(one.path / name))]
    kept = []
    try:
        for name in aside:
            if (one.path / name).is_file():
                kept.append(_keep_aside(one.path / name))
        write_files(one.path, files)
    except VdsgenError as error:
        return Fixed(one.path, kept=tuple(kept), refused=str(error))
    before = {} if one.directory is None else one.directory.files
    written = tuple(name for name, content in files.items() if before.get(name) != content)
    return Fixed(one.path, written, tuple(kept))


def _rendered(one: Verdicted, replan: Replan) -> Mapping[str, bytes]:
    """Raises VdsgenError where nothing can be rendered, with the reason."""
    if one.verdict == "orphaned":
        what = f"{', '.join(one.leftovers)}: no longer rendered" if one.leftovers else "; ".join(one.causes)
        raise VdsgenError(f"{what}; remove it with git rm, or restore what it came from")
    if one.entry is not None and one.directory is None and one.verdict == "missing":
        sources = one.entry.sources
        plan = replan(sources.experiment, sources.pool)
        check_overrides(plan, sources.experiment)
        return render_plan(plan, sources.experiment, one.entry.template_dir) | render_others(
            sources.also, plan, sources.experiment
        )
    if one.checked is None or not one.checked.expected:
        raise VdsgenError("; ".join(one.causes) or "it cannot be rendered")
    if one.directory is not None:
        experiment = one.directory.experiment if one.entry is None else one.entry.sources.experiment
        pool = one.directory.plan.inputs.pool if one.entry is None else one.entry.sources.pool
        if experiment.overrides.ds_config:
            check_overrides(replan(experiment, pool), experiment)
    return one.checked.expected


def _keep_aside(path: Path) -> str:
    """The same content under a name that nothing has yet; returns the name."""
    content = path.read_bytes()
    number = 1
    while True:
        name = path.name + ASIDE + ("" if number == 1 else f"-{number}")
        target = path.with_name(name)
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        except FileExistsError:
            if target.is_file() and not target.is_symlink() and target.read_bytes() == content:
                return name
            number += 1
            continue
        except OSError as error:
            raise VdsgenError(f"cannot keep {path} as {target}: {error.strerror}") from error
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        return name


@dataclass(frozen=True, slots=True)
class Adopted:
    """Overrides that were written into an experiment."""

    file: Path
    lines: tuple[str, ...]
    refused: str | None = None
    recorded_only: bool = False
    """Whether the file is a rendered one, beside an experiment that nothing names."""


def adopt(tree: CheckedTree, replan: Replan, template_dir: Path | None) -> list[Adopted]:
    """Writes edits of ds_config.json that can be overrides into the experiments that the directories come
    from: the file that a manifest names, else the directory's train.yaml (whose other files are rendered anew
    at once). Nothing is written where two directories of one experiment disagree."""
    wanted: dict[Path, dict[str, Any]] = {}
    refused: dict[Path, str] = {}
    done: list[Adopted] = []
    for one in tree.directories:
        own = adoptable(one.edits)
        if not own:
            continue
        if one.entry is None:
            done.append(_adopted_in_place(one, own, replan, template_dir))
            continue
        file, path = one.entry.experiment_path, one.path
        together = wanted.setdefault(file, {})
        known = dict(leaves(together))
        for key, value in leaves(own):
            if known.get(key, value) != value:
                refused[file] = f"{path} and another directory of it disagree about {'.'.join(key)}"
        wanted[file] = merged(together, own)
    for file, own in wanted.items():
        lines = tuple(override_lines(own))
        if file in refused:
            done.append(Adopted(file, lines, refused[file]))
            continue
        try:
            write_atomically(file, with_overrides(read_text(file), own, str(file)).encode())
            done.append(Adopted(file, lines))
        except VdsgenError as error:
            done.append(Adopted(file, lines, str(error)))
    return done


def _adopted_in_place(
    one: Verdicted, own: dict[str, Any], replan: Replan, template_dir: Path | None
) -> Adopted:
    """The directory rendered from its own train.yaml with the overrides in it."""
    assert one.directory is not None and one.checked is not None, "edits were read from it"
    file, lines = one.path / "train.yaml", tuple(override_lines(own))
    others = [name for name in one.checked.edited if name != "ds_config.json"]
    left = [edit.words() for edit in one.edits if edit.instead is not None]
    if others or left:
        why = [f"{name} was edited too" for name in others] + left
        return Adopted(file, lines, f"{'; '.join(why)}: take that back first")
    experiment = overriding(one.directory.experiment, own)
    try:
        plan = replan(experiment, one.directory.plan.inputs.pool)
        check_overrides(plan, experiment)
        files = render_plan(plan, experiment, template_dir)
        write_files(one.path, files)
    except VdsgenError as error:
        return Adopted(file, lines, str(error))
    return Adopted(file, lines, recorded_only=True)
