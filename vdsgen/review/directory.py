"""A rendered directory as reviewers need it: its files' bytes, and what they say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vdsgen.errors import InputError, Problem, VdsgenError
from vdsgen.render.others import OTHER_FILES
from vdsgen.render.render import KNOWN_FILES
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.load import load_experiment, validated
from vdsgen.spec.plan import Plan
from vdsgen.spec.run import finite, no_number
from vdsgen.spec.shown import shown_key
from vdsgen.spec.yaml_source import read_yaml

NEEDED = ("plan.json", "train.yaml", "ds_config.json")
"""Without these there is nothing to review."""


@dataclass(frozen=True, slots=True)
class RenderedDirectory:
    """What `vdsgen generate` wrote, and perhaps somebody edited."""

    path: Path
    files: Mapping[str, bytes]
    """Those of a rendered directory's files that are there."""
    plan: Plan
    experiment: Experiment
    ds_config: Mapping[str, Any]


def read_directory(path: Path) -> RenderedDirectory:
    """Raises VdsgenError where `path` is no rendered directory, InputError with file, line and column where
    one of its files cannot be read."""
    if not path.is_dir():
        kind = "is a file" if path.exists() else "does not exist"
        raise VdsgenError(
            f"{path} {kind}, a rendered directory is needed",
            remedy="name a directory that `vdsgen generate` wrote",
        )
    missing = [name for name in NEEDED if not (path / name).is_file()]
    if missing:
        raise VdsgenError(
            f"{path} is no rendered directory: it has no {', '.join(missing)}",
            remedy="name a directory that `vdsgen generate` wrote",
        )
    return RenderedDirectory(
        path=path,
        files={
            name: (path / name).read_bytes()
            for name in (*KNOWN_FILES, *OTHER_FILES)
            if (path / name).is_file()
        },
        plan=_read_plan(path / "plan.json"),
        experiment=load_experiment(path / "train.yaml"),
        ds_config=read_json(path / "ds_config.json"),
    )


def read_json(path: Path) -> Mapping[str, Any]:
    """The JSON object in a file. Raises InputError with the line and column where it is none."""

    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """DeepSpeed refuses a key that is given twice (runtime/config_utils.py), Python keeps the last."""
        twice = sorted(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        if twice:
            named = ", ".join(shown_key(key) for key in twice[:5])
            raise InputError([Problem(f"{named} is given twice in one object", str(path))])
        return dict(pairs)

    try:
        text = path.read_text("utf-8")
        value = json.loads(
            text, object_pairs_hook=without_repeats, parse_constant=no_number, parse_float=finite
        )
    except json.JSONDecodeError as error:
        raise InputError([Problem(f"no JSON: {error.msg}", str(path), error.lineno, error.colno)]) from error
    except (ValueError, RecursionError) as error:
        raise InputError([Problem(f"no JSON: {error}", str(path))]) from error
    if not isinstance(value, dict):
        raise InputError([Problem(f"no JSON object but a {type(value).__name__}", str(path), 1, 1)])
    return value


def _read_plan(path: Path) -> Plan:
    read_json(path)
    try:
        return Plan.model_validate_json(path.read_bytes())
    except ValidationError:
        # Read once more, as YAML, which JSON is: its reader knows the place of every key.
        return validated(Plan, read_yaml(path)).spec
