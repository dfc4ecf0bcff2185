"""Lab and experiment files as specs, or everything that is wrong with them at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from vdsgen.errors import InputError
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.includes import include_calibrations
from vdsgen.spec.lab import Lab
from vdsgen.spec.overrides import apply_overrides
from vdsgen.spec.problems import problems_of
from vdsgen.spec.source import Source
from vdsgen.spec.yaml_source import read_yaml

AnySpec = TypeVar("AnySpec", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[AnySpec]):
    """A spec, and where each of its keys was written: for problems that are found later."""

    spec: AnySpec
    source: Source


def load_lab(path: Path | str) -> Lab:
    """The lab in a YAML file. Raises InputError with every problem: file, line, column, key, remedy."""
    return read_lab(path).spec


def load_experiment(path: Path | str, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment in a YAML file, with `training.steps=100` and the like put in its place.

    Raises InputError with every problem of the file and of the overrides.
    """
    return read_experiment(path, overrides).spec


def read_lab(path: Path | str) -> Loaded[Lab]:
    """As `load_lab`, with the places of keys. A calibration's file is read in the place of its path."""
    source = read_yaml(Path(path))
    include_calibrations(source, Path(path).parent)
    return validated(Lab, source)


def read_experiment(path: Path | str, overrides: Sequence[str] = ()) -> Loaded[Experiment]:
    """As `load_experiment`, with the places of keys."""
    source = read_yaml(Path(path))
    apply_overrides(source, overrides)
    return validated(Experiment, source)


def validated(model: type[AnySpec], source: Source) -> Loaded[AnySpec]:
    """The values of a source as a spec. Raises InputError with all that does not fit."""
    # By way of JSON: strict validation then takes lists for tuples, and nothing else for anything else.
    text = json.dumps(source.root.plain())
    try:
        return Loaded(model.model_validate_json(text), source)
    except ValidationError as error:
        raise InputError(problems_of(error, model, source)) from None
