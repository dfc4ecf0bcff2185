"""Which ways to send are searched, which are refused and why, and what the plans say of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.planner.examples import pool, workload
from vdsgen.cost.settings import Settings
from vdsgen.planner.choices.communication import LEVELS, communication_choices, communication_refusal
from vdsgen.planner.communication_reason import communication_reason, exactly
from vdsgen.planner.demands import whole_pool_layouts
from vdsgen.planner.facts import facts
from vdsgen.planner.search import Candidate, search
from vdsgen.planner.workload import Workload
from vdsgen.rules.registry import all_rules
from vdsgen.rules.rule import violations
from vdsgen.spec.lab import Link, Pool


def slow(gpus: int = 4, nodes: int = 1) -> Pool:
    link = Link(bandwidth_gb_per_second=1.0, latency_microseconds=10.0)
    return pool(gpus, nodes=nodes).model_copy(update={"intra_node": link})


def settings(data: int = 4, zero: int = 1, pipeline: int = 1, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "pipeline_parallel_size": pipeline, "data_parallel_size": data, "zero_stage": zero,
        "micro_batch_size": 1, "gradient_accumulation_steps": 4, "activation_checkpoint_interval": 0,
        "dtype": "bf16", "gradient_accumulation_dtype": "fp32", "reduce_bucket_elements": 50_000_000,
        "allgather_bucket_elements": 50_000_000, **changes,
    }  # fmt: skip
    return Settings(**values)


def best(on: Pool, **changes: Any) -> tuple[Workload, Candidate]:
    found = workload(on=on, **changes)
    return found, search(found, whole_pool_layouts(found)).ranked[0]


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_exact_plans_send_what_the_engine_sends(zero: int) -> None:
    assert communication_choices(workload(on=slow()), settings(zero=zero)) == (settings(zero=zero),)


def test_permission_decides_what_is_tried() -> None:
    fp32 = settings(dtype="fp32", gradient_accumulation_dtype="fp32")
    tried = {
        level: communication_choices(workload(on=slow(), communication_precision=level), fp32)
        for level in LEVELS
    }
    assert [len(tried[level]) for level in LEVELS] == [1, 2, 3]
    assert tried["reduced"][1].communication_dtype == "bf16"
    assert tried["quantized"][2].gradient_compression == "int8"


def test_a_second_copy_needs_no_permission_but_several_nodes() -> None:
    on = workload(on=pool(4, nodes=2))
    assert [one.hierarchical_partition_size for one in communication_choices(on, settings(8, 3))] == [1, 4]
    assert len(communication_choices(workload(), settings(4, 3))) == 1
    assert len(communication_choices(on, settings(8, 1))) == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"zero": 2, "gradient_compression": "int8"}, "after every micro-batch"),
        ({"zero": 1, "gradient_compression": "int8", "offload_optimizer": "cpu"}, "on the host"),
        ({"zero": 1, "hierarchical_partition_size": 4}, "ZeRO-1 ignores it"),
        ({"zero": 3, "data": 8, "hierarchical_partition_size": 8}, "within a node of 4"),
        ({"zero": 3, "data": 8, "hierarchical_partition_size": 3}, "must divide 8"),
        ({"zero": 2, "zero_quantized_weights": True}, "ZeRO-2 ignores it"),
        ({"zero": 3, "zero_quantized_gradients": True}, "reads every gradient as fp16"),
        ({"zero": 3, "dtype": "fp16", "zero_quantized_gradients": True}, "within one node"),
        ({"zero": 3, "data": 7, "zero_quantized_weights": True}, "multiple of eight"),
    ],
)
def test_what_the_engine_would_ignore_or_corrupt_is_refused(changes: dict[str, Any], why: str) -> None:
    refused = communication_refusal(workload(on=pool(4, nodes=2)), settings(**changes))
    assert refused is not None
    assert why in refused


def test_processors_have_no_quantising_kernels() -> None:
    gpu = pool(4).gpu.model_copy(update={"memory_gib": None})  # type: ignore[union-attr]
    on = workload(on=pool(4).model_copy(update={"gpu": gpu}))
    assert "kernels" in str(communication_refusal(on, settings(zero=3, zero_quantized_weights=True)))


def test_pins_are_in_every_candidate_whatever_is_permitted() -> None:
    on = workload(on=slow(), constraints={"gradient_compression": "int8"})
    for stage in range(4):  # a rule refuses the last two
        found = communication_choices(on, settings(zero=stage))
        assert [one.gradient_compression for one in found] == ["int8"]
        broken = violations(facts(on, found[0]), all_rules())
        assert ("compression-once-a-step" in [one.rule.id for one in broken]) == (stage >= 2)
    copied = workload(on=slow(), constraints={"hierarchical_partition_size": 4})
    assert communication_choices(copied, settings(zero=1)) == ()
    off = workload(
        on=slow(),
        communication_precision="quantized",
        constraints={"gradient_compression": "none"},
    )
    assert len(communication_choices(off, settings(zero=1))) == 1


def test_slow_links_make_compression_win_and_fast_ones_do_not() -> None:
    pins = {"pipeline_parallel_size": 1, "zero_stage": 1}
    _, winner = best(slow(), communication_precision="quantized", constraints=pins)
    assert winner.settings.gradient_compression == "int8"
    _, exact = best(slow(), constraints=pins)
    assert winner.time.step_seconds < exact.time.step_seconds
    assert winner.time.reduction_seconds < 0.6 * exact.time.reduction_seconds
    fast = Link(bandwidth_gb_per_second=450.0, latency_microseconds=5.0)
    _, kept = best(
        slow().model_copy(update={"intra_node": fast}), communication_precision="quantized", constraints=pins
    )
    assert kept.settings == exactly(kept.settings)


def test_a_second_copy_wins_between_nodes() -> None:
    _, winner = best(pool(4, nodes=4, bf16=False), hidden=2048, blocks=24, constraints={"zero_stage": 3})
    assert winner.settings.hierarchical_partition_size == 4


def test_the_sentence_says_what_it_brings_or_would_bring() -> None:
    pins = {"pipeline_parallel_size": 1, "zero_stage": 1}
    forbidden = communication_reason(*best(slow(), constraints=pins))
    assert "with training.communication_precision: quantized, gradients exchanged in int8" in forbidden
    assert "faster than this plan's" in forbidden
    done = communication_reason(*best(slow(), communication_precision="quantized", constraints=pins))
    assert done.startswith("Gradients exchanged in int8 with error feedback: sent as the engine does")
    assert "slower than this plan's" in done
    at_two = communication_reason(*best(slow(), constraints=pins | {"zero_stage": 2}))
    assert "the engine has no compression at ZeRO-2" in at_two
    assert communication_reason(*best(pool(1))) == ""
