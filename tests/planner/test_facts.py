"""Candidates as rules see them: whatever a dimension varies, what the engine would not do is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.planner.examples import pool, workload
from vdsgen.cost.settings import Settings
from vdsgen.planner.facts import facts
from vdsgen.rules.registry import forbidding_rules
from vdsgen.rules.rule import violations

SETTINGS = Settings(
    pipeline_parallel_size=1,
    data_parallel_size=4,
    zero_stage=2,
    micro_batch_size=1,
    gradient_accumulation_steps=4,
    activation_checkpoint_interval=0,
    dtype="bf16",
    gradient_accumulation_dtype="fp32",
    reduce_bucket_elements=1_000_000,
    allgather_bucket_elements=1_000_000,
)
PIPELINE = {
    "pipeline_parallel_size": 2, "data_parallel_size": 2, "gradient_accumulation_steps": 8, "zero_stage": 1,
}  # fmt: skip


def broken(**changes: Any) -> set[str]:
    """Ids of the rules that these settings break, on four GPUs of one node."""
    seen = facts(workload(on=pool(4)), SETTINGS._replace(**changes))
    return {violation.rule.id for violation in violations(seen, forbidding_rules())}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        PIPELINE,
        PIPELINE | {"zero_stage": 0, "gradient_accumulation_dtype": "bf16"},
        PIPELINE | {"offload_optimizer": "cpu"},
        {"zero_stage": 1},
        {"zero_stage": 0, "dtype": "fp32"},
        {"zero_stage": 2, "dtype": "fp16", "gradient_accumulation_dtype": "fp16"},
        {"offload_optimizer": "cpu"},
        {"zero_stage": 3, "offload_optimizer": "cpu", "offload_parameters": "cpu"},
        {"zero_stage": 3, "zero_quantized_weights": True, "zero_quantized_gradients": True},
        {"zero_stage": 3, "hierarchical_partition_size": 2},
        {"communication_dtype": "fp32"},
        {"tensor_parallel_size": 2, "data_parallel_size": 2, "gradient_accumulation_steps": 8},
        {"activation_checkpoint_interval": 2, "stage_checkpoint_intervals": (2,)},
    ],
    ids=str,
)
def test_what_the_engine_does_is_legal(changes: dict[str, Any]) -> None:
    assert broken(**changes) == set()


@pytest.mark.parametrize(
    ("changes", "rule_id"),
    [
        (PIPELINE | {"zero_stage": 2}, "pipeline-zero"),
        ({"data_parallel_size": 2}, "batch-product"),
        ({"zero_stage": 0}, "accumulation-needs-zero"),
        (
            {"zero_stage": 0, "gradient_accumulation_dtype": "bf16", "offload_optimizer": "cpu"},
            "offload-optimizer-zero",
        ),
        ({"offload_parameters": "cpu"}, "offload-parameters-stage-3"),
        ({"offload_optimizer": "nvme"}, "offload-nvme-stage-3"),
        ({"zero_stage": 1, "offload_optimizer": "nvme"}, "offload-nvme-bf16-optimizer"),
        ({"zero_stage": 3, "offload_optimizer": "nvme"}, "offload-nvme-path"),
        ({"zero_quantized_weights": True}, "zeropp-stage-3"),
        ({"hierarchical_partition_size": 2}, "zeropp-stage-3"),
        ({"zero_stage": 3, "hierarchical_partition_size": 3}, "hpz-divides-world"),
        ({"tensor_parallel_size": 3}, "tensor-heads"),
        ({"sequence_parallel_size": 3}, "sequence-rows"),
        ({"allgather_bucket_elements": 1001}, "allgather-bucket-even"),
        ({"activation_checkpoint_interval": 9}, "interval-within-blocks"),
        ({"stage_checkpoint_intervals": (9,)}, "interval-within-blocks"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_it_would_not_do_is_refused(changes: dict[str, Any], rule_id: str) -> None:
    assert rule_id in broken(**changes)


def test_quantized_gradients_need_whole_nodes() -> None:
    changes = SETTINGS._replace(zero_stage=3, zero_quantized_gradients=True, data_parallel_size=6)
    seen = facts(workload(on=pool(4, nodes=2), global_batch_size=24), changes)
    assert [found.rule.id for found in violations(seen, forbidding_rules())] == [
        "quantized-gradients-whole-nodes"
    ]
