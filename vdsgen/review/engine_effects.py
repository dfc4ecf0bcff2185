"""What each key of a DeepSpeed config affects, those that the training entrypoint reads included."""

from __future__ import annotations

from vdsgen.review.effect import effects, in_file

DTYPE = ("plan.json:precision.dtype",)
STAGE = ("ds_config.json:zero_optimization.stage",)
SCHEDULER = ("ds_config.json:scheduler.type",)

DS_CONFIG = in_file(
    "ds_config.json",
    effects("train_batch_size", "numerics", "speed"),
    effects(
        "train_micro_batch_size_per_gpu gradient_accumulation_steps", "memory", "speed", curve="rounding"
    ),
    effects("pipeline.stages pipeline.partition", "memory", "speed", curve="rounding"),
    effects(
        "pipeline.tensor_parallel_size pipeline.sequence_parallel_size", "memory", "speed", curve="rounding"
    ),
    effects(
        "pipeline.pipe_partitioned pipeline.grad_partitioned",
        "speed",
        mirrors=("ds_config.json:pipeline.tensor_parallel_size",),
    ),
    effects("pipeline.activation_checkpoint_interval pipeline.use_reentrant", "memory", "speed"),
    effects("pipeline.stage_checkpoint_intervals pipeline.offload_activations", "memory", "speed"),
    effects("pipeline.plain_layers pipeline.selective_layers", "memory", "speed"),
    effects("pipeline.compress_activations", "numerics", "memory", "speed"),
    effects("zero_optimization.stage", "memory", "speed", curve="rounding"),
    effects("zero_optimization.*", "memory", "speed", comes_with=STAGE + DTYPE),
    effects("zero_optimization.reduce_scatter", "speed", curve="rounding", comes_with=STAGE + DTYPE),
    effects("vdsgen.optimizer_state_dtype vdsgen.linear_precision", "numerics", "memory", "speed"),
    effects(
        "zero_allow_untested_optimizer",
        "housekeeping",
        mirrors=("ds_config.json:vdsgen.optimizer_state_dtype",),
    ),
    effects(
        "vdsgen.ema.*",
        "numerics",
        "memory",
        "speed",
        curve="identical",
        mirrors=("train.yaml:training.ema.*",),
    ),
    effects("vdsgen.schedule.*", "numerics", mirrors=("train.yaml:training.schedule.*",)),
    effects(
        "communication_data_type vdsgen.gradient_compression",
        "numerics",
        "memory",
        "speed",
        curve="rounding",
        comes_with=DTYPE,
    ),
    effects(
        "zero_optimization.zero_quantized_weights zero_optimization.zero_quantized_gradients",
        "numerics",
        "memory",
        "speed",
        curve="rounding",
        comes_with=STAGE,
    ),
    effects("zero_optimization.round_robin_gradients", "speed", curve="rounding", comes_with=STAGE + DTYPE),
    effects(
        "zero_optimization.reduce_bucket_size zero_optimization.sub_group_size",
        "memory",
        "speed",
        curve="rounding",
        comes_with=STAGE + DTYPE,
    ),
    effects(
        "zero_optimization.offload_optimizer.device zero_optimization.offload_optimizer.ratio "
        "zero_optimization.offload_optimizer.super_offload zero_optimization.memory_efficient_linear",
        "memory",
        "speed",
        curve="rounding",
        comes_with=STAGE,
    ),
    effects(
        "zero_optimization.allgather_bucket_size zero_optimization.contiguous_gradients",
        "memory",
        "speed",
        comes_with=STAGE + DTYPE,
    ),
    effects("zero_optimization.overlap_comm", "speed", "memory", comes_with=STAGE + DTYPE),
    effects(
        "zero_optimization.offload_optimizer.* zero_optimization.offload_param.*",
        "memory",
        "speed",
        comes_with=(
            *STAGE,
            "ds_config.json:zero_optimization.offload_optimizer.device",
            "ds_config.json:zero_optimization.offload_param.device",
        ),
    ),
    effects("zero_optimization.zenflow zero_optimization.zenflow.*", "numerics", "memory", "speed"),
    effects(
        "zero_optimization.elastic_checkpoint zero_optimization.load_from_fp32_weights "
        "zero_optimization.pipeline_loading_checkpoint zero_optimization.legacy_stage1 "
        "zero_optimization.stage3_gather_16bit_weights_on_model_save "
        "zero_optimization.ignore_unused_parameters zero_optimization.log_trace_cache_warnings "
        "zero_optimization.enable_sanity_checks zero_optimization.override_module_apply "
        "zero_optimization.cpu_offload_use_pin_memory zero_optimization.allgather_partitions",
        "housekeeping",
        comes_with=STAGE,
    ),
    effects("zero_optimization.compute_grad_norm", "speed", comes_with=STAGE),
    effects("fp16.enabled bf16.enabled", "numerics", "memory", "speed", mirrors=DTYPE),
    effects("fp16.*", "numerics", comes_with=DTYPE + STAGE),
    effects(
        "fp16.initial_scale_power",
        "numerics",
        mirrors=("train.yaml:training.loss_scaling.initial_loss_scale",),
        comes_with=DTYPE,
    ),
    effects("bf16.immediate_grad_update", "memory", comes_with=DTYPE + STAGE),
    effects(
        "data_types.grad_accum_dtype",
        "numerics",
        "memory",
        curve="rounding",
        mirrors=("plan.json:precision.gradient_accumulation_dtype",),
        comes_with=DTYPE,
    ),
    effects("optimizer.type", "numerics", "memory"),
    effects("optimizer.params optimizer.params.*", "numerics", comes_with=("ds_config.json:optimizer.type",)),
    effects(
        "optimizer.params.torch_adam optimizer.params.fused optimizer.params.foreach",
        "memory",
        "speed",
        curve="rounding",
        comes_with=("ds_config.json:optimizer.type", "ds_config.json:optimizer.params.torch_adam"),
    ),
    effects("scheduler.type", "numerics"),
    effects("scheduler.params scheduler.params.*", "numerics", comes_with=SCHEDULER),
    effects("scheduler.params.warmup_num_steps", "numerics"),
    effects(
        "scheduler.params.warmup_max_lr",
        "numerics",
        mirrors=("ds_config.json:optimizer.params.lr",),
        comes_with=SCHEDULER,
    ),
    effects(
        "scheduler.params.total_num_steps",
        "numerics",
        mirrors=("train.yaml:training.steps",),
        comes_with=SCHEDULER,
    ),
    effects(
        "scheduler.params.cycle_max_lr scheduler.params.cycle_min_lr",
        "numerics",
        mirrors=("ds_config.json:optimizer.params.lr",),
        comes_with=SCHEDULER,
    ),
    effects(
        "scheduler.params.cycle_second_step_size",
        "numerics",
        mirrors=("train.yaml:training.steps",),
        comes_with=SCHEDULER,
    ),
    effects("gradient_clipping", "numerics"),
    effects("steps_per_print", "housekeeping"),
    effects("tensorboard.* csv_monitor.* wandb.* comet.*", "housekeeping"),
    effects("data_types.param_dtype data_types.keep_in_fp32_modules data_types.buffer_dtype", "numerics"),
    effects(
        "fp16.fp16_master_weights_and_grads bf16.bf16_master_weights_and_grads bf16.bf16_optimizer_states",
        "numerics",
        "memory",
        comes_with=DTYPE + STAGE,
    ),
    effects("bf16.check_grad_overflow", "numerics", comes_with=DTYPE + STAGE),
    effects("torch_autocast.*", "numerics", "memory", "speed"),
    effects("prescale_gradients gradient_predivide_factor", "numerics", curve="rounding"),
    effects("seq_parallel_communication_data_type", "numerics", "speed", curve="rounding"),
    effects("gradient_allreduce_op dataloader_drop_last managed_gradient_accumulation", "numerics"),
    effects("data_efficiency.* data_efficiency.data_sampling.curriculum_learning.*", "numerics", "speed"),
    effects(
        "data_efficiency.data_sampling.num_workers data_efficiency.data_sampling.pin_memory "
        "data_efficiency.data_sampling.dynamic_batching.verbose",
        "speed",
    ),
    effects("activation_checkpointing.*", "memory", "speed"),
    effects("pipeline.seed_layers", "numerics"),
    effects(
        "sequence_parallel_size data_parallel_size tensor_parallel.*", "memory", "speed", curve="rounding"
    ),
    effects("expert_parallel.*", "numerics", "memory", "speed"),
    effects("use_data_before_expert_parallelism", "speed", curve="rounding"),
    effects("compile.*", "speed", "memory", curve="rounding"),
    effects("compile.debug_log", "housekeeping"),
    effects("weight_quantization.*", "numerics", "memory"),
    effects("hybrid_engine.*", "speed", "memory"),
    effects("aio.* disable_python_gc disable_allgather timers.throughput.*", "speed"),
    effects("wall_clock_breakdown memory_breakdown comms_logger.* flops_profiler.*", "speed"),
    effects(
        "dump_state log_level vocabulary_size autotuning.* checkpoint.* datastates_ckpt "
        "zero_force_ds_cpu_optimizer optimizer.legacy_fusion",
        "housekeeping",
    ),
    effects(
        "amp compression_training curriculum_learning eigenvalue elasticity graph_harvesting nebula "
        "progressive_layer_drop quantize_training sparse_attention sparse_gradients "
        "zero_optimization.mics_shard_size zero_optimization.mics_hierarchical_params_gather "
        "zero_optimization.zeropp_loco_param",
        "housekeeping",
    ),
    effects(
        "amp.* compression_training.* curriculum_learning.* eigenvalue.* elasticity.* nebula.* "
        "progressive_layer_drop.* quantize_training.* sparse_attention.* "
        "zero_optimization.zeropp_loco_param.*",
        "housekeeping",
    ),
)
"""`FILE:key.path` -> effect, by keys' names of today. A last `*` stands for one or more parts; the longest
that fits counts. Keys that the engine has removed are refused (docs/rules.md), which a risk says."""
