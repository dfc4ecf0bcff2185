"""What DeepSpeed's source says about its keys only in passing, by JSON pointer.

Of DeepSpeed 0.19.8; files below deepspeed/. Keys that are not here have the type of their default. A test
fails where a key here is none of the engine's, and where one of the engine's has no type.
"""

from __future__ import annotations

from typing import Any

INT: dict[str, Any] = {"type": "int"}
FLOAT: dict[str, Any] = {"type": "float"}
BOOL: dict[str, Any] = {"type": "bool"}
TEXT: dict[str, Any] = {"type": "str"}
SECTION: dict[str, Any] = {"type": "section"}
DICT: dict[str, Any] = {"type": "dict"}
ANY: dict[str, Any] = {"type": "object"}
DTYPES = ["fp16", "bf16", "fp32"]
ANY_DTYPE = [  # runtime/config.py DtypeEnum, all names
    *("torch.float16", "fp16", "float16", "half", "torch.float32", "fp32", "float32", "float"),
    *("torch.int8", "int8", "torch.bfloat16", "bf16", "bfloat16"),
]
FLOAT_DTYPE = [name for name in ANY_DTYPE if not name.endswith("int8")]
"""A model in int8 is none that the engine trains (runtime/engine.py:1827, :2323)."""


def choice(*choices: str, **more: bool) -> dict[str, Any]:
    return {"type": "choice", "choices": list(choices), **more}


def named(pointer: str, names: str, entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{pointer}/{name}": entry for name in names.split()}


OPTIONAL_TEXT = {**TEXT, "optional": True}
OPTIONAL_INT = {**INT, "optional": True}

TYPES: dict[str, dict[str, Any]] = {
    **named(
        "",
        "activation_checkpointing aio autotuning bf16 bfloat16 checkpoint comet comms_logger compile "
        "csv_monitor data_efficiency data_types expert_parallel flops_profiler fp16 hybrid_engine optimizer "
        "pipeline scheduler tensor_parallel tensorboard timers torch_autocast wandb weight_quantization "
        "zero_optimization",
        SECTION,
    ),
    "/aio": {**SECTION, "optional": True},
    "/bf16": {**SECTION, "optional": True},
    "/checkpoint/parallel_write": SECTION,
    "/checkpoint/writer": {**SECTION, "optional": True},
    "/data_efficiency/data_routing": SECTION,
    "/data_efficiency/data_sampling": SECTION,
    "/data_efficiency/data_routing/random_ltd": SECTION,
    "/data_efficiency/data_sampling/curriculum_learning": SECTION,
    "/data_efficiency/data_sampling/dynamic_batching": SECTION,
    "/autotuning/model_info": {**SECTION, "optional": True},
    "/timers/throughput": SECTION,
    # runtime/config.py:590-640: compared with 0, multiplied, divided
    **named(
        "",
        "train_batch_size train_micro_batch_size_per_gpu gradient_accumulation_steps",
        {**OPTIONAL_INT, "gt": 0, "checked": True},
    ),
    # runtime/engine.py:3554 and runtime/config.py:718: a remainder; whole numbers are meant, and any does
    **named("", "steps_per_print vocabulary_size", {**FLOAT, "optional": True, "checked": True}),
    # runtime/config.py:469: divides the number of ranks
    "/sequence_parallel_size": {**INT, "gt": 0, "checked": True},
    # runtime/engine.py:3506, compared with 0; :3809, divides
    **named("", "gradient_clipping gradient_predivide_factor", {**FLOAT, "checked": True}),
    "/data_parallel_size": {**INT, "gt": 0},
    # runtime/config.py:204-218
    "/communication_data_type": {**choice(*DTYPES, optional=True), "any_case": True, "checked": True},
    "/seq_parallel_communication_data_type": {
        **choice(*DTYPES, optional=True),
        "any_case": True,
        "checked": True,
    },
    # runtime/config.py:229-237
    "/gradient_allreduce_op": {**choice("mean", "sum"), "any_case": True, "checked": True},
    # utils/logging.py:125
    "/log_level": {
        **choice("debug", "info", "warning", "error", "critical", optional=True),
        "any_case": True,
        "checked": True,
    },
    "/datastates_ckpt": ANY,
    # runtime/config.py:533: wall_clock_breakdown | flops_profiler.enabled
    "/wall_clock_breakdown": {**BOOL, "checked": True, "or_number": True},
    "/flops_profiler/enabled": {**BOOL, "checked": True, "or_number": True},
    "/activation_checkpointing/number_checkpoints": OPTIONAL_INT,
    "/autotuning/arg_mappings": {**DICT, "optional": True},
    "/autotuning/max_train_batch_size": OPTIONAL_INT,
    "/autotuning/metric_path": OPTIONAL_TEXT,
    "/autotuning/model_info_path": OPTIONAL_TEXT,
    **named("/autotuning/model_info", "hidden_size num_layers num_params", OPTIONAL_INT),
    # runtime/model_checkpointing/constants.py
    "/checkpoint/tag_validation": {
        **choice("WARN", "IGNORE", "FAIL"),
        "any_case": True,
        "checked": True,
    },
    "/checkpoint/writer/type": {
        **choice("MOCK", "PYTHON", "FAST", optional=True),
        "any_case": True,
        "checked": True,
    },
    "/checkpoint/writer/data_parallel": {
        **choice("REPLICA", "SOCKET", "MACHINE", optional=True),
        "any_case": True,
        "checked": True,
    },
    # runtime/model_checkpointing/writer_factory.py:75: the size of a tensor
    "/checkpoint/writer/io_buffer_size": {**INT, "ge": 0, "checked": True},
    # runtime/config.py:403: `in [True, False]`, which 0 and 1 are as well
    "/checkpoint/parallel_write/pipeline_stage": {**BOOL, "checked": True, "or_number": True},
    # runtime/engine.py:1799: DtypeEnum
    "/data_types/grad_accum_dtype": {**choice(*FLOAT_DTYPE, optional=True), "checked": True},
    "/data_types/param_dtype": {**choice(*FLOAT_DTYPE, optional=True), "checked": True},
    "/data_types/buffer_dtype": {**choice(*ANY_DTYPE, optional=True), "checked": True},
    "/data_types/keep_in_fp32_modules": {
        "type": "union",
        "members": [choice("auto"), {"type": "list", "items": TEXT}],
        "checked": True,
    },
    "/data_efficiency/data_sampling/curriculum_learning/curriculum_metrics": DICT,
    # runtime/data_pipeline/config.py:100-102: int()
    **named(
        "/data_efficiency/data_sampling/dynamic_batching",
        "max_batch_size min_batch_size",
        {**INT, "checked": True, "converted": True},
    ),
    "/data_efficiency/data_sampling/dynamic_batching/max_tokens": INT,
    # module_inject/auto_ep_presets/base.py:107
    **named(
        "/expert_parallel",
        "expert_activation expert_pattern expert_w1 expert_w2 expert_w3 moe_layer_pattern num_experts_attr "
        "preset_model router_pattern shared_experts_gate_pattern shared_experts_pattern top_k_attr",
        OPTIONAL_TEXT,
    ),
    **named("/expert_parallel", "has_shared_experts route_norm", {**BOOL, "optional": True}),
    **named("/expert_parallel", "num_expert_groups num_limited_groups", OPTIONAL_INT),
    "/expert_parallel/load_balance_coeff": ANY,
    "/expert_parallel/routed_scaling_factor": {
        "type": "union",
        "members": [choice("auto"), {"type": "float"}],
    },
    "/expert_parallel/top_k": {"type": "union", "members": [choice("auto"), INT]},
    "/flops_profiler/output_file": OPTIONAL_TEXT,
    "/optimizer/type": {**OPTIONAL_TEXT, "checked": True},
    "/optimizer/params": {**DICT, "optional": True, "checked": True},
    "/optimizer/legacy_fusion": BOOL,
    "/scheduler/type": {**OPTIONAL_TEXT, "checked": True},
    "/scheduler/params": {**DICT, "checked": True},
    # runtime/pipe/engine.py:217, :135
    "/pipeline/activation_checkpoint_interval": {**INT, "checked": "pipeline"},
    **named("/pipeline", "grad_partitioned pipe_partitioned", {**BOOL, "checked": "pipeline"}),
    "/pipeline/stages": {"type": "union", "members": [choice("auto"), INT]},
    # ours: the first layer of each stage, and the end (docs/rendering.md)
    "/pipeline/partition": {"type": "union", "members": [TEXT, {"type": "list", "items": INT}]},
    # runtime/config.py:173-188
    "/torch_autocast/dtype": {**choice(*ANY_DTYPE), "checked": True},
    "/torch_autocast/lower_precision_safe_modules": {"type": "list", "items": TEXT, "checked": True},
}
"""`checked`: the engine raises for another type, at the first step at the latest; "pipeline": that of a
PipelineModule alone. Else it takes anything. `or_number`: 0 and 1 do as well; `converted`: whatever Python's
int() takes."""

VALIDATED: dict[str, dict[str, Any]] = {
    # runtime/precision_config.py:110-160: validators of the model that its fields do not show
    "/fp16/loss_scale": {"ge": 0, "finite": True, "no_bool": True},
    "/fp16/loss_scale_window": {"no_bool": True, "int_first": True},
    "/fp16/min_loss_scale": {"no_bool": True, "int_first": True},
    # runtime/zero/leaf_module_config.py:30: text is a list of one
    "/zero_optimization/leaf_module/classes": {"text_is_one": True},
    "/zero_optimization/leaf_module/names": {"text_is_one": True},
    "/zero_optimization/leaf_module/name_suffixes": {"text_is_one": True},
}
"""What pydantic models check besides their fields' types."""

FREE_SECTIONS = frozenset(
    {
        # handed on whole to the samplers: runtime/data_pipeline/config.py:130, :172
        "/data_efficiency/data_sampling/curriculum_learning",
        "/data_efficiency/data_routing/random_ltd",
    }
)
"""Sections that take any key."""

NEVER_READ = frozenset(
    {
        # Parsed by runtime/config.py:503; the one consumer is deepspeed.checkpointing.configure, which the
        # engine does not call.
        "/activation_checkpointing",
        # No reader: runtime/pipe/engine.py:135-218 reads the other keys of the section.
        "/pipeline/stages",
        "/pipeline/partition",
        "/pipeline/seed_layers",
    }
)

OPTIMIZERS: dict[str, dict[str, tuple[str, str]]] = {
    "adam": {
        "gpu": ("deepspeed.ops.adam", "FusedAdam"),
        "offload": ("deepspeed.ops.adam", "DeepSpeedCPUAdam"),
        "zenflow": ("deepspeed.ops.adam", "ZenFlowCPUAdam"),
        "torch_adam": ("torch.optim", "AdamW"),
    },
    "adagrad": {
        "gpu": ("torch.optim", "Adagrad"),
        "offload": ("deepspeed.ops.adagrad", "DeepSpeedCPUAdagrad"),
    },
    "lamb": {"gpu": ("deepspeed.ops.lamb", "FusedLamb")},
    "lion": {
        "gpu": ("deepspeed.ops.lion", "FusedLion"),
        "offload": ("deepspeed.ops.lion", "DeepSpeedCPULion"),
    },
}
"""Name in the file, lower case -> variant -> class (runtime/engine.py:2371-2540). AdamW is as Adam."""
