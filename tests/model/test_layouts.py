"""The same global batch gives the same training, however ranks, ZeRO and checkpointing are laid out.

Every case runs on DeepSpeed's real engine over gloo. Cases that need equally many ranks share processes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.model.layout_worker import GLOBAL_BATCH, MODEL
from tests.model.ranks import run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

PARTITION = {1: [0, 6], 2: [0, 3, 6], 4: [0, 2, 3, 4, 6]}
FP32_ACCUMULATION: dict[str, Any] = {"data_types": {"grad_accum_dtype": "fp32"}}
FP16 = {"enabled": True, "loss_scale": 0, "initial_scale_power": 9, "loss_scale_window": 2000}
STEPS = 2


def config(
    stages: int, data: int, zero: int = 0, interval: int = 0, *, offload: bool = False, **extra: Any
) -> dict[str, Any]:
    accumulation = GLOBAL_BATCH // data
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": GLOBAL_BATCH,
        # Adam divides a gradient by its own size; a large epsilon keeps rounding errors of small
        # gradients from becoming steps.
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": 1e-2,
                "betas": [0.9, 0.95],
                "eps": 1e-4,
                "weight_decay": 0.1,
                "torch_adam": True,
                "fused": True,
            },
        },
        "gradient_clipping": 1.0,
        "steps_per_print": 1_000_000,
        "zero_optimization": {"stage": zero},
        "pipeline": {
            "stages": stages,
            "partition": PARTITION[stages],
            "activation_checkpoint_interval": interval,
            "use_reentrant": False,
            **({"offload_activations": True} if offload else {}),
        },
        **extra,
    }


def by_stage(case: dict[str, Any], *intervals: int) -> dict[str, Any]:
    """With an interval for each stage; the one number is the first stage's, as plans render it."""
    own = {"activation_checkpoint_interval": intervals[0], "stage_checkpoint_intervals": list(intervals)}
    return {**case, "pipeline": {**case["pipeline"], **own}}


def partly(case: dict[str, Any], *plain_layers: int) -> dict[str, Any]:
    """With so many of each stage's last layers not checkpointed."""
    return {**case, "pipeline": {**case["pipeline"], "plain_layers": list(plain_layers)}}


def selectively(case: dict[str, Any], *layers: int) -> dict[str, Any]:
    """With so many of each stage's last layers, the plain ones aside, recomputed but for their products."""
    return {**case, "pipeline": {**case["pipeline"], "selective_layers": list(layers)}}


def packed(case: dict[str, Any], kind: str) -> dict[str, Any]:
    """With what checkpoints keep in a byte an element."""
    return {**case, "pipeline": {**case["pipeline"], "compress_activations": kind}}


CASES: dict[int, dict[str, dict[str, Any]]] = {
    1: {
        "1x1": config(1, 1),
        "1x1 checkpointed": config(1, 1, interval=3),
        "1x1 checkpointed, offloaded": config(1, 1, interval=3, offload=True),
        "1x1 partly checkpointed": partly(config(1, 1, interval=2), 3),
        "1x1 partly checkpointed, offloaded": partly(config(1, 1, interval=2, offload=True), 3),
        "1x1 selectively checkpointed": selectively(config(1, 1, interval=1), 6),
        "1x1 bf16": config(1, 1, bf16={"enabled": True}),
        "1x1 fp16": config(1, 1, fp16=FP16),
    },
    2: {
        "1x2": config(1, 2),
        "1x2 ZeRO-3 unwatched": config(1, 2, zero=3),
        "1x2 ZeRO-1": config(1, 2, zero=1),
        "1x2 ZeRO-2 checkpointed": config(1, 2, zero=2, interval=3),
        "1x2 ZeRO-3": config(1, 2, zero=3),
        "1x2 ZeRO-3 checkpointed": config(1, 2, zero=3, interval=3),
        "1x2 ZeRO-3 checkpointed, offloaded": config(1, 2, zero=3, interval=3, offload=True),
        "1x2 ZeRO-3 partly checkpointed": partly(config(1, 2, zero=3, interval=2), 3),
        "1x2 ZeRO-3 partly checkpointed, offloaded": partly(
            config(1, 2, zero=3, interval=2, offload=True), 3
        ),
        "1x2 ZeRO-2 selectively checkpointed": selectively(config(1, 2, zero=2, interval=1), 6),
        "1x2 ZeRO-3 selectively checkpointed": selectively(partly(config(1, 2, zero=3, interval=2), 2), 3),
        "1x2 ZeRO-3 bf16": config(1, 2, zero=3, bf16={"enabled": True}, **FP32_ACCUMULATION),
        "2x1": config(2, 1),
    },
    4: {
        "2x2": config(2, 2),
        "2x2 ZeRO-1 checkpointed": config(2, 2, zero=1, interval=2),
        "4x1 checkpointed": config(4, 1, interval=1),
        "4x1 checkpointed, offloaded": config(4, 1, interval=1, offload=True),
        "2x2 ZeRO-1 checkpointed, offloaded": config(2, 2, zero=1, interval=2, offload=True),
        "4x1 by stage": by_stage(config(4, 1), 1, 0, 0, 2),
        "2x2 by stage": by_stage(config(2, 2, zero=1), 0, 2),
        "4x1 partly by stage": partly(by_stage(config(4, 1), 1, 0, 0, 1), 1, 0, 0, 1),
        "2x2 ZeRO-1 partly checkpointed": partly(config(2, 2, zero=1, interval=1), 1, 2),
        "2x2 ZeRO-1 partly checkpointed, offloaded": partly(
            config(2, 2, zero=1, interval=1, offload=True), 1, 2
        ),
        "2x2 ZeRO-1 selectively checkpointed": selectively(config(2, 2, zero=1, interval=1), 3, 3),
        "4x1 selectively by stage": selectively(
            partly(by_stage(config(4, 1), 1, 0, 1, 1), 1, 0, 0, 1), 1, 0, 1, 0
        ),
        "2x2 ZeRO-1 packed as int8": packed(selectively(config(2, 2, zero=1, interval=1), 2, 3), "int8"),
        "2x2 bf16": config(2, 2, zero=1, interval=2, bf16={"enabled": True}, **FP32_ACCUMULATION),
        "2x2 fp16": config(2, 2, interval=2, fp16=FP16),
        "2x2 ZeRO-1 fp16": config(2, 2, zero=1, fp16=FP16),
        "2x2 unwatched": config(2, 2),
        "2x2 uncorrected": config(2, 2),
        "2x2 fp16 uncorrected": config(2, 2, fp16=FP16),
    },
}
WATCHED = [name for cases in CASES.values() for name in cases if "unwatched" not in name]
EXACT_CASES = [name for name in WATCHED if "packed" not in name]
FP32_CASES = [name for name in EXACT_CASES if "fp16" not in name and "bf16" not in name]
HALF_CASES = [name for name in EXACT_CASES if name not in FP32_CASES]


@pytest.fixture(scope="module")
def results() -> dict[str, list[dict[str, Any]]]:
    """What each rank said of each case."""
    found: dict[str, list[dict[str, Any]]] = {}
    for world_size, cases in CASES.items():
        jobs = [
            {
                "config": case,
                "steps": STEPS,
                "uncorrected": "uncorrected" in name,
                "unwatched": "unwatched" in name,
            }
            for name, case in cases.items()
        ]
        by_rank = run_ranks("tests.model.layout_worker", world_size, {"cases": jobs})
        for index, name in enumerate(cases):
            found[name] = [answers[index] for answers in by_rank]
    return found


def weights_of(answers: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The whole model's weights' sums and norms, from the ranks that hold them."""
    merged: dict[str, list[float]] = {}
    for answer in answers:
        for name, figures in answer["weights"].items():
            assert merged.setdefault(name, figures) == figures, f"ranks disagree about {name}"
    return merged


def furthest(answers: list[dict[str, Any]], reference: list[dict[str, Any]]) -> float:
    """Largest relative difference of any parameter's sum or norm, on the scale of its norm."""
    ours, theirs = weights_of(answers), weights_of(reference)
    assert ours.keys() == theirs.keys(), "a layer is missing, or has another name"
    return max(
        abs(a - b) / max(theirs[name][1], 1e-3)
        for name in ours
        for a, b in zip(ours[name], theirs[name], strict=True)
    )


@pytest.mark.parametrize("name", [name for name in FP32_CASES if "uncorrected" not in name])
def test_loss_gradient_norm_and_weights_agree_to_rounding(
    results: dict[str, list[dict[str, Any]]], name: str
) -> None:
    reference = results["1x1"]
    for answer in results[name]:
        for step, expected in zip(answer["steps"], reference[0]["steps"], strict=True):
            assert step["loss"] == pytest.approx(expected["loss"], rel=1e-5)
            assert step["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
    assert furthest(results[name], reference) < 1e-5


@pytest.mark.parametrize("name", [name for name in FP32_CASES if "uncorrected" not in name])
def test_every_rank_gets_the_same_prediction(results: dict[str, list[dict[str, Any]]], name: str) -> None:
    expected = results["1x1"][0]["prediction"]
    for answer in results[name]:
        assert answer["prediction_dtype"] == "torch.float32"
        assert answer["prediction"] == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", [name for name in FP32_CASES if "uncorrected" not in name])
def test_every_rank_gets_the_held_out_loss_of_every_sample(
    results: dict[str, list[dict[str, Any]]], name: str
) -> None:
    expected = np.array(results["1x1"][0]["held_out"])
    assert expected.shape == (3, 3)
    assert len(np.unique(expected)) == 9
    for answer in results[name]:
        assert np.array(answer["held_out"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", [name for name in HALF_CASES if "uncorrected" not in name])
def test_held_out_losses_in_half_precision_follow_fp32(
    results: dict[str, list[dict[str, Any]]], name: str
) -> None:
    expected = np.array(results["1x1"][0]["held_out"])
    for answer in results[name]:
        assert answer["held_out"] == results[name][0]["held_out"]
        assert np.array(answer["held_out"]) == pytest.approx(expected, rel=5e-2)


@pytest.mark.parametrize("name", ["2x2", "1x2 ZeRO-3"])
def test_looking_at_held_out_clips_and_samples_changes_no_step(
    results: dict[str, list[dict[str, Any]]], name: str
) -> None:
    for watched, unwatched in zip(results[name], results[f"{name} unwatched"], strict=True):
        assert len(watched["steps"]) == STEPS + 1
        assert watched["steps"] == unwatched["steps"]


def test_checkpointing_changes_no_bit_in_one_process(results: dict[str, list[dict[str, Any]]]) -> None:
    plain, checkpointed = results["1x1"][0], results["1x1 checkpointed"][0]
    assert checkpointed["steps"] == plain["steps"]
    assert checkpointed["weights"] == plain["weights"]
    assert checkpointed["prediction"] == plain["prediction"]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("1x1 partly checkpointed", "1x1"),
        ("1x2 ZeRO-3 partly checkpointed", "1x2 ZeRO-3 checkpointed"),
        ("2x2 ZeRO-1 partly checkpointed", "2x2 ZeRO-1 checkpointed"),
        ("4x1 partly by stage", "4x1 checkpointed"),
        ("1x1 selectively checkpointed", "1x1"),
        ("1x2 ZeRO-3 selectively checkpointed", "1x2 ZeRO-3 checkpointed"),
        ("2x2 ZeRO-1 selectively checkpointed", "2x2 ZeRO-1 checkpointed"),
        ("4x1 selectively by stage", "4x1 checkpointed"),
    ],
)
def test_checkpointing_some_layers_changes_no_bit(
    results: dict[str, list[dict[str, Any]]], name: str, other: str
) -> None:
    for some, every in zip(results[name], results[other], strict=True):
        for figures in ("steps", "weights", "prediction"):
            assert some[figures] == every[figures]


def test_packed_activations_change_gradients_a_little(results: dict[str, list[dict[str, Any]]]) -> None:
    """The first loss not at all; the same on all ranks."""
    reference = results["1x1"][0]["steps"]
    for answer in results["2x2 ZeRO-1 packed as int8"]:
        assert answer["steps"][0]["loss"] == pytest.approx(reference[0]["loss"], rel=1e-5)
        for step, expected in zip(answer["steps"], reference, strict=True):
            assert step["loss"] == pytest.approx(expected["loss"], rel=1e-2)
            assert step["grad_norm"] == pytest.approx(expected["grad_norm"], rel=2e-2)
            assert step["grad_norm"] != pytest.approx(expected["grad_norm"], rel=1e-7)
    # Adam takes as long a step by a small gradient as by a large one.
    assert furthest(results["2x2 ZeRO-1 packed as int8"], results["1x1"]) < 0.2


@pytest.mark.parametrize("name", [name for name in FP32_CASES if name.endswith(", offloaded")])
def test_activations_in_host_memory_change_no_bit(
    results: dict[str, list[dict[str, Any]]], name: str
) -> None:
    kept = results[name.removesuffix(", offloaded")]
    for offloaded, on_device in zip(results[name], kept, strict=True):
        for figures in ("steps", "weights", "prediction"):
            assert offloaded[figures] == on_device[figures]


def test_each_stage_recomputes_its_own_segments(results: dict[str, list[dict[str, Any]]]) -> None:
    """Stages of 2, 1, 1 and 2 layers, and of 3 and 3; layers are numbered within their stage."""
    segments = {
        name: [[tuple(one) for one in answer["segments"]] for answer in answers]
        for name, answers in results.items()
    }
    assert segments["4x1 by stage"] == [[(0, 1), (1, 2)], [], [], [(0, 2)]]
    assert segments["2x2 by stage"] == [[], [], [(0, 2), (2, 3)], [(0, 2), (2, 3)]]
    assert segments["4x1 checkpointed"] == [[(0, 1), (1, 2)], [(0, 1)], [(0, 1)], [(0, 1), (1, 2)]]
    assert segments["2x2"] == [[], [], [], []]
    # All but the last 3 of 6 layers; the last 1 and 2 of 3; the last 1 of 2.
    assert segments["1x1 partly checkpointed"] == [[(0, 2), (2, 3)]]
    assert segments["1x1 partly checkpointed, offloaded"] == [[(0, 2), (2, 3)]]
    assert segments["1x2 ZeRO-3 partly checkpointed"] == [[(0, 2), (2, 3)]] * 2
    for offloaded in ("", ", offloaded"):
        name = f"2x2 ZeRO-1 partly checkpointed{offloaded}"
        assert segments[name] == [[(0, 1), (1, 2)]] * 2 + [[(0, 1)]] * 2
    assert segments["4x1 partly by stage"] == [[(0, 1)], [], [], [(0, 1)]]


@pytest.mark.parametrize("name", [name for name in HALF_CASES if "uncorrected" not in name])
def test_half_precision_follows_fp32(results: dict[str, list[dict[str, Any]]], name: str) -> None:
    reference = results["1x1"]
    for answer in results[name]:
        for step, expected in zip(answer["steps"], reference[0]["steps"], strict=True):
            assert step["loss"] == pytest.approx(expected["loss"], rel=2e-2)
            assert step["grad_norm"] == pytest.approx(expected["grad_norm"], rel=2e-2)
    # Adam's step has the gradient's sign: weights of small gradients differ by what they moved.
    assert furthest(results[name], reference) < (0.2 if "bf16" in name else 0.02)


def test_the_optimizers_are_those_that_plans_count_bytes_for(
    results: dict[str, list[dict[str, Any]]],
) -> None:
    chosen = {name: answers[0]["optimizer"] for name, answers in results.items()}
    assert chosen["1x1"] == chosen["2x2"] == "AdamW"
    assert chosen["1x1 bf16"] == chosen["1x1 fp16"] == chosen["2x2 fp16"] == "FP16_UnfusedOptimizer"
    assert chosen["2x2 bf16"] == "BF16_Optimizer"
    assert chosen["2x2 ZeRO-1 fp16"] == chosen["1x2 ZeRO-1"] == "DeepSpeedZeroOptimizer"
    assert chosen["1x2 ZeRO-3 bf16"] == "DeepSpeedZeroOptimizer_Stage3"


@pytest.mark.parametrize("name", [name for name in HALF_CASES if "bf16" not in name])
def test_the_loss_scale_starts_at_512_on_every_rank(
    results: dict[str, list[dict[str, Any]]], name: str
) -> None:
    assert {answer["steps"][0]["loss_scale"] for answer in results[name]} == {512.0}


def test_bf16_has_no_loss_scale_and_the_rate_is_the_configs(
    results: dict[str, list[dict[str, Any]]],
) -> None:
    assert results["2x2 bf16"][0]["steps"][0]["loss_scale"] == 1.0
    assert {answers[0]["learning_rate"] for answers in results.values()} == {1e-2}


def test_without_correction_a_pipeline_clips_by_its_first_stage(
    results: dict[str, list[dict[str, Any]]],
) -> None:
    """Fails once DeepSpeed clips by the whole norm: then model.corrections.clip_across_stages may go."""
    assert furthest(results["2x2 uncorrected"], results["1x1"]) > 1e-2


def test_without_correction_fp16_divides_by_a_scale_it_never_applied(
    results: dict[str, list[dict[str, Any]]],
) -> None:
    """Fails once DeepSpeed scales this loss: then model.corrections.scaled_loss may go."""
    ratio = (
        results["2x2 fp16 uncorrected"][0]["steps"][0]["grad_norm"]
        / results["1x1"][0]["steps"][0]["grad_norm"]
    )
    assert math.isclose(ratio, 1 / 512, rel_tol=2e-2)


def test_the_tiny_model_has_all_kinds_of_sublayers() -> None:
    assert MODEL.condition == "text"
    assert MODEL.position == "rotary"
