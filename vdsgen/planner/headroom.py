"""The plan that leaves most memory free."""

from __future__ import annotations

from vdsgen.planner.legality import Legality
from vdsgen.planner.numerics import sets_aside
from vdsgen.planner.place import MEMORY_STEP_BYTES, Placed, fastest
from vdsgen.planner.search import Candidate, Search
from vdsgen.planner.space import families
from vdsgen.planner.stages import Stages
from vdsgen.planner.workload import Workload

WITHIN = 0.01
"""Of a GPU's memory: less headroom is no reason for a slower step."""


def emptiest(workload: Workload, found: Search, *, exact_sums: bool) -> Search:
    """`found`, with the plan first whose fullest GPU is emptiest.

    Each settings variant is asked whether it needs less than the best so far; only those that do are looked
    at more closely, by bisection over what stages may hold.
    """
    legality = Legality(workload)
    pinned = workload.experiment.constraints.activation_checkpoint_interval
    best = min((one.placed for one in found.ranked), key=lambda placed: placed.peak_bytes)
    for family in families(workload, list(found.layouts)):
        settings = family.settings
        aside = exact_sums and sets_aside(workload.experiment, settings)
        if aside or legality.broken(family.at(family.intervals[-1])) is not None:
            continue
        low, high = 0, best.peak_bytes - MEMORY_STEP_BYTES
        limit = high
        while high > 0 and (limit == high or high - low > MEMORY_STEP_BYTES):
            stages = Stages(
                workload,
                settings,
                plain=0 in family.intervals,
                recomputed=any(family.intervals),
                interval=pinned,
                limit_bytes=limit,
            )
            smaller = fastest(stages)
            if isinstance(smaller, Placed):
                best, high = smaller, smaller.peak_bytes
            elif limit == high:
                break
            else:
                low = limit
            limit = (low + high) // 2
    least = Candidate(best, workload.times.step(best.settings, best.partition))
    free = WITHIN * min(workload.capacity_of(best.settings, 0), workload.capacity_bytes)
    near = [one for one in found.ranked if one.placed.peak_bytes <= best.peak_bytes + free]
    winner = min([*near, least], key=lambda one: one.time.step_seconds)
    found.ranked = [winner, *(one for one in found.ranked if one is not winner)]
    return found
