"""Plans of small models to explain."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.planner.examples import experiment, pool, profile
from vdsgen.errors import VdsgenError
from vdsgen.planner.again import candidate_of
from vdsgen.planner.plan import make_plan
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.search import Candidate
from vdsgen.planner.workload import Workload
from vdsgen.spec.lab import Pool
from vdsgen.spec.plan import Plan

Case = tuple[Workload, Candidate, Pool, Plan]


def case(
    blocks: int = 8,
    hidden: int = 1024,
    *,
    gpus: int = 4,
    memory_gib: float = 6.0,
    nodes: int = 1,
    **changes: Any,
) -> Case:
    """Raises VdsgenError where nothing fits."""
    given = experiment(blocks, hidden, **changes)
    on = pool(gpus, memory_gib, nodes=nodes)
    known = profile(blocks, hidden)
    plan = make_plan(given, on, known)
    workload = workload_of(given, on, known)
    return workload, candidate_of(plan, workload), on, plan


def case_or_none(**changes: Any) -> Case | None:
    """None where nothing fits, or demands contradict each other."""
    try:
        return case(**changes)
    except VdsgenError:
        return None


KNOBS: dict[str, st.SearchStrategy[Any]] = {
    "blocks": st.integers(2, 9),
    "hidden": st.sampled_from([256, 1024]),
    "gpus": st.sampled_from([1, 2, 3, 4]),
    "nodes": st.sampled_from([1, 2]),
    "memory_gib": st.floats(1.2, 12.0),
    "global_batch_size": st.sampled_from([4, 6, 8, 16]),
}
"""What cases vary in."""
