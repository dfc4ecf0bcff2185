"""What training without any of this would need: the yardstick that plans are shown beside."""

from __future__ import annotations

from typing import NamedTuple

from vdsgen.cost.settings import Settings
from vdsgen.planner.numerics import dtypes
from vdsgen.planner.plan_settings import as_trained
from vdsgen.planner.space import bucket_elements
from vdsgen.planner.workload import Workload
from vdsgen.spec.plan import StageMemory


class Baseline(NamedTuple):
    """Plain data parallelism: the whole model on every GPU, nothing sharded, nothing recomputed."""

    settings: Settings
    memory: StageMemory
    capacity_bytes: int

    @property
    def fits(self) -> bool:
        return self.memory.peak_bytes <= self.capacity_bytes


def naive_baseline(workload: Workload) -> Baseline:
    """Memory of plain data parallelism with micro-batch 1, ZeRO-0 and no checkpointing, in the precision
    that plans prefer. Accumulation steps are as near the global batch as whole numbers come."""
    world = workload.pool.world_size
    dtype = dtypes(workload.experiment.training, workload.pool)[0]
    bucket = bucket_elements(workload)
    settings = Settings(
        pipeline_parallel_size=1,
        data_parallel_size=world,
        zero_stage=0,
        micro_batch_size=1,
        gradient_accumulation_steps=max(1, workload.experiment.training.global_batch_size // world),
        activation_checkpoint_interval=0,
        dtype=dtype,
        gradient_accumulation_dtype=dtype,
        reduce_bucket_elements=bucket,
        allgather_bucket_elements=bucket,
    )
    settings = as_trained(settings, workload.experiment.training)
    memory = workload.memory(settings, 0, 0, workload.layers).spec()
    return Baseline(settings, memory, workload.capacity_bytes)
