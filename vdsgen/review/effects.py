"""What each setting affects: the one table that `vdsgen diff` groups changes by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache

from vdsgen.review.effect import ANYTHING, Effect, Group, effect_in, effects, fits, in_file
from vdsgen.review.engine_effects import DS_CONFIG, DTYPE


def _same(ours: str, theirs: str, *affects: Group) -> Mapping[str, Effect]:
    """What another file says too: as it affects there."""
    key = f"ds_config.json:{theirs}"
    effect = effect_in(DS_CONFIG, key)
    assert effect is not None, f"{key} has no effect"
    return {ours: Effect(affects, effect.curve, mirrors=(key,))}


TRAIN = in_file(
    "train.yaml",
    effects("name model.name", "housekeeping"),
    effects("model model.*", "numerics", "memory", "speed"),
    effects("data.videos data.frame_rate data.crop data.random_flip", "numerics"),
    effects("data.clips", "housekeeping"),
    effects("data.frames data.height data.width data.buckets", "numerics", "memory", "speed"),
    effects("data.latents.*", "numerics", "memory", "speed"),
    effects("data.latents.path data.text_encoder.path", "numerics"),
    effects("data.pipeline", "numerics", "memory", "speed"),
    effects("data.text_encoder data.text_encoder.max_tokens", "numerics", "memory", "speed"),
    effects("data.bucketing data.bucket_every", "numerics", "memory", "speed"),
    effects("data.workers data.prefetch data.decoded_cache_mib", "speed"),
    effects("data.cache data.cache.windows_per_clip data.cache.dtype", "numerics", "speed"),
    effects("data.cache.folder data.cache.shard_mib", "housekeeping"),
    _same("training.global_batch_size", "train_batch_size", "numerics", "speed"),
    effects("training.seed", "numerics"),
    effects("training.steps", "numerics", curve="identical"),
    effects("training.method training.lora.rank training.lora.targets", "numerics", "memory", "speed"),
    effects("training.lora.alpha", "numerics"),
    effects("training.precision", "numerics", "memory", "speed", mirrors=DTYPE),
    effects(
        "training.activation_precision",
        "numerics",
        "memory",
        "speed",
        mirrors=("plan.json:activation_checkpointing.compression",),
    ),
    effects(
        "training.communication_precision",
        "numerics",
        "speed",
        curve="rounding",
        mirrors=("plan.json:communication.*", "plan.json:zero.*"),
    ),
    effects(
        "training.gradient_accumulation_dtype",
        "numerics",
        "memory",
        curve="rounding",
        mirrors=("plan.json:precision.gradient_accumulation_dtype",),
    ),
    effects("training.loss_scaling.initial_loss_scale", "numerics"),
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
    effects("training.schedule.decay_from_step", "numerics"),
    effects(
        "training.schedule.final_fraction",
        "numerics",
        mirrors=(
            "ds_config.json:scheduler.params.cos_min_ratio",
            "ds_config.json:scheduler.params.total_num_steps",
            "ds_config.json:scheduler.params.cycle_min_lr",
        ),
    ),
    _same("training.schedule.warmup_steps", "scheduler.params.warmup_num_steps", "numerics"),
    effects("training.diffusion.*", "numerics"),
    effects("training.saving.* training.sampling.* training.monitoring.* training.alarms.*", "housekeeping"),
    effects("training.validation", "numerics"),
    effects("training.validation.*", "housekeeping"),
    effects("training.validation.videos training.validation.fraction", "numerics"),
    effects("training.start_from", "numerics"),
    _same("training.optimizer.state_dtype", "vdsgen.optimizer_state_dtype", "numerics", "memory", "speed"),
    _same("training.linear_precision", "vdsgen.linear_precision", "numerics", "memory", "speed"),
    effects("training.ema training.ema.*", "numerics", "memory", "speed", curve="identical"),
    effects("constraints.* objective", "housekeeping"),
    effects("overrides.ds_config", "housekeeping"),
)

PLAN = in_file(
    "plan.json",
    effects("schema_version generator", "housekeeping"),
    effects("inputs.experiment_sha256 inputs.lab_sha256", "housekeeping", mirrors=(ANYTHING,)),
    effects("inputs.profile_sha256", "memory", "speed", mirrors=("train.yaml:model.*",)),
    effects("inputs.pool.name inputs.pool.hosts inputs.pool.price_per_gpu_hour", "housekeeping"),
    effects("inputs.pool.launcher inputs.pool.slurm inputs.pool.slurm.*", "housekeeping"),
    effects("inputs.pool.kubernetes inputs.pool.kubernetes.*", "housekeeping"),
    effects("inputs.pool.gpus inputs.pool.free_gpus", "memory", "speed"),
    effects("inputs.pool.groups", "memory", "speed"),
    effects("inputs.pool.gpu inputs.pool.gpu.*", "memory", "speed", curve="rounding"),
    effects("inputs.pool.nodes inputs.pool.gpus_per_node", "memory", "speed"),
    effects("inputs.pool.intra_node inputs.pool.intra_node.*", "speed"),
    effects("inputs.pool.inter_node inputs.pool.inter_node.*", "speed"),
    effects("inputs.pool.network_cards inputs.pool.gpus_per_host_link", "speed"),
    effects("inputs.pool.host_link inputs.pool.host_link.*", "speed"),
    effects("inputs.pool.host_memory_bandwidth_gb_per_second", "speed"),
    effects("inputs.pool.host_memory_gib inputs.pool.memory_reserve_fraction", "memory"),
    effects("inputs.pool.cpu_cores inputs.pool.nvme inputs.pool.nvme.*", "speed"),
    effects("inputs.pool.calibration inputs.pool.calibration.*", "speed"),
    effects("inputs.pool.failures inputs.pool.failures.*", "housekeeping"),
    effects("inputs.pool.restarts inputs.pool.restarts.* inputs.pool.hang_seconds", "housekeeping"),
    effects("inputs.pool.checkpoint_storage inputs.pool.checkpoint_storage.*", "housekeeping"),
    effects("pool", "housekeeping", mirrors=("plan.json:inputs.pool.name",)),
    effects("nodes", "memory", "speed"),
    effects("model.name", "housekeeping", mirrors=("train.yaml:model.name",)),
    effects(
        "model.parameters model.trainable_parameters", "numerics", "memory", mirrors=("train.yaml:model.*",)
    ),
    effects("model.layers", "numerics", "memory", mirrors=("train.yaml:model.depth",)),
    effects("parallel.world_size", "memory", "speed", curve="rounding"),
    _same("parallel.pipeline_parallel_size", "pipeline.stages", "memory", "speed"),
    effects("parallel.data_parallel_size", "memory", "speed", curve="rounding"),
    _same("parallel.tensor_parallel_size", "pipeline.tensor_parallel_size", "memory", "speed"),
    _same("parallel.sequence_parallel_size", "pipeline.sequence_parallel_size", "memory", "speed"),
    _same("batch.micro_batch_size", "train_micro_batch_size_per_gpu", "memory", "speed"),
    _same("batch.gradient_accumulation_steps", "gradient_accumulation_steps", "memory", "speed"),
    _same("batch.global_batch_size", "train_batch_size", "numerics", "speed"),
    _same("zero.stage", "zero_optimization.stage", "memory", "speed"),
    _same("zero.offload_optimizer", "zero_optimization.offload_optimizer.device", "memory", "speed"),
    _same("zero.offload_parameters", "zero_optimization.offload_param.*", "memory", "speed"),
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
    effects("ema.device", "memory", "speed", mirrors=("ds_config.json:vdsgen.ema.device",)),
    effects("ema.every_steps", "memory", "speed", mirrors=("ds_config.json:vdsgen.ema.every_steps",)),
    effects("precision.dtype", "numerics", "memory", "speed"),
    effects("precision.gradient_accumulation_dtype", "numerics", "memory", curve="rounding", mirrors=DTYPE),
    effects(
        "precision.initial_loss_scale",
        "numerics",
        mirrors=(*DTYPE, "train.yaml:training.loss_scaling.initial_loss_scale"),
    ),
    effects(
        "precision.loss_scale_window",
        "numerics",
        mirrors=(*DTYPE, "ds_config.json:fp16.loss_scale_window"),
    ),
    effects("saving saving.*", "housekeeping", mirrors=(ANYTHING,)),
    effects("reasons search explanations", "housekeeping", mirrors=(ANYTHING,)),
)

WHOLE_FILES = {
    "launch.sh:": Effect(("housekeeping",), "identical"),
    "hostfile:": Effect(("housekeeping",), "identical"),
    "train.sbatch:": Effect(("housekeeping",), "identical"),
    "pytorchjob.yaml:": Effect(("housekeeping",), "identical"),
    "PLAN.md:": Effect(("housekeeping",), "identical", mirrors=(ANYTHING,)),
}
"""Files that are compared as text."""

EFFECTS: Mapping[str, Effect] = {**DS_CONFIG, **TRAIN, **PLAN, **WHOLE_FILES}
"""`FILE:key.path` -> effect. A last `*` stands for one or more parts; the longest that fits counts."""

UNKNOWN = Effect(("unknown",), "identical")
"""DeepSpeed drops keys that it does not know."""


OVERRIDDEN = "train.yaml:overrides.ds_config."
"""A lab's own settings of ds_config.json."""


@cache
def effect_of(key: str) -> Effect:
    """The effect of `FILE:key.path`; `UNKNOWN` where the table has none."""
    if key.startswith(OVERRIDDEN):
        # What the merged config says there counts; that it stands in the experiment adds nothing.
        there = f"ds_config.json:{key.removeprefix(OVERRIDDEN)}"
        return replace(effect_of(there), mirrors=(there,))
    return effect_in(EFFECTS, key) or UNKNOWN


def follows_from(key: str, comes_or_goes: bool, changed: Iterable[str]) -> str | None:
    """The changed key that this change only repeats, or None where it says something of its own."""
    effect = effect_of(key)
    patterns = effect.mirrors + (effect.comes_with if comes_or_goes else ())
    for other in changed:
        if other != key and any(fits(other, pattern) for pattern in patterns):
            return other
    return None
