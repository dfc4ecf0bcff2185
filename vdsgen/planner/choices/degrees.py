"""How many ranks may share a layer, or a sample."""

from __future__ import annotations

from math import gcd

from vdsgen.planner.workload import Workload
from vdsgen.spec.architecture import Vdt


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


def sequence_parallel_sizes(workload: Workload) -> tuple[int, ...]:
    """Ranks that may share each sample, rising: as many as divide the rows of patches and the frames of all
    clips, and a node has GPUs for (their exchanges are never hidden). A pin is tried as it is."""
    pinned = workload.experiment.constraints.sequence_parallel_size
    model = workload.experiment.model
    if not isinstance(model, Vdt):  # diffusers' modules are run as they are, on whole clips
        return (1,) if pinned in (None, 1) else ()
    if pinned is not None:
        return (pinned,)
    shared = gcd(
        *(
            count
            for one in workload.geometries
            for count in (one.frames, one.latent_height // model.patch_size)
        )
    )
    return tuple(size for size in range(1, _nodes(workload)[0] + 1) if shared % size == 0)


def shares_a_node(workload: Workload, world_size: int, ranks: int) -> bool:
    """Whether groups of so many neighbouring ranks each lie on one node, of a job of `world_size` ranks."""
    nodes = _nodes(workload)
    return world_size <= nodes[0] or all(gpus % ranks == 0 for gpus in nodes)


def _nodes(workload: Workload) -> list[int]:
    """GPUs of the first node, and of all kinds of node."""
    groups = workload.pool.groups
    return [group.gpus_in_use for group in groups] if groups else [workload.pool.gpus_per_node]
