"""Which nodes of the pool a plan's ranks run on: a plan may use fewer GPUs than there are."""

from __future__ import annotations

from dataclasses import dataclass

from vdsgen.spec.lab import Gpu, Pool
from vdsgen.spec.plan import Plan

CPU = "cpu"
"""The catalogue's name for a processor."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Nodes that are filled alike, in the order of the lab's hosts."""

    nodes: int
    ranks_per_node: int
    hosts: tuple[str, ...]
    """One a node; empty where the lab names none."""


def placement(plan: Plan) -> Placement:
    """As few nodes as hold the ranks. The planner uses part of one node, or whole nodes."""
    pool, ranks = plan.inputs.pool, plan.parallel.world_size
    nodes = -(-ranks // pool.gpus_per_node)
    assert ranks % nodes == 0, f"{ranks} ranks do not fill {nodes} nodes alike"
    return Placement(
        nodes=nodes, ranks_per_node=ranks // nodes, hosts=() if pool.hosts is None else pool.hosts[:nodes]
    )


def is_cpu(pool: Pool) -> bool:
    """Whether the ranks run on processors: there are no devices to choose between."""
    return pool.gpu.memory_gib is None if isinstance(pool.gpu, Gpu) else pool.gpu == CPU
