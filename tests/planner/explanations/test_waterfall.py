"""From naive to planned: the parts add up exactly."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, given, settings

from tests.planner.explanations.cases import KNOBS, case, case_or_none
from vdsgen.planner.baseline import naive_baseline
from vdsgen.planner.explanations.tables import component_table, waterfall_table
from vdsgen.planner.explanations.waterfall import waterfall
from vdsgen.spec.explanations import Waterfall


def check(fall: Waterfall) -> None:
    peak, parts = fall.naive_bytes, dict(fall.naive_by_component)
    assert peak == sum(parts.values())
    for step in fall.steps:
        assert step.saved_bytes == sum(step.saved_by_component.values())
        peak -= step.saved_bytes
        assert step.peak_bytes == peak
        for name, saved in step.saved_by_component.items():
            parts[name] = parts.get(name, 0) - saved
    assert peak == fall.plan_bytes
    assert {name: size for name, size in parts.items() if size} == fall.plan_by_component
    assert fall.saved_fraction == 1 - fall.plan_bytes / fall.naive_bytes


@given(**KNOBS)
@settings(max_examples=15)
def test_the_parts_add_up(**knobs: Any) -> None:
    known = case_or_none(**knobs)
    assume(known is not None)
    assert known is not None
    workload, winner, _, plan = known
    fall = waterfall(workload, winner)
    check(fall)
    assert fall.naive_bytes == naive_baseline(workload).memory.peak_bytes
    assert fall.plan_bytes == max(stage.memory.peak_bytes for stage in plan.stages)
    assert plan.explanations is not None and plan.explanations.waterfall == fall
    if fall.steps:
        assert abs(fall.steps[-1].step_seconds - plan.predicted.step_seconds) < 1e-12


def test_each_measure_of_a_pinned_plan_is_told() -> None:
    pins = {"pipeline_parallel_size": 2, "data_parallel_size": 2, "activation_checkpoint_interval": 3}
    workload, winner, _, _ = case(12, memory_gib=12.0, constraints=pins, precision="fp16")
    fall = waterfall(workload, winner)
    check(fall)
    assert [step.measure for step in fall.steps][:1] == ["pipeline"]
    assert "checkpointing" in [step.measure for step in fall.steps]
    rows = waterfall_table(fall).rows
    assert rows[1][0] == "naive" and rows[-1][0] == "plan"
    columns = component_table(fall).rows
    assert len({len(row) for row in columns}) == 1


def test_offload_is_a_measure_of_its_own() -> None:
    workload, winner, _, _ = case(12, memory_gib=12.0)
    settings_ = winner.settings._replace(
        pipeline_parallel_size=1,
        data_parallel_size=4,
        zero_stage=2,
        micro_batch_size=1,
        gradient_accumulation_steps=4,
        gradient_accumulation_dtype="fp32",
        offload_optimizer="cpu",
    )
    partition = (0, workload.layers)
    placed = winner.placed._replace(settings=settings_, partition=partition)
    fall = waterfall(workload, winner._replace(placed=placed))
    check(fall)
    (offload,) = (step for step in fall.steps if step.measure == "offload (ZeRO)")
    assert offload.saved_by_component["optimizer"] > 0
