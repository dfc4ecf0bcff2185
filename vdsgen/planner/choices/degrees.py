"""How many ranks may share a layer."""

from __future__ import annotations

from vdsgen.planner.workload import Workload


def tensor_parallel_sizes(workload: Workload) -> tuple[int, ...]:
    """Ranks that may share each block's heads and feed-forward columns, rising.

    A pin is tried as it is: rules say what is wrong with it. Otherwise the sizes that the model's profile was
    traced for (powers of two that divide its heads) which divide a node's GPUs: a block exchanges its hidden
    state nine times for one micro-batch, and nothing hides it, so these ranks belong on a node's own links
    (arXiv 2104.04473, section 3.2, takeaway 1).
    """
    pinned = workload.experiment.constraints.tensor_parallel_size
    known = workload.profile.tensor_parallel_sizes
    if pinned is not None:
        return (pinned,) if pinned in known else ()
    nodes = {group.gpus_in_use for group in workload.pool.groups or ()} or {workload.pool.gpus_per_node}
    return tuple(size for size in known if all(gpus % size == 0 for gpus in nodes))


def sequence_parallel_sizes(workload: Workload) -> tuple[int, ...]:  # noqa: ARG001
    """Ranks that may share each sample's tokens, rising."""
    return (1,)
