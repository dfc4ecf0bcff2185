"""A config as the rules see it: what is written, else the engine's default; what is wrong is not known."""

from __future__ import annotations

from typing import Any

from vdsgen.review.lint.batch import batch_sizes
from vdsgen.review.lint.context import Context
from vdsgen.review.lint.keys import Values
from vdsgen.rules.facts import (
    CheckpointingFacts,
    CommunicationFacts,
    CompileFacts,
    Facts,
    MachineFacts,
    ModelFacts,
    MonitoringFacts,
    OffloadFacts,
    OptimizerFacts,
    PipelineFacts,
    PrecisionFacts,
    SavingFacts,
    SchedulerFacts,
    TensorParallelFacts,
    ZenFlowFacts,
    ZeroFacts,
)
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.trainer_section import SCHEDULE, SECTION

DTYPES: dict[str, Dtype] = {
    **dict.fromkeys(("torch.float16", "fp16", "float16", "half"), "fp16"),
    **dict.fromkeys(("torch.float32", "fp32", "float32", "float"), "fp32"),
    **dict.fromkeys(("torch.bfloat16", "bf16", "bfloat16"), "bf16"),
}
"""The engine's names of dtypes (runtime/config.py:145, DtypeEnum); int8 is no dtype to train in."""


def facts_of(values: Values, context: Context) -> Facts:
    """Everything that rules may ask of this config."""
    get = values.get
    stage = get("/zero_optimization/stage")
    fp16, bf16 = get("/fp16/enabled"), get("/bf16/enabled")
    tensor, sequence = _tensor_parallel(values, context), _sequence_parallel(values, context)
    data = _data_parallel(context, tensor, sequence)
    batch = batch_sizes(values, data)
    plan = context.plan
    blocks = None if plan is None else plan.model.layers - 2
    return Facts(
        world_size=context.ranks,
        pipeline_parallel_size=context.pipeline_parallel_size,
        data_parallel_size=data,
        tensor_parallel_size=tensor,
        sequence_parallel_size=sequence,
        ulysses_parallel_size=get("/sequence_parallel_size") or 1,
        global_batch_size=batch.total,
        micro_batch_size=batch.micro,
        gradient_accumulation_steps=batch.accumulation,
        zero_stage=stage,
        activation_checkpoint_interval=get("/pipeline/activation_checkpoint_interval"),
        fp16_enabled=fp16,
        bf16_enabled=bf16,
        gradient_accumulation_dtype=_accumulation_dtype(values, fp16, bf16),
        gpu=None if plan is None else gpu_name(plan),
        blocks=blocks,
        zero=_zero(values),
        offload=_offload(values),
        zenflow=_zenflow(values),
        precision=_precision(values),
        optimizer=_optimizer(values, context),
        scheduler=_scheduler(values, context),
        communication=_communication(values),
        pipeline=_pipeline(values, context),
        checkpointing=_checkpointing(values),
        saving=SavingFacts(
            tag_validation=get("/checkpoint/tag_validation"),
            load_universal=get("/checkpoint/load_universal"),
            parallel_write_pipeline=get("/checkpoint/parallel_write/pipeline_stage"),
            writer=values.written.get("/checkpoint/writer") is not None,
            writer_unit=get("/checkpoint/writer/data_parallel"),
        ),
        compile=_compile(values),
        tensor_parallel=_autotp(values),
        monitoring=_monitoring(values),
        model=_model(context),
        machine=_machine(context),
        given=frozenset(values.given),
        automatic=None if context.auto_filled else frozenset(values.automatic),
    )


def gpu_name(plan: Any) -> str:
    """What messages call the plan's GPU."""
    gpu = plan.inputs.pool.gpu
    return gpu if isinstance(gpu, str) else "this GPU"


def _tensor_parallel(values: Values, context: Context) -> int | None:
    if context.plan is not None:
        return context.plan.parallel.tensor_parallel_size
    autotp = values.get("/tensor_parallel/autotp_size")
    return None if autotp is None else max(1, autotp)


def _sequence_parallel(values: Values, context: Context) -> int:
    if context.plan is not None:
        return context.plan.parallel.sequence_parallel_size
    return values.get("/sequence_parallel_size") or 1


def _data_parallel(context: Context, tensor: int | None, sequence: int) -> int | None:
    """Ranks that see different samples."""
    if context.ranks is None:
        return None if context.plan is None else context.plan.parallel.data_parallel_size
    ranks, stages = context.ranks, context.pipeline_parallel_size or 1
    others = stages * (tensor or 1) * sequence
    return ranks // others if ranks % others == 0 else None


def _accumulation_dtype(values: Values, fp16: bool | None, bf16: bool | None) -> Dtype | None:
    written = values.get("/data_types/grad_accum_dtype")
    if written is not None:
        return DTYPES.get(written)
    if "/data_types/grad_accum_dtype" in values.wrong or fp16 is None or bf16 is None:
        return None
    return "fp16" if fp16 else "bf16" if bf16 else "fp32"


def _zero(values: Values) -> ZeroFacts:
    def get(name: str) -> Any:
        return values.get(f"/zero_optimization/{name}")

    overlap = get("overlap_comm")
    if overlap is None and "/zero_optimization/overlap_comm" not in values.wrong:
        stage = get("stage")
        overlap = None if stage is None else stage == 3
    return ZeroFacts(
        reduce_scatter=get("reduce_scatter"),
        contiguous_gradients=get("contiguous_gradients"),
        overlap_comm=overlap,
        reduce_bucket_elements=get("reduce_bucket_size"),
        allgather_bucket_elements=get("allgather_bucket_size"),
        allgather_partitions=get("allgather_partitions"),
        use_multi_rank_bucket_allreduce=get("use_multi_rank_bucket_allreduce"),
        round_robin_gradients=get("round_robin_gradients"),
        ignore_unused_parameters=get("ignore_unused_parameters"),
        compute_grad_norm=get("compute_grad_norm"),
        parameter_alignment=get("parameter_alignment"),
        elastic_checkpoint=get("elastic_checkpoint"),
        legacy_stage1=get("legacy_stage1"),
        sub_group_elements=get("sub_group_size"),
        prefetch_bucket_elements=get("stage3_prefetch_bucket_size"),
        parameter_persistence_threshold=get("stage3_param_persistence_threshold"),
        model_persistence_threshold=get("stage3_model_persistence_threshold"),
        max_live_parameters=get("stage3_max_live_parameters"),
        max_reuse_distance=get("stage3_max_reuse_distance"),
        module_granularity_threshold=get("stage3_module_granularity_threshold"),
        allgather_sequential=get("stage3_allgather_sequential"),
        gather_16bit_weights_on_model_save=get("stage3_gather_16bit_weights_on_model_save"),
        pipeline_loading_checkpoint=get("pipeline_loading_checkpoint"),
        hpz_partition_size=get("zero_hpz_partition_size"),
        quantized_weights=get("zero_quantized_weights"),
        quantized_nontrainable_weights=get("zero_quantized_nontrainable_weights"),
        quantized_gradients=get("zero_quantized_gradients"),
        save_muon_momentum_buffer_in_memory=get("save_muon_momentum_buffer_in_memory"),
    )


def _offload(values: Values) -> OffloadFacts:
    def optimizer(name: str) -> Any:
        return values.get(f"/zero_optimization/offload_optimizer/{name}")

    def parameter(name: str) -> Any:
        return values.get(f"/zero_optimization/offload_param/{name}")

    reads, writes = optimizer("pipeline_read"), optimizer("pipeline_write")
    return OffloadFacts(
        optimizer=_device(values, "offload_optimizer", "cpu_offload"),
        optimizer_nvme_path=_nvme_path(values, "offload_optimizer"),
        optimizer_pin_memory=optimizer("pin_memory"),
        optimizer_ratio=optimizer("ratio"),
        optimizer_buffer_count=optimizer("buffer_count"),
        optimizer_pipelined=None if reads is None or writes is None else reads or writes,
        optimizer_fast_init=optimizer("fast_init"),
        super_offload=optimizer("super_offload"),
        cpuadam_cores_fraction=optimizer("cpuadam_cores_perc"),
        parameters=_device(values, "offload_param", "cpu_offload_param"),
        parameter_nvme_path=_nvme_path(values, "offload_param"),
        parameter_pin_memory=parameter("pin_memory"),
        parameter_buffer_count=parameter("buffer_count"),
        parameter_buffer_elements=parameter("buffer_size"),
        parameter_max_in_cpu=parameter("max_in_cpu"),
    )


def _device(values: Values, section: str, deprecated: str) -> Any:
    if values.written.get(f"/zero_optimization/{deprecated}") is True:
        return "cpu"
    return values.get(f"/zero_optimization/{section}/device")


def _nvme_path(values: Values, section: str) -> str | None:
    name = f"/zero_optimization/{section}/nvme_path"
    if name in values.wrong | values.filled:
        return None
    return str(values.get(name) or "")


def _zenflow(values: Values) -> ZenFlowFacts:
    if "/zero_optimization/zenflow" in values.wrong:
        return ZenFlowFacts()

    def get(name: str) -> Any:
        return values.get(f"/zero_optimization/zenflow/{name}")

    return ZenFlowFacts(
        present=values.written.get("/zero_optimization/zenflow") is not None,
        select_strategy=get("select_strategy"),
        select_interval=get("select_interval"),
        update_interval=get("update_interval"),
        offload=get("offload"),
        overlap_step=get("overlap_step"),
    )


def _precision(values: Values) -> PrecisionFacts:
    get = values.get
    return PrecisionFacts(
        loss_scale=get("/fp16/loss_scale"),
        initial_scale_power=get("/fp16/initial_scale_power"),
        loss_scale_window=get("/fp16/loss_scale_window"),
        hysteresis=get("/fp16/hysteresis"),
        consecutive_hysteresis=get("/fp16/consecutive_hysteresis"),
        min_loss_scale=get("/fp16/min_loss_scale"),
        fp16_auto_cast=get("/fp16/auto_cast"),
        fp16_master_weights_and_grads=get("/fp16/fp16_master_weights_and_grads"),
        bf16_master_weights_and_grads=get("/bf16/bf16_master_weights_and_grads"),
        bf16_optimizer_states=get("/bf16/bf16_optimizer_states"),
        bf16_immediate_grad_update=get("/bf16/immediate_grad_update"),
        bf16_check_grad_overflow=get("/bf16/check_grad_overflow"),
        autocast_enabled=get("/torch_autocast/enabled"),
        autocast_dtype=get("/torch_autocast/dtype"),
        parameter_dtype=get("/data_types/param_dtype"),
    )


def _optimizer(values: Values, context: Context) -> OptimizerFacts:
    get = values.get
    return OptimizerFacts(
        type=_named(values, "/optimizer"),
        params=_params(values, "/optimizer"),
        client=False if context.plan is not None else context.client_optimizer,
        legacy_fusion=get("/optimizer/legacy_fusion"),
        allow_untested=get("/zero_allow_untested_optimizer"),
        force_ds_cpu_optimizer=get("/zero_force_ds_cpu_optimizer"),
        gradient_clipping=get("/gradient_clipping"),
    )


def _scheduler(values: Values, context: Context) -> SchedulerFacts:
    client = context.client_scheduler
    if context.plan is not None:  # run by our own training entrypoint, which brings what the engine lacks
        client = f"/{SECTION}/{SCHEDULE}" in values.given
    return SchedulerFacts(_named(values, "/scheduler"), _params(values, "/scheduler"), client)


def _named(values: Values, section: str) -> str | None:
    """The type of an optimizer or a scheduler; empty where the file names none."""
    if section in values.wrong or f"{section}/type" in values.wrong | values.filled:
        return None
    return values.get(f"{section}/type") or ""


def _params(values: Values, section: str) -> dict[str, Any] | None:
    if section in values.wrong or f"{section}/params" in values.wrong:
        return None
    return values.get(f"{section}/params") or {}


def _communication(values: Values) -> CommunicationFacts:
    def lower(name: str) -> str | None:
        if name in values.wrong | values.filled:
            return None
        written = values.get(name)
        return "" if written is None else str(written).lower()

    return CommunicationFacts(
        dtype=lower("/communication_data_type"),
        sequence_parallel_dtype=lower("/seq_parallel_communication_data_type"),
        prescale_gradients=values.get("/prescale_gradients"),
        predivide_factor=values.get("/gradient_predivide_factor"),
        allreduce_op=lower("/gradient_allreduce_op"),
        disable_allgather=values.get("/disable_allgather"),
    )


def _pipeline(values: Values, context: Context) -> PipelineFacts:
    return PipelineFacts(
        is_pipeline=context.is_pipeline,
        managed_gradient_accumulation=values.get("/managed_gradient_accumulation"),
        use_reentrant=values.get("/pipeline/use_reentrant"),
        trainer_reads_section=context.plan is not None,
    )


def _checkpointing(values: Values) -> CheckpointingFacts:
    def get(name: str) -> Any:
        return values.get(f"/activation_checkpointing/{name}")

    known = "/activation_checkpointing/number_checkpoints" not in values.wrong
    return CheckpointingFacts(
        partition_activations=get("partition_activations"),
        contiguous_memory_optimization=get("contiguous_memory_optimization"),
        cpu_checkpointing=get("cpu_checkpointing"),
        number_checkpoints=(get("number_checkpoints") or 0) if known else None,
        synchronize_checkpoint_boundary=get("synchronize_checkpoint_boundary"),
        profile=get("profile"),
        configured=False,  # the engine does not; neither do our trainer, Transformers and Accelerate
    )


def _compile(values: Values) -> CompileFacts:
    passes = values.get("/compile/passes")
    return CompileFacts(
        deepcompile=values.get("/compile/deepcompile"),
        autoep_non_moe=values.get("/compile/autoep_non_moe"),
        offload_activation=values.get("/compile/offload_activation"),
        offload_opt_states=values.get("/compile/offload_opt_states"),
        offload_parameters=values.get("/compile/offload_parameters"),
        passes=None if passes is None else tuple(passes),
    )


def _autotp(values: Values) -> TensorParallelFacts:
    return TensorParallelFacts(
        autotp_size=values.get("/tensor_parallel/autotp_size"),
        tp_size=values.get("/tensor_parallel/tp/tp_size"),
        vocab_parallel_lm_head=values.get("/tensor_parallel/vocab_parallel_lm_head"),
        vocab_parallel_ce_backend=values.get("/tensor_parallel/vocab_parallel_ce_backend"),
    )


def _monitoring(values: Values) -> MonitoringFacts:
    return MonitoringFacts(
        wall_clock_breakdown=values.get("/wall_clock_breakdown"),
        memory_breakdown=values.get("/memory_breakdown"),
        dump_state=values.get("/dump_state"),
        flops_profiler=values.get("/flops_profiler/enabled"),
        comms_logger=values.get("/comms_logger/enabled"),
        steps_per_print=values.get("/steps_per_print"),
    )


def _model(context: Context) -> ModelFacts:
    if context.plan is None:
        return ModelFacts()
    model = context.plan.model
    return ModelFacts(
        parameters=model.parameters, trainable_parameters=model.trainable_parameters, mixture_of_experts=False
    )


def _machine(context: Context) -> MachineFacts:
    if context.plan is None:
        return MachineFacts(accelerator=context.accelerator)
    pool = context.plan.inputs.pool
    return MachineFacts(
        accelerator=context.accelerator or "cuda",
        gpu_memory_bytes=context.plan.stages[0].capacity_bytes,
        gpus_per_node=pool.gpus_per_node,
    )
