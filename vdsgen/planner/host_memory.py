"""Whether what a candidate keeps outside its GPUs fits the hosts: their memory, and their flash.

Ranks count through the data ranks of a stage first (launch order), `gpus_per_node` of them a node. Beside
what offload keeps, each rank is a process. Loader workers, clips that they keep decoded and the system itself
are left out; `memory_reserve_fraction` is the GPU's alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from vdsgen.cost.memory import HOST_PROCESS_BYTES
from vdsgen.cost.settings import Settings
from vdsgen.planner.workload import Workload
from vdsgen.units import GIB

HOST_MEMORY, FLASH = "host memory", "NVMe"


class Shortage(NamedTuple):
    """What a node lacks: host memory, or room on its flash."""

    resource: str
    needed_bytes: int
    """Of the node that needs most."""
    capacity_bytes: int

    @property
    def over_bytes(self) -> int:
        return self.needed_bytes - self.capacity_bytes


def offloads(settings: Settings) -> bool:
    """Whether anything is kept outside the GPUs."""
    return (
        settings.ema == "cpu"
        or settings.offload_optimizer != "none"
        or settings.offload_parameters != "none"
        or settings.offload_activations
    )


def host_miss(workload: Workload, settings: Settings, partition: Sequence[int]) -> Shortage | None:
    """What the fullest node lacks most of; None where all fits, and where nothing is kept there."""
    copied = copied_bytes(workload, settings, partition)
    if not offloads(settings) and not copied:
        return None
    pool = workload.pool
    outside = [
        workload.outside(settings, stage, start, stop)
        for stage, (start, stop) in enumerate(pairwise(partition))
    ]
    in_memory = [
        one.host_bytes + _process_bytes(workload, settings, partition, s) for s, one in enumerate(outside)
    ]
    if copied:  # all ranks of a stage are taken to copy as much as its first
        in_memory = [held + copy for held, copy in zip(in_memory, copied, strict=True)]
    needs = [_fullest_node(HOST_MEMORY, in_memory, settings, _nodes(workload, settings, in_memory))]
    if any(one.nvme_bytes for one in outside):
        capacity = int(pool.nvme.capacity_gib * GIB) if pool.nvme else 0
        nodes = [node._replace(capacity_bytes=capacity) for node in _nodes(workload, settings, in_memory)]
        needs.append(_fullest_node(FLASH, [one.nvme_bytes for one in outside], settings, nodes))
    worst = max(needs, key=lambda need: need.over_bytes)
    return worst if worst.over_bytes > 0 else None


def copied_bytes(workload: Workload, settings: Settings, partition: Sequence[int]) -> tuple[int, ...]:
    """What the rank of each stage that saves most keeps a copy of; empty where training waits for it to be
    written."""
    if not workload.experiment.training.saving.asynchronous:
        return ()
    return tuple(
        workload.saved(settings, start, stop).first_rank_bytes for start, stop in pairwise(partition)
    )


class _Node(NamedTuple):
    first_rank: int
    ranks: int
    capacity_bytes: int


def _nodes(workload: Workload, settings: Settings, stages: Sequence[int]) -> list[_Node]:
    """The nodes to look at: all; of a plain pool whose nodes each lie within a stage, one of each stage."""
    pool, world = workload.pool, settings.world_size
    if pool.groups is None:
        capacity, per_node = int(pool.host_memory_gib * GIB), pool.gpus_per_node
        ranks = world // len(stages)
        step = ranks if ranks % per_node == 0 else per_node
        return [_Node(first, min(per_node, world - first), capacity) for first in range(0, world, step)]
    found, first = [], 0
    for group in pool.groups:
        for _ in range(group.nodes):
            if first < world:
                ranks = min(group.gpus_in_use, world - first)
                host_gib = group.host_memory_gib or pool.host_memory_gib
                found.append(_Node(first, ranks, int(host_gib * GIB)))
            first += group.gpus_in_use
    return found


def _process_bytes(workload: Workload, settings: Settings, partition: Sequence[int], stage: int) -> int:
    """The rest of a rank in its host's memory: its interpreter, or all of it where ranks are processes on
    processors."""
    if workload.ranks_share_host_memory:
        return workload.memory(settings, stage, partition[stage], partition[stage + 1]).peak_bytes
    return HOST_PROCESS_BYTES


def _fullest_node(
    resource: str, bytes_of_stage: Sequence[int], settings: Settings, nodes: Sequence[_Node]
) -> Shortage:
    """Of the node that lacks most, from bytes of each rank by its stage."""
    per_stage = settings.world_size // settings.pipeline_parallel_size
    needs = []
    for first, ranks, capacity in nodes:
        needed = sum([bytes_of_stage[rank // per_stage] for rank in range(first, first + ranks)])
        needs.append(Shortage(resource, needed, capacity))
    return max(needs, key=lambda need: need.over_bytes)
