"""Keys of ds_config.json that a plan or the experiment decides, and where one says what one wants instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SIZED = "leave it out: it is sized by the memory that the plan leaves"
UNREADABLE = "leave it out: DeepSpeed writes checkpoints with it that no other layout can read"
ENTRYPOINT = "leave it out: the training entrypoint rests on it"


def _pin(key: str) -> str:
    return f"pin constraints.{key} instead"


def _say(key: str) -> str:
    return f"say it as training.{key} instead"


PLANNED: Mapping[str, str] = {
    "train_batch_size": _say("global_batch_size"),
    "train_micro_batch_size_per_gpu": _pin("micro_batch_size"),
    "gradient_accumulation_steps": _pin("gradient_accumulation_steps"),
    "pipeline": ENTRYPOINT,
    "pipeline.stages": _pin("pipeline_parallel_size"),
    "pipeline.partition": _pin("pipeline_parallel_size"),
    "pipeline.activation_checkpoint_interval": _pin("activation_checkpoint_interval"),
    "pipeline.stage_checkpoint_intervals": _pin("activation_checkpoint_interval"),
    "pipeline.plain_layers": _pin("activation_checkpoint_interval"),
    "pipeline.selective_layers": _pin("recompute"),
    "pipeline.compress_activations": _pin("activation_compression"),
    "pipeline.offload_activations": _pin("offload_activations"),
    "pipeline.tensor_parallel_size": _pin("tensor_parallel_size"),
    "pipeline.sequence_parallel_size": _pin("sequence_parallel_size"),
    "activation_checkpointing": _pin("activation_checkpoint_interval"),
    "tensor_parallel": _pin("tensor_parallel_size"),
    "sequence_parallel_size": _pin("sequence_parallel_size"),
    "zero_optimization.stage": _pin("zero_stage"),
    "zero_optimization.offload_optimizer": _pin("offload_optimizer"),
    "zero_optimization.cpu_offload": _pin("offload_optimizer"),
    "zero_optimization.offload_param": _pin("offload_parameters"),
    "zero_optimization.cpu_offload_params": _pin("offload_parameters"),
    "zero_optimization.round_robin_gradients": UNREADABLE,
    "zero_optimization.reduce_bucket_size": SIZED,
    "zero_optimization.allgather_bucket_size": SIZED,
    "zero_optimization.zero_quantized_weights": _pin("zero_quantized_weights"),
    "zero_optimization.zero_quantized_gradients": _pin("zero_quantized_gradients"),
    "zero_optimization.zero_hpz_partition_size": _pin("hierarchical_partition_size"),
    "zero_allow_untested_optimizer": _say("optimizer.state_dtype"),
    "fp16": _say("loss_scaling"),
    "fp16.enabled": _say("precision"),
    "fp16.initial_scale_power": _say("loss_scaling.initial_loss_scale"),
    "fp16.loss_scale_window": _say("loss_scaling.loss_scale_window"),
    "fp16.min_loss_scale": _say("loss_scaling.minimum_loss_scale"),
    "fp16.hysteresis": _say("loss_scaling.hysteresis"),
    "bf16": _say("precision"),
    "bfloat16": _say("precision"),
    "amp": _say("precision"),
    "torch_autocast": _say("precision"),
    "data_types": _say("gradient_accumulation_dtype"),
    "communication_data_type": _pin("communication_dtype"),
    "optimizer": _say("optimizer"),
    "optimizer.type": _say("optimizer.type"),
    "optimizer.params.lr": _say("optimizer.learning_rate"),
    "optimizer.params.betas": _say("optimizer.beta1 and beta2"),
    "optimizer.params.eps": _say("optimizer.epsilon"),
    "optimizer.params.weight_decay": _say("optimizer.weight_decay"),
    "scheduler": _say("schedule"),
    "scheduler.params.warmup_max_lr": _say("optimizer.learning_rate"),
    "scheduler.params.warmup_num_steps": _say("schedule.warmup_steps"),
    "scheduler.params.total_num_steps": _say("steps"),
    "gradient_clipping": _say("gradient_clipping"),
    "tensorboard": _say("monitoring.tensorboard"),
    "csv_monitor": _say("monitoring.csv"),
    "wandb": _say("monitoring.wandb"),
    "comet": _say("monitoring.comet"),
    "vdsgen": ENTRYPOINT,
    "vdsgen.gradient_compression": _pin("gradient_compression"),
    "vdsgen.ema": _say("ema"),
    "vdsgen.optimizer_state_dtype": _say("optimizer.state_dtype"),
    "vdsgen.linear_precision": _say("linear_precision"),
    "vdsgen.schedule": _say("schedule"),
}
"""Dotted key, with all below it -> what to do instead; the longest that fits counts."""


def instead_of(key: str) -> str | None:
    """What to do instead of setting this dotted key; None where nothing decides it but the lab."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        known = PLANNED.get(".".join(parts[:length]))
        if known is not None:
            return known
    return None


def leaves(config: Mapping[str, Any], under: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value) of everything that is no mapping, and of empty mappings."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*under, key))
        else:
            yield (*under, key), value


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with what `above` sets; mappings are merged key by key, new keys come last."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        result[key] = (
            merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
        )
    return result
