"""A candidate as the rules see it."""

from __future__ import annotations

from vdsgen.cost.settings import Settings
from vdsgen.planner.workload import Workload
from vdsgen.rules.rule import Facts


def facts(workload: Workload, settings: Settings) -> Facts:
    """What rules see of one candidate."""
    return Facts(
        world_size=settings.world_size,
        pipeline_parallel_size=settings.pipeline_parallel_size,
        data_parallel_size=settings.data_parallel_size,
        global_batch_size=workload.experiment.training.global_batch_size,
        micro_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        zero_stage=settings.zero_stage,
        allgather_bucket_elements=settings.allgather_bucket_elements,
        activation_checkpoint_interval=settings.activation_checkpoint_interval,
        gradient_accumulation_dtype=settings.gradient_accumulation_dtype,
        fp16_enabled=settings.dtype == "fp16",
        bf16_enabled=settings.dtype == "bf16",
        gpu=workload.gpu_name,
        gpu_has_fp16=workload.has_rate("fp16"),
        gpu_has_bf16=workload.has_rate("bf16"),
        blocks=workload.blocks,
        gradient_compression=settings.gradient_compression,
        offload_optimizer=settings.offload_optimizer,
    )
