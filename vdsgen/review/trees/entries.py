"""What a manifest says is to be there: an experiment and a pool for each rendered directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vdsgen.catalog.inputs import open_experiment, open_lab
from vdsgen.errors import InputError, Problem, VdsgenError
from vdsgen.review.check import Sources
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Lab
from vdsgen.spec.load import validated
from vdsgen.spec.manifest import Manifest, Rendering
from vdsgen.spec.yaml_source import read_yaml


@dataclass(frozen=True, slots=True)
class Entry:
    """One directory that a manifest names."""

    path: Path
    sources: Sources
    experiment_path: Path
    overrides: tuple[str, ...]
    """Of the experiment's keys: `KEY=VALUE`."""
    template_dir: Path | None
    alone: bool
    """Whether it is the lab's only pool, whose files go straight into `out`."""


@dataclass(frozen=True, slots=True)
class Gone:
    """Directories that can no longer be rendered: an input is not there."""

    out: Path
    """These, and all below."""
    because: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that manifests say."""

    roots: tuple[Path, ...]
    """Folders that are spoken for: a rendered directory below one, that no entry makes, is orphaned."""
    entries: tuple[Entry, ...]
    gone: tuple[Gone, ...]


def read_manifest(path: Path) -> Manifest:
    """Raises InputError with every problem in its place."""
    source = read_yaml(path)
    manifest = validated(Manifest, source).spec
    outs = [os.path.normpath(entry.out) for entry in manifest.rendered]
    twice = [index for index, out in enumerate(outs) if out in outs[:index]]
    if twice:
        problems = [
            source.problem(("rendered", index, "out"), f"{outs[index]} is rendered twice") for index in twice
        ]
        raise InputError(problems)
    return manifest


def wanted_by(manifests: tuple[Path, ...]) -> Wanted:
    """Raises InputError where a manifest, or an input that is there, cannot be read."""
    entries: list[Entry] = []
    gone: list[Gone] = []
    problems: list[Problem] = []
    opened = Inputs()
    for path in manifests:
        for rendering in read_manifest(path).rendered:
            try:
                for one in _entries(path.parent, rendering, opened):
                    (gone if isinstance(one, Gone) else entries).append(one)  # type: ignore[arg-type]
            except InputError as error:
                problems += error.problems
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return Wanted(tuple(path.parent for path in manifests), tuple(entries), tuple(gone))


class Inputs:
    """Experiments and labs, each read once."""

    def __init__(self) -> None:
        self._labs: dict[Path, Lab] = {}
        self._experiments: dict[tuple[Path, tuple[str, ...]], Experiment] = {}

    def lab(self, path: Path) -> Lab:
        if path not in self._labs:
            self._labs[path] = open_lab(path)
        return self._labs[path]

    def experiment(self, path: Path, overrides: tuple[str, ...]) -> Experiment:
        key = (path, overrides)
        if key not in self._experiments:
            self._experiments[key] = open_experiment(path, overrides)
        return self._experiments[key]


def _entries(root: Path, rendering: Rendering, opened: Inputs) -> Iterator[Entry | Gone]:
    experiment_path, lab_path = beside(root, rendering.experiment), beside(root, rendering.lab)
    out = inside(root, rendering.out)
    templates = None if rendering.templates is None else beside(root, rendering.templates)
    lost = [
        f"its {kind} {path} is gone"
        for kind, path in (
            ("experiment", experiment_path),
            ("lab", lab_path),
            ("folder of templates", templates),
        )
        if path is not None and not path.exists()
    ]
    if lost:
        yield Gone(out, " and ".join(lost))
        return
    known = {pool.name: pool for pool in opened.lab(lab_path).pools}
    experiment = opened.experiment(experiment_path, rendering.set)
    names = rendering.pools or tuple(known)
    for name in names:
        directory = out if len(names) == 1 else out / name
        if name not in known:
            yield Gone(directory, f"{lab_path} has no pool {name} any more")
            continue
        sources = Sources(experiment, known[name], str(experiment_path), str(lab_path), rendering.also)
        yield Entry(directory, sources, experiment_path, rendering.set, templates, alone=len(names) == 1)


def beside(root: Path, name: str) -> Path:
    """A path as the manifest in `root` writes it."""
    return Path(os.path.normpath(root / name))


def inside(root: Path, name: str) -> Path:
    """Raises VdsgenError where a link on the way leads out of the tree."""
    path = beside(root, name)
    if not path.resolve().is_relative_to(root.resolve()):
        raise VdsgenError(f"{path} leads out of {root}", remedy="directories are rendered below the manifest")
    return path
