"""What each setting affects: the one table that `vdsgen diff` groups changes by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

Group = Literal["numerics", "memory", "speed", "housekeeping", "unknown"]
GROUPS: tuple[Group, ...] = ("numerics", "memory", "speed", "housekeeping", "unknown")
"""In the order they are shown. `unknown` is for keys that vdsgen does not render."""

ANYTHING = "*"


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change of one key means."""

    affects: tuple[Group, ...]
    """The first is the group it is shown in."""
    mirrors: tuple[str, ...] = ()
    """Keys that say the same in another file: where one of them changed too, this change adds nothing."""
    comes_with: tuple[str, ...] = ()
    """Keys that decide whether this one is there at all: where one of them changed, that this key comes or
    goes adds nothing."""


def _keys(
    names: str, *affects: Group, mirrors: tuple[str, ...] = (), comes_with: tuple[str, ...] = ()
) -> Mapping[str, Effect]:
    return {name: Effect(affects, mirrors, comes_with) for name in names.split()}


def _in(file: str, *parts: Mapping[str, Effect]) -> dict[str, Effect]:
    return {f"{file}:{key}": effect for part in parts for key, effect in part.items()}


DTYPE = ("plan.json:precision.dtype",)
STAGE = ("ds_config.json:zero_optimization.stage",)
SCHEDULER = ("ds_config.json:scheduler.type",)

DS_CONFIG = _in(
    "ds_config.json",
    _keys("train_batch_size", "numerics", "speed"),
    _keys("train_micro_batch_size_per_gpu gradient_accumulation_steps", "memory", "speed"),
    _keys("pipeline.stages pipeline.partition", "memory", "speed"),
    _keys("pipeline.tensor_parallel_size pipeline.sequence_parallel_size", "memory", "speed"),
    _keys(
        "pipeline.pipe_partitioned pipeline.grad_partitioned",
        "speed",
        mirrors=("ds_config.json:pipeline.tensor_parallel_size",),
    ),
    _keys("pipeline.activation_checkpoint_interval pipeline.use_reentrant", "memory", "speed"),
    _keys("pipeline.stage_checkpoint_intervals pipeline.offload_activations", "memory", "speed"),
    _keys("pipeline.plain_layers pipeline.selective_layers", "memory", "speed"),
    _keys("pipeline.compress_activations", "numerics", "memory", "speed"),
    _keys("zero_optimization.stage", "memory", "speed"),
    _keys("zero_optimization.*", "memory", "speed", comes_with=STAGE + DTYPE),
    _keys("zero_optimization.reduce_scatter", "speed", comes_with=STAGE + DTYPE),
    _keys("vdsgen.optimizer_state_dtype vdsgen.linear_precision", "numerics", "memory", "speed"),
    _keys(
        "zero_allow_untested_optimizer",
        "housekeeping",
        mirrors=("ds_config.json:vdsgen.optimizer_state_dtype",),
    ),
    _keys("vdsgen.ema.*", "numerics", "memory", "speed", mirrors=("train.yaml:training.ema.*",)),
    _keys("vdsgen.schedule.*", "numerics", mirrors=("train.yaml:training.schedule.*",)),
    _keys("communication_data_type vdsgen.gradient_compression", "numerics", "memory", "speed"),
    _keys(
        "zero_optimization.zero_quantized_weights zero_optimization.zero_quantized_gradients",
        "numerics",
        "memory",
        "speed",
        comes_with=STAGE,
    ),
    _keys("zero_optimization.round_robin_gradients", "speed", comes_with=STAGE + DTYPE),
    _keys("fp16.enabled bf16.enabled", "numerics", "memory", "speed", mirrors=DTYPE),
    _keys("fp16.*", "numerics", comes_with=DTYPE + STAGE),
    _keys(
        "fp16.initial_scale_power",
        "numerics",
        mirrors=("train.yaml:training.loss_scaling.initial_loss_scale",),
        comes_with=DTYPE,
    ),
    _keys("bf16.immediate_grad_update", "memory", comes_with=DTYPE + STAGE),
    _keys(
        "data_types.grad_accum_dtype",
        "numerics",
        "memory",
        mirrors=("plan.json:precision.gradient_accumulation_dtype",),
        comes_with=DTYPE,
    ),
    _keys("optimizer.type", "numerics", "memory"),
    _keys("optimizer.params.*", "numerics"),
    _keys("optimizer.params.torch_adam optimizer.params.fused", "memory", "speed"),
    _keys("scheduler.type", "numerics"),
    _keys("scheduler.params.*", "numerics", comes_with=SCHEDULER),
    _keys("scheduler.params.warmup_num_steps", "numerics"),
    _keys(
        "scheduler.params.warmup_max_lr",
        "numerics",
        mirrors=("ds_config.json:optimizer.params.lr",),
        comes_with=SCHEDULER,
    ),
    _keys(
        "scheduler.params.total_num_steps",
        "numerics",
        mirrors=("train.yaml:training.steps",),
        comes_with=SCHEDULER,
    ),
    _keys(
        "scheduler.params.cycle_max_lr scheduler.params.cycle_min_lr",
        "numerics",
        mirrors=("ds_config.json:optimizer.params.lr",),
        comes_with=SCHEDULER,
    ),
    _keys(
        "scheduler.params.cycle_second_step_size",
        "numerics",
        mirrors=("train.yaml:training.steps",),
        comes_with=SCHEDULER,
    ),
    _keys("gradient_clipping", "numerics"),
    _keys("steps_per_print", "housekeeping"),
    _keys("tensorboard.* csv_monitor.* wandb.* comet.*", "housekeeping"),
)


def _same(ours: str, theirs: str, *affects: Group) -> Mapping[str, Effect]:
    return {ours: Effect(affects, mirrors=(f"ds_config.json:{theirs}",))}


TRAIN = _in(
    "train.yaml",
    _keys("name model.name", "housekeeping"),
    _keys("model model.*", "numerics", "memory", "speed"),
    _keys("data.videos data.frame_rate data.crop data.random_flip", "numerics"),
    _keys("data.clips", "housekeeping"),
    _keys("data.frames data.height data.width data.buckets", "numerics", "memory", "speed"),
    _keys("data.latents.*", "numerics", "memory", "speed"),
    _keys("data.latents.path data.text_encoder.path", "numerics"),
    _keys("data.pipeline", "numerics", "memory", "speed"),
    _keys("data.text_encoder data.text_encoder.max_tokens", "numerics", "memory", "speed"),
    _keys("data.bucketing data.bucket_every", "numerics", "memory", "speed"),
    _keys("data.workers data.prefetch data.decoded_cache_mib", "speed"),
    _keys("data.cache data.cache.windows_per_clip data.cache.dtype", "numerics", "speed"),
    _keys("data.cache.folder data.cache.shard_mib", "housekeeping"),
    _same("training.global_batch_size", "train_batch_size", "numerics", "speed"),
    _keys("training.steps training.seed", "numerics"),
    _keys("training.method training.lora.rank training.lora.targets", "numerics", "memory", "speed"),
    _keys("training.lora.alpha", "numerics"),
    _keys("training.precision", "numerics", "memory", "speed", mirrors=DTYPE),
    _keys(
        "training.activation_precision",
        "numerics",
        "memory",
        "speed",
        mirrors=("plan.json:activation_checkpointing.compression",),
    ),
    _keys(
        "training.communication_precision",
        "numerics",
        "speed",
        mirrors=("plan.json:communication.*", "plan.json:zero.*"),
    ),
    _keys(
        "training.gradient_accumulation_dtype",
        "numerics",
        "memory",
        mirrors=("plan.json:precision.gradient_accumulation_dtype",),
    ),
    _keys("training.loss_scaling.initial_loss_scale", "numerics"),
    _same("training.loss_scaling.loss_scale_window", "fp16.loss_scale_window", "numerics"),
    _same("training.loss_scaling.minimum_loss_scale", "fp16.min_loss_scale", "numerics"),
    _same("training.loss_scaling.hysteresis", "fp16.hysteresis", "numerics"),
    _same("training.gradient_clipping", "gradient_clipping", "numerics"),
    _same("training.optimizer.type", "optimizer.type", "numerics", "memory"),
    _same("training.optimizer.learning_rate", "optimizer.params.lr", "numerics"),
    _same("training.optimizer.beta1", "optimizer.params.betas", "numerics"),
    _same("training.optimizer.beta2", "optimizer.params.betas", "numerics"),
    _same("training.optimizer.epsilon", "optimizer.params.eps", "numerics"),
    _same("training.optimizer.weight_decay", "optimizer.params.weight_decay", "numerics"),
    _same("training.schedule.type", "scheduler.type", "numerics"),
    _keys("training.schedule.decay_from_step", "numerics"),
    _keys(
        "training.schedule.final_fraction",
        "numerics",
        mirrors=(
            "ds_config.json:scheduler.params.cos_min_ratio",
            "ds_config.json:scheduler.params.total_num_steps",
            "ds_config.json:scheduler.params.cycle_min_lr",
        ),
    ),
    _same("training.schedule.warmup_steps", "scheduler.params.warmup_num_steps", "numerics"),
    _keys("training.diffusion.*", "numerics"),
    _keys("training.saving.* training.sampling.* training.monitoring.* training.alarms.*", "housekeeping"),
    _keys("training.validation", "numerics"),
    _keys("training.validation.*", "housekeeping"),
    _keys("training.validation.videos training.validation.fraction", "numerics"),
    _keys("training.start_from", "numerics"),
    _same("training.optimizer.state_dtype", "vdsgen.optimizer_state_dtype", "numerics", "memory", "speed"),
    _same("training.linear_precision", "vdsgen.linear_precision", "numerics", "memory", "speed"),
    _keys("training.ema training.ema.*", "numerics", "memory", "speed"),
    _keys("constraints.* objective", "housekeeping"),
)

PLAN = _in(
    "plan.json",
    _keys("schema_version generator", "housekeeping"),
    _keys("inputs.experiment_sha256 inputs.lab_sha256", "housekeeping", mirrors=(ANYTHING,)),
    _keys("inputs.profile_sha256", "memory", "speed", mirrors=("train.yaml:model.*",)),
    _keys("inputs.pool.name inputs.pool.hosts inputs.pool.price_per_gpu_hour", "housekeeping"),
    _keys("inputs.pool.launcher inputs.pool.slurm inputs.pool.slurm.*", "housekeeping"),
    _keys("inputs.pool.kubernetes inputs.pool.kubernetes.*", "housekeeping"),
    _keys("inputs.pool.gpus inputs.pool.free_gpus", "memory", "speed"),
    _keys("inputs.pool.groups", "memory", "speed"),
    _keys("inputs.pool.gpu inputs.pool.gpu.*", "memory", "speed"),
    _keys("inputs.pool.nodes inputs.pool.gpus_per_node", "memory", "speed"),
    _keys("inputs.pool.intra_node inputs.pool.intra_node.*", "speed"),
    _keys("inputs.pool.inter_node inputs.pool.inter_node.*", "speed"),
    _keys("inputs.pool.network_cards inputs.pool.gpus_per_host_link", "speed"),
    _keys("inputs.pool.host_link inputs.pool.host_link.*", "speed"),
    _keys("inputs.pool.host_memory_bandwidth_gb_per_second", "speed"),
    _keys("inputs.pool.host_memory_gib inputs.pool.memory_reserve_fraction", "memory"),
    _keys("inputs.pool.cpu_cores inputs.pool.nvme inputs.pool.nvme.*", "speed"),
    _keys("inputs.pool.calibration inputs.pool.calibration.*", "speed"),
    _keys("inputs.pool.failures inputs.pool.failures.*", "housekeeping"),
    _keys("inputs.pool.restarts inputs.pool.restarts.* inputs.pool.hang_seconds", "housekeeping"),
    _keys("inputs.pool.checkpoint_storage inputs.pool.checkpoint_storage.*", "housekeeping"),
    _keys("pool", "housekeeping", mirrors=("plan.json:inputs.pool.name",)),
    _keys("nodes", "memory", "speed"),
    _keys("model.name", "housekeeping", mirrors=("train.yaml:model.name",)),
    _keys(
        "model.parameters model.trainable_parameters", "numerics", "memory", mirrors=("train.yaml:model.*",)
    ),
    _keys("model.layers", "numerics", "memory", mirrors=("train.yaml:model.depth",)),
    _keys("parallel.world_size", "memory", "speed"),
    _same("parallel.pipeline_parallel_size", "pipeline.stages", "memory", "speed"),
    _keys("parallel.data_parallel_size", "memory", "speed"),
    _same("parallel.tensor_parallel_size", "pipeline.tensor_parallel_size", "memory", "speed"),
    _same("parallel.sequence_parallel_size", "pipeline.sequence_parallel_size", "memory", "speed"),
    _same("batch.micro_batch_size", "train_micro_batch_size_per_gpu", "memory", "speed"),
    _same("batch.gradient_accumulation_steps", "gradient_accumulation_steps", "memory", "speed"),
    _same("batch.global_batch_size", "train_batch_size", "numerics", "speed"),
    _same("zero.stage", "zero_optimization.stage", "memory", "speed"),
    _keys("zero.offload_optimizer zero.offload_parameters", "memory", "speed"),
    _same("zero.reduce_bucket_elements", "zero_optimization.reduce_bucket_size", "memory", "speed"),
    _same("zero.allgather_bucket_elements", "zero_optimization.allgather_bucket_size", "memory", "speed"),
    _same("activation_checkpointing.interval", "pipeline.activation_checkpoint_interval", "memory", "speed"),
    _same("activation_checkpointing.plain_layers", "pipeline.plain_layers", "memory", "speed"),
    _same("activation_checkpointing.selective_layers", "pipeline.selective_layers", "memory", "speed"),
    _same(
        "activation_checkpointing.compression",
        "pipeline.compress_activations",
        "numerics",
        "memory",
        "speed",
    ),
    _same("activation_checkpointing.offload", "pipeline.offload_activations", "memory", "speed"),
    _same(
        "activation_checkpointing.stage_intervals", "pipeline.stage_checkpoint_intervals", "memory", "speed"
    ),
    _same(
        "zero.quantized_weights", "zero_optimization.zero_quantized_weights", "numerics", "memory", "speed"
    ),
    _same(
        "zero.quantized_gradients",
        "zero_optimization.zero_quantized_gradients",
        "numerics",
        "memory",
        "speed",
    ),
    _same("zero.hierarchical_partition_size", "zero_optimization.zero_hpz_partition_size", "memory", "speed"),
    _same("communication.dtype", "communication_data_type", "numerics", "memory", "speed"),
    _same("communication.gradient_compression", "vdsgen.gradient_compression", "numerics", "memory", "speed"),
    _same("precision.moments", "vdsgen.optimizer_state_dtype", "numerics", "memory", "speed"),
    _same("precision.linear", "vdsgen.linear_precision", "numerics", "memory", "speed"),
    _same("ema.device", "vdsgen.ema.device", "memory", "speed"),
    _same("ema.every_steps", "vdsgen.ema.every_steps", "memory", "speed"),
    _keys("precision.dtype", "numerics", "memory", "speed"),
    _keys("precision.gradient_accumulation_dtype", "numerics", "memory", mirrors=DTYPE),
    _keys(
        "precision.initial_loss_scale",
        "numerics",
        mirrors=(*DTYPE, "train.yaml:training.loss_scaling.initial_loss_scale"),
    ),
    _keys(
        "precision.loss_scale_window",
        "numerics",
        mirrors=(*DTYPE, "ds_config.json:fp16.loss_scale_window"),
    ),
    _keys("saving saving.*", "housekeeping", mirrors=(ANYTHING,)),
    _keys("reasons search explanations", "housekeeping", mirrors=(ANYTHING,)),
)

WHOLE_FILES = {
    "launch.sh:": Effect(("housekeeping",)),
    "hostfile:": Effect(("housekeeping",)),
    "train.sbatch:": Effect(("housekeeping",)),
    "pytorchjob.yaml:": Effect(("housekeeping",)),
    "PLAN.md:": Effect(("housekeeping",), mirrors=(ANYTHING,)),
}
"""Files that are compared as text."""

EFFECTS: Mapping[str, Effect] = {**DS_CONFIG, **TRAIN, **PLAN, **WHOLE_FILES}
"""`FILE:key.path` -> effect. A last `*` stands for one or more parts; the longest that fits counts."""

UNKNOWN = Effect(("unknown",))


@cache
def effect_of(key: str) -> Effect:
    """The effect of `FILE:key.path`; `UNKNOWN` where the table has none."""
    if key in EFFECTS:
        return EFFECTS[key]
    fitting = [pattern for pattern in EFFECTS if fits(key, pattern)]
    return EFFECTS[max(fitting, key=len)] if fitting else UNKNOWN


def fits(key: str, pattern: str) -> bool:
    """Whether `pattern` is the key, ends in `.*` where the key goes on, or is `*`."""
    return pattern in (key, ANYTHING) or (pattern.endswith(".*") and key.startswith(pattern[:-1]))


def follows_from(key: str, comes_or_goes: bool, changed: Iterable[str]) -> str | None:
    """The changed key that this change only repeats, or None where it says something of its own."""
    effect = effect_of(key)
    patterns = effect.mirrors + (effect.comes_with if comes_or_goes else ())
    for other in changed:
        if other != key and any(fits(other, pattern) for pattern in patterns):
            return other
    return None
