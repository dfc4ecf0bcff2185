"""A candidate as the rules see it."""

from __future__ import annotations

from vdsgen.cost import engine_defaults as defaults
from vdsgen.cost.settings import Settings
from vdsgen.planner.workload import Workload
from vdsgen.rules.facts import (
    CommunicationFacts,
    Facts,
    MachineFacts,
    ModelFacts,
    OffloadFacts,
    OptimizerFacts,
    PipelineFacts,
    PrecisionFacts,
    ZeroFacts,
)
from vdsgen.spec.architecture import Vdt

OPTIMIZER = "AdamW"
IN_PIPELINE = PipelineFacts(is_pipeline=True, use_reentrant=False, trainer_reads_section=True)
IN_SEQUENCE = PipelineFacts(is_pipeline=False, use_reentrant=False, trainer_reads_section=True)
"""On one pipeline stage the model is an ordinary module."""
NOT_OFFLOADED = OffloadFacts(optimizer="none", parameters="none")
UNSCALED = PrecisionFacts(autocast_enabled=False)


def facts(workload: Workload, settings: Settings) -> Facts:
    """What rules see of one candidate: its settings, and the engine's that nobody plans."""
    training = workload.experiment.training
    return Facts(
        world_size=settings.world_size,
        pipeline_parallel_size=settings.pipeline_parallel_size,
        data_parallel_size=settings.data_parallel_size,
        tensor_parallel_size=settings.tensor_parallel_size,
        sequence_parallel_size=settings.sequence_parallel_size,
        ulysses_parallel_size=1,
        global_batch_size=training.global_batch_size,
        micro_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        zero_stage=settings.zero_stage,
        activation_checkpoint_interval=max(
            settings.activation_checkpoint_interval, *settings.stage_checkpoint_intervals, 0
        ),
        gradient_accumulation_dtype=settings.gradient_accumulation_dtype,
        fp16_enabled=settings.dtype == "fp16",
        bf16_enabled=settings.dtype == "bf16",
        gpu=workload.gpu_name,
        gpu_has_fp16=workload.has_rate("fp16"),
        gpu_has_bf16=workload.has_rate("bf16"),
        gpu_has_fp8=workload.multiplies_in("fp8", "bf16"),
        gpu_has_int8=workload.multiplies_in("int8", settings.dtype),
        blocks=workload.blocks,
        zero=_zero(settings),
        offload=_offload(workload, settings),
        precision=_precision(workload, settings),
        optimizer=OptimizerFacts(type=OPTIMIZER, client=False, gradient_clipping=training.gradient_clipping),
        communication=CommunicationFacts(
            dtype=settings.communication_dtype or "",
            prescale_gradients=False,
            predivide_factor=1.0,
            allreduce_op="mean",
            gradient_compression=settings.gradient_compression,
        ),
        pipeline=IN_PIPELINE if settings.pipeline_parallel_size > 1 else IN_SEQUENCE,
        machine=machine_facts(workload),
        model=_model(workload),
    )


def _zero(settings: Settings) -> ZeroFacts:
    """What the renderer writes, and the engine's defaults of what it leaves out."""
    stage, offloads = settings.zero_stage, settings.offload_optimizer != "none"
    if stage == 0:
        return ZeroFacts(overlap_comm=False)
    at_stage_3 = stage == 3
    return ZeroFacts(
        reduce_scatter=defaults.REDUCE_SCATTER,
        contiguous_gradients=defaults.contiguous_gradients(stage) or offloads,
        overlap_comm=defaults.OVERLAP_COMM,
        reduce_bucket_elements=settings.reduce_bucket_elements,
        allgather_bucket_elements=None if at_stage_3 else settings.allgather_bucket_elements,
        compute_grad_norm=True,
        max_live_parameters=defaults.STAGE3_MAX_LIVE_PARAMETERS if at_stage_3 else None,
        hpz_partition_size=settings.hierarchical_partition_size,
        quantized_weights=settings.zero_quantized_weights,
        quantized_gradients=settings.zero_quantized_gradients,
    )


def _offload(workload: Workload, settings: Settings) -> OffloadFacts:
    optimizer, parameters = settings.offload_optimizer, settings.offload_parameters
    if optimizer == parameters == "none":
        return NOT_OFFLOADED
    path = "" if workload.pool.nvme is None else str(workload.pool.nvme.path)
    return OffloadFacts(
        optimizer=optimizer,
        optimizer_nvme_path=path if optimizer == "nvme" else "",
        optimizer_pin_memory=defaults.OFFLOAD_PIN_MEMORY,
        optimizer_ratio=1.0,
        optimizer_buffer_count=defaults.NVME_OPTIMIZER_BUFFERS,
        parameters=parameters,
        parameter_nvme_path=path if parameters == "nvme" else "",
        parameter_pin_memory=defaults.OFFLOAD_PIN_MEMORY,
    )


def _precision(workload: Workload, settings: Settings) -> PrecisionFacts:
    linear = workload.experiment.training.linear_precision
    if settings.dtype != "fp16":
        return UNSCALED._replace(linear=linear)
    scaling = workload.experiment.training.loss_scaling
    return PrecisionFacts(
        loss_scale=0.0,
        initial_scale_power=scaling.initial_loss_scale.bit_length() - 1,
        loss_scale_window=scaling.loss_scale_window,
        min_loss_scale=scaling.minimum_loss_scale,
        autocast_enabled=False,
        linear=linear,
    )


def machine_facts(workload: Workload) -> MachineFacts:
    """What is known of the pool's nodes."""
    pool = workload.pool
    if pool.groups is None:
        return MachineFacts(gpus_per_node=pool.gpus_per_node)
    return MachineFacts(
        gpus_of_nodes=tuple(group.gpus_in_use for group in pool.groups for _ in range(group.nodes))
    )


def _model(workload: Workload) -> ModelFacts:
    return shape_facts(workload)._replace(
        parameters=workload.profile.parameters,
        trainable_parameters=workload.profile.trainable_parameters,
    )


def shape_facts(workload: Workload) -> ModelFacts:
    """What ranks may have to share evenly."""
    model, geometries = workload.experiment.model, workload.geometries
    if not isinstance(model, Vdt):
        return ModelFacts(tokens=geometries[0].frames * geometries[0].patches)
    return ModelFacts(
        heads=model.heads,
        mlp_hidden_size=model.mlp_hidden_size,
        tokens=geometries[0].frames * geometries[0].patches,
        patch_rows=tuple(one.latent_height // model.patch_size for one in geometries),
        latent_frames=tuple(one.frames for one in geometries),
    )
