"""A plan's explanations: the short form that every plan has, and the long one that plans again."""

from __future__ import annotations

from collections.abc import Callable

from vdsgen.planner.again import candidate_of
from vdsgen.planner.explanations.bindings import bindings, quick_bindings
from vdsgen.planner.explanations.families import nearest_misses
from vdsgen.planner.explanations.purchases import purchases
from vdsgen.planner.explanations.scaling import scaling
from vdsgen.planner.explanations.waterfall import waterfall
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.search import Candidate
from vdsgen.planner.workload import Workload
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.explanations import Explanations
from vdsgen.spec.lab import Pool
from vdsgen.spec.plan import Plan
from vdsgen.spec.profile import ModelProfile

Progress = Callable[[float], None]
"""Is told the share done."""


def in_short(workload: Workload, winner: Candidate, named: Pool) -> Explanations:
    """What needs no planning again. `named` is the pool as the lab file gives it."""
    return Explanations(
        bindings=quick_bindings(workload, winner, named), waterfall=waterfall(workload, winner)
    )


def explained(
    experiment: Experiment, pool: Pool, profile: ModelProfile, plan: Plan, progress: Progress | None = None
) -> Plan:
    """The plan with everything explained; `make_plan`'s arguments and its answer."""
    workload = workload_of(experiment, pool, profile, plan.nodes)
    winner = candidate_of(plan, workload)
    tell = progress or _nobody
    bound = bindings(workload, winner, pool)
    tell(0.1)
    bought = tuple(purchases(workload, winner, pool))
    tell(0.5)
    missed = tuple(nearest_misses(workload, winner))
    tell(0.7)
    everything = Explanations(
        bindings=bound,
        waterfall=waterfall(workload, winner),
        purchases=bought,
        nearest_misses=missed,
        scaling=scaling(workload, winner, pool),
    )
    tell(1.0)
    return plan.model_copy(update={"explanations": everything})


def _nobody(_share: float) -> None:
    pass
