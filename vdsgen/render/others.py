"""Files of a plan for trainers other than ours, where they can do what it says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from vdsgen.errors import VdsgenError
from vdsgen.render.accelerate import accelerate_config, accelerate_limits
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Plan


@dataclass(frozen=True, slots=True)
class OtherTrainer:
    """How a plan is said to another trainer."""

    title: str
    file: str
    limits: Callable[[Plan, Experiment], Iterator[str]]
    """What it cannot do of a plan."""
    text: Callable[[Plan], str]


OTHERS: Mapping[str, OtherTrainer] = {
    "accelerate": OtherTrainer("Accelerate", "accelerate.yaml", accelerate_limits, accelerate_config),
}
OTHER_FILES: Mapping[str, str] = {other.file: name for name, other in OTHERS.items()}
"""File name -> the trainer it is for."""


def render_others(names: Collection[str], plan: Plan, experiment: Experiment) -> dict[str, bytes]:
    """File name -> content. Raises VdsgenError with everything that a trainer cannot do of the plan."""
    files = {}
    for name in names:
        other = OTHERS[name]
        lacking = list(other.limits(plan, experiment))
        if lacking:
            raise VdsgenError(
                f"{other.title} cannot do what the plan for {plan.pool} says: {'; '.join(lacking)}",
                remedy=f"pin what it can with --set, or leave out --also {name}",
            )
        files[other.file] = other.text(plan).encode()
    return files
