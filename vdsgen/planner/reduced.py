"""What is left of a pool after a failure, and of an experiment's pins on it."""

from __future__ import annotations

from vdsgen.errors import VdsgenError
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Pool

SIZES = (
    "pipeline_parallel_size", "data_parallel_size", "tensor_parallel_size", "sequence_parallel_size",
    "zero_stage", "micro_batch_size", "gradient_accumulation_steps", "hierarchical_partition_size",
)  # fmt: skip
"""Pins that may ask for more ranks than are left, or need what they pinned together."""
DESCRIBE = "describe what is left in a lab file: --lab LAB"


def reduced_pool(pool: Pool, gpus: int) -> Pool:
    """The same nodes with so many GPUs in all: fewer nodes, or one with fewer GPUs.

    Raises VdsgenError where a number does not say which GPUs or hosts are left."""
    if not pool.is_plain:
        raise VdsgenError(
            f"pool {pool.name} has nodes or GPUs that are not all alike: {gpus} of them are not one choice",
            remedy=DESCRIBE,
        )
    if gpus > pool.world_size:
        raise VdsgenError(
            f"pool {pool.name} had {pool.nodes} x {pool.gpus_per_node} GPUs: {gpus} are more", remedy=DESCRIBE
        )
    if gpus <= pool.gpus_per_node:
        nodes, gpus_per_node = 1, gpus
    elif gpus % pool.gpus_per_node == 0:
        nodes, gpus_per_node = gpus // pool.gpus_per_node, pool.gpus_per_node
    else:
        raise VdsgenError(
            f"{gpus} GPUs are no whole nodes of {pool.gpus_per_node}, as pool {pool.name} has them",
            remedy=DESCRIBE,
        )
    if pool.hosts is not None and nodes < pool.nodes:
        raise VdsgenError(
            f"pool {pool.name} names {len(pool.hosts)} hosts: which {nodes} of them are left, a number "
            "does not say",
            remedy=DESCRIBE,
        )
    fields = pool.model_dump(exclude_unset=True)
    return Pool.model_validate({**fields, "nodes": nodes, "gpus_per_node": gpus_per_node})


def without_size_pins(experiment: Experiment) -> tuple[Experiment, list[str]]:
    """The experiment without pins of layouts, and the names of those that it had."""
    constraints = experiment.constraints
    pinned = [name for name in SIZES if getattr(constraints, name) is not None]
    freed = constraints.model_copy(update=dict.fromkeys(pinned))
    return experiment.model_copy(update={"constraints": freed}), pinned
