"""Objectives, the front of memory against speed, and bucket sizes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planner.examples import experiment, pool, profile, workload
from vdsgen.cost.settings import Settings
from vdsgen.planner.buckets import LARGEST_BUCKET_ELEMENTS, fitted_buckets, read_sizes
from vdsgen.planner.objective import cost_per_sample, preference
from vdsgen.planner.pareto import pareto_front
from vdsgen.planner.part_pools import part_pool_layouts
from vdsgen.planner.place import Placed, fastest
from vdsgen.planner.plan import best_plans, make_plan
from vdsgen.planner.search import SIMPLER_WITHIN, search
from vdsgen.planner.space import layouts
from vdsgen.planner.stages import Stages
from vdsgen.spec.lab import Pool
from vdsgen.spec.plan import Plan

OBJECTIVES = ("throughput", "cost", "fewest_gpus", "memory_headroom")


def planned(objective: str, on: Pool, blocks: int = 12) -> Plan:
    of = experiment(blocks, 1024).model_copy(update={"objective": objective})
    return make_plan(of, on, profile(blocks, 1024))


def fullest(plan: Plan) -> float:
    return max(stage.memory.peak_bytes / stage.capacity_bytes for stage in plan.stages)


@pytest.mark.parametrize("memory_gib", [5.0, 7.0, 24.0])
def test_each_objective_is_best_at_what_it_names(memory_gib: float) -> None:
    plans = {objective: planned(objective, pool(4, memory_gib)) for objective in OBJECTIVES}
    seconds = {name: plan.predicted.step_seconds for name, plan in plans.items()}
    gpus = {name: plan.parallel.world_size for name, plan in plans.items()}
    near = 1 + SIMPLER_WITHIN
    assert seconds["throughput"] <= min(seconds.values()) * near
    paid = {name: seconds[name] * gpus[name] for name in plans}
    assert paid["cost"] <= min(paid.values()) * near
    assert gpus["fewest_gpus"] == min(gpus.values())
    whole = [plan for plan in plans.values() if plan.parallel.world_size == 4]
    assert fullest(plans["memory_headroom"]) <= min(fullest(plan) for plan in whole) + 0.01
    for plan in plans.values():
        assert fullest(plan) <= 1


def test_fewest_gpus_are_the_fewest_that_fit() -> None:
    small_host = pool(8, 4.0).model_copy(update={"host_memory_gib": 1.0})  # nothing can be offloaded
    plan = planned("fewest_gpus", small_host)
    used = plan.parallel.world_size
    assert 1 < used < 8
    on = workload(12, 1024, on=small_host)
    smaller = [one for one in part_pool_layouts(on) if one.world_size < used]
    assert smaller and all(not search(on, [one]).ranked for one in smaller)


def test_pools_are_compared_by_price_where_it_is_known() -> None:
    cheap, dear = (
        planned("cost", pool(4).model_copy(update={"price_per_gpu_hour": price})) for price in (1.0, 2.0)
    )
    unknown = planned("cost", pool(4))
    assert preference(cheap, "cost") < preference(dear, "cost") < preference(unknown, "cost")
    assert cost_per_sample(unknown) is None
    cost = cost_per_sample(dear)
    assert cost is not None
    hours = dear.predicted.step_seconds / 3600 / dear.batch.global_batch_size
    assert cost == pytest.approx(2.0 * dear.parallel.world_size * hours)


def test_top_shows_what_none_beats_in_memory_and_speed_first() -> None:
    given_ = experiment(12, 1024), pool(4, 12.0), profile(12, 1024)
    plans = best_plans(*given_, top=30, pareto_first=True)
    points = [
        (plan.predicted.step_seconds, max(stage.memory.peak_bytes for stage in plan.stages)) for plan in plans
    ]
    front = 1
    while front < len(points) and (front == 1 or points[front][1] < points[front - 1][1]):
        front += 1
    assert front > 2
    for point in points[1:front]:
        assert not any(other[0] <= point[0] and other[1] < point[1] for other in points[1:])
    assert plans == best_plans(*given_, top=30, pareto_first=True)
    assert {plan.predicted.step_seconds for plan in plans} >= {
        plan.predicted.step_seconds for plan in best_plans(*given_, top=5)
    }


def test_the_front_is_all_that_none_beats() -> None:
    on = workload(12, 1024, on=pool(4, 12.0))
    every = search(on, layouts(on, 4, on.experiment.constraints), time_all=True).ranked
    front = pareto_front(every)
    for one in every:
        beaten = any(
            other.time.step_seconds <= one.time.step_seconds
            and other.placed.peak_bytes <= one.placed.peak_bytes
            and (other.time.step_seconds, other.placed.peak_bytes)
            != (one.time.step_seconds, one.placed.peak_bytes)
            for other in every
        )
        assert beaten or any(
            (one.time.step_seconds, one.placed.peak_bytes)
            == (other.time.step_seconds, other.placed.peak_bytes)
            for other in front
        )


@given(
    zero_stage=st.integers(0, 3),
    memory=st.tuples(st.floats(6.0, 40.0), st.floats(0.0, 20.0)),
    precision=st.sampled_from(["bf16", "fp16"]),
)
@settings(max_examples=25, deadline=None)
def test_buckets_grow_with_the_memory_that_is_left(
    zero_stage: int, memory: tuple[float, float], precision: str
) -> None:
    sizes: list[tuple[tuple[tuple[int, ...], Settings], Settings]] = []
    for memory_gib in (memory[0], memory[0] + memory[1]):
        on = workload(
            24, 2048, on=pool(4, memory_gib), precision=precision, constraints={"zero_stage": zero_stage}
        )
        ranked = search(on, layouts(on, 4, on.experiment.constraints)).ranked
        if not ranked:
            return
        if not sizes:
            first = ranked[0].settings.with_intervals((0,) * ranked[0].settings.pipeline_parallel_size)
        placed = fastest(Stages(on, first, plain=True, recomputed=True))
        assert isinstance(placed, Placed)
        fitted = fitted_buckets(on, placed)
        trainable = on.profile.trainable_parameters
        assert fitted.step_seconds <= placed.step_seconds
        assert fitted.peak_bytes <= on.capacity_bytes
        for name in ("reduce_bucket_elements", "allgather_bucket_elements"):
            elements = getattr(fitted.settings, name)
            if name not in read_sizes(fitted.settings):
                assert elements == getattr(placed.settings, name)
            assert elements % 2 == 0
            assert elements <= min(LARGEST_BUCKET_ELEMENTS, trainable + trainable % 2)
        if placed.partition and sizes and sizes[0][0] == (placed.partition, placed.settings):
            assert fitted.settings.reduce_bucket_elements >= sizes[0][1].reduce_bucket_elements
            assert fitted.settings.allgather_bucket_elements >= sizes[0][1].allgather_bucket_elements
        sizes.append(((placed.partition, placed.settings), fitted.settings))
