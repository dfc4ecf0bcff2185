"""Labs and experiments as commands take them: read, and checked against the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from vdsgen.catalog.hardware import lab_problems
from vdsgen.catalog.resolve import resolve_experiment
from vdsgen.errors import InputError, Problem
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Lab
from vdsgen.spec.load import read_experiment, read_lab
from vdsgen.spec.source import Source, key_path


def open_inputs(
    lab: Path | str, experiment: Path | str, overrides: Sequence[str] = ()
) -> tuple[Lab, Experiment]:
    """`open_lab` and `open_experiment`. Raises InputError with the problems of both files."""
    problems: list[Problem] = []
    try:
        opened_lab = open_lab(lab)
    except InputError as error:
        problems += error.problems
    try:
        opened_experiment = open_experiment(experiment, overrides)
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)
    return opened_lab, opened_experiment


def open_lab(path: Path | str) -> Lab:
    """A lab whose GPUs and links the catalogue holds. Raises InputError with every problem in its place."""
    loaded = read_lab(path)
    problems = lab_problems(loaded.spec)
    if problems:
        raise InputError(placed(problems, loaded.source))
    return loaded.spec


def open_experiment(path: Path | str, overrides: Sequence[str] = ()) -> Experiment:
    """An experiment with its model's sizes. Raises InputError with every problem in its place."""
    loaded = read_experiment(path, overrides)
    try:
        return resolve_experiment(loaded.spec)
    except InputError as error:
        raise InputError(placed(error.problems, loaded.source)) from None


def placed(problems: Iterable[Problem], source: Source) -> list[Problem]:
    """The same problems, each at the place of its key in the file (of the nearest key that is there)."""
    found = []
    for problem in problems:
        place = source.place_of_value(key_path(problem.key or ""))
        found.append(problem._replace(file=place.file, line=place.line, column=place.column))
    return found
