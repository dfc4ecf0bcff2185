"""Whether a lab's own settings go with the plan: what they make lint find that it did not find before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from vdsgen.errors import InputError, Problem
from vdsgen.render.engine_config import engine_config, planned_config
from vdsgen.render.serialise import pretty_json
from vdsgen.review.lint.context import Context
from vdsgen.review.lint.finding import Finding
from vdsgen.review.lint.run import lint
from vdsgen.rules.registry import all_rules
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Plan
from vdsgen.spec.planned_keys import leaves
from vdsgen.spec.source import dotted

ROOT = ("overrides", "ds_config")


class Unfit(NamedTuple):
    """What is wrong with overrides, with keys of the experiment and without places."""

    refused: list[Problem]
    """The engine refuses it, drops it, or takes it for another value."""
    told: list[Problem]
    """The engine does it, and something else besides."""


def check_overrides(plan: Plan, experiment: Experiment) -> list[Problem]:
    """What is worth a warning. Raises InputError with the rule's message where the engine would refuse the
    plan's config with what is overridden in it, or where that would do nothing."""
    unfit = unfit_overrides(plan, experiment)
    if unfit.refused:
        raise InputError(unfit.refused)
    return unfit.told


def unfit_overrides(plan: Plan, experiment: Experiment) -> Unfit:
    """What lint finds with the overrides and does not find without."""
    unfit = Unfit([], [])
    own = experiment.overrides.ds_config
    if not own:
        return unfit
    known = {(found.check, found.pointer) for found in _found(planned_config(plan, experiment), plan)}
    besides = {rule.id for rule in all_rules() if rule.severity == "overridden"}
    for found in _found(engine_config(plan, experiment), plan):
        if (found.check, found.pointer) in known or (found.level == "note" and found.check != COERCED):
            continue
        message, key = f"{found.message} [{found.check}]", _key(own, found.pointer)
        problems = unfit.told if found.check in besides and found.level != "error" else unfit.refused
        problems.append(Problem(message, key=key, remedy=found.remedy or _LEAVE))
    return unfit


COERCED = "coerced-value"
_LEAVE = "leave the key out"


def _found(config: Mapping[str, Any], plan: Plan) -> tuple[Finding, ...]:
    return lint(pretty_json(config).encode(), "ds_config.json", Context(plan=plan)).findings


def _key(own: Mapping[str, Any], pointer: str) -> str:
    """The overridden key at or above what was found; all of them where the rule blames another."""
    path = tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
    for set_path, _ in leaves(own):
        shorter = min(len(set_path), len(path))
        if path and set_path[:shorter] == path[:shorter]:
            return dotted((*ROOT, *set_path))
    return dotted(ROOT)
