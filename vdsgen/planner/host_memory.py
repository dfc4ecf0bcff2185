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
        settings.offload_optimizer != "none"
        or settings.offload_parameters != "none"
        or settings.offload_activations
    )


def host_miss(workload: Workload, settings: Settings, partition: Sequence[int]) -> Shortage | None:
    """What the fullest node lacks most of; None where all fits, and where nothing is offloaded."""
    if not offloads(settings):
        return None
    pool = workload.pool
    outside = [
        workload.outside(settings, stage, start, stop)
        for stage, (start, stop) in enumerate(pairwise(partition))
    ]
    in_memory = [
        one.host_bytes + _process_bytes(workload, settings, partition, s) for s, one in enumerate(outside)
    ]
    needs = [
        Shortage(
            HOST_MEMORY,
            _fullest_node(in_memory, settings, pool.gpus_per_node),
            int(pool.host_memory_gib * GIB),
        )
    ]
    if any(one.nvme_bytes for one in outside):
        on_flash = [one.nvme_bytes for one in outside]
        capacity = int(pool.nvme.capacity_gib * GIB) if pool.nvme else 0
        needs.append(Shortage(FLASH, _fullest_node(on_flash, settings, pool.gpus_per_node), capacity))
    worst = max(needs, key=lambda need: need.over_bytes)
    return worst if worst.over_bytes > 0 else None


def _process_bytes(workload: Workload, settings: Settings, partition: Sequence[int], stage: int) -> int:
    """The rest of a rank in its host's memory: its interpreter, or all of it where ranks are processes on
    processors."""
    if workload.ranks_share_host_memory:
        return workload.memory(settings, stage, partition[stage], partition[stage + 1]).peak_bytes
    return HOST_PROCESS_BYTES


def _fullest_node(bytes_of_stage: Sequence[int], settings: Settings, per_node: int) -> int:
    """Bytes of the node whose ranks need most, from bytes of each rank by its stage."""
    ranks = settings.world_size // settings.pipeline_parallel_size
    if len(bytes_of_stage) == 1:
        return bytes_of_stage[0] * min(ranks, per_node)
    most = 0
    for first in range(0, settings.world_size, per_node):
        node = range(first, min(first + per_node, settings.world_size))
        most = max(most, sum(bytes_of_stage[rank // ranks] for rank in node))
    return most
