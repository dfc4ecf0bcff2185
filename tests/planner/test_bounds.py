"""Bounds: never above what the best partition takes, and close to it."""

from __future__ import annotations

from math import gcd, inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planner.examples import pool, workload
from tests.planner.reference import every_settings, reference
from vdsgen.cost.schedule import StageTimes, simulate
from vdsgen.planner.bounds import LayoutBounds, settings_bound, shares_of_a_pipeline
from vdsgen.planner.earliest import Earliest, common_lower_bound, step_lower_bound
from vdsgen.planner.place import Placed, fastest
from vdsgen.planner.space import layout_of
from vdsgen.planner.stages import Stages


@given(
    blocks=st.integers(2, 5),
    gpus=st.sampled_from([2, 3, 4]),
    global_batch_size=st.sampled_from([4, 6, 12]),
    memory_gib=st.floats(1.5, 4.0),
    hidden=st.sampled_from([256, 1024]),
    gb_per_second=st.sampled_from([0.2, 2.0, 20.0]),
)
@settings(max_examples=10, deadline=None)
def test_no_plan_is_faster_than_its_bounds_and_the_best_boundaries_are_found(
    blocks: int, gpus: int, global_batch_size: int, memory_gib: float, hidden: int, gb_per_second: float
) -> None:
    """Also over slow links, where transfers are as long as stages."""
    of = pool(gpus, memory_gib)
    link = of.intra_node.model_copy(update={"bandwidth_gb_per_second": gb_per_second})  # type: ignore[union-attr]
    on = workload(
        blocks, hidden, on=of.model_copy(update={"intra_node": link}), global_batch_size=global_batch_size
    )
    for one in every_settings(on):
        if gcd(one.sequence_parallel_size, one.micro_batch_size) > 1:
            continue  # not searched
        best = reference(on, one)
        if best.seconds == inf:
            continue
        assert LayoutBounds(on).of(layout_of(one)) <= settings_bound(on, one) * (1 + 1e-9)
        assert settings_bound(on, one) <= best.seconds * (1 + 1e-9)
        plain = not best.settings.offload_activations  # which is not asked for where nothing is kept
        stages = Stages(on, best.settings, plain=plain, recomputed=True)
        bound = step_lower_bound(Earliest(stages), common_lower_bound(stages))
        assert bound <= best.seconds * (1 + 1e-9)
        placed = fastest(stages)
        assert isinstance(placed, Placed)
        assert placed.step_seconds == pytest.approx(best.seconds, rel=1e-9)
        assert placed.gap <= 1e-9


@given(
    shares=st.lists(st.floats(0.05, 1.0), min_size=1, max_size=8),
    micro_batches=st.integers(1, 40),
    split=st.floats(0.1, 0.9),
)
@settings(max_examples=300)
def test_shares_bound_any_pipeline(shares: list[float], micro_batches: int, split: float) -> None:
    stages = [StageTimes(split * share, (1 - split) * share) for share in shares]
    unit = sum(shares) / len(shares)
    longest = max(shares) / unit
    makespan = simulate(stages, [0.0] * (len(stages) - 1), micro_batches).makespan_seconds / unit
    for known in (1.0, longest):
        assert shares_of_a_pipeline(len(stages), micro_batches, known) <= makespan * (1 + 1e-9)
    even = [StageTimes(split * unit, (1 - split) * unit)] * len(stages)
    textbook = simulate(even, [0.0] * (len(stages) - 1), micro_batches).makespan_seconds / unit
    if micro_batches > len(stages):
        assert shares_of_a_pipeline(len(stages), micro_batches) == pytest.approx(textbook)
