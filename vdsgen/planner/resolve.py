"""Names become figures: a pool's GPU and links, from the catalogue."""

from __future__ import annotations

from vdsgen.catalog import resolve_gpu, resolve_host_link, resolve_link
from vdsgen.planner.workload import Workload
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Pool
from vdsgen.spec.profile import ModelProfile


def workload_of(experiment: Experiment, pool: Pool, profile: ModelProfile) -> Workload:
    """The pool's names looked up. Raises InputError where the catalogue has no such name."""
    resolved = pool.model_copy(
        update={
            "gpu": resolve_gpu(pool.gpu),
            "intra_node": resolve_link(pool.intra_node),
            "inter_node": None if pool.inter_node is None else resolve_link(pool.inter_node),
            "host_link": resolve_host_link(pool),
        }
    )
    name = pool.gpu if isinstance(pool.gpu, str) else f"the GPU of pool {pool.name}"
    return Workload(experiment, resolved, name, profile)
