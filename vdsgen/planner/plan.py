"""From an experiment, a pool and a layer profile to a Plan: the planner's front door."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from vdsgen import __version__
from vdsgen.errors import InputError, NoPlanFitsError, VdsgenError
from vdsgen.planner.arrange import arrangements
from vdsgen.planner.compare import compared
from vdsgen.planner.demands import whole_pool_layouts
from vdsgen.planner.explain import reasons
from vdsgen.planner.no_fit import no_fit_error
from vdsgen.planner.plan_settings import sections_of
from vdsgen.planner.rejected import rejected
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.search import Candidate, Search, search, settled
from vdsgen.planner.solution import predicted
from vdsgen.planner.unequal import UsedNode, planned_nodes, unequal_workload
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

ROUNDING = 1e-9
"""Relative: equally fast."""


def make_plan(experiment: Experiment, pool: Pool, profile: ModelProfile) -> Plan:
    """The best plan.

    `experiment` is resolved (its model is a Vdt); `pool` is as the lab file gives it, and recorded so.
    Raises InputError where the demands contradict each other, NoPlanFitsError where nothing fits.
    """
    return best_plans(experiment, pool, profile, top=1)[0]


def best_plans(experiment: Experiment, pool: Pool, profile: ModelProfile, top: int) -> list[Plan]:
    """The best plan first, then the next fastest that differ in layout, ZeRO stage, batch split,
    precision or in whether they checkpoint; at most `top`. Raises as `make_plan`."""
    given, workload, found = _searched(experiment, pool, profile, time_all=top > 1)
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
    plans = [_plan(workload, inputs, given, winner, reasons(workload, found, winner), summary)]
    for runner_up in found.ranked[1:top]:
        sentence = f"Beside the best plan it {compared(runner_up, winner)}."
        plans.append(_plan(workload, inputs, given, settled(workload, runner_up), (sentence,), summary))
    return plans


def _searched(
    experiment: Experiment, pool: Pool, profile: ModelProfile, *, time_all: bool
) -> tuple[list[UsedNode], Workload, Search]:
    """The GPUs in the order that the best plan has them; the workload on them, and what its search found.

    Raises InputError where no order of the pool's GPUs meets the demands, NoPlanFitsError where nothing fits.
    """
    if pool.is_plain:
        workload = workload_of(experiment, pool, profile)
        return [], workload, _search(workload, time_all=time_all)
    best: tuple[list[UsedNode], Workload, Search] | None = None
    errors: list[VdsgenError] = []
    for used in arrangements(pool):
        workload = unequal_workload(experiment, pool, profile, used)
        try:
            parts = pool.is_partly_used or workload.pool.groups is not None
            found = _search(workload, time_all=time_all, parts=parts)
        except (InputError, NoPlanFitsError) as error:
            errors.append(error)
            continue
        if best is None or _is_better(found, best[2]):
            best = used, workload, found
    if best is None:
        raise next((error for error in errors if isinstance(error, NoPlanFitsError)), errors[0])
    return best


def _is_better(one: Search, other: Search) -> bool:
    """Whether its best plan is faster."""
    return one.ranked[0].time.samples_per_second > other.ranked[0].time.samples_per_second * (1 + ROUNDING)


def _search(workload: Workload, *, time_all: bool, parts: bool = False) -> Search:
    """Raises InputError for demands that contradict each other, NoPlanFitsError where nothing fits."""
    layouts = whole_pool_layouts(workload, parts=parts)
    found = search(workload, layouts, time_all=time_all)
    if not found.ranked:
        # Sums in bf16 are better than no plan; the reasons say that they are made.
        found = search(workload, layouts, exact_sums=False, time_all=time_all)
    if not found.ranked:
        raise no_fit_error(workload, found)
    return found


def _plan(
    workload: Workload,
    inputs: Inputs,
    given: Sequence[UsedNode],
    candidate: Candidate,
    why: tuple[str, ...],
    summary: SearchSummary,
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
        nodes=planned_nodes(inputs.pool, given, candidate.settings.world_size),
        **sections_of(candidate.settings, workload.experiment.training),
        stages=_stages(workload, candidate),
        predicted=predicted(workload, candidate),
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
