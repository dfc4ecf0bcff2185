"""What binds a plan: twice as much of each, by timing and by planning again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings

from tests.planner.explanations.cases import KNOBS, case, case_or_none
from vdsgen.planner.explanations.bindings import bindings, quick_bindings
from vdsgen.planner.explanations.tables import binding_sentences


@given(**KNOBS)
@settings(max_examples=8)
def test_planning_again_never_wins_less_than_timing_says(**knobs: Any) -> None:
    known = case_or_none(**knobs)
    assume(known is not None)
    assert known is not None
    workload, winner, named, plan = known
    quick = {one.resource: one for one in quick_bindings(workload, winner, named)}
    again = {one.resource: one for one in bindings(workload, winner, named)}
    # What nothing is kept in now may still be worth more of.
    assert again.keys() - quick.keys() <= {"host_memory"}
    for resource, one in again.items():
        if resource not in quick:
            continue
        assert one.gain_fraction >= quick[resource].gain_fraction >= -1e-9
        now = plan.predicted.samples_per_second
        assert one.samples_per_second == pytest.approx(now * (1 + one.gain_fraction))
        assert one.planned_again == (resource != "blocks") and not quick[resource].planned_again
    gains = [one.gain_fraction for one in bindings(workload, winner, named)]
    assert gains == sorted(gains, reverse=True)
    assert plan.explanations is not None
    assert plan.explanations.bindings == quick_bindings(workload, winner, named)


def test_memory_binds_where_it_forces_recomputation() -> None:
    workload, winner, named, _ = case(8, memory_gib=3.0, constraints={"pipeline_parallel_size": 1})
    assert winner.settings.activation_checkpoint_interval > 0
    memory = next(one for one in bindings(workload, winner, named) if one.resource == "gpu_memory")
    assert memory.gain_fraction > 0.1
    # With room to spare it does not.
    workload, winner, named, _ = case(8, memory_gib=40.0, constraints={"pipeline_parallel_size": 1})
    memory = next(one for one in bindings(workload, winner, named) if one.resource == "gpu_memory")
    assert memory.gain_fraction < 0.01


def test_a_batch_binds_a_pipeline_with_few_micro_batches() -> None:
    pins = {"pipeline_parallel_size": 4, "micro_batch_size": 1}
    workload, winner, named, _ = case(8, memory_gib=24.0, global_batch_size=4, constraints=pins)
    first, second, *_ = bindings(workload, winner, named)
    assert {first.resource, second.resource} == {"gpu_speed", "global_batch"}
    sentence = next(one for one in binding_sentences([first, second]) if one.startswith("global batch"))
    assert "4 micro-batches of 1 for 4 stages: filling and draining take" in sentence


def test_the_link_that_binds_is_named_with_seconds_and_bytes() -> None:
    pins = {"pipeline_parallel_size": 1, "data_parallel_size": 2}
    workload, winner, named, _ = case(
        8, gpus=1, nodes=2, memory_gib=24.0, global_batch_size=2, constraints=pins
    )
    outer = next(one for one in bindings(workload, winner, named) if one.resource == "inter_node")
    assert outer.gain_fraction > 0
    assert "gradient reduction" in outer.detail and "GB a GPU" in outer.detail
