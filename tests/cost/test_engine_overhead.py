"""The engine's own Python: only where it was measured, by parameter tensor, micro-batch and step."""

from __future__ import annotations

import pytest

from tests.cost.test_communication import settings
from tests.planner.examples import pool, workload
from vdsgen.cost.engine_overhead import EngineOverhead, gathered_sizes
from vdsgen.cost.step import StepTimeModel
from vdsgen.spec.calibration import Calibration, EngineRate

EXAMPLE = workload(8, 512)
CALIBRATION = Calibration(
    engine_rates=(
        EngineRate(zero_stage=1, micro_batch_microseconds=1e6, step_microseconds=1e7),
        EngineRate(zero_stage=3, micro_batch_microseconds=2e6, step_microseconds=0.0),
    ),
    gather_microseconds=3e6,
    pipeline_microseconds=5e6,
)


def added_seconds(pipeline: int, zero: int, micro_batches: int) -> float:
    """What the calibration adds to a step of ten layers with one parameter tensor each."""
    layout = settings(pipeline, 2, zero, gradient_accumulation_steps=micro_batches)
    partition = (0, 10) if pipeline == 1 else (0, 5, 10)
    measured = StepTimeModel(EXAMPLE.profile, EXAMPLE.geometry, pool(4, calibration=CALIBRATION))
    plain = EXAMPLE.times.step(layout, partition).step_seconds
    return measured.step(layout, partition).step_seconds - plain


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
