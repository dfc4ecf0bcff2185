"""How many ranks may share a layer."""

from __future__ import annotations

from vdsgen.planner.workload import Workload


def tensor_parallel_sizes(workload: Workload) -> tuple[int, ...]:
    """Ranks that may share each block's heads and feed-forward columns, rising.

    A pin is tried as it is: rules say what is wrong with it. Otherwise the sizes that the model's profile was
    traced for (powers of two that divide its heads) and a node has GPUs for: a block exchanges its hidden
    state nine times for one micro-batch, and nothing hides it, so these ranks belong on a node's own links
    (arXiv 2104.04473, section 3.2, takeaway 1). `shares_a_node` says whether a layout keeps them there.
    """
    pinned = workload.experiment.constraints.tensor_parallel_size
    known = workload.profile.tensor_parallel_sizes
    if pinned is not None:
        return (pinned,) if pinned in known else ()
    return tuple(size for size in known if size <= _nodes(workload)[0])


def shares_a_node(workload: Workload, world_size: int, ranks: int) -> bool:
    """Whether groups of so many neighbouring ranks each lie on one node, of a job of `world_size` ranks."""
    nodes = _nodes(workload)
    return world_size <= nodes[0] or all(gpus % ranks == 0 for gpus in nodes)


def _nodes(workload: Workload) -> list[int]:
    """GPUs of the first node, and of all kinds of node."""
    groups = workload.pool.groups
    return [group.gpus_in_use for group in groups] if groups else [workload.pool.gpus_per_node]
