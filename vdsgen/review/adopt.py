"""Edits of a rendered ds_config.json: which of them can be overrides, and what to do with the rest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vdsgen.render.engine_config import engine_config
from vdsgen.render.serialise import pretty_yaml
from vdsgen.review.directory import RenderedDirectory
from vdsgen.review.overridden import unfit_overrides
from vdsgen.spec.config_overrides import Overrides
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Plan
from vdsgen.spec.planned_keys import instead_of, leaves, merged
from vdsgen.spec.secrets import is_secret


@dataclass(frozen=True, slots=True)
class Edit:
    """One key of ds_config.json that somebody changed."""

    path: tuple[str, ...]
    found: Any
    """None where the key was taken out."""
    rendered: Any
    """None where the plan has no such key."""
    instead: str | None
    """What to do with it; None where it can be an override."""

    @property
    def key(self) -> str:
        return ".".join(self.path)

    def words(self) -> str:
        """`steps_per_print is 10, rendered as 100`."""
        found, rendered = (
            "left out"
            if value is None
            else "(a secret)"
            if is_secret(self.path[-1], str(value))
            else json.dumps(value, ensure_ascii=False)
            for value in (self.found, self.rendered)
        )
        return f"{self.key} is {found}, rendered {'without' if self.rendered is None else f'as {rendered}'}"


def edits_of(directory: RenderedDirectory) -> tuple[Edit, ...]:
    """What ds_config.json says otherwise than its own plan renders to, in the order of the file."""
    plan, experiment = directory.plan, directory.experiment
    found = dict(leaves(directory.ds_config))
    rendered = dict(leaves(engine_config(plan, experiment)))
    return tuple(
        Edit(path, found.get(path), rendered.get(path), _instead(path, found, plan, experiment))
        for path in {**found, **rendered}
        if found.get(path) != rendered.get(path)
    )


def _instead(
    path: tuple[str, ...], found: Mapping[tuple[str, ...], Any], plan: Plan, experiment: Experiment
) -> str | None:
    """What to do about an edit that can be no override; None where it can."""
    planned = instead_of(".".join(path))
    if planned is not None:
        return planned
    value = found.get(path)
    if value is None:
        own = dict(leaves(experiment.overrides.ds_config))
        return "take it out of overrides" if path in own else "put it back"
    if isinstance(value, str) and is_secret(path[-1], value):
        return "take it out: a secret belongs into the environment"
    refused = unfit_overrides(plan, overriding(experiment, _nested([(path, value)]))).refused
    return f"take it back: {refused[0].message}" if refused else None


def adoptable(edits: Iterable[Edit]) -> dict[str, Any]:
    """Those that can be overrides, as `overrides.ds_config` has them."""
    return _nested([(edit.path, edit.found) for edit in edits if edit.instead is None])


def overriding(experiment: Experiment, ds_config: Mapping[str, Any]) -> Experiment:
    """The experiment with more keys overridden. `ds_config` holds none that the plan decides."""
    together = merged(experiment.overrides.ds_config, ds_config)
    return experiment.model_copy(update={"overrides": Overrides(ds_config=together)})


def override_lines(ds_config: Mapping[str, Any]) -> list[str]:
    """What to write into the experiment."""
    return pretty_yaml({"overrides": {"ds_config": dict(ds_config)}}).rstrip("\n").split("\n")


def _nested(pairs: Sequence[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for path, value in pairs:
        section = config
        for part in path[:-1]:
            section = section.setdefault(part, {})
        section[path[-1]] = value
    return config
