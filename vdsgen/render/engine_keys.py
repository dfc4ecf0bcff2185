"""The keys of a DeepSpeed config that something reads: DeepSpeed drops unknown ones in silence.

Of DeepSpeed 0.19.8; a test compares them with the engine's own config classes.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

TOP_LEVEL = frozenset(
    {
        "activation_checkpointing",
        "aio",
        "autotuning",
        "bf16",
        "bfloat16",
        "checkpoint",
        "comet",
        "comms_logger",
        "communication_data_type",
        "compile",
        "csv_monitor",
        "data_efficiency",
        "data_types",
        "dataloader_drop_last",
        "datastates_ckpt",
        "disable_allgather",
        "disable_python_gc",
        "dump_state",
        "expert_parallel",
        "flops_profiler",
        "fp16",
        "gradient_accumulation_steps",
        "gradient_allreduce_op",
        "gradient_clipping",
        "gradient_predivide_factor",
        "hybrid_engine",
        "log_level",
        "managed_gradient_accumulation",
        "memory_breakdown",
        "optimizer",
        "pipeline",
        "prescale_gradients",
        "scheduler",
        "seq_parallel_communication_data_type",
        "steps_per_print",
        "tensor_parallel",
        "tensorboard",
        "timers",
        "torch_autocast",
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "use_data_before_expert_parallelism",
        "vocabulary_size",
        "wall_clock_breakdown",
        "wandb",
        "weight_quantization",
        "zero_allow_untested_optimizer",
        "zero_force_ds_cpu_optimizer",
        "zero_optimization",
    }
)
SECTIONS: Mapping[str, frozenset[str]] = {
    "pipeline": frozenset(
        {
            "stages",
            "partition",
            "activation_checkpoint_interval",
            "stage_checkpoint_intervals",
            "use_reentrant",
            "pipe_partitioned",
            "grad_partitioned",
        }
    ),
    "data_types": frozenset({"grad_accum_dtype", "param_dtype", "buffer_dtype", "keep_in_fp32_modules"}),
    "optimizer": frozenset({"type", "params", "legacy_fusion"}),
    "scheduler": frozenset({"type", "params"}),
}
"""Sections whose own keys DeepSpeed does not check. `zero_optimization`, `fp16` and `bf16` it does."""


def unread_keys(ds_config: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """(key path, the nearest key that is read, if any) for each key that neither the engine nor the training
    entrypoint reads."""
    found = [(key, _nearest(key, TOP_LEVEL)) for key in ds_config if key not in TOP_LEVEL]
    for section, known in SECTIONS.items():
        value = ds_config.get(section)
        if isinstance(value, Mapping):
            found += [(f"{section}.{key}", _nearest(key, known)) for key in value if key not in known]
    return found


def _nearest(key: str, known: frozenset[str]) -> str | None:
    return next(iter(difflib.get_close_matches(key, sorted(known), n=1)), None)
