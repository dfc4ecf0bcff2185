"""What rules look at: a configuration, whoever made it, as one tuple of facts.

A fact holds what the engine works with: what its JSON key says, else the engine's own default where the
whole configuration is known. None: not known, and rules that need it pass. Facts that belong together have
a tuple of their own; a tuple in which nothing is known costs nothing, as its rules are skipped.

`given` and `automatic` are about the file itself: rules on keys that do nothing need to know which are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from vdsgen.spec.dtypes import Dtype

Device = Literal["none", "cpu", "nvme"]
"""Where the engine may offload to; `none` for no offload."""


class ZeroFacts(NamedTuple):
    """`zero_optimization` without its stage, offload and ZenFlow. Each by its key, less `stage3_` and
    `zero_`; sizes are numbers of elements."""

    reduce_scatter: bool | None = None
    contiguous_gradients: bool | None = None
    overlap_comm: bool | None = None
    """Where the key is missing: true at stage 3, else false."""
    reduce_bucket_elements: int | None = None
    allgather_bucket_elements: int | None = None
    allgather_partitions: bool | None = None
    use_multi_rank_bucket_allreduce: bool | None = None
    round_robin_gradients: bool | None = None
    ignore_unused_parameters: bool | None = None
    compute_grad_norm: bool | None = None
    parameter_alignment: bool | None = None
    elastic_checkpoint: bool | None = None
    legacy_stage1: bool | None = None
    sub_group_elements: int | None = None
    prefetch_bucket_elements: int | None = None
    """`stage3_prefetch_bucket_size`"""
    parameter_persistence_threshold: int | None = None
    """`stage3_param_persistence_threshold`"""
    model_persistence_threshold: int | None = None
    max_live_parameters: int | None = None
    max_reuse_distance: int | None = None
    module_granularity_threshold: int | None = None
    allgather_sequential: bool | None = None
    gather_16bit_weights_on_model_save: bool | None = None
    pipeline_loading_checkpoint: bool | None = None
    hpz_partition_size: int | None = None
    quantized_weights: bool | None = None
    quantized_nontrainable_weights: bool | None = None
    quantized_gradients: bool | None = None
    save_muon_momentum_buffer_in_memory: bool | None = None


class OffloadFacts(NamedTuple):
    """`zero_optimization.offload_optimizer` and `.offload_param`; the deprecated `cpu_offload` and
    `cpu_offload_param` count as device cpu."""

    optimizer: Device | None = None
    optimizer_nvme_path: str | None = None
    """Empty: known to be missing."""
    optimizer_pin_memory: bool | None = None
    optimizer_ratio: float | None = None
    optimizer_buffer_count: int | None = None
    optimizer_pipelined: bool | None = None
    """`pipeline_read` or `pipeline_write`."""
    optimizer_fast_init: bool | None = None
    super_offload: bool | None = None
    cpuadam_cores_fraction: float | None = None
    """`cpuadam_cores_perc`"""
    parameters: Device | None = None
    parameter_nvme_path: str | None = None
    """Empty: known to be missing."""
    parameter_pin_memory: bool | None = None
    parameter_buffer_count: int | None = None
    parameter_buffer_elements: int | None = None
    parameter_max_in_cpu: int | None = None


class ZenFlowFacts(NamedTuple):
    """`zero_optimization.zenflow`."""

    present: bool | None = None
    """Whether the section is there: it has no `enabled`."""
    select_strategy: str | None = None
    select_interval: int | Literal["auto"] | None = None
    update_interval: int | Literal["auto"] | None = None
    offload: bool | None = None
    overlap_step: bool | None = None


class PrecisionFacts(NamedTuple):
    """`fp16`, `bf16` (or `bfloat16`), `torch_autocast` and `data_types`, less what decides the dtypes."""

    loss_scale: float | None = None
    """0: dynamic."""
    initial_scale_power: int | None = None
    loss_scale_window: int | None = None
    hysteresis: int | None = None
    consecutive_hysteresis: bool | None = None
    min_loss_scale: int | None = None
    fp16_auto_cast: bool | None = None
    fp16_master_weights_and_grads: bool | None = None
    bf16_master_weights_and_grads: bool | None = None
    bf16_optimizer_states: bool | None = None
    bf16_immediate_grad_update: bool | None = None
    bf16_check_grad_overflow: bool | None = None
    autocast_enabled: bool | None = None
    autocast_dtype: str | None = None
    parameter_dtype: str | None = None
    """`data_types.param_dtype` as written; None also where it is missing."""
    linear: str | None = None
    """`vdsgen.linear_precision`: what the trainer multiplies linear layers in."""


class OptimizerFacts(NamedTuple):
    """`optimizer` and the keys beside it."""

    type: str | None = None
    """As written; empty where the file names none."""
    params: Mapping[str, Any] | None = None
    """As written; empty where there are none."""
    client: bool | None = None
    """Whether the training code hands `deepspeed.initialize` an optimizer."""
    legacy_fusion: bool | None = None
    allow_untested: bool | None = None
    """`zero_allow_untested_optimizer`"""
    force_ds_cpu_optimizer: bool | None = None
    """`zero_force_ds_cpu_optimizer`"""
    gradient_clipping: float | None = None
    """0: none."""


class SchedulerFacts(NamedTuple):
    """`scheduler`."""

    type: str | None = None
    """As written; empty where the file names none."""
    params: Mapping[str, Any] | None = None
    client: bool | None = None
    """Whether the training code hands `deepspeed.initialize` a learning rate scheduler."""


class CommunicationFacts(NamedTuple):
    """How gradients are reduced."""

    dtype: str | None = None
    """`communication_data_type` as written, lower case; empty where it is missing."""
    sequence_parallel_dtype: str | None = None
    """`seq_parallel_communication_data_type` as written, lower case."""
    prescale_gradients: bool | None = None
    predivide_factor: float | None = None
    allreduce_op: str | None = None
    """`gradient_allreduce_op` as written, lower case."""
    disable_allgather: bool | None = None
    gradient_compression: str | None = None
    """Of the trainer's own, in the section `vdsgen`."""


class PipelineFacts(NamedTuple):
    """`pipeline`, and what the training code tells PipelineModule."""

    is_pipeline: bool | None = None
    """Whether the model is a PipelineModule: the engine then takes its PipelineEngine, at one stage too."""
    managed_gradient_accumulation: bool | None = None
    use_reentrant: bool | None = None
    partition_method: str | None = None
    """Of PipelineModule, lower case; the JSON's `pipeline.partition` is never read."""
    dual_pipe_v: bool | None = None
    trainer_reads_section: bool | None = None
    """Whether the training code itself reads `pipeline.stages` and the like, as this project's does."""


class CheckpointingFacts(NamedTuple):
    """`activation_checkpointing`."""

    partition_activations: bool | None = None
    contiguous_memory_optimization: bool | None = None
    cpu_checkpointing: bool | None = None
    number_checkpoints: int | None = None
    """0: none given."""
    synchronize_checkpoint_boundary: bool | None = None
    profile: bool | None = None
    configured: bool | None = None
    """Whether the training code calls deepspeed.checkpointing.configure: the engine does not."""


class SavingFacts(NamedTuple):
    """`checkpoint`, and the checkpoint that a run starts from."""

    tag_validation: str | None = None
    """As written."""
    load_universal: bool | None = None
    parallel_write_pipeline: Any = None
    """`checkpoint.parallel_write.pipeline_stage` as written."""
    writer: bool | None = None
    """Whether there is a `checkpoint.writer`."""
    writer_unit: str | None = None
    """`checkpoint.writer.data_parallel`."""
    resumed_data_parallel_size: int | None = None
    """Of the run that wrote the checkpoint that this one resumes from."""


class CompileFacts(NamedTuple):
    """`compile`: DeepCompile."""

    deepcompile: bool | None = None
    autoep_non_moe: bool | None = None
    offload_activation: bool | None = None
    offload_opt_states: bool | None = None
    offload_parameters: bool | None = None
    passes: tuple[str, ...] | None = None


class TensorParallelFacts(NamedTuple):
    """`tensor_parallel`: AutoTP. The trainer of this project splits its layers itself and has none."""

    autotp_size: int | None = None
    """0: off."""
    tp_size: int | None = None
    """`tensor_parallel.tp.tp_size`; 1 where it is missing."""
    vocab_parallel_lm_head: bool | None = None
    vocab_parallel_ce_backend: str | None = None


class MonitoringFacts(NamedTuple):
    """What the engine prints, times and profiles."""

    wall_clock_breakdown: bool | None = None
    memory_breakdown: bool | None = None
    dump_state: bool | None = None
    flops_profiler: bool | None = None
    comms_logger: bool | None = None
    steps_per_print: int | None = None


class ModelFacts(NamedTuple):
    """The model that is trained."""

    parameters: int | None = None
    trainable_parameters: int | None = None
    heads: int | None = None
    key_value_heads: int | None = None
    mlp_hidden_size: int | None = None
    tokens: int | None = None
    """Of one sample."""
    patch_rows: tuple[int, ...] | None = None
    """Rows of patches in a frame, of each size of clips."""
    latent_frames: tuple[int, ...] | None = None
    """Of each size of clips."""
    mixture_of_experts: bool | None = None


class MachineFacts(NamedTuple):
    """What the ranks run on."""

    accelerator: str | None = None
    """As DeepSpeed names it: cuda, cpu, xpu, ..."""
    gpu_memory_bytes: int | None = None
    gpus_per_node: int | None = None
    torch_version: tuple[int, int] | None = None
    launcher: str | None = None
    """Of the deepspeed command: pdsh, slurm, ..."""
    gpus_of_nodes: tuple[int, ...] | None = None
    """Ranks that each node starts, where nodes may differ."""


class Facts(NamedTuple):
    """A configuration as rules see it."""

    world_size: int | None = None
    pipeline_parallel_size: int | None = None
    data_parallel_size: int | None = None
    tensor_parallel_size: int | None = None
    sequence_parallel_size: int | None = None
    """Ranks that share each sample, in whatever way."""
    ulysses_parallel_size: int | None = None
    """`sequence_parallel_size` at the top level: the engine's own, of DeepSpeed-Ulysses. The trainer of this
    project shares samples in a way of its own (`pipeline.sequence_parallel_size`) and has none."""
    global_batch_size: int | None = None
    micro_batch_size: int | None = None
    gradient_accumulation_steps: int | None = None
    zero_stage: int | None = None
    activation_checkpoint_interval: int | None = None
    """Layers a segment; 0 for none."""
    fp16_enabled: bool | None = None
    bf16_enabled: bool | None = None
    gradient_accumulation_dtype: Dtype | None = None
    gpu: str | None = None
    """What messages call the GPU."""
    gpu_has_fp16: bool | None = None
    gpu_has_bf16: bool | None = None
    gpu_has_fp8: bool | None = None
    """As this project's trainer multiplies in it, for a model in bf16."""
    gpu_has_int8: bool | None = None
    blocks: int | None = None
    """Blocks of the whole model."""
    stage_blocks: tuple[int, ...] | None = None
    """Blocks of each pipeline stage."""
    zero: ZeroFacts = ZeroFacts()
    offload: OffloadFacts = OffloadFacts()
    zenflow: ZenFlowFacts = ZenFlowFacts()
    precision: PrecisionFacts = PrecisionFacts()
    optimizer: OptimizerFacts = OptimizerFacts()
    scheduler: SchedulerFacts = SchedulerFacts()
    communication: CommunicationFacts = CommunicationFacts()
    pipeline: PipelineFacts = PipelineFacts()
    checkpointing: CheckpointingFacts = CheckpointingFacts()
    saving: SavingFacts = SavingFacts()
    compile: CompileFacts = CompileFacts()
    tensor_parallel: TensorParallelFacts = TensorParallelFacts()
    monitoring: MonitoringFacts = MonitoringFacts()
    model: ModelFacts = ModelFacts()
    machine: MachineFacts = MachineFacts()
    given: frozenset[str] | None = None
    """JSON pointers of the keys that ds_config.json holds at any depth, sections and values alike
    ("/zero_optimization", "/zero_optimization/stage"); None where no file was read."""
    automatic: frozenset[str] | None = None
    """Those of `given` whose value is the string "auto", which trainers fill in before DeepSpeed sees it."""

    @property
    def dtype(self) -> Dtype | None:
        """The model's dtype; None where it is not known or contradictory."""
        if self.fp16_enabled is None or self.bf16_enabled is None:
            return None
        if self.fp16_enabled and self.bf16_enabled:
            return None
        return "fp16" if self.fp16_enabled else "bf16" if self.bf16_enabled else "fp32"

    @property
    def is_pipeline(self) -> bool | None:
        """Whether the engine is a PipelineEngine."""
        if self.pipeline.is_pipeline is None and self.pipeline_parallel_size is not None:
            return True if self.pipeline_parallel_size > 1 else None
        return self.pipeline.is_pipeline

    @property
    def uses_bf16_optimizer(self) -> bool | None:
        """Whether the engine wraps the optimizer in BF16_Optimizer (runtime/engine.py:2294-2322); it
        reads other keys than ZeRO's own optimizers do."""
        dtype, stage, accumulation = self.dtype, self.zero_stage, self.gradient_accumulation_dtype
        if dtype is None or stage is None:
            return None
        if dtype != "bf16" or stage > 1:
            return False
        if stage == 0:
            return self.is_pipeline
        return None if accumulation is None else accumulation == "fp32" and self.offload.optimizer != "cpu"


GROUPS: tuple[str, ...] = tuple(
    name for name, empty in Facts._field_defaults.items() if isinstance(empty, tuple)
)
"""The facts that are tuples of facts."""
