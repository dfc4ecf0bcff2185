"""What the best plan is best at (`objective` of an experiment), and the search that finds it.

throughput: the shortest step. cost: the fewest GPU-seconds a sample, which is also the least money where
every GPU of the pool costs the same. fewest_gpus: the smallest number of GPUs that anything fits, and the
shortest step on so many. memory_headroom: the GPU that is fullest as empty as can be, with all GPUs of
the pool; of plans whose headroom differs by less than 1 % of a GPU's memory the shortest step.
"""

from __future__ import annotations

from itertools import groupby

from vdsgen.planner.demands import whole_pool_layouts
from vdsgen.planner.headroom import emptiest
from vdsgen.planner.part_pools import part_pool_layouts
from vdsgen.planner.search import Progress, Search, search
from vdsgen.planner.workload import Workload
from vdsgen.spec.experiment import Objective
from vdsgen.spec.plan import Plan

SECONDS_PER_HOUR = 3600.0


def best_for_objective(workload: Workload, progress: Progress | None = None) -> Search:
    """The search whose first candidate is best at what the experiment asks for.

    Where nothing fits, candidates that add up gradients in bf16 are better than none; the reasons say so.
    Raises InputError where the demands contradict each other.
    """
    found = _searched(workload, exact_sums=True, progress=progress)
    return found if found.ranked else _searched(workload, exact_sums=False, progress=progress)


def _searched(workload: Workload, *, exact_sums: bool, progress: Progress | None) -> Search:
    objective = workload.experiment.objective
    whole = whole_pool_layouts(workload)
    known = set(whole)
    layouts = [*whole, *(one for one in part_pool_layouts(workload) if one not in known)]
    if objective == "fewest_gpus":
        found = Search(layouts=())
        layouts.sort(key=lambda layout: (layout.world_size, layout))
        for _, of_size in groupby(layouts, key=lambda layout: layout.world_size):
            smaller = found
            found = search(workload, list(of_size), exact_sums=exact_sums, progress=progress)
            found.smaller.count += smaller.candidates
            found.candidates += smaller.candidates
            if found.ranked:
                break
        return found
    if objective == "memory_headroom":
        found = search(workload, whole, exact_sums=exact_sums, progress=progress)
        return emptiest(workload, found, exact_sums=exact_sums) if found.ranked else found
    by_gpu_seconds = objective == "cost"
    return search(workload, layouts, exact_sums=exact_sums, by_gpu_seconds=by_gpu_seconds, progress=progress)


def preference(plan: Plan, objective: Objective) -> tuple[float, ...]:
    """Smaller is better: orders plans of several pools by what is asked for.

    Cost is in money where every pool's GPUs have a price; else in GPU-seconds a sample.
    """
    seconds = plan.predicted.step_seconds / plan.batch.global_batch_size
    gpus = plan.parallel.world_size
    if objective == "cost":
        price = plan.predicted.price_per_hour
        return (0.0 if price is not None else 1.0, seconds * (price or gpus), seconds)
    if objective == "fewest_gpus":
        return (gpus, seconds)
    if objective == "memory_headroom":
        return (max(stage.memory.peak_bytes / stage.capacity_bytes for stage in plan.stages), seconds)
    return (seconds,)


def cost_per_sample(plan: Plan) -> float | None:
    """Money for one sample, in the currency of the pool's price; None where a GPU in use has none."""
    price = plan.predicted.price_per_hour
    if price is None:
        return None
    return price * plan.predicted.step_seconds / SECONDS_PER_HOUR / plan.batch.global_batch_size
