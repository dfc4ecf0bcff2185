"""Every rendered configuration trains on the real engine, with the optimizer its memory is planned for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.model.ranks import run_ranks
from tests.render.engine_worker import GLOBAL_BATCH, MODEL
from tests.render.plans import plan_of, small_experiment
from tests.render.test_engine_config import plan_id
from vdsgen.render.render import render_plan
from vdsgen.spec.optimization import Schedule
from vdsgen.spec.plan import Plan

RANKS = 2
STEPS = 3
OPTIMIZERS = {
    # (pipeline stages, ZeRO stage, dtype, accumulation dtype) -> the class that the engine takes.
    (1, 0, "fp32", "fp32"): "AdamW",
    (1, 0, "bf16", "bf16"): "FP16_UnfusedOptimizer",
    (1, 0, "fp16", "fp16"): "FP16_UnfusedOptimizer",
    (1, 1, "fp32", "fp32"): "DeepSpeedZeroOptimizer",
    (1, 1, "bf16", "fp32"): "BF16_Optimizer",
    (1, 1, "fp16", "fp16"): "DeepSpeedZeroOptimizer",
    (1, 2, "bf16", "fp32"): "DeepSpeedZeroOptimizer",
    (1, 2, "fp16", "fp16"): "DeepSpeedZeroOptimizer",
    (1, 3, "fp32", "fp32"): "DeepSpeedZeroOptimizer_Stage3",
    (1, 3, "bf16", "fp32"): "DeepSpeedZeroOptimizer_Stage3",
    (1, 3, "fp16", "fp16"): "DeepSpeedZeroOptimizer_Stage3",
    (2, 0, "fp32", "fp32"): "AdamW",
    (2, 0, "bf16", "bf16"): "BF16_Optimizer",
    (2, 0, "fp16", "fp16"): "FP16_UnfusedOptimizer",
    (2, 1, "fp32", "fp32"): "DeepSpeedZeroOptimizer",
    (2, 1, "bf16", "bf16"): "DeepSpeedZeroOptimizer",
    (2, 1, "bf16", "fp32"): "BF16_Optimizer",
    (2, 1, "fp16", "fp16"): "DeepSpeedZeroOptimizer",
}


def plan_in_mode(stages: int, zero_stage: int, dtype: str, accumulation_dtype: str) -> Plan:
    data = RANKS // stages
    return plan_of(
        pipeline=stages,
        data=data,
        zero_stage=zero_stage,
        dtype=dtype,
        accumulation_dtype=accumulation_dtype,
        accumulation=GLOBAL_BATCH // data,
        interval=2,
        depth=MODEL.depth,
    )


PLANS = {plan_id(plan): plan for plan in (plan_in_mode(*mode) for mode in OPTIMIZERS)}
CLASSES = {plan_id(plan_in_mode(*mode)): name for mode, name in OPTIMIZERS.items()}


@pytest.fixture(scope="module")
def trained() -> dict[str, list[dict[str, Any]]]:
    """Mode -> what each rank saw. One start of the ranks for all modes."""
    experiment = small_experiment(schedule=Schedule(type="linear", warmup_steps=0))
    configs = [json.loads(render_plan(plan, experiment)["ds_config.json"]) for plan in PLANS.values()]
    job = {"configs": configs, "steps": STEPS}
    answers = run_ranks("tests.render.engine_worker", RANKS, job, timeout_seconds=500)
    return {mode: [answer[number] for answer in answers] for number, mode in enumerate(PLANS)}


@pytest.mark.slow
@pytest.mark.parametrize("mode", PLANS)
def test_the_engine_trains_and_takes_the_optimizer_that_memory_is_planned_for(
    mode: str, trained: dict[str, list[dict[str, Any]]]
) -> None:
    for answer in trained[mode]:
        steps = answer["steps"]
        assert answer["optimizer"] == CLASSES[mode]
        assert all(0 < step["loss"] < 10 for step in steps)
        assert all(0 < step["grad_norm"] < 100 for step in steps)
        rates = [step["learning_rate"] for step in steps]
        assert rates == pytest.approx([1e-4 * (10 - step) / 10 for step in range(STEPS)])
        assert steps[0]["loss_scale"] == (512.0 if "fp16" in mode else 1.0)


@pytest.mark.slow
def test_every_mode_computes_the_same_loss(trained: dict[str, list[dict[str, Any]]]) -> None:
    """The configuration decides how, never what: to rounding, all modes see one loss."""
    exact = trained[plan_id(plan_in_mode(1, 0, "fp32", "fp32"))][0]["steps"]
    for mode, answers in trained.items():
        tolerance = 1e-5 if "-fp32-" in mode else 0.02
        for answer in answers:
            losses = [step["loss"] for step in answer["steps"]]
            assert losses == pytest.approx([step["loss"] for step in exact], rel=tolerance), mode
