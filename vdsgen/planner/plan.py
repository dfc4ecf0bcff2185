"""From an experiment, a pool and a layer profile to a Plan: the planner's front door."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from vdsgen import __version__
from vdsgen.errors import InputError, NoPlanFitsError
from vdsgen.planner.arrange import arrangements
from vdsgen.planner.compare import compared
from vdsgen.planner.explain import reasons
from vdsgen.planner.explanations.explained import in_short
from vdsgen.planner.no_fit import no_fit_error
from vdsgen.planner.numerics import sets_aside
from vdsgen.planner.objective import best_for_objective, preference
from vdsgen.planner.pareto import front_first
from vdsgen.planner.plan_settings import sections_of
from vdsgen.planner.rejected import rejected
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.saving import planned_saving, saving_reason, with_interval
from vdsgen.planner.search import Candidate, Progress, Search, search, settled
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


def make_plan(experiment: Experiment, pool: Pool, profile: ModelProfile) -> Plan:
    """The best plan.

    `experiment` is resolved (its model is no name); `pool` is as the lab file gives it, and recorded so.
    Raises InputError where the demands contradict each other, NoPlanFitsError where nothing fits.
    """
    return best_plans(experiment, pool, profile, top=1)[0]


def best_plans(
    experiment: Experiment,
    pool: Pool,
    profile: ModelProfile,
    top: int,
    *,
    pareto_first: bool = False,
    progress: Progress | None = None,
) -> list[Plan]:
    """The best plan first, then the next fastest of other settings, or of the same that recompute more or
    less; at most `top`. `pareto_first`: before those, the plans that none beats in both memory and speed.
    Raises as `make_plan`."""
    inputs = Inputs(
        experiment_sha256=sha256_of(experiment),
        lab_sha256=sha256_of(pool),
        profile_sha256=sha256_of(profile),
        pool=pool,
    )
    given, workload, found, winner = _searched(experiment, inputs, profile, progress)
    summary = SearchSummary(
        candidates=found.candidates,
        feasible=found.feasible,
        timed=found.timed,
        rejected=rejected(found, winner),
    )
    best = _plan(workload, inputs, given, winner, reasons(workload, found, winner), summary)
    plans = [best.model_copy(update={"explanations": in_short(workload, winner, pool)})]
    if top == 1:
        return plans
    for runner_up in _runners_up(workload, found, winner, pareto_first=pareto_first)[: top - 1]:
        sentence = f"Beside the best plan it {compared(runner_up, winner)}."
        plans.append(_plan(workload, inputs, given, runner_up, (sentence,), summary))
    return plans


def _searched(
    experiment: Experiment, inputs: Inputs, profile: ModelProfile, progress: Progress | None
) -> tuple[Sequence[UsedNode], Workload, Search, Candidate]:
    """The GPUs in the order that the best plan has them; the workload on them, what its search found, and the
    winner.

    Raises InputError where no order of the pool's GPUs meets the demands, NoPlanFitsError where nothing fits.
    """
    pool = inputs.pool
    if pool.is_plain:
        workload = workload_of(experiment, pool, profile)
        return ((), workload, *_best_on(workload, progress))
    best: tuple[Sequence[UsedNode], Workload, Search, Candidate] | None = None
    least: tuple[float, ...] = ()
    errors: list[InputError | NoPlanFitsError] = []
    for used in arrangements(pool):
        workload = unequal_workload(experiment, pool, profile, used)
        try:
            found, winner = _best_on(workload, progress)
        except (InputError, NoPlanFitsError) as error:
            errors.append(error)
            continue
        plan = _plan(workload, inputs, used, winner, (), SearchSummary(candidates=0, feasible=0, rejected=()))
        # Sums in another order are the same figure: of equals the first is taken.
        preferred = tuple(float(f"{value:.9e}") for value in preference(plan, experiment.objective))
        preferred = (float(sets_aside(experiment, winner.settings)), *preferred)
        if best is None or preferred < least:
            best, least = (used, workload, found, winner), preferred
    if best is None:
        raise next((error for error in errors if isinstance(error, NoPlanFitsError)), errors[0])
    return best


def _best_on(workload: Workload, progress: Progress | None) -> tuple[Search, Candidate]:
    """Raises InputError for demands that contradict each other, NoPlanFitsError where nothing fits."""
    found = best_for_objective(workload, progress)
    if not found.ranked:
        raise no_fit_error(workload, found)
    return found, settled(workload, found.ranked[0])


def _runners_up(
    workload: Workload, found: Search, winner: Candidate, *, pareto_first: bool
) -> list[Candidate]:
    """Of the winner's number of GPUs, the fastest first, stages as even as they can be."""
    layouts = [layout for layout in found.layouts if layout.world_size == winner.settings.world_size]
    exact = not sets_aside(workload.experiment, winner.settings)
    every = search(workload, layouts or found.layouts, exact_sums=exact, time_all=True).ranked
    others = [settled(workload, one) for one in every if one.settings != winner.settings]
    others.sort(key=lambda one: (one.time.step_seconds, one.simplicity))
    return front_first(winner, [winner, *others])[1:] if pareto_first else others


def _plan(
    workload: Workload,
    inputs: Inputs,
    given: Sequence[UsedNode],
    candidate: Candidate,
    why: tuple[str, ...],
    summary: SearchSummary,
) -> Plan:
    profile = workload.profile
    saving = planned_saving(workload, candidate)
    if workload.experiment.training.saving.every_steps == "auto":
        settled = sha256_of(with_interval(workload.experiment, saving))
        inputs = inputs.model_copy(update={"experiment_sha256": settled})
    reason = saving_reason(saving)
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
        stages=stages_of(workload, candidate),
        predicted=predicted(workload, candidate),
        saving=saving,
        reasons=why if reason is None else (*why, reason),
        search=summary,
    )


def stages_of(workload: Workload, candidate: Candidate) -> tuple[Stage, ...]:
    """Memory and time of each pipeline stage."""
    outside = [
        workload.outside(candidate.settings, index, start, stop)
        for index, (start, stop) in enumerate(pairwise(candidate.placed.partition))
    ]
    return tuple(
        Stage(
            index=index,
            layers=(start, stop),
            host_bytes=outside[index].host_bytes,
            nvme_bytes=outside[index].nvme_bytes,
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
