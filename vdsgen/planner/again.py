"""Planning again: the best plan of a workload, and of one that differs in something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from vdsgen.errors import InputError
from vdsgen.planner.objective import best_for_objective
from vdsgen.planner.place import Placed
from vdsgen.planner.plan_settings import settings_of
from vdsgen.planner.search import Candidate, Search, search
from vdsgen.planner.space import Layout
from vdsgen.planner.workload import Workload
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Pool
from vdsgen.spec.plan import Plan


def best_found(workload: Workload, layouts: Sequence[Layout] | None = None) -> Search:
    """What the experiment's objective finds best, or the fastest of these layouts. Raises InputError for
    demands that no plan can meet."""
    if layouts is None:
        return best_for_objective(workload)
    found = search(workload, list(layouts))
    return found if found.ranked else search(workload, list(layouts), exact_sums=False)


def best_candidate(workload: Workload, layouts: Sequence[Layout] | None = None) -> Candidate | None:
    """The plan that would be made; None where nothing fits or demands contradict each other."""
    try:
        found = best_found(workload, layouts)
    except InputError:
        return None
    return found.ranked[0] if found.ranked else None


def fastest_seconds(workload: Workload) -> float:
    """Of all candidates, whether or not a simpler plan is taken; infinite where nothing fits."""
    try:
        found = best_found(workload)
    except InputError:
        return float("inf")
    return min((one.time.step_seconds for one in found.ranked), default=float("inf"))


def changed(
    workload: Workload, *, pool: Pool | None = None, experiment: Experiment | None = None
) -> Workload:
    """The workload with another pool (its names resolved) or experiment."""
    return replace(workload, pool=pool or workload.pool, experiment=experiment or workload.experiment)


def candidate_of(plan: Plan, workload: Workload) -> Candidate:
    """What was planned, placed and timed as the search does it."""
    settings = settings_of(plan)
    boundaries = (plan.stages[0].layers[0], *(stage.layers[1] for stage in plan.stages))
    peak = max(
        workload.memory(settings, stage, start, stop).peak_bytes
        for stage, (start, stop) in enumerate(pairwise(boundaries))
    )
    time = workload.times.step(settings, boundaries)
    return Candidate(Placed(settings, boundaries, peak, time.step_seconds), time)
