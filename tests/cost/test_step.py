"""Step times: the parts add up, and bounds hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.cost.test_communication import settings
from tests.planner.examples import pool, workload
from vdsgen.cost.step import StepTimeModel

MODEL = workload(8, 512, on=pool(8, nodes=2)).times
PARTITIONS = {1: (0, 10), 2: (0, 5, 10), 4: (0, 3, 5, 7, 10)}


@given(
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 4]),
    st.integers(0, 3),
    st.integers(1, 12),
    st.integers(1, 4),
    st.sampled_from([0, 2]),
)
@hypothesis_settings(deadline=None)
def test_parts_make_the_step_and_the_bound_is_below_it(
    pipeline: int, data: int, zero: int, steps: int, micro: int, interval: int
) -> None:
    layout = settings(
        pipeline,
        data,
        zero if pipeline == 1 else min(zero, 1),
        gradient_accumulation_steps=steps,
        micro_batch_size=micro,
        activation_checkpoint_interval=interval,
    )
    time = MODEL.step(layout, PARTITIONS[pipeline])
    parts = [
        time.compute_seconds, time.recompute_seconds, time.bubble_seconds, time.transfer_seconds,
        time.reduction_seconds, time.gather_seconds, time.optimizer_seconds,
    ]  # fmt: skip
    assert min(parts) >= -1e-12
    assert sum(parts) == pytest.approx(time.step_seconds)
    assert time.samples == micro * steps * data
    bound = MODEL.lower_bound_seconds(layout, PARTITIONS[pipeline])
    assert bound <= time.step_seconds * (1 + 1e-9)
    if pipeline == 1:
        assert bound == pytest.approx(time.step_seconds)
        assert time.predicted().bubble_fraction == pytest.approx(0.0, abs=1e-9)
    assert 0 < time.predicted().model_flops_utilization < 1


def test_checkpointing_runs_every_forward_once_more() -> None:
    plain = MODEL.step(settings(1, 4), PARTITIONS[1])
    checkpointed = MODEL.step(settings(1, 4, activation_checkpoint_interval=3), PARTITIONS[1])
    forward = 4 * plain.stages[0].forward_seconds
    assert checkpointed.recompute_seconds == pytest.approx(forward)
    assert checkpointed.step_seconds - plain.step_seconds == pytest.approx(forward)
    assert checkpointed.model_flops == plain.model_flops


def test_zero_2_reduces_after_every_micro_batch() -> None:
    once = MODEL.step(settings(1, 4, 1), PARTITIONS[1])
    often = MODEL.step(settings(1, 4, 2), PARTITIONS[1])
    assert often.reduction_seconds == pytest.approx(4 * once.reduction_seconds)


def test_more_micro_batches_shrink_the_bubble() -> None:
    fractions = [
        MODEL.step(settings(4, 2, gradient_accumulation_steps=steps), PARTITIONS[4])
        .predicted()
        .bubble_fraction
        for steps in (2, 4, 8, 16)
    ]
    assert fractions == sorted(fractions, reverse=True)


def test_slower_links_cost_time() -> None:
    small = workload(8, 512, on=pool(8))
    slow = pool(8, calibration=None)
    link = slow.intra_node
    assert not isinstance(link, str)
    slow = slow.model_copy(update={"intra_node": link.model_copy(update={"bandwidth_gb_per_second": 1.0})})
    slower = StepTimeModel(small.profile, small.geometry, slow)
    for layout, partition in ((settings(1, 8), PARTITIONS[1]), (settings(2, 4), PARTITIONS[2])):
        assert slower.step(layout, partition).step_seconds > small.times.step(layout, partition).step_seconds


def test_a_text_condition_is_one_more_tensor_between_stages() -> None:
    plain = workload(8, 512)
    geometry = plain.geometry._replace(text_tokens=16)
    with_text = StepTimeModel(plain.profile, geometry, plain.pool)
    assert (
        with_text.step(settings(2, 2), PARTITIONS[2]).transfer_seconds
        > plain.times.step(settings(2, 2), PARTITIONS[2]).transfer_seconds
    )
