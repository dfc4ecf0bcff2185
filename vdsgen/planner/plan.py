"""From an experiment, a pool and a layer profile to a Plan: the planner's front door."""

from __future__ import annotations

from itertools import pairwise

from vdsgen import __version__
from vdsgen.planner.again import best_found
from vdsgen.planner.compare import compared
from vdsgen.planner.explain import reasons
from vdsgen.planner.explanations.explained import in_short
from vdsgen.planner.no_fit import no_fit_error
from vdsgen.planner.plan_settings import sections_of
from vdsgen.planner.rejected import rejected
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.search import Candidate, settled
from vdsgen.planner.workload import Workload
from vdsgen.spec.canonical import sha256_of
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Pool
from vdsgen.spec.plan import (
    Inputs,
    Plan,
    PlannedModel,
    Stage,
)
from vdsgen.spec.plan import Search as SearchSummary
from vdsgen.spec.profile import ModelProfile


def make_plan(experiment: Experiment, pool: Pool, profile: ModelProfile) -> Plan:
    """The best plan.

    `experiment` is resolved (its model is a Vdt); `pool` is as the lab file gives it, and recorded so.
    Raises InputError where the demands contradict each other, NoPlanFitsError where nothing fits.
    """
    return best_plans(experiment, pool, profile, top=1)[0]


def best_plans(experiment: Experiment, pool: Pool, profile: ModelProfile, top: int) -> list[Plan]:
    """The best plan first, then the next fastest that differ in layout, ZeRO stage, batch split,
    precision or in whether they checkpoint; at most `top`. Raises as `make_plan`."""
    workload = workload_of(experiment, pool, profile)
    found = best_found(workload, time_all=top > 1)
    if not found.ranked:
        raise no_fit_error(workload, found)
    winner = settled(workload, found.ranked[0])
    inputs = Inputs(
        experiment_sha256=sha256_of(experiment),
        lab_sha256=sha256_of(pool),
        profile_sha256=sha256_of(profile),
        pool=pool,
    )
    summary = SearchSummary(
        candidates=found.candidates, feasible=found.feasible, rejected=rejected(found, winner)
    )
    best = _plan(workload, inputs, winner, reasons(workload, found, winner), summary)
    plans = [best.model_copy(update={"explanations": in_short(workload, winner, pool)})]
    for runner_up in found.ranked[1:top]:
        sentence = f"Beside the best plan it {compared(runner_up, winner)}."
        plans.append(_plan(workload, inputs, settled(workload, runner_up), (sentence,), summary))
    return plans


def _plan(
    workload: Workload, inputs: Inputs, candidate: Candidate, why: tuple[str, ...], summary: SearchSummary
) -> Plan:
    profile = workload.profile
    return Plan(
        generator=f"vdsgen {__version__}",
        inputs=inputs,
        model=PlannedModel(
            name=profile.model,
            parameters=profile.parameters,
            trainable_parameters=profile.trainable_parameters,
            layers=workload.layers,
        ),
        pool=workload.pool.name,
        **sections_of(candidate.settings, workload.experiment.training),
        stages=_stages(workload, candidate),
        predicted=candidate.time.predicted(),
        reasons=why,
        search=summary,
    )


def _stages(workload: Workload, candidate: Candidate) -> tuple[Stage, ...]:
    return tuple(
        Stage(
            index=index,
            layers=(start, stop),
            memory=workload.memory(candidate.settings, index, start, stop).spec(),
            capacity_bytes=workload.capacity_of(candidate.settings, index),
            forward_seconds=times.forward_seconds,
            backward_seconds=times.backward_seconds,
            peak=workload.timeline(candidate.settings, index, start, stop).peak().spec(),
        )
        for index, ((start, stop), times) in enumerate(
            zip(pairwise(candidate.placed.partition), candidate.time.stages, strict=True)
        )
    )
