"""Pools as groups of nodes, their names resolved: what the planner makes of a lab file that is not plain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.planner.examples import pool
from vdsgen.spec.lab import Gpu, NodeGroup, Pool


def in_groups(plain: Pool, nodes: Sequence[int]) -> Pool:
    """A plain pool of sum(nodes) nodes, written as groups that are all alike."""
    assert sum(nodes) == plain.nodes
    return plain.model_copy(update={"groups": tuple(group_of(plain, nodes=count) for count in nodes)})


def group_of(plain: Pool, **changes: Any) -> NodeGroup:
    """A group that says all that its pool says."""
    keys = {key: getattr(plain, key) for key in NodeGroup.model_fields if key in Pool.model_fields}
    gpus = (plain.gpu,) * plain.gpus_per_node
    changed = keys | {"nodes": 1, "gpu": None, "gpus": gpus, "free_gpus": None} | changes
    return NodeGroup(**changed | {"gpus_per_node": len(changed["gpus"])})


def grouped(*groups: NodeGroup, **changes: Any) -> Pool:
    """A pool of these groups, in this order of ranks."""
    plain = pool(2, nodes=2, **changes)
    return plain.model_copy(
        update={
            "groups": groups,
            "nodes": sum(group.nodes for group in groups),
            "gpus_per_node": max(len(group.gpus or ()) for group in groups),
        }
    )


def gpu(memory_gib: float = 24.0, tflops: float = 120.0, *, bf16: bool = True) -> Gpu:
    return Gpu(
        memory_gib=memory_gib,
        fp32_tflops=tflops / 4,
        fp16_tflops=tflops,
        bf16_tflops=tflops if bf16 else None,
        memory_bandwidth_gb_per_second=900.0,
    )
