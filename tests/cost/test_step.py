"""Step times: the parts add up, and bounds hold; links, cores and clips are waited for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.cost.test_communication import settings
from tests.planner.examples import pool, workload
from vdsgen.cost.step import StepTimeModel
from vdsgen.spec.calibration import Calibration
from vdsgen.spec.lab import Gpu

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
    parts = time.split()
    assert min(parts) >= -1e-12
    assert sum(parts) == pytest.approx(time.step_seconds)
    written = time.predicted().split
    assert written is not None
    assert sum(written.model_dump().values()) == pytest.approx(time.step_seconds)
    assert time.samples == micro * steps * data
    bound = MODEL.lower_bound_seconds(layout, PARTITIONS[pipeline])
    assert bound <= time.step_seconds * (1 + 1e-9)
    if pipeline == 1:
        assert bound == pytest.approx(time.step_seconds)
        assert time.predicted().bubble_fraction == pytest.approx(0.0, abs=1e-9)
    assert 0 < time.predicted().model_flops_utilization < 1


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


ON_CORES = workload(8, 512).profile


def on_a_processor(cores: int, calibration: Calibration | None = None) -> StepTimeModel:
    gpu = Gpu(fp32_tflops=0.1, memory_bandwidth_gb_per_second=20.0)
    shared = pool(8).model_copy(update={"gpu": gpu, "cpu_cores": cores, "calibration": calibration})
    return StepTimeModel(ON_CORES, workload(8, 512).geometry, shared, loader_workers=1)


@given(
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2]),
    st.integers(1, 8),
    st.sampled_from([0, 2]),
    st.integers(1, 9),
    st.floats(1.0, 2.0),
)
@hypothesis_settings(deadline=None, max_examples=50)
def test_parts_make_the_step_on_shared_cores_too(
    pipeline: int, data: int, steps: int, interval: int, cores: int, alone: float
) -> None:
    model = on_a_processor(cores, Calibration(busy_ranks=min(cores, 8), alone_speedup=alone))
    layout = settings(
        pipeline, data, 1 if pipeline == 1 else 0, dtype="fp32", gradient_accumulation_dtype="fp32",
        gradient_accumulation_steps=steps, activation_checkpoint_interval=interval,
    )  # fmt: skip
    time = model.step(layout, PARTITIONS[pipeline])
    assert min(time.split()) >= -1e-9 * time.step_seconds
    assert sum(time.split()) == pytest.approx(time.step_seconds)
    bound = model.lower_bound_seconds(layout, PARTITIONS[pipeline])
    assert bound <= time.step_seconds * (1 + 1e-9)
    if pipeline == 1:
        assert bound == pytest.approx(time.step_seconds)


def test_four_ranks_on_two_cores_take_twice_as_long_as_on_four() -> None:
    layout = settings(1, 4, 1, dtype="fp32", gradient_accumulation_dtype="fp32")
    two = on_a_processor(2).step(layout, PARTITIONS[1])
    four = on_a_processor(4).step(layout, PARTITIONS[1])
    assert two.compute_seconds == pytest.approx(2 * four.compute_seconds)
    assert two.optimizer_seconds == pytest.approx(2 * four.optimizer_seconds)


def test_data_is_waited_for_only_where_a_clips_time_is_known() -> None:
    layout = settings(1, 4, dtype="fp32", gradient_accumulation_dtype="fp32")
    assert on_a_processor(8, Calibration()).step(layout, PARTITIONS[1]).data_seconds == 0.0
    quick = on_a_processor(8, Calibration(clip_seconds=1e-6)).step(layout, PARTITIONS[1])
    slow = on_a_processor(8, Calibration(clip_seconds=1e3)).step(layout, PARTITIONS[1])
    assert quick.data_seconds == 0.0
    assert slow.step_seconds == pytest.approx(4 * 1e3)
