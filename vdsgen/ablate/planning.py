"""What the plans of a set are made from, and what becomes of each that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from vdsgen.ablate.records import RefusedPlan
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Pool
from vdsgen.spec.plan import Plan
from vdsgen.spec.profile import ModelProfile


@dataclass(frozen=True, slots=True)
class Planning:
    """What every plan of the set is made from."""

    experiment: Experiment
    """Resolved."""
    pool: Pool
    profile: ModelProfile
    try_anyway: bool
    """Run plans that do not fit by what is predicted."""


class Candidate(NamedTuple):
    """A plan, rendered."""

    asked_for: str
    plan: Plan
    experiment: Experiment
    files: Mapping[str, bytes]
    edited: bool = False
    name: str | None = None
    """What it is to be called; None: by its settings."""


def refused(asked_for: str, reason: str) -> RefusedPlan:
    """What is not run, and why."""
    return RefusedPlan(asked_for=asked_for, reason=reason)
