"""Names become figures: a pool's GPUs and links, from the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

from vdsgen.catalog import resolve_gpu, resolve_host_link, resolve_link
from vdsgen.planner.unequal import UsedNode, gpu_name, unequal_workload, used_nodes
from vdsgen.planner.workload import Workload
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Pool
from vdsgen.spec.plan import PlannedNode
from vdsgen.spec.profile import ModelProfile


def workload_of(
    experiment: Experiment, pool: Pool, profile: ModelProfile, nodes: Sequence[PlannedNode] = ()
) -> Workload:
    """The pool's names looked up. Raises InputError where the catalogue has no such name.

    `nodes` are a plan's, where its pool is not plain; else all free GPUs in the order of the lab file.
    """
    if not pool.is_plain:
        used = [UsedNode(node.node, node.devices) for node in nodes] or used_nodes(pool)
        return unequal_workload(experiment, pool, profile, used)
    assert pool.gpu is not None
    resolved = pool.model_copy(
        update={
            "gpu": resolve_gpu(pool.gpu),
            "intra_node": resolve_link(pool.intra_node),
            "inter_node": None if pool.inter_node is None else resolve_link(pool.inter_node),
            "host_link": resolve_host_link(pool.host_link, pool.gpu),
        }
    )
    return Workload(experiment, resolved, gpu_name(pool, pool.gpu), profile)
