"""`vdsgen check` over a tree: one verdict a directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vdsgen.errors import InputError, NoPlanFitsError, VdsgenError
from vdsgen.render.file_names import KNOWN_FILES
from vdsgen.review.adopt import Edit, edits_of
from vdsgen.review.check import Checked, Replan, check
from vdsgen.review.directory import RenderedDirectory, rendered_directory
from vdsgen.review.snapshot import Snapshot, snapshot_of_folder
from vdsgen.review.trees.entries import Entry, Wanted, wanted_by
from vdsgen.review.trees.find import Found, find
from vdsgen.review.trees.plans import Plans, Renders
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Pool

Verdict = Literal["broken", "edited", "orphaned", "other_version", "stale", "missing", "fresh"]
VERDICTS: tuple[Verdict, ...] = (
    "broken",
    "edited",
    "orphaned",
    "other_version",
    "stale",
    "missing",
    "fresh",
)
"""In the order they are shown. broken: a file cannot be read, or its inputs cannot be planned for. edited:
somebody changed a rendered file by hand. orphaned: nothing renders it any more. other_version: another vdsgen
made it, and this one makes it otherwise. stale: its inputs say something else by now. missing: the manifest
names it, and it was not rendered."""


@dataclass(frozen=True, slots=True)
class Verdicted:
    """One directory."""

    path: Path
    verdict: Verdict
    causes: tuple[str, ...]
    checked: Checked | None = None
    """None where it could not be compared."""
    edits: tuple[Edit, ...] = ()
    """Of ds_config.json, by hand."""
    leftovers: tuple[str, ...] = ()
    """Files of another launcher or plan, which rendering no longer writes."""
    entry: Entry | None = None
    """Where a manifest says what it comes from."""
    directory: RenderedDirectory | None = None
    """None where it is missing or broken."""
    error: VdsgenError | None = None
    """Of a broken one."""


@dataclass(frozen=True, slots=True)
class CheckedTree:
    """All of them, sorted by path."""

    directories: tuple[Verdicted, ...]
    manifests: tuple[Path, ...] = ()

    def of(self, verdict: Verdict) -> tuple[Verdicted, ...]:
        return tuple(one for one in self.directories if one.verdict == verdict)

    @property
    def fresh(self) -> bool:
        return all(one.verdict == "fresh" for one in self.directories)

    @property
    def exit_code(self) -> int:
        """2 where something could not be checked, 1 where something is not fresh, else 0."""
        return 2 if self.of("broken") else 0 if self.fresh else 1


@dataclass
class TreeCheck:
    """Checks trees, and plans for equal inputs once, also when it checks again."""

    replan: Replan
    template_dir: Path | None = None
    progress: Callable[[float], None] = lambda _share: None
    _plans: Plans = field(init=False)
    _renders: Renders = field(init=False, default_factory=Renders)

    def __post_init__(self) -> None:
        self._plans = Plans(self.replan)

    @property
    def plan(self) -> Replan:
        """The planner that remembers."""
        return self._plans

    def __call__(self, paths: Sequence[Path]) -> CheckedTree:
        """Raises VdsgenError where a path is no directory, InputError where a manifest cannot be followed."""
        found = find(paths)
        wanted = wanted_by(found.manifests)
        opened = [_opened(path) for path in found.directories]
        entries = {_place(entry.path): entry for entry in wanted.entries}
        self._plans.make(self._inputs(opened, entries, wanted, paths), self.progress)
        verdicts = [self._verdict(path, one, entries, wanted) for path, one in _named(found, opened)]
        verdicts += self._missing(wanted, {_place(path) for path in found.directories}, paths)
        return CheckedTree(tuple(sorted(verdicts, key=lambda one: one.path)), found.manifests)

    def _inputs(
        self,
        opened: Sequence[RenderedDirectory | VdsgenError],
        entries: dict[Path, Entry],
        wanted: Wanted,
        paths: Sequence[Path],
    ) -> Iterator[tuple[Experiment, Pool]]:
        for entry in wanted.entries:
            if _below_any(entry.path, paths):
                yield entry.sources.experiment, entry.sources.pool
        for one in opened:
            if isinstance(one, RenderedDirectory) and _place(Path(one.label)) not in entries:
                yield one.experiment, one.plan.inputs.pool

    def _verdict(
        self,
        path: Path,
        opened: RenderedDirectory | VdsgenError,
        entries: dict[Path, Entry],
        wanted: Wanted,
    ) -> Verdicted:
        entry = entries.get(_place(path))
        if isinstance(opened, VdsgenError):
            return _broken(path, opened, entry)
        if entry is None:
            because = _orphaned(path, wanted)
            if because is not None:
                return Verdicted(path, "orphaned", (because,), directory=opened)
        templates = self.template_dir if entry is None else entry.template_dir or self.template_dir
        try:
            sources = None if entry is None else entry.sources
            checked = check(opened, self._plans, templates, sources, self._renders)
        except VdsgenError as error:
            return _broken(path, _placed(error, path), entry)
        leftovers = tuple(name for name in opened.files if name in KNOWN_FILES and _is_left(name, checked))
        edits = edits_of(opened) if "ds_config.json" in checked.edited else ()
        return Verdicted(
            path, _verdict_of(checked, leftovers), checked.causes, checked, edits, leftovers, entry, opened
        )

    def _missing(self, wanted: Wanted, there: set[Path], paths: Sequence[Path]) -> Iterator[Verdicted]:
        """Entries that were not rendered. Of several pools, those that no plan suits are left out, as when
        they are rendered, unless that is all of them."""
        suited = {entry.path.parent for entry in wanted.entries if _place(entry.path) in there}
        unsuited: dict[Path, Verdicted] = {}
        for entry in wanted.entries:
            if _place(entry.path) in there or not _below_any(entry.path, paths):
                continue
            try:
                self._plans(entry.sources.experiment, entry.sources.pool)
            except VdsgenError as error:
                one = _unplanned(entry, error)
                if entry.alone:
                    yield one
                else:
                    unsuited.setdefault(entry.path.parent, one)
                continue
            suited.add(entry.path.parent)
            because = f"it is to be rendered from {entry.sources.experiment_file} and was not yet"
            yield Verdicted(entry.path, "missing", (because,), entry=entry)
        yield from (one for out, one in unsuited.items() if out not in suited)


def _unplanned(entry: Entry, error: VdsgenError) -> Verdicted:
    if isinstance(error, NoPlanFitsError):
        return Verdicted(entry.path, "missing", (f"no plan fits: {error.message}",), entry=entry)
    return _broken(entry.path, error, entry)


def _broken(path: Path, error: VdsgenError, entry: Entry | None) -> Verdicted:
    return Verdicted(path, "broken", (str(error),), entry=entry, error=error)


def _opened(path: Path) -> RenderedDirectory | VdsgenError:
    try:
        return rendered_directory(snapshot_of_folder(path))
    except VdsgenError as error:
        return error


def _named(
    found: Found, opened: Sequence[RenderedDirectory | VdsgenError]
) -> Iterator[tuple[Path, RenderedDirectory | VdsgenError]]:
    yield from zip(found.directories, opened, strict=True)


def _place(path: Path) -> Path:
    return path.resolve()


def _below_any(path: Path, roots: Sequence[Path]) -> bool:
    return any(_place(path).is_relative_to(_place(root)) for root in roots)


def _orphaned(path: Path, wanted: Wanted) -> str | None:
    """Why nothing renders it any more; None where no manifest speaks for the place."""
    for gone in wanted.gone:
        if _below_any(path, [gone.out]):
            return gone.because
    for entry in wanted.entries:
        if _place(path).parent == _place(entry.path).parent and not entry.alone:
            return f"no pool of {entry.sources.lab_file} renders it any more"
    roots = [root for root in wanted.roots if _below_any(path, [root])]
    if roots:
        return f"no entry of {max(roots, key=lambda root: len(root.parts)) / 'vdsgen.yaml'} renders it"
    return None


def _is_left(name: str, checked: Checked) -> bool:
    return bool(checked.expected) and name not in checked.expected


def _verdict_of(checked: Checked, leftovers: Sequence[str]) -> Verdict:
    if checked.edited:
        return "edited"
    if checked.findings and checked.other_version:
        return "other_version"
    if checked.findings:
        return "stale"
    return "orphaned" if leftovers else "fresh"


def _placed(error: VdsgenError, path: Path) -> VdsgenError:
    """Problems of recorded inputs name their file."""
    if not isinstance(error, InputError):
        return error
    file = Snapshot(str(path), {}).file("train.yaml")
    return InputError(
        [problem if problem.file else problem._replace(file=file) for problem in error.problems]
    )
