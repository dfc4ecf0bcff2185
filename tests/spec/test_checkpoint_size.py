"""Sizes of checkpoints beside those that DeepSpeed wrote, and how many of them there are at once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.render.plans import plan_of
from vdsgen.spec.checkpoint_size import checkpoint_bytes, checkpoints_at_once
from vdsgen.spec.plan import PlannedModel, PlannedSaving, WeightAverage
from vdsgen.spec.training import Saving, Training

PARAMETERS = 1_432_512


def model(trainable: int = PARAMETERS) -> PlannedModel:
    return PlannedModel(name="m", parameters=PARAMETERS, trainable_parameters=trainable, layers=6)


@pytest.mark.parametrize(
    ("settings", "written_bytes"),
    [
        ({"pipeline": 1, "data": 1, "zero_stage": 0, "dtype": "fp32"}, 17_318_487),
        ({"pipeline": 2, "data": 1, "zero_stage": 0, "dtype": "fp32"}, 17_321_612),
        ({"pipeline": 2, "data": 1, "zero_stage": 1, "dtype": "fp32"}, 22_984_532),
        ({"pipeline": 1, "data": 2, "zero_stage": 1, "dtype": "bf16",
          "accumulation_dtype": "fp32"}, 20_093_155),
        ({"pipeline": 1, "data": 2, "zero_stage": 2, "dtype": "bf16"}, 20_094_307),
        ({"pipeline": 1, "data": 2, "zero_stage": 3, "dtype": "bf16"}, 17_292_614),
        ({"pipeline": 1, "data": 2, "zero_stage": 3, "dtype": "fp32"}, 17_292_514),
        ({"pipeline": 1, "data": 2, "zero_stage": 0, "dtype": "bf16"}, 20_214_421),
        ({"data": 2, "pipeline": 1, "zero_stage": 1, "dtype": "fp32",
          "ema": WeightAverage(device="accelerator")}, 28_707_507),
    ],
)  # fmt: skip
def test_a_checkpoint_is_as_large_as_deepspeed_wrote_it(settings: dict[str, Any], written_bytes: int) -> None:
    """Measured: four blocks of the bundled family, hidden size 128, a step of DeepSpeed 0.19.8."""
    assert checkpoint_bytes(plan_of(model=model(), **settings)) == pytest.approx(written_bytes, rel=0.01)


def test_the_planners_own_figure_comes_first() -> None:
    saving = PlannedSaving(every_steps=100, checkpoint_bytes=4711)
    assert checkpoint_bytes(plan_of(model=model(), saving=saving)) == 4711


def test_frozen_weights_have_no_states() -> None:
    adapters = plan_of(model=model(10_000), zero_stage=0, dtype="fp32", pipeline=1)
    assert checkpoint_bytes(adapters) == 4 * PARAMETERS + 8 * 10_000
    sharded = plan_of(model=model(10_000), zero_stage=3, dtype="bf16", pipeline=1)
    assert checkpoint_bytes(sharded) == 2 * (PARAMETERS - 10_000) + 12 * 10_000


def test_moments_in_8_bits_are_smaller() -> None:
    plan = plan_of(model=model(), zero_stage=1, dtype="bf16")
    small = plan.model_copy(update={"precision": plan.precision.model_copy(update={"moments": "int8"})})
    assert 5.9 < (checkpoint_bytes(plan) - checkpoint_bytes(small)) / PARAMETERS < 6.0


@pytest.mark.parametrize(
    ("saving", "steps", "count"),
    [
        (Saving(every_steps=500, keep=3), 10_000, 4),
        (Saving(every_steps=500, keep=3), 800, 2),
        (Saving(every_steps=100, keep=1, keep_hours=1.0), 100_000, 19),
        (Saving(every_steps=1000, keep=5, keep_hours=0.1), 100_000, 6),
    ],
)
def test_those_that_are_kept_and_the_one_being_written(saving: Saving, steps: int, count: int) -> None:
    training = Training(global_batch_size=8, steps=steps, saving=saving)
    assert checkpoints_at_once(training, step_seconds=2.0) == count
