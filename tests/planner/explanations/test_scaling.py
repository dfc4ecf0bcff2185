"""Where more GPUs lose time: losses add up, and the question of many users has an answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings

from tests.planner.explanations.cases import KNOBS, case, case_or_none
from vdsgen.cost.step_time import StepSplit
from vdsgen.planner.again import changed
from vdsgen.planner.compare import PARTS
from vdsgen.planner.explanations.loss import NOT_LINKS
from vdsgen.planner.explanations.scaling import gpu_counts, scaling
from vdsgen.planner.explanations.tables import scaling_sentences, scaling_tables
from vdsgen.planner.explanations.traffic import TRAFFIC, link_loads, sent_bytes


@given(**KNOBS)
@settings(max_examples=5)
def test_losses_add_up_to_what_perfect_scaling_would_save(**knobs: Any) -> None:
    known = case_or_none(**knobs)
    assume(known is not None)
    assert known is not None
    workload, winner, named, _ = known
    found = scaling(workload, winner, named)
    base = found.points[0]
    assert base.gpus == found.base_gpus and base.efficiency_fraction == pytest.approx(1)
    (own,) = (one for one in found.points if one.gpus == winner.settings.world_size)
    assert own.samples_per_second == winner.time.samples_per_second
    for point in (*found.points, *found.layouts):
        ideal = base.step_seconds * base.gpus / point.gpus
        lost = sum(seconds for _, seconds in point.loss)
        assert lost == pytest.approx(point.step_seconds - ideal, abs=1e-9)
        assert point.efficiency_fraction == pytest.approx(ideal / point.step_seconds)
    assert len(scaling_tables(found)) == 1 + (len(found.layouts) > 1)


@pytest.mark.parametrize("objective", ["cost", "fewest_gpus", "memory_headroom"])
def test_speeds_are_those_of_all_gpus_whatever_is_asked_for(objective: str) -> None:
    fast, winner, named, _ = case(8, memory_gib=12.0)
    expected = {one.gpus: one.samples_per_second for one in scaling(fast, winner, named).points}
    other = fast.experiment.model_copy(update={"objective": objective})
    found = scaling(changed(fast, experiment=other), winner, named)
    assert {one.gpus: one.samples_per_second for one in found.points} == expected


def test_every_part_of_a_step_has_words_and_a_cause() -> None:
    assert set(PARTS) == set(StepSplit._fields)
    links = set(StepSplit._fields) - NOT_LINKS
    assert set(TRAFFIC) == links | {"offload_seconds"}


def test_numbers_of_gpus_fill_nodes() -> None:
    workload, *_ = case(8, gpus=6, nodes=3, memory_gib=8.0)
    assert gpu_counts(workload) == [1, 2, 4, 6, 12, 18]


def test_two_stages_on_four_gpus_about_as_fast_as_one_and_what_mends_it() -> None:
    """What users of pipelines ask: 4 GPUs in 2 stages, one micro-batch a step, gain next to nothing."""
    pins = {"pipeline_parallel_size": 2, "gradient_accumulation_steps": 1}
    workload, winner, named, _ = case(16, memory_gib=24.0, global_batch_size=4, constraints=pins)
    found = scaling(workload, winner, named)
    pinned = found.points[-1]
    # One micro-batch visits one stage after the other: half of the GPUs wait at any time.
    assert pinned.layout == "pipeline 2 x data 2"
    assert pinned.efficiency_fraction == pytest.approx(0.5, abs=0.06)
    assert pinned.loss.bubble_seconds / sum(value for _, value in pinned.loss) > 0.7
    mends = [one for one in found.mends if one.layout == pinned.layout]
    assert "micro-batch 1 x 2 steps" in mends[0].change
    assert pinned.efficiency_fraction + 0.1 < mends[0].efficiency_fraction < found.aim_fraction
    batch = next(one for one in mends if one.change.startswith("global batch"))
    assert batch.reaches_aim and batch.efficiency_fraction >= found.aim_fraction
    sentences = " ".join(scaling_sentences(found))
    assert "filling and draining the pipeline: too few micro-batches for its stages" in sentences
    assert batch.change in sentences


@pytest.mark.parametrize("nodes", [1, 2])
def test_links_carry_all_of_a_plans_traffic(nodes: int) -> None:
    workload, winner, _, _ = case(8, nodes=nodes, memory_gib=3.0)
    loads = link_loads(workload, winner)
    time = winner.time
    expected = time.transfer_seconds + time.reduction_seconds + time.gather_seconds + time.sequence_seconds
    assert sum(load.total_seconds for load in loads) == pytest.approx(expected, rel=1e-6)
    settings_ = winner.settings
    volumes = sent_bytes(workload, winner)
    if settings_.pipeline_parallel_size == 1 and settings_.zero_stage < 3:
        ring = 2 * (settings_.data_parallel_size - 1) / settings_.data_parallel_size
        reductions = settings_.gradient_accumulation_steps if settings_.zero_stage == 2 else 1
        gradients = workload.profile.trainable_parameters * settings_.element_bytes
        assert volumes["reduction_seconds"] == pytest.approx(ring * reductions * gradients)
