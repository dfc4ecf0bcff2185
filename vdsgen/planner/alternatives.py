"""Plans that could have been made beside the best one."""

from __future__ import annotations

from collections.abc import Callable

from vdsgen.cost.settings import Settings
from vdsgen.errors import InputError
from vdsgen.planner.demands import whole_pool_layouts
from vdsgen.planner.numerics import sets_aside
from vdsgen.planner.search import Candidate, search
from vdsgen.planner.space import layout_of
from vdsgen.planner.workload import Workload

Progress = Callable[[float], None]
"""Is told the share done."""


def alternatives(
    workload: Workload, winner: Candidate, progress: Progress | None = None, *, every: bool = False
) -> list[Candidate]:
    """Of the winner's number of GPUs, the fastest first, the winner's own settings left out.

    Of the winner's layout, and of the same without a pipeline: every settings variant that fits, at its
    fastest, and where it need not recompute also with everything recomputed. Of other layouts those that the
    search times, which are the fastest; `every`: as of the winner's, which takes long where pipelines are.
    """
    size, own = winner.settings.world_size, layout_of(winner.settings)
    try:
        layouts = [layout for layout in whole_pool_layouts(workload) if layout.world_size == size]
    except InputError:  # a directory whose inputs were edited since: what was planned may be forbidden now
        layouts = [own]
    exact = not sets_aside(workload.experiment, winner.settings)
    whole = own.data_parallel_size * own.pipeline_parallel_size
    plain = own._replace(pipeline_parallel_size=1, data_parallel_size=whole)
    wholly = layouts if every else [layout for layout in layouts if layout in (own, plain)]
    found: dict[Settings, Candidate] = {}
    if not every:
        for one in search(workload, layouts, exact_sums=exact).ranked:
            found[one.settings] = one
    for done, layout in enumerate(wholly):
        if progress is not None:
            progress((done + 0.5) / (len(wholly) + 0.5))
        for one in search(workload, [layout], exact_sums=exact, time_all=True).ranked:
            found.setdefault(one.settings, one)
    found.pop(winner.settings, None)
    return sorted(found.values(), key=lambda one: (one.time.step_seconds, one.simplicity))
