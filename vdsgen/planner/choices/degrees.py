"""How many ranks may share a layer."""

from __future__ import annotations

from vdsgen.planner.workload import Workload


def tensor_parallel_sizes(workload: Workload) -> tuple[int, ...]:  # noqa: ARG001
    """Ranks that may share each block's heads and feed-forward columns, rising."""
    return (1,)


def sequence_parallel_sizes(workload: Workload) -> tuple[int, ...]:  # noqa: ARG001
    """Ranks that may share each sample's tokens, rising."""
    return (1,)
