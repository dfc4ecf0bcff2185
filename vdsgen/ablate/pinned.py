"""The best plan under some pins, also one that does not fit where that is wanted."""

from __future__ import annotations

from vdsgen.ablate.planning import Candidate, Planning, refused
from vdsgen.ablate.records import RefusedPlan
from vdsgen.ablate.selectors import PinSet
from vdsgen.errors import InputError, NoPlanFitsError
from vdsgen.planner.plan import make_plan
from vdsgen.planner.resolve import workload_of
from vdsgen.render.render import render_plan
from vdsgen.spec.canonical import sha256_of
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Gpu, Pool
from vdsgen.spec.plan import Plan

MEMORY_STEP = 1.25
MOST_MEMORY_STEPS = 24
"""How far memory is stretched in search of a plan that would not fit: 1.25^24 is 212 times."""


def pinned(selector: PinSet, planning: Planning) -> Candidate | RefusedPlan:
    """The plan under the selector's pins, put over the experiment's own; or the planner's reason."""
    pins = planning.experiment.constraints.model_copy(update=dict(selector.pins))
    experiment = planning.experiment.model_copy(update={"constraints": pins})
    try:
        plan = make_plan(experiment, planning.pool, planning.profile)
    except InputError as error:
        return refused(selector.asked_for, "; ".join(problem.message for problem in error.problems))
    except NoPlanFitsError as error:
        misfit = _plan_that_does_not_fit(experiment, planning) if planning.try_anyway else None
        if misfit is None:
            return refused(selector.asked_for, error.message)
        plan = misfit
    return Candidate(selector.asked_for, plan, experiment, render_plan(plan, experiment), name=selector.name)


def _plan_that_does_not_fit(experiment: Experiment, planning: Planning) -> Plan | None:
    """The best plan under the least stretched memory that something fits; None where rules refuse all.

    The plan says what there really is: its pool and capacities are the lab's.
    """
    workload = workload_of(experiment, planning.pool, planning.profile)
    assert isinstance(workload.pool.gpu, Gpu)
    factor = 1.0
    for _ in range(MOST_MEMORY_STEPS):
        factor *= MEMORY_STEP
        try:
            plan = make_plan(experiment, _stretched(workload.pool, factor), planning.profile)
        except NoPlanFitsError:
            continue
        real = plan.inputs.model_copy(update={"pool": planning.pool, "lab_sha256": sha256_of(planning.pool)})
        stages = tuple(
            stage.model_copy(update={"capacity_bytes": workload.capacity_bytes}) for stage in plan.stages
        )
        return plan.model_copy(update={"inputs": real, "stages": stages})
    return None


def _stretched(pool: Pool, factor: float) -> Pool:
    """The same pool with more memory: its GPUs', or the host's where ranks share it."""
    assert isinstance(pool.gpu, Gpu)
    if pool.gpu.memory_gib is None:
        return pool.model_copy(update={"host_memory_gib": pool.host_memory_gib * factor})
    gpu = pool.gpu.model_copy(update={"memory_gib": pool.gpu.memory_gib * factor})
    return pool.model_copy(update={"gpu": gpu})
