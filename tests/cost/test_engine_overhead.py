"""The engine's own Python: only where it was measured, by parameter tensor, micro-batch and step; on a GPU
while that computes."""

from __future__ import annotations

import pytest

from tests.cost.test_communication import settings
from tests.planner.examples import pool, workload
from vdsgen.cost.engine_overhead import EngineOverhead, gathered_sizes
from vdsgen.cost.settings import Settings
from vdsgen.cost.step import StepTimeModel
from vdsgen.spec.calibration import Calibration, EngineRate
from vdsgen.spec.lab import Gpu

EXAMPLE = workload(8, 512)
CALIBRATION = Calibration(
    engine_rates=(
        EngineRate(zero_stage=1, micro_batch_microseconds=1e6, step_microseconds=1e7),
        EngineRate(zero_stage=3, micro_batch_microseconds=2e6, step_microseconds=0.0),
    ),
    gather_microseconds=3e6,
    pipeline_microseconds=5e6,
)


PROCESSOR = Gpu(fp32_tflops=30.0, fp16_tflops=120.0, bf16_tflops=120.0, memory_bandwidth_gb_per_second=900.0)
LAYERS = 10


def step_seconds(layout: Settings, *, on_gpu: bool, calibration: Calibration | None) -> float:
    """Ten layers with one parameter tensor each."""
    partition = (0, 10) if layout.pipeline_parallel_size == 1 else (0, 5, 10)
    here = pool(4, calibration=calibration)
    here = here if on_gpu else here.model_copy(update={"gpu": PROCESSOR})
    return StepTimeModel(EXAMPLE.profile, EXAMPLE.geometry, here).step(layout, partition).step_seconds


def added_seconds(pipeline: int, zero: int, micro_batches: int, *, on_gpu: bool = False) -> float:
    """What the calibration adds to a step."""
    layout = settings(pipeline, 2, zero, gradient_accumulation_steps=micro_batches)
    with_it, without = (
        step_seconds(layout, on_gpu=on_gpu, calibration=known) for known in (CALIBRATION, None)
    )
    return with_it - without


def test_nothing_is_counted_that_was_not_measured() -> None:
    assert EngineOverhead.of(pool()) == EngineOverhead()
    assert EngineOverhead.of(pool(calibration=Calibration())) == EngineOverhead()


def test_tensors_cost_a_micro_batch_and_a_step() -> None:
    assert added_seconds(1, 1, 3) == pytest.approx(3 * 10 * 1.0 + 10 * 10.0)
    assert added_seconds(1, 0, 3) == pytest.approx(0.0, abs=1e-9)


def test_zero_3_gathers_what_it_does_not_keep() -> None:
    """The last layer's 32,768 elements stay; the others are gathered in every micro-batch."""
    types = EXAMPLE.profile.layer_types
    assert [len(gathered_sizes(types[name])) for name in ("embed", "block", "final")] == [1, 1, 0]
    assert added_seconds(1, 3, 2) == pytest.approx(2 * (10 * 2.0 + 9 * 3.0))


def test_a_pipelines_instructions_take_time_on_every_stage() -> None:
    """Five layers a stage: 5 s of tensors and 5 s of instructions a micro-batch, filled and emptied once."""
    assert added_seconds(2, 1, 4) == pytest.approx((4 + 1) * (5 * 1.0 + 5.0) + 5 * 10.0, rel=1e-6)


def test_a_gpu_computes_while_the_engine_runs() -> None:
    """A second of Python for each layer is so much that the GPU is done before; a microsecond is hidden. What
    a step takes once is never hidden."""
    layout = settings(1, 2, 1, gradient_accumulation_steps=3)
    plain = step_seconds(layout, on_gpu=True, calibration=None)
    slow = added_seconds(1, 1, 3, on_gpu=True)
    assert 3 * LAYERS * 1.0 + LAYERS * 10.0 - plain < slow < 3 * LAYERS * 1.0 + LAYERS * 10.0
    rate = EngineRate(zero_stage=1, micro_batch_microseconds=1.0, step_microseconds=5.0)
    quick = step_seconds(layout, on_gpu=True, calibration=Calibration(engine_rates=(rate,)))
    assert quick - plain == pytest.approx(LAYERS * 5e-6, rel=1e-3)
