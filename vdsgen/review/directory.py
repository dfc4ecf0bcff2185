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
from vdsgen.review.snapshot import Snapshot, snapshot_of_folder
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.load import validated
from vdsgen.spec.plan import Plan
from vdsgen.spec.run import finite, no_number
from vdsgen.spec.shown import shown_key
from vdsgen.spec.source import Source
from vdsgen.spec.text_file import text_of
from vdsgen.spec.yaml_source import parse_yaml


@dataclass(frozen=True, slots=True)
class RenderedDirectory:
    """What `vdsgen generate` wrote, and perhaps somebody edited."""

    label: str
    """Its path, or `REVISION:PATH`."""
    files: Mapping[str, bytes]
    """Those of a rendered directory's files that are there."""
    plan: Plan
    experiment: Experiment
    ds_config: Mapping[str, Any]

    @property
    def config_file(self) -> str:
        """What messages call its DeepSpeed JSON."""
        return Snapshot(self.label, self.files).file("ds_config.json")


def read_directory(path: Path) -> RenderedDirectory:
    """Raises VdsgenError where `path` is no rendered directory, InputError with file, line and column where
    one of its files cannot be read."""
    return rendered_directory(snapshot_of_folder(path))


def rendered_directory(snapshot: Snapshot) -> RenderedDirectory:
    """As `read_directory`, of files that are read already."""
    if snapshot.missing:
        raise VdsgenError(
            f"{snapshot.label} is no rendered directory: it has no {', '.join(snapshot.missing)}",
            remedy="name a directory that `vdsgen generate` wrote",
        )
    return RenderedDirectory(
        label=snapshot.label,
        files=snapshot.files,
        plan=_plan_in(snapshot),
        experiment=validated(Experiment, _yaml(snapshot, "train.yaml")).spec,
        ds_config=json_object(snapshot.files["ds_config.json"], snapshot.file("ds_config.json")),
    )


def json_object(content: bytes, file: str) -> Mapping[str, Any]:
    """The JSON object in a file. Raises InputError with the line and column where it is none."""

    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """DeepSpeed refuses a key that is given twice (runtime/config_utils.py), Python keeps the last."""
        twice = sorted(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        if twice:
            named = ", ".join(shown_key(key) for key in twice[:5])
            raise InputError([Problem(f"{named} is given twice in one object", file)])
        return dict(pairs)

    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=without_repeats,
            parse_constant=no_number,
            parse_float=finite,
        )
    except json.JSONDecodeError as error:
        raise InputError([Problem(f"no JSON: {error.msg}", file, error.lineno, error.colno)]) from error
    except (ValueError, RecursionError) as error:
        raise InputError([Problem(f"no JSON: {error}", file)]) from error
    if not isinstance(value, dict):
        raise InputError([Problem(f"no JSON object but a {type(value).__name__}", file, 1, 1)])
    return value


def _plan_in(snapshot: Snapshot) -> Plan:
    content = snapshot.files["plan.json"]
    json_object(content, snapshot.file("plan.json"))
    try:
        return Plan.model_validate_json(content)
    except ValidationError:
        # Read once more, as YAML, which JSON is: its reader knows the place of every key.
        return validated(Plan, _yaml(snapshot, "plan.json")).spec


def _yaml(snapshot: Snapshot, name: str) -> Source:
    file = snapshot.file(name)
    return Source(parse_yaml(text_of(snapshot.files[name], file), file))
