"""Engine settings as the cost functions take them, and as the sections of a plan: both ways."""

from __future__ import annotations

from typing import Any

from vdsgen.cost.settings import Settings
from vdsgen.spec.plan import (
    ActivationCheckpointing,
    Batch,
    Communication,
    Parallel,
    Plan,
    Precision,
    WeightAverage,
    Zero,
)
from vdsgen.spec.training import Training


def settings_of(plan: Plan) -> Settings:
    """A plan's engine settings, as the cost functions take them."""
    parallel, zero, checkpointing = plan.parallel, plan.zero, plan.activation_checkpointing
    return Settings(
        pipeline_parallel_size=parallel.pipeline_parallel_size,
        data_parallel_size=parallel.data_parallel_size,
        tensor_parallel_size=parallel.tensor_parallel_size,
        sequence_parallel_size=parallel.sequence_parallel_size,
        zero_stage=zero.stage,
        micro_batch_size=plan.batch.micro_batch_size,
        gradient_accumulation_steps=plan.batch.gradient_accumulation_steps,
        activation_checkpoint_interval=checkpointing.interval,
        stage_checkpoint_intervals=checkpointing.stage_intervals,
        stage_plain_layers=checkpointing.plain_layers,
        stage_selective_layers=checkpointing.selective_layers,
        offload_activations=checkpointing.offload,
        activation_compression=checkpointing.compression,
        dtype=plan.precision.dtype,
        gradient_accumulation_dtype=plan.precision.gradient_accumulation_dtype,
        reduce_bucket_elements=zero.reduce_bucket_elements,
        allgather_bucket_elements=zero.allgather_bucket_elements,
        offload_optimizer=zero.offload_optimizer,
        offload_parameters=zero.offload_parameters,
        communication_dtype=plan.communication.dtype,
        gradient_compression=plan.communication.gradient_compression,
        zero_quantized_weights=zero.quantized_weights,
        zero_quantized_gradients=zero.quantized_gradients,
        hierarchical_partition_size=zero.hierarchical_partition_size,
        int8_moments=plan.precision.moments == "int8",
        ema=plan.ema.device,
        ema_every_steps=plan.ema.every_steps,
    )


def as_trained(settings: Settings, training: Training) -> Settings:
    """The same with the moments and the average of the weights that the experiment asks for."""
    settings = settings._replace(int8_moments=training.optimizer.state_dtype == "int8")
    if training.ema is None:
        return settings
    return settings._replace(ema=training.ema.device, ema_every_steps=training.ema.every_steps)


def sections_of(settings: Settings, training: Training) -> dict[str, Any]:
    """The sections of a plan that settings decide, by their names in `Plan`."""
    scaling = training.loss_scaling if settings.dtype == "fp16" else None
    return {
        "parallel": Parallel(
            world_size=settings.world_size,
            pipeline_parallel_size=settings.pipeline_parallel_size,
            data_parallel_size=settings.data_parallel_size,
            tensor_parallel_size=settings.tensor_parallel_size,
            sequence_parallel_size=settings.sequence_parallel_size,
        ),
        "batch": Batch(
            micro_batch_size=settings.micro_batch_size,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            global_batch_size=training.global_batch_size,
        ),
        "zero": Zero(
            stage=settings.zero_stage,
            offload_optimizer=settings.offload_optimizer,
            offload_parameters=settings.offload_parameters,
            reduce_bucket_elements=settings.reduce_bucket_elements,
            allgather_bucket_elements=settings.allgather_bucket_elements,
            quantized_weights=settings.zero_quantized_weights,
            quantized_gradients=settings.zero_quantized_gradients,
            hierarchical_partition_size=settings.hierarchical_partition_size,
        ),
        "activation_checkpointing": ActivationCheckpointing(
            interval=settings.activation_checkpoint_interval,
            stage_intervals=settings.stage_checkpoint_intervals,
            plain_layers=settings.stage_plain_layers,
            selective_layers=settings.stage_selective_layers,
            offload=settings.offload_activations,
            compression=settings.activation_compression,
        ),
        "precision": Precision(
            dtype=settings.dtype,
            gradient_accumulation_dtype=settings.gradient_accumulation_dtype,
            initial_loss_scale=scaling.initial_loss_scale if scaling else None,
            loss_scale_window=scaling.loss_scale_window if scaling else None,
            moments="int8" if settings.int8_moments else "fp32",
            linear=training.linear_precision,
        ),
        "communication": Communication(
            dtype=settings.communication_dtype, gradient_compression=settings.gradient_compression
        ),
        "ema": WeightAverage(device=settings.ema, every_steps=settings.ema_every_steps),
    }
