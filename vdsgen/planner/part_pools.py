"""Layouts that leave GPUs idle, where all of them together may be slower."""

from __future__ import annotations

from itertools import product

from vdsgen.planner.choices.degrees import sequence_parallel_sizes, shares_a_node, tensor_parallel_sizes
from vdsgen.planner.space import Layout, divisors
from vdsgen.planner.workload import Workload


def part_pool_layouts(workload: Workload) -> list[Layout]:
    """The layouts of fewer GPUs than the pool has, those with most first.

    None of ranks on a processor: a lab file says how many there are, and none of them is a device that idles.
    None where pins say how many GPUs there are.
    """
    pins, world = workload.experiment.constraints, workload.pool.world_size
    pinned = pins.pipeline_parallel_size is not None and pins.data_parallel_size is not None
    if workload.ranks_share_host_memory or pinned:
        return []
    found = []
    sizes = product(
        divisors(workload.experiment.training.global_batch_size),
        tensor_parallel_sizes(workload),
        sequence_parallel_sizes(workload),
        range(1, workload.blocks + 1),
    )
    for data, tensor, sequence, stages in sizes:
        if pins.data_parallel_size not in (None, data) or pins.pipeline_parallel_size not in (None, stages):
            continue
        layout = Layout(stages, data, tensor, sequence)
        if (
            layout.world_size < world
            and shares_a_node(workload, layout.world_size, tensor * sequence)
            and workload.is_startable(layout.world_size)
        ):
            found.append(layout)
    return sorted(found, key=lambda layout: (-layout.world_size, layout))
