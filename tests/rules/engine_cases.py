"""What the real engine does with configurations that break rules: cases of `engine_probe`."""

from __future__ import annotations

from typing import Any

from vdsgen.rules.removed import GONE

Case = dict[str, Any]

TORCH_ADAM = {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}
"""No case needs a compiled operator."""
SGD = {"type": "SGD", "params": {"lr": 0.1}}
CPU = {"device": "cpu", "pin_memory": False}
ZENFLOW = {"select_strategy": "step", "select_interval": 8, "update_interval": 4}


def config(stage: int = 2, dtype: str = "bf16", zero: dict[str, Any] | None = None, **changes: Any) -> Case:
    """A configuration that the engine takes, with changes at the top level and within ZeRO."""
    made: Case = {
        "train_batch_size": 8,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 4,
        "optimizer": TORCH_ADAM,
        "zero_optimization": {"stage": stage, "reduce_bucket_size": 1000, "allgather_bucket_size": 1000},
        "steps_per_print": 1000,
    }
    if dtype != "fp32":
        made[dtype] = {"enabled": True}
    made["zero_optimization"] |= zero or {}
    return {key: value for key, value in (made | changes).items() if value is not None}


def built(*args: Any, **kwargs: Any) -> Case:
    return {"config": config(*args, **kwargs)}


def in_pipeline(stage: int = 1, *args: Any, **kwargs: Any) -> Case:
    return {"config": config(stage, *args, **kwargs), "pipeline": 1}


def scheduler(kind: str, **params: Any) -> Case:
    return built(scheduler={"type": kind, "params": params})


def called(expression: str, modules: dict[str, str], **more: Any) -> Case:
    return {"call": expression, "modules": modules, **more}


def compiled(stage: int = 3, zero: dict[str, Any] | None = None, **section: Any) -> Case:
    """engine.compile() is what looks at the section."""
    changed: Case = built(stage, zero=zero, compile={"deepcompile": True} | section)
    return changed | {"reads": ["engine.compile(backend='eager')"]}


def zenflow(stage: int = 2, offload: str = "cpu", **section: Any) -> Case:
    zero: dict[str, Any] = {"zenflow": ZENFLOW | section}
    if offload != "none":
        zero["offload_optimizer"] = CPU
    return built(stage, zero=zero)


GROUPS = {"groups": "deepspeed.utils.groups"}
ULYSSES = {"ulysses": "deepspeed.runtime.sequence_parallel.ulysses_sp"}
MUON = {"type": "Muon", "params": {"lr": 1e-3, "torch_adam": True}}
AUTOCAST = {"enabled": True, "dtype": "bf16"}
NO_SCATTER = {"reduce_scatter": False}
HALF_STATES = {"enabled": True, "bf16_master_weights_and_grads": True}

REFUSED: dict[str, list[Case]] = {
    "batch-positive": [built(1, train_batch_size=0, train_micro_batch_size_per_gpu=0)],
    "batch-product": [built(1, train_batch_size=9)],
    "batch-given": [built(train_batch_size=None, train_micro_batch_size_per_gpu=None)],
    "batch-numbers": [built(train_batch_size="auto")],
    "pipeline-divides-world": [built(1) | {"pipeline": 2}],
    "layout-fills-world": [built(1) | {"topology": [1, 2]}],
    "pipeline-zero": [in_pipeline(stage) for stage in (2, 3)],
    "pipeline-managed-accumulation": [in_pipeline(1, managed_gradient_accumulation=False)],
    "managed-accumulation-overlap": [
        built(stage, zero={"overlap_comm": True}, managed_gradient_accumulation=False) for stage in (0, 1)
    ],
    "pipeline-partition-method": [in_pipeline(1) | {"method": method} for method in ("profile", "best")],
    "dual-pipe-filled": [
        built(1, train_batch_size=2, gradient_accumulation_steps=1) | {"dual": True, "pipeline": 1}
    ],
    "autotp-sizes-agree": [
        called(
            "engine.DeepSpeedEngine._apply_autotp_partitioning("
            "types.SimpleNamespace(local_rank=-1, autotp_size=lambda: 2), None, "
            "tensor.TPTrainingConfig(autotp_size=2, tp={'tp_size': 4}))",
            {
                "engine": "deepspeed.runtime.engine",
                "tensor": "deepspeed.runtime.tensor_parallel.config",
                "types": "types",
            },
        )
    ],
    "autotp-divides-world": [
        called("groups._init_tp_groups_with_new_group(3)", GROUPS, world=4),
    ],
    "sequence-divides-world": [
        called(
            "parallel.initialize_sequence_parallel(3)",
            {"parallel": "deepspeed.runtime.sequence_parallel.parallel_state_sp"},
            world=4,
        )
    ],
    "experts-zero-3": [built(3) | {"experts": True}],
    "slurm-equal-nodes": [
        called(
            "runner.SlurmRunner.validate_active_resources({'a': [0, 1, 2], 'b': [0]})",
            {"runner": "deepspeed.launcher.multinode_runner"},
        )
    ],
    "one-half-precision": [built(1, fp16={"enabled": True})],
    "gpu-has-fp16": [built(1, "fp16") | {"lacks": ["fp16"]}],
    "gpu-has-bf16": [built(1) | {"lacks": ["bf16"]}],
    "accumulation-needs-zero": [
        built(0, data_types={"grad_accum_dtype": "fp32"}),
        built(0, "fp16", data_types={"grad_accum_dtype": "fp32"}),
        in_pipeline(0, data_types={"grad_accum_dtype": "fp32"}),
    ],
    "parameter-dtype": [built(data_types={"param_dtype": "fp16"})],
    "fp16-master-weights-zero": [built(0, fp16={"enabled": False, "fp16_master_weights_and_grads": True})],
    "bf16-master-weights-zero": [built(0, bf16=HALF_STATES)],
    "bf16-states-zero": [built(0, bf16={"enabled": True, "bf16_optimizer_states": True})],
    "bf16-states-master-weights": [built(2, bf16={"enabled": True, "bf16_optimizer_states": True})],
    "master-weights-exclusive": [
        built(stage, bf16=HALF_STATES, fp16={"enabled": False, "fp16_master_weights_and_grads": True})
        for stage in (1, 2, 3)
    ],
    "fp16-master-weights-cpu-adam": [
        built(stage, "fp32", fp16={"enabled": True, "fp16_master_weights_and_grads": True})
        for stage in (1, 2, 3)
    ],
    "bf16-master-weights-cpu-adam": [
        built(2, bf16=HALF_STATES),
        built(3, bf16=HALF_STATES, zero={"offload_optimizer": CPU}),
    ],
    "loss-scale-not-negative": [built(2, "fp32", fp16={"enabled": True, "loss_scale": -2})],
    "loss-scale-window": [built(2, "fp32", fp16={"enabled": True, "loss_scale_window": 0})],
    "loss-scale-minimum": [built(2, "fp32", fp16={"enabled": True, "min_loss_scale": 0})],
    "loss-scale-start-finite": [
        built(2, "fp32", fp16={"enabled": True, "initial_scale_power": 64}) | {"steps": 1},
        built(0, "fp32", fp16={"enabled": True, "initial_scale_power": 1024}) | {"steps": 1},
    ],
    "steps-per-print-zero": [built(steps_per_print=0) | {"steps": 1}],
    "pipeline-timed-steps": [
        in_pipeline(1, **timed, steps_per_print=None) | {"steps": 1}
        for timed in ({"wall_clock_breakdown": True}, {"flops_profiler": {"enabled": True}})
    ],
    "zero-stage-exists": [built(4)],
    "allgather-bucket-even": [built(stage, zero={"allgather_bucket_size": 1001}) for stage in (1, 2)],
    "zero-legacy-stage-1": [built(stage, zero={"legacy_stage1": True}) for stage in (1, 2, 3)],
    "grad-norm-stage": [built(stage, zero={"compute_grad_norm": False}) for stage in (0, 3)],
    "grad-norm-clipping": [built(zero={"compute_grad_norm": False}, gradient_clipping=1.0)],
    "grad-norm-zenflow": [
        built(
            zero={"compute_grad_norm": False, "zenflow": {}, "offload_optimizer": CPU}, gradient_clipping=0
        ),
    ],
    "grad-norm-offload": [
        built(zero={"compute_grad_norm": False, "offload_optimizer": CPU}, gradient_clipping=0)
    ],
    "grad-norm-bf16-optimizer": [
        built(1, zero={"compute_grad_norm": False}, data_types={"grad_accum_dtype": "fp32"})
    ],
    "zero-loading-in-turn": [
        built(2, zero={"pipeline_loading_checkpoint": True})
        | {"reads": ["engine.save_checkpoint(folder)", "engine.load_checkpoint(folder)"]}
    ],
    "hpz-divides-world": [called("groups._create_zero_param_parallel_group(3)", GROUPS, world=4)],
    "quantized-gradients-whole-nodes": [
        called("groups._get_local_all_to_all_group()", GROUPS, world=4, devices=3)
    ],
    "quantized-gradients-scattered": [
        built(3, zero={"zero_quantized_gradients": True, "reduce_scatter": False})
    ],
    "quantized-weights-autocast": [
        built(3, "fp32", zero={"zero_quantized_weights": True}, torch_autocast=AUTOCAST)
    ],
    "offload-ratio-stage-3": [built(2, zero={"offload_optimizer": CPU | {"ratio": 0.5}})],
    "offload-ratio-range": [
        built(3, zero={"offload_optimizer": CPU | {"ratio": ratio}}) for ratio in (1.5, -1)
    ],
    "offload-ratio-cpu-adam": [built(3, zero={"offload_optimizer": CPU | {"ratio": 0.5}})],
    "offload-client-optimizer": [
        built(2, zero={"offload_optimizer": CPU}, optimizer=None) | {"client": ["optimizer"]}
    ],
    "offload-nvme-path": [built(3, zero={"offload_optimizer": {"device": "nvme"}})],
    "super-offload-cuda": [built(3, zero={"offload_optimizer": CPU | {"super_offload": True}})],
    "super-offload-cores": [
        called(
            "superoffload.SuperOffloadCPUOptimizer({}, cpuadam_cores_perc=0.0)",
            {"superoffload": "deepspeed.runtime.superoffload.superoffload_utils"},
        )
    ],
    "zenflow-offload": [zenflow(offload="none")],
    "zenflow-optimizer": [
        zenflow(0, offload="none") | {"steps": 1},
        built(1, zero={"zenflow": ZENFLOW}, data_types={"grad_accum_dtype": "fp32"}) | {"steps": 1},
    ],
    "zenflow-strategy": [zenflow(select_strategy="often")],
    "zenflow-auto-interval": [zenflow(select_strategy="auto")],
    "zenflow-interval": [zenflow(select_interval="auto")],
    "zenflow-update-positive": [zenflow(update_interval=0)],
    "zenflow-select-covers-update": [zenflow(select_interval=2)],
    "zenflow-offload-overlap": [
        built(
            zero={"zenflow": ZENFLOW | {"offload": True}, "offload_optimizer": CPU},
            optimizer=SGD,
            zero_allow_untested_optimizer=True,
        )
    ],
    "zenflow-optimizer-params": [zenflow()],
    "communication-dtype": [built(communication_data_type="int8")],
    "sequence-communication-dtype": [built(seq_parallel_communication_data_type="int8")],
    "allreduce-operation": [built(gradient_allreduce_op="max")],
    "allreduce-sum-stage-3": [built(3, gradient_allreduce_op="sum")],
    "allreduce-sum-zenflow": [built(zero={"zenflow": {}}, gradient_allreduce_op="sum")],
    "allreduce-sum-deepcompile": [built(gradient_allreduce_op="sum", compile={"deepcompile": True})],
    "fp16-auto-cast-off": [
        built(0, "fp32", fp16={"enabled": False, "auto_cast": True}) | {"steps": 1},
        built(2, fp16={"enabled": False, "auto_cast": True}) | {"steps": 1},
    ],
    "predivide-zero": [built(0, "fp32", gradient_predivide_factor=0) | {"steps": 1}],
    "predivide-reduce-scatter": [built(stage, gradient_predivide_factor=2.0) for stage in (2, 3)],
    "prescale-reduce-scatter": [built(stage, prescale_gradients=True) for stage in (2, 3)],
    "optimizer-exists": [built(optimizer={"type": "sgd", "params": {"lr": 0.1}})],
    "optimizer-removed": [
        built(optimizer={"type": name, "params": {"lr": 0.1}})
        for name in ("OneBitAdam", "ZeroOneAdam", "OneBitLamb")
    ],
    "optimizer-clipping": [built(optimizer={"type": "AdamW", "params": {"max_grad_norm": 0.7}})],
    "optimizer-lamb-scale": [
        built(0, "fp32", fp16={"enabled": True, "loss_scale": 128}, optimizer={"type": "Lamb", "params": {}})
    ],
    "optimizer-tested-with-zero": [
        built(stage, optimizer=SGD) for stage in (1, 2, 3)
    ],
    "zero-needs-optimizer": [built(stage, optimizer=None) for stage in (1, 2)],
    "optimizer-params": [
        built(optimizer={"type": "AdamW", "params": {"lr": 1e-3, "momentum": 0.9, "torch_adam": True}}),
        built(optimizer={"type": "AdamW", "params": {"lr": 1e-3, "fused": True}}),
        built(
            optimizer={"type": "Adam", "params": {"lr": 1e-3, "set_grad_none": True}},
            zero={"offload_optimizer": CPU},
        ),
    ],
    "optimizer-fused-or-foreach": [
        built(optimizer={"type": "AdamW", "params": {"fused": True, "foreach": True, "torch_adam": True}})
    ],
    "optimizer-amsgrad": [built(optimizer={"type": "AdamW", "params": {"amsgrad": True}})],
    "muon-reduce-scatter": [built(3, optimizer=MUON)],
    "muon-quantized-gradients": [
        built(3, optimizer=MUON, zero=NO_SCATTER | {"zero_quantized_gradients": True})
    ],
    "muon-pipeline": [in_pipeline(1, optimizer=MUON, data_types={"grad_accum_dtype": "fp32"})],
    "optimizer-class-params": [
        built(optimizer={"type": "Adagrad", "params": {"lr": 1e-3, "momentum": 0.9}}),
        built(0, optimizer={"type": "SGD", "params": {"lr": 1e-3, "betas": [0.9, 0.95]}}),
    ],
    "optimizer-param-values": [
        built(optimizer={"type": "AdamW", "params": {"lr": -1.0, "torch_adam": True}}),
        built(optimizer={"type": "AdamW", "params": {"lr": "0.1", "torch_adam": True}}),
        built(optimizer={"type": "AdamW", "params": {"betas": [0.9, 1.0], "torch_adam": True}}),
    ],
    "scheduler-class-params": [
        built(0, "fp32", scheduler={"type": "StepLR", "params": {}}),
        built(0, "fp32", scheduler={"type": "StepLR", "params": {"step_size": 1, "warmup": 1}}),
    ],
    "scheduler-torch-wrapped": [scheduler("StepLR", step_size=1)],
    "scheduler-param-values": [scheduler("WarmupLR", warmup_max_lr="0.1")],
    "scheduler-exists": [scheduler("Warmup")],
    "scheduler-params-given": [built(scheduler={"type": "WarmupLR"})],
    "scheduler-params-complete": [
        scheduler("WarmupDecayLR"), scheduler("WarmupCosineLR"), scheduler("OneCycle", cycle_min_lr=0.1),
    ],
    "scheduler-params-known": [
        scheduler("WarmupLR", warmup_ratio=0.1),
        scheduler("WarmupLR", total_num_steps=10),
        scheduler("WarmupDecayLR", total_num_steps=10, cos_min_ratio=0.1),
        scheduler("WarmupCosineLR", total_num_steps=10, warmup_max_lr=0.1),
        scheduler("LRRangeTest", warmup_max_lr=0.1),
        scheduler("OneCycle", cycle_min_lr=0.1, cycle_max_lr=1.0, warmup_max_lr=0.1),
    ],
    "scheduler-warmup-positive": [
        scheduler("WarmupLR", warmup_num_steps=0),
        scheduler("WarmupLR", warmup_num_steps=0.5),
        scheduler("WarmupCosineLR", total_num_steps=10, warmup_num_steps=-1),
    ],
    "scheduler-range-step": [scheduler("LRRangeTest", lr_range_test_step_size=0)],
    "scheduler-cycle": [
        scheduler("OneCycle", cycle_min_lr=0.1, cycle_max_lr=1.0, cycle_first_step_size=0),
        scheduler("OneCycle", cycle_min_lr=0.1, cycle_max_lr=1.0, cycle_second_step_size=-1),
    ],
    "checkpointing-contiguous-partitioned": [
        called(
            "checkpointing.configure(None, deepspeed_config=config)",
            {"checkpointing": "deepspeed.runtime.activation_checkpointing.checkpointing"},
            config=config(activation_checkpointing={"contiguous_memory_optimization": True}),
        )
    ],
    "checkpointing-contiguous-number": [
        called(
            "checkpointing.configure(None, deepspeed_config=config)",
            {"checkpointing": "deepspeed.runtime.activation_checkpointing.checkpointing"},
            config=config(
                activation_checkpointing={
                    "contiguous_memory_optimization": True, "partition_activations": True,
                }
            ),
        )
    ],
    "checkpoint-tags": [built(checkpoint={"tag_validation": "Perhaps"})],
    "checkpoint-parallel-write": [built(checkpoint={"parallel_write": {"pipeline_stage": "yes"}})],
    "resume-same-ranks": [
        built(2)
        | {
            "reads": [
                "engine.save_checkpoint(folder)",
                "setattr(engine, 'seq_dp_world_size', 2)",
                "engine.load_checkpoint(folder)",
            ]
        }
    ],
    "deepcompile-managed-accumulation": [
        built(managed_gradient_accumulation=False, compile={"deepcompile": True})
    ],
    "deepcompile-states-offload": [compiled(zero={"offload_optimizer": CPU}, offload_opt_states=True)],
    "deepcompile-activation-offload": [compiled(offload_activation=True, offload_parameters=True)],
    "deepcompile-autotp-alone": [compiled(2, passes=["autotp", "z1"])],
    "deepcompile-eager-experts": [compiled(2, autoep_non_moe=True)],
    "deprecated-beside-new": [
        built(zero={"cpu_offload": True, "offload_optimizer": CPU}),
        built(3, zero={"cpu_offload_param": True, "offload_param": CPU}),
        built(
            3,
            zero={
                "stage3_gather_fp16_weights_on_model_save": True,
                "gather_16bit_weights_on_model_save": True,
            },
        ),
    ],
    **{
        f"removed-{key.rpartition('/')[2].replace('_', '-')}": [
            built(zero={key.rpartition("/")[2]: 1}) if key.count("/") == 2 else built(**{key[1:]: {}})
        ]
        for key, *_ in GONE
    },
}  # fmt: skip
"""What the engine refuses, by the rule that says so: its message has the rule's words."""

NOT_REFUSED_HERE: dict[str, str] = {
    "offload-nvme-buffers": "swapping needs a drive and the asynchronous I/O operator",
    "sequence-heads": "raised while a Hugging Face model is registered, with sequence parallel groups",
    "sequence-key-value-heads": "as sequence-heads",
    "sequence-tokens": "raised by the data loader of sequence parallel ranks",
    "autotp-liger": "raised while a model is split between two ranks",
    "zenflow-torch": "the torch that is installed is newer",
    "autocast-fp16-stages": "as pipeline-stages-timed",
    "pipeline-stages-timed": "needs two stages: tests/review/lint/disagreements.py has cases",
    "checkpoint-writer-unit": "pipelines leave groups behind in this process: a case is in disagreements.py",
    "deepcompile-one-offload": "comes after DeepCompile's CUDA operator is built",
}
"""Rules whose source cannot run here, and why; the text at the source line is looked for all the same."""

STAGE_3_OPTIMIZER = "type(engine.optimizer).__name__"
LR = "[group['lr'] for group in engine.optimizer.param_groups]"

TAKEN: dict[str, tuple[Case, list[Any]]] = {
    "interval-within-blocks": (
        in_pipeline(1, pipeline={"activation_checkpoint_interval": 49})
        | {"reads": ["len(engine.module.is_checkpointable_results)"]},
        [1],
    ),
    "pipeline-overlap-comm": (
        in_pipeline(1, zero={"overlap_comm": True})
        | {"reads": ["engine.zero_overlap_comm()", "engine.optimizer.overlap_comm"]},
        [True, False],
    ),
    "pipeline-unread-keys": (
        in_pipeline(1, pipeline={"stages": 7, "partition": "type:none", "seed_layers": True})
        | {"reads": ["engine.num_stages", "engine.module.seed_layers"]},
        [1, False],
    ),
    "pipeline-section-unused": (
        built(pipeline={"activation_checkpoint_interval": 1}) | {"reads": ["hasattr(engine, 'num_stages')"]},
        [False],
    ),
    "bf16-keys-unread": (
        built(2, bf16={"enabled": True, "immediate_grad_update": True})
        | {"reads": ["hasattr(engine.optimizer, 'immediate_grad_update')"]},
        [False],
    ),
    "fp16-keys-unread": (
        built(2, fp16={"enabled": False, "initial_scale_power": 4})
        | {"reads": ["engine.optimizer.loss_scaler.cur_scale"]},
        [1],
    ),
    "loss-scale-static-keys": (
        built(2, "fp32", fp16={"enabled": True, "loss_scale": 128, "initial_scale_power": 4})
        | {"reads": ["engine.optimizer.loss_scaler.cur_scale", "engine.optimizer.loss_scaler.dynamic"]},
        [128, False],
    ),
    "loss-scale-hysteresis": (
        built(0, "fp32", fp16={"enabled": True, "hysteresis": 8})
        | {
            "reads": [
                "engine.optimizer.loss_scale_config.cur_scale",
                "engine.optimizer._update_scale(True)",
                "engine.optimizer.loss_scale_config.cur_scale",
            ]
        },
        [65536, None, 32768],
    ),
    "zero-contiguous-offload": (
        built(2, zero={"contiguous_gradients": False, "offload_optimizer": CPU})
        | {"reads": ["engine.optimizer.contiguous_gradients"]},
        [True],
    ),
    "zero-stage-3-keys": (
        built(2, zero={"stage3_max_live_parameters": 7, "sub_group_size": 7})
        | {"reads": ["hasattr(engine.optimizer, 'sub_group_size')"], "steps": 1},
        [False],
    ),
    "zero-stage-1-2-keys": (
        built(3, zero={"round_robin_gradients": True, "allgather_bucket_size": 1001})
        | {"reads": ["hasattr(engine.optimizer, 'round_robin_gradients')"], "steps": 1},
        [False],
    ),
    "zero-off-keys": (
        built(0, zero={"reduce_scatter": False, "reduce_bucket_size": 1})
        | {"reads": ["hasattr(engine.optimizer, 'reduce_bucket_size')"], "steps": 1},
        [False],
    ),
    "bf16-optimizer-keys": (
        built(1, zero={"reduce_bucket_size": 1}, data_types={"grad_accum_dtype": "fp32"})
        | {"reads": [STAGE_3_OPTIMIZER, "hasattr(engine.optimizer, 'reduce_bucket_size')"], "steps": 1},
        ["BF16_Optimizer", False],
    ),
    "gathering-keys-unread": (
        built(2, zero={"allgather_partitions": False}, disable_allgather=True) | {"steps": 1}, [],
    ),
    "zero-3-elastic-checkpoint": (
        built(3, zero={"elastic_checkpoint": True})
        | {"reads": ["engine.optimizer.elastic_checkpoint", "engine.save_checkpoint(folder)"]},
        [False, True],
    ),
    "zero-sequential-prefetch": (
        built(3, zero={"stage3_allgather_sequential": True, "stage3_prefetch_bucket_size": 1000})
        | {"reads": ["engine.zero_prefetch_bucket_size()", "engine.optimizer.prefetch_elements"]},
        [1, 1],
    ),
    "zeropp-stage-3": (
        built(2, zero={"zero_quantized_weights": True, "zero_hpz_partition_size": 8})
        | {"reads": ["hasattr(engine.optimizer, 'zero_hpz_partition_size')"], "steps": 1},
        [False],
    ),
    "offload-optimizer-zero": (
        built(0, zero={"offload_optimizer": CPU})
        | {"reads": ["hasattr(engine.optimizer, 'cpu_offload')"], "steps": 1},
        [False],
    ),
    "offload-parameters-stage-3": (
        built(2, zero={"offload_param": CPU})
        | {"reads": ["hasattr(engine.optimizer, 'offload_param')"], "steps": 1},
        [False],
    ),
    "offload-nvme-stage-3": (
        built(2, zero={"offload_optimizer": {"device": "nvme", "pin_memory": False}})
        | {
            "reads": ["engine.optimizer.cpu_offload", "hasattr(engine.optimizer, 'optimizer_swapper')"],
            "steps": 1,
        },
        [True, False],
    ),
    "offload-nvme-bf16-optimizer": (
        built(
            1,
            zero={"offload_optimizer": {"device": "nvme", "pin_memory": False}},
            data_types={"grad_accum_dtype": "fp32"},
        )
        | {"reads": [STAGE_3_OPTIMIZER], "steps": 1},
        ["BF16_Optimizer"],
    ),
    "offload-nvme-keys": (
        built(3, zero={"offload_optimizer": CPU | {"nvme_path": "/none", "buffer_count": 9}})
        | {"reads": ["engine.optimizer.optimizer_swapper"], "steps": 1},
        [None],
    ),
    "super-offload-stage-3": (
        built(2, zero={"offload_optimizer": CPU | {"super_offload": True}})
        | {"reads": [STAGE_3_OPTIMIZER], "steps": 1},
        ["DeepSpeedZeroOptimizer"],
    ),
    "super-offload-cores-unused": (
        built(3, zero={"offload_optimizer": CPU | {"cpuadam_cores_perc": 0.1}})
        | {"reads": [STAGE_3_OPTIMIZER], "steps": 1},
        ["DeepSpeedZeroOptimizer_Stage3"],
    ),
    "predivide-prescale": (
        built(1, gradient_predivide_factor=3.0, prescale_gradients=True)
        | {"reads": ["engine.optimizer.postscale_gradients"], "steps": 1},
        [False],
    ),
    "optimizer-section-unused": (
        built(optimizer={"type": "SGD", "params": {"lr": 7.0}})
        | {"client": ["optimizer"], "reads": ["type(engine.basic_optimizer).__name__", LR]},
        ["AdamW", "[0.001]"],
    ),
    "gradient-clipping-given": (
        built(2) | {"reads": ["engine.gradient_clipping()", "engine.optimizer.clip_grad"]}, [1.0, 1.0],
    ),
    "optimizer-adam-is-adamw": (
        built(0, "fp32", optimizer={"type": "Adam", "params": {"weight_decay": 0.1, "torch_adam": True}})
        | {"reads": ["type(engine.basic_optimizer).__name__"]},
        ["AdamW"],
    ),
    "muon-momentum-in-memory": (
        built(3, zero={"save_muon_momentum_buffer_in_memory": True})
        | {"reads": ["[name for name in vars(engine.optimizer) if 'momentum' in name][1:]"], "steps": 1},
        ["[]"],
    ),
    "scheduler-warmup-one": (
        scheduler("WarmupLR", warmup_num_steps=1) | {"reads": ["engine.lr_scheduler.warmup_num_steps"]}, [2],
    ),
    "scheduler-warmup-type": (
        scheduler("WarmupLR", warmup_type="cosine") | {"reads": ["engine.lr_scheduler.warmup_type"]}, ["log"],
    ),
    "scheduler-peak-given": (
        scheduler("WarmupDecayLR", total_num_steps=100)
        | {"reads": ["engine.lr_scheduler.max_lrs"]},
        ["[0.001]"],
    ),
    "scheduler-peak-is-rate": (
        scheduler("WarmupLR", warmup_max_lr=0.5, warmup_num_steps=2)
        | {"steps": 5, "reads": [LR]},
        ["[0.5]"],
    ),
    "scheduler-cycle-betas": (
        scheduler("OneCycle", cycle_min_lr=0.1, cycle_max_lr=1.0)
        | {"reads": ["engine.optimizer.param_groups[0]['betas'][1]"]},
        [0.99],
    ),
    "scheduler-section-unused": (
        scheduler("WarmupLR", warmup_max_lr=0.5)
        | {"client": ["optimizer", "scheduler"], "reads": ["type(engine.lr_scheduler).__name__"]},
        ["ConstantLR"],
    ),
    "scheduler-needs-optimizer": (
        built(0, "fp32", optimizer=None, scheduler={"type": "WarmupLR", "params": {}})
        | {"reads": ["engine.lr_scheduler"]},
        [None],
    ),
    "checkpointing-configured": (
        built(activation_checkpointing={"partition_activations": True, "cpu_checkpointing": True})
        | {"reads": ["__import__('deepspeed').checkpointing.is_configured()"], "steps": 1},
        [False],
    ),
    "deepcompile-zero": (
        built(0, compile={"deepcompile": True})
        | {"reads": ["engine.get_deepcompile_backend('eager', {}, None)"]},
        [None],
    ),
    "deepcompile-autotp-ranks": (
        built(1, compile={"deepcompile": True, "passes": ["autotp"]})
        | {"reads": ["engine.get_autotp_backend({})"]},
        [None],
    ),
    "deepcompile-autosp-stage": (
        built(2, compile={"deepcompile": True, "passes": ["autosp"]})
        | {"reads": ["engine.get_autosp_backend({})"]},
        [None],
    ),
    "deepcompile-on": (
        built(compile={"offload_opt_states": True})
        | {"reads": ["engine.is_deepcompile_enabled()"], "steps": 1},
        [False],
    ),
    "flops-profiler-clock": (
        built(flops_profiler={"enabled": True, "profile_step": 1000})
        | {"reads": ["engine.wall_clock_breakdown()"]},
        [True],
    ),
    "deprecated-pin-memory": (
        built(2, zero={"cpu_offload_use_pin_memory": False, "cpu_offload": True}, optimizer=TORCH_ADAM)
        | {"reads": ["engine._config.zero_config.offload_optimizer.pin_memory"]},
        [True],
    ),
    "bfloat16-beside-bf16": (
        built(2, bfloat16={"enabled": False}) | {"reads": ["engine.bfloat16_enabled()"]}, [True],
    ),
    "auto-is-default": (
        built(2, zero={"reduce_bucket_size": "auto"}) | {"reads": ["engine.zero_reduce_bucket_size()"]},
        [500_000_000],
    ),
}  # fmt: skip
"""What the engine takes and does nothing or something else with: a case, and what is read of the engine."""

NOT_TAKEN_HERE: dict[str, str] = {
    "offload-fast-init": "needs a drive and the asynchronous I/O operator",
    "communication-dtype-sequence": "needs two sequence parallel ranks",
    "checkpointing-partitioned-ranks": "needs an mpu; on one rank a partition is the whole",
    "zenflow-accumulation": "ZenFlow's optimizer starts a process of its own that it does not end",
}

ACCEPTED: list[Case] = (
    [
        {
            "config": config(
                stage,
                dtype,
                **({} if accumulation == dtype else {"data_types": {"grad_accum_dtype": accumulation}}),
            ),
            "pipeline": pipeline,
            "steps": 2,
        }
        for pipeline in (None, 1)
        for stage in ((0, 1, 2, 3) if pipeline is None else (0, 1))
        for dtype, accumulation in (("fp32", "fp32"), ("bf16", "bf16"), ("bf16", "fp32"), ("fp16", "fp16"))
        if stage > 0 or dtype == accumulation
    ]
    + [
        built(stage, zero={"offload_optimizer": CPU}, communication_data_type="fp32") | {"steps": 2}
        for stage in (1, 2, 3)
    ]
    + [
        built(3, zero={"offload_optimizer": CPU, "offload_param": CPU}) | {"steps": 2},
        in_pipeline(1, zero={"offload_optimizer": CPU}, data_types={"grad_accum_dtype": "fp32"})
        | {"steps": 2},
    ]
)
"""Everything that the planner may choose on one rank, in kind: it trains."""
