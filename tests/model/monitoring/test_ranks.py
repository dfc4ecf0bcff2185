"""What monitoring sees of real engines: a pipeline of two stages, ZeRO-1, on two ranks."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.model.ranks import run_ranks

pytestmark = pytest.mark.slow

INTERVAL = 2
"""Of activation checkpointing: what is recomputed must not be watched twice."""


def config(dtype: str, **fp16: Any) -> dict[str, Any]:
    """Two stages of three layers; micro-batches of 1, four a step."""
    section: dict[str, Any] = {"enabled": True}
    if dtype == "fp16":
        section |= {
            "loss_scale": 0,
            "initial_scale_power": 9,
            "loss_scale_window": 2000,
            "hysteresis": 2,
            "min_loss_scale": 1,
            **fp16,
        }
    return {
        "train_batch_size": 4,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 4,
        "pipeline": {
            "stages": 2,
            "partition": [0, 3, 6],
            "activation_checkpoint_interval": INTERVAL,
            "use_reentrant": False,
        },
        "zero_optimization": {"stage": 1},
        **({} if dtype == "fp32" else {dtype: section}),
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": 1e-3, "torch_adam": True, "fused": True, "weight_decay": 0.1},
        },
        "gradient_clipping": 1.0,
    }


CASES = [
    # Overflows in steps 2 and 3 (hysteresis 2), then quiet, in fp16.
    {
        "config": config("fp16", loss_scale_window=3),
        "steps": 9,
        "faults": [
            {"step": 2, "layer": 4, "where": "backward"},
            {"step": 3, "layer": 1, "where": "output"},
        ],
    },
    # A weight's gradient alone, twice, at the smallest scale.
    {
        "config": config("fp16", initial_scale_power=0, hysteresis=1),
        "steps": 3,
        "faults": [{"step": 2, "layer": 2, "where": "weights"}],
    },
    {"config": config("bf16"), "steps": 1},
    {
        "config": config("fp32"),
        "steps": 2,
        "faults": [{"step": 2, "layer": 5, "where": "output"}],
    },
]


@pytest.fixture(scope="module")
def answers() -> list[list[dict[str, Any]]]:
    """By case, what each rank said."""
    by_rank = run_ranks("tests.model.monitoring.worker", 2, {"cases": CASES})
    return [list(case) for case in zip(*by_rank, strict=True)]


def test_an_overflow_skips_the_step_and_the_scale_halves_after_two(answers: Any) -> None:
    for answer in answers[0]:
        assert answer["optimizer"] == "DeepSpeedZeroOptimizer"
        steps = answer["steps"]
        assert [step["scale"] for step in steps[:4]] == [512, 512, 512, 256]
        assert [step["skipped"] for step in steps[:4]] == [0, 1, 2, 2]
        assert [step["moved"] for step in steps[:4]] == [True, False, False, True]


def test_the_scale_grows_again_after_its_window(answers: Any) -> None:
    for answer in answers[0]:
        scales = [step["scale_after"] for step in answer["steps"]]
        assert scales[2] == 256
        assert scales[-1] == 512
        assert all(step["moved"] and math.isfinite(step["loss"]) for step in answer["steps"][3:])


def test_the_layer_that_fails_first_is_found_on_every_rank(answers: Any) -> None:
    for answer in answers[0]:
        found = [step["finding"] for step in answer["steps"]]
        assert found[0] is None
        # What reaches layer 4's output is infinite: in the backward of layer 5, on the second stage.
        assert found[1] is not None and found[1][0] == "backward" and found[1][2] == 1
        assert found[2] == ["output", 1, 0]
        assert found[3:] == [None] * 6


def test_an_overflow_at_the_smallest_scale_ends_the_run_and_names_the_layer(answers: Any) -> None:
    for answer in answers[1]:
        assert len(answer["steps"]) == 1
        assert "overflow at the smallest loss scale (1), first at layer 2 (rank 0)" in answer["ended"]


def test_the_last_layer_is_found_in_fp32(answers: Any) -> None:
    for answer in answers[3]:
        assert answer["steps"][0]["finding"] is None
        assert answer["steps"][1]["finding"] == ["output", 5, 1]
        assert math.isnan(answer["steps"][1]["loss"]) or math.isinf(answer["steps"][1]["loss"])


def test_each_stage_has_its_layers_gradients(answers: Any) -> None:
    for answer in answers[3]:
        squares = answer["steps"][0]["squares"]
        assert len(squares) == 3
        assert all(square > 0 for square in squares)


def test_every_second_of_a_step_belongs_to_one_activity(answers: Any) -> None:
    for answer in answers[0]:
        for step in answer["steps"]:
            seconds = step["seconds"]
            assert all(value >= 0 for value in seconds.values())
            assert seconds["forward"] > 0 and seconds["backward"] > 0 and seconds["optimizer"] > 0
            assert seconds["transfer"] > 0
            assert seconds["data"] > 0
            assert seconds["other"] < 0.5 * sum(seconds.values())


def test_the_optimizer_and_the_gradient_norm_are_islands_of_fp32(answers: Any) -> None:
    exact = answers[3][0]["steps"][0]
    for case, dtype in ((0, "torch.float16"), (2, "torch.bfloat16")):
        for answer in answers[case]:
            assert answer["weight_dtypes"] == [dtype]
            assert answer["master_dtypes"] == answer["state_dtypes"] == ["torch.float32"]
            # Scaled by 512 in fp16, and summed over two stages.
            assert answer["steps"][0]["grad_norm"] == pytest.approx(exact["grad_norm"], rel=0.01)
            assert answer["steps"][0]["loss"] == pytest.approx(exact["loss"], rel=0.01)
